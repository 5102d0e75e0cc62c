import contextlib
import functools
import itertools
import types
import warnings
from collections.abc import Callable
from typing import Any

import envpool
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.config import builders
from a3cjax.config.settings import Config
from a3cjax.convolutions import frames_to_blocks
from a3cjax.envs import making
from a3cjax.envs.actions import make_check
from a3cjax.envs.base import Episode
from a3cjax.envs.batches import AnswerError, VectorEnvironments
from a3cjax.envs.making import canonical_name, make_environments, resolve_envpool_id
from a3cjax.errors import ConfigError
from a3cjax.training import assembly
from tests.cases import for_each
from tests.fakes import DISCOUNT, PoolStep, ScriptedPool

NO, YES = [False], [True]


def behind(pool, **kwargs) -> VectorEnvironments:
    arguments = {"discount": DISCOUNT, "frames_per_step": 1, "is_atari": False, **kwargs}
    return VectorEnvironments("Scripted", pool, **arguments)


def play(environments, num_steps, actions=None):
    """The timesteps after each of `num_steps` steps."""
    if actions is None:
        actions = itertools.repeat(np.zeros(environments.num_envs, np.int32))
    return [environments.step(action) for action, _ in zip(actions, range(num_steps), strict=False)]


def play_randomly(environments, num_steps):
    """The timesteps after each of `num_steps` random steps."""
    generator = np.random.default_rng(0)
    return [environments.step(environments.sample_actions(generator)) for _ in range(num_steps)]


def column(timesteps, field):
    """A field over time, `[T, B]`."""
    return np.stack([getattr(timestep, field) for timestep in timesteps])


def make_pool(env_id, **kwargs):
    """An envpool as it comes, without a3cjax around it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pool = envpool.make(env_id, env_type="gymnasium", num_threads=1, **kwargs)
        pool.observation_space, pool.action_space  # noqa: B018 - computing them warns
    return pool


# Scripted pools: what a reset one step late, a lost life and a time limit become.


def test_reset_is_first_everywhere():
    timestep = behind(ScriptedPool([], num_envs=3)).reset()
    np.testing.assert_array_equal(timestep.is_first, [True, True, True])
    np.testing.assert_array_equal(timestep.reward, [0, 0, 0])


@for_each(
    "actions",
    [
        *([0, 1], [], [0, 1, 0, 1, 0], [[0], [1], [0]], 0, None),
        *([0, 2, 1], [0, -1, 1], [0.9, 0.0, 1.0], [np.nan] * 3),
    ],
)
@for_each("env", ["CartPole", "gymnasium:CartPole-v1"])
def test_actions_that_are_none_are_refused_before_they_are_taken(env, actions):
    environments = make_environments(env, num_envs=3, seed=1, discount=DISCOUNT)
    with contextlib.closing(environments):
        environments.step([0, 1, np.int64(1)])
        with pytest.raises(
            ValueError, match=r"^actions must be int \[3\] from 0 on, below 2, got "
        ):
            environments.step(actions)
        assert environments.step(np.array([True, False, True])).reward.tolist() == [1, 1, 1]


def test_actions_of_other_kinds_are_refused_as_well():
    check = make_check(MultiDiscrete([2, 3]), 2)
    np.testing.assert_array_equal(check([[1, 2], [0, 0]]), [[1, 2], [0, 0]])
    for wrong in ([[2, 0], [0, 0]], [[1, 3], [0, 0]], [1, 2]):
        with pytest.raises(ValueError, match=r"^actions must be int \[2, 2\] .* below 2 3, got "):
            check(wrong)
    check = make_check(Box(-1, 1, (2, 2)), 1)
    for fine in ([[9, -9, np.inf, 0]], [[[9, -9], [np.inf, 0]]]):
        np.testing.assert_array_equal(check(fine), [[9, -9, np.inf, 0]])
    for wrong in ([[0, 0, np.nan, 0]], [[0, 0]], [[[0, 0]]], ["left"]):
        with pytest.raises(
            ValueError, match=r"^actions must be float \[1, 4\] that are not NaN, got"
        ):
            check(wrong)


def test_termination_cuts_the_discount_and_the_next_step_is_first():
    script = [
        PoolStep([100.0], terminated=NO),
        PoolStep([-7.5], terminated=YES),
        PoolStep([0.0]),  # the action is ignored; the first observation comes
        PoolStep([3.0]),
    ]
    environments = behind(ScriptedPool(script))
    timesteps = play(environments, 4)
    np.testing.assert_array_equal(column(timesteps, "is_first")[:, 0], [False, False, True, False])
    np.testing.assert_allclose(column(timesteps, "discount")[[0, 1, 3], 0], [0.9, 0.0, 0.9])
    np.testing.assert_array_equal(column(timesteps, "reward")[:, 0], [100, -7.5, 0, 3])  # raw
    assert environments.pop_episodes() == [Episode(0, 92.5, 2)]
    assert environments.pop_episodes() == []


def test_lost_life_ends_the_training_episode_but_not_the_game():
    script = [
        PoolStep([1.0]),
        PoolStep([2.0], terminated=YES, game_over=NO),  # a life
        PoolStep([0.0]),
        PoolStep([4.0]),
        PoolStep([8.0], terminated=YES, game_over=YES),  # the last life
        PoolStep([0.0]),
        PoolStep([16.0]),
    ]
    environments = behind(ScriptedPool(script, counts_lives=True), is_atari=True)
    timesteps = play(environments, 7)
    first = column(timesteps, "is_first")[:, 0]
    np.testing.assert_array_equal(first, [False, False, True, False, False, True, False])
    np.testing.assert_allclose(column(timesteps, "discount")[[1, 4], 0], [0.0, 0.0])
    assert environments.pop_episodes() == [Episode(0, 15.0, 4)]


def test_reset_drops_running_games():
    script = [PoolStep([5.0]), PoolStep([1.0], terminated=YES)]
    environments = behind(ScriptedPool(script))
    play(environments, 1)
    environments.reset()  # the script starts again, too
    play(environments, 2)
    assert environments.pop_episodes() == [Episode(0, 6.0, 2)]
    assert environments.reset().is_first.all()
    assert not play(environments, 1)[0].is_first.any()


@st.composite
def scripts(draw):
    """Whatever a pool of two environments may answer over a dozen steps."""
    num_envs, num_steps = 2, 12

    def flags(p):
        return [draw(st.integers(0, 9)) < p for _ in range(num_envs)]

    steps = []
    for _ in range(num_steps):
        terminated = flags(3)
        over = [end and here for end, here in zip(terminated, flags(5), strict=True)]
        rewards = [float(draw(st.integers(-9, 9))) for _ in range(num_envs)]
        steps.append(PoolStep(rewards, terminated, flags(2), over))
    return steps


def expected_play(steps, i, counts_lives):
    """One environment, step by step, as the docstrings have it."""
    is_first, discounts, episodes = [], [], []
    was_done, total, length = False, 0.0, 0
    for step in steps:
        is_first.append(was_done)
        if was_done:  # an automatic reset: nothing of it counts
            discounts.append(None)
            was_done = False
            continue
        total, length = total + step.rewards[i], length + 1
        discounts.append(0.0 if step.terminated[i] else DISCOUNT)
        was_done = step.terminated[i] or step.truncated[i]
        is_over = step.game_over[i] if counts_lives else step.terminated[i]
        if is_over or step.truncated[i]:
            episodes.append(Episode(i, total, length))
            total, length = 0.0, 0
    return is_first, discounts, episodes


@given(scripts(), st.booleans())
def test_any_play_agrees_with_one_environment_at_a_time(steps, counts_lives):
    # Others may say something of lives, too, but only Atari games are read by it.
    pool = ScriptedPool(steps, num_envs=2, counts_lives=True)
    environments = behind(pool, is_atari=counts_lives)
    timesteps = play(environments, len(steps))
    episodes = environments.pop_episodes()
    for i in range(2):
        is_first, discounts, expected = expected_play(steps, i, counts_lives)
        assert column(timesteps, "is_first")[:, i].tolist() == is_first
        for discount, wanted in zip(column(timesteps, "discount")[:, i], discounts, strict=True):
            assert wanted is None or discount == np.float32(wanted)
        assert [e for e in episodes if e.environment_index == i] == expected


# Observations: layouts, and arrays of their own.

BYTES = gymnasium.spaces.Box(0, 255, (2, 8, 12), np.uint8)
BYTES_LAST = gymnasium.spaces.Box(0, 255, (8, 12, 3), np.uint8)
NUMBERS = gymnasium.spaces.Box(-1, 1, (2, 3), np.float64)
SHORT_NUMBERS = gymnasium.spaces.Box(-1, 1, (2, 3), np.float32)
STATES = gymnasium.spaces.Discrete(5)
PARTS = gymnasium.spaces.Dict({"one": NUMBERS, "more": gymnasium.spaces.Dict({"b": BYTES_LAST})})


def numbered(space) -> Callable[[int], Any]:
    """Observation t of a space: values that are all different, and different at each t."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts = {key: numbered(part) for key, part in space.spaces.items()}
        return lambda t: {key: part(t) for key, part in parts.items()}
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda t: t % int(space.n)
    size = int(np.prod(space.shape))
    return lambda t: ((np.arange(size) + 7 * t) % 251).reshape(space.shape)


@for_each("space", [BYTES, BYTES_LAST, NUMBERS, SHORT_NUMBERS, STATES, PARTS])
def test_observations_stay_as_they_were(space):
    pool = ScriptedPool(
        [PoolStep([0.0, 0.0])] * 3,
        num_envs=2,
        observation_space=space,
        make_observation=numbered(space),
    )
    environments = behind(pool)
    seen = [environments.reset().observation]
    copies = [jax.tree.map(np.copy, seen[0])]
    for timestep in play(environments, 3):
        seen.append(timestep.observation)
        copies.append(jax.tree.map(np.copy, timestep.observation))
    for observation, copy in zip(seen, copies, strict=True):
        jax.tree.map(np.testing.assert_array_equal, observation, copy)
    for pair in itertools.combinations(seen, 2):
        for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
            assert not np.shares_memory(one, other)
            assert not np.array_equal(one, other)


def test_discrete_observations_become_one_hot():
    pool = ScriptedPool(
        [PoolStep([0.0])] * 5, observation_space=STATES, make_observation=lambda t: [0, 3, 4][t]
    )
    environments = behind(pool)
    assert environments.spec.observation_shape == (5,)
    assert environments.spec.observation_dtype == np.float32
    np.testing.assert_array_equal(environments.reset().observation, [[1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(play(environments, 1)[0].observation, [[0, 0, 0, 1, 0]])


def test_images_become_blocks_wherever_their_channels_stand():
    channels_last = numbered(BYTES_LAST)(0).astype(np.uint8)
    pool = ScriptedPool([], observation_space=BYTES_LAST, make_observation=numbered(BYTES_LAST))
    timestep = behind(pool).reset()
    assert timestep.observation.shape == (1, 2, 3, 48)
    assert timestep.observation.dtype == np.uint8
    first = channels_last.transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(timestep.observation, frames_to_blocks(first))


def test_numbers_become_float32():
    pool = ScriptedPool([], observation_space=NUMBERS, make_observation=numbered(NUMBERS))
    timestep = behind(pool).reset()
    assert timestep.observation.dtype == np.float32
    np.testing.assert_array_equal(timestep.observation[0], [[0, 1, 2], [3, 4, 5]])


def test_images_of_a_dict_keep_their_names_and_all_else_becomes_one_vector():
    pool = ScriptedPool(
        [PoolStep([0.0, 0.0])],
        num_envs=2,
        observation_space=PARTS,
        make_observation=numbered(PARTS),
    )
    environments = behind(pool)
    assert environments.num_envs == 2
    spec = environments.spec
    assert not spec.is_image
    assert not spec.is_one_hot
    assert spec.reading == "more_b: image 8×12 with 3 channels, channels last; vector of 6 numbers"
    for t, timestep in enumerate([environments.reset(), *play(environments, 1)]):
        parts = numbered(PARTS)(t)
        frames = np.moveaxis(parts["more"]["b"].astype(np.uint8), -1, 0)[None]
        expected = {"more_b": frames_to_blocks(frames)[0], "vector": parts["one"].ravel()}
        assert timestep.observation.keys() == spec.observation.keys() == expected.keys()
        for key, observation in timestep.observation.items():
            np.testing.assert_array_equal(observation, [expected[key]] * 2)
            struct = spec.observation[key]
            assert (struct.shape, struct.dtype) == (observation.shape[1:], observation.dtype)


def test_part_of_a_dict_that_is_not_finite_is_named():
    space = gymnasium.spaces.Dict({"a": NUMBERS, "b": gymnasium.spaces.Dict({"c": NUMBERS})})
    good, bad = np.zeros((2, 3)), np.full((2, 3), np.nan)

    def observe(t):
        return {"a": good, "b": {"c": bad if t == 1 else good}}

    environments = behind(
        ScriptedPool([PoolStep([0.0])], observation_space=space, make_observation=observe)
    )
    with pytest.raises(
        AnswerError,
        match=r"^observations\['b'\]\['c'\] must be finite, got nan in step\(\) of Scripted \(",
    ):
        play(environments, 1)


def test_spec_tells_images_from_vectors():
    image = behind(
        ScriptedPool([], observation_space=BYTES, make_observation=numbered(BYTES), num_actions=6),
        frames_per_step=4,
        is_atari=True,
    ).spec
    assert (image.is_image, image.num_actions, image.frames_per_step) == (True, 6, 4)
    assert image.is_atari
    assert image.observation_shape == (2, 3, 32)
    assert not behind(ScriptedPool([])).spec.is_image


def test_actions_reach_the_pool_and_close_closes_it():
    pool = ScriptedPool([PoolStep([0.0, 0.0])], num_envs=2)
    environments = behind(pool)
    assert environments.num_envs == 2
    environments.step(np.array([2, 1]))
    np.testing.assert_array_equal(pool.actions, [[2, 1]])
    environments.close()
    assert pool.is_closed


# Continuous actions.

TORQUES = gymnasium.spaces.Box(np.array([-1.0, -np.inf]), np.array([0.5, np.inf]), dtype=np.float64)


def test_continuous_actions_fill_their_bounds_in_the_dtype_of_the_space():
    pool = ScriptedPool([PoolStep([0.0] * 3)], num_envs=3, action_space=TORQUES)
    environments = behind(pool)
    actions = np.array([[-9, -9], [0.25, 0.25], [9, 9]], np.float32)
    environments.step(actions)
    assert pool.actions[0].dtype == np.float64
    # [-1, 1] is [-1, 0.5] there: -0.25 + 0.75 · 0.25.
    np.testing.assert_array_equal(pool.actions[0], [[-1, -9], [-0.0625, 0.25], [0.5, 9]])
    np.testing.assert_array_equal(actions[[0, 2]], [[-9, -9], [9, 9]])  # the agent's own


def test_spec_counts_the_dimensions_of_continuous_actions():
    continuous = behind(ScriptedPool([], action_space=TORQUES)).spec
    assert (continuous.is_continuous, continuous.num_actions) == (True, 2)
    discrete = behind(ScriptedPool([], num_actions=6)).spec
    assert (discrete.is_continuous, discrete.num_actions) == (False, 6)


def test_sampled_actions_are_one_for_each_environment():
    generator = np.random.default_rng(0)
    discrete = behind(ScriptedPool([], num_envs=50, num_actions=3)).sample_actions(generator)
    assert (discrete.shape, discrete.dtype) == ((50,), np.int32)
    assert set(discrete) == {0, 1, 2}
    continuous = behind(ScriptedPool([], num_envs=50, action_space=TORQUES))
    actions = continuous.sample_actions(generator)
    assert (actions.shape, actions.dtype) == ((50, 2), np.float32)
    assert -1 <= actions[:, 0].min() < -0.8
    assert 0.8 < actions[:, 0].max() <= 1
    assert len(np.unique(actions)) == 100


# Pools that misbehave.


@for_each(
    ("position", "answer", "message"),
    [
        (0, np.zeros((2, 2), np.float32), r"observations must be of shape \(2, 1\), got \(2, 2\)"),
        (0, np.zeros((3, 1), np.float32), r"observations must be of shape \(2, 1\), got \(3, 1\)"),
        (1, np.zeros((2, 1), np.float32), r"rewards must be of shape \(2,\), got \(2, 1\)"),
    ],
)
def test_wrong_shapes_of_a_pool_are_refused(monkeypatch, position, answer, message):
    pool = ScriptedPool([PoolStep([0.0, 0.0])], num_envs=2)
    environments = behind(pool)
    answers = list(pool.step(np.zeros(2, int)))
    answers[position] = answer
    monkeypatch.setattr(pool, "step", lambda _: answers)
    with pytest.raises(AnswerError, match=rf"^{message} in step\(\) of Scripted\.$"):
        play(environments, 1)


# Breakout as it is, with lives, against the same pool without a3cjax.

NUM_STEPS, NUM_ENVS, SEED = 400, 2, 7


class RawPlay:
    """What a pool answered, over time: `[T, B]`."""

    def __init__(self, pool, actions):
        observation, info = pool.reset()
        self.observations, self.lives = [observation.copy()], [info["lives"].copy()]
        rows = []
        for action in actions:
            observation, _, terminated, truncated, info = pool.step(action)
            self.observations.append(observation.copy())
            self.lives.append(info["lives"].copy())
            rows.append((info["reward"], terminated, truncated, info["terminated"] == 1))
        columns = (np.stack(values) for values in zip(*rows, strict=True))
        self.rewards, self.terminated, self.truncated, self.game_over = columns


@pytest.fixture(scope="module")
def breakout():
    """Random play through a3cjax and, with the same seed and actions, without it."""
    actions = np.random.default_rng(0).integers(4, size=(NUM_STEPS, NUM_ENVS)).astype(np.int32)
    environments = make_environments("Breakout", num_envs=NUM_ENVS, seed=SEED, discount=DISCOUNT)
    timesteps = play(environments, NUM_STEPS, actions)
    episodes = environments.pop_episodes()
    environments.close()
    pool = make_pool("Breakout-v5", num_envs=NUM_ENVS, seed=SEED, episodic_life=True, noop_max=30)
    raw = RawPlay(pool, actions)
    pool.close()
    return timesteps, episodes, raw


def test_breakout_shows_what_the_pool_shows(breakout):
    timesteps, _, raw = breakout
    for timestep, observation in zip(timesteps, raw.observations[1:], strict=True):
        np.testing.assert_array_equal(timestep.observation, frames_to_blocks(observation))


def test_breakout_first_steps_are_those_after_a_done(breakout):
    timesteps, _, raw = breakout
    is_first = column(timesteps, "is_first")
    assert not is_first[0].any()
    np.testing.assert_array_equal(is_first[1:], (raw.terminated | raw.truncated)[:-1])
    # It includes lost lives, of which a game has five; and nothing is earned there.
    assert is_first.sum() > 5 * NUM_ENVS
    np.testing.assert_array_equal(column(timesteps, "reward")[is_first], 0.0)


def test_breakout_lost_lives_cut_the_discount(breakout):
    timesteps, _, raw = breakout
    lost = np.diff(np.stack(raw.lives), axis=0) < 0
    assert lost.sum() > 5 * NUM_ENVS
    is_first = column(timesteps, "is_first")
    np.testing.assert_array_equal(column(timesteps, "discount")[~is_first] == 0.0, lost[~is_first])


def test_breakout_scores_are_sums_of_raw_rewards_over_whole_games(breakout):
    _, episodes, raw = breakout
    done = raw.terminated | raw.truncated
    for i in range(NUM_ENVS):
        expected, begin = [], 0
        for end in np.flatnonzero(raw.game_over[:, i] & done[:, i]):
            # Automatic resets, one after each done but the last, are no steps of the game.
            num_resets = np.count_nonzero(done[begin:end, i])
            length = end + 1 - begin - num_resets
            expected.append((raw.rewards[begin : end + 1, i].sum(), length))
            begin = end + 2  # the reset after the game belongs to none
        assert expected, "play longer: no game was finished"
        found = [e for e in episodes if e.environment_index == i]
        assert [(e.episode_return, e.episode_length) for e in found] == expected


def test_breakout_truncates_at_its_time_limit():
    pool = make_pool("Breakout-v5", num_envs=1, seed=0, episodic_life=True, max_episode_steps=30)
    environments = behind(pool, frames_per_step=4, is_atari=True)
    timesteps = play(environments, 32, (np.array([t % 4], np.int32) for t in itertools.count()))
    environments.close()
    is_first, discounts = column(timesteps, "is_first")[:, 0], column(timesteps, "discount")[:, 0]
    lost = np.flatnonzero(discounts == 0)
    assert len(lost) == 1  # a life, followed by the automatic reset; then comes the limit
    np.testing.assert_array_equal(np.flatnonzero(is_first), [lost[0] + 1, 31])
    (episode,) = environments.pop_episodes()
    assert episode.episode_length == 30


def test_evaluation_plays_on_after_a_lost_life():
    environments = make_environments(
        "Breakout", num_envs=2, seed=3, discount=DISCOUNT, has_whole_games=True
    )
    timesteps, episodes = [], []
    while len(timesteps) < 500 and {e.environment_index for e in episodes} != {0, 1}:
        timesteps += play(environments, 1, [np.array([1, 1], np.int32)])
        episodes += environments.pop_episodes()
    environments.close()
    for i in (0, 1):
        end = np.flatnonzero(column(timesteps, "discount")[:, i] == 0)[0]
        episode = next(e for e in episodes if e.environment_index == i)
        assert episode.episode_length == end + 1
        assert not column(timesteps, "is_first")[: end + 1, i].any()


def test_pong_scores_a_game_to_21():
    environments = make_environments("Pong", num_envs=1, seed=5, discount=DISCOUNT)
    rewards, episodes = [], []
    while not episodes and len(rewards) < 3000:
        timestep = play(environments, 1)[0]
        assert not timestep.is_first.any()
        rewards.append(float(timestep.reward[0]))
        episodes = environments.pop_episodes()
    assert episodes == [Episode(0, sum(rewards), len(rewards))]
    assert max(rewards.count(1.0), rewards.count(-1.0)) == 21
    assert timestep.discount[0] == 0.0
    assert play(environments, 1)[0].is_first.all()
    environments.close()


def test_atari_rewards_are_not_clipped():
    environments = make_environments("MsPacman", num_envs=1, seed=1, discount=DISCOUNT)
    left = itertools.repeat(np.array([3], np.int32))
    assert column(play(environments, 110, left), "reward").max() >= 10
    environments.close()


# Other environments, real.


def balance(observation):
    """Pushes the cart to where the pole falls: good for 500 steps and more."""
    angle, angular_velocity = observation[:, 2], observation[:, 3]
    position, velocity = observation[:, 0], observation[:, 1]
    lean = angle + 0.25 * angular_velocity + 0.02 * position + 0.05 * velocity
    return (lean > 0).astype(np.int32)


@for_each("env", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_cartpole_truncates_at_its_time_limit(env):
    environments = make_environments(env, num_envs=2, seed=1, discount=DISCOUNT)
    timestep, timesteps = environments.reset(), []
    for _ in range(502):
        timestep = environments.step(balance(timestep.observation))
        timesteps.append(timestep)
    environments.close()
    assert sorted(environments.pop_episodes()) == [Episode(0, 500.0, 500), Episode(1, 500.0, 500)]
    is_first = column(timesteps, "is_first")
    np.testing.assert_array_equal(np.flatnonzero(is_first.any(axis=1)), [500])
    assert is_first[500].all()
    np.testing.assert_allclose(column(timesteps, "discount")[:500], 0.9)
    np.testing.assert_array_equal(column(timesteps, "reward")[500], 0)


@for_each("env", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_cartpole_falls_and_terminates(env):
    environments = make_environments(env, num_envs=2, seed=1, discount=DISCOUNT)
    timesteps = play(environments, 40)
    environments.close()
    is_first, discounts = column(timesteps, "is_first"), column(timesteps, "discount")
    assert is_first.any(axis=0).all()
    np.testing.assert_array_equal(is_first[1:], discounts[:-1] == 0)
    for episode in environments.pop_episodes():
        assert episode.episode_return == episode.episode_length < 15


@for_each("env", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_restart_begins_some_games_anew_and_leaves_the_others(env):
    def play_on(restarted):
        environments = make_environments(env, num_envs=3, seed=1, discount=DISCOUNT)
        before = column(play(environments, 5), "observation")
        environments.restart(np.array(restarted, int))
        timesteps = play(environments, 40)
        environments.close()
        return before, timesteps, environments.pop_episodes()

    _, undisturbed, _ = play_on([])
    before, timesteps, episodes = play_on([0, 2])
    shown = column(timesteps, "observation")
    np.testing.assert_array_equal(shown[:, 1], column(undisturbed, "observation")[:, 1])
    for i in (0, 2):
        # A fresh cart stands still; the old one was five pushes fast.
        assert abs(shown[0, i, 1]) < 0.3 < abs(before[-1, i, 1])
    assert not timesteps[0].is_first.any()
    # Rewards are 1 a step: the restarted games are counted from their beginning, as far as
    # they go, and the others from theirs.
    assert {episode.environment_index for episode in episodes} == {0, 1, 2}
    assert all(episode.episode_return == episode.episode_length for episode in episodes)
    for i in range(3):
        end = np.flatnonzero(column(timesteps, "discount")[:, i] == 0)[0] + 1
        first = next(episode for episode in episodes if episode.environment_index == i)
        assert first.episode_length == end + (5 if i == 1 else 0)


@for_each("env", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_restart_takes_the_place_of_the_automatic_reset(env):
    environments = make_environments(env, num_envs=1, seed=1, discount=DISCOUNT)
    while play(environments, 1)[0].discount[0] != 0:
        pass
    environments.restart(np.array([0]))
    (timestep,) = play(environments, 1)
    environments.close()
    assert not timestep.is_first[0]
    assert timestep.reward[0] == 1
    assert abs(timestep.observation[0, 1]) > 0.1  # it was pushed


def test_restart_after_a_lost_life_begins_a_whole_game():
    environments = make_environments("Breakout", num_envs=1, seed=1, discount=DISCOUNT)
    actions = (np.array([t % 4], np.int32) for t in itertools.count())
    while play(environments, 1, actions)[0].discount[0] != 0:
        pass
    environments.restart(np.array([0]))
    timesteps, episodes = [], []
    while not episodes:
        timesteps += play(environments, 1, actions)
        episodes = environments.pop_episodes()
    environments.close()
    assert np.count_nonzero(column(timesteps, "discount") == 0) == 5  # lives
    kept = ~column(timesteps, "is_first")
    rewards = column(timesteps, "reward")[kept]
    assert episodes == [Episode(0, rewards.sum(), kept.sum())]


def test_frozen_lake_is_one_hot():
    actions = np.random.default_rng(1).integers(4, size=(60, 2)).astype(np.int32)
    environments = make_environments("FrozenLake", num_envs=2, seed=4, discount=DISCOUNT)
    seen = column(play(environments, 60, actions), "observation")
    environments.close()
    pool = make_pool("FrozenLake-v1", num_envs=2, seed=4)
    pool.reset()
    states = np.stack([pool.step(action)[0].copy() for action in actions])
    assert len(np.unique(states)) > 4
    np.testing.assert_array_equal(seen, np.arange(16) == states.reshape(60, 2, 1))


@for_each(("env", "num_states", "num_actions"), [("FrozenLake", 16, 4), ("Taxi", 500, 6)])
def test_states_are_one_hot_in_the_size_of_their_number(env, num_states, num_actions):
    environments = make_environments(env, num_envs=3, seed=4, discount=DISCOUNT)
    spec = environments.spec
    assert (spec.observation_shape, spec.num_actions) == ((num_states,), num_actions)
    assert spec.is_one_hot
    seen = column(play_randomly(environments, 30), "observation")
    environments.close()
    assert seen.dtype == np.float32
    assert set(np.unique(seen)) == {0, 1}
    np.testing.assert_array_equal(seen.sum(axis=-1), 1)


def test_cliff_sends_back_to_the_start_until_the_goal_is_reached():
    environments = make_environments("CliffWalking", num_envs=1, seed=4, discount=DISCOUNT)
    up, right, down = ([np.array([action], np.int32)] for action in (0, 1, 2))
    assert environments.reset().observation.argmax() == 36  # bottom left of 4 × 12
    (fallen,) = play(environments, 1, right)
    assert (fallen.observation.argmax(), fallen.reward[0]) == (36, -100)
    assert fallen.discount[0] == np.float32(DISCOUNT)
    timesteps = play(environments, 13, up + 11 * right + down)
    environments.close()
    np.testing.assert_array_equal(np.flatnonzero(column(timesteps, "discount") == 0), [12])
    assert environments.pop_episodes() == [Episode(0, -113.0, 14)]


@for_each("env", ["Catch", "CartPole", "FrozenLake", "gymnasium:CartPole-v1"])
def test_real_observations_are_fresh_arrays(env):
    environments = make_environments(env, num_envs=2, seed=2, discount=DISCOUNT)
    first = environments.reset().observation
    copy = first.copy()
    later = [timestep.observation for timestep in play(environments, 4)]
    environments.close()
    np.testing.assert_array_equal(first, copy)
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations([first, *later], 2))


# Continuous control, real.


@for_each(
    ("env", "observation_shape", "num_actions"),
    [
        ("Pendulum", (3,), 1),
        ("gymnasium:Pendulum-v1", (3,), 1),
        ("InvertedPendulum", (4,), 1),
        ("Hopper", (11,), 3),
        ("HalfCheetah", (17,), 6),
        ("WalkerWalk", (24,), 6),  # height 1, orientations 14, velocity 9
    ],
)
def test_continuous_control_is_played(env, observation_shape, num_actions):
    environments = make_environments(env, num_envs=2, seed=3, discount=DISCOUNT)
    spec = environments.spec
    assert (spec.observation_shape, spec.num_actions) == (observation_shape, num_actions)
    assert spec.is_continuous
    assert not any([spec.is_atari, spec.is_image, spec.is_one_hot])
    # Agent steps, whatever the steps of the integrator.
    assert spec.frames_per_step == 1
    timesteps = play_randomly(environments, 20)
    environments.close()
    observations, rewards = column(timesteps, "observation"), column(timesteps, "reward")
    assert (observations.dtype, rewards.dtype) == (np.float32, np.float32)
    assert len(np.unique(observations.reshape(40, -1), axis=0)) == 40


def test_what_lies_beyond_the_bounds_acts_like_the_bounds():
    def rewards_of(scale):
        environments = make_environments("HalfCheetah", num_envs=2, seed=3, discount=DISCOUNT)
        actions = np.resize(np.array([1, -1, 1, 1, -1], np.float32), (30, 2, 6))
        rewards = column(play(environments, 30, scale * actions), "reward")
        environments.close()
        return rewards

    np.testing.assert_array_equal(rewards_of(1.0), rewards_of(70.0))
    assert not np.array_equal(rewards_of(1.0), rewards_of(0.5))


def test_dm_control_shows_what_the_pool_shows():
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 6))
    environments = make_environments("WalkerWalk", num_envs=2, seed=3, discount=DISCOUNT)
    timesteps = play(environments, 20, actions)
    environments.close()
    pool = make_pool("WalkerWalk-v1", num_envs=2, seed=3)
    pool.reset()
    for timestep, action in zip(timesteps, actions, strict=True):
        shown, reward, *_ = pool.step(action)
        parts = [shown["height"][:, None], shown["orientations"], shown["velocity"]]
        expected = np.concatenate(parts, axis=1).astype(np.float32)
        np.testing.assert_array_equal(timestep.observation, expected)
        np.testing.assert_array_equal(timestep.reward, reward)


@for_each(
    ("env", "limit"),
    [
        ("Pendulum", 200),
        ("gymnasium:Pendulum-v1", 200),
        ("HalfCheetah", 1000),
        ("CartpoleBalance", 1000),
        ("Taxi", 200),
    ],
)
def test_time_limits_keep_the_discount(env, limit):
    environments = make_environments(env, num_envs=1, seed=1, discount=DISCOUNT)
    # One action again and again: random ones can bring Taxi's passenger home in time.
    actions = itertools.repeat(environments.sample_actions(np.random.default_rng(0)))
    timesteps = play(environments, limit + 2, actions)
    environments.close()
    is_first = column(timesteps, "is_first")[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(is_first), [limit])
    np.testing.assert_array_equal(column(timesteps, "discount")[:limit], np.float32(DISCOUNT))
    (episode,) = environments.pop_episodes()
    assert episode.episode_length == limit
    rewards = column(timesteps, "reward")[:limit].sum(dtype=float)
    np.testing.assert_allclose(episode.episode_return, rewards, rtol=1e-5)


def test_pole_that_falls_terminates():
    environments = make_environments("InvertedPendulum", num_envs=2, seed=1, discount=DISCOUNT)
    timesteps = play_randomly(environments, 60)
    environments.close()
    is_first, discounts = column(timesteps, "is_first"), column(timesteps, "discount")
    assert is_first.any(axis=0).all()
    np.testing.assert_array_equal(is_first[1:], discounts[:-1] == 0)


# Games in colour, real.


def test_continuous_actions_go_with_images():
    environments = make_environments("CarRacing", num_envs=1, seed=1, discount=DISCOUNT)
    spec = environments.spec
    (timestep,) = play_randomly(environments, 1)
    environments.close()
    assert spec.is_image
    assert spec.is_continuous
    assert (spec.num_actions, spec.frames_per_step) == (3, 1)
    assert timestep.observation.shape == (1, 24, 24, 48)  # 96×96 pixels, three colours
    assert timestep.observation.dtype == np.uint8


def test_procgen_is_played_in_colour():
    try:
        environments = make_environments("CoinrunEasy", num_envs=2, seed=1, discount=DISCOUNT)
    except ConfigError as error:
        if "Qt 5" not in str(error):
            raise
        pytest.skip("Qt 5 is not installed")
    spec = environments.spec
    timesteps = play_randomly(environments, 20)
    environments.close()
    assert (spec.observation_shape, spec.num_actions) == ((16, 16, 48), 15)  # 64×64 pixels
    assert spec.is_image
    assert not spec.is_atari
    assert spec.frames_per_step == 1
    assert len(np.unique(column(timesteps, "observation").reshape(40, -1), axis=0)) > 20


def test_buttons_of_vizdoom_are_discrete_and_its_first_process_is_alone(monkeypatch):
    made = []

    class Doom(ScriptedPool):
        """Real games would be processes, and would leave files in the working directory."""

        def __init__(self, env_id, *, num_envs, use_combined_action, **_):
            self.config = envpool.make_spec(env_id).config._asdict()
            space = gymnasium.spaces.Box(0, 255, (12, 84, 84), np.uint8)
            super().__init__(
                [],
                num_envs=num_envs,
                observation_space=space,
                make_observation=numbered(space),
                num_actions=6,
            )
            made.append((env_id, num_envs, use_combined_action, self))
            assert all(earlier.is_closed for *_, earlier in made[:-1])

    monkeypatch.setattr(envpool, "make", Doom)
    spec = make_environments("Basic", num_envs=3, seed=1, discount=DISCOUNT).spec
    assert [args for *args, _ in made] == [["Basic-v1", 1, True], ["Basic-v1", 3, True]]
    assert spec.observation_shape == (21, 21, 192)  # 84×84 pixels, four frames, three colours
    assert (spec.is_image, spec.is_continuous, spec.is_atari) == (True, False, False)
    assert (spec.num_actions, spec.frames_per_step) == (6, 4)


def test_envpool_is_asked_once_about_pools_that_are_alike(monkeypatch):
    asked, make_spec = [], envpool.make_spec

    def spy(env_id, **options):
        asked.append(options.get("max_episode_steps"))
        return make_spec(env_id, **options)

    monkeypatch.setattr(envpool, "make_spec", spy)
    monkeypatch.setattr(making, "_CHECKED", set())
    for env_kwargs in (None, {"max_episode_steps": 7}, None):
        config = Config(env="CartPole", num_actors=2, envs_per_actor=1, env_kwargs=env_kwargs)
        for batch in assembly.build_batches(config):
            batch.close()
    assert asked == [None, 7]


# Seeds and options.


@for_each("env", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_environment_i_is_seeded_with_seed_plus_i(env):
    def first_moves(num_envs, seed):
        environments = make_environments(env, num_envs=num_envs, seed=seed, discount=DISCOUNT)
        observations = column(play(environments, 3), "observation")
        environments.close()
        return observations

    batch = first_moves(3, 10)
    for i in range(3):
        np.testing.assert_array_equal(batch[:, i], first_moves(1, 10 + i)[:, 0])
    assert len(np.unique(batch[0], axis=0)) == 3


def seeds_of(monkeypatch, build):
    """The seeds of all environments that `build` makes."""
    seeds = []

    def spy(env, *, num_envs, seed, **_):
        seeds.extend(range(seed, seed + num_envs))
        return types.SimpleNamespace(num_envs=num_envs, close=lambda: None)

    monkeypatch.setattr(making, "make_environments", spy)
    monkeypatch.setattr(assembly, "make_environments", spy)
    build()
    return seeds


def test_no_two_environments_share_a_seed(monkeypatch):
    seeds = []
    for seed in (0, 1, 2):
        config = Config(env="CartPole", seed=seed, num_actors=5, envs_per_actor=7)
        training = seeds_of(monkeypatch, lambda config=config: assembly.build_batches(config))
        evaluation = seeds_of(
            monkeypatch, lambda config=config: builders.build_evaluation_environments(config, 100)
        )
        assert len(training) == 35
        assert len(evaluation) == 100
        seeds += training + evaluation
    assert len(set(seeds)) == len(seeds)


def test_resumed_run_shares_no_seed_with_its_earlier_lives(monkeypatch):
    config = Config(env="CartPole", num_actors=2, envs_per_actor=3)
    seeds = []
    for envs_per_actor in (3, 7, 2):  # changed from life to life
        life = config.replace(envs_per_actor=envs_per_actor)
        build = functools.partial(assembly.build_batches, life, len(seeds))
        seeds += seeds_of(monkeypatch, build)
    assert len(set(seeds)) == len(seeds) == 24


def test_processes_share_out_the_seeds_of_a_run(monkeypatch):
    config = Config(env="CartPole", num_actors=5, envs_per_actor=3)
    whole = seeds_of(monkeypatch, lambda: assembly.build_batches(config, 7))
    parts = []
    for share in (assembly.Share(0, 2), assembly.Share(2, 3)):
        build = functools.partial(assembly.build_batches, config, 7, share=share)
        parts += seeds_of(monkeypatch, build)
    assert parts == whole


def test_more_environments_than_seeds_are_refused(monkeypatch):
    config = Config(env="CartPole", num_actors=499, envs_per_actor=100)
    assert len(seeds_of(monkeypatch, lambda: assembly.build_batches(config))) == 49_900
    with pytest.raises(ConfigError, match=r"^num_actors must be <= 499 with .*=100, got 500\.$"):
        assembly.build_batches(config.replace(num_actors=500))


def test_the_largest_seed_fits():
    config = Config(env="CartPole", seed=20_000, num_actors=1, envs_per_actor=2)
    assembly.build_batches(config)[0].close()
    builders.build_evaluation_environments(config, 2).close()


def test_actors_see_different_environments():
    config = Config(env="CartPole", num_actors=3, envs_per_actor=2)
    batches = assembly.build_batches(config)
    batches.append(builders.build_evaluation_environments(config, 2))
    observations = np.concatenate([batch.reset().observation for batch in batches])
    for batch in batches:
        batch.close()
    assert len(np.unique(observations, axis=0)) == 8


@pytest.fixture
def asked(monkeypatch):
    """The options that envpool was asked for."""
    asked = {}
    make = envpool.make

    def spy(env_id, **options):
        asked.update(options)
        return make(env_id, **options)

    monkeypatch.setattr(envpool, "make", spy)
    return asked


@pytest.mark.parametrize(
    ("protocol", "has_whole_games", "expected"),
    [
        ("paper", False, {"episodic_life": True, "noop_max": 30, "repeat_action_probability": 0}),
        ("paper", True, {"episodic_life": False, "noop_max": 30, "repeat_action_probability": 0}),
        ("machado", False, {"episodic_life": False, "repeat_action_probability": 0.25}),
        ("machado", True, {"episodic_life": False, "repeat_action_probability": 0.25}),
    ],
)
def test_protocol_sets_the_options_of_atari(asked, protocol, has_whole_games, expected):
    environments = make_environments(
        "Breakout",
        num_envs=1,
        seed=0,
        discount=DISCOUNT,
        protocol=protocol,
        has_whole_games=has_whole_games,
    )
    environments.close()
    assert asked.items() >= expected.items()
    assert not asked.get("reward_clip", False)
    assert asked["use_fire_reset"]
    assert asked["full_action_space"] == (protocol == "machado")
    assert environments.spec.num_actions == (18 if protocol == "machado" else 4)
    assert environments.spec.frames_per_step == 4
    assert environments.spec.is_atari


@for_each("sticky_actions", [0.0, 0.25])
@for_each("protocol", ["paper", "machado"])
def test_sticky_actions_are_on_request(asked, protocol, sticky_actions):
    asked.clear()
    environments = make_environments(
        "Pong",
        num_envs=1,
        seed=0,
        discount=DISCOUNT,
        protocol=protocol,
        has_whole_games=True,
        sticky_actions=sticky_actions,
    )
    environments.close()
    assert asked["repeat_action_probability"] == sticky_actions
    assert not asked["episodic_life"]


@for_each("env", ["CartPole", "gymnasium:CartPole-v1"])
def test_sticky_actions_elsewhere_are_refused(env):
    with pytest.raises(ConfigError, match=f"env must be an Atari game .*, got {env}"):
        make_environments(env, num_envs=1, seed=0, discount=DISCOUNT, sticky_actions=0.25)


# Names.


@for_each(
    ("env", "env_id"),
    [
        ("Pong", "Pong-v5"),
        ("Pong-v5", "Pong-v5"),
        ("CartPole", "CartPole-v1"),
        ("Catch", "Catch-v0"),
        ("InvertedPendulum", "InvertedPendulum-v5"),
        ("HalfCheetah", "HalfCheetah-v5"),
        ("CartpoleBalance", "CartpoleBalance-v1"),
        ("CliffWalking", "CliffWalking-v1"),
    ],
)
def test_names_are_completed_with_the_newest_version(env, env_id):
    assert resolve_envpool_id(env) == env_id


@for_each(
    ("env", "nearest"),
    [("Pnog", "Pong"), ("Breakot", "Breakout"), ("space invaders", "SpaceInvaders")],
)
def test_unknown_names_are_answered_with_the_nearest(env, nearest):
    with pytest.raises(ConfigError, match=rf"^env must be .* got {env}; nearest: .*\b{nearest}\b"):
        make_environments(env, num_envs=1, seed=0, discount=DISCOUNT)


@for_each(
    ("env", "name"),
    [
        ("PongNoFrameskip-v4", "Pong"),
        ("ALE/SpaceInvaders-v5", "SpaceInvaders"),
        ("BreakoutDeterministic-v0", "Breakout"),
        ("Qbert-ramNoFrameskip-v4", "Qbert"),
        ("Pong-v6", "Pong"),
        ("halfcheetah-v1", "HalfCheetah"),
    ],
)
def test_ids_of_other_libraries_are_answered_with_ours(env, name):
    with pytest.raises(ConfigError, match=rf"got {env}; here it is {name}\.$"):
        resolve_envpool_id(env)


@for_each(
    ("env", "canonical"),
    [
        ("pong", "Pong"),
        ("PONG-V5", "Pong-v5"),
        ("Pong", "Pong"),
        ("cartpole-v0", "CartPole-v0"),
        ("gymnasium:cartpole", "gymnasium:cartpole"),
    ],
)
def test_games_are_spelt_one_way(env, canonical):
    assert canonical_name(env) == canonical


def test_every_environment_has_its_own_id_and_name():
    # A few of them differ in their capitals only.
    for env_id in envpool.list_all_envs():
        assert resolve_envpool_id(env_id) == env_id
        name, _, version = env_id.rpartition("-v")
        name = name if version.isdecimal() else env_id
        assert canonical_name(name) == name


def test_ids_may_have_no_version(monkeypatch):
    ids = [
        "Pong-v4",
        "dm_control/run-vast",
        "Pong-v10",
        "Pong-v5",
        "dm_control/Soccer",
        "Soccer-v1",
    ]
    monkeypatch.setattr(envpool, "list_all_envs", lambda: ids)
    assert resolve_envpool_id("pong") == "Pong-v10"
    assert canonical_name("pong-v4") == "Pong-v4"
    for env_id in ("dm_control/run-vast", "dm_control/Soccer"):
        assert resolve_envpool_id(env_id.lower()) == canonical_name(env_id.lower()) == env_id
    for name in ("", "dm_control/run", "dm_control/Soccer-v0"):
        with pytest.raises(ConfigError, match=r"^env must be an envpool id"):
            resolve_envpool_id(name)


@for_each("env", ["qwertyuiop", "", "gymnasium:", "gymnasium:CartPoel-v1"])
def test_unknown_names_are_errors_of_one_line(env):
    with pytest.raises(ConfigError, match=r"^env must be .*, got ") as caught:
        make_environments(env, num_envs=1, seed=0, discount=DISCOUNT)
    assert "\n" not in str(caught.value)


def test_who_names_a_module_is_told_how():
    told = r"^env must be .*, gymnasium:<id> or python:<module>:<function>, got mine:Phoenix\.$"
    with pytest.raises(ConfigError, match=told):
        resolve_envpool_id("mine:Phoenix")


@for_each("code", ["import no_such_module", "1 / 0", "def", "raise OSError"])
def test_modules_that_cannot_be_imported_are_errors_of_one_line(tmp_path, monkeypatch, code):
    (tmp_path / "module_of_a_user.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    env = "gymnasium:module_of_a_user:Some-v0"
    with pytest.raises(ConfigError, match=rf"^env must be .*, got {env}: \w+Error:") as caught:
        make_environments(env, num_envs=1, seed=0, discount=DISCOUNT)
    assert "\n" not in str(caught.value)


@for_each("env_id", [":X-v0", "a:b:X-v0", ".a:X-v0", "../a:X-v0", "/a:X-v0", "a b:"])
def test_malformed_modules_are_errors_of_one_line(env_id):
    with pytest.raises(ConfigError, match=r"^env must be .*, got gymnasium:.*Error: "):
        make_environments(f"gymnasium:{env_id}", num_envs=1, seed=0, discount=DISCOUNT)


@for_each(
    ("env", "num_numbers"),
    [
        ("gymnasium:Blackjack-v1", 32 + 11 + 2),  # a Tuple of three Discrete
        ("Game2048-v1", 4 + 4 * 4),  # a Dict of MultiBinary and whole numbers
        ("SearchAndRescue-v0", 2 * 3 * 128 + 1 + 401 + 2 * 2),  # two agents, as if one
        ("CVRP-v1", 167),  # with a Discrete leaf of 21
        ("MiniGrid-Empty-5x5-v0", 247 - 7 * 7 * 3),  # beside an image of 7×7 pixels
    ],
)
def test_mixtures_of_spaces_are_played(env, num_numbers):
    environments = make_environments(env, num_envs=2, seed=1, discount=DISCOUNT)
    observations = [timestep.observation for timestep in play_randomly(environments, 20)]
    environments.close()
    told = environments.spec.observation
    assert (told["vector"] if isinstance(told, dict) else told).shape == (num_numbers,)
    assert environments.spec.reading.endswith(f"vector of {num_numbers} numbers")
    joined = [np.concatenate(list(map(np.ravel, jax.tree.leaves(x)))) for x in observations]
    assert len(np.unique(joined, axis=0)) > 5


@for_each("env", ["IntersectionMultiAgent", "Cig", "MultiDuel-v1", "TicTacToe"])
def test_games_of_several_players_are_errors(env):
    with pytest.raises(ConfigError, match=rf"^env must have a single player, got {env}"):
        make_environments(env, num_envs=2, seed=0, discount=DISCOUNT)


@for_each("failure", [ImportError, RuntimeError])
def test_what_envpool_cannot_make_is_an_error(monkeypatch, failure):
    def fail(env_id, **_):
        raise failure("Qt 5 is missing")

    monkeypatch.setattr(envpool, "make", fail)
    with pytest.raises(ConfigError, match=r"^env must be .* make, got Pong: Qt 5 is missing$"):
        make_environments("Pong", num_envs=2, seed=0, discount=DISCOUNT)
