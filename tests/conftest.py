"""What every test runs under: strict shapes, synchronous CPU, examples that come again, order."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import jax
import matplotlib
import pytest

from a3cjax.reports import run_curves
from a3cjax.runs.tables import CURVES
from a3cjax.system.machine import available_cores
from tests.fakes import PATIENCE_SECONDS, compilation_cache_options

# Looking for garbage among all that JAX has traced took 5 % of the time; so seldom it takes 1.5 %.
gc.set_threshold(50_000, 20, 50)
# Arrays of different ranks must not meet by accident, here as in the main program.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Results are there when a call returns, so that an error points at the call that made it.
jax.config.update("jax_cpu_enable_async_dispatch", False)


# A job in a shell's background, or under nohup, begins with these ignored; so would all it starts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)


QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def pytest_configure(config):
    """Lets XLA compile without optimising, which was most of the time of all tests.

    Slow tests run their programs for long, and have them optimised. XLA reads its flags when a
    process first uses it, and one that it does not know ends the process: so it is tried.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if config.option.markexpr == "not slow" and QUICK not in flags:
        tried = os.environ | {"XLA_FLAGS": f"{flags} {QUICK}"}  # what tests start inherits it
        using_jax = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(using_jax, env=tried, capture_output=True).returncode == 0:
            os.environ["XLA_FLAGS"] = tried["XLA_FLAGS"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than cores, since some tests wait; each takes a gigabyte, and four are enough."""
    return min(available_cores() + 1, 4)


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory):
    """Keeps compiled programs and the key of run folders out of the user's folder.

    All tests share their compiled programs: a second instead of ten for a run.
    """
    for name, value in compilation_cache_options(tmp_path_factory).items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # where fonts are listed already
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def curves_are_not_drawn(monkeypatch):
    """Spares runs that a test trains the picture at their end: a third of their time.

    Runs of fixtures for a module, and those of programs, draw theirs.
    """
    no_picture = b"\x89PNG"
    monkeypatch.setattr(
        run_curves, "plot_curves", lambda run_dir, _: (run_dir / CURVES).write_bytes(no_picture)
    )


# The same examples on every run, however long they take: the first one of a test compiles, and
# the machine may be busy.
hypothesis.settings.register_profile(
    "a3cjax",
    max_examples=25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
hypothesis.settings.load_profile("a3cjax")

ROOT = Path(__file__).parent.parent
FOLDERS_OF_CODE = ("a3cjax", "benchmarks/results", "docs", "examples", "experiments", "tests")


def child_processes() -> dict[str, str]:
    """Name and state of each process that this one has started, by its number; only on Linux."""
    found = {}
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread or the process has just ended
            for number in (thread / "children").read_text().split():
                found[number] = " ".join(Path(f"/proc/{number}/stat").read_text().split()[:3])
    return found


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Fails a test that ends while a thread or a process that it started still runs.

    A thread that was asked to stop may be compiling on a busy machine: it has time.
    """
    threads, processes = set(threading.enumerate()), child_processes()
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        left = [thread.name for thread in threading.enumerate() if thread not in threads]
        left += [name for number, name in child_processes().items() if number not in processes]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not left, f"still running after the test: {left}"


@pytest.fixture(scope="session", autouse=True)
def nothing_left_lying():
    """Fails the session if a test left a file in the working folder or that of the project."""

    def listed() -> set[Path]:
        # Caches of tools have names with a dot.
        paths = {path for folder in {ROOT, Path.cwd()} for path in folder.glob("[!.]*")}
        for folder in FOLDERS_OF_CODE:
            paths.update(p for p in (ROOT / folder).rglob("*") if "__pycache__" not in p.parts)
        return paths

    before = listed()
    yield
    new = sorted(map(str, listed() - before))
    assert not new, f"tests must write into tmp_path only, got {new}"
