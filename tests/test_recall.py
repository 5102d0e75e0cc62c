"""Learning from the layer outputs of acting: the same gradients, and less to compute."""

import chex
import jax
import numpy as np
import pytest

from a3cjax.actors.programs import make_programs
from a3cjax.agents import make_a3c, make_n_step_q, make_one_step_sarsa
from a3cjax.convolutions import frames_to_blocks
from a3cjax.exploration import evaluation_exploration
from a3cjax.networks import make_network
from a3cjax.types import Constants, ObservationStatistics, Snapshot, TimeStep, Trajectory
from tests.cases import for_each
from tests.tabular import random_params

T, B, A = 6, 3, 4  # 21 observations: two chunks of 8 and five left


def random_images(seed=0, size=36):
    frames = np.random.default_rng(seed).integers(0, 256, ((T + 1) * B, 2, size, size), np.uint8)
    return frames_to_blocks(frames).reshape(T + 1, B, size // 4, size // 4, -1)


def random_observations(name):
    vectors = np.random.default_rng(2).normal(size=(T + 1, B, 5)).astype(np.float32)
    if name.startswith("multi"):
        return {"camera": random_images(), "map": random_images(1, 8), "vector": vectors}
    return random_images() if name.startswith(("atari", "nature", "small", "minatar")) else vectors


def random_trajectory(name, network, actions):
    rng = np.random.default_rng(3)
    return Trajectory(
        observations=random_observations(name),
        actions=actions,
        rewards=rng.normal(size=(T, B)).astype(np.float32),
        discounts=np.full((T, B), 0.9, np.float32),
        is_first=rng.random((T + 1, B)) < 0.2,
        core_state=network.initial_state(B),
    )


def make_case(name, make=make_a3c, head="actor_critic"):
    """An agent, its constants and parameters, and a trajectory as if it had acted."""
    network = make_network(name, A, head)
    is_gaussian = head.startswith("gaussian")
    rng = np.random.default_rng(4)
    actions = rng.normal(size=(T, B, A)) if is_gaussian else rng.integers(A, size=(T, B))
    actions = actions.astype(np.float32 if is_gaussian else np.int32)
    trajectory = random_trajectory(name, network, actions)
    params, target_params = (random_params(network, trajectory.observations, i) for i in (0, 1))
    statistics = None
    if not isinstance(trajectory.observations, dict):
        mean = trajectory.observations[0, 0].astype(np.float32)
        scale = np.float32(50) if mean.ndim == 3 else np.ones_like(mean)
        statistics = ObservationStatistics(mean, scale)
    constants = Constants(statistics, target_params, evaluation_exploration(B))
    return make(network), constants, params, trajectory


def observe_all(agent, params, constants, trajectory):
    """The trajectory with the layer outputs of acting, step by step."""
    observe, outputs = jax.jit(agent.observe), []
    for t in range(T + 1):
        observation = jax.tree.map(lambda x, t=t: x[t], trajectory.observations)
        nothing = np.zeros(B, np.float32)
        timestep = TimeStep(observation, nothing, nothing, trajectory.is_first[t])
        outputs.append(observe(params, constants, timestep))
    layer_outputs = jax.tree.map(lambda *x: np.stack(x), *outputs)
    return trajectory._replace(layer_outputs=layer_outputs)


@for_each(
    ("name", "make", "head"),
    [
        ("atari_ff", make_a3c, "actor_critic"),
        ("multi_gru", make_a3c, "actor_critic"),
        ("mlp_lstm", make_a3c, "gaussian_actor_critic"),
        ("small_gru", make_n_step_q, "action_values"),
    ],
)
def test_gradients_are_those_of_the_ordinary_pass(name, make, head):
    agent, constants, params, trajectory = make_case(name, make, head)
    differentiate = jax.jit(jax.value_and_grad(agent.loss, has_aux=True))
    recalling = observe_all(agent, params, constants, trajectory)
    chex.assert_trees_all_close(
        differentiate(params, constants, recalling),
        differentiate(params, constants, trajectory),
        rtol=1e-4,
        atol=1e-5,
    )


@for_each(
    ("name", "names"),
    [
        ("atari_ff", {"conv_0", "conv_1", "dense"}),
        ("nature_lstm", {"conv_0", "conv_1", "conv_2", "dense"}),
        ("small_ff", {"conv_0", "dense"}),
        ("mlp_ff", set()),
    ],
)
def test_each_layer_of_an_image_torso_is_kept_and_recalled(name, names):
    agent, constants, params, trajectory = make_case(name)
    recalling = observe_all(agent, params, constants, trajectory)
    paths = jax.tree_util.tree_flatten_with_path(recalling.layer_outputs)[0]
    assert {path[-1].key for path, _ in paths} == names
    gradient = jax.jit(jax.grad(agent.loss, has_aux=True))
    right = jax.tree.leaves(gradient(params, constants, recalling)[0])
    for i in range(len(paths)):  # what was kept is what learning goes by
        leaves = [leaf for _, leaf in paths]
        leaves[i] = 2 * leaves[i]
        structure = jax.tree.structure(recalling.layer_outputs)
        wrong = recalling._replace(layer_outputs=jax.tree.unflatten(structure, leaves))
        changed = jax.tree.leaves(gradient(params, constants, wrong)[0])
        assert any(not np.allclose(x, y) for x, y in zip(changed, right, strict=True))


def test_no_layer_is_computed_twice():
    agent, constants, params, trajectory = make_case("atari_ff")
    one = jax.tree.map(lambda x: x[:2, :1], trajectory.observations)  # XLA counts a loop once
    short = random_trajectory("atari_ff", make_network("atari_ff", A), np.zeros((1, 1), np.int32))
    rewards, discounts = short.rewards[:1, :1], short.discounts[:1, :1]
    short = short._replace(observations=one, rewards=rewards, discounts=discounts)
    short = short._replace(is_first=np.zeros((2, 1), bool))
    layer_outputs = jax.tree.map(
        lambda x: x[:2, :1], observe_all(agent, params, constants, trajectory).layer_outputs
    )

    def count(trajectory):
        gradient = jax.jit(jax.grad(agent.loss, has_aux=True))
        program = gradient.lower(params, constants, trajectory).compile()
        costs = program.cost_analysis()
        assert costs is not None
        return costs["flops"]

    # Forward, and backward for the kernels of three layers and the inputs of two.
    assert count(short._replace(layer_outputs=layer_outputs)) < 0.7 * count(short)


@pytest.mark.parametrize("name", ["atari_gru", "mlp_ff"])
def test_acting_keeps_what_it_acted_upon(name):
    agent, constants, params, trajectory = make_case(name)
    programs = make_programs(agent)
    snapshot = Snapshot(0, 0, params, constants.statistics)
    nothing = np.zeros(B, np.float32)
    timestep = TimeStep(trajectory.observations[1], nothing, nothing, trajectory.is_first[1])
    exploration = evaluation_exploration(B)
    arguments = (snapshot, exploration, timestep, trajectory.core_state, jax.random.key(0))
    *acted, kept = programs.act(*arguments)
    expected = observe_all(agent, params, constants, trajectory).layer_outputs
    expected = jax.tree.map(lambda x: x[1], expected)
    chex.assert_trees_all_close(kept, expected, rtol=1e-5, atol=1e-5)
    assert programs.observe_at is not None
    chex.assert_trees_all_close(
        programs.observe_at(snapshot, timestep), expected, rtol=1e-5, atol=1e-5
    )
    plain = make_programs(agent, recalls=False)
    *expected_acted, none = plain.act(*arguments)
    assert none is None
    assert plain.observe_at is None
    chex.assert_trees_all_close(acted[0], expected_acted[0])


def test_agent_that_acts_ahead_keeps_nothing():
    programs = make_programs(make_one_step_sarsa(make_network("atari_ff", A, "action_values")))
    assert programs.observe_at is None
