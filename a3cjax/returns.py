"""Returns: the targets that values are fitted to.

All functions are time-major. T is the length of the unroll; any batch axes
follow. Termination travels inside `discounts`, which hold γ·(1 − terminated): a discount of 0
cuts off whatever stands behind it, infinity and NaN too. Rewards and values of 16 bits are summed
in float32; discounts must have 32 bits.
"""

import chex
import jax
import jax.numpy as jnp

from a3cjax.types import Array, as_floats


def lambda_returns(
    rewards: Array,
    discounts: Array,
    next_values: Array,
    lambda_: chex.Numeric = 1.0,
) -> jax.Array:
    """Mixes n-step returns of all lengths, backwards in time.

    For t in [0, T - 1], with G_T = v_T:

      Gₜ = rₜ₊₁ + γₜ₊₁ [(1 − λₜ₊₁) vₜ₊₁ + λₜ₊₁ Gₜ₊₁]

    λ = 1 gives the n-step returns of A3C (Mnih et al. 2016, algorithm S3), λ = 0
    the one-step targets (Sutton & Barto 2018, eq. 12.18 for the recursion). Set λ = 0
    at a step that was truncated by a time limit: it then bootstraps from the
    value of its true last observation, whatever follows in the arrays.

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]`, γₜ₊₁, zero where the episode terminated.
      next_values: float `[T, ...]`, vₜ₊₁; the last one bootstraps the unroll.
      lambda_: the mixing parameter in [0, 1], a scalar or `[T, ...]`.

    Returns:
      float32 `[T, ...]`, Gₜ, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes differ or an array is not floating point.
    """
    rewards, discounts, next_values = _floats(rewards, discounts, next_values)
    lambda_ = jnp.asarray(lambda_, rewards.dtype)
    if jnp.ndim(lambda_) == 0:
        lambda_ = jnp.full(rewards.shape, lambda_)
    chex.assert_equal_shape([rewards, discounts, next_values, lambda_])
    chex.assert_axis_dimension_gt(rewards, 0, 0)
    lambda_ = _cut(discounts, lambda_)
    values = _cut(1 - lambda_, _cut(discounts, next_values))
    # Zero where either is: their product may be too small for a float.
    weights = jnp.where(discounts == 0, discounts, lambda_)

    def one_step_back(return_t, transition):
        reward_t, discount_t, value_t, lambda_t, weight_t = transition
        return_t = _cut(weight_t, return_t)
        return_tm1 = reward_t + discount_t * ((1 - lambda_t) * value_t + lambda_t * return_t)
        return return_tm1, return_tm1

    transitions = (rewards, discounts, values, lambda_, weights)
    _, returns = jax.lax.scan(one_step_back, next_values[-1], transitions, reverse=True)
    return returns


def n_step_returns(rewards: Array, discounts: Array, bootstrap_value: Array) -> jax.Array:
    """Sums discounted rewards up to the end of the unroll and bootstraps there.

    For t in [0, T - 1], with G_T = V(s_T) (Mnih et al. 2016, algorithm S3, line
    "R ← rᵢ + γR"):

      Gₜ = rₜ₊₁ + γₜ₊₁ Gₜ₊₁

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]`, γₜ₊₁, zero where the episode terminated.
      bootstrap_value: float `[...]`, the value of the state after the last step.

    Returns:
      float32 `[T, ...]`, Gₜ, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or an array is not floating point.
    """
    rewards, discounts, bootstrap_value = _floats(rewards, discounts, bootstrap_value)
    chex.assert_equal_shape([rewards, discounts])
    chex.assert_shape(bootstrap_value, rewards.shape[1:])

    def one_step_back(return_t, transition):
        reward_t, discount_t = transition
        return_tm1 = reward_t + discount_t * _cut(discount_t, return_t)
        return return_tm1, return_tm1

    _, returns = jax.lax.scan(one_step_back, bootstrap_value, (rewards, discounts), reverse=True)
    return returns


def one_step_q_targets(rewards: Array, discounts: Array, next_q_values: Array) -> jax.Array:
    """One-step Q-learning targets (Mnih et al. 2016, algorithm 1).

      yₜ = rₜ₊₁ + γₜ₊₁ maxₐ Q(sₜ₊₁, a; θ⁻)

    Args:
      rewards: float `[T, ...]`.
      discounts: float `[T, ...]`, zero where the episode terminated.
      next_q_values: float `[T, ..., A]`, Q(sₜ₊₁, ·) under the target parameters.

    Returns:
      float32 `[T, ...]`, yₜ; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or an array is not floating point.
    """
    rewards, discounts, next_q_values = _floats(rewards, discounts, next_q_values)
    chex.assert_equal_shape([rewards, discounts])
    chex.assert_shape(next_q_values, (*rewards.shape, None))
    # Before the maximum, whose gradient is NaN where a value is.
    next_q_values = _cut(discounts[..., None], next_q_values)
    return rewards + discounts * jnp.max(next_q_values, axis=-1)


def one_step_sarsa_targets(
    rewards: Array, discounts: Array, next_q_values: Array, next_actions: Array
) -> jax.Array:
    """One-step Sarsa targets (Mnih et al. 2016, section 4).

      yₜ = rₜ₊₁ + γₜ₊₁ Q(sₜ₊₁, aₜ₊₁; θ⁻)

    Args:
      rewards: float `[T, ...]`.
      discounts: float `[T, ...]`, zero where the episode terminated.
      next_q_values: float `[T, ..., A]`, Q(sₜ₊₁, ·) under the target parameters.
      next_actions: int `[T, ...]`, the action taken in sₜ₊₁.

    Returns:
      float32 `[T, ...]`, yₜ; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    chex.assert_type(next_actions, int)
    rewards, discounts, next_q_values = _floats(rewards, discounts, next_q_values)
    chex.assert_equal_shape([rewards, discounts, next_actions])
    chex.assert_shape(next_q_values, (*rewards.shape, None))
    next_actions = jnp.asarray(next_actions)[..., None]
    next_q_taken = jnp.take_along_axis(next_q_values, next_actions, axis=-1)[..., 0]
    # After the choice: of an action that is none the value is NaN.
    return rewards + discounts * _cut(discounts, next_q_taken)


def double_q_targets(
    rewards: Array, discounts: Array, next_q_values: Array, selector_q_values: Array
) -> jax.Array:
    """Double Q-learning targets (van Hasselt et al. 2016, equation 4)."""
    next_actions = jnp.argmax(jnp.asarray(selector_q_values), axis=-1)
    return one_step_sarsa_targets(rewards, discounts, next_q_values, next_actions)


def _floats(rewards: Array, discounts: Array, values: Array) -> list[jax.Array]:
    """The three in one dtype of at least 32 bits; refuses discounts that were rounded to fewer."""
    chex.assert_type([rewards, discounts, values], float)
    if jnp.finfo(discounts.dtype).bits < 32:
        raise AssertionError(
            f"discounts must be float32 or float64, got {discounts.dtype}: 0.99 is 0.988 in "
            "bfloat16, which looks 85 steps ahead and not 100."
        )
    return as_floats(rewards, discounts, values)


def _cut(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Zeros for values of weight 0 that are no numbers: 0 · NaN and 0 · inf are NaN."""
    return jnp.where((weights == 0) & ~jnp.isfinite(values), 0.0, values)
