"""The laws of trajectories: what is stacked, whole episodes, and what learning sees of them."""

import itertools
import threading
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.programs import make_programs
from a3cjax.actors.trajectories import keep_first_episodes, stack
from a3cjax.agents import make_a3c, make_n_step_q, make_one_step_sarsa
from a3cjax.networks import make_network
from a3cjax.parameters.shared import Receipt
from a3cjax.types import Constants, Exploration, QMetrics, Snapshot, TimeStep
from a3cjax.updates import GradientMetrics
from tests.cases import for_each
from tests.fakes import FakeEnvironments
from tests.tabular import make_tabular_network, random_params, random_tables, random_trajectory

B, A = 4, 3
MAX_LENGTH = 9
seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, MAX_LENGTH)


def test_stacked_are_all_timesteps_but_what_led_to_the_first():
    timesteps = [
        TimeStep(
            observation=np.full((2, 3), t, np.float32),
            reward=np.array([t, -t], np.float32),
            discount=np.full(2, 0.1 * t, np.float32),
            is_first=np.array([t == 0, t == 1]),
            action_mask=np.array([[t < 2, True], [True, False]]),
        )
        for t in range(3)
    ]
    actions = [np.array([t, 7], np.int32) for t in range(2)]
    trajectory = stack(timesteps, actions, "core")
    assert trajectory.observations.shape == (3, 2, 3)
    np.testing.assert_array_equal(trajectory.observations[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(trajectory.rewards, [[1, -1], [2, -2]])
    np.testing.assert_allclose(trajectory.discounts[:, 0], [0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(trajectory.is_first, [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(trajectory.actions, [[0, 7], [1, 7]])
    assert trajectory.core_state == "core"
    np.testing.assert_array_equal(trajectory.action_masks[:, 0, 0], [1, 1, 0])
    dtypes = [leaf.dtype for leaf in trajectory if isinstance(leaf, np.ndarray)]
    assert dtypes == [np.float32, np.int32, np.float32, np.float32, bool, bool]
    unmasked = [timestep._replace(action_mask=None) for timestep in timesteps]
    assert stack(unmasked, actions, "core").action_masks is None
    assert not any(np.shares_memory(trajectory.observations, t.observation) for t in timesteps)


# Whole episodes.


class Episodes(NamedTuple):
    """Random whole episodes, and for each environment the number of steps of its first one."""

    trajectory: object
    first_lengths: list[int]


def random_episodes(seed, num_steps, acts_ahead=False):
    """As an actor-learner brings them: all begin at once, and the last one ends with a reset."""
    rng = np.random.default_rng([seed, 4])
    trajectory = random_trajectory(seed, num_steps, B, A)
    is_first = trajectory.is_first.copy()
    is_first[0], is_first[1] = True, False
    is_first[-1, 0] = True
    actions = rng.integers(0, A, size=(num_steps + acts_ahead, B)).astype(np.int32)
    masks = rng.random((num_steps + 1, B, A)) < 0.5
    trajectory = trajectory._replace(actions=actions, is_first=is_first, action_masks=masks)
    resets = [np.flatnonzero(is_first[1:, b]) for b in range(B)]
    first_lengths = [int(r[0]) if len(r) else num_steps for r in resets]
    return Episodes(trajectory, first_lengths)


@given(seed=seeds, num_steps=lengths)
def test_experience_is_the_first_episode_of_each_environment(seed, num_steps):
    trajectory, first_lengths = random_episodes(seed, num_steps)
    is_experience = ~keep_first_episodes(trajectory).is_first[1:]
    for b, length in enumerate(first_lengths):
        assert is_experience[:length, b].all()
        assert not is_experience[length:, b].any()


@given(seed=seeds, num_steps=lengths)
def test_what_was_played_stays_as_it_was(seed, num_steps):
    trajectory, _ = random_episodes(seed, num_steps)
    before = jax.tree.map(np.copy, trajectory)
    kept = keep_first_episodes(trajectory)
    chex.assert_trees_all_equal(trajectory, before)  # and so does what was given
    for name in ("observations", "actions", "rewards", "discounts", "action_masks"):
        given_, kept_ = getattr(trajectory, name), getattr(kept, name)
        np.testing.assert_array_equal(kept_[: len(given_)], given_)
        assert kept_.dtype == given_.dtype
    np.testing.assert_array_equal(kept.is_first[0], trajectory.is_first[0])
    assert kept.is_first.dtype == bool
    assert kept.core_state is trajectory.core_state


@for_each("acts_ahead", [False, True])
@for_each(("num_steps", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16)])
def test_length_grows_to_a_power_of_two_with_steps_that_are_no_experience(
    num_steps, padded, acts_ahead
):
    trajectory, _ = random_episodes(0, num_steps, acts_ahead)
    kept = keep_first_episodes(trajectory)
    assert kept.rewards.shape == kept.discounts.shape == (padded, B)
    assert kept.actions.shape == (padded + acts_ahead, B)
    assert kept.observations.shape == kept.is_first.shape == (padded + 1, B)
    assert kept.is_first[num_steps + 1 :].all()


def make_constants(target_params=None):
    return Constants(None, target_params, Exploration(np.full(B, 0.1, np.float32), np.float32(1)))


def mark(trajectory):
    """What `keep_first_episodes` marks, without the padding."""
    marked = keep_first_episodes(trajectory)
    return trajectory._replace(is_first=marked.is_first[: len(trajectory.is_first)])


@pytest.mark.parametrize("bootstraps", [True, False])
def test_padding_changes_neither_loss_nor_metrics_nor_gradients(bootstraps):
    num_steps = 5
    trajectory, _ = random_episodes(1, num_steps)
    params = random_tables(0, (num_steps + 1) * B, A)
    agent = make_a3c(make_tabular_network(), lambda_=0.9, bootstraps=bootstraps)
    loss = jax.jit(jax.value_and_grad(agent.loss, has_aux=True))
    padded, unpadded = keep_first_episodes(trajectory), mark(trajectory)
    assert (len(padded.rewards), len(unpadded.rewards)) == (8, 5)
    chex.assert_trees_all_close(
        loss(params, make_constants(), padded),
        loss(params, make_constants(), unpadded),
        rtol=1e-6,
        atol=1e-7,
    )


def test_padding_changes_nothing_for_a_recurrent_network_of_action_values():
    trajectory, _ = random_episodes(1, 5)
    network = make_network("mlp_gru", A, "action_values")
    observations = np.random.default_rng(0).normal(size=(6, B, 2)).astype(np.float32)
    trajectory = trajectory._replace(observations=observations, core_state=network.initial_state(B))
    params, target_params = (random_params(network, observations, seed) for seed in (0, 1))
    constants = make_constants(target_params)
    loss = jax.jit(jax.value_and_grad(make_n_step_q(network, bootstraps=False).loss, has_aux=True))
    chex.assert_trees_all_close(
        loss(params, constants, keep_first_episodes(trajectory)),
        loss(params, constants, mark(trajectory)),
        rtol=1e-5,
        atol=1e-6,
    )


# Inside an actor-learner.


class StillStore:
    """A store whose parameters never change; it stops the run after some updates."""

    def __init__(self, params, num_updates, stop_event):
        self._snapshot = Snapshot(0, 0, params)
        self._num_updates = num_updates
        self._stop_event = stop_event
        self.pushed_frames = []

    def pull(self):
        return self._snapshot

    def push(self, grads, num_frames, version, actor_index=0, seen=None):
        self.pushed_frames.append(num_frames)
        if len(self.pushed_frames) == self._num_updates:
            self._stop_event.set()
        return Receipt(0, sum(self.pushed_frames), 0, 0.0, 0.0)


def unroll(agent, params, environments, *, num_updates, unroll_length):
    """The trajectories of an actor-learner that never explores, and its store."""
    trajectories, stop_event, num_envs = [], threading.Event(), environments.num_envs
    store = StillStore(params, num_updates, stop_event)

    def compute_gradients(snapshot, exploration, trajectory):
        trajectories.append(trajectory)
        return "grads", GradientMetrics(QMetrics(0, 0, 0), 0)

    core_state = agent.initial_state(num_envs)
    ActorLearner(
        0,
        make_programs(agent)._replace(compute_gradients=compute_gradients),
        environments,
        store,
        Standing(environments.reset(), core_state, None, jax.random.key(0), np.zeros(num_envs)),
        explore=lambda num_frames: Exploration(np.zeros(num_envs, np.float32), np.float32(1)),
        unroll_length=unroll_length,
        total_frames=10**9,
        report=lambda report: None,
    ).run(stop_event)
    return trajectories, store


class Wave(FakeEnvironments):
    """Observations that tell little alone, and differ between environments; -5 after a reset."""

    def reset(self):
        first = super().reset()
        return first._replace(observation=np.full_like(first.observation, -5.0))

    def timestep(self, t):
        phases = np.arange(self.num_envs, dtype=np.float32)[:, None]
        return super().timestep(t)._replace(observation=np.sin(t + phases))


@pytest.mark.parametrize("make", [make_n_step_q, make_one_step_sarsa])
def test_learning_sees_what_acting_saw(make):
    # Without exploration every action is the best one that a network of memory knows; learning
    # finds the same ones best, from the core state that the trajectory tells.
    network = make_network("mlp_lstm", A, "action_values")
    params = random_params(network, np.zeros((1, 1, 1), np.float32))
    environments = Wave(num_envs=B, num_actions=A, first={2: [1], 6: [0, 3], 7: [2], 9: [1]})
    trajectories, _ = unroll(make(network), params, environments, num_updates=4, unroll_length=3)
    apply, chosen = jax.jit(network.apply), []
    for trajectory in trajectories:
        q_values, _ = apply(
            params, None, trajectory.observations, trajectory.is_first, trajectory.core_state
        )
        best = np.argmax(q_values, axis=-1)
        np.testing.assert_array_equal(trajectory.actions, best[: len(trajectory.actions)])
        chosen.append(trajectory.actions)
    for leaf in jax.tree.leaves(trajectories[1].core_state):
        assert np.any(leaf != 0)
    if make is make_one_step_sarsa:
        for before, after in itertools.pairwise(chosen):
            np.testing.assert_array_equal(before[-1], after[0])
        chosen = [actions[:-1] for actions in chosen]
    # The environments were given every action once, in order.
    np.testing.assert_array_equal(np.concatenate(chosen), np.stack(environments.actions))
    assert len(np.unique(np.concatenate(chosen))) > 1


@pytest.mark.parametrize("make", [make_n_step_q, make_one_step_sarsa])
def test_whole_episodes_are_seen_from_their_beginning(make):
    network = make_network("mlp_lstm", A, "action_values")
    params = random_params(network, np.zeros((1, 1, 1), np.float32))
    tape = []
    first = {2: [0], 4: [0, 1, 3], 5: [2], 7: [0, 1, 2], 8: [3]}
    environments = Wave(num_envs=B, num_actions=A, first=first, frames_per_step=4, tape=tape)
    trajectories, store = unroll(
        make(network), params, environments, num_updates=2, unroll_length=None
    )
    names = [entry[0] for entry in tape]
    # The first reset is that of whoever made the environments.
    assert names[1:] == ["reset", *["step"] * 5, "reset", *["step"] * 3]
    # The last to end an episode is reset at steps 5 and 8, three steps later.
    assert [len(trajectory.rewards) for trajectory in trajectories] == [8, 4]
    # Real steps: 20 of which 5 are resets, 12 of which 4 are.
    assert store.pushed_frames == [4 * 15, 4 * 8]
    apply = jax.jit(network.apply)
    for trajectory in trajectories:
        assert trajectory.is_first[0].all()
        q_values, _ = apply(
            params, None, trajectory.observations, trajectory.is_first, trajectory.core_state
        )
        is_experience = ~trajectory.is_first[1:]
        num_steps = len(trajectory.rewards)
        best = np.argmax(q_values, axis=-1)[:num_steps]
        actions = trajectory.actions[:num_steps]
        np.testing.assert_array_equal(actions[is_experience], best[is_experience])
        np.testing.assert_array_equal(
            np.sum(is_experience, axis=0), [1, 3, 4, 3] if num_steps == 8 else [1, 1, 1, 2]
        )
