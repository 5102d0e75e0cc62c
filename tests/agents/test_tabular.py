"""Tables: one-step Q-learning with them is Watkins' own, and finds the values that are known."""

from typing import NamedTuple

import gymnasium
import jax
import numpy as np
import pytest

from a3cjax.agents import make_one_step_q, make_one_step_sarsa
from a3cjax.config.settings import Config
from a3cjax.envs.making import make_environments
from a3cjax.networks import make_network
from a3cjax.optimizers import make_optimizer
from a3cjax.parameters.shared import SharedParameters
from a3cjax.runs.loading import load
from a3cjax.training.run import train
from a3cjax.types import Exploration, LearnerState, Trajectory
from a3cjax.updates import make_apply_gradients, make_compute_gradients

S, A = 6, 3
LEARNING_RATE, DISCOUNT = 0.3, 0.95


# A matrix, step by step.


def make_table(head):
    network = make_network("tabular", A, head)
    return network, network.init(jax.random.key(0), np.zeros((1, 1, S), np.float32))


@pytest.mark.parametrize(
    ("head", "shapes"), [("action_values", [(S, A)]), ("actor_critic", [(S, A), (S, 1)])]
)
def test_table_has_a_row_for_each_state_and_nothing_else(head, shapes):
    network, params = make_table(head)
    leaves = jax.tree.leaves(params)
    assert [leaf.shape for leaf in leaves] == shapes
    states = np.array([[2, 0], [5, 5]])
    output, core_state = network.apply(
        params, None, np.eye(S, dtype=np.float32)[states], np.zeros((2, 2), bool), ()
    )
    rows = output if head == "action_values" else output.policy.logits
    np.testing.assert_array_equal(rows, leaves[0][states])
    if head == "actor_critic":
        np.testing.assert_array_equal(output.values, leaves[1][states, 0])
    assert core_state == ()


class Transition(NamedTuple):
    """One of a single environment; `next_action` is for Sarsa."""

    state: int
    action: int
    reward: float
    discount: float
    next_state: int
    next_action: int
    is_reset: bool


def random_transitions(seed, num):
    """Of a made-up environment; after a termination comes a reset."""
    rng = np.random.default_rng(seed)
    transitions, was_done, state, action = [], False, 0, 0
    for _ in range(num):
        next_state, next_action = int(rng.integers(S)), int(rng.integers(A))
        is_done = not was_done and rng.random() < 0.1
        discount = 0.0 if is_done else DISCOUNT
        reward = float(rng.normal())
        transitions.append(
            Transition(state, action, reward, discount, next_state, next_action, was_done)
        )
        was_done, state, action = is_done, next_state, next_action
    return transitions


def as_trajectory(transition, num_actions):
    """T = 1, B = 1."""

    def column(dtype, *values):
        return np.array(values, dtype)[:, None]

    states = [transition.state, transition.next_state]
    return Trajectory(
        observations=np.eye(S, dtype=np.float32)[states][:, None],
        actions=column(np.int32, transition.action, transition.next_action)[:num_actions],
        rewards=column(np.float32, transition.reward),
        discounts=column(np.float32, transition.discount),
        is_first=column(bool, False, transition.is_reset),
        core_state=(),
    )


@pytest.mark.parametrize("target_period", [1, 7])
@pytest.mark.parametrize("method", ["q_learning", "sarsa"])
def test_table_learns_exactly_as_the_textbook_does(method, target_period):
    make = {"q_learning": make_one_step_q, "sarsa": make_one_step_sarsa}[method]
    network, params = make_table("action_values")
    optimizer = make_optimizer("sgd", schedule=lambda frames: LEARNING_RATE, momentum=0.0)
    store = SharedParameters(
        LearnerState(params, optimizer.init(params), params),
        make_apply_gradients(optimizer),
        target_period_frames=target_period,
    )
    compute_gradients = make_compute_gradients(make(network))
    exploration = Exploration(np.ones(1, np.float32), np.float32(1.0))
    table = np.array(jax.tree.leaves(params)[0], float)
    target, num_frames, num_moved = table.copy(), 0, 0
    for transition in random_transitions(0, 300):
        snapshot = store.pull()
        trajectory = as_trajectory(transition, 1 if method == "q_learning" else 2)
        grads, _ = compute_gradients(snapshot, exploration, trajectory)
        store.push(grads, 0 if transition.is_reset else 1, snapshot.version)

        # Q(s, a) ← Q(s, a) + η [r + γ max Q⁻(s', ·) − Q(s, a)], or Q⁻(s', a') (Sutton & Barto
        # 2018, eq. 6.8 and 6.7); Q⁻ is Q where it follows every step.
        if not transition.is_reset:
            s, a, r, discount, next_s, next_a, _ = transition
            future = target[next_s, next_a] if method == "sarsa" else np.max(target[next_s])
            table[s, a] += LEARNING_RATE * (r + discount * future - table[s, a])
            num_frames += 1
            if num_frames % target_period == 0:
                num_moved += np.any(target != table)
                target = table.copy()
        actual = jax.tree.leaves(store.pull().params)[0]
        np.testing.assert_allclose(actual, table, rtol=1e-6, atol=1e-6)
    assert num_frames > 200
    assert num_moved == num_frames // target_period


# Known problems.


class Model(NamedTuple):
    """Probabilities `[S, A, S]`, rewards `[S, A, S]`, and which states are terminal, `[S]`."""

    probabilities: np.ndarray
    rewards: np.ndarray
    is_terminal: np.ndarray


def model_of(env_id):
    """Gymnasium's own transition table."""
    env = gymnasium.make(env_id).unwrapped
    num_states, num_actions = env.observation_space.n, env.action_space.n
    probabilities = np.zeros((num_states, num_actions, num_states))
    rewards, is_terminal = np.zeros_like(probabilities), np.zeros(num_states, bool)
    for state in range(num_states):
        for action in range(num_actions):
            for probability, next_state, reward, terminated in env.P[state][action]:
                probabilities[state, action, next_state] += probability
                rewards[state, action, next_state] = reward
                is_terminal[next_state] |= terminated
    return Model(probabilities, rewards, is_terminal)


def optimal_values(model, discount):
    """Q*, `[S, A]`, by value iteration."""
    expected_rewards = np.sum(model.probabilities * model.rewards, axis=-1)
    q = np.zeros(expected_rewards.shape)
    for _ in range(10_000):
        values = np.where(model.is_terminal, 0.0, np.max(q, axis=-1))
        new_q = expected_rewards + discount * model.probabilities @ values
        if np.max(np.abs(new_q - q)) < 1e-12:
            return new_q
        q = new_q
    raise AssertionError("value iteration did not converge")


FROZEN_LAKE = model_of("FrozenLake-v1")


def test_frozen_lake_of_envpool_is_gymnasiums():
    environments = make_environments("FrozenLake", num_envs=64, seed=0, discount=0.9)
    generator = np.random.default_rng(0)
    counts = np.zeros(FROZEN_LAKE.probabilities.shape)
    before = environments.reset()
    for _ in range(3000):
        actions = environments.sample_actions(generator)
        after = environments.step(actions)
        s, next_s = np.argmax(before.observation, axis=-1), np.argmax(after.observation, axis=-1)
        step = (s, actions, next_s)
        is_experience = ~after.is_first
        np.add.at(counts, tuple(x[is_experience] for x in step), 1)
        rewards = FROZEN_LAKE.rewards[step][is_experience]
        np.testing.assert_array_equal(after.reward[is_experience], rewards)
        has_ended = FROZEN_LAKE.is_terminal[next_s]
        np.testing.assert_array_equal(
            (after.discount == 0)[is_experience], has_ended[is_experience]
        )
        np.testing.assert_array_equal(next_s[after.is_first], 0)
        before = after
    environments.close()
    num_visits = np.sum(counts, axis=-1)
    assert np.all(num_visits[~FROZEN_LAKE.is_terminal] > 200)
    # What happens with probability 1/3 happens that often: standard deviations are at most
    # √(2/9 / 200) = 0.033, with 132 of them.
    frequencies = counts / np.maximum(num_visits, 1)[..., None]
    expected = np.where(FROZEN_LAKE.is_terminal[:, None, None], 0.0, FROZEN_LAKE.probabilities)
    np.testing.assert_allclose(frequencies, expected, atol=0.13)
    np.testing.assert_array_equal(counts > 0, expected > 0)


def test_frozen_lake_truncates_games_after_100_steps():
    environments = make_environments("FrozenLake", num_envs=64, seed=0, discount=0.9)
    policy = np.argmax(optimal_values(FROZEN_LAKE, 0.999), axis=-1).astype(np.int32)
    lengths, num_truncated, before = [], 0, environments.reset()
    for _ in range(300):
        after = environments.step(policy[np.argmax(before.observation, axis=-1)])
        num_truncated += np.sum(after.is_first & (before.discount > 0))
        lengths += [episode.episode_length for episode in environments.pop_episodes()]
        before = after
    environments.close()
    assert max(lengths) == gymnasium.spec("FrozenLake-v1").max_episode_steps == 100
    # Those that end at the 100th step for another reason are few.
    assert 0 < num_truncated <= lengths.count(100) <= 1.2 * num_truncated + 2


# Many environments at once are quick. The learning rate is divided by their number: in the
# 256 of FrozenLake below, every visit takes 4 / 256 of an error away, and 0 at last.
SETTINGS = {
    "algorithm": "one_step_q",
    "network": "tabular",
    "discount": DISCOUNT,
    "target_period_frames": 1000,
    "num_actors": 2,
    "warmup_steps": 1,
    "deterministic": True,
    "eval_episodes": 100,
    "checkpoint_period_frames": 10_000_000,
    "video": False,
}


def learn(tmp_path, **settings):
    """The table that a run leaves, `[S, A]`, and the mean score of its games."""
    run_dir = tmp_path / "run"
    summary = train(Config(run_dir=str(run_dir), **SETTINGS, **settings))
    (table,) = jax.tree.leaves(load(run_dir).snapshot.params)
    return np.asarray(table), summary.evaluation.mean


@pytest.mark.slow
def test_one_step_q_finds_the_values_of_frozen_lake(tmp_path):
    table, score = learn(
        tmp_path,
        env="FrozenLake",
        total_frames=600_000,
        exploration_frames=600_000,
        envs_per_actor=256,
        learning_rate=4.0,
    )
    expected = optimal_values(FROZEN_LAKE, DISCOUNT)
    errors = np.abs(table - expected)[~FROZEN_LAKE.is_terminal]
    # Values go up to 0.72.
    assert np.max(errors) < 0.05
    # Wandering at random finds the goal in one game out of 70.
    assert score > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "settings", "least"),
    [
        # Random play has a mean of -740, the best about 8.
        ("Taxi", {"total_frames": 250_000, "envs_per_actor": 128, "learning_rate": 25.0}, 0.0),
        # Random play has a mean of -49,000, the best is -13. With 0.05 of random actions whoever
        # walks along the cliff falls now and then, which costs 100.
        (
            "CliffWalking",
            {"total_frames": 100_000, "envs_per_actor": 64, "learning_rate": 4.0},
            -80.0,
        ),
    ],
)
def test_tables_learn_to_drive_and_to_walk(tmp_path, env, settings, least):
    half = settings["total_frames"] // 2
    _, score = learn(tmp_path, env=env, exploration_frames=half, **settings)
    assert score > least
