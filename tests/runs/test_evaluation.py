import threading
import time

import pytest

from a3cjax.envs.base import Episode
from a3cjax.runs.evaluation import Evaluation
from a3cjax.training import evaluator
from a3cjax.training.evaluator import Evaluator, Pace
from a3cjax.types import Snapshot

SNAPSHOT = Snapshot(version=3, num_frames=400, params=2)


def test_result_is_summarised_by_hand():
    result = Evaluation(
        [Episode(0, 1.0, 10), Episode(1, 2.0, 20), Episode(2, 2.0, 5), Episode(3, 7.0, 8)], True
    )
    assert result.mean == 3.0
    assert result.as_dict() == {
        "actions": "greedy",
        "num_episodes": 4,
        "mean": 3.0,
        "median": 2.0,
        "standard_deviation": pytest.approx(5.5**0.5),  # deviations −2, −1, −1, 4
        "min": 1.0,
        "max": 7.0,
        "scores": [1.0, 2.0, 2.0, 7.0],
        "lengths": [10, 20, 5, 8],
    }
    assert result._replace(is_greedy=False).as_dict()["actions"] == "sampled"


def test_the_pace_leaves_the_share_that_was_asked_for():
    pace = Pace(0.25, threading.Event())
    start = time.monotonic()
    for _ in range(4):
        time.sleep(0.02)
        assert not pace()
    assert time.monotonic() - start > 0.3  # 0.08 seconds of work are a quarter of 0.32


def test_whole_machine_needs_no_rest():
    pace = Pace(1.0, threading.Event())
    start = time.monotonic()
    time.sleep(0.05)
    assert not pace()
    assert time.monotonic() - start < 0.5


def test_process_that_was_put_aside_rests_no_longer_than_others(monkeypatch):
    monkeypatch.setattr(evaluator, "MAX_REST_SECONDS", 0.01)
    pace = Pace(0.001, threading.Event())
    time.sleep(0.05)  # worth 50 seconds of rest
    start = time.monotonic()
    assert not pace()
    assert time.monotonic() - start < 10


def test_evaluations_during_training_take_their_share_of_the_machine(monkeypatch):
    monkeypatch.setattr(evaluator, "available_cores", lambda: 2)
    stop_event, seconds = threading.Event(), []

    class Store:
        def read(self):
            return None, SNAPSHOT

    def evaluate(snapshot, should_stop):
        assert snapshot.num_frames == SNAPSHOT.num_frames
        time.sleep(0.02)
        start = time.monotonic()
        assert not should_stop()
        seconds.append(time.monotonic() - start)
        stop_event.set()

    Evaluator(evaluate, Store(), num_frames=0, period_frames=1).run(stop_event)
    assert seconds[0] > 0.2  # of two cores' time 4 % are 8 % of one's: 0.02 of 0.25 seconds


def test_a_stop_ends_the_rest():
    stop_event = threading.Event()
    pace = Pace(0.001, stop_event)
    time.sleep(0.05)  # worth 50 seconds of rest
    threading.Timer(0.05, stop_event.set).start()
    start = time.monotonic()
    assert pace()
    assert time.monotonic() - start < 10
