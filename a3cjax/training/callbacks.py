"""Callbacks: what a run tells of itself while it learns, and how it can be asked to stop."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from a3cjax.errors import quote
from a3cjax.runs.folder import Summary
from a3cjax.runs.playing import TrainedAgent

Answer = Literal["stop"] | None


class UpdateEvent(NamedTuple):
    """An update that was applied.

    `num_frames` and `num_updates` are the run's counts after the update; `metrics` holds the parts
    of its loss and `grad_norm`. `agent()` returns the agent with the newest parameters.
    """

    num_frames: int
    num_updates: int
    metrics: Mapping[str, float]
    agent: Callable[[], TrainedAgent]


class EpisodeEvent(NamedTuple):
    """A training game that ended: its raw return and its steps.

    `num_frames` is the run's count after the update in which the game ended; `actor` is the index
    of the actor-learner that played it. `agent()` returns the agent with the newest parameters.
    """

    num_frames: int
    actor: int
    episode_return: float
    episode_length: int
    agent: Callable[[], TrainedAgent]


class EvaluationEvent(NamedTuple):
    """An evaluation: the mean score, and the score of every game.

    `num_frames` and `num_updates` belong to the parameters that were evaluated; `agent()` returns
    the agent with these parameters.
    """

    num_frames: int
    num_updates: int
    mean: float
    scores: Sequence[float]
    agent: Callable[[], TrainedAgent]


Event = UpdateEvent | EpisodeEvent | EvaluationEvent


class Callback:
    """The methods that `train` calls on callbacks; each callback has those that it wants.

    All are called in the thread of the run, one after the other, in the order of the updates:
    actor-learners go on meanwhile, and nothing needs a lock. A slow callback delays the log; once
    that is a thousand updates behind, actor-learners in threads wait for it. Returning "stop" ends
    the run as a used-up budget does: it is saved and evaluated. Who has said it is told no more of
    updates and games, only of the last evaluation. An exception also ends the run, which is saved,
    and is raised by `train`.
    """

    def on_update(self, update: UpdateEvent) -> Answer:
        """Called after every update."""

    def on_episode(self, episode: EpisodeEvent) -> Answer:
        """Called after every training game, before the update that it ended in."""

    def on_evaluation(self, evaluation: EvaluationEvent) -> Answer:
        """Called after every evaluation: those of `eval_period_frames`, and the last one."""


class OptunaPruning(Callback):
    """Tells a trial of Optuna how a run goes, and stops the run if the pruner gives it up.

    The trial is told, as its step k, the mean return of the training games that ended in period k
    of frames, counted from 0: pruners compare trials at equal steps, which evaluations do not have.
    """

    def __init__(self, trial: Any, period_frames: int):
        """`trial` is an `optuna.Trial`, which is told once every `period_frames`."""
        self.is_pruned = False
        self._trial, self._period_frames = trial, period_frames
        self._step, self._returns = 0, []

    def on_episode(self, episode: EpisodeEvent) -> Answer:
        """Report the period before as soon as a game ends in a later one."""
        step = episode.num_frames // self._period_frames
        if step > self._step and not self.is_pruned:
            if self._returns:
                self._trial.report(float(np.mean(self._returns)), step=self._step)
                self.is_pruned = self._trial.should_prune()
            self._step, self._returns = step, []
        self._returns.append(episode.episode_return)
        return "stop" if self.is_pruned else None

    def score(self, summary: Summary) -> float:
        """What `objective(trial)` is to return: the mean of the run's final evaluation.

        Raises:
          optuna.TrialPruned: if the run was stopped; Optuna's `optimize` takes it as the answer.
          ValueError: if the run was not evaluated.
        """
        if self.is_pruned:
            import optuna

            raise optuna.TrialPruned(f"after {summary.num_frames:,} frames")
        if summary.evaluation is None:
            raise ValueError("eval_episodes must be >= 1 for a score, got a run without any.")
        return summary.evaluation.mean


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def as_tuple(name: str, objects: Any) -> tuple[Any, ...]:
    """What was passed as `name`, as a tuple.

    Raises:
      TypeError: for an object by itself.
    """
    if not isinstance(objects, Iterable):
        raise TypeError(f"{name} must be a list, as {name}=[...], got {quote(objects)}.")
    return tuple(objects)


def check_callbacks(callbacks: Sequence[Any]) -> tuple[Any, ...]:
    """The callbacks as a tuple, once all are known to have methods that will be called.

    Raises:
      TypeError: for one that would never be called, which says what may have been meant; and for
        one that is not in a list.
    """
    callbacks = as_tuple("callbacks", callbacks)
    for callback in callbacks:
        if isinstance(callback, type):
            got = f"the class {callback.__name__}"
            raise TypeError(f"callbacks must be objects, as {callback.__name__}(), got {got}.")
        names = [name for name in dir(callback) if name.startswith("on_")]
        for name in [name for name in names if name not in METHODS]:
            nearest = difflib.get_close_matches(name, METHODS, n=1)
            hint = f" (nearest: {nearest[0]})" if nearest else ""
            rule = f"callbacks must have methods of {', '.join(METHODS)}"
            raise TypeError(f"{rule}, got {type(callback).__name__}.{name}{hint}.")
        for name in [name for name in names if not callable(getattr(callback, name))]:
            got = quote(getattr(callback, name))
            raise TypeError(f"{type(callback).__name__}.{name} must be a method, got {got}.")
        if not names:
            rule = f"callbacks must have one of {', '.join(METHODS)}"
            raise TypeError(f"{rule}, got {quote(callback)}.")
    return callbacks


def call(callbacks: Iterable[Any], method: str, event: Event) -> Iterator[Any]:
    """Call this method of each callback that has it; yield those that say "stop".

    Raises:
      TypeError: if one returns anything but "stop" or None.
    """
    for callback in callbacks:
        if not hasattr(callback, method):
            continue
        answer = getattr(callback, method)(event)
        if answer is not None and not (isinstance(answer, str) and answer == "stop"):
            rule = f'{method} of {type(callback).__name__} must return None or "stop"'
            raise TypeError(f"{rule}, got {quote(answer)}.")
        if answer is not None:
            yield callback
