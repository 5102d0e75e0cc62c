"""From the timesteps of one unroll to a Trajectory."""

import jax
import numpy as np

from a3cjax.types import CoreState, TimeStep, Trajectory


def stack(
    timesteps: list[TimeStep], actions: list[np.ndarray], core_state: CoreState
) -> Trajectory:
    """Fresh arrays each time: JAX may alias a NumPy buffer that it was given."""
    # Of all timesteps or of none.
    masks = [t.action_mask for t in timesteps if t.action_mask is not None]
    idle = [t.is_idle for t in timesteps if t.is_idle is not None]
    return Trajectory(
        observations=jax.tree.map(lambda *x: np.array(x), *(t.observation for t in timesteps)),
        actions=np.array(actions),
        rewards=np.array([timestep.reward for timestep in timesteps[1:]]),
        discounts=np.array([timestep.discount for timestep in timesteps[1:]]),
        is_first=np.array([timestep.is_first for timestep in timesteps]),
        core_state=core_state,
        action_masks=np.array(masks) if masks else None,
        is_idle=np.array(idle) if idle else None,
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
    names = {*Trajectory._fields} - {"is_first", "core_state"}
    padded = jax.tree.map(pad, {name: getattr(trajectory, name) for name in names})
    return trajectory._replace(**padded, is_first=np.concatenate([is_first, after]))
