"""Which steps of a trajectory were experienced, and the rewards and returns learned from them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.returns import lambda_returns
from a3cjax.types import Array, Trajectory


def find_experience(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """Tell experienced transitions from the environments' automatic resets.

    Args:
      trajectory: of T steps.

    Returns:
      Two arrays, bool `[T, B]`. First, which transitions were experienced: a transition into a
      first observation is an automatic reset, and at an idle step nothing happened. Second, after
      which transitions the episode goes on. Where it does not, it either terminated, and the
      discount is 0, or a time limit truncated it, and the value of its true last observation ends
      the return.
    """
    chex.assert_type(trajectory.is_first, bool)
    is_no_reset = ~jnp.asarray(trajectory.is_first[1:])
    continues = jnp.concatenate([is_no_reset[1:], jnp.ones_like(is_no_reset[:1])])
    return is_no_reset & ~_is_idle(trajectory), continues


def _is_idle(trajectory: Trajectory) -> jax.Array:
    is_idle = trajectory.is_idle
    shape = trajectory.is_first[1:].shape
    return jnp.zeros(shape, bool) if is_idle is None else jnp.asarray(is_idle[1:])


# `clip_reward` of Stable-Baselines3's VecNormalize
# (stable_baselines3/common/vec_env/vec_normalize.py).
MAX_NORMALIZED = 10.0


def clean(
    trajectory: Trajectory,
    is_experience: Array,
    max_abs_reward: float | None,
    reward_scale: Array | np.floating | None = None,
) -> Trajectory:
    """Set rewards and discounts of steps that nobody experienced to zero.

    At idle steps the discount is 1, so that returns go through them as if they were not there.
    Elsewhere rewards are divided by `reward_scale` and clipped to ± 10, then clipped to
    ± `max_abs_reward` (Mnih et al. 2015, methods); either may be None, for no change.
    """
    rewards = jnp.asarray(trajectory.rewards)
    if reward_scale is not None:
        rewards = jnp.clip(rewards / reward_scale, -MAX_NORMALIZED, MAX_NORMALIZED)
    if max_abs_reward is not None:
        rewards = jnp.clip(rewards, -max_abs_reward, max_abs_reward)
    # A mask applied to the returns would be too late: 0 · NaN and 0 · inf are NaN.
    return trajectory._replace(
        rewards=jnp.where(is_experience, rewards, 0.0),
        discounts=jnp.where(
            is_experience, trajectory.discounts, jnp.where(_is_idle(trajectory), 1.0, 0.0)
        ),
    )


def episode_returns(
    trajectory: Trajectory,
    next_values: jax.Array,
    continues: Array,
    lambda_: float,
    *,
    bootstraps: bool,
) -> jax.Array:
    """λ-returns that end where episodes do; without bootstrapping, sums of rewards for any λ."""
    if not bootstraps:
        next_values, lambda_ = jnp.zeros_like(next_values), 1.0
    lambdas = episode_lambdas(trajectory, continues, lambda_)
    return lambda_returns(trajectory.rewards, trajectory.discounts, next_values, lambdas)


def episode_lambdas(trajectory: Trajectory, continues: Array, lambda_: float) -> jax.Array:
    """λ at every step, float `[T, B]`: 0 where an episode ends, 1 at idle steps."""
    lambdas = jnp.where(_is_idle(trajectory), 1.0, lambda_)
    return jnp.where(continues, lambdas, 0.0)
