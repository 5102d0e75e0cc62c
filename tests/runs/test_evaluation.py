import threading

import jax
import pytest

from a3cjax.envs.base import Episode
from a3cjax.parameters.shared import Counts
from a3cjax.runs.evaluation import Evaluation
from a3cjax.training import evaluator
from a3cjax.training.evaluator import Evaluator, Pace
from a3cjax.types import LearnerState, Snapshot
from tests.fakes import PATIENCE_SECONDS, FakeClock

SNAPSHOT = Snapshot(version=3, num_frames=400, params=2)


def test_result_is_summarised_by_hand():
    result = Evaluation(
        [Episode(0, 1.0, 10), Episode(1, 2.0, 20), Episode(2, 2.0, 5), Episode(3, 7.0, 8)], True
    )
    assert result.mean == 3.0
    assert result.as_dict() == {
        "actions": "greedy",
        "num_episodes": 4,
        "num_cut": 0,
        "mean": 3.0,
        "median": 2.0,
        "standard_deviation": pytest.approx(5.5**0.5),  # deviations −2, −1, −1, 4
        "min": 1.0,
        "max": 7.0,
        "scores": [1.0, 2.0, 2.0, 7.0],
        "lengths": [10, 20, 5, 8],
    }
    assert result._replace(is_greedy=False).as_dict()["actions"] == "sampled"


class Rests(threading.Event):
    """A stop event at whose clock no time passes but in `wait`, which notes how long it was."""

    def __init__(self):
        super().__init__()
        self.clock, self.seconds = FakeClock(), []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        if not self.is_set():
            self.clock.take(timeout)
        return self.is_set()


@pytest.fixture
def rests(monkeypatch):
    rests = Rests()
    monkeypatch.setattr(evaluator, "time", rests.clock)
    return rests


@pytest.mark.parametrize(
    ("share", "worked", "rest"),
    [
        (0.25, 0.02, 0.06),  # 0.02 seconds of work are a quarter of 0.08
        (1.0, 0.05, 0.0),  # the whole machine needs no rest
        (0.001, 3600.0, 60.0),  # a process that was put aside rests no longer than others
    ],
)
def test_the_pace_leaves_the_share_that_was_asked_for(rests, share, worked, rest):
    pace = Pace(share, rests)
    for _ in range(2):
        rests.clock.take(worked)
        assert not pace()
    assert rests.seconds == pytest.approx([rest, rest])


def test_evaluations_during_training_take_their_share_of_the_machine(monkeypatch, rests):
    monkeypatch.setattr(evaluator, "available_cores", lambda: 2)

    class Store:
        def counts(self):
            return Counts(SNAPSHOT.num_frames, SNAPSHOT.version)

        def read(self):
            return LearnerState(SNAPSHOT.params, ()), SNAPSHOT

    def evaluate(snapshot, should_stop):
        assert snapshot.num_frames == SNAPSHOT.num_frames
        rests.clock.take(0.02)
        assert not should_stop()
        rests.set()

    Evaluator(evaluate, Store(), num_frames=0, period_frames=1, learner=jax.devices()[0]).run(rests)
    # Of two cores' time 4 % are 8 % of one's: 0.02 of 0.25 seconds.
    assert rests.seconds[1:-1] == [pytest.approx(0.23)]


@pytest.mark.parametrize(("judged", "expected"), [(0, [100, 200]), (150, [250]), (170, [])])
def test_evaluations_are_due_every_period_after_the_last_one(rests, judged, expected):
    frames, evaluated = iter((0, 99, 100, 150, 199, 200, 250)), []

    class Store:
        def counts(self):
            self.num_frames = next(frames)
            if self.num_frames == 250:
                rests.set()
            return Counts(self.num_frames, 1)

        def read(self):
            snapshot = SNAPSHOT._replace(num_frames=self.num_frames)
            return LearnerState(snapshot.params, ()), snapshot

    def evaluate(snapshot, should_stop):
        evaluated.append(snapshot.num_frames)

    device = jax.devices()[0]
    Evaluator(evaluate, Store(), num_frames=judged, period_frames=100, learner=device).run(rests)
    assert evaluated == expected


def test_a_stop_ends_the_rest(monkeypatch):
    clock, stop_event, answers = FakeClock(), threading.Event(), []
    monkeypatch.setattr(evaluator, "time", clock)
    monkeypatch.setattr(evaluator, "MAX_REST_SECONDS", 10 * PATIENCE_SECONDS)
    pace = Pace(0.001, stop_event)
    clock.take(1e6)
    thread = threading.Thread(target=lambda: answers.append(pace()))
    thread.start()
    stop_event.set()
    thread.join(PATIENCE_SECONDS)
    assert answers == [True]
