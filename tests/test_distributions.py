"""The laws of action distributions: normalisation, entropy, sampling, shapes."""

import itertools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from a3cjax.distributions import (
    MAX_SQUASHED,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    MultiCategorical,
    SquashedGaussian,
    mask_logits,
)
from tests import typed_usage
from tests.cases import for_each

BATCH_SHAPES = [(), (3,), (4, 3)]
seeds = st.integers(0, 2**32 - 1)


def random_logits(seed, shape=(4, 3, 5)):
    return np.random.default_rng(seed).normal(scale=3.0, size=shape).astype(np.float32)


def everything(distribution, actions):
    """log π(actions), the entropy and the mode."""
    return distribution.log_prob(actions), distribution.entropy(), distribution.mode()


# Compiling once is faster than operation by operation; optimised as users have it, which other
# tests do without (tests/conftest.py).
OPTIMISED = {"xla_backend_optimization_level": 3}
fast_everything = jax.jit(everything, compiler_options=OPTIMISED)
fast_sample = jax.jit(lambda distribution, key: distribution.sample(key))


def test_categorical_of_a_hand_example():
    # softmax(0, log 3) = (1/4, 3/4); H = ¼ log 4 + ¾ log(4/3)
    distribution = Categorical(jnp.array([0.0, math.log(3.0)]))
    entropy = 0.25 * math.log(4.0) + 0.75 * math.log(4.0 / 3.0)
    for action, prob in enumerate([0.25, 0.75]):
        everything_of_action = fast_everything(distribution, np.int32(action))
        np.testing.assert_allclose(everything_of_action, [math.log(prob), entropy, 1], rtol=1e-6)


@for_each("dtype", [np.int8, np.int32, np.uint8])
def test_categorical_has_no_probability_of_what_is_no_action(dtype):
    """A negative index does not count from the end, as padding with -1 would."""
    policy = Categorical(jnp.zeros((4, 200)))
    actions = np.array([0, 100, 199, 200]).astype(dtype)  # as int8: 0, 100, -57, -56
    is_action = (actions.astype(int) >= 0) & (actions.astype(int) < 200)
    log_probs = policy.log_prob(actions)
    np.testing.assert_allclose(log_probs, np.where(is_action, -np.log(200), np.nan), rtol=1e-6)


def test_policies_take_lists_as_they_take_arrays():
    x, variance, mask = [[0.0, 1.0]], [[1.0]], [[True, False]]
    policies = (
        (Categorical, (x,)),
        (EpsilonGreedy, (x, [0.5])),
        (EpsilonGreedy, (x, [0.5], mask)),
        (DiagonalGaussian, (x, variance)),
        (SquashedGaussian, (x, variance)),
    )
    for make, parts in policies:
        lists, arrays = make(*parts), make(*map(np.asarray, parts))
        action = lists.sample(jax.random.key(0))
        for one, other in (
            (action, arrays.sample(jax.random.key(0))),
            (lists.mode(), arrays.mode()),
            (lists.entropy(), arrays.entropy()),
            (lists.log_prob(action), arrays.log_prob(action)),
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(mask_logits(x, mask), [[0.0, -np.inf]])
    np.testing.assert_array_equal(Categorical(x).masked(mask).mode(), [0])


@given(seed=seeds)
def test_categorical_equals_the_slow_sum_over_actions(seed):
    logits = random_logits(seed)
    actions = np.random.default_rng(seed).integers(0, 5, size=(4, 3))
    log_probs, entropies, _ = fast_everything(Categorical(logits), actions)
    for t, b in np.ndindex(4, 3):
        weights = [math.exp(float(logit)) for logit in logits[t, b]]
        probs = [weight / sum(weights) for weight in weights]
        expected = -sum(p * math.log(p) for p in probs)
        np.testing.assert_allclose(log_probs[t, b], math.log(probs[actions[t, b]]), rtol=1e-4)
        np.testing.assert_allclose(entropies[t, b], expected, rtol=1e-4, atol=1e-6)


def test_categorical_does_not_change_when_logits_are_shifted():
    logits = jnp.asarray(random_logits(1))
    actions = np.zeros((4, 3), np.int32)
    plain = fast_everything(Categorical(logits), actions)
    shifted = fast_everything(Categorical(logits + 50.0), actions)
    chex.assert_trees_all_close(plain, shifted, atol=1e-4)


def test_categorical_impossible_action_has_finite_entropy_and_gradient():
    # A masked action, logit −∞, adds 0 · log 0 = 0: the entropy is that of the others.
    logits = jnp.array([0.0, math.log(3.0), -jnp.inf])
    value_and_gradient = jax.jit(jax.value_and_grad(lambda x: Categorical(x).entropy()))
    entropy, gradient = value_and_gradient(logits)
    others, gradient_of_others = value_and_gradient(logits[:2])
    np.testing.assert_allclose(entropy, others, rtol=1e-6)
    np.testing.assert_allclose(gradient, [*gradient_of_others, 0.0], rtol=1e-5)


def test_categorical_certain_action_has_no_entropy_and_no_nan():
    distribution = Categorical(jnp.array([1e4, 0.0, -1e4]))
    log_prob, entropy, _ = fast_everything(distribution, np.int32(0))
    np.testing.assert_allclose([log_prob, entropy], [0.0, 0.0], atol=1e-6)


def test_categorical_log_prob_gradient_is_one_hot_minus_probabilities():
    # softmax(0, log 3) = (1/4, 3/4), so d log π(0) / d logits = (1 − ¼, −¾)
    logits = jnp.array([0.0, math.log(3.0)])
    gradient = jax.jit(jax.grad(lambda x: Categorical(x).log_prob(np.array(0))))(logits)
    np.testing.assert_allclose(gradient, [0.75, -0.75], rtol=1e-6)


def test_categorical_samples_follow_the_probabilities():
    num_samples = 20_000
    logits = jnp.asarray(np.broadcast_to(np.log([0.1, 0.2, 0.7]), (num_samples, 3)), jnp.float32)
    actions = Categorical(logits).sample(jax.random.key(1))
    frequencies = np.bincount(np.asarray(actions), minlength=3) / num_samples
    # Standard error at most √(0.25 / 20000) = 0.0035; 0.015 is four of them.
    np.testing.assert_allclose(frequencies, [0.1, 0.2, 0.7], atol=0.015)


@for_each("batch_shape", BATCH_SHAPES)
def test_shapes_and_dtypes_of_a_choice(batch_shape):
    numbers = jnp.asarray(random_logits(4, (*batch_shape, 5)))
    greedy = EpsilonGreedy(numbers, np.full(batch_shape, 0.5, np.float32))
    for policy in (Categorical(numbers), greedy):
        actions, mode = policy.sample(jax.random.key(0)), policy.mode()
        chex.assert_shape([actions, mode], batch_shape)
        assert actions.dtype == mode.dtype == jnp.int32
        chex.assert_shape(fast_everything(policy, actions), batch_shape)
        np.testing.assert_array_equal(mode, np.argmax(numbers, axis=-1))


def same_values(num_samples, q_values, epsilon):
    """The same values and ε many times."""
    q_values = np.broadcast_to(q_values, (num_samples, len(q_values)))
    epsilons = np.full(num_samples, epsilon, np.float32)
    return EpsilonGreedy(jnp.asarray(q_values, jnp.float32), epsilons)


def test_epsilon_greedy_samples_follow_the_probabilities():
    # The best of four actions has 1 − ε + ε/4, each of the others ε/4.
    num_samples = 20_000
    actions = same_values(num_samples, [0.5, -1.0, 2.0, 1.9], 0.4).sample(jax.random.key(1))
    frequencies = np.bincount(np.asarray(actions), minlength=4) / num_samples
    # Standard error at most √(0.25 / 20000) = 0.0035; 0.015 is four of them.
    np.testing.assert_allclose(frequencies, [0.1, 0.1, 0.7, 0.1], atol=0.015)


def test_epsilon_zero_is_always_the_best_and_one_is_uniform():
    q_values = random_logits(8)
    greedy = EpsilonGreedy(jnp.asarray(q_values), np.zeros((4, 3), np.float32))
    for seed in range(20):
        actions = greedy.sample(jax.random.key(seed))
        np.testing.assert_array_equal(actions, np.argmax(q_values, axis=-1))
    actions = same_values(20_000, [0.0, 100.0, 0.0], 1.0).sample(jax.random.key(0))
    frequencies = np.bincount(np.asarray(actions), minlength=3) / 20_000
    np.testing.assert_allclose(frequencies, np.full(3, 1 / 3), atol=0.015)


def test_every_environment_has_its_own_epsilon():
    q_values = jnp.asarray(np.broadcast_to([0.0, 1.0], (2000, 2, 2)), jnp.float32)
    epsilons = np.broadcast_to(np.array([0.0, 1.0], np.float32), (2000, 2))
    actions = np.asarray(EpsilonGreedy(q_values, epsilons).sample(jax.random.key(0)))
    assert actions[:, 0].min() == 1
    np.testing.assert_allclose(actions[:, 1].mean(), 0.5, atol=0.05)


def test_epsilon_greedy_mode_is_the_first_of_the_best():
    q_values = jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-2.0, -5.0, -1.0]])
    for epsilon in (0.0, 1.0):
        policy = EpsilonGreedy(q_values, np.full(3, epsilon, np.float32))
        np.testing.assert_array_equal(policy.mode(), [1, 0, 2])


@for_each("shape", [(), (3,), (4, 1), (4, 3, 5)])
def test_epsilons_of_wrong_shape_raise(shape):
    policy = EpsilonGreedy(jnp.zeros((4, 3, 5)), np.zeros(shape, np.float32))
    with pytest.raises(AssertionError):
        policy.sample(jax.random.key(0))


def test_gaussian_of_a_hand_example():
    # Two dimensions, σ² = (1, 4), action − mean = (1, 2):
    # log p = −½ (1/1 + 4/4 + log 2π + log 8π) and H = ½ (log 2π + 1 + log 8π + 1)
    distribution = DiagonalGaussian(jnp.array([0.0, 1.0]), jnp.array([1.0, 4.0]))
    logs = math.log(2 * math.pi) + math.log(8 * math.pi)
    log_prob, entropy, mode = fast_everything(distribution, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(log_prob, -0.5 * (2.0 + logs), rtol=1e-6)
    np.testing.assert_allclose(entropy, 0.5 * (logs + 2.0), rtol=1e-6)
    np.testing.assert_array_equal(mode, [0.0, 1.0])


def test_gaussian_samples_have_the_mean_and_the_variance():
    mean = jnp.asarray(np.broadcast_to([-1.0, 2.0], (20_000, 2)), jnp.float32)
    variance = jnp.asarray(np.broadcast_to([4.0, 0.25], (20_000, 2)), jnp.float32)
    samples = DiagonalGaussian(mean, variance).sample(jax.random.key(0))
    # Standard errors: σ/√n ≤ 0.014 of the mean, σ²√(2/n) = 1 % of the variance.
    np.testing.assert_allclose(np.mean(samples, axis=0), [-1.0, 2.0], atol=0.06)
    np.testing.assert_allclose(np.var(samples, axis=0), [4.0, 0.25], rtol=0.05)


def test_gaussian_agrees_with_rlax():
    mean = jnp.asarray(random_logits(6))
    actions = random_logits(6) + random_logits(7) / 3
    sigma = 1.5
    with pytest.warns(PendingDeprecationWarning):
        theirs = rlax.gaussian_diagonal(sigma)
    distribution = DiagonalGaussian(mean, jnp.full((4, 3, 5), sigma**2))
    log_probs, entropies, _ = fast_everything(distribution, actions)
    np.testing.assert_allclose(log_probs, theirs.logprob(actions, mean), rtol=1e-5)
    np.testing.assert_allclose(entropies, theirs.entropy(mean), rtol=1e-5)


@pytest.mark.parametrize(
    ("distribution", "actions"),
    [
        (Categorical(jnp.ones((4, 3, 5))), jnp.zeros((4, 3), jnp.int32)),
        (MultiCategorical(jnp.ones((4, 3, 2, 5))), jnp.zeros((4, 3, 2), jnp.int32)),
        (
            EpsilonGreedy(random_logits(9), np.full((4, 3), 0.5, np.float32)),
            jnp.zeros((4, 3), jnp.int32),
        ),
        (DiagonalGaussian(jnp.ones((4, 3, 5)), jnp.ones((4, 3, 1))), jnp.ones((4, 3, 5))),
        (SquashedGaussian(jnp.ones((4, 3, 5)), jnp.ones((4, 3, 1))), jnp.full((4, 3, 5), 0.5)),
    ],
)
def test_jit_equals_eager_on_the_distribution_as_a_pytree(distribution, actions):
    eager = everything(distribution, actions)
    chex.assert_trees_all_close(fast_everything(distribution, actions), eager, rtol=1e-5)
    key = jax.random.key(0)
    compiled_sample = fast_sample(distribution, key)
    chex.assert_trees_all_close(compiled_sample, distribution.sample(key), rtol=1e-6)


def test_categorical_actions_of_wrong_shape_or_dtype_raise():
    distribution = Categorical(jnp.zeros((4, 3, 5)))
    for shape in [(4, 1), (3,), (4, 3, 5), ()]:
        with pytest.raises(AssertionError):
            distribution.log_prob(jnp.zeros(shape, jnp.int32))
    with pytest.raises(AssertionError):
        distribution.log_prob(jnp.zeros((4, 3)))


def test_gaussian_actions_of_wrong_shape_or_dtype_raise():
    distribution = DiagonalGaussian(jnp.zeros((4, 3, 5)), jnp.ones((4, 3, 1)))
    for shape in [(4, 3), (4, 3, 1), (4, 1, 5), (5,)]:
        with pytest.raises(AssertionError):
            distribution.log_prob(jnp.zeros(shape))
    with pytest.raises(AssertionError):
        distribution.log_prob(jnp.zeros((4, 3, 5), int))


@for_each("shape", [(), (3,), (2, 3), (4, 1, 3), (1, 2, 3), (4, 2, 2)])
def test_variance_shares_nothing_but_the_last_axis(shape):
    distribution = DiagonalGaussian(jnp.zeros((4, 2, 3)), jnp.ones(shape))
    for call in (
        lambda: distribution.sample(jax.random.key(0)),
        lambda: distribution.log_prob(jnp.zeros((4, 2, 3))),
        distribution.entropy,
    ):
        with pytest.raises(AssertionError):
            call()


def test_gradient_of_the_gaussian_log_density():
    # ∂/∂μ = (a − μ)/σ²,  ∂/∂σ² = ((a − μ)²/σ² − 1)/(2σ²)
    mean, variance, action = jnp.array([0.5, -1.0]), jnp.array([2.0, 0.25]), jnp.array([1.5, 1.0])
    grads = jax.grad(lambda d: d.log_prob(action))(DiagonalGaussian(mean, variance))
    distance = action - mean
    np.testing.assert_allclose(grads.mean, distance / variance, rtol=1e-6)
    np.testing.assert_allclose(
        grads.variance, (distance**2 / variance - 1) / (2 * variance), rtol=1e-5
    )


# Several choices at once.

SIZES = (3, 1, 2)


def random_choices(seed, batch_shape=(4, 3)):
    """Logits `[..., 3, 3]`, -inf where a number has fewer choices."""
    is_choice = np.arange(3) < np.array(SIZES)[:, None]
    return jnp.asarray(np.where(is_choice, random_logits(seed, (*batch_shape, 3, 3)), -np.inf))


@pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
def test_several_choices_are_the_product_of_single_ones(batch_shape):
    policy = MultiCategorical(random_choices(0, batch_shape))
    singles = [Categorical(policy.logits[..., k, :size]) for k, size in enumerate(SIZES)]
    total = 0.0
    for actions in itertools.product(*map(range, SIZES)):
        own = np.broadcast_to(np.array(actions, np.int32), (*batch_shape, 3))
        log_probs, entropies, mode = fast_everything(policy, own)
        expected = sum(p.log_prob(own[..., k]) for k, p in enumerate(singles))
        np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-6)
        total += np.exp(log_probs)
    np.testing.assert_allclose(total, np.ones(batch_shape), rtol=1e-5)
    np.testing.assert_allclose(entropies, sum(p.entropy() for p in singles), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mode, np.stack([p.mode() for p in singles], axis=-1))
    sampled = policy.sample(jax.random.key(0))
    assert sampled.shape == (*batch_shape, 3)
    assert sampled.dtype == mode.dtype == jnp.int32


def test_samples_of_several_choices_follow_their_probabilities_independently():
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]))
    policy = MultiCategorical(jnp.broadcast_to(logits, (20_000, 2, 3)))
    actions = np.asarray(policy.sample(jax.random.key(1)))
    joint = np.zeros((3, 3))
    np.add.at(joint, tuple(actions.T), 1 / 20_000)
    expected = np.outer([0.1, 0.2, 0.7], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(joint, expected, atol=0.015)


@for_each("shape", [(4, 3), (4, 3, 2), (3,), (4, 3, 3, 3)])
def test_actions_that_do_not_fit_several_choices_raise(shape):
    with pytest.raises(AssertionError):
        MultiCategorical(random_choices(0)).log_prob(jnp.zeros(shape, jnp.int32))
    with pytest.raises(AssertionError):
        MultiCategorical(random_choices(0)).log_prob(jnp.zeros((4, 3, 3)))


# Masks.


def random_mask(seed, shape):
    """At least one is allowed."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.5
    np.put_along_axis(mask, rng.integers(shape[-1], size=(*shape[:-1], 1)), True, axis=-1)
    return mask


@for_each("policy", [Categorical, MultiCategorical])
def test_what_a_mask_forbids_has_no_probability_and_no_gradient(policy):
    logits, mask = jnp.asarray(random_logits(0, (50, 2, 5))), random_mask(1, (50, 2, 5))
    masked = policy(logits).masked(mask)
    for seed in range(20):
        actions = masked.sample(jax.random.key(seed))
        assert np.take_along_axis(mask, np.asarray(actions)[..., None], axis=-1).all()
    assert np.take_along_axis(mask, np.asarray(masked.mode())[..., None], axis=-1).all()

    def loss(logits):
        one = policy(logits).masked(mask)
        return jnp.sum(one.log_prob(actions)) + jnp.sum(one.entropy()), one

    gradient, one = jax.jit(jax.grad(loss, has_aux=True))(logits)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~mask] == 0).all()
    # As if there were no others: of those allowed probabilities keep their ratios.
    np.testing.assert_array_equal(one.logits, np.where(mask, logits, -np.inf))
    np.testing.assert_array_equal(policy(logits).masked(np.ones_like(mask)).logits, logits)


@for_each("epsilon", [0.0, 0.5, 1.0])
def test_epsilon_greedy_explores_among_the_allowed_actions_alone(epsilon):
    # The best of those allowed is 3; forbidden ones have the largest and the smallest value.
    mask = np.broadcast_to([False, True, True, True, False], (20_000, 5))
    policy = same_values(20_000, [9.0, 0.0, -2.0, 1.0, -9.0], epsilon).masked(mask)
    frequencies = np.bincount(np.asarray(policy.sample(jax.random.key(2))), minlength=5) / 20_000
    share = epsilon / 3
    expected = [0, share, share, 1 - epsilon + share, 0]
    np.testing.assert_allclose(frequencies, expected, atol=0.015)
    assert frequencies[[0, 4]].sum() == 0
    assert (np.asarray(policy.mode()) == 3).all()


@for_each("mask", [np.ones((4, 3), bool), np.ones((4, 3, 5), np.int8)])
def test_masks_of_wrong_shape_or_dtype_raise(mask):
    with pytest.raises(AssertionError):
        Categorical(jnp.zeros((4, 3, 5))).masked(mask)


# Squashed numbers.


def log_squashed(action, mean, variance):
    """log density of tanh(u) in float64, one dimension."""
    u = np.arctanh(np.float64(action))
    density = np.exp(-((u - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return np.log(density / (1 - np.float64(action) ** 2))


def squashed(mean, variance, shape=()):
    arrays = (np.broadcast_to(np.atleast_1d(x), (*shape, np.size(x))) for x in (mean, variance))
    return SquashedGaussian(*(jnp.asarray(x, jnp.float32) for x in arrays))


@given(seed=seeds)
def test_squashed_density_equals_the_slow_change_of_variables(seed):
    rng = np.random.default_rng(seed)
    mean, variance = rng.normal(0, 1.5, (4, 3)), rng.uniform(0.05, 2, (4, 3))
    actions = np.tanh(mean + np.sqrt(variance) * rng.normal(size=(4, 3))).astype(np.float32)
    actions = np.clip(actions, -0.9999, 0.9999)
    policy = SquashedGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(variance, jnp.float32))
    log_probs, _, mode = fast_everything(policy, actions)
    expected = log_squashed(actions, np.float32(mean), np.float32(variance)).sum(axis=-1)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mode, np.tanh(mean), rtol=1e-5, atol=1e-6)


@for_each(("mean", "variance"), [(0.0, 0.5), (0.5, 0.04), (-1.0, 2.0), (2.0, 1.0), (-7.0, 1.0)])
def test_squashed_density_integrates_to_one_with_what_is_at_the_bounds(mean, variance):
    # Evenly spaced before it is squashed, so that narrow places near the bounds are seen.
    u = np.linspace(-np.arctanh(MAX_SQUASHED), np.arctanh(MAX_SQUASHED), 20_001)[1:-1]
    actions, width = np.tanh(u).astype(np.float32)[:, None], u[1] - u[0]
    log_probs, _, _ = fast_everything(squashed(mean, variance, (len(u),)), actions)
    inside = np.sum(np.exp(log_probs) * (1 - np.tanh(u) ** 2)) * width
    ends = np.array([[-1.0], [1.0]], np.float32)
    log_ends, _, _ = fast_everything(squashed(mean, variance, (2,)), ends)
    outside = np.sum(np.exp(log_ends)) * (1 - MAX_SQUASHED)
    np.testing.assert_allclose(inside + outside, 1.0, atol=5e-3)
    assert (outside > 0.5) == (mean == -7)
    assert mean == 0 or (log_ends[1] > log_ends[0]) == (mean > 0)


@for_each(("mean", "variance"), [(0.0, 0.5), (1.0, 0.04), (-1.0, 2.0)])
def test_squashed_samples_are_in_bounds_and_their_surprise_is_the_entropy(mean, variance):
    policy = squashed([mean, 0.0], [variance, 0.3], (50_000,))
    actions = fast_sample(policy, jax.random.key(0))
    log_probs, entropies, _ = fast_everything(policy, actions)
    # The standard error of the mean is about 1.2 / √50000 = 0.005.
    np.testing.assert_allclose(-np.mean(log_probs), entropies[0], atol=0.025)
    # artanh gives back the Gaussian that was squashed.
    u = np.arctanh(np.asarray(actions[:, 0], np.float64))
    np.testing.assert_allclose([u.mean(), u.var()], [mean, variance], atol=0.06)


def test_squashed_numbers_and_gradients_are_finite_wherever_actions_are():
    means, variances = [-1e4, -30.0, -1.0, 0.0, 5.0, 30.0, 1e4], [1e-6, 0.5, 1e4]
    actions = [-1.0, -0.99999994, 0.0, 0.9999, 0.99999994, 1.0]
    grid = np.array(list(itertools.product(means, variances, actions)), np.float32)
    mean, variance, actions = (jnp.asarray(column[:, None]) for column in grid.T)

    def values(mean, variance):
        policy = SquashedGaussian(mean, variance)
        return jnp.stack([policy.log_prob(actions), policy.entropy()])

    assert np.isfinite(jax.jit(values)(mean, variance)).all()
    by_both = jax.jit(jax.grad(lambda *x: jnp.sum(values(*x)), argnums=(0, 1)))(mean, variance)
    for gradient in by_both:
        assert np.isfinite(gradient).all(), grid[~np.isfinite(gradient)[:, 0]]


def test_squashed_samples_never_are_the_bounds():
    samples = squashed([50.0, -50.0], [1.0, 1.0], (100,)).sample(jax.random.key(0))
    assert np.abs(samples).max() < 1
    assert np.abs(samples).min() > 0.999
    modes = squashed([50.0, -50.0], [1.0, 1.0]).mode()
    assert np.abs(modes).max() < 1


def test_gradients_of_the_squashed_density_and_entropy_are_those_of_finite_differences():
    actions = jnp.array([0.3, -0.9])

    def log_prob(mean, variance):
        return SquashedGaussian(mean, variance).log_prob(actions)

    def entropy(mean, variance):
        return SquashedGaussian(mean, variance).entropy()

    for function in (log_prob, entropy):
        check_grads(
            function,
            (jnp.array([0.2, -0.8]), jnp.array([0.3, 0.9])),
            order=1,
            modes=["rev"],
            eps=1e-2,
            atol=2e-2,
            rtol=2e-2,
        )


@for_each("kind", [DiagonalGaussian, SquashedGaussian])
def test_scalar_variance_stands_for_every_dimension(kind):
    mean, actions = jnp.asarray(random_logits(5)), np.tanh(random_logits(6))
    one = fast_everything(kind(mean, jnp.full((4, 3, 1), 0.5)), actions)
    all_five = fast_everything(kind(mean, jnp.full((4, 3, 5), 0.5)), actions)
    chex.assert_trees_all_close(one, all_five, rtol=1e-6)
    with pytest.raises(AssertionError):
        kind(mean, jnp.ones((4, 3, 2))).entropy()
    with pytest.raises(AssertionError):
        kind(mean, jnp.ones((4, 3, 1))).log_prob(actions[..., :1])


# Divergences.


def random_gaussian(kind, seed, scalar=False):
    rng = np.random.default_rng(seed)
    shapes = (4, 3, 5), (4, 3, 1 if scalar else 5)
    mean, variance = rng.normal(size=shapes[0]), rng.uniform(0.1, 2.0, shapes[1])
    return kind(jnp.asarray(mean, jnp.float32), jnp.asarray(variance, jnp.float32))


def random_epsilon_greedy(seed):
    mask = np.broadcast_to([True, False, True, True, True], (4, 3, 5))
    epsilons = np.random.default_rng(seed).uniform(0.1, 1, (4, 3)).astype(np.float32)
    return EpsilonGreedy(jnp.asarray(random_logits(seed)), epsilons, mask)


def masked(logits):
    return Categorical(jnp.asarray(logits)).masked(np.broadcast_to([1, 0, 1, 1, 0], (4, 3, 5)) > 0)


EVERY_KIND = {
    "categorical": lambda seed: Categorical(jnp.asarray(random_logits(seed))),
    "masked": lambda seed: masked(random_logits(seed)),
    "several": lambda seed: MultiCategorical(random_choices(seed)),
    "epsilon_greedy": random_epsilon_greedy,
    "gaussian": lambda seed: random_gaussian(DiagonalGaussian, seed),
    "one_variance": lambda seed: random_gaussian(DiagonalGaussian, seed, scalar=True),
    "squashed": lambda seed: random_gaussian(SquashedGaussian, seed),
}
every_kind = for_each("make", EVERY_KIND.values())
fast_divergence = jax.jit(lambda one, other: one.kl_divergence(other))


@every_kind
def test_divergence_is_the_mean_of_the_difference_of_log_probabilities(make):
    one, other = make(1), make(2)
    num_samples = 4_000

    @jax.jit
    def differences(key):
        actions = one.sample(key)
        return one.log_prob(actions) - other.log_prob(actions)

    samples = np.asarray(jax.lax.map(differences, jax.random.split(jax.random.key(0), num_samples)))
    error = 5 * samples.std(axis=0) / math.sqrt(num_samples)
    exact = np.asarray(fast_divergence(one, other))
    assert exact.shape == (4, 3)
    assert np.all(np.abs(samples.mean(axis=0) - exact) < error + 1e-4)


@given(seed=seeds)
def test_divergence_is_zero_of_equals_and_never_less(seed):
    for make in EVERY_KIND.values():
        one, other = make(seed), make(seed + 1)
        np.testing.assert_allclose(fast_divergence(one, one), np.zeros((4, 3)), atol=1e-6)
        divergences = np.asarray(fast_divergence(one, other))
        assert np.all(divergences > 0)
        # From one to the other and back are two different ways.
        assert np.all(divergences != fast_divergence(other, one))


@for_each("make", [EVERY_KIND["categorical"], EVERY_KIND["masked"]])
def test_divergence_of_categoricals_is_the_slow_sum(make):
    one, other = make(1), make(2)
    expected = np.zeros((4, 3))
    for t, b in np.ndindex(4, 3):
        p, q = (np.exp(np.float64(x.logits[t, b])) for x in (one, other))
        p, q = p / p.sum(), q / q.sum()
        expected[t, b] = sum(a * math.log(a / c) for a, c in zip(p, q, strict=True) if a > 0)
    np.testing.assert_allclose(fast_divergence(one, other), expected, rtol=1e-4)


def test_divergence_of_gaussians_of_a_hand_example():
    # σ² = 1, 4 and μ = 0, 1 to σ² = 2, 4 and μ = 1, 1:
    # ½ [½ + ½ − 1 − log ½] + ½ [1 + 0 − 1 − 0] = ½ log 2
    moments = jnp.array([0.0, 1.0]), jnp.array([1.0, 4.0])
    others = jnp.array([1.0, 1.0]), jnp.array([2.0, 4.0])
    for kind in (DiagonalGaussian, SquashedGaussian):  # a bijection changes no divergence
        divergence = fast_divergence(kind(*moments), kind(*others))
        np.testing.assert_allclose(divergence, 0.5 * math.log(2), rtol=1e-6)


def test_actions_of_probability_zero_have_no_part_in_a_divergence_or_its_gradient():
    logits = jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([1.0, 0.0, -jnp.inf])

    def divergence(ours, theirs):
        return Categorical(ours).kl_divergence(Categorical(theirs))

    gradients = jax.jit(jax.grad(divergence, argnums=(0, 1)))
    of_others = gradients(logits[0][:2], logits[1][:2])
    for gradient, expected in zip(gradients(*logits), of_others, strict=True):
        np.testing.assert_allclose(gradient, [*expected, 0.0], rtol=1e-6)
    # The other may do what this one never does; what it never does itself costs infinitely much.
    full = jnp.array([1.0, 0.0, 2.0])
    for theirs in (logits[1], full):
        assert np.isfinite(divergence(logits[0], theirs))
        assert all(np.isfinite(x).all() for x in gradients(logits[0], theirs))
    assert divergence(full, logits[1]) == np.inf


def test_gradient_of_a_divergence_is_that_of_finite_differences():
    one, other = random_gaussian(DiagonalGaussian, 1), random_gaussian(DiagonalGaussian, 2)
    logits = jnp.asarray(random_logits(1) / 3), jnp.asarray(random_logits(2) / 3)
    for function, arguments in [
        (lambda *x: jnp.mean(DiagonalGaussian(*x).kl_divergence(other)), one),
        (lambda *x: jnp.mean(one.kl_divergence(DiagonalGaussian(*x))), other),
        (lambda p, q: jnp.mean(Categorical(p).kl_divergence(Categorical(q))), logits),
    ]:
        check_grads(function, tuple(arguments), 1, ["rev"], atol=2e-2, rtol=2e-2, eps=1e-2)


@every_kind
def test_divergence_from_another_kind_is_refused_in_a_line(make):
    one = make(0)
    others = [Categorical(jnp.zeros((4, 3, 5))), random_gaussian(DiagonalGaussian, 0)]
    other = next(other for other in others if type(other) is not type(one))
    rule = f"^other must be a {type(one).__name__}, got a {type(other).__name__}.$"
    with pytest.raises(TypeError, match=rule):
        one.kl_divergence(other)
    with pytest.raises(AssertionError):
        one.kl_divergence(jax.tree.map(lambda x: x[:1], make(1)))


@for_each("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_gives_every_action_its_probability(epsilon):
    mask = np.array([True, False, True, True])
    policy = EpsilonGreedy(jnp.array([0.0, 9.0, 2.0, 1.0]), np.float32(epsilon), mask)
    expected = np.array([epsilon / 3, 0.0, 1 - epsilon + epsilon / 3, epsilon / 3])
    log_probs = [policy.log_prob(np.int32(action)) for action in range(4)]
    np.testing.assert_allclose(np.exp(log_probs), expected, atol=1e-6)
    entropy = -sum(p * math.log(p) for p in expected if p > 0)
    np.testing.assert_allclose(policy.entropy(), entropy, atol=1e-6)
    by_q, by_epsilon = jax.grad(
        lambda q, eps: policy._replace(q_values=q, epsilons=eps).entropy(), argnums=(0, 1)
    )(policy.q_values, jnp.float32(epsilon))
    assert np.isfinite(by_epsilon)
    assert not np.any(by_q)


# Of others.


def test_losses_take_numpys_arrays_distrax_and_own_distributions():
    assert np.isfinite(typed_usage.loss_of_numpys_arrays())
    np.testing.assert_allclose(
        typed_usage.losses_of_distrax(), typed_usage.losses_of_ours(), rtol=1e-5
    )
    np.testing.assert_allclose(
        typed_usage.loss_of_an_own_policy(),
        typed_usage.expected_loss_of_an_own_policy(),
        rtol=1e-5,
    )


@for_each("policy", typed_usage.policies_of_agents())
def test_policies_of_agents_act_learn_and_are_cut_as_trees(policy):
    class Everything(NamedTuple):
        actions: jax.Array
        log_probs: jax.Array
        entropies: jax.Array
        divergences: jax.Array

    def everything_of(policy):
        actions = policy.sample(jax.random.key(0))
        divergences = policy.kl_divergence(policy)
        return Everything(actions, policy.log_prob(actions), policy.entropy(), divergences)

    shape = (typed_usage.T - 1, typed_usage.B)
    shorter = jax.tree.map(lambda x: x[1:], policy)
    answers = jax.jit(everything_of)(shorter)
    assert all(leaf.shape == shape for leaf in answers[1:])
    assert answers.actions.shape[:2] == shape
    assert shorter.mode().shape == answers.actions.shape
    np.testing.assert_allclose(answers.divergences, np.zeros(shape), atol=1e-6)
