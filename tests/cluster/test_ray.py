"""Whole runs on Ray; test_fleet.py has all that can be seen without it."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from a3cjax.actors.supervisor import Stopped
from a3cjax.commands.ending import describe
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.tables import METRICS
from a3cjax.training import cluster_muster, train
from a3cjax.training.cluster_muster import SHARDS
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


def test_sigterm_saves_a_run_on_ray_as_any_other(tmp_path, ray_address):
    folder = tmp_path / "run"
    settings = {"cluster": "ray", "ray_address": ray_address, "run_dir": folder}
    settings |= {"total_frames": 100_000_000, "num_actors": 2, "num_workers": 2}
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "a3cjax", "train", "env=CartPole", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: num_rows(folder / METRICS), process)
        process.terminate()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: stopping, then saving" in said
    assert f"to go on: a3cjax train resume={folder}" in said
    assert json.loads((folder / "summary.json").read_text())["num_frames"] > 0
    assert not (folder / SHARDS).exists()


def num_rows(path):
    return path.exists() and len(path.read_text().splitlines()) > 1


def wait_for(is_there, process):
    deadline = time.monotonic() + 120
    while not is_there():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def ray_engine():
    pytest.importorskip("ray")
    from a3cjax.cluster import ray_engine

    return ray_engine


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nobody.invalid:6379"])
def test_an_address_where_nobody_listens_is_refused_at_once(tmp_path, ray_engine, address):
    rule = f"^ray_address must be that of a Ray that runs, got {address}: "
    config = CARTPOLE.replace(cluster="ray", ray_address=address, run_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=rule):
        train(config)


def test_a_program_that_uses_ray_is_told_what_to_do(tmp_path, ray_engine, monkeypatch):
    monkeypatch.setattr(ray_engine.ray, "is_initialized", lambda: True)
    config = CARTPOLE.replace(cluster="ray", run_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"this process uses Ray already.*ray\.shutdown"):
        train(config.replace(ray_address="auto"))
    with pytest.raises(ConfigError, match=r"has imported or joined Ray before, .* to the network"):
        train(config)


def test_what_cannot_be_sent_to_workers_is_refused_in_a_line(ray_engine):
    def fail(*_):
        raise TypeError("Could not serialize the argument ...") from ValueError("a lock")

    handle = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=fail))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine.ray, "remote", lambda _: handle)
        with pytest.raises(ConfigError, match=r"^env, network and algorithm must .*: a lock$"):
            ray_engine.RayEngine(is_local=True, log=None).spawn(print)


def raise_as_ray_handles(number):
    signal.signal(number, lambda number, _: sys.exit(number))
    signal.raise_signal(number)


def test_signals_are_the_programs_own_again_once_ray_is_there(ray_engine):
    came, numbers = [], (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        with pytest.raises(Stopped), ray_engine._own_signals():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped), ray_engine._own_signals():
            raise_as_ray_handles(signal.SIGTERM)
        assert came == [signal.SIGINT, signal.SIGTERM]
        with pytest.raises(SystemExit), ray_engine._own_signals():
            sys.exit(1)
        for number in numbers:
            signal.raise_signal(number)
        assert came == [signal.SIGINT, signal.SIGTERM, *numbers]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_sigterm_while_ray_starts_is_no_fault_of_the_address(ray_engine, monkeypatch):
    monkeypatch.setattr(ray_engine.ray, "init", lambda **_: raise_as_ray_handles(signal.SIGTERM))
    came, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with pytest.raises(Stopped), ray_engine.ray_engine("auto"):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def test_a_line_is_said_before_the_process_dies(tmp_path, ray_engine):
    code = f"""if True:
        import os, sys, pathlib
        from a3cjax.cluster.ray_engine import _said_to
        with _said_to(pathlib.Path({str(tmp_path / "ray.log")!r})):
            print("worker 1 has died", file=sys.stderr)
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.PIPE)
    assert done.stderr.decode().endswith("worker 1 has died\n")


def test_of_a_death_ray_says_one_line(ray_engine):
    words = "The actor died unexpectedly.\n\tclass_name: Host\n\tpid: 7\nThe actor is dead because "
    death = ray_engine.Gone(ray_engine._reason_of(RuntimeError(f"{words}its node\nhas died.")))
    line = (
        "a process of the cluster has died for good: The actor is dead because its node has died."
    )
    assert describe(ExceptionGroup("several", [death, death])) == [line]


def test_where_ray_is_missing_a_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "a3cjax.cluster.ray_engine", raising=False)
    with pytest.raises(ConfigError, match=r"^cluster must be null where Ray is missing"):
        train(CARTPOLE.replace(cluster="ray", run_dir=str(tmp_path / "run")))


def test_ray_is_imported_by_those_who_ask_for_it():
    code = "import a3cjax, sys; a3cjax.train, a3cjax.Config; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
