"""The laws of PPO and V-trace: what they make of a policy that is no longer the one that acted."""

import math

import chex
import jax
import numpy as np
import pytest

from a3cjax.actors.programs import make_programs
from a3cjax.agents import make_a3c, make_ppo, make_vtrace
from a3cjax.networks import make_network
from a3cjax.types import (
    Constants,
    Exploration,
    ObservationStatistics,
    Snapshot,
    is_experienced,
)
from tests.cases import for_each
from tests.tabular import make_tabular_network, random_params, random_tables, random_trajectory

T, B, A = 6, 4, 3
NUM_STATES = (T + 1) * B
CONSTANTS = Constants(None, None, Exploration(np.zeros(B, np.float32), np.float32(1)))
OFF_POLICY = {"ppo": make_ppo, "vtrace": make_vtrace}
SETTINGS = {
    "mixed": {"lambda_": 0.7, "max_abs_reward": 0.5},
    "normalised": {"lambda_": 0.9, "normalize_advantages": True},
    "whole episodes": {"lambda_": 0.7, "bootstraps": False},
}


def differentiate(agent, params, trajectory):
    """((loss, metrics), gradients)."""
    return jax.jit(jax.value_and_grad(agent.loss, has_aux=True))(params, CONSTANTS, trajectory)


def trajectory_with_all(seed):
    """With ends of all kinds, forbidden actions and idle steps."""
    trajectory = random_trajectory(seed, T, B, A)
    rng = np.random.default_rng([seed, 1])
    is_idle = (rng.random((T + 1, B)) < 0.3) & ~trajectory.is_first
    assert (is_idle[1:] & is_experienced(trajectory.is_first[:-1], is_idle[:-1])).any()
    masks = rng.random((T + 1, B, A)) < 0.7
    np.put_along_axis(masks[:-1], trajectory.actions[..., None], True, axis=-1)
    masks[-1] = True
    return trajectory._replace(is_idle=is_idle, action_masks=masks)


def stale(trajectory, log_probs):
    return trajectory._replace(behaviour_log_probs=np.asarray(log_probs, np.float32))


@pytest.mark.parametrize("name", OFF_POLICY)
def test_nothing_is_compiled_once_a_gradient_was_computed(name):
    # The others would push meanwhile, and what comes of it be late by hundreds of updates.
    agent, params = OFF_POLICY[name](make_tabular_network()), random_tables(0, NUM_STATES, A)
    num_traced = 0

    def loss(*arguments):
        nonlocal num_traced
        num_traced += 1
        return agent.loss(*arguments)

    programs = make_programs(agent._replace(loss=loss))
    arguments = Snapshot(0, 0, params), CONSTANTS.exploration
    trajectory = random_trajectory(0, T, B, A)
    programs.compute_gradients(*arguments, trajectory)
    assert num_traced == 2
    log_probs = programs.behave(*arguments, trajectory)
    programs.compute_gradients(*arguments, trajectory._replace(behaviour_log_probs=log_probs))
    assert num_traced == 2


@for_each("settings", SETTINGS.values())
@pytest.mark.parametrize("name", OFF_POLICY)
def test_without_staleness_the_program_is_that_of_a3c(name, settings):
    params, trajectory = random_tables(0, NUM_STATES, A), trajectory_with_all(0)
    network = make_tabular_network()
    programs = [
        str(jax.make_jaxpr(jax.grad(make(network, **settings).loss, has_aux=True))(*arguments))
        for make in (make_a3c, OFF_POLICY[name])
        for arguments in [(params, CONSTANTS, trajectory)]
    ]
    assert programs[0] == programs[1]


@for_each(
    ("network", "settings"),
    [*(("tabular", settings) for settings in SETTINGS.values()), ("mlp_gru", SETTINGS["mixed"])],
)
@pytest.mark.parametrize("name", OFF_POLICY)
def test_gradients_are_those_of_a3c_where_the_policy_is_that_which_acted(name, network, settings):
    trajectory = trajectory_with_all(1)
    if network == "tabular":
        network, params = make_tabular_network(), random_tables(1, NUM_STATES, A)
    else:
        network = make_network(network, A)
        observations = np.random.default_rng(1).normal(size=(T + 1, B, 5)).astype(np.float32)
        trajectory = trajectory._replace(
            observations=observations, core_state=network.initial_state(B)
        )
        params = random_params(network, observations)
    agent = OFF_POLICY[name](network, **settings)
    log_probs = jax.jit(agent.behave)(params, CONSTANTS, trajectory)
    (_, metrics), gradients = differentiate(agent, params, stale(trajectory, log_probs))
    (_, expected), of_a3c = differentiate(make_a3c(network, **settings), params, trajectory)
    chex.assert_trees_all_close(gradients, of_a3c, rtol=0, atol=1e-6)
    np.testing.assert_allclose(metrics.value_loss, expected.value_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.entropy, expected.entropy, rtol=1e-5)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_behaviour_is_the_probability_of_the_action_among_those_allowed(name):
    params, trajectory = random_tables(2, NUM_STATES, A), trajectory_with_all(2)
    agent = OFF_POLICY[name](make_tabular_network())
    weights = np.exp(params["logits"]).reshape(T + 1, B, A) * trajectory.action_masks
    probs = (weights / weights.sum(-1, keepdims=True))[:-1]
    expected = np.log(np.take_along_axis(probs, trajectory.actions[..., None], -1)[..., 0])
    log_probs = agent.behave(params, CONSTANTS, trajectory)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)
    assert make_a3c(make_tabular_network()).behave is None


@pytest.mark.parametrize("name", OFF_POLICY)
def test_behaviour_is_that_of_a_network_which_saw_centred_observations(name):
    params, trajectory = random_tables(4, NUM_STATES, A), random_trajectory(4, T, B, A)
    agent = OFF_POLICY[name](make_tabular_network())
    statistics = ObservationStatistics(np.zeros(()), np.float32(-1))  # turns logits around
    snapshot = Snapshot(0, 0, params, statistics)
    log_probs = make_programs(agent).behave(snapshot, CONSTANTS.exploration, trajectory)
    turned = {**params, "logits": -params["logits"]}
    expected = agent.behave(turned, CONSTANTS, trajectory)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_what_nobody_experienced_counts_for_nothing(name):
    params, trajectory = random_tables(3, NUM_STATES, A), trajectory_with_all(3)
    agent = OFF_POLICY[name](make_tabular_network(), lambda_=0.8)
    log_probs = np.log(np.random.default_rng(3).uniform(0.1, 1, (T, B)))
    nothing = trajectory.is_first[1:] | trajectory.is_idle[1:]
    assert nothing.any()
    results = [
        differentiate(agent, params, stale(trajectory, np.where(nothing, filler, log_probs)))
        for filler in (0.0, -50.0, np.nan)
    ]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[0]))
    chex.assert_trees_all_equal(*results)


# PPO.


def test_clipped_ratios_have_no_gradient_and_others_that_of_their_ratio():
    clip, gamma, log_2 = 0.3, 0.5, math.log(2.0)
    # V = 0, λ = 0: A = r. π(0) = ½, and μ(0) = ½ / ratio.
    ratios = np.array([[1.5, 1.5, 0.5, 0.5, 1.2, 0.8]]).T
    rewards = np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]], np.float32).T
    is_clipped = np.array([[True, False, False, True, False, False]]).T
    trajectory = random_trajectory(0, T, 1, 2)._replace(
        actions=np.zeros((T, 1), np.int32),
        rewards=rewards,
        discounts=np.full((T, 1), gamma, np.float32),
        is_first=np.zeros((T + 1, 1), bool),
    )
    params = {"logits": np.zeros((T + 1, 2), np.float32), "values": np.zeros(T + 1, np.float32)}
    agent = make_ppo(make_tabular_network(), lambda_=0.0, entropy_cost=0.0, clip_ratio=clip)
    trajectory = stale(trajectory, -log_2 - np.log(ratios))
    (_, metrics), gradients = differentiate(agent, params, trajectory)
    by_logit = np.where(is_clipped, 0.0, -0.5 * ratios * rewards)  # of action 0: (π − 1) r A
    np.testing.assert_allclose(gradients["logits"][:-1, :1], by_logit, atol=1e-6)
    surrogate = np.minimum(ratios * rewards, np.clip(ratios, 0.7, 1.3) * rewards)
    np.testing.assert_allclose(metrics.policy_loss, -surrogate.mean(), rtol=1e-5)
    np.testing.assert_allclose(gradients["values"][:-1], -0.5 * rewards[:, 0], rtol=1e-6)


def test_values_and_advantages_of_ppo_are_those_of_the_newest_parameters():
    trajectory = stale(random_trajectory(4, T, B, A), np.full((T, B), -1.0))
    for seed in (4, 5):
        params = random_tables(seed, NUM_STATES, A)
        _, gradients = differentiate(make_ppo(make_tabular_network()), params, trajectory)
        _, expected = differentiate(make_a3c(make_tabular_network()), params, trajectory)
        np.testing.assert_allclose(gradients["values"], expected["values"], atol=1e-6)
        assert not np.allclose(gradients["logits"], expected["logits"], atol=1e-2)


# V-trace.


def stale_unroll(observations, rewards, discounts, is_first, ratios):
    """Of one environment that took action 0, which has π = ½, with these π/μ."""

    def column(values, dtype):
        return np.array(values, dtype)[:, None]

    trajectory = random_trajectory(0, len(rewards), 1, 2)._replace(
        observations=column(observations, np.int32),
        actions=column([0] * len(rewards), np.int32),
        rewards=column(rewards, np.float32),
        discounts=column(discounts, np.float32),
        is_first=column(is_first, bool),
    )
    return stale(trajectory, column(np.log(0.5 / np.array(ratios)), np.float32))


def vtrace_gradients(values, trajectory, **settings):
    tables = {
        "logits": np.zeros((len(values), 2), np.float32),
        "values": np.array(values, np.float32),
    }
    agent = make_vtrace(make_tabular_network(), value_cost=1.0, **settings)
    _, gradients = differentiate(agent, tables, trajectory)
    return gradients


def test_vtrace_of_a_stale_hand_example():
    # V = (1, 2, 4), r = (1, 2), γ = ½, π/μ = (2, ½), so ρ = c = (1, ½):
    # δ_1 = 2 + ½ · 4 − 2 = 2, v_1 = 2 + ½ · 2 = 3, A_1 = ½ · 2 = 1
    # δ_0 = 1 + ½ · 2 − 1 = 1, v_0 = 1 + 1 + ½ (3 − 2) = 2.5, A_0 = 1 + ½ · 3 − 1 = 1.5
    trajectory = stale_unroll([0, 1, 2], [1, 2], [0.5, 0.5], [True, False, False], [2.0, 0.5])
    gradients = vtrace_gradients([1, 2, 4], trajectory)
    np.testing.assert_allclose(gradients["values"], [-1.5, -1.0, 0.0], rtol=1e-6)
    # (π − 1) A of action 0; the entropy of a uniform policy is at its maximum.
    expected = [[-0.75, 0.75], [-0.5, 0.5], [0.0, 0.0]]
    np.testing.assert_allclose(gradients["logits"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("bootstraps", "expected"),
    [
        # Truncated at s_2, whose value ends the return: v_1 = ½ (2 + ½ · 8) = 3 as V = 0 there,
        # v_0 = 1 + ½ · 3 = 2.5. The next game: v_3 = 3 + ½ · 2 = 4.
        (True, [-2.5, -3.0, 0.0, 96.0, 0.0]),
        # Sums of rewards: v_1 = ½ · 2 = 1, v_0 = 1 + ½ · 1 = 1.5, v_3 = 3.
        (False, [-1.5, -1.0, 0.0, 97.0, 0.0]),
    ],
)
def test_corrections_end_with_their_episode(bootstraps, expected):
    trajectory = stale_unroll(
        observations=[0, 1, 2, 3, 4],
        rewards=[1, 2, 77, 3],
        discounts=[0.5, 0.5, 0.5, 0.5],
        is_first=[True, False, False, True, False],
        ratios=[1.0, 0.5, 0.1, 1.0],
    )
    gradients = vtrace_gradients([0, 0, 8, 100, 2], trajectory, bootstraps=bootstraps)
    np.testing.assert_allclose(gradients["values"], expected, rtol=1e-6)
