"""From the timesteps of one unroll to a Trajectory."""

from typing import Any

import jax
import numpy as np

from a3cjax.types import Array, CoreState, TimeStep, Trajectory

ALIGNMENT = 64
"""Bytes: of what XLA reads in place, the address is a multiple (its client's minimum on a CPU)."""
LARGE = 2**16
"""Bytes from which on a copy takes longer than looking for such an address."""


def stack(
    timesteps: list[TimeStep], actions: list[np.ndarray], core_state: CoreState
) -> Trajectory:
    """Stack timesteps into fresh arrays, since JAX may alias a NumPy buffer that it was given."""
    # All timesteps have one, or none has.
    masks = [t.action_mask for t in timesteps if t.action_mask is not None]
    idle = [t.is_idle for t in timesteps if t.is_idle is not None]
    return Trajectory(
        observations=stack_trees([t.observation for t in timesteps]),
        actions=np.array(actions),
        rewards=np.array([timestep.reward for timestep in timesteps[1:]]),
        discounts=np.array([timestep.discount for timestep in timesteps[1:]]),
        is_first=np.array([timestep.is_first for timestep in timesteps]),
        core_state=core_state,
        action_masks=np.array(masks) if masks else None,
        is_idle=np.array(idle) if idle else None,
    )


def stack_trees(trees: list[Any]) -> Any:
    """Stack pytrees of `[B, ...]` arrays, one for each step, into `[T, B, ...]` NumPy arrays."""
    return jax.tree.map(_stack_aligned, *trees)


def _stack_aligned(*arrays: Array) -> np.ndarray:
    """As `np.stack`, with large arrays placed so that JAX reads them without a copy."""
    first = np.asarray(arrays[0])
    num_bytes = len(arrays) * first.nbytes
    if num_bytes < LARGE:
        return np.array([np.asarray(array) for array in arrays])
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    stacked = memory[begin : begin + num_bytes].view(first.dtype)
    return np.stack(arrays, out=stacked.reshape(len(arrays), *first.shape))


def keep_first_episodes(trajectory: Trajectory) -> Trajectory:
    """Mark all that comes after the first episode of each environment as not experienced.

    The length grows to a power of two, so that episodes of all lengths need few programs.
    """
    is_first = np.asarray(trajectory.is_first).copy()
    is_first[1:] = np.logical_or.accumulate(is_first[1:], axis=0)
    num_steps = len(trajectory.rewards)
    return fill_up(trajectory._replace(is_first=is_first), 1 << (num_steps - 1).bit_length())


def fill_up(trajectory: Trajectory, num_steps: int) -> Trajectory:
    """Fill a trajectory up to `num_steps` steps; those added are marked as not experienced."""
    num_missing = num_steps - len(trajectory.rewards)
    if num_missing == 0:
        return trajectory

    def repeat_last(values):
        return np.concatenate([values, np.repeat(values[-1:], num_missing, axis=0)])

    names = {*Trajectory._fields} - {"core_state"}
    filled = jax.tree.map(repeat_last, {name: getattr(trajectory, name) for name in names})
    filled["is_first"][-num_missing:] = True
    return trajectory._replace(**filled)
