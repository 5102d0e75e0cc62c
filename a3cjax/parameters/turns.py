"""Turns at the shared parameters, so that many actor-learners learn the same in every run.

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

# A waiting thread looks at the stop event this often: setting the event does not wake it up.
PATIENCE_SECONDS = 0.1


def take_turns(
    store: ParameterStore,
    num_actors: int,
    stop_event: threading.Event,
    *,
    at_round_end: Callable[[], None] = lambda: None,
    at_wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[ParameterStore]:
    """A view of the store for each actor, for use by one thread; nobody else may push to the store.

    In a round every actor pulls the same snapshot, the newest after all pushes of the round
    before, and pushes one gradient. Pushes are applied in the order of the actors: each waits
    for its turn, and this wait is included in `wait_seconds` of its receipt. So the staleness
    of actor k is k, minus the pushes that the store refused in this round. Since all actors see
    the same number of frames, all find the budget used up at the start of the same round, and
    none waits for one that has returned. `at_round_end` is called between rounds, when no actor
    works; it must not wait for an actor. `at_wait` is called again and again by whoever waits.

    Once `stop_event` is set nobody waits: pulls give the store's newest snapshot, and pushes
    go through to the store out of turn. The run is being stopped; repeatability ends there.
    A push that raises keeps its turn, so whoever catches the exception must set `stop_event`.

    An actor that waits to push must not hold anything that actors before it need before they
    push: a `learning_slot` with fewer slots than actors brings all to a halt.
    """
    rounds = _Rounds(store, num_actors, stop_event, at_round_end, at_wait)
    return [StoreInTurns(rounds, index, clock) for index in range(num_actors)]


class Rounds(Protocol):
    """Turns of `num_actors` actors at a store, wherever they are counted: see `take_turns`."""

    store: ParameterStore
    num_actors: int

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the current round."""
        ...

    def wait(self, num_pushes: int) -> bool:
        """Wait until `num_pushes` pushes were made; return False if the run is being stopped."""
        ...

    def count_push(self) -> None:
        """End a turn; called by the actor whose turn it is."""
        ...


@dataclass
class _Rounds:
    """The number of pushes made in turn, and the snapshot of the current round.

    Push number p, counted from 0, belongs to actor p mod N in round p div N.
    """

    store: ParameterStore
    num_actors: int
    stop_event: threading.Event
    at_round_end: Callable[[], None]
    at_wait: Callable[[], object]

    def __post_init__(self):
        self._changed = threading.Condition()
        self._num_pushes = 0
        self.snapshot = self.store.pull()

    def wait(self, num_pushes: int) -> bool:
        """Wait until `num_pushes` pushes were made; return False if the stop event is set."""
        with self._changed:
            while self._num_pushes < num_pushes and not self.stop_event.is_set():
                self.at_wait()
                self._changed.wait(PATIENCE_SECONDS)
        return not self.stop_event.is_set()

    def count_push(self) -> None:
        """End a turn; called by the actor whose turn it is. The last turn ends the round."""
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
        """As `SharedParameters.push`, after actors of lower index and before those of higher."""
        asked = self.clock()
        in_turn = self.rounds.wait(self.round_start + self.index)
        turn_seconds = self.clock() - asked
        # Outside the lock, which waiting actors need in order to look at the stop event.
        receipt = self.rounds.store.push(grads, num_frames, version, actor_index, seen)
        self.round_start += self.rounds.num_actors
        if in_turn:
            self.rounds.count_push()
        return receipt._replace(wait_seconds=turn_seconds + receipt.wait_seconds)
