"""A fleet on two nodes of Ray goes on, whoever is killed and whatever the network does."""

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
from a3cjax.training import cluster_muster, train
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


# Ray remembers the first token of a process.
WORDS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
}
# A network namespace, its link to ours, and the addresses at both ends.
SPACE, LINK, FAR_LINK = "a3cjax", "a3cjax0", "a3cjax1"
HERE, THERE = "10.77.0.1", "10.77.0.2"


class Nodes:
    """A head and a second node, each a raylet with what it starts.

    `is_far`: the second one is behind a link that can be made slow, and broken.
    """

    def __init__(self, folder, *, is_far=False):
        self.folder, self.numbers, self.is_far = folder, iter(range(100)), is_far
        self.head, self.second = None, None

    def start(self, *options, before=()):
        # Short: the names of sockets have at most 107 characters.
        where = f"--temp-dir={self.folder}"
        command = [*before, Path(sys.executable).with_name("ray"), "start", *options, where]
        # One core each, so that each has one of the workers.
        command += ["--block", "--num-cpus=1", "--object-store-memory=500000000"]
        with (self.folder / f"node-{next(self.numbers)}.txt").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def start_head(self):
        own = [f"--node-ip-address={HERE}"] if self.is_far else []
        self.head = self.start("--head", "--port=0", "--include-dashboard=false", *own)
        found = self.folder / "ray_current_cluster"
        wait_for(lambda: found.exists() and found.read_text().strip(), self.head)
        self.address = found.read_text().strip()

    def start_second(self):
        own = [f"--node-ip-address={THERE}"] if self.is_far else []
        before = ["ip", "netns", "exec", SPACE] if self.is_far else []
        self.second = self.start(f"--address={self.address}", *own, before=before)

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


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Nodes that were started again stay for the next test."""


@contextlib.contextmanager
def running_nodes(**options):
    folder = Path(f"/tmp/a3cjax-{secrets.token_hex(4)}")
    folder.mkdir()
    nodes = Nodes(folder, **options)
    monkeypatch = pytest.MonkeyPatch()
    for name, word in WORDS.items():
        monkeypatch.setenv(name, word)
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


@pytest.fixture(scope="module")
def nodes():
    with running_nodes() as nodes:
        yield nodes


def command(*words):
    subprocess.run(words, check=True)


def remove_link():
    """Remove namespace and link, if they are there: an interrupted run leaves them behind."""
    for words in (("link", "delete", LINK), ("netns", "delete", SPACE)):
        with contextlib.suppress(OSError):
            subprocess.run(("ip", *words), check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def far_nodes():
    remove_link()
    try:
        command("ip", "netns", "add", SPACE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there are no network namespaces here")
    within = ["ip", "netns", "exec", SPACE, "ip"]
    try:
        command("ip", "link", "add", LINK, "type", "veth", "peer", FAR_LINK, "netns", SPACE)
        command("ip", "address", "add", f"{HERE}/24", "dev", LINK)
        command("ip", "link", "set", LINK, "up")
        command(*within, "address", "add", f"{THERE}/24", "dev", FAR_LINK)
        command(*within, "link", "set", FAR_LINK, "up")
        command(*within, "link", "set", "lo", "up")
        with running_nodes(is_far=True) as nodes:
            yield nodes
    finally:
        remove_link()


class Breaker:
    """A callback that lets something happen to the network, by itself, at each step of a run."""

    def __init__(self, acts):
        self.acts, self.num_updates, self.failure = acts, 0, None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def on_update(self, event):
        self.num_updates = event.num_updates
        if not self.thread.is_alive() and not self.is_over.is_set():
            self.thread.start()
        return "stop" if self.is_over.is_set() else None

    def run(self):
        try:
            for act in self.acts:
                act()
                before = self.num_updates
                wait_for(lambda before=before: self.num_updates > before + 60, seconds=400)
        except BaseException as failure:
            self.failure = failure
            os.kill(os.getpid(), signal.SIGINT)  # the log may stand still
        self.is_over.set()


class Killer(Breaker):
    """Kills somebody, waits until the run has gone on, and so again."""

    def __init__(self, nodes, seed, processes):
        self.nodes, self.random, self.processes = nodes, random.Random(seed), processes
        self.killed = []
        super().__init__([self.kill] * NUM_KILLS)

    def kill(self):
        what = self.random.choice(["worker", "shard", "node"])
        time.sleep(self.random.uniform(0, 4))
        where = {name: places(own) for name, own in self.processes.items()}
        if what == "node":
            second = {node for own in where.values() for _, node in own} - {head_node()}
            self.nodes.kill_second()
            self.nodes.start_second()
            what = "node with somebody" if second else "node"
        else:
            pid, _ = self.random.choice(where[what])
            if what == "shard" and not all(map(has_begun, self.processes["shard"])):
                what = "shard, again"  # maybe one that was not told yet what to begin with
            os.kill(pid, signal.SIGKILL)
        self.killed.append(what)


def places(processes):
    """Process and node of those that are alive."""
    found = []
    for process in processes:
        with contextlib.suppress(Gone, Unreachable):
            _, pid, node = process.describe().result()
            found.append((pid, node))
    return found


def has_begun(shard):
    with contextlib.suppress(Gone, Unreachable):
        return bool(shard.submit("counts").result())
    return False


def head_node():
    import ray

    return next(node["NodeID"] for node in ray.nodes() if node["Resources"].get(HEAD))


HEAD = "node:__internal_head__"


def train_until_over(config, breaker):
    summary = None
    with contextlib.suppress(KeyboardInterrupt):
        summary = train(config, callbacks=[breaker])
    if breaker.failure is not None:
        raise breaker.failure
    return summary


@pytest.fixture
def processes(monkeypatch):
    """All that a run has started until now."""
    spawn, processes = cluster_muster.ClusterMuster._spawn, {"worker": [], "shard": []}

    def note(muster, make, *args, **options):
        process = spawn(muster, make, *args, **options)
        processes[make.__name__.removeprefix("make_")].append(process)
        return process

    monkeypatch.setattr(cluster_muster.ClusterMuster, "_spawn", note)
    return processes


@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_a_fleet_survives_whoever_is_killed(nodes, processes, tmp_path, seed, capsys):
    killer = Killer(nodes, seed, processes)
    settings = {"ray_address": nodes.address, "run_dir": str(tmp_path / "run"), "seed": seed}
    summary = train_until_over(CATCH.replace(**settings, num_shards=1 + seed % 2), killer)
    told = capsys.readouterr().out.splitlines()
    print(killer.killed, *(line for line in told if re.match("(worker|shard) ", line)), sep="\n")
    assert len(killer.killed) == NUM_KILLS
    # Who dies once more before it has gone on was started again once.
    num_seen = sum(map(killer.killed.count, ["worker", "shard", "node with somebody"]))
    assert assert_logs_tell_all(summary)["num_restarts"].sum() >= num_seen
    returns = read_columns(summary.run_dir / EPISODES)[0]["episode_return"]
    assert returns[-500:].mean() > 0.5  # it has not forgotten what it learned


def test_a_fleet_survives_a_network_that_is_slow_and_then_gone(far_nodes, processes, tmp_path):
    def look():
        assert len({node for _, node in places(processes["worker"])}) == 2

    def shape():
        limit = ("tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms")
        command("tc", "qdisc", "add", "dev", LINK, "root", *limit)

    def part():
        command("ip", "link", "set", LINK, "down")
        time.sleep(20)
        command("ip", "link", "set", LINK, "up")

    settings = {"ray_address": far_nodes.address, "run_dir": str(tmp_path / "run")}
    breaker = Breaker([look, shape, part])
    summary = train_until_over(CATCH.replace(**settings), breaker)
    assert_logs_tell_all(summary)
