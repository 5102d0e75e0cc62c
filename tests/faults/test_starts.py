"""A thousand starts and stops in one process leave nothing behind."""

import contextlib
import gc
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from a3cjax.config.settings import Config
from a3cjax.training import train
from tests.conftest import child_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

NUM_STARTS = int(os.environ.get("A3CJAX_NUM_STARTS", "1000"))
CONFIG = Config(
    env="CartPole",
    total_frames=400,
    num_actors=2,
    envs_per_actor=2,
    unroll_length=5,
    warmup_steps=8,
    eval_episodes=1,
    max_episode_steps=20,
    video=False,
)


def open_files():
    """What the process has open, but for fonts: matplotlib keeps 64 of them."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            path = os.readlink(f"/proc/self/fd/{number}")
            if not path.endswith((".ttf", "/fd")):
                yield path


def look():
    """What a process could leave behind."""
    gc.collect()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "processes": child_processes(),
        "descriptors": sorted(open_files()),
        "files": sorted(path.name for path in Path(tempfile.gettempdir()).glob("a3cjax*")),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_starts_and_stops_leave_nothing_behind(tmp_path):
    generator, seconds = random.Random(0), []
    for index in range(NUM_STARTS + 3):
        if index == 3:  # imports, clients of XLA and caches are there from now on
            before, memory = look(), resident_bytes()
        config = CONFIG.replace(run_dir=str(tmp_path / str(index)), seed=index % 100)
        config = config.replace(eval_episodes=int(index % 5 == 0))
        timer = threading.Timer(
            generator.uniform(0.0, 1.2 * max(seconds, default=0.0)),
            lambda: os.kill(os.getpid(), signal.SIGINT),
        )
        is_stopped, began = index > 3 and index % 2, time.monotonic()
        if is_stopped:
            timer.start()
        with contextlib.suppress(KeyboardInterrupt):
            try:
                train(config)
            finally:
                timer.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            if is_stopped:
                timer.join()
        if not is_stopped and index >= 3:
            seconds = [*seconds[-20:], time.monotonic() - began]
    after = look()
    assert after == before
    grown = (resident_bytes() - memory) / NUM_STARTS
    print(f"{NUM_STARTS} starts, {grown / 1e3:.0f} kB of memory each, {seconds[-1]:.2f} s")
