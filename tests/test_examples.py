"""The examples do what they promise."""

import runpy
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import a3cjax

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a3c_put_together_by_hand_solves_catch(capsys):
    score = runpy.run_path(str(EXAMPLES / "a3c.py"))["main"]()
    assert score >= 0.95  # of 1; at random −0.6
    assert f"mean return of 200 new games {score:+.2f}" in capsys.readouterr().out


@pytest.fixture
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.usefixtures("quiet_optuna")
def test_search_prunes_what_learns_nothing_and_goes_on_where_it_was_stopped(
    tmp_path, monkeypatch, capsys
):
    example = runpy.run_path(str(EXAMPLES / "search.py"))
    study = example["make_study"](tmp_path / "search")
    good, bad = ({"learning_rate": rate, "unroll_length": 10} for rate in (0.01, 1e-5))
    for settings in (good, good, good, bad):
        study.enqueue_trial(settings)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    example["main"](tmp_path / "search", 3)
    study.enqueue_trial(bad)
    with monkeypatch.context() as patch:
        patch.setattr(a3cjax, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            example["main"](tmp_path / "search", 4)
    trials = example["main"](tmp_path / "search", 4).trials
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    assert [t.state for t in trials] == [complete, complete, complete, TrialState.FAIL, pruned]
    assert max(trial.value for trial in trials[:3]) > 0.5  # random play has -0.6
    assert trials[-1].params == bad
    assert 1 <= max(trials[-1].intermediate_values) < 4
    assert "with {'learning_rate': 0.01, 'unroll_length': 10}" in capsys.readouterr().out
