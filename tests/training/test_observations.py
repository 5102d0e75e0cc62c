"""All kinds of observations, from the environment to the film: what is trained on, and learned."""

import csv
import itertools

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.config.reading import load_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.loading import load
from a3cjax.runs.playing import closing_quietly
from a3cjax.training.run import train
from a3cjax.video.game import watch
from a3cjax.video.pictures import Pictures

BYTES = np.uint8
VECTOR = Box(-1, 1, (2,))


class Random(gymnasium.Env):
    """Ten steps of anything that a space holds."""

    action_space = Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.num_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.num_steps += 1
        return self.observation_space.sample(), float(action), self.num_steps == 10, False, {}


SPACES = {
    "halves": (Box(-1, 1, (3,), np.float16), "mlp_ff"),
    "doubles": (Box(-np.inf, np.inf, (2, 3, 2), np.float64), "mlp_ff"),
    "one number": (Box(-1, 1, ()), "mlp_ff"),
    "whole numbers": (Box(-(2**40), 2**40, (2, 2), np.int64), "mlp_ff"),
    "short numbers": (Box(0, 255, (5,), BYTES), "mlp_ff"),
    "truths": (Box(0, 1, (5,), bool), "mlp_ff"),
    "states": (Discrete(5, start=-2), "mlp_ff"),
    "states of several": (MultiDiscrete([[3, 2], [4, 5]]), "mlp_ff"),
    "bits": (MultiBinary(4), "mlp_ff"),
    "tuple": (Tuple([Discrete(3, start=7), VECTOR]), "mlp_ff"),
    "nest": (Dict({"b": Tuple([MultiDiscrete([2, 3]), VECTOR]), "a": MultiBinary(2)}), "mlp_ff"),
    "bytes": (Box(0, 255, (41, 44, 3), BYTES), "atari_ff"),
    "view": (Box(0, 255, (7, 7, 3), BYTES), "small_ff"),
    "floats": (Box(0, 1, (3, 20, 24)), "small_ff"),
    "board": (Box(0, 1, (10, 10, 6), bool), "small_ff"),
    "matrix": (Box(0, 255, (8, 12), BYTES), "small_ff"),
    "stack": (Box(0, 255, (2, 20, 20, 3), BYTES), "small_ff"),
    "stack, channels first": (Box(0, 255, (2, 3, 20, 20), BYTES), "small_ff"),
    "image and numbers": (
        Dict({"eye": Box(0, 255, (20, 20, 3), BYTES), "x": VECTOR, "mode": Discrete(3)}),
        "multi_ff",
    ),
    "two images": (Tuple([Box(0, 255, (20, 20, 3), BYTES), Box(0, 1, (8, 8))]), "multi_ff"),
    "image in a dict": (Dict({"eye": Box(0, 255, (8, 8, 3), BYTES)}), "small_ff"),
}


@pytest.fixture
def make_id():
    """Registers an environment, made by a function, for one test; gives its name."""
    ids = []

    def register(make):
        ids.append(f"Brought{len(ids)}-v0")
        gymnasium.register(ids[-1], make)
        return f"gymnasium:{ids[-1]}"

    yield register
    for name in ids:
        del gymnasium.registry[name]


def settings(run_dir, **changes):
    quiet = {"tensorboard": False, "video": False, "eval_episodes": 8, "num_actors": 1}
    return Config(run_dir=str(run_dir), **{**quiet, **changes})


# Those that differ most; the rest, seconds each, are read right by tests/envs/test_observations.py.
FAST = {"states of several", "nest", "stack, channels first", "two images"}


@pytest.mark.parametrize(
    "kind",
    [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in SPACES],
)
def test_every_kind_is_trained_on_loaded_and_shown(kind, tmp_path, make_id, capsys):
    space, network = SPACES[kind]
    env = make_id(lambda: Random(space))
    summary = train(settings(tmp_path / "run", env=env, total_frames=2_000, unroll_length=10))
    assert summary.num_frames >= 2_000
    assert summary.evaluation is not None
    config = load_config(summary.run_dir)
    assert (config.network, config.image_layout != "auto") == (network, True)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith(f"network {network}")]
    assert ("image" in line) == (network != "mlp_ff")
    agent = load(summary.run_dir)
    with closing_quietly(agent.make_environments()) as environments:
        pictures, key = Pictures(environments.spec), jax.random.key(0)
        for moment in watch(agent, environments, [key], with_saliency=True):
            assert pictures.draw(moment).width > 1
            sees = "image" in line
            assert (moment.saliency is not None) == sees


class Signals(gymnasium.Env):
    """Twenty times a light, left or right, or a sign tells which action earns 1; all else is noise.

    `told_by` is `image` or `vector`; all cameras are dark for `num_dark` steps.
    """

    observation_space = Dict(
        {"camera": Box(0, 255, (8, 8, 1), BYTES), "joint": Dict({"a": VECTOR, "b": Discrete(3)})}
    )
    action_space = Discrete(2)

    def __init__(self, told_by, num_dark):
        self.told_by = told_by
        self.left_dark = itertools.repeat(True, num_dark)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return self.observe(), {}

    def step(self, action):
        reward = float(action == self.right)
        self.num_steps += 1
        return self.observe(), reward, self.num_steps == 20, False, {}

    def observe(self):
        self.right = int(self.np_random.integers(2))
        in_image, in_vector = self.np_random.integers(2, size=2)
        if self.told_by == "image":
            in_image = self.right
        else:
            in_vector = self.right
        camera = self.np_random.integers(0, 100, (8, 8, 1)).astype(BYTES)
        camera[2:6, 4 * in_image + 1, 0] = 255
        camera *= not next(self.left_dark, False)
        vector = np.array([self.np_random.uniform(-1, 1), in_vector - 0.5], np.float32)
        joint = {"a": vector, "b": int(self.np_random.integers(3))}
        return {"camera": camera, "joint": joint}


@pytest.mark.parametrize(
    ("told_by", "num_dark"),
    [pytest.param("image", 0, marks=pytest.mark.slow), ("vector", 80)],
)
def test_every_part_of_a_dict_is_learned_from(told_by, num_dark, tmp_path, make_id, capfd):
    env = make_id(lambda: Signals(told_by, num_dark))
    short = {"total_frames": 12_000, "unroll_length": 10, "warmup_steps": 64, "eval_episodes": 24}
    summary = train(settings(tmp_path / "run", env=env, **short))
    told = "warning: the image observation['camera'] is the same in all of random play"
    assert (told in "".join(capfd.readouterr())) == bool(num_dark)
    with open(tmp_path / "run" / "episodes.csv", newline="") as file:
        scores = [float(row["episode_return"]) for row in csv.DictReader(file)]
    assert np.mean(scores[-48:]) > 16  # by chance 10, at most 20
    assert summary.evaluation is not None
    assert summary.evaluation.mean > 16


def test_nothing_is_said_of_the_scale_of_images_that_are_not_centred(tmp_path, make_id, capfd):
    raw = {"centre_observations": False, "warmup_steps": 0}  # as the paper's
    env = make_id(lambda: Random(Box(0, 255, (12, 12, 1), BYTES)))
    train(settings(tmp_path / "run", env=env, total_frames=320, eval_episodes=0, **raw))
    assert "random play" not in "".join(capfd.readouterr())


class Catch(gymnasium.Env):
    """As MinAtar shows its games: 10×10 fields, a channel for each kind of thing."""

    observation_space = Box(0, 1, (10, 10, 4), bool)
    action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row, self.paddle = 0, 5
        self.column = int(self.np_random.integers(10))
        return self.observe(), {}

    def step(self, action):
        self.row += 1
        self.paddle = int(np.clip(self.paddle + action - 1, 0, 9))
        is_over = self.row == 9
        reward = float(is_over) * (1.0 if self.paddle == self.column else -1.0)
        return self.observe(), reward, is_over, False, {}

    def observe(self):
        board = np.zeros((10, 10, 4), bool)
        board[9, self.paddle, 0] = board[self.row, self.column, 1] = True
        return board


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 4])  # with which minatar_ff stands at 0.2 to 0.6
def test_boards_of_minatars_kind_are_learned_from(seed, tmp_path, make_id):
    env = make_id(Catch)
    changes = {"env": env, "seed": seed, "total_frames": 100_000, "eval_episodes": 50}
    summary = train(settings(tmp_path / "run", **changes))
    assert summary.evaluation is not None
    assert summary.evaluation.mean > 0.9  # by chance about -0.8, at most 1


@pytest.mark.parametrize(
    ("space", "network", "fitting"),
    [
        (VECTOR, "minatar_ff", r"mlp_\*, mujoco_\*"),
        (VECTOR, "multi_ff", r"mlp_\*, mujoco_\*"),
        (SPACES["board"][0], "atari_ff", r"small_\*, minatar_\*, mlp_\*, mujoco_\*"),
        (SPACES["floats"][0], "multi_gru", r"small_\*, atari_\*, minatar_\*, mlp_\*, mujoco_\*"),
        (SPACES["image and numbers"][0], "atari_ff", r"multi_\*, mlp_\*, mujoco_\*"),
    ],
)
def test_network_that_cannot_read_is_answered_with_those_that_can(
    space, network, fitting, tmp_path, make_id
):
    env = make_id(lambda: Random(space))
    with pytest.raises(ConfigError, match=f"^network must be one of {fitting} for .*{network}"):
        train(settings(tmp_path / "run", env=env, network=network, total_frames=2_000))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp_gru", "multi_lstm"])
def test_other_networks_read_dicts_with_images(network, tmp_path, make_id):
    env = make_id(lambda: Random(SPACES["image and numbers"][0]))
    changes = {"network": network, "total_frames": 1_000, "unroll_length": 10, "eval_episodes": 0}
    assert train(settings(tmp_path / "run", env=env, **changes)).num_frames >= 1_000


def test_layout_is_fixed_by_a_run(tmp_path, make_id):
    env = make_id(lambda: Random(SPACES["board"][0]))
    changes = {"env": env, "total_frames": 200, "unroll_length": 10, "eval_episodes": 0}
    summary = train(settings(tmp_path / "run", **changes, image_layout="channels_first"))
    assert load_config(summary.run_dir).image_layout == "channels_first"
    with pytest.raises(ConfigError, match=r"^image_layout must be channels_first, as in the run"):
        resume_config(str(summary.run_dir), {"image_layout": "auto"})
    longer = resume_config(str(summary.run_dir), {"total_frames": 400})
    assert train(longer).num_frames >= 400
