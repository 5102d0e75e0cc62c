"""JAX as the program needs it: its settings, its devices, and where compiled programs are kept."""

import contextlib
import functools
import hashlib
import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
from jax.experimental.compilation_cache import compilation_cache

from a3cjax.errors import ConfigError
from a3cjax.system.files import user_cache
from a3cjax.system.machine import cpuinfo
from a3cjax.system.provenance import describe_versions

P = ParamSpec("P")
T = TypeVar("T")

# Settings that could break a run or change its results, found by training, resuming, loading and
# evaluating under every setting of JAX 0.10. One that a version of JAX lacks is left out.
SETTINGS: dict[str, Any] = {
    # A call returns when its result is there: the parallelism is that of the actors.
    "jax_cpu_enable_async_dispatch": False,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    # Random numbers follow from the run's seed alone, and a resumed run can read its saved keys.
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    # Numbers that are not finite are looked for, refused and counted by the program itself.
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_error_checking_behavior_nan": "ignore",
    # The program puts arrays where it wants them.
    "jax_default_device": None,
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}


class _OpenBlocks:
    """How many blocks of `jax_settings` are open, and the settings before the first of them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.num_open = 0
        self.before: dict[str, Any] = {}
        self.pid: int | None = None  # of the process that used JAX


_standing = _OpenBlocks()


@contextlib.contextmanager
def jax_settings() -> Iterator[None]:
    """Sets JAX as the program needs it inside the block, and as it was before after it.

    The settings are made for the process, and for the calling thread where it has its own (such as
    `with jax.enable_x64(True):`). Blocks may be nested and open in several threads at once: the
    last one to end restores what was there before the first. Meanwhile other threads of the process
    see these settings, too. A CPU client keeps what it was made with: one that JAX makes inside the
    block never dispatches asynchronously, and one made before goes on as before.

    Compiled programs are kept in `compilation_cache_dir()`, unless JAX has a folder for them.

    Raises:
      ConfigError: as in `check_jax`.
    """
    standing = _standing
    check_fork()
    with standing.lock:
        if standing.num_open == 0:
            standing.before = _set_jax(_needed(_values_of_process()))
        standing.num_open += 1
    try:
        with contextlib.ExitStack() as stack:
            for name, value in SETTINGS.items():
                # This thread may have a value of its own, which overrides that of the process.
                own = getattr(jax, name.removeprefix("jax_"), None)
                if own is not None:
                    stack.enter_context(own(value))
            check_jax()
            yield
    finally:
        with standing.lock:
            standing.num_open -= 1
            if standing.num_open == 0:
                _set_jax(standing.before)


def configure_jax() -> None:
    """As `jax_settings`, for the rest of the process."""
    _set_jax(_needed(_values_of_process()))
    check_jax()


def check_jax() -> None:
    """Raises a ConfigError unless JAX can compute in this process.

    It cannot if it finds no device, nor in a process that was forked from one which had used JAX:
    the threads that compute stayed behind, and JAX would wait for them for ever.
    """
    check_fork()
    try:
        jax.devices()
    except Exception as error:  # JAX raises RuntimeError, or AssertionError without a message
        platforms = jax.config.values["jax_platforms"]
        wanted = f" for JAX_PLATFORMS={platforms}" if platforms else ""
        reason = f": {error}" if str(error) else "."
        raise ConfigError(f"JAX finds no device{wanted}{reason}") from error
    _standing.pid = os.getpid()


def check_fork() -> None:
    """Raises a ConfigError in a process that was forked from one which had used JAX."""
    if _standing.pid not in (None, os.getpid()):
        raise ConfigError(
            f"This process was forked from process {_standing.pid}, which had used JAX, and would "
            'wait for its threads for ever: start it by multiprocessing.get_context("spawn") or '
            '"forkserver".'
        )


def _note_use() -> None:
    """Before a fork: remembers that this process has used JAX, whoever in it did."""
    with contextlib.suppress(ImportError, AttributeError):  # there is no public function for it
        from jax._src import xla_bridge  # pyright: ignore[reportPrivateImportUsage]

        if _standing.pid is None and xla_bridge.backends_are_initialized():
            _standing.pid = os.getpid()


os.register_at_fork(before=_note_use)


def _values_of_process() -> dict[str, Any]:
    """All settings of JAX as seen by a new thread, which has none of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: jax.config.values).result()


def _needed(values: dict[str, Any]) -> dict[str, Any]:
    """What must be set in a JAX whose settings are `values`."""
    needed = {name: value for name, value in SETTINGS.items() if name in values}
    if values["jax_compilation_cache_dir"] is None and (folder := compilation_cache_dir()):
        # The second run of a configuration starts without compiling.
        needed["jax_compilation_cache_dir"] = str(folder)
        needed["jax_persistent_cache_min_compile_time_secs"] = 0.2
        # JAX does not write an entry in one piece: another process may see part of it, or be killed
        # while writing. What cannot be read is compiled again, which needs no warning.
        warnings.filterwarnings(
            "ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning
        )
    return needed


def _set_jax(settings: dict[str, Any]) -> dict[str, Any]:
    """Sets JAX, and returns what was set before under these names."""
    values = _values_of_process()
    before = {name: values[name] for name in settings}
    for name, value in settings.items():
        if value != before[name]:  # setting it again would make JAX look up its programs again
            jax.config.update(name, value)
    if settings.get("jax_compilation_cache_dir") != before.get("jax_compilation_cache_dir"):
        compilation_cache.reset_cache()  # it may have settled on the other folder, or on none
    return before


def first_alone(program: Callable[P, T]) -> Callable[P, T]:
    """Makes threads wait for one another when they first call a program.

    The first call compiles it, for each device anew. If two threads did so at once, each would do
    all of the work; one that comes second finds it traced, and compiled in the cache.
    """
    turn, own = threading.Lock(), threading.local()

    @functools.wraps(program)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if hasattr(own, "has_called"):
            return program(*args, **kwargs)
        with turn:
            result = program(*args, **kwargs)
        own.has_called = True
        return result

    return call


def compilation_cache_dir() -> Path | None:
    """The user's folder for programs compiled by this jaxlib for this processor.

    None if it cannot be made. Compiled code runs only on processors with the same features, and
    different machines may share a home folder.
    """
    features = cpuinfo("flags", "Features")
    identity = "\n".join([describe_versions()["jaxlib"], platform.processor(), features])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = user_cache() / "compiled" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
