"""What of a trajectory was experienced, and rewards as they are learned from."""

import chex
import jax
import jax.numpy as jnp

from a3cjax.types import Array, Trajectory


def find_experience(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """Tells apart what was experienced from the environments' automatic resets.

    Args:
      trajectory: of T steps.

    Returns:
      bool `[T, B]`: which transitions were experienced: one into a first observation is an
      automatic reset. And bool `[T, B]`: after which the episode goes on. Where it does not,
      it terminated, and the discount is 0; or a time limit truncated it, and the value of its
      true last observation ends the return.
    """
    chex.assert_type(trajectory.is_first, bool)
    is_experience = ~jnp.asarray(trajectory.is_first[1:])
    continues = jnp.concatenate([is_experience[1:], jnp.ones_like(is_experience[:1])])
    return is_experience, continues


def blank_resets(trajectory: Trajectory, is_experience: Array) -> Trajectory:
    """Zeros for what means nothing: rewards and discounts of steps that nobody experienced."""
    # Not left to a mask after the returns: 0 · NaN and 0 · inf are NaN.
    return trajectory._replace(
        rewards=jnp.where(is_experience, trajectory.rewards, 0.0),
        discounts=jnp.where(is_experience, trajectory.discounts, 0.0),
    )


def clip_rewards(rewards: Array, max_abs_reward: float | None) -> Array:
    """Rewards clipped to ± `max_abs_reward` (Mnih et al. 2015, methods); None leaves them alone."""
    if max_abs_reward is None:
        return rewards
    return jnp.clip(rewards, -max_abs_reward, max_abs_reward)
