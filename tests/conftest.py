"""What every test runs under: strict shapes, synchronous CPU, reproducible examples."""

import threading
import time

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.fakes import compilation_cache_options

# Arrays of different ranks must not meet by accident, here as in the main program.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Results are there when a call returns, so that an error points at the call that made it.
jax.config.update("jax_cpu_enable_async_dispatch", False)


@pytest.fixture(scope="session", autouse=True)
def own_compilation_cache(tmp_path_factory):
    """Keeps compiled programs out of the user's folder, where `configure_jax` would put them."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "compiled"))


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """The runs of a file share their compiled programs: a second instead of ten each."""
    options = compilation_cache_options(tmp_path_factory)
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


# The same examples on every run, and no deadline: the first example of a test compiles.
hypothesis.settings.register_profile(
    "a3cjax", max_examples=25, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("a3cjax")

THREAD_GRACE_SECONDS = 2.0


@pytest.fixture(autouse=True)
def no_thread_left_behind():
    """Fails a test that ends while a thread it started still runs."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_SECONDS
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"threads still running after the test: {alive}"
