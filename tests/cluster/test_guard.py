"""Who is left of a private Ray when its run has ended."""

import signal
import subprocess
import sys

import pytest

from a3cjax.cluster import guard


@pytest.fixture
def start(tmp_path):
    """Starts a process of some name that has a file of the run's folder open."""
    started = []

    def start_one(name):
        command = f"exec -a {name} sleep 600 > {tmp_path / 'ray/log'}"
        started.append(subprocess.Popen(["bash", "-c", command]))
        return started[-1]

    (tmp_path / "ray").mkdir()
    yield start_one
    for process in started:
        process.kill()
        process.wait()


def test_rays_own_processes_are_ended_and_nobody_else_is(start, tmp_path):
    package = tmp_path / "site-packages/ray"
    agent, raylet = start("ray::DashboardAgent"), start(f"{package}/core/raylet")
    reader = start("somebody")  # who looks into the log
    command = [sys.executable, "-I", guard.__file__, tmp_path / "ray", package]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    assert [agent.wait(), raylet.wait()] == [-signal.SIGKILL] * 2
    assert reader.poll() is None
    assert not (tmp_path / "ray").exists()
