"""Games of a trained agent, and evaluations, which are made of them."""

import dataclasses
import functools
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import Agent
from a3cjax.config.settings import Config
from a3cjax.envs.base import Episode
from a3cjax.envs.bringing import make_brought
from a3cjax.errors import ConfigError
from a3cjax.runs import playing
from a3cjax.runs.playing import TrainedAgent, closing_quietly, evaluate_agent
from a3cjax.types import NetworkOutput, ObservationStatistics, Snapshot
from tests.cases import for_each
from tests.fakes import FakeClock, FakeEnvironments

KEY = jax.random.key(0)
SNAPSHOT = Snapshot(version=3, num_frames=400, params=jnp.asarray(2, jnp.int32))


class NoisyPolicy(NamedTuple):
    """Certain actions at best; sampled ones are something random more."""

    best: jax.Array

    def mode(self):
        return self.best

    def sample(self, key):
        return self.best + jax.random.randint(key, self.best.shape, 100, 9900, jnp.int32)


def count_steps(params, constants, timestep, core_state):
    """The best action is the core's step count plus `params`."""
    del constants, timestep
    return NetworkOutput(NoisyPolicy(core_state + params), jnp.zeros(())), core_state + 1


def make_player(look=count_steps, snapshot=SNAPSHOT, **settings):
    def initial_state(batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def unused(*_):
        raise AssertionError("a trained agent neither starts from scratch nor learns")

    agent = Agent(unused, initial_state, look, unused)
    return TrainedAgent(Config(**settings), agent, snapshot, FakeEnvironments().spec)


def games(*ends):
    """Episodes by the step at which they end; the return tells the step and the environment."""
    script = {}
    for step, index in ends:
        script.setdefault(step, []).append(Episode(index, 100.0 * step + index, step))
    return script


def evaluate(environments, agent=None, **options):
    number = options.pop("num_episodes", environments.num_envs)
    return evaluate_agent(agent or make_player(), environments, number, **options)


@pytest.fixture
def built(monkeypatch):
    """The environments that were made, whose games take two steps, with their sticky actions."""
    made = []

    def build(config, num_envs, *, parts, sticky_actions, renders):
        assert not renders
        script = games(*((2, index) for index in range(num_envs)))
        made.append((FakeEnvironments(num_envs=num_envs, episodes=script), sticky_actions))
        return made[-1][0]

    monkeypatch.setattr(playing, "build_evaluation_environments", build)
    return made


def test_one_whole_game_in_every_environment():
    # Environment 0 plays three short games while environment 1 plays a long one.
    environments = FakeEnvironments(episodes=games((2, 0), (4, 0), (6, 0), (7, 1)))
    result = evaluate(environments)
    assert result.episodes == [Episode(0, 200.0, 2), Episode(1, 701.0, 7)]
    assert len(environments.actions) == 7


def test_scores_come_in_the_order_of_the_environments():
    environments = FakeEnvironments(num_envs=3, episodes=games((1, 2), (2, 1), (3, 0)))
    assert evaluate(environments).scores == [300.0, 201.0, 102.0]


def test_earlier_games_do_not_count_and_an_evaluation_begins_with_a_reset():
    tape = []
    environments = FakeEnvironments(num_envs=1, episodes=games((1, 0), (3, 0)), tape=tape)
    environments.step(np.zeros(1, np.int32))  # a game ends before the evaluation
    assert evaluate(environments).scores == [300.0]
    assert [event[0] for event in tape] == ["step", "reset", "step", "step"]


def test_greedy_actions_come_from_parameters_and_core():
    environments = FakeEnvironments(episodes=games((3, 0), (3, 1)))
    assert evaluate(environments, is_greedy=True).is_greedy
    np.testing.assert_array_equal(environments.actions, [[2, 2], [3, 3], [4, 4]])


def test_sampled_actions_follow_the_seed_of_the_run():
    def sampled_actions(seed):
        environments = FakeEnvironments(episodes=games((5, 0), (5, 1)))
        assert not evaluate(environments, make_player(seed=seed)).is_greedy
        return np.stack(environments.actions)

    actions = sampled_actions(1)
    assert actions.min() >= 100
    # Every step and environment draws its own.
    assert len(np.unique(actions - np.arange(5)[:, None])) == 10
    np.testing.assert_array_equal(actions, sampled_actions(1))
    assert not np.array_equal(actions, sampled_actions(2))


@pytest.mark.parametrize("is_greedy", [False, True])
def test_agents_see_statistics_and_the_small_epsilon_of_an_evaluation(is_greedy):
    class Certain(NoisyPolicy):
        def sample(self, key):
            return self.best

    def look(params, constants, timestep, core_state):
        epsilons = constants.exploration.epsilons  # Mnih et al. 2015: 0.05
        assert epsilons.shape == (3,)
        assert constants.target_params is None
        actions = jnp.rint(1000 * epsilons + constants.statistics.scale).astype(jnp.int32)
        return NetworkOutput(Certain(actions), jnp.zeros(())), core_state

    environments = FakeEnvironments(num_envs=3, episodes=games((1, 0), (1, 1), (1, 2)))
    snapshot = SNAPSHOT._replace(statistics=ObservationStatistics(jnp.zeros(1), jnp.asarray(7.0)))
    evaluate(environments, make_player(look, snapshot), is_greedy=is_greedy)
    np.testing.assert_array_equal(environments.actions, [[57, 57, 57]])


def test_stopped_evaluation_has_no_result():
    environments = FakeEnvironments(num_envs=1)  # no game ends
    asked = iter([False, False, True])
    assert evaluate(environments, should_stop=lambda: next(asked)) is None
    assert len(environments.actions) == 2


def test_finished_evaluation_is_not_asked_whether_to_stop():
    environments = FakeEnvironments(num_envs=1, episodes=games((3, 0)))
    asked = iter([False] * 3)
    assert evaluate(environments, should_stop=lambda: next(asked)).scores == [300.0]


@pytest.mark.parametrize("fails", ["play", "close"])
def test_environments_are_closed_after_a_failure_and_may_fail_to(built, capsys, fails):
    class Failing(FakeEnvironments):
        def close(self):
            super().close()
            if fails == "close":
                raise OSError("no viewer")

    def fail(t):
        raise LookupError("no such game")

    environments = Failing(on_step=fail)
    with pytest.raises(LookupError), closing_quietly(environments):
        evaluate(environments)
    assert environments.is_closed
    warning = "warning: environments cannot be closed: OSError: no viewer\n"
    assert capsys.readouterr().err == (warning if fails == "close" else "")


@for_each(
    ("own", "configured", "asked_for", "expected"),
    [
        (None, None, None, 50),  # MAX_EPISODE_STEPS
        (30, None, None, 31),  # where they end by themselves
        (300, None, None, 301),
        (30, 7, None, 7),
        (None, 7, 9, 9),
    ],
)
def test_games_that_do_not_end_are_cut_and_told(monkeypatch, own, configured, asked_for, expected):
    monkeypatch.setattr(playing, "MAX_EPISODE_STEPS", 50)
    environments, lines = FakeEnvironments(episodes=games((3, 1))), []
    environments.spec = environments.spec._replace(max_episode_steps=own)
    agent = make_player(max_episode_steps=configured)
    result = evaluate(environments, agent, max_episode_steps=asked_for, report=lines.append)
    assert len(environments.actions) == expected
    cut, ended = result.episodes
    assert ended == Episode(1, 301.0, 3)
    assert cut.episode_length == expected
    # The sum of its rewards: FakeEnvironments give the number of the step.
    assert cut.episode_return == sum(
        float(environments.timestep(t).reward[0]) for t in range(1, expected + 1)
    )
    assert result.num_cut == result.as_dict()["num_cut"] == 1
    assert "1 of 2 games of Pong did not end within" in lines[-1]
    assert lines[-1].endswith("max_episode_steps=... sets another limit")


def test_limit_of_endless_games_follows_a_small_budget(monkeypatch):
    for total_frames, expected in ((20, 1000), (8_000, 2_000), (10**9, 27_000)):
        environments = FakeEnvironments(num_envs=1, frames_per_step=4)
        games = make_player(total_frames=total_frames).play(environments, KEY)
        assert sum(1 for _ in games) == expected + 1


def test_long_evaluation_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(playing, "time", clock := FakeClock())
    environments = FakeEnvironments(episodes=games((3, 0), (9, 1)), on_step=lambda _: clock.take(4))
    lines = []
    evaluate(environments, report=lines.append)
    assert lines[0] == "evaluation: 1 of 2 games are over after 3 steps"
    assert len(lines) == 3


def test_act_says_what_it_takes():
    with pytest.raises(TypeError, match=r"^act takes a TimeStep, .*ndarray: predict\("):
        make_player().act(np.zeros(4), jnp.zeros(1), KEY)


@pytest.mark.parametrize(
    ("configured", "asked_for", "expected"), [(4, None, 4), (4, 2, 2), (0, None, 30)]
)
def test_as_many_games_as_configured_or_asked_for(built, configured, asked_for, expected):
    agent = make_player(eval_episodes=configured)
    assert len(agent.evaluate(asked_for, sticky_actions=0.25).scores) == expected
    ((environments, sticky_actions),) = built
    assert environments.is_closed
    assert sticky_actions == 0.25


@for_each(
    ("arguments", "message"),
    [
        *(
            ({"num_episodes": number}, rf"be a whole number between 1 and 10000, got {number!r}\.")
            for number in (0, 10**6, 2.5, "2")
        ),
        ({"max_episode_steps": 0}, r"be >= 1, got 0\."),
        ({"max_episode_steps": 2.5}, r"be a whole number or null, got 2\.5\."),
    ],
)
def test_what_is_no_number_of_games_or_steps_is_refused(built, arguments, message):
    ((name, _),) = arguments.items()
    with pytest.raises(ConfigError, match=rf"^{name} must {message}$"):
        make_player().evaluate(**arguments)
    assert all(environments.is_closed for environments, _ in built)


def test_steps_tell_where_games_stand_and_what_is_done_there():
    environments = FakeEnvironments(episodes=games((1, 0), (2, 0), (3, 1)))
    steps = list(make_player().play(environments, KEY, is_greedy=True))
    assert [step.timestep.observation[0, 0] for step in steps] == [0, 1, 2, 3]
    assert [step.core_state.tolist() for step in steps] == [[0, 0], [1, 1], [2, 2], [3, 3]]
    np.testing.assert_array_equal([step.actions for step in steps[:-1]], environments.actions)
    assert steps[-1].actions is None
    assert [step.episodes for step in steps] == [
        [],
        [Episode(0, 100.0, 1)],
        [],
        [Episode(1, 301.0, 3)],
    ]


def test_agent_compiles_once_for_all_that_it_plays(built):
    traces = []

    def look(*arguments):
        traces.append(None)
        return count_steps(*arguments)

    agent = make_player(look)
    for seed in (1, 2):  # as evaluations during training, with newer parameters each time
        newer = dataclasses.replace(
            agent, config=Config(seed=seed), snapshot=SNAPSHOT._replace(version=seed)
        )
        newer.evaluate(2)
        environments = FakeEnvironments()
        newer.act(environments.reset(), newer.initial_state(2), KEY)
    assert len(traces) == 1


class Timed(gymnasium.Env):
    """A game of so many steps, each worth 1."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(10_000)  # as many as the player draws from

    def __init__(self, length):
        self._length = length

    def reset(self, *, seed=None, options=None):
        self._t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._t += 1
        return np.zeros(1, np.float32), 1.0, self._t == self._length, False, {}


@pytest.mark.parametrize("mode", gymnasium.vector.AutoresetMode)
def test_each_game_has_its_own_steps_whoever_waits_for_others(mode):
    # In two of the modes all wait a step whenever the short game ends.
    lengths = (2, 9, 30)
    makers = [functools.partial(Timed, length) for length in lengths]
    envs = gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode)
    environments = make_brought("Timed", lambda: envs, num_envs=3, seed=0, discount=0.9)
    *_, last = make_player().play(environments, KEY, max_episode_steps=10)
    assert last.cut == [Episode(2, 10.0, 10)]
    episodes = evaluate(environments, max_episode_steps=10).episodes
    assert episodes == [Episode(0, 2.0, 2), Episode(1, 9.0, 9), Episode(2, 10.0, 10)]
    environments.close()
