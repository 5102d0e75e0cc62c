"""Steps at which nothing happened are as if they were not there."""

import jax
import numpy as np
import pytest

from a3cjax.agents import ALGORITHMS
from a3cjax.networks import make_network
from a3cjax.types import Constants, Exploration, Trajectory

T, B, OBSERVATION = 6, 1, (3,)


def make_trajectory(acts_ahead):
    """An episode that is truncated after four steps, its reset, and the next one's first step."""
    generator = np.random.default_rng(0)
    return Trajectory(
        observations=generator.normal(size=(T + 1, B, *OBSERVATION)).astype(np.float32),
        actions=generator.integers(2, size=(T + acts_ahead, B)).astype(np.int32),
        rewards=generator.normal(size=(T, B)).astype(np.float32),
        discounts=np.full((T, B), 0.9, np.float32),
        is_first=np.arange(T + 1)[:, None] == 5,
        core_state=(),
    )


def with_idle_step(trajectory, index):
    """The same, after timestep `index` another one that repeats it; its action had no effect."""

    def insert(values, at, value):
        return np.insert(values, at, value, axis=0)

    idle = np.zeros((T + 1, B), bool)
    return trajectory._replace(
        observations=insert(trajectory.observations, index, trajectory.observations[index]),
        # At the first one the action is idle; the one that was taken comes after it.
        actions=insert(trajectory.actions, index, 1),
        rewards=insert(trajectory.rewards, index, 0),
        discounts=insert(trajectory.discounts, index, 1),
        is_first=insert(trajectory.is_first, index + 1, False),
        is_idle=insert(idle, index + 1, True),
    )


@pytest.mark.parametrize("name", ["a3c", "n_step_q", "one_step_q", "ppo", "vtrace"])
def test_gradient_is_that_without_idle_steps(name):
    algorithm = ALGORITHMS[name]
    network = make_network("mlp_ff", 2, algorithm.head)
    settings = {"lambda_": 0.7} if name != "one_step_q" else {}
    agent = algorithm.make(network, **settings)
    params = agent.init(jax.random.key(0), np.zeros((1, 1, *OBSERVATION), np.float32))
    constants = Constants(None, params, Exploration(np.zeros(B, np.float32), np.float32(1.0)))
    gradient = jax.jit(jax.grad(agent.loss, has_aux=True))
    trajectory = make_trajectory(agent.acts_ahead)
    if agent.behave is not None:  # at other parameters
        log_probs = np.log(np.random.default_rng(1).uniform(0.3, 1, (T, B))).astype(np.float32)
        trajectory = trajectory._replace(behaviour_log_probs=log_probs)
    expected, metrics = gradient(params, constants, trajectory)
    assert max(float(abs(x).max()) for x in jax.tree.leaves(expected)) > 0.01
    for index in range(5):
        longer = with_idle_step(trajectory, index)
        if agent.behave is not None:
            longer = longer._replace(behaviour_log_probs=np.insert(log_probs, index, -3.0, axis=0))
        idle, idle_metrics = gradient(params, constants, longer)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), idle, expected)
        np.testing.assert_allclose(idle_metrics, metrics, rtol=1e-5)
