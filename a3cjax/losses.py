"""Losses, to be minimised. The per-step ones are unreduced: one number per step.

Scalars per step are `[T, B]` (or any other common shape). Shapes must agree exactly; nothing is
broadcast but costs and limits, which may be scalars. Arrays may be JAX's, NumPy's or lists. Losses
are float32, also for 16-bit inputs, and float64 if an input is.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.distributions import Density
from a3cjax.types import (
    ActorCriticMetrics,
    Array,
    as_floats,
    check_arrays,
    check_floats,
    check_integers,
    check_shapes,
    check_unroll,
    cut,
    scalar_or_alike,
    taken,
)

# Once values are as good as they get, advantages are noise, which must not be blown up: without
# this floor, a policy that keeps CartPole's pole up falls apart. It is meant for returns with a
# standard deviation of 1; docs/decisions.md has what was tried.
MIN_ADVANTAGE = 0.3
ROUNDING = 8.0  # how many units in the last place returns may differ and still count as alike


def policy_gradient_loss(log_probs: Array, advantages: Array) -> jax.Array:
    """−log π(a|s) · stop_gradient(A) (Mnih et al. 2016, section 3).

    Args:
      log_probs: float `[...]`, log π(aₜ|sₜ), to be differentiated.
      advantages: float `[...]`, Aₜ, treated as a constant.

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the shapes differ or an array is not floating point.
    """
    log_probs, advantages = _alike(log_probs=log_probs, advantages=advantages)
    return -log_probs * jax.lax.stop_gradient(advantages)


def value_loss(values: Array, returns: Array) -> jax.Array:
    """½(R − V)², with the returns treated as constants.

    Args:
      values: float `[...]`, V(sₜ), to be differentiated.
      returns: float `[...]`, Rₜ, the targets.

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the shapes differ or an array is not floating point.
    """
    values, returns = _alike(values=values, returns=returns)
    # The factor 0.5 makes d loss / d value = value - return.
    return 0.5 * jnp.square(jax.lax.stop_gradient(returns) - values)


def entropy_loss(entropies: Array) -> jax.Array:
    """−H: minimising it keeps the policy from settling too soon (Mnih et al. 2016, section 4).

    Args:
      entropies: float `[...]`, H(π(·|sₜ)) in nats.

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the array is not floating point.
    """
    check_floats(entropies=entropies)
    return -as_floats(entropies)[0]


def q_loss(
    q_values: Array, actions: Array, targets: Array, *, huber_delta: chex.Numeric | None = None
) -> jax.Array:
    """½(y − Q(s, a))², with the targets treated as constants (Mnih et al. 2016, algorithm 1).

    With a Huber delta δ, a large error x = y − Q(s, a) counts linearly, so that the gradient is
    x clipped to ± δ (Huber 1964; Mnih et al. 2015 clip it to ± 1):

      ½ x²  where |x| <= δ,  δ (|x| − ½ δ)  elsewhere

    Args:
      q_values: float `[..., A]`, Q(sₜ, ·), to be differentiated.
      actions: int `[...]`, the actions taken.
      targets: float `[...]`, yₜ.
      huber_delta: δ > 0, in the units of the values; None for the square everywhere.

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    check_floats(q_values=q_values, targets=targets)
    check_integers(actions=actions)
    beside = f"actions {np.shape(actions)}"
    check_shapes(np.shape(actions), beside, targets=targets)
    check_shapes((*np.shape(actions), "A"), beside, q_values=q_values)
    q_values, targets = as_floats(q_values, targets)
    q_taken = taken(q_values, actions)
    errors = jax.lax.stop_gradient(targets) - q_taken
    if huber_delta is None:
        # The factor 0.5 makes d loss / d q_taken = q_taken - target.
        return 0.5 * jnp.square(errors)
    (huber_delta,) = scalar_or_alike(errors, beside, huber_delta=huber_delta)
    # One expression for both parts: its second derivative is right at 0, too.
    clipped = jnp.clip(errors, -huber_delta, huber_delta)
    return clipped * (errors - 0.5 * clipped)


def clipped_surrogate_loss(
    log_probs: Array, old_log_probs: Array, advantages: Array, *, clip: chex.Numeric = 0.2
) -> jax.Array:
    """The clipped surrogate objective of PPO, negated (Schulman et al. 2017, eq. 7).

    With rₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ):

      −min(rₜ Aₜ, clip(rₜ, 1 − ε, 1 + ε) Aₜ)

    At π = π_old its gradient equals the gradient of `policy_gradient_loss`.

    Args:
      log_probs: float `[...]`, log π(aₜ|sₜ), to be differentiated.
      old_log_probs: float `[...]`, log π_old(aₜ|sₜ) of the policy that acted, treated as constants.
      advantages: float `[...]`, Aₜ, treated as constants.
      clip: ε >= 0, how far the ratio may move (0.2: Schulman et al. 2017, table 1).

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the shapes differ or an array is not floating point.
    """
    log_probs, old_log_probs, advantages = _alike(
        log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages
    )
    (clip,) = scalar_or_alike(log_probs, f"log_probs {log_probs.shape}", clip=clip)
    advantages = jax.lax.stop_gradient(advantages)
    log_ratios = log_probs - jax.lax.stop_gradient(old_log_probs)
    ratios, bounds = jnp.exp(log_ratios), jnp.where(advantages < 0, 1 - clip, 1 + clip)
    is_flat = jnp.where(advantages < 0, ratios < bounds, ratios > bounds)
    # Beyond the bound no ratio is differentiated: it may be infinite, and 0 · inf is NaN.
    return -advantages * jnp.where(is_flat, bounds, jnp.exp(jnp.where(is_flat, 0.0, log_ratios)))


def actor_critic_loss(
    distribution: Density,
    values: Array,
    actions: Array,
    returns: Array,
    *,
    advantages: Array | None = None,
    weights: Array | None = None,
    old_log_probs: Array | None = None,
    clip: chex.Numeric = 0.2,
    value_cost: chex.Numeric = 0.5,
    entropy_cost: chex.Numeric = 0.01,
    mask: Array | None = None,
    normalize_advantages: bool = False,
    entropy_floor: chex.Numeric = 0.0,
) -> tuple[jax.Array, ActorCriticMetrics]:
    """The combined loss of A3C: summed over time, averaged over the batch.

    With Aₜ = Rₜ − stop_gradient(V(sₜ)) (Mnih et al. 2016, algorithm S3), ρₜ the weights and mₜ the
    mask:

      L = mean_B Σₜ mₜ [−ρₜ log π(aₜ|sₜ) Aₜ + c_v ½(Rₜ − V(sₜ))² − β H(π(·|sₜ))]

    With `old_log_probs` the first term is PPO's `clipped_surrogate_loss`, with advantages ρₜ Aₜ.

    The sum over time follows the paper, which accumulates the gradients of t_max steps. Choose
    an optimizer's epsilon and a clipping norm relative to this scale. A step whose mask is 0 is
    left out of the sum; the mean still divides by B.

    Args:
      distribution: the policy at each step, leading axes `[T, B]` (or `[T]`), with
        `log_prob(actions)` and `entropy()`, from this package or elsewhere; where there is a mask,
        a pytree of arrays.
      values: float `[T, B]`, V(sₜ).
      actions: the actions taken: int `[T, B]`, int `[T, B, K]` for K choices at once, or float
        `[T, B, D]` for a Gaussian.
      returns: float `[T, B]`, Rₜ, treated as constants.
      advantages: float `[T, B]`, Aₜ, treated as constants, for example from `gae_advantages`.
        None for Rₜ − V(sₜ). The values are fitted to the returns in either case.
      weights: float `[T, B]`, ρₜ >= 0, treated as constants: importance weights π/μ of actions
        that another policy μ took. They multiply the policy term alone, not the entropy, and not
        the value loss, whose targets have to be corrected instead: `vtrace_targets` does that, and
        its advantages are weighted already. A weight of 0 removes the term, even where it is
        infinite or NaN. None for 1.
      old_log_probs: float `[T, B]`, log π_old(aₜ|sₜ) of the policy that acted, treated as
        constants. None for the policy gradient.
      clip: as for `clipped_surrogate_loss`; without effect unless `old_log_probs` are given.
      value_cost: c_v, weight of the value loss (½: Mnih by e-mail, muupan/async-rl wiki).
      entropy_cost: β, weight of the entropy (0.01: Mnih et al. 2016, section 8).
      mask: bool, int or float `[T, B]`, mₜ >= 0, the weight of all three terms of a step: 0
        removes the step, whatever numbers it holds, and fractions are possible (weights of a
        prioritised replay go here); None weighs all steps by 1.
      normalize_advantages: whether advantages are divided by √(m + `MIN_ADVANTAGE`²), where m is
        their mean square over steps (before `weights`); what is learned then hardly depends on
        their scale. The entropy counts less where they are small, since it would drown them there.
      entropy_floor: k in [0, 1], the share of β that is left however small advantages of one size
        are: β is multiplied by k + (1 − k) √(m / (m + `MIN_ADVANTAGE`²)). Without effect unless
        `normalize_advantages`.

    Returns:
      The scalar loss, and its parts before multiplication by their costs, as averages over steps
      weighted by the mask (so that they can be compared across unroll lengths).

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    if isinstance(distribution, type) or not hasattr(distribution, "log_prob"):
        kind = type(distribution).__name__
        raise AssertionError(
            f"distribution must have log_prob, as Categorical(logits), got {kind}."
        )
    given = {"advantages": advantages, "weights": weights, "old_log_probs": old_log_probs}
    given = {name: jnp.asarray(array) for name, array in given.items() if array is not None}
    check_floats(values=values, returns=returns, **given)
    values, returns = as_floats(values, returns)
    check_unroll(values=values)
    beside = f"values {values.shape}"
    step_weights = jnp.asarray(jnp.ones(values.shape) if mask is None else mask, values.dtype)
    check_shapes(values.shape, beside, returns=returns, mask=step_weights, **given)
    trailing_axes = np.shape(actions)[values.ndim :]  # of a distribution over vectors
    check_shapes((*values.shape, *trailing_axes), beside, actions=actions)

    def without_cut(x: Array, filler: float) -> jax.Array:
        """Replace x where the mask is 0; multiplying is not enough: 0 · NaN and 0 · inf are NaN."""
        x = jnp.asarray(x)
        ndim = step_weights.ndim
        if mask is None or x.shape[:ndim] != step_weights.shape:  # which is refused below
            return x
        is_cut = jnp.reshape(step_weights == 0, (*step_weights.shape, *(1,) * (x.ndim - ndim)))
        return jnp.where(is_cut, jnp.asarray(filler, x.dtype), x)

    # Before log π and H, whose gradients are NaN where a parameter is not a number. As a variance,
    # 1 is valid.
    if mask is not None:
        for x in jax.tree.leaves(distribution):
            check_arrays(**{"where there is a mask, each part of distribution": x})
        distribution = jax.tree.map(lambda x: without_cut(x, 1.0), distribution)
    actions, values, returns = (without_cut(x, 0.0) for x in (actions, values, returns))
    log_probs = jnp.asarray(distribution.log_prob(actions))
    entropies = jnp.asarray(distribution.entropy())
    of_policy = {"log_prob(actions)": log_probs, "entropy()": entropies}
    check_shapes(values.shape, beside, **of_policy)
    # After them, too: 1 and 0 are not valid for all policies, and their log π may be infinite.
    log_probs, entropies = without_cut(log_probs, 0.0), without_cut(entropies, 0.0)
    given = {name: without_cut(array, 0.0) for name, array in given.items()}
    log_probs, entropies, values, returns, *rest = as_floats(
        log_probs, entropies, values, returns, *given.values()
    )
    given = dict(zip(given, rest, strict=True))
    step_weights = step_weights.astype(values.dtype)

    total_weight = jnp.sum(step_weights)
    total_weight = jnp.where(total_weight == 0, 1.0, total_weight)
    advantages = jax.lax.stop_gradient(given.get("advantages", returns - values))
    value_cost, entropy_cost, entropy_floor = scalar_or_alike(
        values,
        beside,
        value_cost=value_cost,
        entropy_cost=entropy_cost,
        entropy_floor=entropy_floor,
    )
    if normalize_advantages:
        mean_square = jnp.sum(step_weights * jnp.square(advantages)) / total_weight
        scale = jnp.sqrt(mean_square + MIN_ADVANTAGE**2)
        advantages /= scale
        entropy_cost *= entropy_floor + (1 - entropy_floor) * jnp.sqrt(mean_square) / scale
    if "weights" in given:
        weights = jax.lax.stop_gradient(given["weights"])
        # A weight is 0 where log π is -inf.
        log_probs, advantages = cut(weights, log_probs), weights * cut(weights, advantages)
        given = {name: cut(weights, array) for name, array in given.items()}
    if "old_log_probs" in given:
        policy_losses = clipped_surrogate_loss(
            log_probs, given["old_log_probs"], advantages, clip=clip
        )
    else:
        policy_losses = policy_gradient_loss(log_probs, advantages)
    value_losses = value_loss(values, returns)
    entropy_losses = entropy_loss(entropies)

    losses = policy_losses + value_cost * value_losses + entropy_cost * entropy_losses
    loss = jnp.mean(jnp.sum(step_weights * losses, axis=0))

    metrics = ActorCriticMetrics(
        policy_loss=jnp.sum(step_weights * policy_losses) / total_weight,
        value_loss=jnp.sum(step_weights * value_losses) / total_weight,
        entropy=-jnp.sum(step_weights * entropy_losses) / total_weight,
        explained_variance=_explained_variance(values, returns, step_weights / total_weight),
    )
    return loss, metrics


def _explained_variance(values: jax.Array, returns: jax.Array, weights: jax.Array) -> jax.Array:
    """1 − Var(R − V) / Var(R), at least −1; 0 where the returns are alike but for rounding."""

    def variance(x):
        return jnp.sum(weights * jnp.square(x - jnp.sum(weights * x)))

    values, returns = jax.lax.stop_gradient((values, returns))
    of_returns = variance(returns)
    size = jnp.max(jnp.where(weights == 0, 0.0, jnp.abs(returns)))
    are_alike = of_returns <= jnp.square(ROUNDING * jnp.finfo(returns.dtype).eps * size)
    share = variance(returns - values) / jnp.where(are_alike, 1.0, of_returns)
    return jnp.where(are_alike, 0.0, jnp.maximum(1.0 - share, -1.0))


def _alike(**arrays: Array) -> list[jax.Array]:
    """The arrays in one dtype, checked to be floating point and to have the first one's shape."""
    check_floats(**arrays)
    first = next(iter(arrays))
    shape = np.shape(arrays[first])
    check_shapes(shape, f"{first} {shape}", **arrays)
    return as_floats(*arrays.values())
