"""The model of a fleet, where its queues can be computed by hand; and whole runs, timed."""

import csv
import dataclasses
import os
import signal
import sys
import time

import pytest

from tests.documents import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # scripts, which import one another by name

import fleets
import scale_model
from fleets import Moment
from scale_model import Costs, costs_here, simulate

PUSH_SECONDS = 1e-3 + 0.8e-3 + 1.2e-3 + 2.71e6 * 2.2e-9  # call, shard, client; by bytes
SHARD_SECONDS = 0.8e-3 + 2.71e6 * 1.6e-9


def test_an_actor_learner_alone_waits_for_its_own_pushes_only():
    outcome = simulate(1, 1, costs=dataclasses.replace(Costs(), spread=0.0), seconds=100.0)
    assert outcome.steps_per_second == pytest.approx(320 / (0.64 + PUSH_SECONDS), rel=0.01)
    assert outcome.staleness == 0


def test_one_shard_serves_one_push_after_another():
    outcome = simulate(300, 1)
    assert outcome.steps_per_second == pytest.approx(320 / SHARD_SECONDS, rel=0.01)
    assert outcome.staleness == pytest.approx(299, abs=3)
    assert outcome.bytes_per_second == pytest.approx(2 * 2.71e6 / SHARD_SECONDS, rel=0.01)


def test_a_sum_of_gradients_is_one_push_as_old_as_its_first():
    outcome = simulate(32, 1, grads_per_push=8)
    pushes = outcome.steps_per_second / 320 / 8
    assert outcome.bytes_per_second == pytest.approx(2 * 2.71e6 * pushes, rel=0.05)
    assert 3 <= outcome.staleness <= 8  # of four pools


@pytest.mark.parametrize("slowdown", [1.0, 1.25])
def test_cores_are_shared_by_all_that_compute_on_a_machine(slowdown):
    """Six actor-learners on two cores: these are never idle, but for a millisecond a call."""
    costs = dataclasses.replace(Costs(), cores_per_machine=2, slowdown=slowdown)
    outcome = simulate(6, 1, costs=costs, seconds=100.0)
    seconds = (0.64 + PUSH_SECONDS - 1e-3) * slowdown
    assert outcome.steps_per_second == pytest.approx(2 * 320 / seconds, rel=0.02)
    alone = simulate(1, 1, costs=costs, seconds=100.0)
    assert alone.steps_per_second == pytest.approx(320 / (0.64 + PUSH_SECONDS), rel=0.02)


def test_costs_of_a_machine_give_back_what_was_measured_there():
    costs = costs_here(alone=1_600.0, together=2_560.0, num_cores=2, push_seconds=8e-3)
    assert costs.actor_seconds == pytest.approx(0.2)
    assert costs.slowdown == pytest.approx(1.25)
    by_bytes = costs.shard_seconds_per_byte + costs.client_seconds_per_byte
    fixed = costs.call_seconds + costs.shard_seconds + costs.client_seconds
    assert fixed + costs.num_bytes * by_bytes == pytest.approx(8e-3)
    assert costs.cores_per_machine == 2
    assert costs.actors_per_machine == 4  # all that are checked are on one


def test_check_lays_what_was_measured_beside_the_model(monkeypatch, capsys):
    rates = {"1": 500.0, "2": 1_000.0, "1x1": 480.0, "2x1": 900.0, "4x1": 990.0}
    # As many steps a push as in the model.
    shapes = {(*fleets.settings_of(s, "Pong", ()), "unroll_length=40"): s for s in rates}
    timed = []

    def measure(settings, settle, seconds, cores):
        timed.append((shapes[tuple(settings)], cores))
        return rates[timed[-1][0]], 1e-3

    push = {"fused push and pull": (7.0, 10.0)}
    monkeypatch.setattr(scale_model, "measure", lambda: push)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(fleets, "measure", measure)
    scale_model.check(rounds=2)
    assert timed == 2 * [("1", [1]), *((shape, None) for shape in ("2", "1x1", "2x1", "4x1"))]
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[1] for row in rows] == ["480", "900", "990"]
    for row, said in zip(rows, (492, 985, 990), strict=True):
        assert float(row.split(" | ")[2]) == pytest.approx(said, rel=0.02)


def test_shapes_are_written_as_settings():
    assert fleets.settings_of("3", "Catch", ["num_shards=2"]) == [
        *("env=Catch", "num_actors=3", "envs_per_actor=8", "eval_episodes=0", "video=false")
    ]
    settings = fleets.settings_of("2x8", "Pong", ["grads_per_push=8"])
    assert {"num_actors=16", "num_workers=2", "cluster=ray", "grads_per_push=8"} < set(settings)


def test_shape_that_is_named_twice_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fleets, "RESULTS", tmp_path / "fleets.csv")
    monkeypatch.setattr(fleets, "measure", lambda *_: (100.0, 1e-3))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["fleets.py", "--rounds=2", "--shapes", "2", "2x1", "2"])
    fleets.main()
    with (tmp_path / "fleets.csv").open() as file:
        figures = [row["figure"] for row in csv.DictReader(file)]
    assert len(figures) == 6 == len(set(figures))


def test_rates_are_of_what_comes_after_settling():
    moments = [Moment(4 * n, n, 100 + n / 10, 50 + n / 8) for n in (0, 10, 80, 200, 300)]
    moments[1] = moments[1]._replace(core_seconds=90.0)  # compiles
    assert fleets.rates_of(moments, 5.0) == pytest.approx((10.0, 1 / 8))
    with pytest.raises(SystemExit, match="said:\nno Ray"):
        fleets.rates_of(moments, 25.0, "no Ray")


def test_moments_come_with_new_rows_only(tmp_path):
    path = tmp_path / "metrics.csv"
    assert fleets._new_moments(path, []) == []
    path.write_text("num_frames,frames_per_second,steps_per_second\n400,80.1,20\n")
    (moment,) = fleets._new_moments(path, [])
    assert (moment.frames, moment.steps) == (400, 100)
    assert fleets._new_moments(path, [moment]) == []
    with path.open("a") as file:
        file.write("800,80,20\n")
    assert fleets._new_moments(path, [moment])[0].steps == 200


def test_core_seconds_of_the_machine_grow_with_work():
    before, began = fleets.machine_core_seconds(), time.process_time()
    while time.process_time() < began + 0.3:
        pass
    assert fleets.machine_core_seconds() - before >= 0.2


@pytest.mark.slow
def test_a_run_is_timed_until_it_is_long_enough():
    settings = [*fleets.settings_of("1", "Catch", ()), "log_period_frames=2000"]
    rate, core_seconds = fleets.measure(settings, settle=1.0, seconds=3.0)
    assert rate > 100
    assert 0 < core_seconds < 1
    with pytest.raises(SystemExit, match="num_actors"):
        fleets.measure(["env=Catch", "num_actors=-1"], 1.0, 1.0)
