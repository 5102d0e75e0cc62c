"""Action distributions as pytrees: a policy head's output with its mathematics.

Leading axes are arbitrary, `[T, B]`, `[B]` or none. What is computed of 16-bit numbers is
float32.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from a3cjax.types import Array, as_floats

# Beyond it, on either side, a squashed action has the mean density of all that is beyond: 32-bit
# floats tell too few of them apart to say which number was squashed (our choice; the idea is that
# of TanhTransformedDistribution in acme/jax/networks/distributional.py, which has 0.999).
MAX_SQUASHED = 1 - 1e-5
_MAX_BEFORE = math.atanh(MAX_SQUASHED)
# Standard deviations: further away nothing is learned, and 32 bits would not hold it.
_FURTHEST = -1000.0
# ∫ f(x) N(x; 0, 1) dx = Σ w f(x), exact of polynomials up to degree 63.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def mask_logits(logits: Array, mask: Array | None) -> jax.Array:
    """-inf, probability 0, for what a mask forbids; without a mask nothing is.

    Args:
      logits: float `[..., A]`, or action values.
      mask: bool `[..., A]`, True where an action is allowed, one at least of each A.

    Raises:
      AssertionError: if the shapes differ or the mask is not of bools.
    """
    logits = jnp.asarray(logits)
    if mask is None:
        return logits
    chex.assert_type(mask, bool)
    chex.assert_equal_shape([logits, mask])
    return jnp.where(mask, logits, -jnp.inf)


class Categorical(NamedTuple):
    """A softmax policy over A discrete actions.

    `logits`: float `[..., A]`, unnormalised log-probabilities.
    """

    logits: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, int32 `[...]`, with probabilities softmax(logits)."""
        return jax.random.categorical(key, as_floats(self.logits)[0]).astype(jnp.int32)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) in nats, float `[...]`, of int `[...]` actions in [0, A - 1].

        Raises:
          AssertionError: if the shapes do not fit or the actions are not integers.
        """
        chex.assert_type(actions, int)
        chex.assert_shape(actions, self.logits.shape[:-1])
        log_probs = jax.nn.log_softmax(as_floats(self.logits)[0])
        return jnp.take_along_axis(log_probs, jnp.asarray(actions)[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """H = −Σₐ π(a|s) log π(a|s) in nats, float `[...]`, between 0 and log A."""
        log_probs = jax.nn.log_softmax(as_floats(self.logits)[0])
        probs = jnp.exp(log_probs)
        # 0 · log 0 is 0 here; unguarded, a logit of -inf gives NaN. The guard stands inside the
        # product, so that the gradient is finite, too.
        return -jnp.sum(probs * jnp.where(probs > 0, log_probs, 0.0), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable actions, int32 `[...]`."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def masked(self, mask: Array) -> "Categorical":
        """The same policy among the allowed actions only: bool `[..., A]`, see `mask_logits`."""
        return Categorical(mask_logits(self.logits, mask))


class MultiCategorical(NamedTuple):
    """K choices at once, each with a softmax of its own over up to M: a product of Categoricals.

    `logits`: float `[..., K, M]`, -inf where a number has fewer than M choices.
    """

    logits: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, int32 `[..., K]`."""
        return Categorical(self.logits).sample(key)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) = Σₖ log πₖ(aₖ|s) in nats, float `[...]`, of int `[..., K]` actions.

        Raises:
          AssertionError: if the shapes do not fit or the actions are not integers.
        """
        return jnp.sum(Categorical(self.logits).log_prob(actions), axis=-1)

    def entropy(self) -> jax.Array:
        """H = Σₖ H(πₖ) in nats, float `[...]`: the choices are independent, given the state."""
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable actions, int32 `[..., K]`."""
        return Categorical(self.logits).mode()

    def masked(self, mask: Array) -> "MultiCategorical":
        """The same policy among the allowed choices only: bool `[..., K, M]`."""
        return MultiCategorical(mask_logits(self.logits, mask))


class EpsilonGreedy(NamedTuple):
    """With probability ε any action, each as likely as the other, otherwise the best one.

    `q_values`: float `[..., A]`. `epsilons`: float `[...]` in [0, 1] (Mnih et al. 2016,
    algorithm 1). `mask`: bool `[..., A]`, True where an action is allowed; None allows all.
    """

    q_values: jax.Array
    epsilons: Array
    mask: Array | None = None

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, int32 `[...]`."""
        chex.assert_shape(self.epsilons, self.q_values.shape[:-1])
        which_key, action_key = jax.random.split(key)
        best, (epsilons,) = self.mode(), as_floats(self.epsilons)
        is_random = jax.random.uniform(which_key, best.shape, epsilons.dtype) < epsilons
        if self.mask is None:
            num_actions = self.q_values.shape[-1]
            random = jax.random.randint(action_key, best.shape, 0, num_actions, jnp.int32)
        else:
            equal = Categorical(jnp.zeros(self.q_values.shape, epsilons.dtype))
            random = equal.masked(self.mask).sample(action_key)
        return jnp.where(is_random, random, best)

    def mode(self) -> jax.Array:
        """The allowed actions with the largest value, int32 `[...]`; of equal ones the first."""
        return jnp.argmax(mask_logits(self.q_values, self.mask), axis=-1).astype(jnp.int32)

    def masked(self, mask: Array) -> "EpsilonGreedy":
        """The same policy among the allowed actions only, bool `[..., A]`."""
        return self._replace(mask=mask)


class DiagonalGaussian(NamedTuple):
    """A Gaussian policy over D independent action dimensions (Mnih et al. 2016, section 9).

    `mean`: float `[..., D]`. `variance`: float `[..., D]` or `[..., 1]`, positive; the
    paper uses one scalar variance σ² for all dimensions.
    """

    mean: jax.Array
    variance: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, float `[..., D]`, unbounded.

        Raises:
          AssertionError: here and below, if mean, variance or actions do not fit together.
        """
        mean, variances = self._moments()
        return mean + jnp.sqrt(variances) * jax.random.normal(key, mean.shape, mean.dtype)

    def log_prob(self, actions: Array) -> jax.Array:
        """Log density −½ Σ_d [(a_d − μ_d)²/σ_d² + log 2πσ_d²] in nats, float `[...]`.

        `actions` are float `[..., D]`.
        """
        chex.assert_type(actions, float)
        chex.assert_equal_shape([actions, self.mean])
        actions, mean, variances = as_floats(actions, *self._moments())
        squared_distances = jnp.square(actions - mean) / variances
        return -0.5 * jnp.sum(squared_distances + jnp.log(2 * math.pi * variances), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy ½ Σ_d (log 2πσ_d² + 1) in nats, float `[...]`."""
        return 0.5 * jnp.sum(jnp.log(2 * math.pi * self._moments()[1]) + 1, axis=-1)

    def mode(self) -> jax.Array:
        """The mean, float `[..., D]`."""
        return self.mean

    def _moments(self) -> list[jax.Array]:
        """Mean and variance of each dimension; only the last axis may be shared."""
        chex.assert_type([self.mean, self.variance], float)
        *leading, num_dimensions = self.mean.shape
        chex.assert_shape(self.variance, (*leading, {1, num_dimensions}))
        return as_floats(self.mean, jnp.broadcast_to(self.variance, self.mean.shape))


class SquashedGaussian(NamedTuple):
    """A Gaussian policy squashed into (-1, 1): a = tanh(u) (Haarnoja et al. 2018, appendix C).

    `mean` and `variance` of u are as for a DiagonalGaussian.
    """

    mean: jax.Array
    variance: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, float `[..., D]` in (-1, 1).

        Raises:
          AssertionError: here and below, if mean, variance or actions do not fit together.
        """
        return _squash(self._before().sample(key))

    def log_prob(self, actions: Array) -> jax.Array:
        """Log density log N(u; μ, σ²) − Σ_d log(1 − a_d²) in nats, float `[...]`, u = artanh(a).

        `actions` are float `[..., D]` in [-1, 1]. Where |a_d| ≥ `MAX_SQUASHED` its density is the
        mean of all there: it integrates to 1, and is finite at the bounds.
        """
        chex.assert_type(actions, float)
        chex.assert_equal_shape([actions, self.mean])
        mean, variances = self._before()._moments()
        actions, mean, variances = as_floats(actions, mean, variances)
        deviations, is_tail = jnp.sqrt(variances), jnp.abs(actions) >= MAX_SQUASHED
        u = jnp.arctanh(jnp.clip(actions, -MAX_SQUASHED, MAX_SQUASHED))
        squared_distances = jnp.square(u - mean) / variances
        inside = -0.5 * (squared_distances + jnp.log(2 * math.pi * variances)) - _log_slope(u)
        beyond = (jnp.sign(actions) * mean - _MAX_BEFORE) / deviations
        # What is not taken must have a finite gradient, too.
        beyond = jnp.maximum(jnp.where(is_tail, beyond, 0.0), _FURTHEST)
        tail = log_ndtr(beyond) - math.log(1 - MAX_SQUASHED)
        return jnp.sum(jnp.where(is_tail, tail, inside), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy H(u) + Σ_d E[log(1 − tanh²(u_d))] in nats, float `[...]`.

        The expectation has no closed form: Gauss-Hermite quadrature with 32 nodes, whose error is
        below 0.01 for σ up to 3. It is differentiable in both parameters.
        """
        mean, variances = (x[..., None] for x in self._before()._moments())
        nodes, weights = (jnp.asarray(x, mean.dtype) for x in (_NODES, _WEIGHTS))
        nodes, weights = (jnp.reshape(x, (*(1,) * (mean.ndim - 1), -1)) for x in (nodes, weights))
        slopes = jnp.sum(weights * _log_slope(mean + jnp.sqrt(variances) * nodes), axis=-1)
        return self._before().entropy() + jnp.sum(slopes, axis=-1)

    def mode(self) -> jax.Array:
        """tanh of the mean, float `[..., D]`: the median of the actions.

        Their density is greatest elsewhere where σ is large: at the bounds, for σ² > ½.
        """
        return _squash(self._before()._moments()[0])

    def _before(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.variance)


def _squash(u: jax.Array) -> jax.Array:
    """tanh, but never ±1: what it is rounded to has no place in (-1, 1)."""
    most = 1 - jnp.finfo(u.dtype).epsneg
    return jnp.clip(jnp.tanh(u), -most, most)


def _log_slope(u: jax.Array) -> jax.Array:
    """log(1 − tanh²(u)) without the difference, which is 0 in 32 bits from |u| = 9 on."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
