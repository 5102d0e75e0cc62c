"""The losses with NumPy's arrays, with distrax, and with a distribution of one's own.

pyright reads this file (`make lint`), and test_distributions.py calls its functions.
"""

import math
from typing import Any, NamedTuple

import chex
import distrax
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.distributions import (
    Categorical,
    Density,
    DiagonalGaussian,
    Distribution,
    EpsilonGreedy,
    MultiCategorical,
    SquashedGaussian,
)
from a3cjax.losses import actor_critic_loss, q_loss
from a3cjax.returns import n_step_returns
from a3cjax.types import Array

T, B, A = 4, 3, 5
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(T, B, A)).astype(np.float32)
VALUES = RANDOM.normal(size=(T, B)).astype(np.float32)
ACTIONS = RANDOM.integers(A, size=(T, B))


class Exponential(NamedTuple):
    """A policy over positive numbers with density λ exp(−λa): a `Distribution` by its methods.

    `rates`: float `[...]`, λ.
    """

    rates: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.exponential(key, self.rates.shape) / self.rates

    def log_prob(self, actions: Array) -> jax.Array:
        return jnp.log(self.rates) - self.rates * actions

    def entropy(self) -> jax.Array:
        return 1 - jnp.log(self.rates)

    def mode(self) -> jax.Array:
        return jnp.zeros_like(self.rates)

    def kl_divergence(self, other: "Exponential") -> jax.Array:
        ratios = other.rates / self.rates
        return ratios - 1 - jnp.log(ratios)


class Distrax(NamedTuple):
    """A distrax distribution over choices as the policy of an agent."""

    inner: distrax.Categorical

    def sample(self, key: jax.Array) -> chex.Array:
        return self.inner.sample(seed=key)

    def log_prob(self, actions: Any) -> chex.Array:
        return self.inner.log_prob(actions)

    def entropy(self) -> chex.Array:
        return self.inner.entropy()

    def mode(self) -> chex.Array:
        return self.inner.mode()

    def kl_divergence(self, other: "Distrax") -> chex.Array:
        return self.inner.kl_divergence(other.inner)


def policies_of_agents() -> list[Distribution]:
    """All of them are what a network may answer."""
    logits, ones = jnp.asarray(LOGITS), jnp.ones((T, B))
    return [
        Categorical(logits),
        MultiCategorical(logits[..., None, :]),
        EpsilonGreedy(logits, 0.1 * ones),
        DiagonalGaussian(logits, ones[..., None]),
        SquashedGaussian(logits, ones[..., None]),
        Exponential(ones),
        Distrax(distrax.Categorical(logits=logits)),
    ]


def loss_of_numpys_arrays() -> jax.Array:
    """A batch as it comes from a buffer, with a policy of NumPy's arrays, too."""
    rewards, discounts = np.ones((T, B), np.float32), np.full((T, B), 0.9, np.float32)
    returns = n_step_returns(rewards, discounts, np.zeros(B, np.float32))
    policy = Categorical(jnp.asarray(LOGITS))
    loss, metrics = actor_critic_loss(policy, VALUES, ACTIONS, returns)
    return loss + metrics.entropy + jnp.sum(q_loss(LOGITS, ACTIONS, np.asarray(returns)))


def loss_of(policy: Density, actions: Array) -> jax.Array:
    """The loss of anything that has log π(a|s) and H."""
    loss, _ = actor_critic_loss(policy, VALUES, actions, np.ones((T, B), np.float32))
    return loss


def losses_of_distrax() -> tuple[jax.Array, jax.Array]:
    """Of distrax's policies as they are: over choices, and over numbers."""
    choices = distrax.Categorical(logits=jnp.asarray(LOGITS))
    numbers = distrax.MultivariateNormalDiag(jnp.asarray(LOGITS), jnp.full((T, B, A), 2.0))
    return loss_of(choices, ACTIONS), loss_of(numbers, LOGITS + 1)


def losses_of_ours() -> tuple[jax.Array, jax.Array]:
    """What they are to be equal to."""
    numbers = DiagonalGaussian(jnp.asarray(LOGITS), jnp.full((T, B, 1), 4.0))
    return loss_of(Categorical(jnp.asarray(LOGITS)), ACTIONS), loss_of(numbers, LOGITS + 1)


def loss_of_an_own_policy() -> jax.Array:
    """λ = 2 and a = 1: log π = log 2 − 2, H = 1 − log 2."""
    return loss_of(Exponential(jnp.full((T, B), 2.0)), np.ones((T, B), np.float32))


def expected_loss_of_an_own_policy() -> float:
    """The sum over time and mean over the batch by hand."""
    advantages = 1 - VALUES
    each = -(math.log(2) - 2) * advantages + 0.25 * advantages**2 - 0.01 * (1 - math.log(2))
    return float(each.sum() / B)
