"""A run put together from its settings: what every part of it was given.

Environments are fakes; everything else is what `train` takes. Each test names one wire.
"""

import contextlib
import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.actors import placement
from a3cjax.actors.placement import Place
from a3cjax.actors.supervisor import Supervisor
from a3cjax.actors.warmup import warm_up
from a3cjax.agents import ALGORITHMS, Algorithm
from a3cjax.config import defaults
from a3cjax.config.builders import build_agent, build_evaluation_environments, make_keys
from a3cjax.config.settings import Config
from a3cjax.envs import making
from a3cjax.envs.base import Episode
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.exploration import make_explore
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.runs.checkpoints import Progress
from a3cjax.runs.environment_files import write_environment
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import write_config
from a3cjax.runs.loading import load
from a3cjax.system.life import show_life
from a3cjax.system.machine import cores_of_thread
from a3cjax.system.signals import SignalStop
from a3cjax.training import assembly, learning
from a3cjax.training.assembly import assemble, prepare
from a3cjax.training.bringing import Brought
from a3cjax.training.learning import Learning, Logs
from a3cjax.training.saver import Saver
from a3cjax.types import Constants, Exploration, Trajectory
from tests.fakes import DISCOUNT, PATIENCE_SECONDS, FakeEnvironments

NUM_ACTORS, NUM_ENVS, FRAMES_PER_STEP = 3, 2, 4
SETTINGS = Config(
    env="Fake",
    network="mlp_ff",
    seed=5,
    num_actors=NUM_ACTORS,
    envs_per_actor=NUM_ENVS,
    unroll_length=3,
    total_frames=10_000,
    warmup_steps=2,
    optimizer="sgd",
    momentum=0.0,
    learning_rate=1.0,
    max_grad_norm=None,
    centre_observations=False,
    eval_episodes=7,
)


class Restorable(FakeEnvironments):
    """With a state: the number of steps."""

    def get_state(self):
        return self._t

    def set_state(self, state):
        assert state >= 0, "no such moment"
        self._t = state


@pytest.fixture
def asked(monkeypatch):
    """What environments were asked for; those that are made are fakes of an Atari game or not."""
    calls = []

    def make(env, *, num_envs, is_atari=True, **options):
        calls.append({"env": env, "num_envs": num_envs, **options})
        environments = Restorable(num_envs=num_envs, frames_per_step=FRAMES_PER_STEP)
        environments.spec = environments.spec._replace(is_atari=calls.is_atari)
        return environments

    class Calls(list):
        is_atari = False

    calls = Calls()
    monkeypatch.setattr(assembly, "make_environments", make)
    monkeypatch.setattr(making, "make_environments", make)
    return calls


@pytest.fixture
def build(asked):
    """Puts a run together: its settings, agent and fleet."""
    supervisors = []

    def build_run(checkpoint=None, **changes):
        config, agent, batches = prepare(SETTINGS.replace(**changes))
        supervisor = Supervisor()
        supervisors.append(supervisor)
        fleet = assemble(config, agent, batches, checkpoint=checkpoint, supervisor=supervisor)
        fleet.supervisor = supervisor  # whose stop event ends the waiting for one's turn
        return config, agent, fleet

    yield build_run
    for supervisor in supervisors:
        supervisor.stop_event.set()
        supervisor.dismiss()


def trajectory(*, rewards=1.0, last_observation=0.0, num_steps=3):
    """An unroll in which nothing ends."""
    observations = np.zeros((num_steps + 1, NUM_ENVS, 1), np.float32)
    observations[-1] = last_observation
    steps = (num_steps, NUM_ENVS)
    return Trajectory(
        observations=observations,
        actions=np.zeros(steps, np.int32),
        rewards=np.full(steps, rewards, np.float32),
        discounts=np.full(steps, DISCOUNT, np.float32),
        is_first=np.zeros((num_steps + 1, NUM_ENVS), bool),
        core_state=(),
    )


def metrics_of(agent, fleet, unroll, entropy_factor=1.0):
    """Loss and metrics of an unroll at the parameters that the fleet begins with."""
    snapshot = fleet.store.pull()
    exploration = Exploration(np.zeros(NUM_ENVS, np.float32), np.float32(entropy_factor))
    constants = Constants(snapshot.statistics, snapshot.target_params, exploration)
    return jax.jit(agent.loss)(snapshot.params, constants, unroll)


# The agent.


@pytest.mark.parametrize("algorithm", ["a3c", "n_step_q"])
def test_rewards_of_atari_games_are_clipped_and_those_of_others_are_not(build, asked, algorithm):
    for asked.is_atari in (True, False):
        _, agent, fleet = build(algorithm=algorithm)
        one, ten = (metrics_of(agent, fleet, trajectory(rewards=r))[0] for r in (1.0, 10.0))
        assert (one == ten) == asked.is_atari


@pytest.mark.parametrize("algorithm", ["a3c", "n_step_q"])
def test_whole_episodes_are_not_bootstrapped_and_unrolls_are(build, algorithm):
    for unroll_length, bootstraps in ((3, True), ("episode", False)):
        _, agent, fleet = build(algorithm=algorithm, unroll_length=unroll_length)
        near, far = (metrics_of(agent, fleet, trajectory(last_observation=x))[0] for x in (0, 9))
        assert (near != far) == bootstraps


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, (0.2, 0.9)) for name in ("lambda_", "value_cost", "entropy_cost")),
        ("normalize_advantages", (False, True)),
    ],
)
def test_settings_of_the_loss_reach_it(build, name, values):
    losses = []
    for value in values:
        _, agent, fleet = build(**{name: value})
        losses.append(float(metrics_of(agent, fleet, trajectory(last_observation=2.0))[0]))
    assert losses[0] != losses[1]


def test_keyword_that_is_nearly_a_setting_is_refused(monkeypatch):
    def make_misspelt(network, *, lamda_=1.0):
        raise AssertionError("it must not come to this")

    algorithm = Algorithm(make_misspelt, head="actor_critic")
    monkeypatch.setitem(ALGORITHMS, "misspelt", algorithm)
    with pytest.raises(ConfigError, match=r"^misspelt must be fed by lambda_, got lamda_\.$"):
        build_agent(
            defaults.fill_ahead(SETTINGS.replace(algorithm="misspelt")), FakeEnvironments().spec
        )


# Environments.


def test_environments_are_asked_for_with_the_settings_of_the_run(build, asked):
    build(protocol="machado", discount=0.5)
    assert len(asked) == NUM_ACTORS
    for index, call in enumerate(asked):
        assert (call["env"], call["num_envs"]) == ("Fake", NUM_ENVS)
        assert (call["protocol"], call["discount"]) == ("machado", 0.5)
        assert call["seed"] == asked[0]["seed"] + index * NUM_ENVS


def test_evaluations_are_asked_for_with_seeds_and_rules_of_their_own(build, asked):
    config, *_ = build(protocol="machado", discount=0.5)
    del asked[:-1]
    build_evaluation_environments(config, 7, sticky_actions=0.1)
    training, evaluation = asked
    assert not training.get("has_whole_games")
    assert evaluation["has_whole_games"]
    assert (evaluation["num_envs"], evaluation["sticky_actions"]) == (7, 0.1)
    assert (evaluation["protocol"], evaluation["discount"]) == ("machado", 0.5)
    assert evaluation["seed"] > training["seed"] + NUM_ENVS


# Actor-learners.


def test_every_actor_has_environments_and_a_key_of_its_own(build):
    config, _, fleet = build()
    assert [actor.index for actor in fleet.actors] == [0, 1, 2]
    assert len({id(actor.environments) for actor in fleet.actors}) == NUM_ACTORS
    root = make_keys(config.seed).actors
    for actor in fleet.actors:
        expected = jax.random.key_data(jax.random.fold_in(root, actor.index))
        np.testing.assert_array_equal(jax.random.key_data(actor.standing.key), expected)


def test_many_actors_share_threads_and_keep_what_is_their_own(build, asked, monkeypatch):
    monkeypatch.setattr(placement, "available_cores", lambda: 5)
    plain = build(num_actors=5)[2].actors  # a thread for each
    one_by_one = [(call["seed"], call["num_envs"]) for call in asked]
    asked.clear()
    monkeypatch.setattr(placement, "available_cores", lambda: 2)
    config, _, fleet = build(num_actors=5)
    shared = [(call["seed"], call["num_envs"]) for call in asked]
    assert shared == [(one_by_one[0][0], 3 * NUM_ENVS), (one_by_one[3][0], 2 * NUM_ENVS)]
    assert config.envs_per_actor == NUM_ENVS
    assert len(fleet.targets) == 2
    assert [actor.index for actor in fleet.actors] == list(range(5))
    for actor, alone in zip(fleet.actors, plain, strict=True):
        keys = [jax.random.key_data(one.standing.key) for one in (actor, alone)]
        np.testing.assert_array_equal(*keys)
        assert actor.environments.num_envs == NUM_ENVS


@pytest.mark.parametrize(
    "settings", [{"deterministic": True}, {"unroll_length": "episode"}, {"num_actors": 4}]
)
def test_those_that_take_turns_or_play_episodes_or_are_few_have_a_thread_each(
    build, monkeypatch, settings
):
    monkeypatch.setattr(placement, "available_cores", lambda: 2)
    config, _, fleet = build(**{"num_actors": 5} | settings)
    assert len(fleet.targets) == config.num_actors == len(fleet.actors)


def test_parameters_are_views_unless_devices_are_chosen(build):
    def leaves(**settings):
        state, snapshot = build(**settings)[2].store.read()
        return jax.tree.leaves((state.params, snapshot.params))

    assert all(isinstance(leaf, np.ndarray) for leaf in leaves())
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in leaves(devices="cpu:0"))


def test_learning_recalls_what_acting_computed_but_of_whole_episodes(build):
    assert build()[2].actors[0].programs.observe_at is not None
    assert build(unroll_length="episode")[2].actors[0].programs.observe_at is None


def test_keys_follow_the_seed(build):
    words = [
        jax.random.key_data(build(seed=seed)[2].actors[0].standing.key).tolist() for seed in (1, 2)
    ]
    assert words[0] != words[1]


@pytest.mark.parametrize("algorithm", ["one_step_q", "n_step_q"])
def test_every_actor_draws_final_epsilons_of_its_own(build, algorithm):
    config, _, fleet = build(algorithm=algorithm, exploration_frames=400, envs_per_actor=16)
    finals = [actor.explore(400).epsilons for actor in fleet.actors]
    for index, own in enumerate(finals):
        explore = make_explore(config.seed, index, 16, num_frames=400)
        np.testing.assert_array_equal(own, explore(400).epsilons)
        assert np.all(fleet.actors[index].explore(399).epsilons > own)  # not before
    assert len({tuple(own) for own in finals}) == NUM_ACTORS


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_entropy_costs_are_spread_over_the_actors(build, spread):
    _, _, fleet = build(entropy_spread=spread)
    factors = [float(actor.explore(0).entropy_factor) for actor in fleet.actors]
    assert factors == pytest.approx([1 / spread, 1.0, spread])


def test_entropy_is_steered_over_the_budget_if_told_so(build):
    _, _, fleet = build(total_frames=600, target_entropy=0.2)
    targets = [fleet.actors[2].explore(n).target_entropy for n in (0, 300, 600)]
    np.testing.assert_allclose(targets, [1.0, 0.6, 0.2], rtol=1e-6)
    assert build()[2].actors[2].explore(300).target_entropy is None


def test_actors_stop_at_the_budget_and_report_to_the_log(build):
    config, _, fleet = build(total_frames=600)
    for actor in fleet.actors:
        assert (actor.unroll_length, actor.total_frames) == (3, config.total_frames)
        assert actor.report == fleet.report


def test_whole_episodes_are_unrolled_without_a_length_and_do_not_end_at_a_lost_life(build, asked):
    assert [a.unroll_length for a in build(unroll_length="episode")[2].actors] == [None] * 3
    assert [call["has_whole_games"] for call in asked] == [True] * 3
    build()
    assert [call["has_whole_games"] for call in asked[3:]] == [False] * 3


def test_actors_that_act_ahead_are_those_whose_algorithm_does(build):
    for algorithm, acts_ahead in (("a3c", False), ("one_step_sarsa", True)):
        _, _, fleet = build(algorithm=algorithm)
        assert {actor.programs.acts_ahead for actor in fleet.actors} == {acts_ahead}


# The shared parameters.


def ones(params):
    return jax.tree.map(jnp.ones_like, params)


def change_by(store, num_frames, actor_index=0):
    """By how much a push of gradients of 1 changes every parameter."""
    before = store.pull()
    store.push(ones(before.params), num_frames, before.version, actor_index)
    changes = jax.tree.leaves(jax.tree.map(jnp.subtract, store.pull().params, before.params))
    change = float(jnp.mean(changes[0]))
    assert all(np.allclose(leaf, change, rtol=1e-3, atol=1e-5) for leaf in changes)
    return change


def test_random_play_counts_as_frames(build):
    num_frames = build()[2].store.pull().num_frames
    assert num_frames == 2 * NUM_ACTORS * NUM_ENVS * FRAMES_PER_STEP


def test_learning_rate_falls_to_zero_at_the_end_of_the_budget(build):
    config, _, fleet = build(learning_rate=0.5)
    begun = fleet.store.pull().num_frames
    rates = [
        -change_by(fleet.store, config.total_frames // 2 - begun),  # of what lies before it
        -change_by(fleet.store, config.total_frames // 2),
        -change_by(fleet.store, 0),
    ]
    expected = [0.5 * (1 - begun / config.total_frames), 0.25, 0.0]
    assert rates == pytest.approx(expected, abs=1e-4)


def test_learning_rate_stays_where_it_is_not_to_be_annealed(build):
    config, _, fleet = build(anneal_learning_rate=False)
    changes = [-change_by(fleet.store, config.total_frames) for _ in range(2)]
    assert changes == pytest.approx([1.0, 1.0], rel=1e-3)


def test_gradients_are_clipped_to_the_norm_of_the_settings(build):
    _, _, fleet = build(max_grad_norm=0.5, anneal_learning_rate=False)
    before = fleet.store.pull().params
    fleet.store.push(ones(before), 4, 0)
    change = jax.tree.map(jnp.subtract, fleet.store.pull().params, before)
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(change)))
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_constants_of_the_optimizer_reach_it(build):
    changes = {}
    for name, values in {
        "momentum": (0.0, 0.5),
        "decay": (0.5, 0.9),
        "epsilon": (1e-3, 1.0),
    }.items():
        optimizer = "sgd" if name == "momentum" else "rmsprop"
        for value in values:
            own = {"momentum": None, "optimizer": optimizer, name: value}
            changes[name, value] = change_by(build(**own)[2].store, 4)
    # Gradients of 1: η (1 − α) of SGD, and η/√(1 − α + ε) of RMSProp, whose own are 0.99 and 0.1.
    for name, ratio in {
        "momentum": 2,
        "decay": math.sqrt((0.1 + 0.1) / (0.5 + 0.1)),
        "epsilon": math.sqrt((0.01 + 1) / (0.01 + 1e-3)),
    }.items():
        first, second = (change for (own, _), change in changes.items() if own == name)
        assert first / second == pytest.approx(ratio, rel=0.02), name


def test_every_actor_has_statistics_of_its_own_where_they_are_not_shared(build):
    shared = build(optimizer="rmsprop", momentum=None)[2].store.read()[0]
    own = build(optimizer="rmsprop", momentum=None, shared_statistics=False)[2].store
    assert len(own.read()[0].opt_state) == NUM_ACTORS
    assert jax.tree.structure(own.read()[0].opt_state[0]) == jax.tree.structure(shared.opt_state)
    first, again, other = (change_by(own, 0, index) for index in (0, 0, 1))
    assert first == pytest.approx(other, rel=1e-3)
    assert first != pytest.approx(again, rel=1e-3)


def test_target_parameters_follow_after_their_period(build):
    _, _, fleet = build(algorithm="n_step_q", target_period_frames=1_000)
    begun = fleet.store.pull()
    change_by(fleet.store, 999 - begun.num_frames)
    assert fleet.store.pull().target_params is begun.target_params
    change_by(fleet.store, 1)
    assert fleet.store.pull().target_params is fleet.store.pull().params
    assert build()[2].store.pull().target_params is None  # A3C has none


def test_observations_are_centred_where_they_are_to_be(build):
    assert build()[2].store.pull().statistics is None
    statistics = build(centre_observations=True)[2].store.pull().statistics
    assert float(statistics.mean[0]) == 1.5  # a fake shows the number of steps taken: 1 and 2


def test_actors_take_turns_where_runs_are_to_repeat_themselves(build, monkeypatch):
    asked = []

    def take_turns(store, num_actors, stop_event, *, at_wait, **_):
        asked.append((num_actors, stop_event, at_wait))
        return [store] * num_actors

    monkeypatch.setattr(assembly, "take_turns", take_turns)
    build(deterministic=False)
    supervisor = build(deterministic=True)[2].supervisor
    # Whoever waits for another's turn is not to be taken for stuck.
    assert asked == [(NUM_ACTORS, supervisor.stop_event, show_life)]


def test_first_parameters_follow_the_seed(build):
    leaves = [jax.tree.leaves(build(seed=seed)[2].store.pull().params) for seed in (1, 1, 2)]
    for a, b, c in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.array_equal(a, c)  # biases begin at zero


# Threads.


def train_once(fleet):
    """Lets every actor-learner make an update or more, in a thread of its own."""
    supervisor, events = fleet.supervisor, [threading.Event() for _ in fleet.actors]
    for actor, event in zip(fleet.actors, events, strict=True):
        actor.report = lambda _, event=event: event.set()
    fleet.start(supervisor)
    assert all(event.wait(PATIENCE_SECONDS) for event in events)
    supervisor.stop_event.set()
    supervisor.wait(PATIENCE_SECONDS)
    supervisor.raise_failures()


def test_environments_are_freed_where_settings_do_not_fit_them(asked, monkeypatch):
    closed = []
    monkeypatch.setattr(FakeEnvironments, "close", lambda self: closed.append(self))
    with pytest.raises(ConfigError, match="network must not be tabular"):
        prepare(SETTINGS.replace(network="tabular"))
    assert len(closed) == NUM_ACTORS


@pytest.mark.skipif(not cores_of_thread(), reason="this system binds no threads")
def test_actor_learners_run_on_the_cores_of_their_places(build, monkeypatch):
    core, step, seen = min(cores_of_thread()), FakeEnvironments.step, set()
    place = Place(jax.devices()[0], frozenset({core}))

    def look_and_step(self, actions):
        seen.add((threading.current_thread().name, *cores_of_thread()))
        return step(self, actions)

    monkeypatch.setattr(placement, "place_actors", lambda num_actors, _: [place] * num_actors)
    _, _, fleet = build()
    monkeypatch.setattr(FakeEnvironments, "step", look_and_step)
    train_once(fleet)
    assert seen == {(f"actor-learner-{index}", core) for index in range(NUM_ACTORS)}


def test_a_run_keeps_the_number_of_environments_that_many_actors_have_by_default(
    asked, monkeypatch
):
    for module in (defaults, placement):
        monkeypatch.setattr(module, "available_cores", lambda: 16)
    open_counts = SETTINGS.replace(num_actors=None, envs_per_actor=None, total_frames=10**8)
    config, _, batches = prepare(open_counts)
    assert (config.num_actors, config.envs_per_actor) == (16, 32)
    assert (
        [call["num_envs"] for call in asked] == [batch.num_envs for batch in batches] == [32] * 16
    )


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_more_learn_at_once_than_there_are_cores_unless_they_take_turns(
    build, monkeypatch, deterministic
):
    monkeypatch.setattr(assembly, "available_cores", lambda: 1)
    one, other, _ = build(deterministic=deterministic)[2].actors
    assert one.programs is other.programs
    with one.programs.learning_slot as is_free:
        if not deterministic:
            assert is_free
            assert not other.programs.learning_slot.acquire(blocking=False)


# Checkpoints, and going on from them.


def test_standstill_tells_frames_updates_and_keys(build):
    fleet = build()[2]
    before = fleet.standstill().progress
    train_once(fleet)
    after, snapshot = fleet.standstill().progress, fleet.store.pull()
    assert len({*before.actor_keys, *after.actor_keys}) == 2 * NUM_ACTORS
    assert (after.num_frames, after.num_updates) == (snapshot.num_frames, snapshot.version)
    assert before.standings == after.standings == ()


def test_those_that_take_turns_stand_still_at_the_end_of_a_round(build):
    fleet = build(deterministic=True, total_frames=SETTINGS.total_frames)[2]
    begun = fleet.standstill().progress
    assert [standing["environments"] for standing in begun.standings] == [2] * NUM_ACTORS
    train_once(fleet)
    for actor in fleet.actors:
        actor.environments.step(np.zeros(NUM_ENVS, np.int32))  # beyond the round
    after = fleet.standstill().progress
    num_rounds = after.num_updates // NUM_ACTORS
    assert after.num_updates == num_rounds * NUM_ACTORS >= NUM_ACTORS
    assert [standing["environments"] for standing in after.standings] == [
        2 + 3 * num_rounds
    ] * NUM_ACTORS


def test_run_goes_on_where_its_checkpoint_stands(build):
    fleet = build(deterministic=True)[2]
    train_once(fleet)
    checkpoint = fleet.standstill()
    resumed = build(checkpoint, deterministic=True)[2]
    again = resumed.standstill()
    assert again.progress == checkpoint.progress  # no random play
    jax.tree.map(np.testing.assert_array_equal, again.state, checkpoint.state)
    assert [actor.environments.get_state() for actor in resumed.actors] == [
        standing["environments"] for standing in checkpoint.progress.standings
    ]


def test_environments_that_cannot_go_on_are_told_in_a_line(build):
    checkpoint = build(deterministic=True)[2].standstill()
    checkpoint.progress.standings[1]["environments"] = -1
    with pytest.raises(CheckpointError, match=r"^environments cannot be restored: .*no such mom"):
        build(checkpoint, deterministic=True)


def test_resumed_run_plays_at_random_in_another_way_and_a_finished_one_does_not(build, monkeypatch):
    plays = []

    def spy(batches, num_steps, seed, *rest):
        plays.append((num_steps, seed))
        return warm_up(batches, num_steps, seed, *rest)

    monkeypatch.setattr(assembly, "warm_up", spy)
    checkpoint = build()[2].standstill()
    # A step of all costs 24 frames, and a tenth of what is left may be spent on them.
    for num_resumes, num_frames in ((1, 400), (2, 10_000), (3, 10_000 - 479), (4, 10_000 - 239)):
        progress = checkpoint.progress._replace(num_resumes=num_resumes, num_frames=num_frames)
        build(checkpoint._replace(progress=progress))
    assert [num_steps for num_steps, _ in plays] == [2, 2, 0, 1, 0]
    assert len({seed for _, seed in plays}) == 5


def test_random_play_of_a_resumed_run_renews_targets_that_are_due(build):
    settings = {"algorithm": "n_step_q", "target_period_frames": 1000}
    fleet = build(**settings)[2]
    train_once(fleet)
    checkpoint = fleet.standstill()
    old = jax.tree.map(jnp.zeros_like, checkpoint.state.params)
    state = checkpoint.state._replace(target_params=old)
    for num_frames, is_due in ((1951, False), (1952, True)):  # 48 more are played
        progress = checkpoint.progress._replace(num_resumes=1, num_frames=num_frames)
        changed = checkpoint._replace(state=state, progress=progress)
        snapshot = build(changed, **settings)[2].store.pull()
        assert snapshot.num_frames == num_frames + 48
        expected = state.params if is_due else old
        jax.tree.map(np.testing.assert_array_equal, snapshot.target_params, expected)


def test_final_epsilons_are_drawn_anew_where_they_are_to_be(build):
    options = {"algorithm": "n_step_q", "exploration_frames": 400, "envs_per_actor": 16}
    explore = build(**options, epsilon_period_frames=500)[2].actors[0].explore
    assert np.all(explore(499).epsilons == explore(400).epsilons)
    assert np.any(explore(500).epsilons != explore(499).epsilons)


# Evaluations.


@pytest.mark.parametrize("algorithm", ["a3c", "n_step_q"])
def test_best_agent_is_the_one_that_was_evaluated(build, monkeypatch, tmp_path, algorithm):
    options = {"centre_observations": True, "normalize_rewards": True}
    options |= {"total_frames": 600, "learning_rate": 1e-3}
    config, agent, fleet = build(algorithm=algorithm, **options)
    write_config(config, tmp_path)
    write_environment(tmp_path, fleet.spec)
    stop_event, evaluated = threading.Event(), []

    def learn_and_judge(trained, *_, **__):  # an evaluation during which the run goes on
        for actor in fleet.actors:
            actor.run(threading.Event())
        stop_event.set()
        evaluated.append(trained.snapshot)
        return Evaluation([Episode(0, 3.0, 5)], is_greedy=False)

    monkeypatch.setattr(learning, "evaluate_agent", learn_and_judge)
    terminal = TerminalLogger("Fake", config.total_frames)
    logs, saver = Logs(terminal, [], [], judged_frames=0), Saver(tmp_path, Progress(), lambda: 1)
    run = Learning(config, agent, fleet, logs, saver, fleet.supervisor, SignalStop(), Brought())
    run.evaluator.period_frames = 1
    run.evaluator.run(stop_event)
    run.run()
    terminal.close()
    (snapshot,), best = evaluated, load(tmp_path, best=True).snapshot
    assert best.num_frames == snapshot.num_frames < fleet.store.counts().num_frames
    assert best.reward_scale == snapshot.reward_scale != fleet.store.pull().reward_scale
    for name in ("params", "statistics"):
        jax.tree.map(np.testing.assert_array_equal, getattr(best, name), getattr(snapshot, name))


def test_what_is_evaluated_was_saved_though_a_round_was_broken_off(build, monkeypatch, tmp_path):
    config, agent, fleet = build(deterministic=True)
    write_config(config, tmp_path)
    write_environment(tmp_path, fleet.spec)
    evaluated = []

    def evaluate(trained, *_, **__):
        evaluated.append(trained.snapshot)
        return Evaluation([Episode(0, 3.0, 5)], is_greedy=False)

    def push_once(supervisor):
        before = fleet.store.pull()
        fleet.store.push(ones(before.params), 24, before.version)

    monkeypatch.setattr(learning, "evaluate_agent", evaluate)
    monkeypatch.setattr(fleet, "start", push_once)
    terminal = TerminalLogger("Fake", config.total_frames)
    logs, saver = Logs(terminal, [], [], judged_frames=0), Saver(tmp_path, Progress(), lambda: 1)
    run = Learning(config, agent, fleet, logs, saver, fleet.supervisor, SignalStop(), Brought())
    run.run()
    with contextlib.ExitStack() as closing:
        run.judge(closing, lambda summary: None)
    terminal.close()
    (snapshot,) = evaluated
    told = run.summarise().num_frames
    assert snapshot.num_frames == told == fleet.store.counts().num_frames - 24
    for is_best in (False, True):
        saved = load(tmp_path, best=is_best).snapshot
        assert saved.num_frames == snapshot.num_frames
        jax.tree.map(np.testing.assert_array_equal, saved.params, snapshot.params)
