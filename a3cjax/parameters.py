"""The shared parameters and the one lock of the program."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np

from a3cjax.placement import Device
from a3cjax.types import LearnerState, ObservationStatistics, Params, Snapshot
from a3cjax.updates import ApplyGradients


class Receipt(NamedTuple):
    """What a push answers: where the run stands after it, and seconds spent on the lock.

    `staleness` counts the updates by others since the version that the gradient was
    computed at. A refused gradient would have made parameters that are not finite: it
    changed nothing, and its frames are not counted.
    """

    version: int
    num_frames: int
    staleness: int
    wait_seconds: float
    hold_seconds: float
    is_refused: bool = False


class ParameterStore(Protocol):
    """Where actor-learners get parameters from and bring gradients to."""

    def pull(self) -> Snapshot:
        """The newest parameters."""
        ...

    def push(self, grads: Params, num_frames: int, version: int) -> Receipt:
        """Applies one gradient: of `num_frames` new emulator frames, at parameters `version`."""
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
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._apply_gradients = apply_gradients
        self._clock = clock
        self._lock = threading.Lock()
        self._published = (state, Snapshot(num_updates, num_frames, state.params, statistics))

    def pull(self) -> Snapshot:
        """The newest parameters; never blocks."""
        return self._published[1]

    def read(self) -> tuple[LearnerState, Snapshot]:
        """The newest parameters and the optimizer state that belongs to them; never blocks."""
        return self._published

    def push(self, grads: Params, num_frames: int, version: int) -> Receipt:
        """Applies one gradient to the newest parameters, whatever it was computed from.

        Refuses it if that would make any parameter NaN or infinite.

        Args:
          grads: a pytree like the parameters.
          num_frames: emulator frames that the gradient was computed from.
          version: of the snapshot that it was computed at.

        Returns:
          The new version and number of frames, the staleness, and the time spent waiting for
          and holding the lock.
        """
        asked = self._clock()
        with self._lock:
            entered = self._clock()
            state, old = self._published
            state, is_finite = self._apply_gradients(state, grads, np.float32(old.num_frames))
            if is_finite:
                self._published = (state, _successor(old, state, num_frames))
            new = self._published[1]
        left = self._clock()
        return Receipt(
            new.version,
            new.num_frames,
            old.version - version,
            entered - asked,
            left - entered,
            is_refused=new is old,
        )


def _successor(old: Snapshot, state: LearnerState, num_frames: int) -> Snapshot:
    return old._replace(
        version=old.version + 1, num_frames=old.num_frames + num_frames, params=state.params
    )


class ParametersOnDevice:
    """The same store as it is seen from another device: snapshots and gradients are copied."""

    def __init__(self, store: ParameterStore, device: Device):
        self._store = store
        self._device = device
        self._home = jax.devices()[0]

    def pull(self) -> Snapshot:
        """The newest parameters, on this device."""
        snapshot = self._store.pull()
        params, statistics = jax.device_put((snapshot.params, snapshot.statistics), self._device)
        return snapshot._replace(params=params, statistics=statistics)

    def push(self, grads: Params, num_frames: int, version: int) -> Receipt:
        """As `SharedParameters.push`, with gradients from this device."""
        return self._store.push(jax.device_put(grads, self._home), num_frames, version)
