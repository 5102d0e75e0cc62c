"""Callbacks: what a run tells of itself while it learns, and how it can be asked to stop."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from a3cjax.errors import quote
from a3cjax.runs.playing import TrainedAgent

Answer = Literal["stop"] | None


class UpdateEvent(NamedTuple):
    """An update that was applied.

    `num_frames` and `num_updates` are those of the run after it, `metrics` the parts of its loss
    and `grad_norm`. `agent()` is the agent with the newest parameters.
    """

    num_frames: int
    num_updates: int
    metrics: Mapping[str, float]
    agent: Callable[[], TrainedAgent]


class EpisodeEvent(NamedTuple):
    """A training game that ended: its raw return and its steps.

    `num_frames` are those of the run after the update that it ended in, `actor` is the index of
    the actor-learner that played it. `agent()` is the agent with the newest parameters.
    """

    num_frames: int
    actor: int
    episode_return: float
    episode_length: int
    agent: Callable[[], TrainedAgent]


class EvaluationEvent(NamedTuple):
    """An evaluation: the mean score and that of every game.

    `num_frames` and `num_updates` belong to the parameters that were evaluated; `agent()` is the
    agent with these.
    """

    num_frames: int
    num_updates: int
    mean: float
    scores: Sequence[float]
    agent: Callable[[], TrainedAgent]


Event = UpdateEvent | EpisodeEvent | EvaluationEvent


class Callback:
    """What `train` tells its callbacks; one has those of these methods that it wants.

    All are called in the thread of the run, one after the other, in the order of the updates:
    actor-learners go on meanwhile, and nothing needs a lock. What is slow delays the log. "stop"
    ends the run as a budget that is used up: saved and evaluated. Whatever one raises ends the
    run, too, saved, and is raised by `train`.
    """

    def on_update(self, update: UpdateEvent) -> Answer:
        """Called after every update."""

    def on_episode(self, episode: EpisodeEvent) -> Answer:
        """Called after every training game, before the update that it ended in."""

    def on_evaluation(self, evaluation: EvaluationEvent) -> Answer:
        """Called after every evaluation: those of `eval_period_frames`, and the last one."""


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def check_callbacks(callbacks: Sequence[Any]) -> tuple[Any, ...]:
    """The callbacks.

    Raises:
      TypeError: for one that would never be called, with what may have been meant.
    """
    callbacks = tuple(callbacks)
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
        if not names:
            rule = f"callbacks must have one of {', '.join(METHODS)}"
            raise TypeError(f"{rule}, got {quote(callback)}.")
    return callbacks


def call(callbacks: Sequence[Any], method: str, event: Event) -> Iterator[str]:
    """Calls this method of those that have it; yields the names of those that return "stop".

    Raises:
      TypeError: if one returns anything else but None.
    """
    for callback in callbacks:
        if not hasattr(callback, method):
            continue
        answer = getattr(callback, method)(event)
        name = type(callback).__name__
        if answer is not None and not (isinstance(answer, str) and answer == "stop"):
            rule = f'{method} of {name} must return None or "stop"'
            raise TypeError(f"{rule}, got {quote(answer)}.")
        if answer is not None:
            yield name
