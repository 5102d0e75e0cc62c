"""Acting upon plain observations: the same as upon those of a3cjax's environments."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import a3cjax
from a3cjax.config.builders import build_agent, init_state
from a3cjax.config.reading import load_config
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.actions import clip_actions
from a3cjax.envs.base import EVALUATION_SEED_OFFSET, SEEDS_PER_RUN
from a3cjax.envs.observations import read_observations
from a3cjax.envs.specs import make_spec
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.runs.environment_files import write_environment
from a3cjax.runs.loading import build_untrained
from a3cjax.runs.playing import TrainedAgent
from a3cjax.runs.publishing import publish
from a3cjax.training.run import train
from a3cjax.types import Snapshot, TimeStep
from tests.documents import ROOT
from tests.fakes import run_in_threads

VECTOR = Box(-1, 1, (3,))
CHOICES, NUMBERS = Discrete(5, start=2), Box(-0.5, 2.0, (2,), np.float64)
KEY = jax.random.key(4)


def make_player(observation_space=VECTOR, action_space=CHOICES, own=None, **settings):
    """An agent with untrained parameters, large enough for its choices to differ."""
    spec = make_spec(observation_space, action_space)
    settings = {"env": "Mine", "num_actors": 1, "centre_observations": False, **settings}
    config = resolve(Config(**settings), spec)
    agent = build_agent(config, spec, own)
    params = jax.tree.map(lambda x: 3.0 * x, init_state(config, agent, spec).params)
    return TrainedAgent(config, agent, Snapshot(1, 6_000_400, params), spec)


def test_a_tuple_of_masks_in_a_batch_is_refused():
    # In a tuple, an array for each choice, the masks of two observations would be mixed up.
    space = MultiDiscrete([2, 2])
    agent = make_player(action_space=space)
    masks = [(np.array([1, 0]), np.array([0, 1]))] * 2
    for given in (masks, np.array(masks)):
        actions, _ = agent.predict(np.zeros((2, 3)), action_mask=given)
        np.testing.assert_array_equal(actions, [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"^action_mask must be a list or an array in a batch"):
        agent.predict(np.zeros((2, 3)), action_mask=tuple(np.array(masks).swapaxes(0, 1)))


def sample(space, number, seed=0):
    space.seed(seed)
    return [space.sample() for _ in range(number)]


def as_batch(space, observations):
    if isinstance(space, Dict):
        return {key: as_batch(part, [o[key] for o in observations]) for key, part in space.items()}
    if isinstance(space, Tuple):
        return tuple(as_batch(part, [o[i] for o in observations]) for i, part in enumerate(space))
    return np.stack(observations)


def act(agent, observations, is_first, core_state, is_greedy):
    """As with environments of a3cjax."""
    space, zeros = agent.spec.observation_space, np.zeros(len(is_first), np.float32)
    batch = read_observations(space, as_batch(space, observations), "here")
    timestep = TimeStep(batch, zeros, zeros + 1, np.asarray(is_first))
    actions, core_state, _ = agent.act(timestep, core_state, KEY, is_greedy)
    return clip_actions(agent.spec.action_space, actions), core_state


@pytest.mark.parametrize(
    ("network", "action_space", "deterministic"),
    [("mlp_ff", NUMBERS, False), ("mlp_gru", CHOICES, False), ("mlp_lstm", NUMBERS, True)],
    ids=["ff", "gru", "lstm"],
)
def test_prediction_is_the_action_upon_the_same_timestep(network, action_space, deterministic):
    agent = make_player(action_space=action_space, network=network)
    steps = [sample(VECTOR, 2, seed) for seed in range(6)]
    state, core_state, taken = None, agent.initial_state(2), []
    for number, observations in enumerate(steps):
        starts = None if number != 3 else [False, True]
        actions, state = agent.predict(
            np.stack(observations), state, deterministic, episode_start=starts, key=KEY
        )
        is_first = [number == 0, number in (0, 3)]
        expected, core_state = act(agent, observations, is_first, core_state, deterministic)
        np.testing.assert_array_equal(actions, expected)
        jax.tree.map(np.testing.assert_array_equal, state, core_state)
        assert all(map(action_space.contains, actions.astype(action_space.dtype)))
        taken.append(actions)
    assert len(np.unique(taken)) > 1
    if network != "mlp_ff":  # the state matters, and is that of each game alone
        assert not np.array_equal(agent.predict(np.stack(observations))[1], state)
        one = None
        for observations in steps[3:]:
            _, one = agent.predict(observations[1], one, key=KEY)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[1], atol=1e-5), one, state)


SPACES = [
    VECTOR,
    Box(0, 255, (4, 84, 84), np.uint8),
    Box(0, 255, (21, 30, 3), np.uint8),
    Box(-1, 1, (), np.float64),
    Discrete(6, start=-3),
    MultiDiscrete([3, 4], start=[1, -1]),
    MultiBinary(4),
    Dict({"z": Box(0, 9, (2, 2), np.int16), "a": Tuple([Discrete(3), Box(-1, 1, (1,))])}),
    Tuple([Discrete(3), Discrete(4)]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_observation_of_any_space_alone_and_in_a_batch(space):
    agent = make_player(space)
    observations = sample(space, 3)
    batch, _ = agent.predict(as_batch(space, observations))
    expected, _ = act(agent, observations, [True] * 3, agent.initial_state(3), True)
    np.testing.assert_array_equal(batch, expected)
    singles = [agent.predict(observation)[0] for observation in observations]
    assert singles == batch.tolist()
    assert all(type(action) is int and CHOICES.contains(action) for action in singles)


def test_single_action_of_numbers_is_as_the_space_has_it():
    agent = make_player(action_space=NUMBERS)
    action, _ = agent.predict([0.1, -0.2, 0])
    assert NUMBERS.contains(action)
    assert (action.shape, action.dtype) == ((2,), np.float64)


@pytest.fixture
def compiled():
    """What JAX has compiled since."""
    events = []

    def note(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.clear_caches()  # an agent like this one may have acted before
    jax.monitoring.register_event_duration_secs_listener(note)
    yield events
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("network", ["mlp_ff", "mlp_lstm"])
def test_each_number_of_observations_is_compiled_for_once(network, compiled):
    agent = make_player(network=network)
    observation = VECTOR.sample()
    for deterministic in (True, False):
        _, state = agent.predict(observation, None, deterministic)
        assert compiled
        compiled.clear()
        for form in (
            observation,
            observation.tolist(),
            observation.astype(float),
            observation[None],
        ):
            for episode_start in (None, True, [False]):
                _, state = agent.predict(form, state, deterministic, episode_start=episode_start)
            agent.predict(form, jax.tree.map(np.array, state), deterministic)
            agent.predict(form, None, deterministic)
        assert not compiled
    timestep = TimeStep(observation[None], np.zeros(1, "f4"), np.ones(1, "f4"), np.ones(1, bool))
    agent.act(timestep, agent.initial_state(1), KEY, True)
    assert not compiled  # acting has the same programs


def test_as_many_agents_as_one_likes_are_compiled_once(compiled):
    agents = [make_player() for _ in range(12)]
    for agent in agents:
        agent.predict(VECTOR.sample())
    compiled.clear()
    for agent in agents:
        agent.predict(VECTOR.sample())
    assert not compiled


def test_sampled_actions_follow_from_the_seed_and_the_calls_before():
    def draw(number, **settings):
        agent = make_player(action_space=NUMBERS, **settings)
        agent.predict(np.zeros(3))  # deterministic ones draw nothing
        return [tuple(agent.predict(np.zeros(3), None, False)[0]) for _ in range(number)]

    assert draw(5) == draw(7)[:5]
    assert len(set(draw(20))) > 10
    assert draw(5) != draw(5, seed=2)
    agent = make_player(action_space=NUMBERS)
    first, second = (agent.predict(np.zeros(3), None, False, key=KEY)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert tuple(agent.predict(np.zeros(3), None, False)[0]) == draw(1)[0]


def test_threads_share_no_draw():
    actions, lock = [], threading.Lock()

    def predict():
        for _ in range(50):
            action, _ = agent.predict(np.zeros(3), None, False)
            with lock:
                actions.append(float(action[0]))

    wide = Box(-np.inf, np.inf, (1,))
    agent, alone = make_player(action_space=wide), make_player(action_space=wide)
    run_in_threads([predict] * 4)
    expected = [float(alone.predict(np.zeros(3), None, False)[0][0]) for _ in range(200)]
    assert sorted(actions) == sorted(expected)


def test_what_is_no_observation_is_refused_in_a_line():
    space = Dict({"n": Discrete(3, start=1), "v": Box(0, 255, (2,), np.uint8)})
    agent = make_player(space)
    good = {"n": 1, "v": [0, 255]}
    assert agent.predict(good)[0] == agent.predict({"n": [1], "v": [[0, 255]]})[0][0]
    faults = {
        r"observation must be a dict of \['n', 'v'\], got 3 in predict": 3,
        r"observation\['v'\] must be of shape \(2,\) and uint8, or a batch of them, got .*\(3,\)": {
            "v": np.zeros(3, np.uint8)
        },
        r"observation\['v'\] must be of shape .* float64": {"v": [0.0, 0.5]},
        r"observation\['v'\] must be of shape .*'no'": {"v": "no"},
        r"observation\['v'\] must be of shape .*None": {"v": [None, 1]},
        r"observation\['v'\] must be in \[0, 255\] as uint8, got 256": {"v": [0, 256]},
        r"must be in \[1, 3\], got 0 in predict": {"n": 0},
        "observation must be one, or one batch of them, got .* and ": {"n": [1]},
        "one batch of them, got 0": {"n": np.zeros(0, int), "v": np.zeros((0, 2), np.uint8)},
    }
    for message, change in faults.items():
        with pytest.raises(ValueError, match=message) as caught:
            agent.predict(good | change if isinstance(change, dict) else change)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="finite"):
        make_player().predict([0.0, np.nan, 0.0])


@pytest.mark.parametrize("network", ["mlp_ff", "mlp_lstm"])
def test_state_and_starts_of_other_games_are_refused(network):
    agent = make_player(network=network)
    one, three = VECTOR.sample(), np.stack(sample(VECTOR, 3))
    states = [agent.predict(three)[1]] if network == "mlp_lstm" else [np.zeros((1, 256))]
    for state in [*states, one]:
        with pytest.raises(ValueError, match=r"^state must be None, or what .* games, 1: "):
            agent.predict(one, state)
    _, state = agent.predict(three)
    for starts in ([True, False], [0, 1, 0], "yes"):
        for before in (state, None):
            with pytest.raises(ValueError, match=r"^episode_start must be True, False or 3 of "):
                agent.predict(three, before, episode_start=starts)


def test_agent_is_told_in_a_line():
    assert (
        repr(make_player(network="mlp_gru")) == "TrainedAgent(Mine, a3c, mlp_gru, 6,000,400 frames)"
    )
    assert repr(make_player(env="a\nb")).count("\n") == 0


# Trained agents.


MODULE = """
import gymnasium

class SameCartPole(gymnasium.Wrapper):
    metadata = {"render_modes": []}  # Gymnasium 1.3 asks the class for them

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.seed = 0

    def reset(self, *, seed=None, options=None):
        self.seed = self.seed if seed is None else seed
        return self.env.reset(seed=self.seed, options=options)

gymnasium.register("SameCartPole-v0", entry_point=SameCartPole)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run with memory and centred observations.

    Its environment, in a module of its own, plays the game of its last seed again and again.
    """
    folder = tmp_path_factory.mktemp("runs")
    (folder / "module_of_ones_own.py").write_text(MODULE)
    config = Config(
        env="gymnasium:module_of_ones_own:SameCartPole-v0",
        network="mlp_gru",
        total_frames=700,
        num_actors=1,
        envs_per_actor=4,
        unroll_length=20,
        warmup_steps=16,
        eval_episodes=2,
        video=False,
        tensorboard=False,
        run_dir=str(folder / "run"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield train(config).run_dir
    del sys.modules["module_of_ones_own"]


def test_games_of_a_loop_of_ones_own_are_those_of_an_evaluation(finished):
    agent = a3cjax.load(finished)
    scores = []
    for index in range(3):
        env = gymnasium.make("SameCartPole-v0")
        seed = agent.config.seed * SEEDS_PER_RUN + EVALUATION_SEED_OFFSET + index
        observation, _ = env.reset(seed=seed)
        state, is_over, score = None, False, 0.0
        while not is_over:
            action, state = agent.predict(observation, state)
            observation, reward, terminated, truncated, _ = env.step(action)
            is_over, score = terminated or truncated, score + float(reward)
        scores.append(score)
        env.close()
    assert scores == agent.evaluate(3, is_greedy=True).scores


def test_environment_that_is_no_longer_the_same_is_refused(finished):
    agent = a3cjax.load(finished)
    config = agent.config.replace(env="gymnasium:Acrobot-v1")
    other = dataclasses.replace(agent, config=config)
    message = r"^env must show and take what its agent has learned on, .*\[4\].*got .*\[6\]"
    with pytest.raises(ConfigError, match=message):
        other.evaluate(2)


def test_what_a_folder_only_claims_of_its_environment_costs_no_memory(finished, tmp_path):
    shutil.copytree(finished, folder := tmp_path / "run")
    config, large = load_config(folder), Box(0, 1, (9_000_000,))  # 14 GB of parameters and moments
    spec = make_spec(large, Discrete(2))
    _, template = build_untrained(config, spec)
    leaves = jax.tree.leaves((template.state, template.statistics))
    assert leaves
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    write_environment(folder, spec)
    with pytest.raises(CheckpointError, match=r"must be F32\[9000000.*got F32\[4"):
        a3cjax.load(folder)


# `None` in sys.modules makes an import fail as if there were no such package.
ELSEWHERE = """
import sys
for name in ("envpool", "matplotlib", "tensorboardX", "av", "jinja2"):
    sys.modules[name] = None
import numpy as np
import a3cjax
for folder in sys.argv[1:]:
    agent = a3cjax.load(folder)
    print(agent, *agent.predict([0.0] * 4)[0:1], agent.predict(np.zeros((3, 4)))[0].shape)
    try:
        agent.evaluate(2)
    except (ImportError, ValueError) as error:
        print(error)
"""


def test_agent_acts_where_neither_envpool_nor_its_environment_are_installed(finished, tmp_path):
    published = publish(finished, tmp_path / "published")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ELSEWHERE, str(finished), str(published)]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    told = r"TrainedAgent\(gymnasium:module_of_ones_own:SameCartPole-v0, a3c, .*\) [01] \(3,\)"
    for line in lines[::2]:
        assert re.fullmatch(told, line)
    # Only a game needs the environment; that of somebody else's folder is not imported.
    assert "envpool" in lines[1]
    assert "with trust=true, module_of_ones_own is imported" in lines[3]
    assert len(lines) == 4


def test_agent_of_the_package_acts_upon_frames():
    agent = a3cjax.load("pong")
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (3, 4, 84, 84), np.uint8, endpoint=True)
    actions, _ = agent.predict(frames)
    assert actions.tolist() == [agent.predict(frame)[0] for frame in frames]
    assert set(actions.tolist()) <= set(range(6))
    assert agent.spec == agent.make_environments().spec._replace(warnings=())
