"""Games of a trained agent, and evaluations, which are made of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import Agent
from a3cjax.config.settings import Config
from a3cjax.envs.base import Episode
from a3cjax.errors import ConfigError
from a3cjax.runs import playing
from a3cjax.runs.playing import TrainedAgent, evaluate_agent
from a3cjax.types import NetworkOutput, ObservationStatistics, Snapshot
from tests.fakes import FakeEnvironments

KEY = jax.random.key(0)
SNAPSHOT = Snapshot(version=3, num_frames=400, params=jnp.asarray(2, jnp.int32))


class NoisyPolicy(NamedTuple):
    """Certain actions at best; sampled ones are something random more."""

    best: jax.Array

    def mode(self):
        return self.best

    def sample(self, key):
        return self.best + jax.random.randint(key, self.best.shape, 100, 2**30, jnp.int32)


def count_steps(params, constants, timestep, core_state):
    """The best action is the core's step count plus `params`."""
    del constants, timestep
    return NetworkOutput(NoisyPolicy(core_state + params), jnp.zeros(())), core_state + 1


def make_player(look=count_steps, snapshot=SNAPSHOT, **settings):
    def initial_state(batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def unused(*_):
        raise AssertionError("a trained agent neither starts from scratch nor learns")

    return TrainedAgent(Config(**settings), Agent(unused, initial_state, look, unused), snapshot)


def games(*ends):
    """Episodes by the step at which they end; the return tells the step and the environment."""
    script = {}
    for step, index in ends:
        script.setdefault(step, []).append(Episode(index, 100.0 * step + index, step))
    return script


@pytest.fixture
def evaluate(monkeypatch):
    """Evaluates on these environments as if they had been made for it."""

    def evaluate(environments, agent=None, **options):
        def build(config, num_envs, sticky_actions):
            assert (num_envs, sticky_actions) == (environments.num_envs, None)
            return environments

        monkeypatch.setattr(playing, "build_evaluation_environments", build)
        return evaluate_agent(agent or make_player(), environments.num_envs, **options)

    return evaluate


@pytest.fixture
def built(monkeypatch):
    """The environments that were made, whose games take two steps, with their sticky actions."""
    made = []

    def build(config, num_envs, sticky_actions):
        script = games(*((2, index) for index in range(num_envs)))
        made.append((FakeEnvironments(num_envs=num_envs, episodes=script), sticky_actions))
        return made[-1][0]

    monkeypatch.setattr(playing, "build_evaluation_environments", build)
    return made


def test_one_whole_game_in_every_environment(evaluate):
    # Environment 0 plays three short games while environment 1 plays a long one.
    environments = FakeEnvironments(episodes=games((2, 0), (4, 0), (6, 0), (7, 1)))
    result = evaluate(environments)
    assert result.episodes == [Episode(0, 200.0, 2), Episode(1, 701.0, 7)]
    assert len(environments.actions) == 7


def test_scores_come_in_the_order_of_the_environments(evaluate):
    environments = FakeEnvironments(num_envs=3, episodes=games((1, 2), (2, 1), (3, 0)))
    assert evaluate(environments).scores == [300.0, 201.0, 102.0]


def test_earlier_games_do_not_count_and_an_evaluation_begins_with_a_reset(evaluate):
    tape = []
    environments = FakeEnvironments(num_envs=1, episodes=games((1, 0), (3, 0)), tape=tape)
    environments.step(np.zeros(1, np.int32))  # a game ends before the evaluation
    assert evaluate(environments).scores == [300.0]
    assert [event[0] for event in tape] == ["step", "reset", "step", "step"]


def test_greedy_actions_come_from_parameters_and_core(evaluate):
    environments = FakeEnvironments(episodes=games((3, 0), (3, 1)))
    assert evaluate(environments, is_greedy=True).is_greedy
    np.testing.assert_array_equal(environments.actions, [[2, 2], [3, 3], [4, 4]])


def test_sampled_actions_follow_the_seed_of_the_run(evaluate):
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
def test_agents_see_statistics_and_the_small_epsilon_of_an_evaluation(evaluate, is_greedy):
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


def test_stopped_evaluation_has_no_result(evaluate):
    environments = FakeEnvironments(num_envs=1)  # no game ends
    asked = iter([False, False, True])
    assert evaluate(environments, should_stop=lambda: next(asked)) is None
    assert len(environments.actions) == 2
    assert environments.is_closed


def test_finished_evaluation_is_not_asked_whether_to_stop(evaluate):
    environments = FakeEnvironments(num_envs=1, episodes=games((3, 0)))
    asked = iter([False] * 3)
    assert evaluate(environments, should_stop=lambda: next(asked)).scores == [300.0]


def test_environments_are_closed_after_a_failure(evaluate):
    def fail():
        raise KeyboardInterrupt

    environments = FakeEnvironments()
    with pytest.raises(KeyboardInterrupt):
        evaluate(environments, should_stop=fail)
    assert environments.is_closed


def test_endless_games_are_given_up(evaluate, monkeypatch):
    assert playing.MAX_EPISODE_STEPS > 27_000  # the longest of Atari
    monkeypatch.setattr(playing, "MAX_EPISODE_STEPS", 50)
    environments = FakeEnvironments()
    with pytest.raises(RuntimeError, match="must end within 50 steps"):
        evaluate(environments)
    assert len(environments.actions) == 50
    assert len(evaluate(FakeEnvironments(episodes=games((50, 0), (50, 1)))).scores) == 2


@pytest.mark.parametrize(
    ("configured", "asked_for", "expected"), [(4, None, 4), (4, 2, 2), (0, None, 30)]
)
def test_as_many_games_as_configured_or_asked_for(built, configured, asked_for, expected):
    agent = make_player(eval_episodes=configured)
    assert len(agent.evaluate(asked_for, sticky_actions=0.25).scores) == expected
    ((environments, sticky_actions),) = built
    assert environments.is_closed
    assert sticky_actions == 0.25


@pytest.mark.parametrize("num_episodes", [0, 10**6])
def test_too_few_and_too_many_games_are_refused(built, num_episodes):
    message = rf"^num_episodes must be between 1 and 10000, got {num_episodes}\.$"
    with pytest.raises(ConfigError, match=message):
        make_player().evaluate(num_episodes)
    assert not built


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
        newer = TrainedAgent(Config(seed=seed), agent.agent, SNAPSHOT._replace(version=seed))
        newer.evaluate(2)
        environments = FakeEnvironments()
        newer.act(environments.reset(), newer.initial_state(2), KEY)
    assert len(traces) == 1
