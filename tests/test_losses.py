"""The laws of losses: values by hand, gradients, masks, reductions and shapes."""

import functools
import math

import chex
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.distributions import Categorical, DiagonalGaussian
from a3cjax.losses import (
    MIN_ADVANTAGE,
    actor_critic_loss,
    clipped_surrogate_loss,
    entropy_loss,
    policy_gradient_loss,
    q_loss,
    value_loss,
)
from tests.cases import for_each

BATCH_SHAPES = [(), (3,), (3, 2)]
T, A = 4, 5


def random_steps(seed=0, batch_shape=(3,)):
    """Logits, values, actions and returns of an unroll."""
    rng = np.random.default_rng(seed)
    shape = (T, *batch_shape)
    logits = rng.normal(size=(*shape, A)).astype(np.float32)
    values = rng.normal(size=shape).astype(np.float32)
    actions = rng.integers(0, A, size=shape).astype(np.int32)
    returns = rng.normal(size=shape).astype(np.float32)
    return jnp.asarray(logits), values, actions, returns


def loss_of_logits(logits, values, actions, returns, **options):
    return actor_critic_loss(Categorical(logits), values, actions, returns, **options)


fast_loss = jax.jit(loss_of_logits)  # compiling once is faster than operation by operation


def test_per_step_losses_of_a_hand_example():
    # −(−0.5) · 3 = 1.5;  ½ (4 − 1)² = 4.5;  −0.7;  ½ (5 − 2)² = 4.5 with Q(s, 1) = 2
    np.testing.assert_allclose(policy_gradient_loss(jnp.array([-0.5]), jnp.array([3.0])), [1.5])
    np.testing.assert_allclose(value_loss(jnp.array([1.0]), jnp.array([4.0])), [4.5])
    np.testing.assert_allclose(entropy_loss(jnp.array([0.7])), [-0.7])
    q_values = jnp.array([[9.0, 2.0]])
    np.testing.assert_allclose(q_loss(q_values, jnp.array([1]), jnp.array([5.0])), [4.5])


def test_value_loss_gradient_is_value_minus_return_and_zero_for_returns():
    values, returns = jnp.array([1.0, 5.0, -2.0]), jnp.array([4.0, 5.0, 1.0])
    gradient = jax.jit(jax.grad(lambda v, r: jnp.sum(value_loss(v, r)), (0, 1)))
    by_values, by_returns = gradient(values, returns)
    np.testing.assert_allclose(by_values, values - returns)
    np.testing.assert_array_equal(by_returns, np.zeros(3))


def test_policy_gradient_is_minus_the_advantage_which_is_a_constant():
    log_probs, advantages = jnp.array([-0.5, -2.0]), jnp.array([3.0, -1.0])
    gradient = jax.jit(jax.grad(lambda x, a: jnp.sum(policy_gradient_loss(x, a)), (0, 1)))
    by_log_probs, by_advantages = gradient(log_probs, advantages)
    np.testing.assert_allclose(by_log_probs, -advantages)
    np.testing.assert_array_equal(by_advantages, np.zeros(2))


def test_q_loss_gradient_reaches_only_the_action_taken():
    # Q − y = 2 − 5 = −3 at the action taken, 0 elsewhere and for the target
    gradient = jax.jit(jax.grad(lambda q, y: jnp.sum(q_loss(q, np.array([1]), y)), (0, 1)))
    by_q, by_target = gradient(jnp.array([[9.0, 2.0]]), jnp.array([5.0]))
    np.testing.assert_allclose(by_q, [[0.0, -3.0]])
    np.testing.assert_array_equal(by_target, [0.0])


def test_actor_critic_loss_of_a_hand_example():
    # T = 2, B = 2, two actions with π = (1/4, 3/4) everywhere. A = R − V:
    #          V          R        a        A        −log π(a) A            ½ A²
    # t = 0: (1, 0)    (3, 1)   (0, 1)    (2, 1)    2 log 4, log(4/3)     2, 0.5
    # t = 1: (0, 2)    (4, 2)   (1, 0)    (4, 0)    4 log(4/3), 0         8, 0
    # Sum over time, mean over two environments; costs 0.5 and 0.1.
    policy_losses = 2 * math.log(4.0) + 5 * math.log(4.0 / 3.0)
    entropy = 0.25 * math.log(4.0) + 0.75 * math.log(4.0 / 3.0)
    loss, metrics = fast_loss(
        np.full((2, 2, 2), [0.0, math.log(3.0)], np.float32),
        jnp.array([[1.0, 0.0], [0.0, 2.0]]),
        jnp.array([[0, 1], [1, 0]]),
        jnp.array([[3.0, 1.0], [4.0, 2.0]]),
        value_cost=0.5,
        entropy_cost=0.1,
    )
    expected = (policy_losses + 0.5 * 10.5 - 0.1 * 4 * entropy) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.policy_loss, policy_losses / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics.value_loss, 10.5 / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics.entropy, entropy, rtol=1e-6)
    # Var(R) = 1.25, Var(R − V) = 2.1875
    np.testing.assert_allclose(metrics.explained_variance, 1 - 2.1875 / 1.25, rtol=1e-6)


@for_each(
    ("values", "returns", "mask", "expected"),
    [
        ([1.0, 2.0, 9.0], [1.0, 3.0, 0.0], [1, 1, 0], 0.75),  # 1 − (1/4) / 1 of the two kept
        ([1.5, 3.5, 0.0], [1.0, 3.0, 0.0], [1, 1, 0], 1.0),  # an offset leaves it alone
        ([1.0, -9.0, 0.0], [1.0, 3.0, 2.0], [1, 1, 1], -1.0),  # no less
        ([1.0, 2.0, 9.0], [2.0, 2.0, 3.0], [1, 1, 0], 0.0),  # alike
        ([1.0, 2.0, 9.0], [2.0, 2.0, 3.0], [0, 0, 0], 0.0),
        ([1.0, 2.0, 9.0], [0.1, 0.1, 0.1], [1, 1, 1], 0.0),  # whose mean is not quite 0.1
    ],
)
def test_explained_variance(values, returns, mask, expected):
    values, returns = (jnp.array(x)[:, None] for x in (values, returns))
    mask, actions = np.array(mask, bool)[:, None], np.zeros((3, 1), int)
    _, metrics = fast_loss(jnp.zeros((3, 1, 2)), values, actions, returns, mask=mask)
    np.testing.assert_allclose(metrics.explained_variance, expected, atol=1e-6)


def slow_actor_critic_loss(logits, values, actions, returns, value_cost, entropy_cost, mask):
    """The sum of the paper's terms, step by step in float64, one environment after another."""
    losses = []
    for b in range(values.shape[1]):
        loss = 0.0
        for t in range(values.shape[0]):
            weights = np.exp(np.asarray(logits[t, b], np.float64))
            probs = weights / weights.sum()
            advantage = float(returns[t, b]) - float(values[t, b])
            policy_term = -math.log(probs[actions[t, b]]) * advantage
            value_term = 0.5 * advantage**2
            entropy = -float(np.sum(probs * np.log(probs)))
            kept = float(mask[t, b])
            loss += kept * (policy_term + value_cost * value_term - entropy_cost * entropy)
        losses.append(loss)
    return sum(losses) / len(losses)


@given(
    seed=st.integers(0, 2**32 - 1), value_cost=st.floats(0.0, 2.0), entropy_cost=st.floats(0.0, 1.0)
)
def test_actor_critic_loss_equals_the_slow_sum(seed, value_cost, entropy_cost):
    steps = random_steps(seed)
    weights = np.random.default_rng(seed).random((T, 3))
    mask = np.where(weights > 0.3, weights, 0).astype(np.float32)  # fractions, and some of 0
    loss, _ = fast_loss(*steps, value_cost=value_cost, entropy_cost=entropy_cost, mask=mask)
    slow = slow_actor_critic_loss(*steps, value_cost, entropy_cost, mask)
    np.testing.assert_allclose(loss, slow, rtol=1e-4, atol=1e-5)


def test_gradients_of_actor_critic_loss_law_by_law():
    logits, values, actions, returns = random_steps()
    gradient = jax.jit(
        jax.grad(lambda x, v, r: loss_of_logits(x, v, actions, r, value_cost=0.25)[0], (0, 1, 2))
    )
    by_logits, by_values, by_returns = gradient(logits, values, returns)
    # The mean over B = 3 environments divides; time is summed.
    np.testing.assert_allclose(
        by_values, 0.25 * np.subtract(values, returns) / 3, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(by_returns, np.zeros_like(returns))

    def by_hand(x):
        policy = Categorical(x)
        return jnp.sum(-policy.log_prob(actions) * (returns - values) - 0.01 * policy.entropy())

    np.testing.assert_allclose(
        by_logits, jax.jit(jax.grad(by_hand))(logits) / 3, rtol=1e-4, atol=1e-6
    )


def test_normalized_advantages_of_a_hand_example():
    # π = (¼, ¾), V = 0, A = (3, −4, and 5 at a step that is cut): the mean of the squares is 12½.
    logits = np.full((3, 1, 2), [0.0, math.log(3.0)], np.float32)
    values, actions = jnp.zeros((3, 1)), jnp.array([[0], [1], [0]])
    returns = jnp.array([[3.0], [-4.0], [5.0]])
    mask = np.array([[1], [1], [0]], bool)
    options = {"mask": mask, "entropy_cost": 0.1, "normalize_advantages": True}
    loss, metrics = loss_of_logits(logits, values, actions, returns, **options)
    size = math.sqrt(12.5 + MIN_ADVANTAGE**2)
    policy_losses = (3 * math.log(4.0) - 4 * math.log(4 / 3)) / size
    entropy = 0.25 * math.log(4.0) + 0.75 * math.log(4 / 3)
    entropy_cost = 0.1 * math.sqrt(12.5) / size
    expected = policy_losses + 0.5 * 12.5 - entropy_cost * 2 * entropy
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.policy_loss, policy_losses / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics.value_loss, 12.5 / 2, rtol=1e-6)  # in their own units
    loss, _ = loss_of_logits(
        logits, values, actions, returns, **options | {"entropy_cost": 0.1, "entropy_floor": 0.25}
    )
    entropy_cost = 0.1 * (0.25 + 0.75 * math.sqrt(12.5) / size)
    expected = policy_losses + 0.5 * 12.5 - entropy_cost * 2 * entropy
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@for_each("floor", [0.0, 0.5, 1.0])
@for_each("is_normal", [False, True])
def test_without_advantages_the_floor_of_the_entropy_cost_is_left(floor, is_normal):
    logits, _, actions, returns = random_steps()
    zeros = np.zeros_like(returns)

    def gradient(**options):
        return jax.grad(lambda x: loss_of_logits(x, zeros, actions, zeros, **options)[0])(logits)

    expected = gradient(entropy_cost=0.1 * (floor if is_normal else 1.0))
    actual = gradient(entropy_cost=0.1, entropy_floor=floor, normalize_advantages=is_normal)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)


@for_each("normalize_advantages", [False, True])
def test_step_of_weight_two_counts_as_if_it_were_there_twice(normalize_advantages):
    logits, values, actions, returns = random_steps()
    weights = np.ones(returns.shape, np.float32)
    weights[0] = 2
    options = {"entropy_cost": 0.1, "normalize_advantages": normalize_advantages}
    weighted = loss_of_logits(logits, values, actions, returns, mask=weights, **options)
    twice = [jnp.concatenate([x[:1], x]) for x in (logits, values, actions, returns)]
    chex.assert_trees_all_close(weighted, loss_of_logits(*twice, **options), rtol=1e-5)


@for_each(("unit", "size"), [(1e3, 1.0), (1e-6, 1e-6 / MIN_ADVANTAGE)])
def test_normalized_advantages_have_one_size_unless_they_are_next_to_nothing(unit, size):
    logits, _, actions, returns = random_steps()
    values = np.zeros_like(returns)
    returns = returns / np.sqrt(np.mean(np.square(returns)))
    gradient = jax.grad(
        lambda x, r, is_normal: loss_of_logits(
            x, values, actions, r, entropy_cost=0.0, normalize_advantages=is_normal
        )[0]
    )
    scaled, plain = gradient(logits, unit * returns, True), gradient(logits, size * returns, False)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-10)


def test_normalized_advantages_leave_the_gradients_of_values_and_returns_alone():
    logits, values, actions, returns = random_steps()
    gradient = jax.grad(
        lambda v, r, is_normal: loss_of_logits(
            logits, v, actions, r, normalize_advantages=is_normal
        )[0],
        argnums=(0, 1),
    )
    (by_values, by_returns), (expected, _) = (
        gradient(values, returns, is_normal) for is_normal in (True, False)
    )
    np.testing.assert_array_equal(by_values, expected)
    np.testing.assert_array_equal(by_returns, np.zeros_like(returns))


@for_each("dtype", [bool, np.float32, np.int32])
def test_masked_steps_contribute_nothing(dtype):
    steps = random_steps()
    mask = np.ones((T, 3), dtype)
    mask[1, 2] = mask[3, 0] = 0
    masked = np.asarray(mask) == 0

    @jax.jit
    def everything(logits, values, actions, returns):
        return jax.value_and_grad(
            lambda logits, values: loss_of_logits(logits, values, actions, returns, mask=mask),
            argnums=(0, 1),
            has_aux=True,
        )(logits, values)

    (loss, metrics), gradients = everything(*steps)
    others = random_steps(1)
    moved = everything(
        np.where(masked[..., None], others[0], steps[0]),
        *(np.where(masked, x, y) for x, y in zip(others[1:], steps[1:], strict=True)),
    )
    chex.assert_trees_all_equal(((loss, metrics), gradients), moved)
    for gradient in gradients:
        assert not np.any(np.asarray(gradient)[masked])
        assert np.any(np.asarray(gradient)[~masked])


@for_each("dtype", [np.float32, np.float16])
def test_fractional_masks_weigh_gradients_and_metrics(dtype):
    # A step of weight ¼ counts a quarter of one of weight 1, and metrics are weighted averages.
    steps = random_steps()
    weights = np.full((T, 3), 0.25, dtype)
    weights[1] = 1.0

    def gradients(weights):
        return jax.grad(lambda x: fast_loss(x, *steps[1:], mask=weights)[0])(steps[0])

    plain = gradients(np.ones((T, 3), np.float32))
    np.testing.assert_allclose(gradients(weights), plain * weights[..., None], rtol=1e-6)
    _, metrics = fast_loss(*steps, mask=weights)
    losses = 0.5 * np.square(steps[3] - steps[1])
    np.testing.assert_allclose(metrics.value_loss, np.average(losses, weights=weights), rtol=1e-5)
    _, scaled = fast_loss(*steps, mask=weights / 64)  # together less than one step
    chex.assert_trees_all_close(scaled, metrics, rtol=1e-5)


def test_mask_of_zeros_gives_zeros():
    loss, metrics = fast_loss(*random_steps(), mask=np.zeros((T, 3), bool))
    chex.assert_trees_all_equal((loss, *metrics), (np.zeros((), np.float32),) * 5)


@for_each("batch_shape", BATCH_SHAPES)
def test_actor_critic_loss_averages_over_any_batch_axes(batch_shape):
    logits, values, actions, returns = random_steps(1, batch_shape)
    loss, metrics = fast_loss(logits, values, actions, returns)
    chex.assert_shape([loss, *metrics], ())
    alone = [
        fast_loss(logits[:, *i], values[:, *i], actions[:, *i], returns[:, *i])
        for i in np.ndindex(*batch_shape)
    ]
    np.testing.assert_allclose(loss, np.mean([each for each, _ in alone]), rtol=1e-5)
    for name in ("policy_loss", "value_loss", "entropy"):  # a variance is no average of such
        value, parts = getattr(metrics, name), [getattr(each, name) for _, each in alone]
        np.testing.assert_allclose(value, np.mean(parts), rtol=1e-5)


def test_actor_critic_loss_of_a_gaussian_policy():
    # One step, one dimension: σ² = 1, action − mean = 1, A = 2:
    # −log π · A = ½ (1 + log 2π) · 2, ½ A² = 2, H = ½ (log 2π + 1)
    distribution = DiagonalGaussian(jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)))
    loss, _ = jax.jit(actor_critic_loss)(
        distribution, jnp.ones((1, 1)), jnp.ones((1, 1, 1)), jnp.full((1, 1), 3.0), entropy_cost=0.1
    )
    expected = (1 + math.log(2 * math.pi)) + 0.5 * 2.0 - 0.1 * 0.5 * (math.log(2 * math.pi) + 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_given_advantages_and_weights_of_a_hand_example():
    # π = (¼, ¾), V = 0, R = 2, so ½ R² = 2 twice. Policy terms: 3 · 5 log 4, ½ · 7 log 4/3.
    arguments = (
        np.full((2, 1, 2), [0.0, math.log(3.0)], np.float32),
        jnp.zeros((2, 1)),
        jnp.array([[0], [1]]),
        jnp.full((2, 1), 2.0),
    )
    given = {"advantages": jnp.array([[5.0], [7.0]]), "weights": jnp.array([[3.0], [0.5]])}
    entropy = 0.25 * math.log(4.0) + 0.75 * math.log(4 / 3)
    policy_losses = 15 * math.log(4.0) + 3.5 * math.log(4 / 3)
    loss, metrics = loss_of_logits(*arguments, **given, entropy_cost=0.1)
    np.testing.assert_allclose(loss, policy_losses + 0.5 * 4 - 0.1 * 2 * entropy, rtol=1e-6)
    np.testing.assert_allclose(metrics.policy_loss, policy_losses / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics.value_loss, 2.0)
    size = math.sqrt(37 + MIN_ADVANTAGE**2)  # of advantages: (25 + 49) / 2; weights come after it
    _, metrics = loss_of_logits(*arguments, **given, normalize_advantages=True)
    np.testing.assert_allclose(metrics.policy_loss, policy_losses / 2 / size, rtol=1e-6)


def test_defaults_of_advantages_and_weights_are_the_difference_and_one():
    steps = random_steps()
    given = {"advantages": steps[3] - steps[1], "weights": np.ones((T, 3), np.float32)}
    chex.assert_trees_all_equal(fast_loss(*steps, **given), fast_loss(*steps))


def test_advantages_and_weights_are_constants():
    steps = random_steps()

    def loss(advantages, weights):
        return fast_loss(*steps, advantages=advantages, weights=weights)[0]

    gradients = jax.grad(loss, (0, 1))(steps[3], np.full((T, 3), 2.0, np.float32))
    chex.assert_trees_all_equal(gradients, (np.zeros((T, 3), np.float32),) * 2)


@for_each("bad", [np.nan, np.inf])
def test_weight_of_zero_cuts_the_policy_term_and_a_mask_whatever_is_given(bad):
    logits, *rest = random_steps()
    weights, advantages = np.ones((T, 3), np.float32), np.ones((T, 3), np.float32)
    weights[1], never = 0.0, rest[1][1]
    logits = np.asarray(logits).copy()
    logits[1, np.arange(3), never] = -np.inf  # π = 0, so the ratio is 0, and log π is -inf

    def gradients(advantages, weights, mask=None):
        options = {"advantages": advantages, "weights": weights, "mask": mask}
        return jax.value_and_grad(lambda x: loss_of_logits(x, *rest, **options)[0])(logits)

    expected = gradients(advantages, weights)
    assert all(np.isfinite(x).all() for x in expected)
    moved = advantages.copy()
    moved[1] = bad
    chex.assert_trees_all_equal(gradients(moved, weights), expected)
    mask = np.ones((T, 3), bool)
    mask[1] = False
    weights[1] = bad
    chex.assert_trees_all_equal(
        gradients(moved, weights, mask), gradients(advantages, advantages, mask)
    )


@for_each("action", [-1, 3])
def test_q_loss_of_what_is_no_action_is_nan(action):
    assert np.isnan(q_loss(jnp.arange(3.0), jnp.array(action), jnp.array(0.0)))


def test_huber_is_the_square_inside_and_a_line_outside():
    # Q − y = −3 and 0.5, δ = 1: 1 · (3 − ½) and ½ · 0.25; its gradient is clipped to ± 1.
    q_values, actions, targets = jnp.array([[2.0], [5.5]]), jnp.array([0, 0]), jnp.array([5.0, 5.0])

    def loss(q_values, delta=1.0):
        return q_loss(q_values, actions, targets, huber_delta=delta)

    np.testing.assert_allclose(loss(q_values), [2.5, 0.125])
    np.testing.assert_allclose(jax.grad(lambda q: jnp.sum(loss(q)))(q_values)[:, 0], [-1.0, 0.5])
    np.testing.assert_array_equal(loss(q_values, np.inf), q_loss(q_values, actions, targets))


def test_huber_agrees_with_rlax():
    errors = jnp.linspace(-3.0, 3.0, 25)
    ours = q_loss(errors[:, None], jnp.zeros(25, int), jnp.zeros(25), huber_delta=0.7)
    np.testing.assert_allclose(ours, rlax.huber_loss(errors, 0.7), rtol=1e-6)


def test_second_derivative_of_huber_is_one_at_no_error():
    def loss(q):
        return q_loss(q[None], jnp.array([0])[0], jnp.array(1.0), huber_delta=1.0)

    assert jax.grad(jax.grad(loss))(jnp.array(1.0)) == 1.0


def test_clipped_surrogate_of_a_hand_example():
    # r = 2, ε = 0.2: −min(2 A, 1.2 A) is −1.2 of A = 1, and 2 of A = −1 (never clipped upwards);
    # r = ½: −0.5 and 0.8
    log_probs = jnp.log(jnp.array([2.0, 2.0, 0.5, 0.5]))
    advantages = jnp.array([1.0, -1.0, 1.0, -1.0])
    losses = clipped_surrogate_loss(log_probs, jnp.zeros(4), advantages)
    np.testing.assert_allclose(losses, [-1.2, 2.0, -0.5, 0.8], rtol=1e-6)
    theirs = rlax.clipped_surrogate_pg_loss(jnp.exp(log_probs), advantages, 0.2)
    np.testing.assert_allclose(jnp.mean(losses), theirs, rtol=1e-6)


def test_clipped_surrogate_has_weighted_advantages():
    # π = ¼ where it was ⅛: r = 2, of which 1.2 count; A = 5 with weight 3: −1.2 · 15. The next
    # step has weight 0; of the last one, A = −5 with weight 3, all of r counts: 2 · 15.
    logits = jnp.log(jnp.array([[0.25, 0.75]] * 3))
    options = {"old_log_probs": jnp.full(3, jnp.log(0.125)), "weights": jnp.array([3.0, 0.0, 3.0])}
    steps = (jnp.zeros(3), jnp.zeros(3, jnp.int32), jnp.array([5.0, 5.0, -5.0]))
    _, metrics = loss_of_logits(logits, *steps, **options)
    np.testing.assert_allclose(metrics.policy_loss, (-18 + 0 + 30) / 3, rtol=1e-6)
    costs = {"value_cost": 0.0, "entropy_cost": 0.0}
    gradient = jax.grad(lambda x: loss_of_logits(x, *steps, **options, **costs)[0])(logits)
    np.testing.assert_allclose(gradient, [[0, 0], [0, 0], [30 * 0.75, -30 * 0.75]], atol=1e-5)


@for_each(
    ("log_ratio", "advantage", "loss", "gradient"),
    [
        (100.0, 1.0, -1.2, 0.0),  # e^100 is not finite in 32 bits
        (np.inf, 1.0, -1.2, 0.0),
        (100.0, 0.0, 0.0, 0.0),
        (-100.0, 1.0, 0.0, 0.0),
        (-np.inf, -1.0, 0.8, 0.0),
        (0.1, -1.0, np.exp(0.1), np.exp(0.1)),
        (np.nan, 1.0, np.nan, np.nan),  # is not hidden
    ],
)
def test_clipped_surrogate_is_flat_beyond_its_bound_however_far(
    log_ratio, advantage, loss, gradient
):
    def of_ratio(x):
        return jnp.sum(clipped_surrogate_loss(x, jnp.zeros(1), jnp.full(1, advantage)))

    seen = jax.value_and_grad(of_ratio)(jnp.full(1, log_ratio))
    np.testing.assert_allclose(seen[0], loss, rtol=1e-6)
    np.testing.assert_allclose(seen[1], [gradient], rtol=1e-6, atol=1e-30)


@for_each("old", [np.nan, -np.inf, np.inf, -100.0])
def test_weight_of_zero_cuts_the_clipped_term_whatever_acted(old):
    logits, *rest = random_steps()
    weights, old_log_probs = np.ones((T, 3), np.float32), np.full((T, 3), -1.0, np.float32)
    weights[1] = 0.0

    def gradients(old_log_probs):
        options = {"weights": weights, "old_log_probs": old_log_probs}
        return jax.value_and_grad(lambda x: loss_of_logits(x, *rest, **options)[0])(logits)

    expected = gradients(old_log_probs)
    assert all(np.isfinite(x).all() for x in expected)
    changed = old_log_probs.copy()
    changed[1] = old
    chex.assert_trees_all_equal(gradients(changed), expected)


def test_clipped_surrogate_with_no_room_has_the_gradient_of_a3c_at_the_old_policy():
    advantages = jnp.array([1.0, -2.0])
    gradient = jax.grad(
        lambda x: jnp.sum(clipped_surrogate_loss(x, jnp.zeros(2), advantages, clip=0))
    )
    np.testing.assert_array_equal(gradient(jnp.zeros(2)), -advantages)


def test_clipped_surrogate_at_the_old_policy_has_the_gradient_of_a3c():
    log_probs, advantages = jnp.array([-0.5, -2.0, -0.1]), jnp.array([3.0, -1.0, 0.0])
    gradient = jax.grad(lambda *x: jnp.sum(clipped_surrogate_loss(*x)), (0, 1, 2))
    by_log_probs, *constants = gradient(log_probs, log_probs, advantages)
    plain = jax.grad(lambda x: jnp.sum(policy_gradient_loss(x, advantages)))(log_probs)
    np.testing.assert_allclose(by_log_probs, plain, rtol=1e-6)
    chex.assert_trees_all_equal(constants, [np.zeros(3, np.float32)] * 2)


def test_jit_equals_eager_and_compiles_once():
    num_traces = 0

    def counted(*steps, **options):
        nonlocal num_traces
        num_traces += 1
        return loss_of_logits(*steps, **options)

    jitted = jax.jit(counted)
    steps = random_steps()
    compiled = jitted(*steps, value_cost=0.5, entropy_cost=0.01)
    chex.assert_trees_all_close(compiled, loss_of_logits(*steps), rtol=1e-5)
    jitted(*random_steps(1), value_cost=0.25, entropy_cost=0.0)  # costs may be traced, too
    assert num_traces == 1


class Plain:
    """A policy that JAX cannot look into."""

    def log_prob(self, actions):
        return -jnp.ones(actions.shape)

    def entropy(self):
        return jnp.ones((T, 3))


X, Q = np.ones((T, 3), np.float32), np.ones((T, 3, A), np.float32)
ACTIONS = np.zeros((T, 3), np.int32)


def test_policy_that_is_no_pytree_needs_no_more_than_its_methods_where_nothing_is_masked():
    loss, _ = actor_critic_loss(Plain(), X, ACTIONS, 2 * X)
    np.testing.assert_allclose(loss, T * (1 + 0.5 * 0.5 - 0.01), rtol=1e-6)
    with pytest.raises(AssertionError, match="where there is a mask"):
        actor_critic_loss(Plain(), X, ACTIONS, X, mask=X)


ONES = np.ones((3, 2, 4), np.float32)


@for_each("strict", [False, True])
@for_each(
    ("make", "parameters", "actions"),
    [
        (Categorical, (ONES,), np.zeros((3, 2), np.int32)),
        (DiagonalGaussian, (ONES, ONES), ONES / 2),
        (DiagonalGaussian, (ONES, ONES[..., :1]), ONES / 2),
        (lambda x: distrax.Uniform(0 * x, x), (ONES[..., 0],), ONES[..., 0] / 2),
    ],
)
def test_masked_steps_may_hold_any_number(make, parameters, actions, strict):
    values = returns = np.ones((3, 2), np.float32)
    mask = np.array([[True] * 2, [False] * 2, [True] * 2])

    @jax.jit
    def everything(parameters, values, actions, returns):
        def loss(parameters, values):
            return actor_critic_loss(make(*parameters), values, actions, returns, mask=mask)[0]

        return jax.value_and_grad(loss, (0, 1))(parameters, values)

    def with_bad(x, bad):
        x = np.array(x)
        x[1] = bad if x.dtype == np.float32 else 99
        return x

    arguments = parameters, values, actions, returns
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        expected = everything(*arguments)
        for bad in (np.nan, np.inf, -np.inf, 0.0):
            changed = jax.tree.map(functools.partial(with_bad, bad=bad), arguments)
            chex.assert_trees_all_equal(everything(*changed), expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
