"""Vector environments that people bring, in all modes of resetting."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from a3cjax.envs.batches import VectorEnvironments
from a3cjax.envs.gymnasium_batch import GymnasiumBatch
from a3cjax.envs.vector_batch import VectorBatch
from a3cjax.errors import AnswerError, ConfigError
from tests.cases import for_each

NUM_ENVS, DISCOUNT = 3, 0.9
MODES = list(AutoresetMode)


class Games(gymnasium.Env):
    """Games of 1, 2, 3 ... steps, of which every other one is truncated; it shows where it is.

    Every step has a mask of its own, but for the last ones of some games, which have none.
    """

    observation_space = Dict(where=Box(-1.0, 100.0, (3,), np.float32), parity=Discrete(2))
    action_space = Discrete(3)

    def __init__(self, index=0):
        self.index, self.game = index, index

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.game, self.t = self.game + 1, 0
        return self.look(), self.tell()

    def step(self, action):
        self.t += 1
        is_over = self.t == 1 + self.game % 4
        reward = 10.0 * self.game + self.t + 0.1 * int(action)
        is_cut = self.game % 2 == 0
        info = {} if is_over and self.game % 3 == 0 else self.tell()
        return self.look(), reward, is_over and not is_cut, is_over and is_cut, info

    def tell(self):
        return {"action_mask": np.roll(np.array([1, 1, 0], np.int8), self.game + self.t)}

    def look(self):
        where = np.array([self.index, self.game, self.t], np.float32)
        return {"where": where, "parity": self.t % 2}


def make_fns():
    return [lambda index=index: Games(index) for index in range(NUM_ENVS)]


def behind(envs):
    return VectorEnvironments("Games", envs, discount=DISCOUNT, frames_per_step=1, is_atari=False)


def of_vector(envs):
    return behind(VectorBatch("Games", envs, is_own=True))


def play(environments, num_steps):
    """What each environment shows, step by step, without idle steps; and the games that ended."""
    shown = [[] for _ in range(NUM_ENVS)]
    timestep = environments.reset()
    for _ in range(num_steps):
        # What is done depends on what is seen, at a first observation, too.
        actions = (timestep.observation.sum(axis=1).astype(int) % 3).astype(np.int32)
        timestep = environments.step(actions)
        for index in range(NUM_ENVS):
            if timestep.is_idle is None or not timestep.is_idle[index]:
                row = (field[index] for field in timestep[:5])
                shown[index].append(np.hstack([*row]).astype(float).tolist())
    episodes = environments.pop_episodes()
    own = [[e[1:] for e in episodes if e.environment_index == i] for i in range(NUM_ENVS)]
    environments.close()
    return shown, own


@pytest.fixture(scope="module")
def right():
    """As each environment alone is stepped and reset."""
    fns = iter(make_fns())
    return play(behind(GymnasiumBatch("Games", lambda: next(fns)(), NUM_ENVS)), 60)


def of_processes(fns, autoreset_mode):
    return AsyncVectorEnv(fns, autoreset_mode=autoreset_mode, context="fork")


@pytest.mark.filterwarnings("ignore:.*fork:")  # JAX is there, but no process uses it
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [SyncVectorEnv, of_processes])
def test_no_step_is_lost_or_wrong_however_it_resets(right, make, mode):
    shown, episodes = play(of_vector(make(make_fns(), autoreset_mode=mode)), 60)
    for index in range(NUM_ENVS):
        num_steps = len(shown[index])
        assert num_steps >= (60 if mode is AutoresetMode.NEXT_STEP else 20)
        assert shown[index] == right[0][index][:num_steps]
        assert len(episodes[index]) > 5
        assert episodes[index] == right[1][index][: len(episodes[index])]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_idle_steps_change_nothing_while_others_begin(mode):
    environments = of_vector(SyncVectorEnv(make_fns(), autoreset_mode=mode))
    before, num_idle = environments.reset(), 0
    assert not before.is_idle.any()
    for _ in range(40):
        timestep = environments.step(np.zeros(NUM_ENVS, np.int32))
        is_idle = timestep.is_idle
        assert not (is_idle & timestep.is_first).any()
        if is_idle.any():
            assert (is_idle | timestep.is_first).all()
            assert timestep.is_first.any()
        np.testing.assert_array_equal(timestep.observation[is_idle], before.observation[is_idle])
        assert (timestep.reward[is_idle] == 0).all()
        assert (timestep.discount[is_idle] == 1).all()
        num_idle, before = num_idle + is_idle.sum(), timestep
    assert num_idle > 5


@for_each("mode", MODES)
def test_restarted_games_begin_anew_and_others_go_on(mode):
    environments = of_vector(SyncVectorEnv(make_fns(), autoreset_mode=mode))
    environments.reset()  # games 2, 3, 4, of 3, 4 and 1 steps
    environments.step(np.zeros(NUM_ENVS, np.int32))
    environments.restart(np.array([0]))
    timestep = environments.step(np.zeros(NUM_ENVS, np.int32))
    if timestep.is_idle is not None:  # the third one began
        assert timestep.is_idle.tolist() == [True, True, False]
        timestep = environments.step(np.zeros(NUM_ENVS, np.int32))
    where = timestep.observation[:, -3:].astype(int).tolist()
    assert where[:2] == [[0, 3, 1], [1, 3, 2]]


class Answers(VectorEnv):
    """One that answers what it is told to."""

    single_observation_space = Box(-1.0, 1.0, (2,), np.float32)
    single_action_space = Discrete(2)
    num_envs = 2

    def __init__(self, mode=AutoresetMode.SAME_STEP, **answers):
        self.metadata = {"autoreset_mode": mode} if mode else {}
        self.answers, self.num_resets = answers, 0

    def reset(self, *, seed=None, options=None):
        self.num_resets += 1
        return np.zeros((2, 2), np.float32), {}

    def step(self, actions):
        answer = {
            "observations": np.zeros((2, 2), np.float32),
            "rewards": np.zeros(2),
            "terminated": np.array([True, False]),
            "truncated": np.zeros(2, bool),
            "info": {"final_obs": np.ones((2, 2), np.float32)},
        }
        return tuple((answer | self.answers).values())


@for_each(
    ("answers", "message"),
    [
        ({"info": {}}, r'info must hold "final_obs" where a game ends .* got a dict of \[\]'),
        ({"info": {"final_obs": np.ones((2, 3))}}, r"observations must be of shape \(2, 2\)"),
        ({"info": {"final_obs": np.full((2, 2), np.nan)}}, r"observations must be finite, got nan"),
        ({"info": {"final_obs": np.array([[1, 2, 3], None], object)}}, r"of shape \(2,\) .*of the"),
        ({"observations": np.zeros((3, 2))}, r"observations must be of shape \(2, 2\)"),
        ({"observations": np.full((2, 2), np.inf)}, r"observations must be finite, got inf"),
        ({"rewards": np.zeros(3)}, r"rewards must be of shape \(2,\)"),
        ({"rewards": np.full(2, np.nan)}, r"rewards must be finite"),
        ({"rewards": ["a", "b"]}, r"rewards must be numbers"),
        ({"terminated": np.array([2, 0])}, r"terminated must be True or False for each of 2"),
        ({"truncated": True}, r"truncated must be True or False for each of 2"),
        ({"more": 1}, r"step\(\) must return 5 values, got 6"),
    ],
)
def test_wrong_answers_are_told_in_a_line(answers, message):
    environments = of_vector(Answers(**answers))
    with pytest.raises(AnswerError, match=message) as caught:
        environments.step(np.zeros(2, np.int32))
    assert "step() of Games" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_last_observations_may_come_as_a_batch():
    timestep = of_vector(Answers()).step(np.zeros(2, np.int32))
    np.testing.assert_array_equal(timestep.observation, [[1, 1], [0, 0]])
    assert timestep.discount.tolist() == [0.0, np.float32(DISCOUNT)]


@for_each(("mode", "got"), [(None, "None"), ("sometimes", "'sometimes'")])
def test_way_of_resetting_must_be_told(mode, got):
    with pytest.raises(ConfigError, match=rf'metadata\["autoreset_mode"\].*got Games with {got}\.'):
        VectorBatch("Games", Answers(mode), is_own=True)


def test_those_that_can_only_start_all_are_not_restarted():
    envs = Answers(AutoresetMode.NEXT_STEP, terminated=np.zeros(2, bool), rewards=np.ones(2))
    environments = of_vector(envs)
    environments.step(np.zeros(2, np.int32))
    num_resets = envs.num_resets
    environments.restart(np.array([1]))
    assert envs.num_resets == num_resets
    envs.answers["truncated"] = np.ones(2, bool)
    environments.step(np.zeros(2, np.int32))
    assert [episode.episode_return for episode in environments.pop_episodes()] == [2, 2]


def test_somebody_elses_are_left_open():
    for is_own in (True, False):
        envs = SyncVectorEnv(make_fns())
        VectorBatch("Games", envs, is_own=is_own).close()
        assert envs.closed == is_own
