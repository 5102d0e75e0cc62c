"""Action distributions as pytrees: a policy head's output with its mathematics.

Leading axes are arbitrary: `[T, B]`, `[B]` or none. Results computed from 16-bit numbers are
float32. Distributions from elsewhere work as well: the losses need a `Density`, the policy of
an agent must be a `Distribution`.
"""

import math
from typing import Any, NamedTuple, Protocol, Self

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from a3cjax.types import Array, as_floats, check_floats, check_integers, check_shapes, taken

# Squashed actions beyond ± this limit all get the mean density of that tail: 32-bit floats are too
# coarse there to tell which number was squashed (our choice; the idea is from
# TanhTransformedDistribution in acme/jax/networks/distributional.py, where the limit is 0.999).
MAX_SQUASHED = 1 - 1e-5
_MAX_BEFORE = math.atanh(MAX_SQUASHED)
# In standard deviations: further away nothing is learned, and 32 bits would not suffice.
_FURTHEST = -1000.0
# ∫ f(x) N(x; 0, 1) dx = Σ w f(x), exact for polynomials up to degree 63.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


class Density(Protocol):
    """What the losses need from a policy; distrax's distributions provide it as they are."""

    def log_prob(self, actions: Any, /) -> chex.Array:
        """log π(a|s) in nats, float `[...]`, of actions with the same leading axes."""
        ...

    def entropy(self) -> chex.Array:
        """H(π(·|s)) in nats, float `[...]`."""
        ...


class Distribution(Density, Protocol):
    """What an agent needs from the policy that its network returns.

    Acting uses `sample` or `mode`, learning uses the methods of a `Density`, and `kl_divergence`
    is for custom losses. A distribution must be a pytree of arrays, such as a NamedTuple, whose
    leading axes are the policy's: they are indexed and sliced. Where environments tell which
    actions are allowed, it also needs `masked(mask)`, as `Categorical` has. distrax's
    distributions lack a `sample` of this form: theirs is called as `sample(seed=key)`.
    """

    def sample(self, key: chex.PRNGKey, /) -> chex.Array:
        """Draw one action for each index of the leading axes."""
        ...

    def mode(self) -> chex.Array:
        """The actions that a greedy evaluation takes."""
        ...

    def kl_divergence(self, other: Self, /) -> chex.Array:
        """KL(self ‖ other) = E_self[log self(a) − log other(a)] in nats, float `[...]`, >= 0."""
        ...


def mask_logits(logits: Array, mask: Array | None) -> jax.Array:
    """Set what a mask forbids to -inf, which is probability 0; without a mask, change nothing.

    Args:
      logits: float `[..., A]`, or action values.
      mask: bool `[..., A]`, True where an action is allowed: at least one in each row of A.

    Raises:
      AssertionError: if the shapes differ or the mask is not boolean.
    """
    logits = jnp.asarray(logits)
    if mask is None:
        return logits
    mask = jnp.asarray(mask)
    if not jnp.issubdtype(mask.dtype, jnp.bool):
        rule = "True where an action is allowed"
        raise AssertionError(f"mask must be bools, {rule}, got {mask.dtype}.")
    check_shapes(logits.shape, f"logits {logits.shape}", mask=mask)
    return jnp.where(mask, logits, -jnp.inf)


class Categorical(NamedTuple):
    """A softmax policy over A discrete actions.

    `logits`: float `[..., A]`, unnormalised log-probabilities. Where not all actions are legal,
    use `Categorical(logits).masked(mask)`.
    """

    logits: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draw actions, int32 `[...]`, with probabilities softmax(logits)."""
        return jax.random.categorical(key, self._floats()).astype(jnp.int32)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) in nats, float `[...]`, for int `[...]` actions in [0, A - 1].

        Raises:
          AssertionError: if the shapes do not fit or the actions are not integers.
        """
        check_integers(actions=actions)
        shape = _shape_of("[..., A]", logits=self.logits)
        check_shapes(shape[:-1], f"logits {shape}", actions=actions)
        log_probs = jax.nn.log_softmax(self._floats())
        return taken(log_probs, actions)

    def entropy(self) -> jax.Array:
        """H = −Σₐ π(a|s) log π(a|s) in nats, float `[...]`, between 0 and log A."""
        log_probs = jax.nn.log_softmax(self._floats())
        probs = jnp.exp(log_probs)
        # 0 · log 0 counts as 0; without the guard, a logit of -inf would give NaN. The guard is
        # inside the product, so that the gradient is finite, too.
        return -jnp.sum(probs * jnp.where(probs > 0, log_probs, 0.0), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable actions, int32 `[...]`."""
        return jnp.argmax(self._floats(), axis=-1).astype(jnp.int32)

    def kl_divergence(self, other: "Categorical") -> jax.Array:
        """KL(π ‖ π′) = Σₐ π(a|s) [log π(a|s) − log π′(a|s)] in nats, float `[...]`.

        An action that π never takes adds nothing, and its gradient is 0; an action that π takes
        and π′ never takes makes the divergence infinite.

        Raises:
          TypeError: if `other` is not a Categorical.
          AssertionError: if the shapes differ.
        """
        _shape_of("[..., A]", logits=self.logits)
        _assert_alike(self, other)
        ours, theirs = map(jax.nn.log_softmax, as_floats(self.logits, other.logits))
        probs = jnp.exp(ours)
        # As in the entropy, the guard is inside the product.
        return jnp.sum(probs * jnp.where(probs > 0, ours - theirs, 0.0), axis=-1)

    def masked(self, mask: Array) -> "Categorical":
        """The same policy among the legal actions only.

        Illegal actions have probability 0, and the probabilities of the others keep their ratios.
        No gradient flows into a masked logit.

        Args:
          mask: bool `[..., A]`, True where an action is legal: at least one in each row of A.

        Raises:
          AssertionError: if the shapes differ or the mask is not boolean.
        """
        return Categorical(mask_logits(self.logits, mask))

    def _floats(self) -> jax.Array:
        _shape_of("[..., A]", logits=self.logits)
        return as_floats(self.logits)[0]


class MultiCategorical(NamedTuple):
    """K choices at once, each a softmax over up to M options: a product of Categoricals.

    `logits`: float `[..., K, M]`, -inf where a choice has fewer than M options.
    """

    logits: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draw actions, int32 `[..., K]`."""
        return self._each().sample(key)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) = Σₖ log πₖ(aₖ|s) in nats, float `[...]`, for int `[..., K]` actions.

        Raises:
          AssertionError: if the shapes do not fit or the actions are not integers.
        """
        return jnp.sum(self._each().log_prob(actions), axis=-1)

    def entropy(self) -> jax.Array:
        """H = Σₖ H(πₖ) in nats, float `[...]`: the choices are independent, given the state."""
        return jnp.sum(self._each().entropy(), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable actions, int32 `[..., K]`."""
        return self._each().mode()

    def kl_divergence(self, other: "MultiCategorical") -> jax.Array:
        """KL(π ‖ π′) = Σₖ KL(πₖ ‖ π′ₖ) in nats, float `[...]`; raises as for Categorical."""
        _assert_alike(self, other)
        divergences = self._each().kl_divergence(other._each())
        return jnp.sum(divergences, axis=-1)

    def masked(self, mask: Array) -> "MultiCategorical":
        """The same policy among the allowed options only; the mask is bool `[..., K, M]`."""
        return MultiCategorical(mask_logits(self.logits, mask))

    def _each(self) -> Categorical:
        _shape_of("[..., K, M]", logits=self.logits)
        return Categorical(self.logits)


class EpsilonGreedy(NamedTuple):
    """A uniformly random action with probability ε, otherwise the best action.

    `q_values`: float `[..., A]`. `epsilons`: float `[...]` in [0, 1] (Mnih et al. 2016,
    algorithm 1). `mask`: bool `[..., A]`, True where an action is allowed; None allows all.
    """

    q_values: jax.Array
    epsilons: Array
    mask: Array | None = None

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draw actions, int32 `[...]`."""
        return self._as_categorical().sample(key)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) in nats, float `[...]`, for int `[...]` actions; raises as for Categorical.

        The gradient with respect to ε > 0 is exact. Q only decides which action is the best, and
        has no gradient.
        """
        return self._as_categorical().log_prob(actions)

    def entropy(self) -> jax.Array:
        """H = −Σₐ π(a|s) log π(a|s) in nats, float `[...]`."""
        return self._as_categorical().entropy()

    def kl_divergence(self, other: "EpsilonGreedy") -> jax.Array:
        """KL(π ‖ π′) in nats, float `[...]`, as for Categorical; infinite where only π explores."""
        _assert_alike(self, other)
        return self._as_categorical().kl_divergence(other._as_categorical())

    def mode(self) -> jax.Array:
        """The allowed actions with the largest value, int32 `[...]`; the first of equal ones."""
        _shape_of("[..., A]", q_values=self.q_values)
        return jnp.argmax(mask_logits(self.q_values, self.mask), axis=-1).astype(jnp.int32)

    def masked(self, mask: Array) -> "EpsilonGreedy":
        """The same policy among the allowed actions only; the mask is bool `[..., A]`."""
        return self._replace(mask=mask)

    def _as_categorical(self) -> Categorical:
        """Probability ε/n for each of n allowed actions, plus 1 − ε for the best one."""
        shape = _shape_of("[..., A]", q_values=self.q_values)
        check_shapes(shape[:-1], f"q_values {shape}", epsilons=self.epsilons)
        (epsilons,) = as_floats(jnp.asarray(self.epsilons)[..., None])
        allowed = jnp.ones(shape, bool) if self.mask is None else jnp.asarray(self.mask)
        is_best = jax.nn.one_hot(self.mode(), shape[-1], dtype=bool)
        random = epsilons / jnp.sum(allowed, axis=-1, keepdims=True, dtype=epsilons.dtype)
        probs = jnp.where(allowed, random, 0.0) + jnp.where(is_best, 1 - epsilons, 0.0)
        is_taken = probs > 0
        # The gradient of log 0 is not finite.
        return Categorical(jnp.where(is_taken, jnp.log(jnp.where(is_taken, probs, 1.0)), -jnp.inf))


class DiagonalGaussian(NamedTuple):
    """A Gaussian policy over D independent action dimensions (Mnih et al. 2016, section 9).

    `mean`: float `[..., D]`. `variance`: float `[..., D]` or `[..., 1]`, positive; the
    paper uses one scalar variance σ² for all dimensions.
    """

    mean: jax.Array
    variance: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draw actions, float `[..., D]`, unbounded.

        Raises:
          AssertionError: here and below, if mean, variance or actions do not fit together.
        """
        mean, variances = self._moments()
        return mean + jnp.sqrt(variances) * jax.random.normal(key, mean.shape, mean.dtype)

    def log_prob(self, actions: Array) -> jax.Array:
        """Log density −½ Σ_d [(a_d − μ_d)²/σ_d² + log 2πσ_d²] in nats, float `[...]`.

        `actions` are float `[..., D]`.
        """
        check_floats(actions=actions)
        shape = np.shape(self.mean)
        check_shapes(shape, f"mean {shape}", actions=actions)
        actions, mean, variances = as_floats(actions, *self._moments())
        squared_distances = jnp.square(actions - mean) / variances
        return -0.5 * jnp.sum(squared_distances + jnp.log(2 * math.pi * variances), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy ½ Σ_d (log 2πσ_d² + 1) in nats, float `[...]`."""
        return 0.5 * jnp.sum(jnp.log(2 * math.pi * self._moments()[1]) + 1, axis=-1)

    def mode(self) -> jax.Array:
        """The mean, float `[..., D]`."""
        return jnp.asarray(self.mean)

    def kl_divergence(self, other: "DiagonalGaussian") -> jax.Array:
        """KL(π ‖ π′) = ½ Σ_d [σ_d²/σ′_d² + (μ_d − μ′_d)²/σ′_d² − 1 − log(σ_d²/σ′_d²)] in nats.

        The result is float `[...]`.

        Raises:
          TypeError: if `other` is not a DiagonalGaussian.
        """
        _assert_alike(self, other)
        mean, variances, other_mean, other_variances = as_floats(
            *self._moments(), *other._moments()
        )
        ratios = variances / other_variances
        squared_distances = jnp.square(mean - other_mean) / other_variances
        return 0.5 * jnp.sum(ratios + squared_distances - 1 - jnp.log(ratios), axis=-1)

    def _moments(self) -> list[jax.Array]:
        """Mean and variance of each dimension; dimensions may share one variance."""
        check_floats(mean=self.mean, variance=self.variance)
        *leading, num_dimensions = shape = _shape_of("[..., D]", mean=self.mean)
        last = 1 if np.shape(self.variance)[-1:] == (1,) else num_dimensions
        check_shapes((*leading, last), f"mean {shape}", variance=self.variance)
        return as_floats(self.mean, jnp.broadcast_to(jnp.asarray(self.variance), shape))


class SquashedGaussian(NamedTuple):
    """A Gaussian policy squashed into (-1, 1): a = tanh(u) (Haarnoja et al. 2018, appendix C).

    `mean` and `variance` describe u, as in a DiagonalGaussian.
    """

    mean: jax.Array
    variance: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draw actions, float `[..., D]` in (-1, 1).

        Raises:
          AssertionError: here and below, if mean, variance or actions do not fit together.
        """
        return _squash(self._before().sample(key))

    def log_prob(self, actions: Array) -> jax.Array:
        """Log density log N(u; μ, σ²) − Σ_d log(1 − a_d²) in nats, float `[...]`, u = artanh(a).

        `actions` are float `[..., D]` in [-1, 1]. Where |a_d| ≥ `MAX_SQUASHED`, the density is
        its mean over that tail, so that it integrates to 1 and is finite at the bounds.
        """
        check_floats(actions=actions)
        shape = np.shape(self.mean)
        check_shapes(shape, f"mean {shape}", actions=actions)
        mean, variances = self._before()._moments()
        actions, mean, variances = as_floats(actions, mean, variances)
        deviations, is_tail = jnp.sqrt(variances), jnp.abs(actions) >= MAX_SQUASHED
        u = jnp.arctanh(jnp.clip(actions, -MAX_SQUASHED, MAX_SQUASHED))
        squared_distances = jnp.square(u - mean) / variances
        inside = -0.5 * (squared_distances + jnp.log(2 * math.pi * variances)) - _log_slope(u)
        beyond = (jnp.sign(actions) * mean - _MAX_BEFORE) / deviations
        # The branch that is not taken must have a finite gradient, too.
        beyond = jnp.maximum(jnp.where(is_tail, beyond, 0.0), _FURTHEST)
        tail = log_ndtr(beyond) - math.log(1 - MAX_SQUASHED)
        return jnp.sum(jnp.where(is_tail, tail, inside), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy H(u) + Σ_d E[log(1 − tanh²(u_d))] in nats, float `[...]`.

        The expectation has no closed form. It is computed by Gauss-Hermite quadrature with 32
        nodes, whose error is below 0.01 for σ up to 3, and is differentiable in both parameters.
        """
        mean, variances = (x[..., None] for x in self._before()._moments())
        nodes, weights = (jnp.asarray(x, mean.dtype) for x in (_NODES, _WEIGHTS))
        nodes, weights = (jnp.reshape(x, (*(1,) * (mean.ndim - 1), -1)) for x in (nodes, weights))
        slopes = jnp.sum(weights * _log_slope(mean + jnp.sqrt(variances) * nodes), axis=-1)
        return self._before().entropy() + jnp.sum(slopes, axis=-1)

    def mode(self) -> jax.Array:
        """tanh of the mean, float `[..., D]`: the median of the actions.

        Where σ is large, their density is greatest elsewhere: with a mean of 0 and σ² > ½ at two
        points, which move towards the bounds as σ grows.
        """
        return _squash(self._before()._moments()[0])

    def kl_divergence(self, other: "SquashedGaussian") -> jax.Array:
        """KL(π ‖ π′) of the Gaussians of u: squashing both by the same map does not change it.

        The result is float `[...]`, in nats.

        Raises:
          TypeError: if `other` is not a SquashedGaussian.
        """
        _assert_alike(self, other)
        return self._before().kl_divergence(other._before())

    def _before(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.variance)


def _assert_alike(one: Any, other: Any) -> None:
    """Check that both have the same class and shape: a divergence broadcasts nothing."""
    if type(other) is not type(one):
        raise TypeError(f"other must be a {type(one).__name__}, got a {type(other).__name__}.")
    name, shape = one._fields[0], np.shape(one[0])
    check_shapes(shape, f"that of self {shape}", **{name: other[0]})


def _squash(u: jax.Array) -> jax.Array:
    """tanh, but never ±1, to which it may be rounded: that is not in (-1, 1)."""
    most = 1 - jnp.finfo(u.dtype).epsneg
    return jnp.clip(jnp.tanh(u), -most, most)


def _log_slope(u: jax.Array) -> jax.Array:
    """log(1 − tanh²(u)) without the subtraction, whose result is 0 in 32 bits from |u| = 9 on."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))


def _shape_of(axes: str, **array: Array) -> tuple[int, ...]:
    """The shape of an array, which has the named axes, as in "[..., K, M]", at least."""
    ((name, values),) = array.items()
    shape = np.shape(values)
    if len(shape) < axes.count(",") or shape[-1] == 0:
        told = f"{name} has shape {shape}: it must be {axes}"
        raise AssertionError(f"{told}, and the last axis may not be empty.")
    return shape
