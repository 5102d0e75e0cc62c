"""The shared parameters and the one lock of the program."""

import threading
import time
from collections.abc import Callable

import jax
import numpy as np

from a3cjax.parameters.store import Receipt
from a3cjax.types import LearnerState, ObservationStatistics, Params, Snapshot
from a3cjax.updates import ApplyGradients


class SharedParameters:
    """Parameters in this process, updated by many threads (Mnih et al. 2016, section 4).

    Writers take turns; readers take no lock, since a snapshot is one immutable tuple
    that a writer replaces by rebinding a single reference.
    """

    def __init__(
        self,
        state: LearnerState,
        apply_gradients: ApplyGradients,
        *,
        statistics: ObservationStatistics | None = None,
        num_frames: int = 0,
        num_updates: int = 0,
        target_period_frames: int = 1,
        shares_statistics: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Begins with this state.

        Args:
          state: parameters, optimizer state, and target parameters if there are any.
          apply_gradients: see `updates.make_apply_gradients`.
          statistics: of observations; None where they are not centred.
          num_frames: emulator frames so far.
          num_updates: updates so far.
          target_period_frames: target parameters become the newest ones this often.
          shares_statistics: False if `state.opt_state` is a tuple with one for each actor.
          clock: tells the seconds of a receipt.
        """
        self._apply_gradients = apply_gradients
        self._target_period_frames = target_period_frames
        self._shares_statistics = shares_statistics
        self._clock = clock
        self._lock = threading.Lock()
        snapshot = Snapshot(num_updates, num_frames, state.params, statistics, state.target_params)
        self._published = (state, snapshot)

    def pull(self) -> Snapshot:
        """The newest parameters; never blocks."""
        return self._published[1]

    def read(self) -> tuple[LearnerState, Snapshot]:
        """The newest parameters and the optimizer state that belongs to them; never blocks."""
        return self._published

    def push(self, grads: Params, num_frames: int, version: int, actor_index: int = 0) -> Receipt:
        """Applies one gradient to the newest parameters, whatever it was computed from.

        Refuses it if that would make any parameter NaN or infinite.
        """
        asked = self._clock()
        with self._lock:
            entered = self._clock()
            state, old = self._published
            state, is_finite = self._apply(state, grads, old.num_frames, actor_index)
            if is_finite:
                self._published = self._successors(old, state, num_frames)
            new = self._published[1]
        left = self._clock()
        staleness, is_refused = old.version - version, new is old
        return Receipt(
            new.version, new.num_frames, staleness, entered - asked, left - entered, is_refused
        )

    def _apply(
        self, state: LearnerState, grads: Params, num_frames: int, actor_index: int
    ) -> tuple[LearnerState, jax.Array | bool]:
        frames = np.float32(num_frames)
        if self._shares_statistics:
            return self._apply_gradients(state, grads, frames)
        opt_states = list(state.opt_state)
        own = state._replace(opt_state=opt_states[actor_index])
        own, is_finite = self._apply_gradients(own, grads, frames)
        opt_states[actor_index] = own.opt_state
        return own._replace(opt_state=tuple(opt_states)), is_finite

    def _successors(
        self, old: Snapshot, state: LearnerState, num_frames: int
    ) -> tuple[LearnerState, Snapshot]:
        new_frames = old.num_frames + num_frames
        period = self._target_period_frames
        if state.target_params is not None and new_frames // period > old.num_frames // period:
            state = state._replace(target_params=state.params)
        snapshot = Snapshot(
            old.version + 1, new_frames, state.params, old.statistics, state.target_params
        )
        return state, snapshot
