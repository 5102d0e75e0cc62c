"""Benchmarks: what they compute from what was measured; nothing here depends on seconds."""

import csv
import sys
from types import SimpleNamespace

import pytest

from tests.documents import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # scripts, which import one another by name

import throughput
import timing_worker
from checkouts import Checkout, CheckoutError

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
