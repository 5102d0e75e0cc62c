"""The actor-learners of a run, each in a thread, and the parameters that they share."""

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.placement import Place
from a3cjax.actors.reports import UpdateReport
from a3cjax.actors.supervisor import Supervisor
from a3cjax.errors import CheckpointError
from a3cjax.parameters.shared import SharedParameters
from a3cjax.types import LearnerState, Snapshot


class Standstill(NamedTuple):
    """What belongs together at one moment: parameters, and where the actor-learners stand.

    `actor_keys` are the words of the PRNG keys that they use next. `standings` are empty unless
    environments could be saved at that moment, when no actor-learner was at work.
    """

    state: LearnerState
    snapshot: Snapshot
    actor_keys: tuple[tuple[int, ...], ...] = ()
    standings: tuple[dict[str, Any], ...] = ()


class Fleet:
    """Actor-learners at their places; `reports` holds what their updates left for the log."""

    def __init__(self, store: SharedParameters):
        self.store = store
        self.reports: queue.SimpleQueue[UpdateReport] = queue.SimpleQueue()
        self._actors: list[ActorLearner] = []
        self._places: list[Place] = []
        self._last_round: Standstill | None = None

    def add(self, actor: ActorLearner, place: Place) -> None:
        """Takes in an actor-learner that reports to `reports`."""
        self._actors.append(actor)
        self._places.append(place)

    @property
    def targets(self) -> list[Callable[[threading.Event], None]]:
        """What the thread of each actor-learner runs."""

        def run(actor: ActorLearner, place: Place, stop_event: threading.Event) -> None:
            with place.entered():
                actor.run(stop_event)

        pairs = zip(self._actors, self._places, strict=True)
        return [functools.partial(run, actor, place) for actor, place in pairs]

    def start(self, supervisor: Supervisor) -> None:
        """Starts them all under this supervisor's eyes."""
        progresses = [
            functools.partial(getattr, actor, "num_unrolled_steps") for actor in self._actors
        ]
        supervisor.start(self.targets, "actor-learner", progresses)

    def standstill(self) -> Standstill:
        """The end of the last round that was noted; where there are no rounds, this moment."""
        return self._last_round or self._look()

    def note_round(self) -> None:
        """Remembers all that is needed to go on just there, at the end of a round."""
        standings = [actor.get_standing() for actor in self._actors]
        if None not in standings:
            self._last_round = self._look(tuple(filter(None, standings)))

    def restore(self, standings: Sequence[dict[str, Any]]) -> None:
        """Goes on from the standings of as many actor-learners.

        Raises:
          CheckpointError: if they do not fit.
        """
        try:
            for actor, standing in zip(self._actors, standings, strict=True):
                actor.set_standing(standing)
        # What an environment makes of a state that it did not write, only itself knows.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"environments cannot be restored: {reason}") from error

    def _look(self, standings: tuple[dict[str, Any], ...] = ()) -> Standstill:
        keys = (np.asarray(jax.random.key_data(actor.key)) for actor in self._actors)
        actor_keys = tuple(tuple(words.tolist()) for words in keys)
        return Standstill(*self.store.read(), actor_keys, standings)
