import optuna
import pytest

from a3cjax.envs.base import Episode
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import Summary
from a3cjax.training.callbacks import EpisodeEvent, OptunaPruning


class FakeTrial:
    """A trial that is given up after this step."""

    def __init__(self, last_step):
        self.last_step, self.reported = last_step, {}

    def report(self, value, step):
        assert step not in self.reported  # Optuna would warn
        self.reported[step] = value

    def should_prune(self):
        return max(self.reported) == self.last_step


def play(pruning, games):
    """The answers to games that ended after these frames with these returns."""
    events = [EpisodeEvent(frames, 0, score, 5, lambda: None) for frames, score in games]
    return [pruning.on_episode(event) for event in events]


def summary(run_dir, evaluation=None):
    return Summary(run_dir, 250, 9, 1.0, 0.0, evaluation, signal_number=None)


def test_a_trial_hears_of_each_period_once_and_its_pruner_ends_the_run(tmp_path):
    trial = FakeTrial(last_step=2)
    pruning = OptunaPruning(trial, period_frames=100)
    games = [(50, 1.0), (99, 3.0), (100, 5.0), (299, 7.0), (310, 0.0), (450, 0.0)]
    assert play(pruning, games) == [None, None, None, None, "stop", "stop"]
    assert trial.reported == {0: 2.0, 1: 5.0, 2: 7.0}
    with pytest.raises(optuna.TrialPruned, match="after 250 frames"):
        pruning.score(summary(tmp_path))


def test_a_run_that_came_to_its_end_has_the_score_of_its_evaluation(tmp_path):
    pruning = OptunaPruning(FakeTrial(last_step=None), period_frames=100)
    assert play(pruning, [(50, 1.0), (250, 3.0), (520, 5.0)]) == [None] * 3
    evaluation = Evaluation([Episode(0, 4.0, 5), Episode(1, 8.0, 5)], is_greedy=True)
    assert pruning.score(summary(tmp_path, evaluation)) == 6.0
    with pytest.raises(ValueError, match="eval_episodes must be >= 1"):
        pruning.score(summary(tmp_path))
