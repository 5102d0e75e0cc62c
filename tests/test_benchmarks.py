"""Benchmarks: what they compute from what was measured; nothing here depends on seconds."""

import csv
import math
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from a3cjax.config.settings import Config
from a3cjax.training.measuring import Training
from tests.documents import ROOT
from tests.fakes import wait_until

sys.path.append(str(ROOT / "benchmarks"))  # scripts, which import one another by name

import ablation
import compare_peers
import free_environments
import learning
import scaling
import throughput
import timing_worker
from checkouts import Checkout, CheckoutError
from results_table import Results

# Stands for a checkout's package: steps a second are its `seed`, as many as asked for.
PACKAGE = {
    "__init__": "",
    "config/settings": """
def read_config(texts):
    print("a line of a library")
    return texts
""",
    "system/provenance": "def describe_commit(): return '0123456789abcdef'",
    "training/measuring": """
from types import SimpleNamespace
def emulator_rate(env, num_actors, envs_per_actor, seconds):
    return num_actors * envs_per_actor * seconds
class Training:
    def __init__(self, config):
        self.config = SimpleNamespace(num_actors=2, envs_per_actor=8, unroll_length=5)
        self.rate = float(config["seed"])
    def run(self, seconds):
        self._pop_reports()
        return {"steps_per_second": self.rate}
    def _pop_reports(self):
        return [SimpleNamespace(num_steps=40, staleness=3)] * 2
    def close(self): pass
""",
}


def read_rows(path):
    with path.open(newline="") as file:
        return {row["figure"]: row for row in csv.DictReader(file)}


@pytest.fixture
def package(tmp_path):
    """A folder with a package a3cjax of which just enough is there."""
    for name, text in PACKAGE.items():
        path = tmp_path / "a3cjax" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_checkout_times_the_package_of_its_own_folder(package):
    checkout = Checkout(package)
    assert checkout.commit == "0123456789abcdef"
    assert checkout.emulator_rate("Pong", 2, 8, 0.5) == 8.0
    for seed in ("70", "90", "70"):
        measurement = checkout.train({"seed": seed}, 0.0)
        assert measurement["steps_per_second"] == float(seed)
        assert measurement["staleness"] == [3, 3]
        assert measurement["shape"] == [2, 8, 5]
    checkout.close()


def test_checkout_that_is_none_or_ends_early_is_refused(package):
    with pytest.raises(CheckoutError, match="must hold a3cjax/"):
        Checkout(package / "a3cjax")
    checkout = Checkout(package)
    with pytest.raises(CheckoutError, match="ended with 1"):
        checkout.train({}, 0.0)  # there is no seed
    checkout.close()


def test_cpu_time_of_a_step_counts_all_threads(monkeypatch, capsys):
    """1.5 cores are busy: 100 steps a second take 15 ms of them each."""
    training = object.__new__(timing_worker.TimedTraining)
    training.config = SimpleNamespace(num_actors=2, envs_per_actor=8, unroll_length=10)
    training.last_reports = [SimpleNamespace(num_steps=80, staleness=n) for n in (1, 3)]
    monkeypatch.setattr(training, "run", lambda seconds: {"steps_per_second": 100.0}, raising=False)
    clock = SimpleNamespace(
        perf_counter=iter([10.0, 12.0, 20.0, 60.0]).__next__,
        process_time=iter([5.0, 8.0, 8.0, 9.0]).__next__,
    )
    monkeypatch.setattr(timing_worker, "time", clock)
    assert training.measure(2.0)["core_ms"] == pytest.approx(15.0)
    assert capsys.readouterr().err == ""
    training.measure(2.0)  # the same reports in forty seconds
    assert "100 steps/s by the actors' clocks, 4 by ours" in capsys.readouterr().err


class FakeCheckout:
    """Twice as fast in every measurement, from `rate` on; tells `calls` what it was asked."""

    def __init__(self, name, rate, calls):
        self.name, self.rate, self.calls, self.commit = name, rate, calls, f"{name}-commit+changes"

    def train(self, settings, seconds):
        self.calls.append(self.name)
        self.rate *= 2
        shares = {"env": 0.5, "act": 0.2, "learn": 0.2, "push": 0.1, "wait": 0.03, "hold": 0.01}
        more = {"core_ms": 100 / self.rate, "staleness": [1, 2, 9], "shape": [1, 8, 5]}
        return {"steps_per_second": self.rate, **shares, **more}

    def emulator_rate(self, env, num_actors, envs_per_actor, seconds):
        self.calls.append(env)
        return 800.0


def test_checkouts_take_turns_and_ratios_are_those_of_rounds(tmp_path, monkeypatch, capsys):
    calls, path = [], tmp_path / "results.csv"
    pair = [FakeCheckout("new", 30.0, calls), FakeCheckout("old", 20.0, calls)]
    opened = []

    class open_checkouts:  # noqa: N801
        def __init__(self, folders):
            opened.append(folders)

        def __enter__(self):
            return pair

        def __exit__(self, *_):
            pair[1].rate = 15.0  # of the second process

    monkeypatch.setattr(throughput, "open_checkouts", open_checkouts)
    options = ["--processes", "2", "--rounds", "2", "--results", str(path)]
    command = ["throughput.py", "--against", "before", "--cases", "CartPole", *options]
    monkeypatch.setattr(sys, "argv", command)
    throughput.main()

    assert [len(folders) for folders in opened] == [2, 2]
    assert calls == ["CartPole", "new", "old", "CartPole", "old", "new"] * 2
    rows = read_rows(path)
    # New 60, 120, 240, 480; old 40, 80, then 30, 60.
    assert float(rows["CartPole: training"]["median"]) == 180.0
    assert float(rows["CartPole of old-com+: training"]["median"]) == 50.0
    ratio = rows["CartPole: training / that of old-com+"]
    assert [float(ratio[name]) for name in ("median", "min", "max")] == [4.75, 1.5, 8.0]
    assert "(1.500 1.500 8.000 8.000)" in capsys.readouterr().out
    assert float(rows["CartPole: training / emulator"]["max"]) == pytest.approx(480 / 800)
    assert float(rows["CartPole: lock"]["median"]) == pytest.approx(4.0)
    assert float(rows["CartPole: staleness, median"]["median"]) == 2
    assert float(rows["CartPole: staleness, maximum"]["median"]) == 9
    assert float(rows["CartPole: CPU time / that of old-com+"]["min"]) == pytest.approx(1 / 8)


class FakeTraining:
    """Trains as fast as there are environments, and a percent faster every time."""

    def __init__(self, config):
        self.config = config
        self.rate = config.num_actors * config.envs_per_actor

    def run(self, seconds):
        self.rate *= 1.01
        return {"steps_per_second": self.rate / 1.01, "wait": 0.02, "hold": 0.01}

    def close(self):
        pass


def test_free_environments_are_timed_in_all_combinations_and_drawn(tmp_path, monkeypatch):
    drawn = {}

    def savefig(figure, path, dpi):
        for line in figure.axes[0].lines:
            drawn[line.get_label()] = (list(line.get_xdata()), list(line.get_ydata()))

    monkeypatch.setattr(scaling, "Training", FakeTraining)
    monkeypatch.setattr(Figure, "savefig", savefig)
    numbers = ["--actors", "1", "4", "--environments", "2", "8"]
    options = [*numbers, "--rounds", "1", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--env", "free", *options])
    scaling.main()
    rows = read_rows(tmp_path / "scaling-free.csv")
    assert {name: float(row["median"]) for name, row in rows.items() if "lock" not in name} == {
        **{"1 × 2": 2.0, "1 × 8": 8.0, "4 × 2": 8.0, "4 × 8": 32.0}
    }
    assert float(rows["4 × 8: lock"]["median"]) == pytest.approx(3.0)
    assert drawn == {"1 actor": ([2, 8], [2.0, 8.0]), "4 actors": ([2, 8], [8.0, 32.0])}


def test_free_environments_are_trained_in():
    config = Config(env=free_environments.NAME, num_actors=2, envs_per_actor=3, unroll_length=5)
    training = Training(config.replace(warmup_steps=4))
    result = training.run(0.0)
    training.close()
    assert training.config.network == "mlp_ff"
    assert sum(result[part] for part in ("env", "act", "learn", "push")) == pytest.approx(1.0)


def test_peers_are_compared_round_by_round_until_one_fails(tmp_path, monkeypatch):
    answers = iter([4.0, compare_peers.PeerError("stopped"), 8.0])

    def time_peer(python, peer, num_envs, unroll_length, seconds):
        assert python == "python"
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(
        compare_peers,
        "Training",
        lambda config: FakeTraining(config.replace(envs_per_actor=8, unroll_length=32)),
    )
    monkeypatch.setattr(compare_peers, "prepare", lambda peer: "python")
    monkeypatch.setattr(compare_peers, "time_peer", time_peer)
    monkeypatch.setattr(compare_peers.machine, "available_cores", lambda: 2)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    options = ["--rounds", "2", "--results", str(tmp_path / "peers.csv")]
    monkeypatch.setattr(sys, "argv", ["compare_peers.py", "--env", "CartPole", *options])
    compare_peers.main()
    rows = read_rows(tmp_path / "peers.csv")
    assert float(rows["a3cjax"]["min"]) == 16.0
    ratios = rows["a3cjax / SB3 A2C"]
    assert float(ratios["max"]) == pytest.approx(16.0 / 4.0)
    assert float(ratios["min"]) == pytest.approx(16.16 / 8.0)
    assert rows["SB3 PPO: not available: stopped"]["median"] == "nan"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_peer_that_takes_too_long_leaves_nobody_behind(tmp_path):
    note = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    child = [sys.executable, "-c", f"{note}; time.sleep(999)"]
    start = f"import subprocess; subprocess.run({child!r})"
    with pytest.raises(compare_peers.PeerError, match=r"^stopped after 4 s$"):
        compare_peers.run_command([sys.executable, "-c", start], timeout=4.0)
    pid = (tmp_path / "pid").read_text()
    wait_until(lambda: not is_running(pid))
    with pytest.raises(compare_peers.PeerError, match=r"^exit code 3$"):
        compare_peers.run_command([sys.executable, "-c", "raise SystemExit(3)"])
    assert compare_peers.run_command([sys.executable, "-c", "print(7)"]) == "7\n"


def test_figures_follow_a_header_in_a_new_or_empty_file(tmp_path):
    (tmp_path / "empty.csv").touch()
    for name in ("new.csv", "empty.csv"):
        for _ in range(2):
            results = Results(tmp_path / name)
            results.add("speed", [1.0, 2.0], "steps/s")
            results.write("title")
        with (tmp_path / name).open() as file:
            assert [row["figure"] for row in csv.DictReader(file)] == ["speed", "speed"]


# Stands for the program: a hundred games of 0 points, then a hundred of 20 in 10,000 frames each.
PROGRAM = """
import json, os, pathlib, signal, sys, time
settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
run_dir, seed = pathlib.Path(settings["run_dir"]), settings["seed"]
with open(pathlib.Path(__file__).parent / "calls", "a") as file:
    file.write(seed)
run_dir.mkdir()
games = [f"{10_000 * (n + 1)},1.0,0,{20 * (n >= 100)},9" for n in range(200)]
header = "num_frames,wall_seconds,actor,episode_return,episode_length"
lines = [header, *games[:50 if seed in "89" else 200]]
(run_dir / "episodes.csv").write_text("\\n".join(lines) + "\\n")
if seed == "7":
    (run_dir / "episodes.csv").write_text("")
    os.kill(os.getppid(), signal.SIGTERM)
if seed == "9":
    sys.exit(3)
(run_dir / "summary.json").write_text(json.dumps({"signal": None}))
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
if seed != "8":
    time.sleep(1000)
"""


@pytest.fixture
def learn(tmp_path, monkeypatch):
    """Runs the script for these seeds; its file of results, and the seeds that were run."""
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(learning, "RUN", tmp_path / "program.py")

    def run(*seeds):
        options = ["--results", str(tmp_path / "seeds.csv"), "--seeds", *seeds]
        monkeypatch.setattr(sys, "argv", ["learning.py", *options])
        learning.main()
        return learning.read_rows(tmp_path / "seeds.csv"), (tmp_path / "calls").read_text()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_seed_is_stopped_at_the_score_and_not_run_again(learn, capsys):
    rows, _ = learn("3", "2")
    # 18 points are the mean of the last hundred games after the ninetieth of 20 points.
    assert [(row.seed, row.million_frames) for row in rows] == [(3, 1.9), (2, 1.9)]
    rows, calls = learn("2", "3", "8")
    assert calls == "328"
    assert rows[-1].million_frames == math.inf  # its budget ended below
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[-4:-1]] == ["| 2", "| 3", "| 8"]
    assert lines[-1].split(" | ")[3] == "1.90"  # the median


def test_cpu_time_is_that_of_all_threads_of_the_process():
    this = SimpleNamespace(pid=os.getpid())
    assert learning.cpu_seconds(this) == pytest.approx(time.process_time(), abs=0.5)


@pytest.mark.parametrize(("seed", "code"), [("7", 143), ("9", "seed 9: the program ended with 3.")])
def test_a_seed_that_is_interrupted_or_fails_leaves_nothing(learn, seed, code):
    rows, _ = learn("1")
    with pytest.raises(SystemExit) as caught:
        learn(seed)
    assert caught.value.code == code
    assert learn("1")[0] == rows


def test_a_line_of_the_ablation_has_the_first_run_of_each_seed_as_far_as_all_are_drawn(tmp_path):
    table = tmp_path / "seeds.csv"
    table.write_text(
        "changed,seed,million_frames,mean_at_0.6M,mean_at_1.0M,mean_at_3.0M,frames_to_18\n"
        "b,61,1.0,20,20,,\n"
        "a,63,1.0,-3,3,,\n"
        "a,61,3.0,-1,1,18,2.9\n"
        "a,62,0.7,-2,,,\n"
        "a,61,1.0,0,0,,\n"
    )
    line = ablation.read_line("what it is", "a", table)
    assert [(x.tolist(), y.tolist()) for x, y in line.seeds] == [
        ([0.6, 1.0], [-1, 1]),
        ([0.6], [-2]),
        ([0.6, 1.0], [-3, 3]),
    ]
    assert line.band.median.tolist() == [-2]
    with pytest.raises(ValueError, match="no row of `b` with seed 62, 63"):
        ablation.read_line("what it is", "b", table)


def test_ablation_is_drawn_from_the_rows_that_are_committed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--output", str(tmp_path / "it.png")])
    ablation.main()
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ablation.CHANGES)
    # The last column of the table in the documents has just these means.
    page = (ROOT / "docs" / "results.md").read_text()
    for line in lines:
        ends = line.rpartition(": ")[2].replace(" at 2.6M", "").replace("-", "\N{MINUS SIGN}")
        column = re.sub(r" at ([\d.]+M)", r" (at \1)", ends)
        assert f"| {column} |" in page, line
