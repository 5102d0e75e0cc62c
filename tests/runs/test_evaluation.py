import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import Agent
from a3cjax.config.settings import Config
from a3cjax.envs.base import Episode
from a3cjax.errors import ConfigError
from a3cjax.runs import evaluation
from a3cjax.runs.evaluation import Evaluation, evaluate, evaluate_agent
from a3cjax.runs.loading import evaluate_run, load_agent
from a3cjax.training import evaluator
from a3cjax.training.evaluator import Evaluator, Pace
from a3cjax.types import ObservationStatistics, Snapshot
from tests.fakes import PATIENCE_SECONDS, FakeClock, FakeEnvironments

KEY = jax.random.key(0)
SNAPSHOT = Snapshot(version=3, num_frames=400, params=jnp.asarray(2, jnp.int32))


def make_agent():
    """Acts: the core's step count plus `params`, greedily; sampled, something random more."""

    def act_greedily(params, constants, timestep, core_state):
        return core_state + params, core_state + 1

    def act(params, constants, timestep, core_state, key):
        key, subkey = jax.random.split(key)
        noise = jax.random.randint(subkey, core_state.shape, 100, 2**30, jnp.int32)
        return core_state + params + noise, core_state + 1, key

    def initial_state(batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def unused(*_):
        raise AssertionError("an evaluation neither starts from scratch nor learns")

    return Agent(unused, initial_state, act, act_greedily, unused, unused)


def games(*ends):
    """Episodes by the step at which they end; the return tells the step and the environment."""
    script = {}
    for step, index in ends:
        script.setdefault(step, []).append(Episode(index, 100.0 * step + index, step))
    return script


def test_one_whole_game_in_every_environment():
    # Environment 0 plays three short games while environment 1 plays a long one.
    environments = FakeEnvironments(episodes=games((2, 0), (4, 0), (6, 0), (7, 1)))
    result = evaluate(make_agent(), SNAPSHOT, environments, KEY)
    assert result is not None
    assert result.episodes == [Episode(0, 200.0, 2), Episode(1, 701.0, 7)]
    assert len(environments.actions) == 7


def test_scores_come_in_the_order_of_the_environments():
    environments = FakeEnvironments(num_envs=3, episodes=games((1, 2), (2, 1), (3, 0)))
    result = evaluate(make_agent(), SNAPSHOT, environments, KEY)
    assert result is not None
    assert result.scores == [300.0, 201.0, 102.0]


def test_earlier_games_do_not_count():
    environments = FakeEnvironments(num_envs=1, episodes=games((1, 0), (3, 0)))
    environments.step(np.zeros(1, np.int32))  # a game ends before the evaluation
    result = evaluate(make_agent(), SNAPSHOT, environments, KEY)
    assert result is not None
    assert result.scores == [300.0]


def test_evaluation_begins_with_a_reset():
    tape = []
    environments = FakeEnvironments(num_envs=1, episodes=games((2, 0)), tape=tape)
    evaluate(make_agent(), SNAPSHOT, environments, KEY)
    assert [event[0] for event in tape] == ["reset", "step", "step"]


def test_greedy_actions_come_from_parameters_and_core():
    environments = FakeEnvironments(episodes=games((3, 0), (3, 1)))
    result = evaluate(make_agent(), SNAPSHOT, environments, KEY, is_greedy=True)
    assert result is not None
    assert result.is_greedy
    np.testing.assert_array_equal(environments.actions, [[2, 2], [3, 3], [4, 4]])


def sampled_actions(key):
    environments = FakeEnvironments(episodes=games((5, 0), (5, 1)))
    result = evaluate(make_agent(), SNAPSHOT, environments, key)
    assert result is not None
    assert not result.is_greedy
    return np.stack(environments.actions)


def test_sampled_actions_follow_the_key():
    actions = sampled_actions(KEY)
    assert actions.min() >= 100
    # Every step and environment draws its own.
    assert len(np.unique(actions - np.arange(5)[:, None])) == 10
    np.testing.assert_array_equal(actions, sampled_actions(KEY))
    assert not np.array_equal(actions, sampled_actions(jax.random.key(1)))


@pytest.mark.parametrize("is_greedy", [False, True])
def test_agents_see_statistics_and_the_small_epsilon_of_an_evaluation(is_greedy):
    def act_greedily(params, constants, timestep, core_state):
        epsilons = constants.exploration.epsilons  # Mnih et al. 2015: 0.05
        assert epsilons.shape == (3,)
        assert constants.target_params is None
        return jnp.rint(1000 * epsilons + constants.statistics.scale).astype(jnp.int32), core_state

    def act(params, constants, timestep, core_state, key):
        return *act_greedily(params, constants, timestep, core_state), key

    agent = make_agent()._replace(act=act, act_greedily=act_greedily)
    environments = FakeEnvironments(num_envs=3, episodes=games((1, 0), (1, 1), (1, 2)))
    snapshot = SNAPSHOT._replace(statistics=ObservationStatistics(jnp.zeros(1), jnp.asarray(7.0)))
    evaluate(agent, snapshot, environments, KEY, is_greedy=is_greedy)
    np.testing.assert_array_equal(environments.actions, [[57, 57, 57]])


def test_stopped_evaluation_has_no_result():
    environments = FakeEnvironments(num_envs=1)  # no game ends
    asked = iter([False, False, True])
    result = evaluate(make_agent(), SNAPSHOT, environments, KEY, should_stop=lambda: next(asked))
    assert result is None
    assert len(environments.actions) == 2


def test_result_is_summarised_by_hand():
    result = Evaluation(
        [Episode(0, 1.0, 10), Episode(1, 2.0, 20), Episode(2, 2.0, 5), Episode(3, 7.0, 8)], True
    )
    assert result.mean == 3.0
    assert result.as_dict() == {
        "actions": "greedy",
        "num_episodes": 4,
        "mean": 3.0,
        "median": 2.0,
        "standard_deviation": pytest.approx(5.5**0.5),  # deviations −2, −1, −1, 4
        "min": 1.0,
        "max": 7.0,
        "scores": [1.0, 2.0, 2.0, 7.0],
        "lengths": [10, 20, 5, 8],
    }
    assert result._replace(is_greedy=False).as_dict()["actions"] == "sampled"


@pytest.fixture
def built(monkeypatch):
    """What evaluate_agent had built for it."""
    made = []

    def build(config, num_envs, sticky_actions):
        assert sticky_actions is None
        script = games(*((2, index) for index in range(num_envs)))
        made.append(FakeEnvironments(num_envs=num_envs, episodes=script))
        return made[-1]

    monkeypatch.setattr(evaluation, "build_evaluation_environments", build)
    return made


@pytest.mark.parametrize(("num_episodes", "expected"), [(None, 4), (2, 2)])
def test_as_many_games_as_configured_or_asked_for(built, num_episodes, expected):
    config = Config(eval_episodes=4)
    result = evaluate_agent(config, make_agent(), SNAPSHOT, num_episodes=num_episodes)
    assert result is not None
    assert len(result.scores) == expected
    assert built[0].is_closed


def test_sampled_actions_follow_the_seed_of_the_run(built):
    for seed in (1, 1, 2):
        evaluate_agent(Config(eval_episodes=2, seed=seed), make_agent(), SNAPSHOT)
    first, repeated, other = (np.stack(environments.actions) for environments in built)
    np.testing.assert_array_equal(first, repeated)
    assert not np.array_equal(first, other)


def test_environments_are_closed_after_a_failure(built):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_agent(Config(), make_agent(), SNAPSHOT, should_stop=fail)
    assert built[0].is_closed


def test_evaluation_of_no_run_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"config.yaml, got {tmp_path}"):
        evaluate_run(tmp_path)


def test_agent_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"checkpoints/, got {tmp_path}"):
        load_agent(Config(env="CartPole", network="mlp_ff"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_endless_games_are_given_up(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_EPISODE_STEPS", 50)
    with pytest.raises(RuntimeError, match="must end within 50 steps"):
        evaluate(make_agent(), SNAPSHOT, FakeEnvironments(), KEY)


def test_too_many_games_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("env: CartPole")
    with pytest.raises(ConfigError, match=r"^eval_episodes must be between .*, got 1000000\.$"):
        evaluate_run(tmp_path, num_episodes=10**6)


class Rests(threading.Event):
    """A stop event at whose clock no time passes but in `wait`, which notes how long it was."""

    def __init__(self):
        super().__init__()
        self.clock, self.seconds = FakeClock(), []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        if not self.is_set():
            self.clock.take(timeout)
        return self.is_set()


@pytest.fixture
def rests(monkeypatch):
    rests = Rests()
    monkeypatch.setattr(evaluator, "time", rests.clock)
    return rests


@pytest.mark.parametrize(
    ("share", "worked", "rest"),
    [
        (0.25, 0.02, 0.06),  # 0.02 seconds of work are a quarter of 0.08
        (1.0, 0.05, 0.0),  # the whole machine needs no rest
        (0.001, 3600.0, 60.0),  # a process that was put aside rests no longer than others
    ],
)
def test_the_pace_leaves_the_share_that_was_asked_for(rests, share, worked, rest):
    pace = Pace(share, rests)
    for _ in range(2):
        rests.clock.take(worked)
        assert not pace()
    assert rests.seconds == pytest.approx([rest, rest])


def test_evaluations_during_training_take_their_share_of_the_machine(monkeypatch, rests):
    monkeypatch.setattr(evaluator, "available_cores", lambda: 2)

    class Store:
        def read(self):
            return None, SNAPSHOT

    def evaluate(snapshot, should_stop):
        assert snapshot.num_frames == SNAPSHOT.num_frames
        rests.clock.take(0.02)
        assert not should_stop()
        rests.set()

    Evaluator(evaluate, Store(), num_frames=0, period_frames=1).run(rests)
    # Of two cores' time 4 % are 8 % of one's: 0.02 of 0.25 seconds.
    assert rests.seconds[1:-1] == [pytest.approx(0.23)]


def test_a_stop_ends_the_rest(monkeypatch):
    clock, stop_event, answers = FakeClock(), threading.Event(), []
    monkeypatch.setattr(evaluator, "time", clock)
    monkeypatch.setattr(evaluator, "MAX_REST_SECONDS", 10 * PATIENCE_SECONDS)
    pace = Pace(0.001, stop_event)
    clock.take(1e6)
    thread = threading.Thread(target=lambda: answers.append(pace()))
    thread.start()
    stop_event.set()
    thread.join(PATIENCE_SECONDS)
    assert answers == [True]
