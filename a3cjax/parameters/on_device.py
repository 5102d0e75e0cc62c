"""Shared parameters as they are seen from another device."""

import jax

from a3cjax.parameters.store import ParameterStore, Receipt
from a3cjax.types import Device, Params, Snapshot


class ParametersOnDevice:
    """The same store as it is seen from another device: snapshots and gradients are copied."""

    def __init__(self, store: ParameterStore, device: Device):
        self._store = store
        self._device = device
        self._home = jax.devices()[0]
        self._target_params: tuple[Params, Params] = (None, None)  # there, and here

    def pull(self) -> Snapshot:
        """The newest parameters, on this device."""
        snapshot = self._store.pull()
        params, statistics = jax.device_put((snapshot.params, snapshot.statistics), self._device)
        if snapshot.target_params is not self._target_params[0]:  # they change rarely
            here = jax.device_put(snapshot.target_params, self._device)
            self._target_params = (snapshot.target_params, here)
        target_params = self._target_params[1]
        return snapshot._replace(params=params, statistics=statistics, target_params=target_params)

    def push(self, grads: Params, num_frames: int, version: int, actor_index: int = 0) -> Receipt:
        """As `SharedParameters.push`, with gradients from this device."""
        grads = jax.device_put(grads, self._home)
        return self._store.push(grads, num_frames, version, actor_index)
