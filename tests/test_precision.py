"""Laws of dtypes: 16 bits are summed in 32, 64 stay 64, and no mode of JAX's breaks anything."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax import losses, returns
from a3cjax.agents import ALGORITHMS
from a3cjax.distributions import Categorical, DiagonalGaussian, EpsilonGreedy
from a3cjax.networks import make_network
from a3cjax.optimizers import linear_annealing, make_optimizer
from a3cjax.types import (
    Constants,
    Exploration,
    LearnerState,
    ObservationStatistics,
    TimeStep,
    Trajectory,
)
from a3cjax.updates import make_apply_gradients
from tests.cases import for_each

T, B, A = 4, 3, 2
MODES = {
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
    "x64": lambda: jax.enable_x64(True),
}


def loss_of_logits(logits, values, actions, targets, mask):
    return losses.actor_critic_loss(
        Categorical(logits), values, actions, targets, mask=mask, entropy_cost=np.float64(0.01)
    )


def weighted_loss_of_logits(logits, values, actions, targets, advantages, weights):
    options = {"advantages": advantages, "weights": weights}
    return losses.actor_critic_loss(Categorical(logits), values, actions, targets, **options)


def loss_of_gaussian(mean, variance, values, actions, targets):
    return losses.actor_critic_loss(DiagonalGaussian(mean, variance), values, actions, targets)


def draws(q_values, epsilons, mean, variance):
    key = jax.random.key(0)
    gaussian = DiagonalGaussian(mean, variance)
    return (
        Categorical(q_values).sample(key),
        EpsilonGreedy(q_values, epsilons).sample(key),
        gaussian.sample(key),
        gaussian.entropy(),
    )


X = np.random.default_rng(0).normal(size=(T, B)).astype(np.float32)
Q = np.random.default_rng(1).normal(size=(T, B, A)).astype(np.float32)
ACTIONS, DISCOUNTS = np.zeros((T, B), np.int32), np.full((T, B), 0.5, np.float32)
CALLS = [
    (returns.n_step_returns, (X, DISCOUNTS, X[0])),
    (returns.lambda_returns, (X, DISCOUNTS, X)),
    (returns.lambda_returns, (X, DISCOUNTS, X, DISCOUNTS)),
    (returns.one_step_q_targets, (X, DISCOUNTS, Q)),
    (returns.one_step_sarsa_targets, (X, DISCOUNTS, Q, ACTIONS)),
    (returns.double_q_targets, (X, DISCOUNTS, Q, Q)),
    (returns.gae_advantages, (X, DISCOUNTS, X, X[0])),
    (returns.vtrace_targets, (X, DISCOUNTS, X, X[0], X)),
    (losses.policy_gradient_loss, (X, X)),
    (losses.value_loss, (X, X)),
    (losses.entropy_loss, (X,)),
    (losses.q_loss, (Q, ACTIONS, X)),
    (functools.partial(losses.q_loss, huber_delta=0.5), (Q, ACTIONS, X)),
    (losses.clipped_surrogate_loss, (X, X, X)),
    (weighted_loss_of_logits, (Q, X, ACTIONS, X, X, DISCOUNTS)),
    (loss_of_logits, (Q, X, ACTIONS, X, DISCOUNTS)),
    (loss_of_logits, (Q, X, ACTIONS, X, ACTIONS + 1)),
    (loss_of_gaussian, (Q, np.abs(Q), X, Q, X)),
    (draws, (Q, DISCOUNTS, Q, np.abs(Q))),
]


def changed(arguments, dtype, but=DISCOUNTS):
    """The arguments with another dtype for floats; discounts keep theirs."""
    return tuple(
        jnp.asarray(x, x.dtype if x.dtype == np.int32 or x is but else dtype) for x in arguments
    )


def floats_of(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


@pytest.mark.parametrize(("function", "arguments"), CALLS)
def test_every_mode_gives_the_same_numbers_in_the_same_dtypes(function, arguments):
    expected = function(*arguments)
    for mode in MODES.values():
        with mode():
            actual = function(*arguments)
        chex.assert_trees_all_equal(actual, expected)
        chex.assert_trees_all_equal_dtypes(actual, expected)


@for_each("dtype", [jnp.bfloat16, jnp.float16])
@for_each(("function", "arguments"), CALLS)
def test_of_16_bits_is_computed_what_the_same_numbers_give_in_32(function, arguments, dtype):
    with MODES["strict"](), MODES["x64"]():
        short = changed(arguments, dtype)
        result = function(*short)
        assert {x.dtype for x in floats_of(result)} <= {jnp.dtype(jnp.float32)}
        expected = function(*changed(short, jnp.float32))
    chex.assert_trees_all_equal(result, expected)


@for_each(("function", "arguments"), CALLS)
def test_float64_stays_float64_under_x64(function, arguments):
    with MODES["strict"](), MODES["x64"]():
        result = function(*changed(arguments, jnp.float64))
        assert {x.dtype for x in floats_of(result)} <= {jnp.dtype(jnp.float64)}


@for_each("dtype", [jnp.bfloat16, jnp.float16])
def test_a_thousand_rewards_of_16_bits_come_to_a_hundred(dtype):
    rewards, discounts = jnp.ones(1000, dtype), jnp.full(1000, 0.99)
    np.testing.assert_allclose(
        returns.n_step_returns(rewards, discounts, dtype(0))[0], 100, rtol=1e-3
    )
    mixed = returns.lambda_returns(rewards, discounts, jnp.zeros(1000, dtype))
    np.testing.assert_allclose(mixed[0], 100, rtol=1e-3)


@for_each(("function", "arguments"), CALLS[:8])
def test_discounts_of_16_bits_are_refused(function, arguments):
    # What they were before they were rounded nobody can say.
    with pytest.raises(AssertionError, match=r"^discounts must be float32 or .*, got bfloat16"):
        function(*changed(arguments, jnp.bfloat16, but=None))


def test_losses_of_float16_are_finite():
    # ½ (300 − (−300))² and a sum of 1,000 of them: beyond 65,504, the largest float16.
    values = jnp.full((1000, 1), 300.0, jnp.float16)
    steps = (jnp.zeros((1000, 1, A), jnp.float16), values, jnp.zeros((1000, 1), int), -values)
    loss, metrics = losses.actor_critic_loss(Categorical(steps[0]), *steps[1:])
    assert np.isfinite([loss, *metrics]).all()
    np.testing.assert_allclose(metrics.value_loss, 180_000)


@pytest.mark.parametrize(
    ("algorithm", "network", "head", "optimizer"),
    [
        ("a3c", "atari_ff", "actor_critic", "adam"),
        ("a3c", "mlp_gru", "actor_critic", "rmsprop"),
        ("a3c", "mujoco_lstm", "gaussian_actor_critic", "adam"),
        ("n_step_q", "mlp_lstm", "action_values", "sgd"),
        ("one_step_q", "tabular", "action_values", "sgd"),
        ("one_step_sarsa", "nature_ff", "action_values", "rmsprop"),
    ],
)
def test_agents_learn_in_float32_under_every_mode(algorithm, network, head, optimizer):
    is_image = network.startswith(("atari", "nature"))
    shape = (21, 21, 64) if is_image else (5,)
    observations = np.zeros((B, *shape), np.uint8 if is_image else np.float32)
    scale = np.ones(() if is_image else shape, np.float32)
    statistics = ObservationStatistics(np.zeros(shape, np.float32), scale)
    exploration = Exploration(np.full(B, 0.5, np.float32), np.float32(0.5))

    def learn():
        """All that an actor-learner does, traced and not compiled."""
        key = jax.random.key(0)
        agent = ALGORITHMS[algorithm].make(make_network(network, A, head))
        params = agent.init(key, observations[None, :1])
        constants = Constants(statistics, params, exploration)
        timestep = TimeStep(observations, X[0], X[0], np.zeros(B, bool))
        core_state = agent.initial_state(B)
        output, core_state = agent.look(params, constants, timestep, core_state)
        actions = output.policy.sample(key)
        trajectory = Trajectory(
            observations=np.stack([observations] * (T + 1)),
            actions=jnp.stack([actions] * (T + agent.acts_ahead)),
            rewards=X,
            discounts=DISCOUNTS,
            is_first=np.zeros((T + 1, B), bool),
            core_state=core_state,
        )
        grads, metrics = jax.grad(agent.loss, has_aux=True)(params, constants, trajectory)
        schedule = linear_annealing(0.1, 10**9)
        rule = make_optimizer(optimizer, schedule=schedule, max_grad_norm=1.0)
        state = LearnerState(params, rule.init(params))
        state, _ = make_apply_gradients(rule)(state, grads, 7)
        return state, output.values, actions, core_state, metrics

    for mode in MODES.values():
        with mode():
            shapes = jax.eval_shape(learn)
        dtypes = {x.dtype for x in jax.tree.leaves(shapes)}
        assert dtypes <= {jnp.dtype(jnp.float32), jnp.dtype("int32")}
