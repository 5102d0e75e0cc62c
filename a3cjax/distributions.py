"""Action distributions as pytrees: a policy head's output with its mathematics.

Leading axes are arbitrary, `[T, B]`, `[B]` or none.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from a3cjax.types import Array


class Categorical(NamedTuple):
    """A softmax policy over A discrete actions.

    `logits`: float `[..., A]`, unnormalised log-probabilities.
    """

    logits: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, int32 `[...]`, with probabilities softmax(logits)."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def log_prob(self, actions: Array) -> jax.Array:
        """log π(a|s) in nats, float `[...]`, of int `[...]` actions in [0, A - 1]."""
        chex.assert_type(actions, int)
        chex.assert_shape(actions, self.logits.shape[:-1])
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, jnp.asarray(actions)[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """H = −Σₐ π(a|s) log π(a|s) in nats, float `[...]`, between 0 and log A."""
        log_probs = jax.nn.log_softmax(self.logits)
        probs = jnp.exp(log_probs)
        # 0 · log 0 is 0 here; unguarded, a logit of -inf gives NaN. The guard stands inside the
        # product, so that the gradient is finite, too.
        return -jnp.sum(probs * jnp.where(probs > 0, log_probs, 0.0), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable actions, int32 `[...]`."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)


class DiagonalGaussian(NamedTuple):
    """A Gaussian policy over D independent action dimensions (Mnih et al. 2016, section 9).

    `mean`: float `[..., D]`. `variance`: float `[..., D]` or `[..., 1]`, positive; the
    paper uses one scalar variance σ² for all dimensions.
    """

    mean: jax.Array
    variance: jax.Array

    def sample(self, key: chex.PRNGKey) -> jax.Array:
        """Draws actions, float `[..., D]`, unbounded."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.sqrt(self.variance) * noise

    def log_prob(self, actions: Array) -> jax.Array:
        """Log density in nats, float `[...]`, of float `[..., D]` actions."""
        chex.assert_equal_shape([actions, self.mean])
        variance = jnp.broadcast_to(self.variance, self.mean.shape)
        squared_distance = jnp.square(actions - self.mean) / variance
        return -0.5 * jnp.sum(squared_distance + jnp.log(2 * math.pi * variance), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy ½ Σ_d (log 2πσ_d² + 1) in nats, float `[...]`."""
        variance = jnp.broadcast_to(self.variance, self.mean.shape)
        return 0.5 * jnp.sum(jnp.log(2 * math.pi * variance) + 1, axis=-1)

    def mode(self) -> jax.Array:
        """The mean, float `[..., D]`."""
        return self.mean
