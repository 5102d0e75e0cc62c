"""The laws of returns: recursion, cuts, bootstraps, reductions and shapes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.returns import (
    double_q_targets,
    gae_advantages,
    lambda_returns,
    n_step_returns,
    one_step_q_targets,
    one_step_sarsa_targets,
    vtrace_targets,
)
from tests.cases import for_each

BATCH_SHAPES = [(), (3,), (3, 2)]
shapes = st.sampled_from([(1,), (6,), (1, 3), (5, 3), (4, 3, 2)])
seeds = st.integers(0, 2**32 - 1)

# Compiled once for each shape, because examples are many.
fast_lambda_returns = jax.jit(lambda_returns)
fast_n_step_returns = jax.jit(n_step_returns)


def random_unroll(seed, shape):
    """Rewards, discounts with some terminations, values and λ of one shape `[T, ...]`."""
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=shape).astype(np.float32)
    discounts = (0.9 * (rng.random(shape) > 0.2)).astype(np.float32)
    next_values = rng.normal(size=shape).astype(np.float32)
    lambdas = rng.random(shape).astype(np.float32)
    return rewards, discounts, next_values, lambdas


def slow_lambda_returns(rewards, discounts, next_values, lambdas):
    """The recursion, element by element in float64."""
    returns = np.zeros(rewards.shape)
    T = rewards.shape[0]
    for index in np.ndindex(*rewards.shape[1:]):
        following = float(next_values[(T - 1, *index)])
        for t in reversed(range(T)):
            i = (t, *index)
            mixed = (1.0 - lambdas[i]) * next_values[i] + lambdas[i] * following
            following = rewards[i] + discounts[i] * mixed
            returns[i] = following
    return returns


def test_n_step_returns_of_a_hand_example():
    # G_2 = 3 + 0.5 · 8 = 7,  G_1 = 2 + 0.5 · 7 = 5.5,  G_0 = 1 + 0.5 · 5.5 = 3.75
    returns = n_step_returns(jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 0.5), jnp.array(8.0))
    np.testing.assert_allclose(returns, [3.75, 5.5, 7.0])


def test_lambda_returns_of_a_hand_example():
    # λ = 0.5, γ = 0.5, v = (4, 2, 8):
    # G_2 = 3 + 0.5 · 8                     = 7
    # G_1 = 2 + 0.5 (0.5 · 2 + 0.5 · 7)     = 4.25
    # G_0 = 1 + 0.5 (0.5 · 4 + 0.5 · 4.25)  = 3.0625
    rewards, values = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 2.0, 8.0])
    returns = lambda_returns(rewards, jnp.full(3, 0.5), values, 0.5)
    np.testing.assert_allclose(returns, [3.0625, 4.25, 7.0])


def test_lambda_at_a_step_weighs_the_return_of_the_next_one():
    # λ = (0.25, 1), γ = 1: G_1 = 10 + 6 = 16, G_0 = 1 + (0.75 · 4 + 0.25 · 16) = 8
    lambdas = jnp.array([0.25, 1.0])
    returns = lambda_returns(jnp.array([1.0, 10.0]), jnp.ones(2), jnp.array([4.0, 6.0]), lambdas)
    np.testing.assert_allclose(returns, [8.0, 16.0])


@given(seed=seeds, shape=shapes)
def test_lambda_returns_equal_the_slow_recursion(seed, shape):
    unroll = random_unroll(seed, shape)
    returns = fast_lambda_returns(*unroll)
    chex.assert_shape(returns, shape)
    np.testing.assert_allclose(returns, slow_lambda_returns(*unroll), rtol=1e-5, atol=1e-5)


@given(seed=seeds, shape=shapes)
def test_lambda_one_and_n_step_returns_equal_the_slow_recursion(seed, shape):
    rewards, discounts, next_values, lambdas = random_unroll(seed, shape)
    n_step = fast_n_step_returns(rewards, discounts, next_values[-1])
    mixed = fast_lambda_returns(rewards, discounts, next_values)
    slow = slow_lambda_returns(rewards, discounts, next_values, np.ones_like(lambdas))
    chex.assert_shape([n_step, mixed], shape)
    np.testing.assert_allclose(n_step, slow, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixed, n_step, rtol=1e-6, atol=1e-6)


@for_each("lambda_", [0.0, 0.3, 1.0, 1])
def test_scalar_lambda_stands_for_the_same_at_every_step(lambda_):
    rewards, discounts, next_values, _ = random_unroll(0, (4, 2))
    full = np.full(rewards.shape, lambda_, np.float32)
    np.testing.assert_array_equal(
        lambda_returns(rewards, discounts, next_values, lambda_),
        lambda_returns(rewards, discounts, next_values, full),
    )


def test_lambda_zero_at_a_truncated_step_bootstraps_from_its_own_value():
    rewards, discounts, next_values, _ = random_unroll(2, (5, 3))
    discounts[1], lambdas = 0.9, np.ones((5, 3), np.float32)
    lambdas[1] = 0.0  # the step from t = 1 met a time limit
    returns = lambda_returns(rewards, discounts, next_values, lambdas)
    # Up to there it is an unroll of two steps of its own; after, one of three.
    head = n_step_returns(rewards[:2], discounts[:2], next_values[1])
    tail = n_step_returns(rewards[2:], discounts[2:], next_values[-1])
    np.testing.assert_allclose(returns, np.concatenate([head, tail]), rtol=1e-6, atol=1e-6)


def test_last_step_bootstraps_from_the_last_value_whatever_its_lambda():
    rewards, discounts, next_values, lambdas = random_unroll(3, (4, 2))
    lambdas[-1] = 0.0
    at_zero = lambda_returns(rewards, discounts, next_values, lambdas)
    lambdas[-1] = 1.0
    at_one = lambda_returns(rewards, discounts, next_values, lambdas)
    np.testing.assert_allclose(at_zero, at_one, rtol=1e-6)


def test_gradient_of_a_return_is_the_product_of_discounts():
    # ∂G_0/∂r_{t+1} = γ_1 ⋯ γ_t: (1, 0.5, 0.5 · 0.4) and ∂G_0/∂V(s_T) = 0.5 · 0.4 · 0.3
    rewards, discounts = jnp.ones(3), jnp.array([0.5, 0.4, 0.3])
    first = jax.grad(lambda r, v: n_step_returns(r, discounts, v)[0], argnums=(0, 1))
    by_rewards, by_bootstrap = first(rewards, jnp.array(2.0))
    np.testing.assert_allclose(by_rewards, [1.0, 0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(by_bootstrap, 0.06, rtol=1e-6)


def test_lambda_returns_agree_with_rlax():
    rewards, discounts, next_values, lambdas = unroll = random_unroll(5, (6, 4))
    theirs = jax.vmap(rlax.lambda_returns, in_axes=1, out_axes=1)
    expected = theirs(rewards, discounts, next_values, lambdas)
    np.testing.assert_allclose(lambda_returns(*unroll), expected, rtol=1e-5, atol=1e-6)


def test_n_step_returns_agree_with_rlax():
    rewards, discounts, next_values, _ = map(jnp.asarray, random_unroll(6, (6,)))
    expected = rlax.discounted_returns(rewards, discounts, next_values)
    returns = n_step_returns(rewards, discounts, next_values[-1])
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


def test_one_step_q_targets_take_the_greatest_next_value():
    # 1 + 0.5 · max(2, 6) = 4, and at a terminal only the reward
    targets = one_step_q_targets(
        jnp.array([1.0, 5.0]), jnp.array([0.5, 0.0]), jnp.array([[2.0, 6.0], [7.0, 9.0]])
    )
    np.testing.assert_allclose(targets, [4.0, 5.0])


def test_one_step_sarsa_targets_take_the_value_of_the_next_action():
    # 1 + 0.5 · Q(s', 0) = 1 + 0.5 · 2 = 2, and at a terminal only the reward
    targets = one_step_sarsa_targets(
        jnp.array([1.0, 5.0]),
        jnp.array([0.5, 0.0]),
        jnp.array([[2.0, 6.0], [7.0, 9.0]]),
        jnp.array([0, 1]),
    )
    np.testing.assert_allclose(targets, [2.0, 5.0])


@for_each("batch_shape", BATCH_SHAPES)
def test_sarsa_of_the_greedy_action_is_q_learning(batch_shape):
    rewards, discounts, _, _ = random_unroll(7, (4, *batch_shape))
    next_q = np.random.default_rng(8).normal(size=(4, *batch_shape, 5)).astype(np.float32)
    q_targets = one_step_q_targets(rewards, discounts, next_q)
    sarsa_targets = one_step_sarsa_targets(rewards, discounts, next_q, next_q.argmax(axis=-1))
    chex.assert_shape(q_targets, (4, *batch_shape))
    np.testing.assert_array_equal(q_targets, sarsa_targets)


@pytest.mark.parametrize("name", ["q", "sarsa"])
def test_one_step_targets_agree_with_rlax(name):
    rewards, discounts, _, _ = map(jnp.asarray, random_unroll(9, (4,)))
    next_q = jax.random.normal(jax.random.key(0), (4, 3))
    actions = jnp.array([0, 2, 1, 1])
    zeros = jnp.zeros((4, 3))  # with Q(s, a) = 0 the TD error is the target
    if name == "q":
        ours = one_step_q_targets(rewards, discounts, next_q)
        theirs = jax.vmap(rlax.q_learning)(zeros, actions, rewards, discounts, next_q)
    else:
        ours = one_step_sarsa_targets(rewards, discounts, next_q, actions)
        theirs = jax.vmap(rlax.sarsa)(zeros, actions, rewards, discounts, next_q, actions)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_gae_of_a_hand_example():
    # γ = λ = 0.5, v = (4, 2), V(s_T) = 8: δ = (1 + 1 − 4, 2 + 4 − 2) = (−2, 4); Â = (−2 + ¼ · 4, 4)
    advantages = gae_advantages(jnp.array([1.0, 2.0]), 0.5, jnp.array([4.0, 2.0]), 8.0, 0.5)
    np.testing.assert_allclose(advantages, [-1.0, 4.0])


def test_gae_agrees_with_rlax_and_lambda_one_is_the_return_less_the_value():
    rewards, discounts, values, lambdas = random_unroll(10, (6, 4))
    after = np.float32([1, -2, 3, 0])
    theirs = jax.vmap(rlax.truncated_generalized_advantage_estimation, in_axes=1, out_axes=1)
    expected = theirs(rewards, discounts, lambdas, np.concatenate([values, after[None]]))
    advantages = gae_advantages(rewards, discounts, values, after, lambdas)
    np.testing.assert_allclose(advantages, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        gae_advantages(rewards, discounts, values, after),
        n_step_returns(rewards, discounts, after) - values,
    )


def slow_vtrace(rewards, discounts, values, after, log_rhos, lambdas, clips):
    """Equation 1 as it is printed, a sum of corrected temporal differences for each step."""
    T = len(rewards)
    next_values = np.append(values[1:], after)
    rhos, cs, pg_rhos = (np.minimum(clip, np.exp(log_rhos)) for clip in clips)
    deltas = rhos * (rewards + discounts * next_values - values)
    targets = [
        values[s]
        + sum(np.prod(discounts[s:t] * lambdas[s:t] * cs[s:t]) * deltas[t] for t in range(s, T))
        for s in range(T)
    ]
    next_targets = np.append(targets[1:], after)
    mixed = (1 - lambdas) * next_values + lambdas * next_targets
    return targets, pg_rhos * (rewards + discounts * mixed - values)


@for_each("clips", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.5), (np.inf, 1.0, np.inf)])
def test_vtrace_equals_the_slow_sum(clips):
    rewards, discounts, values, lambdas = (x.astype(float) for x in random_unroll(11, (7,)))
    log_rhos = np.random.default_rng(12).normal(size=7)
    unroll = rewards, discounts, values, 1.5, log_rhos
    names = ("clip_rho", "clip_c", "clip_pg_rho")
    trace = vtrace_targets(*unroll, lambda_=lambdas, **dict(zip(names, clips, strict=True)))
    targets, advantages = slow_vtrace(*unroll, lambdas, clips)
    np.testing.assert_allclose(trace.targets, targets, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trace.advantages, advantages, rtol=1e-4, atol=1e-5)


@for_each("names", [("clip_pg_rho",), ("clip_rho", "clip_c", "clip_pg_rho")])
def test_vtrace_without_clips_takes_ratios_beyond_the_largest_float(names):
    unroll = (np.ones(2), 0.9, np.full(2, 10.0), 10.0, np.full(2, 1000.0))  # TD errors of 0
    trace = vtrace_targets(*unroll, **dict.fromkeys(names, np.inf))
    np.testing.assert_allclose(trace.targets, [10.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(trace.advantages, 0.0, atol=1e-6)


def test_vtrace_agrees_with_rlax():
    rewards, discounts, values, lambdas = map(jnp.asarray, random_unroll(13, (6,)))
    log_rhos = jax.random.normal(jax.random.key(0), (6,))
    next_values = jnp.append(values[1:], 2.0)
    theirs = rlax.vtrace_td_error_and_advantage(
        values, next_values, rewards, discounts, jnp.exp(log_rhos), lambdas, 1.2, 0.8
    )
    options = {"lambda_": lambdas, "clip_rho": 1.2, "clip_pg_rho": 0.8}
    trace = vtrace_targets(rewards, discounts, values, 2.0, log_rhos, **options)
    np.testing.assert_allclose(trace.targets, theirs.errors + values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trace.advantages, theirs.pg_advantage, rtol=1e-5, atol=1e-5)


@for_each("lambda_", [1.0, 0.6])
def test_vtrace_on_policy_is_lambda_returns_and_gae(lambda_):
    rewards, discounts, values, _ = random_unroll(14, (6, 3))
    after = values[0] + 1
    unroll = rewards, discounts, values, after
    trace = vtrace_targets(*unroll, np.zeros_like(rewards), lambda_=lambda_)
    returns = lambda_returns(rewards, discounts, np.concatenate([values[1:], after[None]]), lambda_)
    np.testing.assert_allclose(trace.targets, returns, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        trace.advantages, gae_advantages(*unroll, lambda_), rtol=1e-5, atol=1e-5
    )


def test_ratio_beyond_floats_is_clipped_and_one_of_zero_keeps_the_value():
    values, log_rhos = jnp.array([4.0, 2.0]), jnp.array([-np.inf, 1000.0])

    def first(log_rhos):
        return jnp.sum(vtrace_targets(jnp.array([1.0, 2.0]), 0.5, values, 8.0, log_rhos).targets)

    total, gradient = jax.value_and_grad(first)(log_rhos)
    np.testing.assert_allclose(total, 4.0 + 6.0)  # V(s₀), and 2 + ½ · 8
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_double_q_judges_by_one_what_the_other_chose():
    # The selector prefers action 0: 1 + 0.5 · 2 = 2, though the maximum is 6
    targets = double_q_targets(
        jnp.array([1.0]), 0.5, jnp.array([[2.0, 6.0]]), jnp.array([[3.0, 1.0]])
    )
    np.testing.assert_allclose(targets, [2.0])


def test_double_q_agrees_with_rlax_and_with_one_network_is_q_learning():
    rewards, discounts, _, _ = map(jnp.asarray, random_unroll(15, (4,)))
    next_q, selector = jax.random.normal(jax.random.key(1), (2, 4, 3))
    actions, zeros = jnp.zeros(4, int), jnp.zeros((4, 3))
    theirs = jax.vmap(rlax.double_q_learning)(zeros, actions, rewards, discounts, next_q, selector)
    ours = double_q_targets(rewards, discounts, next_q, selector)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(
        double_q_targets(rewards, discounts, next_q, next_q),
        one_step_q_targets(rewards, discounts, next_q),
    )


X, B = np.ones((4, 3), np.float32), np.ones(3, np.float32)
Q, A = np.ones((4, 3, 2), np.float32), np.zeros((4, 3), np.int32)
VALID_CALLS = [
    (n_step_returns, (X, X, B)),
    (lambda_returns, (X, X, X, X)),
    (one_step_q_targets, (X, X, Q)),
    (one_step_sarsa_targets, (X, X, Q, A)),
    (double_q_targets, (X, X, Q, Q)),
    (gae_advantages, (X, X, X, B)),
    (vtrace_targets, (X, X, X, B, X)),
]


@for_each(("function", "arguments"), VALID_CALLS)
def test_jit_equals_eager_and_compiles_once(function, arguments):
    num_traces = 0

    def counted(*arguments):
        nonlocal num_traces
        num_traces += 1
        return function(*arguments)

    jitted = jax.jit(counted)
    chex.assert_trees_all_close(jitted(*arguments), function(*arguments), rtol=1e-6)
    jitted(*(array + 1 for array in arguments))
    assert num_traces == 1


@for_each(("function", "arguments"), VALID_CALLS)
def test_wrong_dtypes_raise(function, arguments):
    for position, argument in enumerate(arguments):
        if function is lambda_returns and position == 3:
            continue  # λ may be the integers 0 and 1
        wrong = np.int32 if argument.dtype == np.float32 else np.float32
        with pytest.raises(AssertionError):
            function(*arguments[:position], argument.astype(wrong), *arguments[position + 1 :])


BAD = (np.nan, np.inf, -np.inf)


@for_each(("function", "arguments"), VALID_CALLS[:4])
def test_a_discount_of_zero_cuts_whatever_stands_behind_it(function, arguments):
    rewards, discounts, values, *rest = arguments
    discounts = discounts.copy()
    discounts[-1] = 0.0

    @jax.jit
    def gradient(values, rest):
        def first(rewards, values):
            return jnp.sum(function(rewards, discounts, values, *rest))

        return jax.value_and_grad(first, (0, 1))(rewards, values)

    expected = gradient(np.ones_like(values), rest)
    for bad in BAD:
        values = values.copy()
        (values if function is n_step_returns else values[-1])[...] = bad  # all actions, too
        if rest:  # λ, or an action that there is not
            rest[0] = rest[0].copy()
            rest[0][-1] = bad if function is lambda_returns else 99
        chex.assert_trees_all_equal(gradient(values, rest), expected)


@for_each("function", [gae_advantages, vtrace_targets])
def test_a_discount_of_zero_cuts_what_advantages_would_look_at(function):
    rewards, discounts, values, _ = random_unroll(16, (5, 2))
    discounts[:], discounts[2] = 0.9, 0.0

    def before(rewards, values, after):
        rest = (np.full((5, 2), 0.3),) if function is vtrace_targets else ()
        results = function(rewards, discounts, values, after, *rest)
        return sum(jnp.sum(x[:3]) for x in (results if rest else (results,)))

    gradient = jax.jit(jax.value_and_grad(before, (0, 1, 2)))
    expected = gradient(rewards, values, values[0])
    assert np.isfinite(expected[0])
    for bad in BAD:
        rewards[3:], values[3:] = bad, bad
        actual = gradient(rewards, values, np.full(2, bad, np.float32))
        chex.assert_trees_all_equal(actual, expected)


def test_a_lambda_of_zero_or_one_cuts_what_it_does_not_look_at():
    rewards, discounts, next_values, _ = random_unroll(3, (5, 2))
    discounts[:] = 0.9
    lambdas = np.ones((5, 2), np.float32)
    lambdas[1] = 0.0

    def returns_before(rewards, next_values):
        """Up to where λ = 0 looks at its own value alone, and what is behind it is bad."""
        return jnp.sum(lambda_returns(rewards, discounts, next_values, lambdas)[:2])

    gradient = jax.jit(jax.value_and_grad(returns_before, (0, 1)))
    expected = gradient(rewards, next_values)
    assert np.isfinite(expected[0])
    for bad in BAD:
        rewards[2:], next_values[0], next_values[2:] = bad, bad, bad
        chex.assert_trees_all_equal(gradient(rewards, next_values), expected)


def test_without_a_zero_nothing_is_cut():
    rewards, discounts, next_values, _ = random_unroll(3, (4,))
    discounts[:], next_values[-1] = 0.5, np.nan
    assert np.isnan(n_step_returns(rewards, discounts, next_values[-1])).all()
    assert np.isnan(lambda_returns(rewards, discounts, next_values, 0.5)).all()


def test_sarsa_target_of_what_is_no_action_is_nan():
    target = one_step_sarsa_targets(np.float32(1), np.float32(0.9), np.ones(3, np.float32), -1)
    assert np.isnan(target)
