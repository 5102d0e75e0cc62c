"""From the timesteps of one unroll to a Trajectory."""

import numpy as np

from a3cjax.types import CoreState, TimeStep, Trajectory


def stack(
    timesteps: list[TimeStep], actions: list[np.ndarray], core_state: CoreState
) -> Trajectory:
    """Fresh arrays each time: JAX may alias a NumPy buffer that it was given."""
    return Trajectory(
        observations=np.stack([timestep.observation for timestep in timesteps]),
        actions=np.stack(actions),
        rewards=np.stack([timestep.reward for timestep in timesteps[1:]]),
        discounts=np.stack([timestep.discount for timestep in timesteps[1:]]),
        is_first=np.stack([timestep.is_first for timestep in timesteps]),
        core_state=core_state,
        is_idle=None
        if timesteps[0].is_idle is None
        else np.stack([np.asarray(timestep.is_idle) for timestep in timesteps]),
    )


def keep_first_episodes(trajectory: Trajectory) -> Trajectory:
    """Marks all that comes after the first episode of each environment as not experienced.

    The length grows to a power of two, so that episodes of all lengths need few programs.
    """
    is_first = np.asarray(trajectory.is_first).copy()
    is_first[1:] = np.logical_or.accumulate(is_first[1:], axis=0)
    num_steps = len(trajectory.rewards)
    num_missing = (1 << (num_steps - 1).bit_length()) - num_steps

    def pad(values):
        return np.concatenate([values, np.repeat(values[-1:], num_missing, axis=0)])

    after = np.ones((num_missing, is_first.shape[1]), bool)
    padded = {name: pad(getattr(trajectory, name)) for name in Trajectory._fields[:4]}
    if trajectory.is_idle is not None:
        padded["is_idle"] = pad(trajectory.is_idle)
    return trajectory._replace(**padded, is_first=np.concatenate([is_first, after]))
