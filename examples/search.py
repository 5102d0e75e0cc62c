"""Searches settings with Optuna: `python examples/search.py`.

It wants `pip install -c constraints.txt '.[optuna]'`.

Twenty runs on Catch, a quarter of a minute each on two cores. The learning rate and unroll length
of each follow from the results of those before (tree-structured Parzen estimators, Bergstra et al.
2011), and a run that is worse than the median of the others at the same step is given up.

The search is kept in `runs/search/search.db`: the same command again goes on where it was stopped.
Several such commands at once share one search. An interruption loses a run, not the search;
`a3cjax sweep` resumes runs, too, but tries all combinations.
"""

from pathlib import Path

import optuna
from optuna.trial import TrialState

import a3cjax
from a3cjax.training.callbacks import OptunaPruning

NUM_TRIALS = 20
TOTAL_FRAMES = 10_000
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def main(folder: Path = Path("runs/search"), num_trials: int = NUM_TRIALS) -> optuna.Study:
    """Go on until `num_trials` trials are finished, and print the best."""
    study = make_study(folder)
    while len(study.get_trials(states=FINISHED)) < num_trials:
        study.optimize(lambda trial: objective(trial, folder), n_trials=1)
    print(f"best score {study.best_value:+.2f} with {study.best_params}")
    return study


def make_study(folder: Path) -> optuna.Study:
    """The search that is kept in this folder, a new one if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name="catch",
        storage=f"sqlite:///{folder / 'search.db'}",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    )


def objective(trial: optuna.Trial, folder: Path) -> float:
    """Train with settings that the trial suggests; return the mean score of 30 new games."""
    config = a3cjax.Config(
        env="Catch",
        total_frames=TOTAL_FRAMES,
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        unroll_length=trial.suggest_int("unroll_length", 5, 40, log=True),
        eval_episodes=30,
        video=False,
        tensorboard=False,
        run_dir=str(folder / f"trial-{trial.number}"),
    )
    pruning = OptunaPruning(trial, period_frames=TOTAL_FRAMES // 5)
    return pruning.score(a3cjax.train(config, callbacks=[pruning]))


if __name__ == "__main__":
    main()
