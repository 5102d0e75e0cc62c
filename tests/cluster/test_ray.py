"""Whole runs on Ray; test_fleet.py has all that can be seen without it."""

import copy
import os
import signal
import subprocess
import sys

import pytest

from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.training import cluster_muster, train
from tests.cluster.test_fleet import Broken, Once, assert_logs_tell_all, assert_same_bits

CARTPOLE = Config(
    env="CartPole",
    num_actors=2,
    envs_per_actor=2,
    total_frames=6_000,
    warmup_steps=16,
    log_period_frames=500,
    eval_episodes=0,
    video=False,
    tensorboard=False,
)


@pytest.fixture
def processes(monkeypatch):
    """The first process of each kind that a run starts, by what makes its inside."""
    spawn, first = cluster_muster.ClusterMuster._spawn, {}

    def note(muster, make, *args, **options):
        process = spawn(muster, make, *args, **options)
        first.setdefault(make.__name__, process)
        return process

    monkeypatch.setattr(cluster_muster.ClusterMuster, "_spawn", note)
    return first


@pytest.fixture
def lanes(monkeypatch):
    """As on a Ray of one's own; the one of the tests is joined, and might have other machines."""
    pytest.importorskip("ray")
    from a3cjax.cluster.ray_engine import RayEngine

    monkeypatch.setattr(RayEngine, "shares_memory", True)


@pytest.fixture
def run(tmp_path, ray_address):
    """Trains on Ray, unless told otherwise."""
    numbers = iter(range(100))

    def train_once(config=CARTPOLE, callbacks=(), **changes):
        on_ray = {"cluster": "ray", "ray_address": ray_address, "num_workers": 2}
        settings = {"run_dir": str(tmp_path / str(next(numbers)))}
        settings |= {} if changes.get("cluster", "ray") is None else on_ray
        return train(config.replace(**(settings | changes)), callbacks=callbacks)

    return train_once


def test_processes_learn_what_threads_learn_to_the_last_bit(run, request, processes):
    turns = CARTPOLE.replace(deterministic=True)
    threads = run(turns, cluster=None)
    assert_same_bits(threads, run(turns))
    assert processes["make_shard"]._lanes is None
    processes.clear()
    request.getfixturevalue("lanes")
    assert_same_bits(threads, run(turns))
    assert processes["make_worker"]._lanes is None
    for shard in (processes["make_shard"], copy.copy(processes["make_shard"])):
        assert shard._lanes is not None
        assert not shard._lanes._is_off
    assert processes["make_shard"]._lanes._free  # one was used, and given back


@pytest.mark.parametrize("which", ["worker", "shard"])
def test_a_process_that_is_killed_is_started_again(run, lanes, processes, capsys, which):
    def kill():
        _, pid, _ = processes[f"make_{which}"].describe().result()
        os.kill(pid, signal.SIGKILL)

    summary = run(CARTPOLE.replace(total_frames=60_000), [Once(20, kill)], num_shards=1)
    assert summary.num_frames >= 60_000
    assert_logs_tell_all(summary)
    assert "has died and is started again: 1 of 10" in capsys.readouterr().out


def test_what_an_environment_raises_ends_the_run_with_its_traceback(tmp_path, ray_address):
    config = CARTPOLE.replace(
        cluster="ray", ray_address=ray_address, num_workers=2, run_dir=str(tmp_path / "run")
    )
    with pytest.raises(ValueError, match="the game broke") as caught:
        train(config, env=Broken)
    assert 'raise ValueError("the game broke")' in "".join(caught.value.__notes__)


def test_where_ray_is_missing_a_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "a3cjax.cluster.ray_engine", raising=False)
    with pytest.raises(ConfigError, match=r"^cluster must be null where Ray is missing"):
        train(CARTPOLE.replace(cluster="ray", run_dir=str(tmp_path / "run")))


def test_ray_is_imported_by_those_who_ask_for_it():
    code = "import a3cjax, sys; a3cjax.train, a3cjax.Config; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
