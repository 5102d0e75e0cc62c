"""A fleet on two nodes of Ray, whose processes are killed at random moments, goes on every time."""

import contextlib
import importlib.util
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from a3cjax.cluster.processes import Gone, Unreachable
from a3cjax.config.settings import Config
from a3cjax.runs.tables import EPISODES, read_columns
from a3cjax.training import cluster, train
from tests.cluster.test_fleet import assert_logs_tell_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

NUM_RUNS, NUM_KILLS = 4, 5  # in each run
CATCH = Config(
    env="Catch",
    cluster="ray",
    num_workers=2,
    num_actors=2,
    envs_per_actor=8,
    total_frames=1_000_000_000,  # ended by the test
    max_restarts=1_000,
    shard_save_period_updates=20,
    eval_episodes=0,
    video=False,
    tensorboard=False,
)


class Nodes:
    """A head and a second node, each a raylet with what it starts."""

    def __init__(self, folder):
        self.folder, self.numbers = folder, iter(range(100))
        self.head, self.second = None, None

    def start(self, *options):
        # Short: the names of sockets have at most 107 characters.
        where = f"--temp-dir={self.folder}"
        command = [Path(sys.executable).with_name("ray"), "start", *options, where, "--block"]
        # One core each, so that each has one of the workers.
        command += ["--num-cpus=1", "--object-store-memory=500000000"]
        with (self.folder / f"node-{next(self.numbers)}.txt").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def start_head(self):
        self.head = self.start("--head", "--port=0", "--include-dashboard=false")
        found = self.folder / "ray_current_cluster"
        wait_for(lambda: found.exists() and found.read_text().strip(), self.head)
        self.address = found.read_text().strip()

    def start_second(self):
        self.second = self.start(f"--address={self.address}")

    def kill_second(self):
        """As if its machine were switched off; also of what has left its process group."""
        assert self.second is not None
        family = [psutil.Process(self.second.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.second.wait()


def wait_for(is_there, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not is_there():
        assert process is None or process.poll() is None, "the node has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")  # Ray remembers the first token of a process
def nodes():
    words = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    monkeypatch = pytest.MonkeyPatch()
    for name, word in words.items():
        monkeypatch.setenv(name, word)
    folder = Path(f"/tmp/a3cjax-{secrets.token_hex(4)}")
    folder.mkdir()
    nodes = Nodes(folder)
    try:
        nodes.start_head()
        nodes.start_second()
        yield nodes
    finally:
        for node in (nodes.second, nodes.head):
            if node is not None and node.poll() is None:
                node.terminate()
                node.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        monkeypatch.undo()


class Killer:
    """A callback that kills somebody, waits until the run has gone on, and so again."""

    def __init__(self, nodes, seed, processes):
        self.nodes, self.random, self.processes = nodes, random.Random(seed), processes
        self.killed, self.num_updates, self.failure = [], 0, None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def on_update(self, event):
        self.num_updates = event.num_updates
        if not self.thread.is_alive() and not self.is_over.is_set():
            self.thread.start()
        return "stop" if self.is_over.is_set() else None

    def run(self):
        try:
            for _ in range(NUM_KILLS):
                self.kill(self.random.choice(["worker", "shard", "node"]))
                before = self.num_updates
                wait_for(lambda before=before: self.num_updates > before + 60, seconds=400)
        except BaseException as failure:
            self.failure = failure
        self.is_over.set()

    def kill(self, what):
        time.sleep(self.random.uniform(0, 4))
        where = {name: self.find(name) for name in ("worker", "shard")}
        if what == "node":
            second = {node for own in where.values() for _, node in own} - {self.head_node()}
            self.nodes.kill_second()
            self.nodes.start_second()
            what = "node with somebody" if second else "node"
        else:
            pid, _ = self.random.choice(where[what])
            os.kill(pid, signal.SIGKILL)
        self.killed.append(what)

    def find(self, name):
        """Process and node of those that are alive."""
        found = []
        for process in self.processes[name]:
            with contextlib.suppress(Gone, Unreachable):
                _, pid, node = process.describe().result()
                found.append((pid, node))
        return found

    def head_node(self):
        import ray

        return next(node["NodeID"] for node in ray.nodes() if node["Resources"].get(HEAD))


HEAD = "node:__internal_head__"


@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_a_fleet_survives_whoever_is_killed(nodes, monkeypatch, tmp_path, seed, capsys):
    spawn, processes = cluster.ClusterMuster._spawn, {"worker": [], "shard": []}

    def note(muster, make, *args, **options):
        process = spawn(muster, make, *args, **options)
        processes[make.__name__.removeprefix("make_")].append(process)
        return process

    monkeypatch.setattr(cluster.ClusterMuster, "_spawn", note)
    killer = Killer(nodes, seed, processes)
    settings = {"ray_address": nodes.address, "run_dir": str(tmp_path / "run"), "seed": seed}
    summary = train(CATCH.replace(**settings, num_shards=1 + seed % 2), callbacks=[killer])
    told = capsys.readouterr().out.splitlines()
    print(killer.killed, *(line for line in told if re.match("(worker|shard) ", line)), sep="\n")
    if killer.failure is not None:
        raise killer.failure
    assert len(killer.killed) == NUM_KILLS
    restarts = assert_logs_tell_all(summary)["num_restarts"].sum()
    assert restarts >= NUM_KILLS - killer.killed.count("node")
    returns = read_columns(summary.run_dir / EPISODES)[0]["episode_return"]
    assert returns[-500:].mean() > 0.5  # it has not forgotten what it learned
