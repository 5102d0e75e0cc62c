"""`train` with what people bring: environments, networks, algorithms, callbacks, loggers."""

import functools
import itertools
import json
import os
import re
import time
from typing import ClassVar

import envpool
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from a3cjax import Config, load, train
from a3cjax.actors import placement
from a3cjax.actors.supervisor import Supervisor
from a3cjax.agents import ALGORITHMS, Algorithm, make_a3c
from a3cjax.config.reading import load_config, read_config, resume_config
from a3cjax.envs.bringing import make_brought, name_source
from a3cjax.errors import ConfigError
from a3cjax.logs.loggers import CsvLogger, Logger
from a3cjax.networks import make_network
from a3cjax.runs.publishing import publish
from a3cjax.system.files import same_folder
from a3cjax.training import fleets
from tests.cases import for_each, slow
from tests.fakes import wait_until
from tests.tabular import random_params

CONFIG = Config(
    total_frames=3000,
    num_actors=1,
    envs_per_actor=4,
    unroll_length=10,
    warmup_steps=16,
    learning_rate=0.03,
    discount=0.0,  # an action has no consequences beyond its reward
    eval_episodes=6,
    video=False,
    tensorboard=False,
)
SHORT = CONFIG.replace(total_frames=500)
GAME = 8  # steps, of which each is worth 1 if the action is that which is shown
LEARNED = 7.5  # at random 4


MADE, SEEN = [], []  # environments, and what a torso saw


class Echo(gymnasium.Env):
    """Shows an action to take; after eight of them the game is over."""

    observation_space = Box(0.0, 1.0, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, worth=1.0, is_image=False):
        self.worth, self.is_image = worth, is_image
        if is_image:
            self.observation_space = Box(0, 255, (8, 8, 3), np.uint8)
        MADE.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action):
        reward = self.worth * float(action == self.shown)
        self.t += 1
        return self.look(), reward, False, self.t == GAME, {}

    def look(self):
        self.shown = int(self.np_random.integers(2))
        if self.is_image:
            picture = np.zeros((8, 8, 3), np.uint8)
            picture[4:, :, 1] = 200 * self.shown
            return picture
        return np.eye(2, dtype=np.float32)[self.shown]


gymnasium.register("Echo-v0", Echo)
ONE = Echo()
VECTOR = gymnasium.vector.SyncVectorEnv([Echo, Echo])


def make_echo(worth=1.0):
    return Echo(worth)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda config=CONFIG, **brought: train(config, **brought)


def refused(match, config=SHORT, error=ConfigError, **brought):
    with pytest.raises(error, match=match) as caught:
        train(config, **brought)
    assert "\n" not in str(caught.value)


# Environments.


def make_vector(num_envs=3, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([Echo] * num_envs, autoreset_mode=mode)


@for_each(
    ("source", "name"),
    [
        (make_echo, "make_echo"),
        (Echo, "Echo"),
        (lambda: Echo(), "<lambda>"),
        (functools.partial(make_echo, worth=1.0), "<make_echo>"),
        (make_vector, "make_vector"),
        (VECTOR, "<SyncVectorEnv>"),
    ],
)
def test_what_makes_environments_is_called_by_its_name_if_it_has_one(source, name):
    module = "gymnasium.vector.sync_vector_env" if source is VECTOR else __name__
    assert name_source(source) == f"python:{module}:{name}"


@pytest.mark.parametrize(
    ("source", "name", "num_envs"),
    [
        ("gymnasium:Echo-v0", "gymnasium:Echo-v0", 4),
        (functools.partial(make_echo, worth=1.0), f"python:{__name__}:<make_echo>", 4),
        (lambda: make_vector(5), f"python:{__name__}:<lambda>", 5),
    ],
    ids=["id", "function", "vector"],
)
def test_whatever_makes_environments_is_learned_on(run, source, name, num_envs):
    summary = run(env=source)
    assert summary.evaluation.mean > LEARNED
    assert len(summary.evaluation.scores) == 6
    config = load_config(summary.run_dir)
    assert (config.env, config.envs_per_actor) == (name, num_envs)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_environment_is_learned_on_and_evaluated_in_rounds(run, mode):
    envs = make_vector(4, mode)
    summary = run(CONFIG.replace(num_actors=None, eval_episodes=10), env=envs)
    assert summary.evaluation.mean > LEARNED
    assert [e.environment_index for e in summary.evaluation.episodes] == list(range(10))
    assert {episode.episode_length for episode in summary.evaluation.episodes} == {GAME}
    # Neither resets nor what waits for them costs frames: a game has eight of them.
    rows = (summary.run_dir / "episodes.csv").read_text().splitlines()[1:]
    assert {row.split(",")[-1] for row in rows} == {str(GAME)}
    played = summary.num_frames - 16 * 4
    assert abs(played - GAME * len(rows)) <= 2 * GAME * 4
    assert load_config(summary.run_dir).num_actors == 1
    assert not envs.closed
    agent = load(summary.run_dir, env=envs)
    assert agent.evaluate(5).mean > LEARNED
    with pytest.raises(ConfigError, match=r"^env must be passed once more"):
        load(summary.run_dir).evaluate(1)
    longer = resume_config(str(summary.run_dir), {"total_frames": 3400})
    assert run(longer, env=envs).num_frames >= 3400


@for_each(
    ("brought", "match"),
    [
        ({"env": Echo()}, r"^env must be a function .*env=lambda: Echo\(\).*got one that is made"),
        ({"env": 3}, r"^env must be an id, a function .*, got 3\.$"),
        ({"env": lambda: ONE}, r"^env must be made anew by every call, as by env=lambda: Echo\(\)"),
        ({"env": lambda: TimeLimit(ONE, 9)}, r"^env must be made anew by every call.* in use\.$"),
        ({"env": lambda: 3}, r"^env must be a function that returns a gymnasium.Env .*returned 3"),
        (
            {"env": make_echo, "env_kwargs": {"wort": 2}},
            r"^env_kwargs must .*make_echo, got .*wort",
        ),
        ({"env": lambda: ONE, "env_kwargs": {"a": 2}}, r"^env_kwargs must be the arguments of"),
        ({"env": make_vector(), "env_kwargs": {"a": 2}}, r"^env_kwargs must be null"),
        ({"env": "CartPole", "env_kwargs": {"a": 2}}, r"^env_kwargs must be options .*CartPole-v1"),
        ({"env": "Pong", "env_kwargs": {"num_envs": 2}}, r"^env_kwargs must leave num_envs"),
        ({"env": "gymnasium:Echo-v0", "env_kwargs": {"a": 2}}, r"^env_kwargs must .*Echo-v0 with"),
        ({"env": make_echo, "env_kwargs": {"worth": object()}}, r"^env_kwargs must hold numbers"),
        ({"network": object()}, r"^network must be a name, a Network .*Torso\(\), got <object"),
        ({"algorithm": 3}, r"^algorithm must be a name or an Algorithm"),
        ({"algorithm": Algorithm(lambda n: None, "actor_critic")}, r"^algorithm must be made by"),
        (
            {"algorithm": Algorithm(make_a3c, "gaussian_actor_critic")},
            r"^head must be actor_critic or",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(brought, match):
    refused(match, **{"env": "CartPole", **brought})


@pytest.mark.parametrize("one", [Echo(), make_vector(2)])
def test_one_environment_for_two_threads_is_refused(one):
    # Deterministic actor-learners share no batch.
    config = SHORT.replace(num_actors=2, envs_per_actor=1, deterministic=True)
    refused(r"^env must be made anew by every call", config, env=lambda: one)
    if isinstance(one, SyncVectorEnv):  # by its name, it is the same one for all, too
        refused(r"^env must be made anew by every call", config, env=f"python:{__name__}:VECTOR")
    for _ in range(2):  # one after the other it may be used
        make_brought("One", lambda: one, num_envs=1, seed=0, discount=0.9).close()


@for_each(
    ("changes", "match"),
    [
        ({"num_actors": 2}, r"^num_actors must be 1 with .*env=lambda: .* with 2\.$"),
        ({"eval_period_frames": 100}, r"^eval_period_frames must be null .*env=lambda"),
    ],
)
def test_what_one_vector_environment_cannot_do_is_refused(changes, match):
    refused(match, SHORT.replace(**changes), env=make_vector())


def test_a_thread_shares_no_batch_of_a_size_of_its_own(run, monkeypatch):
    monkeypatch.setattr(placement, "available_cores", lambda: 2)
    few, many = SHORT.replace(num_actors=4), SHORT.replace(num_actors=5)
    assert load_config(run(few, env=lambda: make_vector(6)).run_dir).envs_per_actor == 6
    refused(
        r"^num_actors must be so few .*num_envs leaves it to the run\), got 5 on 2 threads\.$",
        many,
        env=lambda: make_vector(6),
    )
    assert load_config(run(many, env=make_vector).run_dir).envs_per_actor == 4


def test_a_function_is_given_number_and_seed_of_what_it_makes_as_a_vector():
    given = []

    def make(num_envs, seed, scale=1.0):
        given.append((num_envs, seed))
        return make_vector(num_envs)

    for seed in (3, 7):
        make_brought("Own", make, num_envs=2, seed=seed, discount=0.9).close()
    kwargs = {"seed": 11}
    make_brought("Own", make, num_envs=2, seed=5, discount=0.9, env_kwargs=kwargs).close()
    assert given == [(2, 3), (2, 7), (2, 11)]


def test_a_single_environment_keeps_its_own_num_envs_and_seed():
    given = []

    class Cells(Echo):
        def __init__(self, num_envs=7, seed=0):
            super().__init__()
            given.append((num_envs, seed))

    make_brought("Own", Cells, num_envs=2, seed=5, discount=0.9).close()
    assert given[-2:] == [(7, 0)] * 2
    kwargs = {"num_envs": 3}
    make_brought("Own", Cells, num_envs=2, seed=5, discount=0.9, env_kwargs=kwargs).close()
    assert given[-2:] == [(3, 0)] * 2

    def make(num_envs):
        return Cells(num_envs)

    with pytest.raises(ConfigError, match=r"^env_kwargs must be the arguments of Own, got {}: mis"):
        make_brought("Own", make, num_envs=2, seed=5, discount=0.9)


def test_a_pool_of_envpool_is_a_vector_environment(run):
    pool = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=4, seed=1)
    summary = run(SHORT.replace(eval_episodes=2), env=pool)
    assert load_config(summary.run_dir).envs_per_actor == 4
    assert len(summary.evaluation.scores) == 2


class Shown(Echo):
    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


def make_shown(**kwargs):
    return Shown(**kwargs)


@for_each("make", [Shown, make_shown, lambda **kwargs: SyncVectorEnv([Echo])])
def test_pictures_are_asked_for_by_any_argument_that_takes_the_mode(make):
    options = {"num_envs": 1, "seed": 0, "discount": 0.9, "renders": True}
    environments = make_brought("Own", make, **options)
    is_single = make in (Shown, make_shown)
    assert (environments.render() is not None) == is_single
    environments.close()


@pytest.mark.parametrize("env", ["gymnasium:Echo-v0", make_echo])
def test_arguments_reach_every_environment_and_a_resumed_run(run, env):
    MADE.clear()
    summary = run(SHORT, env=env, env_kwargs={"worth": 100.0})
    assert len(MADE) >= 10
    assert {made.worth for made in MADE} == {100.0}
    assert summary.evaluation.mean > 100
    config = load_config(summary.run_dir)
    assert config.env_kwargs == {"worth": 100.0}
    assert load(summary.run_dir).evaluate(2).mean > 100
    with pytest.raises(ConfigError, match=r"^env_kwargs must be \{worth: 100.0\}, as in the run"):
        resume_config(str(summary.run_dir), {"env_kwargs": {"worth": 1.0}})
    resumed = resume_config(str(summary.run_dir), {"total_frames": 600})
    refused(r"^env_kwargs must be .*, as in the run to resume", resumed, env_kwargs={"worth": 2.0})
    assert run(resumed, env=env, env_kwargs={"worth": 100.0}).num_frames >= 600


def test_arguments_of_envpool_are_its_options(run):
    short = SHORT.replace(env="CartPole", env_kwargs={"max_episode_steps": 5})
    assert max(run(short).evaluation.scores) == 5


@for_each(
    ("text", "value"),
    [
        ("{difficulty: 3}", {"difficulty": 3}),
        ("{rate: 1e-3, is_on: true, name: 'x, y'}", {"rate": 0.001, "is_on": True, "name": "x, y"}),
        ("{sizes: [1, 2.5], map: {a: null}}", {"sizes": [1, 2.5], "map": {"a": None}}),
        ("null", None),
        ("{}", None),
    ],
)
def test_arguments_are_read_and_written_as_yaml(text, value, tmp_path):
    from a3cjax.config.declaring import show
    from a3cjax.runs.folder import write_config

    config = read_config({"env_kwargs": text})
    assert config.env_kwargs == value
    assert read_config({"env_kwargs": show(config.env_kwargs)}) == config
    write_config(config, tmp_path)
    assert load_config(tmp_path).env_kwargs == value


@for_each(
    "text", ["{a", "3", "[1]", "{a: 2020-01-01}", "{1: 2}", "{a: {b: {c: {d: 1}}}}", "&a {x: *a}"]
)
def test_other_arguments_are_refused_in_a_line(text):
    with pytest.raises(ConfigError, match=r"^env_kwargs must (hold|be) .*, got [^\n]*\.$"):
        read_config({"env_kwargs": text})


def test_function_of_others_is_not_called_unless_trusted(run, tmp_path, monkeypatch):
    summary = run(SHORT, env=make_echo)
    assert load(summary.run_dir).evaluate(1).scores
    (summary.run_dir / "run.lock").unlink()  # as in a folder that somebody sent
    with pytest.raises(ConfigError, match=r"^env must import no code of others.*env=\.\.\."):
        load(summary.run_dir).evaluate(1)
    assert load(summary.run_dir, trust=True).evaluate(1).scores
    assert load(summary.run_dir, env=make_echo).evaluate(1).scores
    # os.system is imported, and yet not to be called.
    path = summary.run_dir / "config.yaml"
    path.write_text(path.read_text().replace(f"python:{__name__}:make_echo", "python:os:system"))
    with pytest.raises(ConfigError, match=r"^env must import no code of others"):
        load(summary.run_dir).evaluate(1)


def test_run_on_a_lambda_goes_on_when_it_is_passed_again(run, capsys):
    summary = run(SHORT, env=lambda: Echo())
    assert "nothing new is learned" not in capsys.readouterr().out
    again = resume_config(str(summary.run_dir), {"total_frames": SHORT.total_frames})
    assert run(again, env=make_echo).num_frames == summary.num_frames
    assert "nothing new is learned: total_frames=500 are used up\n" in capsys.readouterr().out
    shorter = resume_config(str(summary.run_dir), {"total_frames": 200})
    had = rf"^total_frames must be more than the {summary.num_frames} that .* has had, got 200\.$"
    refused(had, shorter, env=make_echo)
    assert load_config(summary.run_dir).total_frames == SHORT.total_frames
    longer = resume_config(str(summary.run_dir), {"total_frames": 600})
    refused(r"^env must be passed once more", longer)
    assert run(longer, env=make_echo).num_resumes == 1
    refused(
        r"^env must be python:.*, as in the run to resume, got CartPole", longer, env="CartPole"
    )


# Networks and algorithms.


class Torso(nn.Module):
    """Takes down what it sees."""

    @nn.compact
    def __call__(self, x):
        SEEN.append((x.shape[1:], x.dtype))
        return nn.relu(nn.Dense(16)(x.reshape(len(x), -1)))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("auto", "Torso_ff"),
        ("mlp_gru", "Torso_gru"),
        slow("atari_lstm", "Torso_lstm"),
    ],
)
def test_torso_of_ones_own_is_learned_with_loaded_and_published(run, network, name, capsys):
    summary = run(CONFIG.replace(network=network), env=Echo, network=Torso())
    assert summary.evaluation.mean > LEARNED
    assert load_config(summary.run_dir).network == f"python:{__name__}:{name}"
    agent = load(summary.run_dir, network=Torso())
    assert agent.evaluate(4).mean > LEARNED
    with pytest.raises(ConfigError, match=r"^network must be passed once more, as network=\.\.\."):
        load(summary.run_dir)
    published = publish(summary.run_dir, "published", network=Torso())
    card = (published / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace(".mean)", ".scores)")
    exec(code, {"env": Echo, "network": Torso()})
    assert capsys.readouterr().out.splitlines()[-1] == str(summary.evaluation.scores)
    assert f"with `network` (`python:{__name__}:{name}`) and `env` (`python:" in card
    assert "a3cjax evaluate" not in card
    longer = resume_config(str(summary.run_dir), {"total_frames": 3100})
    refused(r"^network must be passed once more", longer)
    assert run(longer, network=Torso()).num_frames >= 3100


def test_what_an_environment_warns_of_is_told_once(run, capsys):
    class Wide(Echo):
        observation_space = Box(0.0, 9.0, (40, 40), np.float32)

        def look(self):
            return np.full((40, 40), super().look()[1])

    run(SHORT.replace(num_actors=2), env=Wide)
    told = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert [line.partition(" of ")[0] for line in told] == ["warning: observations"]


def test_torso_sees_pictures_as_they_are(run):
    SEEN.clear()
    make = functools.partial(Echo, is_image=True)
    assert run(env=make, network=Torso()).evaluation.mean > LEARNED
    assert set(SEEN) == {((8, 8, 3), jnp.dtype("float32"))}


@for_each("has_statistics", [True, False])
def test_torso_reads_each_pixel_where_it_was(has_statistics):
    from a3cjax.convolutions import frames_to_blocks
    from a3cjax.types import ObservationStatistics

    class Plain(nn.Module):
        def __call__(self, x):
            return x

    pictures = np.random.default_rng(0).integers(256, size=(2, 8, 12, 3)).astype(np.uint8)
    blocks = frames_to_blocks(pictures.transpose(0, 3, 1, 2))
    mean = np.random.default_rng(1).uniform(0, 255, (1, 8, 12, 3)).astype(np.float32)
    statistics = ObservationStatistics(frames_to_blocks(mean.transpose(0, 3, 1, 2))[0], 20.0)
    network = make_network("own_ff", 2, torso=Plain())
    observations, is_first = blocks[None], np.zeros((1, 2), bool)
    params = random_params(network, observations)
    policy = params["policy"]
    used = statistics if has_statistics else None
    output, _ = network.apply(params, used, observations, is_first, ())
    expected = (pictures - mean) / 20 if has_statistics else pictures / 255
    np.testing.assert_allclose(
        output.policy.logits[0],
        expected.reshape(2, -1) @ policy["kernel"] + policy["bias"],
        rtol=1e-3,
        atol=1e-4,
    )


@for_each("torso", [Torso(), nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(8)])])
def test_policy_and_values_of_gaussians_share_no_torso(torso):
    network = make_network("own_ff", 1, "gaussian_actor_critic", torso=torso)
    params = random_params(network, np.zeros((1, 1, 2), np.float32))
    bodies = [params[name] for name in params if "body" in name]
    assert len(bodies) == 2
    kernels = [[x.shape for x in jax.tree.leaves(body)] for body in bodies]
    assert kernels[0] == kernels[1] != []


def test_torso_must_keep_the_batch():
    class Wrong(nn.Module):
        def __call__(self, x):
            return x.sum()

    refused(
        r"^network must map observations \[N, \.\.\.\]", error=ValueError, env=Echo, network=Wrong()
    )


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("count", lambda _: np.ones((1, 8), int))


@for_each(
    ("layer", "got"),
    [
        (nn.BatchNorm(use_running_average=False), "batch_stats"),
        (nn.Dropout(0.5, deterministic=False), "dropout"),
        (Counting(), "got one of int"),
    ],
)
def test_torso_must_have_parameters_alone(tmp_path, layer, got):
    torso, config = nn.Sequential([nn.Dense(8), layer]), CONFIG.replace(run_dir=str(tmp_path / "r"))
    match = rf"^network must have parameters alone[^\n]*{got}"
    refused(match, config, error=ValueError, env=Echo, network=torso)
    assert not (tmp_path / "r").exists()


def test_whole_network_is_taken_as_it_is(run):
    network = make_network("mlp_ff", 2)
    summary = run(env=Echo, network=network)
    assert summary.evaluation.mean > LEARNED
    assert load(summary.run_dir, network=network).evaluate(4).mean > LEARNED


@pytest.fixture
def algorithms():
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


@pytest.mark.usefixtures("algorithms")
def test_algorithm_of_ones_own_is_registered_and_learned_with(run):
    used = []

    def make_mine(network, *, entropy_cost, max_abs_reward=None):
        used.append(entropy_cost)
        return make_a3c(network, entropy_cost=entropy_cost, max_abs_reward=max_abs_reward)

    algorithm = Algorithm(make_mine, head="actor_critic")
    summary = run(env=Echo, algorithm=algorithm)
    assert summary.evaluation.mean > LEARNED
    assert used == [0.01]
    assert load_config(summary.run_dir).algorithm == "mine"
    assert load(summary.run_dir).evaluate(4).mean > LEARNED
    named = run(SHORT, env=Echo, algorithm="one_step_q", network="mlp_gru").run_dir
    assert load_config(named).algorithm == "one_step_q"
    assert load(named, network="mlp_gru").config == load(named).config  # as it was passed to train

    def make_in_passes(network, *, num_passes):
        assert num_passes == 1
        agent = make_a3c(network)

        def loss(*inputs):
            value, metrics = agent.loss(*inputs)
            return value, metrics._asdict() | {"twice": 2 * value}

        return agent._replace(loss=loss)

    run_dir = run(SHORT, env=Echo, algorithm=Algorithm(make_in_passes, "actor_critic")).run_dir
    names = (run_dir / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert {"policy_loss", "twice"} <= set(names)

    def make_a3c_(network):
        return make_a3c(network)

    make_a3c_.__name__ = "make_a3c"
    refused(
        r"^algorithm must have a name that is not taken",
        algorithm=Algorithm(make_a3c_, "actor_critic"),
    )


def with_metrics(change):
    """Makers of an A3C whose metrics are changed, by a function of no metrics but the loss."""

    def make_mine(network):
        agent = make_a3c(network)
        return agent._replace(loss=lambda *inputs: change(agent.loss(*inputs)[0]))

    return make_mine


def looking(change):
    """Makers of an A3C that answers what a function makes of its own output and core state."""

    def make_mine(network):
        agent = make_a3c(network)
        return agent._replace(look=lambda *inputs: change(*agent.look(*inputs)), observe=None)

    return make_mine


def make_nothing(network):
    return None


def make_needing(network, *, omega):
    return make_a3c(network)


def make_in_order(network, entropy_cost):
    return make_a3c(network, entropy_cost=entropy_cost)


@pytest.mark.usefixtures("algorithms")
@for_each(
    ("make", "error", "match"),
    [
        (make_nothing, ConfigError, r"^nothing must make an Agent, got None\.$"),
        (make_needing, ConfigError, r"^needing must be made from .*: missing .* 'omega'\.$"),
        (make_in_order, ConfigError, r"^in_order must be made from .*: missing .* 'entropy_cost'"),
        (looking(lambda out, _: out), ConfigError, r"^look of mine must return \(output, core"),
        (looking(lambda out, state: (out.policy, state)), ConfigError, r"^output of look of mine "),
        (
            looking(lambda out, state: (out._replace(values=out.values[:, None]), state)),
            ConfigError,
            r"^values of look of mine must have shape \[4\], got \[4, 1\]\.$",
        ),
        (with_metrics(lambda x: (x, None)), TypeError, r"^metrics of a loss must .*a NoneType\.$"),
        (with_metrics(lambda x: (x, {"own": x[None]})), TypeError, r"^own, a metric .* \(1,\)\.$"),
        (with_metrics(lambda x: (x, {"own": {"a": x}})), TypeError, r"^own, a metric .*{'a': "),
    ],
)
def test_what_an_algorithm_makes_must_be_an_agent(tmp_path, make, error, match):
    config = SHORT.replace(run_dir=str(tmp_path / "run"))
    with pytest.raises(error) as caught:
        train(config, env=Echo, algorithm=Algorithm(make, "actor_critic"))
    assert re.search(match, str(caught.value))


def answering(change):
    """A network whose output and core state are changed."""
    network = make_network("mlp_ff", 2)
    return network._replace(apply=lambda *inputs: change(*network.apply(*inputs)), observe=None)


def changing(**parts):
    """As `answering`, with parts of the output changed by functions."""

    def change(output, state):
        return output._replace(**{k: f(getattr(output, k)) for k, f in parts.items()}), state

    return answering(change)


@for_each(
    ("network", "match"),
    [
        (answering(lambda output, _: output), r"^network must return \(output, core_state\)"),
        (answering(lambda output, state: (tuple(output), state)), r"^output .* a NetworkOutput"),
        (changing(policy=lambda policy: policy.logits), r"^output .* a distribution as its policy"),
        (changing(values=lambda x: x[..., None]), r"^values .* \[1, 4\], got \[1, 4, 1\]\.$"),
        (make_network("mlp_ff", 3), r"^logits .* \[1, 4, 2\], got \[1, 4, 3\]\.$"),
    ],
)
def test_answer_of_a_network_must_be_what_its_class_says(tmp_path, network, match):
    with pytest.raises(ConfigError) as caught:
        train(SHORT.replace(run_dir=str(tmp_path / "run")), env=Echo, network=network)
    assert re.search(match, str(caught.value))


# Callbacks and loggers.


class Tape:
    """Takes down all that it is told."""

    def __init__(self, answer=lambda event: None, *methods):
        self.events, self.answer = [], answer
        for name in methods or ("on_update", "on_episode", "on_evaluation"):
            setattr(self, name, functools.partial(self.take, name))

    def take(self, name, event):
        self.events.append((name, event))
        return self.answer(event)

    def of(self, name):
        return [event for own, event in self.events if own == name]


def test_slow_callback_that_answers_does_not_stand_still(run, monkeypatch):
    """Each answer is a sign of life, however many updates wait to be told of."""
    looks, seen = itertools.count(), []
    look_around = Supervisor.look_around

    def look(supervisor):
        next(looks)
        look_around(supervisor)

    class Slow:
        def on_update(self, event):
            time.sleep(0.02)
            seen.append(repr(looks))

    monkeypatch.setattr(Supervisor, "look_around", look)
    run(SHORT, env=Echo, callbacks=[Slow()])
    assert len(seen) > 5
    assert len(set(seen)) == len(seen)


def test_actors_wait_for_slow_callbacks(run, monkeypatch, capsys):
    """What nobody was told of yet is bounded, so that a stop or a checkpoint comes in time."""
    most, actors, ahead = 4, CONFIG.num_actors, []

    class Slow:
        def on_update(self, event):
            def num_ahead():
                return event.agent().snapshot.version - event.num_updates

            if not ahead:
                wait_until(lambda: num_ahead() >= most)
                time.sleep(0.5)  # long enough for many more
            ahead.append(num_ahead())

    monkeypatch.setattr(fleets, "MAX_BACKLOG", most)
    summary = run(CONFIG.replace(total_frames=2000), env=Echo, callbacks=[Slow()])
    assert len(ahead) == summary.num_updates > 40
    # Those being told, those that wait, and one on its way from each actor-learner.
    assert max(ahead) <= 2 * (most + actors) + actors
    assert capsys.readouterr().out.count("actor-learners wait for the log") == 1


def test_callbacks_are_told_all_in_its_order(run):
    tape = Tape()
    summary = run(
        CONFIG.replace(total_frames=2000, eval_period_frames=700), env=Echo, callbacks=[tape]
    )
    updates, episodes = tape.of("on_update"), tape.of("on_episode")
    assert [update.num_updates for update in updates] == list(range(1, summary.num_updates + 1))
    assert updates[-1].num_frames == summary.num_frames
    assert {"policy_loss", "value_loss", "entropy", "grad_norm"} <= set(updates[0].metrics)
    rows = [row.split(",") for row in (summary.run_dir / "episodes.csv").read_text().split()[1:]]
    told = [(e.num_frames, e.actor, e.episode_return, e.episode_length) for e in episodes]
    assert told == [(int(f), int(a), float(r), int(n)) for f, _, a, r, n in rows]
    evaluations = tape.of("on_evaluation")
    assert evaluations[-1].scores == summary.evaluation.scores
    assert evaluations[-1].mean == summary.evaluation.mean
    rows = (summary.run_dir / "evaluations.csv").read_text().splitlines()[1:]
    assert [e.num_frames for e in evaluations] == [int(row.split(",")[0]) for row in rows]
    agent = evaluations[-1].agent()
    assert agent.evaluate().scores == summary.evaluation.scores
    assert agent.snapshot.version == evaluations[-1].num_updates
    for changes, is_told in ({}, False), ({"eval_episodes": 9}, True):
        again = Tape()
        resumed = run(resume_config(summary.run_dir, changes), env=Echo, callbacks=[again])
        assert len(resumed.evaluation.scores) == changes.get("eval_episodes", 6)
        told = [event.scores for event in again.of("on_evaluation")]
        assert told == [resumed.evaluation.scores] * is_told
    rows = (summary.run_dir / "evaluations.csv").read_text().splitlines()[1:]
    assert [row.split(",")[3] for row in rows] == ["6"] * len(evaluations) + ["9"]


@pytest.mark.parametrize(
    ("method", "is_enough"),
    [
        ("on_update", lambda event: event.num_updates == 20),
        ("on_episode", lambda event: event.episode_return == GAME),
        ("on_evaluation", lambda event: event.mean > 3),
    ],
)
def test_stop_ends_a_run_as_its_budget_would(run, method, is_enough, capsys):
    stops = []

    def answer(event):
        if is_enough(event):
            stops.append(event)
            return "stop"
        return None

    endless = CONFIG.replace(total_frames=10**8, anneal_learning_rate=False, eval_period_frames=500)
    summary = run(endless, env=Echo, callbacks=[Tape(answer, method)])
    assert stops[0].num_frames <= summary.num_frames < 10**6
    assert summary.stopped_by == "Tape"
    assert summary.evaluation is not None
    assert summary.signal_number is None
    content = json.loads((summary.run_dir / "summary.json").read_text())
    assert content["stopped_by"] == "Tape"
    assert content["num_frames"] == summary.num_frames
    assert "Tape stops the run after" in "".join(capsys.readouterr())
    assert load(summary.run_dir).snapshot.num_frames == summary.num_frames


def test_run_that_is_over_is_not_stopped_by_its_last_evaluation(run):
    summary = run(SHORT, env=Echo, callbacks=[Tape(lambda event: "stop", "on_evaluation")])
    assert summary.stopped_by is None
    assert summary.num_frames >= 500


@pytest.mark.parametrize("answer", [True, "Stop", 0])
def test_other_answers_are_refused_with_all_saved_and_loggers_told(run, answer, tmp_path):
    logger = ListLogger()
    config = CONFIG.replace(total_frames=10**8, run_dir=str(tmp_path / "own"))
    refused(
        rf'^on_update of Tape must return None or "stop", got {answer!r}\.$',
        config,
        error=TypeError,
        env=Echo,
        callbacks=[Tape(lambda event: answer, "on_update")],
        loggers=[logger],
    )
    assert load(tmp_path / "own").snapshot.version > 0
    assert logger.closed == [True]


@pytest.mark.parametrize(
    ("failure", "raised", "is_logger"),
    [
        (KeyError("mine"), KeyError, True),
        (KeyboardInterrupt(), RuntimeError, False),
        (SystemExit(3), RuntimeError, True),
    ],
    ids=["error", "interrupt", "exit"],
)
def test_what_others_raise_ends_the_run_saved(tmp_path, failure, raised, is_logger):
    left = [failure]

    def fail(_):
        if left:
            raise left.pop()

    logger = ListLogger()
    logger.write_metrics = fail
    own = {"loggers": [logger]} if is_logger else {"callbacks": [Tape(fail, "on_episode")]}
    config = CONFIG.replace(
        total_frames=10**8, log_period_frames=200, run_dir=str(tmp_path / "own")
    )
    with pytest.raises(raised) as caught:
        train(config, env=Echo, **own)
    assert failure in (caught.value, caught.value.__cause__)
    assert load(tmp_path / "own").snapshot.version > 0


def test_the_last_evaluation_is_kept_whatever_others_make_of_it(tmp_path):
    def fail(_):
        raise KeyError("mine")

    config = CONFIG.replace(run_dir=str(tmp_path / "own"), eval_episodes=2)
    with pytest.raises(KeyError, match="mine"):
        train(config, env=Echo, callbacks=[Tape(fail, "on_evaluation")])
    summary = json.loads((tmp_path / "own" / "summary.json").read_text())
    assert summary["evaluation"]["mean"] == summary["best_score"]


def test_who_has_said_stop_is_told_of_the_last_evaluation_alone(run):
    stopping, other = Tape(lambda event: "stop", "on_update", "on_evaluation"), Tape()
    summary = run(CONFIG.replace(total_frames=10**8), env=Echo, callbacks=[stopping, other])
    assert [name for name, _ in stopping.events] == ["on_update", "on_evaluation"]
    assert len(other.of("on_update")) == summary.num_updates > 1


def test_working_folder_is_not_for_others_to_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def leave(*_):
        os.chdir("/")

    logger = ListLogger()
    logger.write_metrics = logger.write_episodes = logger.write_evaluation = leave
    config = CONFIG.replace(total_frames=2000, log_period_frames=500, run_dir="own")
    summary = train(config, env=Echo, callbacks=[Tape(leave)], loggers=[logger])
    last = (tmp_path / "own" / "metrics.csv").read_text().splitlines()[-1]
    assert last.split(",")[0] == str(summary.num_frames)
    assert summary.evaluation is not None


class Misspelt:
    def on_episodes(self, episode): ...


def test_folder_that_is_gone_is_kept_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with same_folder():
        os.chdir("/")
    assert os.readlink("/proc/self/cwd").startswith(str(gone))


class Forgotten:
    on_update = None


@for_each(
    ("brought", "match"),
    [
        ({"callbacks": [Tape]}, r"^callbacks must be objects, as Tape\(\), got the class Tape\.$"),
        ({"callbacks": [Misspelt()]}, r"got Misspelt\.on_episodes \(nearest: on_episode\)\.$"),
        ({"callbacks": [print]}, r"^callbacks must have one of on_update, on_episode, on_eval"),
        (
            {"loggers": [Tape()]},
            r"^loggers must be objects of a subclass of .* without write_metric",
        ),
        ({"callbacks": [Forgotten()]}, r"^Forgotten\.on_update must be a method, got None\.$"),
        ({"callbacks": Tape()}, r"^callbacks must be a list, as callbacks=\[\.\.\.\], got <.*Tape"),
        ({"loggers": CsvLogger}, r"^loggers must be a list, as loggers=\[\.\.\.\], got <class"),
    ],
)
def test_what_would_never_be_called_is_refused(brought, match):
    refused(match, error=TypeError, env=Echo, **brought)


class ListLogger(Logger):
    def __init__(self):
        self.rows, self.episodes, self.scores, self.closed = [], [], [], []

    def write_metrics(self, row):
        self.rows.append(row)

    def write_episodes(self, episodes):
        self.episodes += episodes

    def write_evaluation(self, num_frames, score):
        self.scores.append((num_frames, score))

    def close(self, *, has_failed=False):
        self.closed.append(has_failed)


@pytest.mark.parametrize("method", ["write_metrics", "write_episodes", "write_evaluation"])
def test_logger_that_fails_is_not_asked_again(run, method):
    class Failing(ListLogger):
        pass

    def fail(self, *values):
        raise ValueError("no room")

    setattr(Failing, method, fail)
    failing, other = Failing(), ListLogger()
    with pytest.raises(ValueError, match=r"^no room$"):  # and no group
        run(SHORT.replace(eval_period_frames=200), env=Echo, loggers=[failing, other])
    assert failing.closed == other.closed == [True]


def test_logger_of_ones_own_is_told_what_the_files_are(run):
    greedy, logger = ListLogger(), ListLogger()
    greedy.write_metrics = dict.clear  # a row of its own
    summary = run(CONFIG.replace(log_period_frames=500), env=Echo, loggers=[greedy, logger])
    lines = (summary.run_dir / "metrics.csv").read_text().splitlines()
    assert [str(row["num_frames"]) for row in logger.rows] == [x.split(",")[0] for x in lines[1:]]
    assert len(logger.episodes) == len((summary.run_dir / "episodes.csv").read_text().split()) - 1
    assert logger.scores == [(summary.num_frames, summary.evaluation.mean)]
    assert logger.closed == [False]
