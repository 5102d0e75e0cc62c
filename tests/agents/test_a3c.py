"""The laws of A3C: what its loss learns from, where returns end, and how it acts."""

import inspect
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.agents import make_a3c
from a3cjax.distributions import DiagonalGaussian
from a3cjax.exploration import evaluation_exploration
from a3cjax.networks import make_network
from a3cjax.types import Constants, NetworkOutput, ObservationStatistics, TimeStep, Trajectory
from tests.cases import for_each
from tests.tabular import (
    act,
    make_tabular_network,
    random_params,
    random_tables,
    random_trajectory,
)

T, B, A = 6, 4, 3
NUM_STATES = (T + 1) * B
seeds = st.integers(0, 2**32 - 1)


def constants(statistics=None, entropy_factor=1.0):
    exploration = evaluation_exploration(B)._replace(entropy_factor=np.float32(entropy_factor))
    return Constants(statistics, None, exploration)


def tabular_loss(**hyperparameters):
    """((loss, metrics), gradients) of tables and a trajectory, compiled."""
    agent = make_a3c(make_tabular_network(), **hyperparameters)
    differentiated = jax.value_and_grad(agent.loss, has_aux=True)
    return jax.jit(lambda params, trajectory: differentiated(params, constants(), trajectory))


def one_environment(observations, rewards, discounts, is_first):
    """A trajectory of a single environment that took action 0 throughout."""

    def column(values, dtype):
        return np.array(values, dtype)[:, None]

    actions = column([0] * len(rewards), np.int32)
    return Trajectory(
        observations=column(observations, np.int32),
        actions=actions,
        rewards=column(rewards, np.float32),
        discounts=column(discounts, np.float32),
        is_first=column(is_first, bool),
        core_state=(),
    )


def uniform_tables(values):
    return {
        "logits": np.zeros((len(values), 2), np.float32),
        "values": np.array(values, np.float32),
    }


def test_loss_of_a_hand_example():
    # V = (1, 2, 3, 4) along the unroll, r = (1, 2, 3), γ = 0.5, two equally likely actions:
    # R_2 = 3 + 0.5 · 4 = 5, R_1 = 2 + 0.5 · 5 = 4.5, R_0 = 1 + 0.5 · 4.5 = 3.25
    # A = R − V = (2.25, 2.5, 2); Σ −log π A = 6.75 log 2; Σ ½ A² = ½ (5.0625 + 6.25 + 4)
    trajectory = one_environment([0, 1, 2, 3], [1, 2, 3], [0.5] * 3, [True, False, False, False])
    loss_and_gradients = tabular_loss(value_cost=0.25, entropy_cost=0.1)
    (loss, metrics), gradients = loss_and_gradients(uniform_tables([1, 2, 3, 4]), trajectory)
    policy_losses, value_losses = 6.75 * math.log(2), 0.5 * (5.0625 + 6.25 + 4)
    expected = policy_losses + 0.25 * value_losses - 0.1 * 3 * math.log(2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    averages = [policy_losses / 3, value_losses / 3, math.log(2)]
    np.testing.assert_allclose(metrics[:3], averages, rtol=1e-6)
    # 0.25 (V − R), and nothing for the state that only bootstraps.
    np.testing.assert_allclose(gradients["values"], [-0.5625, -0.625, -0.5, 0.0], rtol=1e-6)
    # (π − 1) A = −½ A for the action taken; the entropy of a uniform policy is at its maximum.
    by_logits = [[-1.125, 1.125], [-1.25, 1.25], [-1.0, 1.0], [0.0, 0.0]]
    np.testing.assert_allclose(gradients["logits"], by_logits, rtol=1e-6, atol=1e-7)


def test_forbidden_actions_count_neither_in_the_policy_nor_in_its_entropy():
    # As above, with a third action that has preferences of 5, and is forbidden.
    trajectory = one_environment([0, 1, 2, 3], [1, 2, 3], [0.5] * 3, [True, False, False, False])
    loss_and_gradients = tabular_loss(value_cost=0.25, entropy_cost=0.1)
    two = uniform_tables([1, 2, 3, 4])
    three = {**two, "logits": np.tile(np.float32([0, 0, 5]), (4, 1))}
    mask = np.tile([True, True, False], (4, 1, 1))
    expected, gradients = loss_and_gradients(two, trajectory)
    masked, by_three = loss_and_gradients(three, trajectory._replace(action_masks=mask))
    chex.assert_trees_all_close(masked, expected, rtol=1e-6)
    np.testing.assert_allclose(by_three["logits"][:, :2], gradients["logits"], rtol=1e-6)
    np.testing.assert_array_equal(by_three["logits"][:, 2], np.zeros(4))


def test_actions_are_chosen_among_those_allowed_whoever_looks():
    agent, mask = make_a3c(make_tabular_network()), np.eye(A, dtype=bool)[[1, 2, 0]]
    now = timestep(np.arange(A))._replace(action_mask=mask)
    output, _ = agent.look(decisive_tables(), constants(), now, ())
    np.testing.assert_array_equal(np.isfinite(output.policy.logits), mask)

    def look(params, constants, timestep, core_state):
        return agent.look(params, constants, timestep._replace(action_mask=None), core_state)

    for own in (agent, agent._replace(look=look)):
        for is_greedy in (False, True):
            actions, *_ = act(own, decisive_tables(), constants(), now, is_greedy=is_greedy)
            np.testing.assert_array_equal(actions, [1, 2, 0])


def test_lambda_zero_learns_from_one_step():
    # R_t = r_{t+1} + 0.5 V(s_{t+1}) = (2, 3.5, 5), so V − R = (−1, −1.5, −2)
    trajectory = one_environment([0, 1, 2, 3], [1, 2, 3], [0.5] * 3, [True, False, False, False])
    loss_and_gradients = tabular_loss(lambda_=0.0, value_cost=1.0)
    _, gradients = loss_and_gradients(uniform_tables([1, 2, 3, 4]), trajectory)
    np.testing.assert_allclose(gradients["values"], [-1.0, -1.5, -2.0, 0.0], rtol=1e-6)


@for_each(
    ("discount_of_last_step", "expected"),
    [
        # Truncated: R_1 = 2 + 0.5 V(s_2) = 6 and R_0 = 1 + 0.5 · 6 = 4.
        (0.5, [-4.0, -6.0, 0.0, 96.0, 0.0]),
        # Terminated: R_1 = 2 and R_0 = 1 + 0.5 · 2 = 2.
        (0.0, [-2.0, -2.0, 0.0, 96.0, 0.0]),
    ],
)
def test_truncated_step_bootstraps_from_its_last_observation_and_terminated_does_not(
    discount_of_last_step, expected
):
    # s_2 is the true last observation, the step 2 → 3 an automatic reset that nobody takes, and
    # s_3 a new episode with R_3 = 3 + 0.5 V(s_4) = 4. V = (0, 0, 8, 100, 2).
    trajectory = one_environment(
        observations=[0, 1, 2, 3, 4],
        rewards=[1, 2, 77, 3],
        discounts=[0.5, discount_of_last_step, 0.5, 0.5],
        is_first=[True, False, False, True, False],
    )
    _, gradients = tabular_loss(value_cost=1.0)(uniform_tables([0, 0, 8, 100, 2]), trajectory)
    np.testing.assert_allclose(gradients["values"], expected, rtol=1e-6)


@for_each(("last_discount", "expected"), [(0.5, [-3.5, -5.0, 0.0]), (0.0, [-2.0, -2.0, 0.0])])
def test_episode_that_ends_with_the_unroll_bootstraps_only_if_truncated(last_discount, expected):
    # V = (0, 0, 6): R_1 = 2 + γ · 6 = 5 or 2, R_0 = 1 + 0.5 R_1 = 3.5 or 2
    trajectory = one_environment([0, 1, 2], [1, 2], [0.5, last_discount], [True, False, False])
    _, gradients = tabular_loss(value_cost=1.0)(uniform_tables([0, 0, 6]), trajectory)
    np.testing.assert_allclose(gradients["values"], expected, rtol=1e-6)


def slow_returns(values, trajectory, lambda_):
    """λ-returns episode by episode; NaN for automatic resets."""
    returns = np.full(trajectory.rewards.shape, np.nan)
    num_steps, batch_size = trajectory.rewards.shape
    for b in range(batch_size):
        for t in reversed(range(num_steps)):
            if trajectory.is_first[t + 1, b]:
                continue  # no experience
            next_value = float(values[trajectory.observations[t + 1, b]])
            episode_goes_on = t + 1 < num_steps and not trajectory.is_first[t + 2, b]
            following = (
                (1 - lambda_) * next_value + lambda_ * returns[t + 1, b]
                if episode_goes_on
                else next_value
            )
            returns[t, b] = trajectory.rewards[t, b] + trajectory.discounts[t, b] * following
    return returns


LAMBDA = 0.8
mixed_loss = tabular_loss(lambda_=LAMBDA, value_cost=1.0)


@given(seed=seeds)
def test_value_gradient_is_value_minus_the_return_of_its_own_episode(seed):
    params, trajectory = random_tables(seed, NUM_STATES, A), random_trajectory(seed, T, B, A)
    _, gradients = mixed_loss(params, trajectory)
    returns = slow_returns(params["values"], trajectory, LAMBDA)
    expected = (params["values"][trajectory.observations[:-1]] - returns) / B
    expected = np.where(trajectory.is_first[1:], 0.0, expected)
    by_step = np.asarray(gradients["values"]).reshape(T + 1, B)
    np.testing.assert_allclose(by_step[:-1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(by_step[-1], np.zeros(B))  # bootstrap values are constants


@given(seed=seeds, reward=st.floats(-1e3, 1e3, width=32), discount=st.floats(0, 1, width=32))
def test_automatic_resets_never_influence_loss_metrics_or_gradients(seed, reward, discount):
    params, trajectory = random_tables(seed, NUM_STATES, A), random_trajectory(seed, T, B, A)
    is_reset = trajectory.is_first[1:]
    moved = trajectory._replace(
        rewards=np.where(is_reset, np.float32(reward), trajectory.rewards),
        discounts=np.where(is_reset, np.float32(discount), trajectory.discounts),
        actions=np.where(is_reset, (trajectory.actions + 1) % A, trajectory.actions),
    )
    chex.assert_trees_all_equal(mixed_loss(params, trajectory), mixed_loss(params, moved))


def test_automatic_resets_never_influence_a_recurrent_network():
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(T + 1, B, 5)).astype(np.float32)
    network = make_network("mlp_gru", A)
    params = random_params(network, observations)
    trajectory = random_trajectory(1, T, B, A)._replace(
        observations=observations, core_state=network.initial_state(B)
    )
    loss = jax.jit(jax.value_and_grad(make_a3c(network, lambda_=0.9).loss, has_aux=True))
    is_reset = trajectory.is_first[1:]
    assert np.any(is_reset)
    moved = trajectory._replace(
        rewards=np.where(is_reset, np.float32(50.0), trajectory.rewards),
        discounts=np.where(is_reset, np.float32(0.3), trajectory.discounts),
        actions=np.where(is_reset, (trajectory.actions + 1) % A, trajectory.actions),
    )
    chex.assert_trees_all_equal(
        loss(params, constants(), trajectory), loss(params, constants(), moved)
    )


def test_rewards_are_clipped_in_the_loss_only_where_asked_for():
    params, trajectory = random_tables(0, NUM_STATES, A), random_trajectory(0, T, B, A)
    raw = trajectory._replace(rewards=3.0 * trajectory.rewards)
    clipped = raw._replace(rewards=np.clip(raw.rewards, -1.0, 1.0))
    assert np.any(raw.rewards > 1) and np.any(raw.rewards < -1)  # noqa: PT018
    plain, clipping = tabular_loss(), tabular_loss(max_abs_reward=1.0)
    chex.assert_trees_all_close(clipping(params, raw), plain(params, clipped), rtol=1e-6)
    assert plain(params, raw)[0][0] != plain(params, clipped)[0][0]


@for_each("lambda_", [0.0, 0.7, 1.0])
def test_without_bootstrapping_returns_are_sums_of_rewards_whatever_lambda(lambda_):
    # V = (1, 2, 3, 4), r = (1, 2, 3), γ = 0.5: R_2 = 3, R_1 = 2 + 1.5, R_0 = 1 + 1.75
    trajectory = one_environment([0, 1, 2, 3], [1, 2, 3], [0.5] * 3, [True, False, False, False])
    loss_and_gradients = tabular_loss(lambda_=lambda_, bootstraps=False, value_cost=1.0)
    _, gradients = loss_and_gradients(uniform_tables([1, 2, 3, 4]), trajectory)
    np.testing.assert_allclose(gradients["values"], [-1.75, -1.5, 0.0, 0.0], rtol=1e-6)


def test_without_bootstrapping_returns_end_with_their_episode():
    # The step 1 → 2 truncates, 2 → 3 is an automatic reset: R_0 = 1 + 0.5 · 2, R_1 = 2, R_3 = 3.
    trajectory = one_environment(
        [0, 1, 2, 3, 4], [1, 2, 77, 3], [0.5] * 4, [True, False, False, True, False]
    )
    _, gradients = tabular_loss(bootstraps=False, value_cost=1.0)(
        uniform_tables([0, 0, 8, 100, 2]), trajectory
    )
    np.testing.assert_allclose(gradients["values"], [-2.0, -2.0, 0.0, 97.0, 0.0], rtol=1e-6)


def test_gaussian_policy_is_learned_from_its_density():
    # π(·|s) = N(0, 1) in two dimensions; a = (1, −2), R − V = 3: the gradient for the mean is
    # −A (a − μ)/σ² = (−3, 6).
    def apply(params, statistics, observations, is_first, core_state):
        mean = jnp.broadcast_to(params["mean"], (*is_first.shape, 2))
        policy = DiagonalGaussian(mean, jnp.ones((*is_first.shape, 1)))
        return NetworkOutput(policy, jnp.zeros(is_first.shape)), core_state

    agent = make_a3c(make_tabular_network()._replace(apply=apply))
    trajectory = one_environment([0, 1], [3], [0.0], [True, False])
    trajectory = trajectory._replace(actions=np.array([[[1.0, -2.0]]], np.float32))
    params = {"mean": jnp.zeros((1, 1, 2))}
    gradients, _ = jax.grad(agent.loss, has_aux=True)(params, constants(), trajectory)
    np.testing.assert_allclose(gradients["mean"], [[[-3.0, 6.0]]], rtol=1e-6)
    actions, _, _ = act(agent, params, constants(), timestep(np.zeros(B)))
    assert actions.shape == (B, 2)
    assert actions.dtype == jnp.float32
    best, _, _ = act(agent, params, constants(), timestep(np.zeros(B)), is_greedy=True)
    np.testing.assert_array_equal(best, np.zeros((B, 2)))


def test_hyperparameters_are_by_keyword_with_the_papers_defaults():
    parameters = inspect.signature(make_a3c).parameters
    defaults = {
        name: p.default
        for name, p in parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert defaults == {
        "lambda_": 1.0,
        "value_cost": 0.5,
        "entropy_cost": 0.01,
        "max_abs_reward": None,
        "bootstraps": True,
        "normalize_advantages": False,
    }


def decisive_tables():
    """State s prefers action s so much that nothing else is ever sampled."""
    return {"logits": 50.0 * jnp.eye(A), "values": jnp.zeros(A)}


def timestep(observation):
    zeros = np.zeros(len(observation), np.float32)
    return TimeStep(observation, zeros, zeros, np.zeros(len(observation), bool))


def test_actions_are_sampled_from_the_policy_of_each_observation():
    agent = make_a3c(make_tabular_network())
    states = np.array([2, 0, 1, 1], np.int32)
    actions, _, _ = act(agent, decisive_tables(), constants(), timestep(states))
    np.testing.assert_array_equal(actions, states)
    assert actions.dtype == jnp.int32
    uniform = {"logits": jnp.zeros((A, A)), "values": jnp.zeros(A)}
    actions, _, _ = act(agent, uniform, constants(), timestep(np.zeros(64, np.int32)))
    assert set(np.unique(actions)) == {0, 1, 2}


def test_greedy_actions_are_the_most_probable():
    agent = make_a3c(make_tabular_network())
    params = random_tables(0, A, A)
    actions, _, _ = act(agent, params, constants(), timestep(np.arange(A)), is_greedy=True)
    np.testing.assert_array_equal(actions, np.argmax(params["logits"], axis=-1))


def test_look_tells_policy_and_value_of_each_observation():
    params, states = random_tables(0, A, A), np.array([2, 0, 1, 1], np.int32)
    agent = make_a3c(make_tabular_network())
    output, _ = agent.look(params, constants(), timestep(states), ())
    np.testing.assert_array_equal(output.policy.logits, params["logits"][states])
    np.testing.assert_array_equal(output.values, params["values"][states])


def test_statistics_reach_the_network_when_acting_and_learning():
    agent = make_a3c(make_tabular_network())
    params = random_tables(0, NUM_STATES, A)
    statistics = ObservationStatistics(mean=np.zeros(()), scale=np.array(-1.0, np.float32))
    negated = {**params, "logits": -params["logits"]}
    now = timestep(np.arange(B))
    chex.assert_trees_all_equal(
        act(agent, params, constants(statistics), now, is_greedy=True),
        act(agent, negated, constants(), now, is_greedy=True),
    )
    trajectory, loss = random_trajectory(0, T, B, A), jax.jit(agent.loss)
    chex.assert_trees_all_close(
        loss(params, constants(statistics), trajectory),
        loss(negated, constants(), trajectory),
        rtol=1e-6,
    )


def test_acting_begins_an_episode_without_memory():
    network = make_network("mlp_gru", A)
    agent = make_a3c(network)
    observation = np.ones((B, 5), np.float32)
    params = random_params(network, observation[None])
    zeros = np.zeros(B, np.float32)
    is_first = np.array([True, False, True, False])
    now = TimeStep(observation, zeros, zeros, is_first)
    states = [np.full((B, 256), x, np.float32) for x in (0.0, 0.7)]
    after = [np.asarray(act(agent, params, constants(), now, state)[1]) for state in states]
    np.testing.assert_array_equal(np.all(after[0] == after[1], axis=-1), is_first)
