"""Losses, to be minimised. The per-step ones are unreduced: one number a step.

Scalars per step are `[T, B]` (or any equal shape). Shapes must agree exactly;
nothing is broadcast. Losses are float32, of 16-bit inputs too, and float64 if an input is.
"""

import chex
import jax
import jax.numpy as jnp

from a3cjax.distributions import Density
from a3cjax.types import ActorCriticMetrics, Array, as_floats

# Where values are as good as they get, advantages are noise, which is not to be blown up: a policy
# that keeps CartPole's pole up falls apart without it. For returns with a
# deviation of 1; docs/decisions.md has what was tried.
MIN_ADVANTAGE = 0.3


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
    chex.assert_type([log_probs, advantages], float)
    chex.assert_equal_shape([log_probs, advantages])
    log_probs, advantages = as_floats(log_probs, advantages)
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
    chex.assert_type([values, returns], float)
    chex.assert_equal_shape([values, returns])
    values, returns = as_floats(values, returns)
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
    chex.assert_type(entropies, float)
    return -as_floats(entropies)[0]


def q_loss(
    q_values: Array, actions: Array, targets: Array, *, huber_delta: float | None = None
) -> jax.Array:
    """½(y − Q(s, a))², with the targets treated as constants (Mnih et al. 2016, algorithm 1).

    Args:
      q_values: float `[..., A]`, Q(sₜ, ·), to be differentiated.
      actions: int `[...]`, the actions taken.
      targets: float `[...]`, yₜ.
      huber_delta: δ > 0; errors e beyond it cost δ(|e| − ½δ) (Huber 1964); None: all are squared.

    Returns:
      float `[...]`, one loss a step.

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    chex.assert_type([q_values, actions, targets], [float, int, float])
    chex.assert_equal_shape([actions, targets])
    chex.assert_shape(q_values, (*jnp.shape(actions), None))
    q_values, targets = as_floats(q_values, targets)
    q_taken = jnp.take_along_axis(q_values, jnp.asarray(actions)[..., None], axis=-1)[..., 0]
    # The factor 0.5 makes d loss / d q_taken = q_taken - target.
    errors = jax.lax.stop_gradient(targets) - q_taken
    if huber_delta is None:
        return 0.5 * jnp.square(errors)
    size = jnp.abs(errors)
    linear = huber_delta * (size - 0.5 * huber_delta)
    return jnp.where(size <= huber_delta, 0.5 * jnp.square(errors), linear)


def actor_critic_loss(
    distribution: Density,
    values: Array,
    actions: Array,
    returns: Array,
    *,
    value_cost: chex.Numeric = 0.5,
    entropy_cost: chex.Numeric = 0.01,
    mask: Array | None = None,
    normalize_advantages: bool = False,
) -> tuple[jax.Array, ActorCriticMetrics]:
    """The combined loss of A3C: summed over time, averaged over the batch.

    With Aₜ = Rₜ − stop_gradient(V(sₜ)) (Mnih et al. 2016, algorithm S3) and mₜ the mask:

      L = mean_B Σₜ mₜ [−log π(aₜ|sₜ) Aₜ + c_v ½(Rₜ − V(sₜ))² − β H(π(·|sₜ))]

    The sum over time is the paper's: it accumulates the gradients of the t_max steps.
    An optimizer's epsilon and a clipping norm are to be read against this scale. A step of
    weight 0 is left out of the sum; the mean still divides by B.

    Args:
      distribution: the policy at each step, leading axes `[T, B]` (or `[T]`).
      values: float `[T, B]`, V(sₜ).
      actions: int `[T, B]`, `[T, B, K]` of K choices at once, or float `[T, B, D]` for a
        Gaussian, the actions taken.
      returns: float `[T, B]`, Rₜ, treated as constants.
      value_cost: c_v, weight of the value loss (½: Mnih by e-mail, muupan/async-rl wiki).
      entropy_cost: β, weight of the entropy (0.01: Mnih et al. 2016, section 8).
      mask: bool, int or float `[T, B]`, mₜ >= 0, the weight of each step: 0 cuts it out,
        whatever numbers stand there, and a fraction counts as such; None weighs all by 1.
      normalize_advantages: whether advantages are divided by the root of their mean square over
        steps, `MIN_ADVANTAGE` added to it; what is learned then hardly depends on their scale. The
        entropy counts less where they are small: there it would drown them.

    Returns:
      The scalar loss, and its parts before their costs as averages over steps, weighted by the
      mask (so that they compare across unroll lengths).

    Raises:
      AssertionError: if the shapes do not fit or a dtype is wrong.
    """
    chex.assert_type([values, returns], float)
    values, returns = as_floats(values, returns)
    weights = jnp.asarray(jnp.ones(values.shape) if mask is None else mask, values.dtype)
    chex.assert_equal_shape([values, returns, weights])

    def without_cut(x: Array, filler: float) -> jax.Array:
        """Replaced before they meet, not only multiplied after: 0 · NaN and 0 · inf are NaN."""
        x = jnp.asarray(x)
        if mask is None or x.shape[: weights.ndim] != weights.shape:  # which is refused below
            return x
        is_cut = jnp.reshape(weights == 0, (*weights.shape, *(1,) * (x.ndim - weights.ndim)))
        return jnp.where(is_cut, jnp.asarray(filler, x.dtype), x)

    # Before log π and H, whose gradients are NaN where a parameter is none. A variance may be 1.
    distribution = jax.tree.map(lambda x: without_cut(x, 1.0), distribution)
    actions, values, returns = (without_cut(x, 0.0) for x in (actions, values, returns))
    log_probs = jnp.asarray(distribution.log_prob(actions))
    entropies = jnp.asarray(distribution.entropy())
    chex.assert_equal_shape([log_probs, entropies, values])
    chex.assert_axis_dimension_gt(values, 0, 0)
    log_probs, entropies, values, returns = as_floats(log_probs, entropies, values, returns)
    weights = weights.astype(values.dtype)

    total_weight = jnp.sum(weights)
    total_weight = jnp.where(total_weight == 0, 1.0, total_weight)
    advantages = jax.lax.stop_gradient(returns - values)
    value_cost, entropy_cost = (jnp.asarray(x, values.dtype) for x in (value_cost, entropy_cost))
    if normalize_advantages:
        mean_square = jnp.sum(weights * jnp.square(advantages)) / total_weight
        scale = jnp.sqrt(mean_square + MIN_ADVANTAGE**2)
        advantages /= scale
        entropy_cost *= jnp.sqrt(mean_square) / scale
    policy_losses = policy_gradient_loss(log_probs, advantages)
    value_losses = value_loss(values, returns)
    entropy_losses = entropy_loss(entropies)

    losses = policy_losses + value_cost * value_losses + entropy_cost * entropy_losses
    loss = jnp.mean(jnp.sum(weights * losses, axis=0))

    metrics = ActorCriticMetrics(
        policy_loss=jnp.sum(weights * policy_losses) / total_weight,
        value_loss=jnp.sum(weights * value_losses) / total_weight,
        entropy=-jnp.sum(weights * entropy_losses) / total_weight,
    )
    return loss, metrics
