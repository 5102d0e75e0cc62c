"""Turns at the shared parameters: many actor-learners that learn the same in every run.

Left to themselves, actor-learners push in the order in which the operating system lets them,
and sums of floating-point numbers depend on their order. In turns they go through rounds of
one update each: slower, since each waits for the slowest, but repeatable to the last bit.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from a3cjax.parameters.shared import ParameterStore, Receipt
from a3cjax.types import Params, Seen, Snapshot

# Whoever waits looks at the stop event this often: nothing wakes it up when that is set.
PATIENCE_SECONDS = 0.1


def take_turns(
    store: ParameterStore,
    num_actors: int,
    stop_event: threading.Event,
    *,
    at_round_end: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[ParameterStore]:
    """A view of the store for each actor, to be used by one thread; nobody else may push to it.

    In a round every actor pulls the very same snapshot, the newest after all pushes of the
    round before, and pushes one gradient. Pushes are applied in the order of the actors, each
    waiting for its turn, which its receipt's `wait_seconds` include; so the staleness of actor
    k is k, less what the store refused in this round. Since all see the same number of frames,
    all find the budget used up at the start of the same round, and none waits for one that has
    returned. `at_round_end` is called between rounds, when no actor works; it must not wait for
    one.

    Once `stop_event` is set nobody waits: pulls give the store's newest snapshot, and pushes
    go through to the store out of turn. The run is being stopped; repeatability ends there.
    A push that raises keeps its turn, so whoever catches the exception must set `stop_event`.

    An actor that waits to push must hold nothing that those before it need to come to their
    push: a `learning_slot` with fewer slots than actors brings all to a halt.
    """
    rounds = _Rounds(store, num_actors, stop_event, at_round_end)
    return [StoreInTurns(rounds, index, clock) for index in range(num_actors)]


class Rounds(Protocol):
    """Turns of `num_actors` at a store, wherever they are counted: see `take_turns`."""

    store: ParameterStore
    num_actors: int

    @property
    def snapshot(self) -> Snapshot:
        """That of the round which goes on."""
        ...

    def wait(self, num_pushes: int) -> bool:
        """Waits until so many pushes were made; False if the run is being stopped."""
        ...

    def count_push(self) -> None:
        """Ends a turn, to be called by the one who has it."""
        ...


@dataclass
class _Rounds:
    """How many pushes were made in turn, and the snapshot of the round that this makes.

    Push number p, counted from 0, belongs to actor p mod N in round p div N.
    """

    store: ParameterStore
    num_actors: int
    stop_event: threading.Event
    at_round_end: Callable[[], None]

    def __post_init__(self):
        self._changed = threading.Condition()
        self._num_pushes = 0
        self.snapshot = self.store.pull()

    def wait(self, num_pushes: int) -> bool:
        """Waits until so many pushes were made; False if the stop event is set."""
        with self._changed:
            while self._num_pushes < num_pushes and not self.stop_event.is_set():
                self._changed.wait(PATIENCE_SECONDS)
        return not self.stop_event.is_set()

    def count_push(self) -> None:
        """Ends a turn, to be called by the one who has it; the last turn ends the round."""
        with self._changed:
            self._num_pushes += 1
            if self._num_pushes % self.num_actors == 0:
                self.snapshot = self.store.pull()
                self.at_round_end()
            self._changed.notify_all()


@dataclass
class StoreInTurns:
    """The store as the actor with this index in the run sees it."""

    rounds: Rounds
    index: int
    clock: Callable[[], float] = time.perf_counter
    round_start: int = 0  # the number of pushes before this actor's round

    def pull(self) -> Snapshot:
        """The snapshot of this actor's round, once the round before is over."""
        # Read without the lock: no later round can begin before this actor's own push.
        in_turn = self.rounds.wait(self.round_start)
        return self.rounds.snapshot if in_turn else self.rounds.store.pull()

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """As `SharedParameters.push`, after the actors before this one and before the others."""
        asked = self.clock()
        in_turn = self.rounds.wait(self.round_start + self.index)
        turn_seconds = self.clock() - asked
        # Outside the lock, which those who wait need to look at the stop event.
        receipt = self.rounds.store.push(grads, num_frames, version, actor_index, seen)
        self.round_start += self.rounds.num_actors
        if in_turn:
            self.rounds.count_push()
        return receipt._replace(wait_seconds=turn_seconds + receipt.wait_seconds)
