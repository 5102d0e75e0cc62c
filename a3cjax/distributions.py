"""Action distributions as pytrees: a policy head's output with its mathematics.

Leading axes are arbitrary, `[T, B]`, `[B]` or none. What is computed of 16-bit numbers is
float32.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from a3cjax.types import Array, as_floats


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


class EpsilonGreedy(NamedTuple):
    """With probability ε any action, each as likely as the other, otherwise the best one.

    `q_values`: float `[..., A]`. `epsilons`: float `[...]` in [0, 1] (Mnih et al. 2016,
    algorithm 1).
    """

    q_values: jax.Array
    epsilons: Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, int32 `[...]`."""
        chex.assert_shape(self.epsilons, self.q_values.shape[:-1])
        which_key, action_key = jax.random.split(key)
        best, (epsilons,) = self.mode(), as_floats(self.epsilons)
        is_random = jax.random.uniform(which_key, best.shape, epsilons.dtype) < epsilons
        num_actions = self.q_values.shape[-1]
        random = jax.random.randint(action_key, best.shape, 0, num_actions, jnp.int32)
        return jnp.where(is_random, random, best)

    def mode(self) -> jax.Array:
        """The actions with the largest value, int32 `[...]`; of equal ones the first."""
        return jnp.argmax(self.q_values, axis=-1).astype(jnp.int32)


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
