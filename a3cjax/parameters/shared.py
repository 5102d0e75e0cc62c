"""The shared parameters, which actor-learners pull and push to: the one lock of the program."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from a3cjax.parameters.moments import merge_seen, renew, reward_scale
from a3cjax.types import Device, LearnerState, ObservationStatistics, Params, Seen, Snapshot
from a3cjax.updates import ApplyGradients


class Receipt(NamedTuple):
    """The answer to a push: where the run stands after it, and the seconds spent on the lock.

    `staleness` counts the updates by others since the version that the gradient was
    computed at. A refused gradient would have made the parameters non-finite: it changed
    nothing, and its frames are not counted. A dropped gradient was not wanted: it changed nothing,
    but its frames are counted, since they were played. A pooled gradient is applied later, as part
    of a sum.
    """

    version: int
    num_frames: int
    staleness: int
    wait_seconds: float
    hold_seconds: float
    is_refused: bool = False
    is_dropped: bool = False
    is_pooled: bool = False


class Counts(NamedTuple):
    """How far a run has come: emulator frames, and updates, which number its versions."""

    num_frames: int
    num_updates: int


class ParameterStore(Protocol):
    """Where actor-learners get parameters from and bring gradients to."""

    def pull(self) -> Snapshot:
        """The newest parameters."""
        ...

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """Apply one gradient.

        Args:
          grads: a pytree like the parameters.
          num_frames: emulator frames that the gradient was computed from.
          version: the version of the snapshot that it was computed at.
          actor_index: the index of the actor that computed it.
          seen: moments of what was seen for it, to be merged into `LearnerState.seen`.
        """
        ...


class RunStore(Protocol):
    """The parameters of a run, as seen by the code that looks after the run."""

    def counts(self) -> Counts:
        """How far the run has come, as far as it is known here; never blocks."""
        ...

    def pull(self) -> Snapshot:
        """The newest parameters."""
        ...

    def read(self) -> tuple[LearnerState, Snapshot]:
        """The newest parameters and all that belongs to them."""
        ...


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
        hand_over: Callable[[Any], Any] = lambda arrays: arrays,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Begin with this state, after `num_frames` emulator frames and `num_updates` updates.

        `statistics` are the statistics of observations, None if these are not centred. Every
        `target_period_frames` the target parameters, if there are any, become the newest ones.
        Unless `shares_statistics`, `state.opt_state` is a tuple with one state for each actor.
        `hand_over` turns computed arrays into what others are given, for example `as_views`.
        """
        self._apply_gradients = apply_gradients
        self._target_period_frames = target_period_frames
        self._shares_statistics = shares_statistics
        self._hand_over = hand_over
        self._clock = clock
        self._lock = threading.Lock()
        self._published = (state, make_snapshot(state, num_updates, num_frames, statistics))

    def pull(self) -> Snapshot:
        """The newest parameters; never blocks."""
        return self._published[1]

    def read(self) -> tuple[LearnerState, Snapshot]:
        """The newest parameters and the optimizer state that belongs to them; never blocks."""
        return self._published

    def counts(self) -> Counts:
        """How far the run has come; never blocks."""
        snapshot = self._published[1]
        return Counts(snapshot.num_frames, snapshot.version)

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """Apply one gradient to the newest parameters, whichever ones it was computed at."""
        asked = self._clock()
        with self._lock:
            entered, old = self._clock(), self._published[1]
            self._published = self._updated(grads, num_frames, actor_index, seen)
            new = self._published[1]
        left = self._clock()
        staleness, is_refused = old.version - version, new is old
        return Receipt(
            new.version, new.num_frames, staleness, entered - asked, left - entered, is_refused
        )

    def drop(self, num_frames: int, version: int) -> Receipt:
        """Count the frames of a gradient that is not wanted."""
        asked = self._clock()
        with self._lock:
            entered, (state, old) = self._clock(), self._published
            num_frames += old.num_frames
            period = self._target_period_frames
            state = renew_targets(state, old.num_frames, num_frames, period)
            statistics = old.statistics
            self._published = state, make_snapshot(state, old.version, num_frames, statistics)
        seconds = entered - asked, self._clock() - entered
        staleness = old.version - version
        return Receipt(old.version, num_frames, staleness, *seconds, is_dropped=True)

    def _updated(
        self, grads: Params, num_frames: int, actor_index: int, seen: Seen | None
    ) -> tuple[LearnerState, Snapshot]:
        """What is to be published after this gradient; the same tuple if it is refused."""
        state, old = self._published
        opt_states = state.opt_state
        if not self._shares_statistics:
            state = state._replace(opt_state=opt_states[actor_index])
        state, is_finite = self._apply_gradients(state, grads, np.float32(old.num_frames))
        if not is_finite:
            return self._published
        params, opt_state = self._hand_over((state.params, state.opt_state))
        state = state._replace(params=params, opt_state=opt_state)
        if not self._shares_statistics:
            opt_states = list(opt_states)
            opt_states[actor_index] = state.opt_state
            state = state._replace(opt_state=tuple(opt_states))
        num_frames += old.num_frames
        state = renew_targets(state, old.num_frames, num_frames, self._target_period_frames)
        if seen is not None:
            state = state._replace(seen=merge_seen(state.seen, seen))
        return state, make_snapshot(state, old.version + 1, num_frames, old.statistics)


def renew_targets(
    state: LearnerState, old_frames: int, num_frames: int, period_frames: int
) -> LearnerState:
    """The state with its target parameters, if it has any, renewed where a period has ended.

    That is between the `old_frames` and the `num_frames` of the run.
    """
    is_due = num_frames // period_frames > old_frames // period_frames
    if state.target_params is None or not is_due:
        return state
    return state._replace(target_params=state.params)


def as_views(arrays: Any) -> Any:
    """View a pytree of CPU arrays as NumPy arrays: the same memory, but of no device.

    Whoever computes with them does so on its own device, and nothing is copied.
    """
    return jax.tree.map(np.asarray, arrays)


def make_snapshot(
    state: LearnerState, version: int, num_frames: int, statistics: ObservationStatistics | None
) -> Snapshot:
    """The snapshot of a state; its moments of observations, if any, renew the statistics."""
    statistics, returns = renew(statistics, state.seen.observations), state.seen.returns
    scale = None if returns is None else reward_scale(returns)
    return Snapshot(version, num_frames, state.params, statistics, state.target_params, scale)


# As fast as `device_put` for large arrays and eight times as fast for small ones.
_copy_to_default_device = jax.jit(lambda arrays: arrays)


class ParametersOnDevice:
    """A store as it is seen from another device: snapshots and gradients are copied."""

    def __init__(self, store: ParameterStore, device: Device, home: Device | None):
        """`device` is where this store is seen from, `home` where its parameters are.

        `home` is None if they are views; gradients are then passed on as they are.
        """
        self._store = store
        self._device = device
        self._home = home
        self._target_params: tuple[Params, Params] = (None, None)  # there, and here

    def pull(self) -> Snapshot:
        """The newest parameters, on this device."""
        snapshot = self._store.pull()
        params, statistics = self._bring((snapshot.params, snapshot.statistics))
        if snapshot.target_params is not self._target_params[0]:  # they change rarely
            here = self._bring(snapshot.target_params)
            self._target_params = (snapshot.target_params, here)
        target_params = self._target_params[1]
        return snapshot._replace(params=params, statistics=statistics, target_params=target_params)

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """As `SharedParameters.push`, with gradients from this device."""
        if self._home is not None:
            grads = jax.device_put(grads, self._home)
        return self._store.push(grads, num_frames, version, actor_index, seen)

    def _bring(self, arrays: Any) -> Any:
        if self._home is not None:
            return jax.device_put(arrays, self._device)
        with jax.default_device(self._device):
            return _copy_to_default_device(arrays)
