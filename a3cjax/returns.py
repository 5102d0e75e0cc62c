"""Returns: the targets that values are fitted to.

All functions are time-major. T is the length of the unroll; any batch axes
follow. Termination is part of `discounts`, which hold γ·(1 − terminated): a discount of 0
cuts off whatever comes after it, even infinity and NaN. Rewards and values of 16 bits are summed
in float32; discounts must have at least 32 bits.

Arrays may be JAX's, NumPy's or lists, and must hold floats: integers are refused, since they are
often flags with another meaning. A single number, such as γ, stands for the same number at every
step. Nothing else is broadcast. Gradients flow through all results; the losses treat them as
constants.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.types import (
    Array,
    as_floats,
    as_setting,
    check_floats,
    check_integers,
    check_shapes,
    check_unroll,
    cut,
    scalar_or_alike,
    taken,
)


def lambda_returns(
    rewards: Array,
    discounts: Array | float,
    next_values: Array,
    lambda_: chex.Numeric = 1.0,
) -> jax.Array:
    """Mix n-step returns of all lengths, backwards in time.

    For t in [0, T - 1], with G_T = v_T:

      Gₜ = rₜ₊₁ + γₜ₊₁ [(1 − λₜ₊₁) vₜ₊₁ + λₜ₊₁ Gₜ₊₁]

    λ = 1 gives the n-step returns of A3C (Mnih et al. 2016, algorithm S3), λ = 0
    the one-step targets (Sutton & Barto 2018, eq. 12.18 for the recursion). Set λ = 0
    at a step that was truncated by a time limit: it then bootstraps from the
    value of its true last observation, whatever follows in the arrays.

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      next_values: float `[T, ...]`, vₜ₊₁; the last one bootstraps the unroll.
      lambda_: the mixing parameter in [0, 1], a scalar or `[T, ...]`.

    Returns:
      float32 `[T, ...]`, Gₜ, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes differ, there is no step or an array is not floating point.
    """
    rewards, discounts, next_values = _floats(rewards, discounts, next_values=next_values)
    check_unroll(rewards=rewards)
    check_shapes(rewards.shape, _shape_of(rewards), next_values=next_values)
    lambda_ = _at_every_step("lambda_", as_setting("lambda_", lambda_, rewards.dtype), rewards)
    lambda_ = cut(discounts, lambda_)
    values = cut(1 - lambda_, cut(discounts, next_values))
    # Zero where either factor is zero: their product may be too small for a float.
    weights = jnp.where(discounts == 0, discounts, lambda_)

    def one_step_back(return_t, transition):
        reward_t, discount_t, value_t, lambda_t, weight_t = transition
        return_t = cut(weight_t, return_t)
        return_tm1 = reward_t + discount_t * ((1 - lambda_t) * value_t + lambda_t * return_t)
        return return_tm1, return_tm1

    transitions = (rewards, discounts, values, lambda_, weights)
    return _scan_back(one_step_back, next_values[-1], transitions)


def n_step_returns(
    rewards: Array, discounts: Array | float, bootstrap_value: Array | float
) -> jax.Array:
    """Sum discounted rewards up to the end of the unroll and bootstrap there.

    For t in [0, T - 1], with G_T = V(s_T) (Mnih et al. 2016, algorithm S3, line
    "R ← rᵢ + γR"):

      Gₜ = rₜ₊₁ + γₜ₊₁ Gₜ₊₁

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      bootstrap_value: float `[...]` or a scalar, the value of the state after the last step.

    Returns:
      float32 `[T, ...]`, Gₜ, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit, there is no step or an array is not floating point.
    """
    rewards, discounts, bootstrap_value = _floats(
        rewards, discounts, bootstrap_value=bootstrap_value
    )
    check_unroll(rewards=rewards)
    bootstrap_value = _after_the_last_step(rewards, bootstrap_value)

    def one_step_back(return_t, transition):
        reward_t, discount_t = transition
        return_tm1 = reward_t + discount_t * cut(discount_t, return_t)
        return return_tm1, return_tm1

    return _scan_back(one_step_back, bootstrap_value, (rewards, discounts))


def gae_advantages(
    rewards: Array,
    discounts: Array | float,
    values: Array,
    bootstrap_value: Array | float,
    lambda_: chex.Numeric = 1.0,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16).

    For t in [0, T - 1], with v_T = V(s_T) and Â_T = 0:

      δₜ = rₜ₊₁ + γₜ₊₁ vₜ₊₁ − vₜ
      Âₜ = δₜ + γₜ₊₁ λₜ₊₁ Âₜ₊₁

    This is the λ-return minus the value, so that Âₜ + vₜ are targets for the values. λ = 1 gives
    n-step returns − V, the advantages of A3C. Set λ = 0 at a step that was truncated by a time
    limit; vₜ₊₁ must then be the value of its true last observation. Where this is not the next
    entry of `values`, use `lambda_returns`.

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      values: float `[T, ...]`, vₜ.
      bootstrap_value: float `[...]` or a scalar, the value of the state after the last step.
      lambda_: the mixing parameter in [0, 1], a scalar or `[T, ...]`.

    Returns:
      float32 `[T, ...]`, Âₜ, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit, there is no step or an array is not floating point.
    """
    rewards, discounts, values, bootstrap_value = _floats(
        rewards, discounts, values=values, bootstrap_value=bootstrap_value
    )
    next_values = _next_values(rewards, values, bootstrap_value)
    return lambda_returns(rewards, discounts, next_values, lambda_) - values


class VTrace(NamedTuple):
    """What an actor-critic learns from steps of another policy, each float `[T, ...]`.

    `targets` vₜ are for the values; `advantages` are for the policy gradient, and include its
    importance weights already.
    """

    targets: jax.Array
    advantages: jax.Array


def vtrace_targets(
    rewards: Array,
    discounts: Array | float,
    values: Array,
    bootstrap_value: Array | float,
    log_rhos: Array,
    *,
    lambda_: chex.Numeric = 1.0,
    clip_rho: chex.Numeric = 1.0,
    clip_c: chex.Numeric = 1.0,
    clip_pg_rho: chex.Numeric = 1.0,
) -> VTrace:
    """V-trace: targets and advantages from another policy's steps (Espeholt et al. 2018, eq. 1).

    For t in [0, T - 1], with π(aₜ|sₜ) / μ(aₜ|sₜ) = exp(log ρₜ), v_T = V(s_T) and
    ρₜ = min(ρ̄, π/μ), cₜ = λₜ₊₁ min(c̄, π/μ):

      vₜ = V(sₜ) + ρₜ [rₜ₊₁ + γₜ₊₁ V(sₜ₊₁) − V(sₜ)] + γₜ₊₁ cₜ [vₜ₊₁ − V(sₜ₊₁)]
      Aₜ = min(ρ̄_pg, π/μ) [rₜ₊₁ + γₜ₊₁ ((1 − λₜ₊₁) V(sₜ₊₁) + λₜ₊₁ vₜ₊₁) − V(sₜ)]

    This is the recursion of remark 1 with the λ of remark 2, and the policy gradient of section
    4.2 (where λ = 1; here mixed as in rlax, so that on-policy vₜ are λ-returns and Aₜ GAE).
    On-policy, with λ = 1 and no clip below 1, vₜ are the n-step returns of A3C. A ratio of 0 cuts
    off what follows it.

    Args:
      rewards: float `[T, ...]`, rₜ₊₁ for t in [0, T - 1].
      discounts: float `[T, ...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      values: float `[T, ...]`, V(sₜ).
      bootstrap_value: float `[...]` or a scalar, the value of the state after the last step.
      log_rhos: float `[T, ...]`, log π(aₜ|sₜ) − log μ(aₜ|sₜ), where π is the policy that learns
        and μ the one that acted.
      lambda_: the mixing parameter in [0, 1], a scalar or `[T, ...]`; 0 at a truncated step, as for
        `gae_advantages`.
      clip_rho: ρ̄, which decides what the values converge to: the values of π if it is infinite,
        those of μ if it is near 0.
      clip_c: c̄ <= ρ̄, how far corrections travel; it decides the speed, not the fixed point.
      clip_pg_rho: ρ̄_pg, the limit in the policy gradient.

    Returns:
      float32 targets and advantages, in the units of the rewards; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit, there is no step or an array is not floating point.
    """
    rewards, discounts, values, bootstrap_value, log_rhos = _floats(
        rewards, discounts, values=values, bootstrap_value=bootstrap_value, log_rhos=log_rhos
    )
    next_values = _next_values(rewards, values, bootstrap_value)
    check_shapes(rewards.shape, _shape_of(rewards), log_rhos=log_rhos)
    lambda_ = _at_every_step("lambda_", as_setting("lambda_", lambda_, rewards.dtype), rewards)
    lambda_ = cut(discounts, lambda_)

    # The logarithm of about the largest float: an infinite ratio times 0 would be NaN.
    most = 0.999 * float(np.log(jnp.finfo(log_rhos.dtype).max))

    def clipped_rhos(limit):
        # Clipped as logarithms, so that nothing overflows.
        return jnp.exp(jnp.minimum(log_rhos, jnp.minimum(jnp.log(limit), most)))

    limits = scalar_or_alike(
        log_rhos, _shape_of(rewards), clip_rho=clip_rho, clip_c=clip_c, clip_pg_rho=clip_pg_rho
    )
    rhos, cs, pg_rhos = map(clipped_rhos, limits)
    cs = lambda_ * cut(lambda_, cut(discounts, cs))
    errors = rewards + discounts * cut(discounts, next_values) - values
    errors = rhos * cut(rhos, errors)
    # Zero where either factor is zero: their product may be too small for a float.
    weights = jnp.where(discounts == 0, discounts, cs)

    def one_step_back(correction_t, transition):
        error_t, discount_t, c_t, weight_t = transition
        correction_tm1 = error_t + discount_t * c_t * cut(weight_t, correction_t)
        return correction_tm1, correction_tm1

    transitions = (errors, discounts, cs, weights)
    corrections = _scan_back(one_step_back, jnp.zeros_like(rewards[-1]), transitions)
    targets = values + corrections
    next_targets = jnp.concatenate([targets[1:], next_values[-1:]])
    mixed = (1 - lambda_) * cut(1 - lambda_, next_values) + lambda_ * cut(lambda_, next_targets)
    advantages = rewards + discounts * cut(discounts, mixed) - values
    return VTrace(targets, pg_rhos * cut(pg_rhos, advantages))


def one_step_q_targets(rewards: Array, discounts: Array | float, next_q_values: Array) -> jax.Array:
    """One-step Q-learning targets (Mnih et al. 2016, algorithm 1).

      yₜ = rₜ₊₁ + γₜ₊₁ maxₐ Q(sₜ₊₁, a; θ⁻)

    Args:
      rewards: float `[...]`, rₜ₊₁.
      discounts: float `[...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      next_q_values: float `[..., A]`, Q(sₜ₊₁, ·) under the target parameters.

    Returns:
      float32 `[...]`, yₜ; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or an array is not floating point.
    """
    rewards, discounts, next_q_values = _floats(rewards, discounts, next_q_values=next_q_values)
    check_shapes((*rewards.shape, "A"), _shape_of(rewards), next_q_values=next_q_values)
    # Before the maximum, whose gradient is NaN where a value is NaN.
    next_q_values = cut(discounts[..., None], next_q_values)
    return rewards + discounts * jnp.max(next_q_values, axis=-1)


def one_step_sarsa_targets(
    rewards: Array, discounts: Array | float, next_q_values: Array, next_actions: Array
) -> jax.Array:
    """One-step Sarsa targets (Mnih et al. 2016, section 4).

      yₜ = rₜ₊₁ + γₜ₊₁ Q(sₜ₊₁, aₜ₊₁; θ⁻)

    Args:
      rewards: float `[...]`, rₜ₊₁.
      discounts: float `[...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      next_q_values: float `[..., A]`, Q(sₜ₊₁, ·) under the target parameters.
      next_actions: int `[...]`, the action taken in sₜ₊₁.

    Returns:
      float32 `[...]`, yₜ; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    check_integers(next_actions=next_actions)
    rewards, discounts, next_q_values = _floats(rewards, discounts, next_q_values=next_q_values)
    check_shapes(rewards.shape, _shape_of(rewards), next_actions=next_actions)
    check_shapes((*rewards.shape, "A"), _shape_of(rewards), next_q_values=next_q_values)
    # After the choice, since the value chosen by an invalid action is NaN.
    return rewards + discounts * cut(discounts, taken(next_q_values, next_actions))


def double_q_targets(
    rewards: Array, discounts: Array | float, next_q_values: Array, selector_q_values: Array
) -> jax.Array:
    """Double Q-learning targets (van Hasselt et al. 2016, eq. 4 with the target network).

      yₜ = rₜ₊₁ + γₜ₊₁ Q(sₜ₊₁, argmaxₐ Q(sₜ₊₁, a; θ); θ⁻)

    One set of parameters chooses the action and another one evaluates it: the maximum under a
    single set is too high wherever values are uncertain.

    Args:
      rewards: float `[...]`, rₜ₊₁.
      discounts: float `[...]` or a scalar, γₜ₊₁, zero where the episode terminated.
      next_q_values: float `[..., A]`, Q(sₜ₊₁, ·; θ⁻) under the target parameters, which evaluate.
      selector_q_values: float `[..., A]`, Q(sₜ₊₁, ·; θ) under the learning parameters, which
        choose (the first of equal actions).

    Returns:
      float32 `[...]`, yₜ; float64 if an input is.

    Raises:
      AssertionError: if the shapes do not fit or an array is not floating point.
    """
    check_floats(selector_q_values=selector_q_values)
    shape = (*np.shape(rewards), "A")
    check_shapes(shape, _shape_of(rewards), next_q_values=next_q_values)
    shape = np.shape(next_q_values)
    check_shapes(shape, f"next_q_values {shape}", selector_q_values=selector_q_values)
    next_actions = jnp.argmax(jnp.asarray(selector_q_values), axis=-1)
    return one_step_sarsa_targets(rewards, discounts, next_q_values, next_actions)


def _floats(rewards: Array, discounts: Array | float, **others: Array | float) -> list[jax.Array]:
    """The arrays in one dtype of at least 32 bits, with a discount for every reward.

    Refuses discounts that were rounded to fewer bits.
    """
    check_floats(rewards=rewards, discounts=discounts, **others)
    dtype = jnp.asarray(discounts).dtype
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        raise AssertionError(
            f"discounts must be float32 or float64, got {dtype}: 0.99 is 0.988 in "
            "bfloat16, which looks 85 steps ahead and not 100."
        )
    rewards, discounts, *rest = as_floats(rewards, discounts, *others.values())
    return [rewards, _at_every_step("discounts", discounts, rewards), *rest]


def _shape_of(rewards: Array) -> str:
    return f"rewards {np.shape(rewards)}"


def _at_every_step(name: str, array: jax.Array, rewards: jax.Array) -> jax.Array:
    """One number for each reward; a scalar is repeated."""
    if array.ndim == 0:
        return jnp.full_like(rewards, array, array.dtype)  # sharded as they are
    check_shapes(rewards.shape, _shape_of(rewards), **{name: array})
    return array


def _after_the_last_step(rewards: jax.Array, bootstrap_value: jax.Array) -> jax.Array:
    if bootstrap_value.ndim == 0:
        return jnp.full_like(rewards[0], bootstrap_value, bootstrap_value.dtype)
    check_shapes(rewards.shape[1:], _shape_of(rewards), bootstrap_value=bootstrap_value)
    return bootstrap_value


def _next_values(rewards: jax.Array, values: jax.Array, bootstrap_value: jax.Array) -> jax.Array:
    """V(sₜ₊₁), from V(sₜ) and the value after the last step."""
    check_unroll(rewards=rewards)
    check_shapes(rewards.shape, _shape_of(rewards), values=values)
    return jnp.concatenate([values[1:], _after_the_last_step(rewards, bootstrap_value)[None]])


def _scan_back(step: Callable, carry: jax.Array, transitions: Any) -> jax.Array:
    """The results of `step`, from the last transition back to the first, in the order of time.

    Under `jax.shard_map` the carry must vary over the same mesh axes as the transitions, or its
    type would change with the first step: a constant may bootstrap sharded transitions.
    """
    for array in transitions:
        if jax.eval_shape(lambda x: x[0], array) != jax.eval_shape(lambda x: x, carry):
            carry = jnp.where(True, carry, array[0])  # the carry, with the axes of both
    _, results = jax.lax.scan(step, carry, transitions, reverse=True)
    return results
