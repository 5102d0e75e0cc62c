"""Exported agents: the same actions as of `predict`, and no more than JAX to run them."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import linen as nn
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from jax import export

import a3cjax
from a3cjax.commands import main
from a3cjax.runs.containers import CONTAINERS
from a3cjax.types import ObservationStatistics, TimeStep
from tests.cases import slow
from tests.documents import ROOT, read_blocks
from tests.runs.test_predicting import CHOICES, NUMBERS, VECTOR, as_batch, make_player, sample

KEY = jax.random.PRNGKey(4)
WHOLE, FREE = Box(-3, 9, (2, 2), np.int64), Box(-np.inf, 5, (3,))
MATRIX = MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, -2]])


def call_of(path):
    return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


def zeros_like_state(agent, number):
    return tuple(map(np.zeros_like, jax.tree.leaves(agent.initial_state(number))))


@pytest.mark.parametrize(
    ("network", "action_space", "deterministic"),
    [
        ("mlp_lstm", CHOICES, True),
        ("mlp_ff", CHOICES, False),
        ("mlp_gru", MATRIX, False),
        slow("mlp_ff", MultiBinary(3), True),
        ("mlp_gru", NUMBERS, True),
        ("mlp_ff", NUMBERS, False),
        ("mlp_ff", WHOLE, False),
        slow("mlp_ff", FREE, True),
    ],
    ids=str,
)
def test_exported_agent_acts_as_the_agent_predicts(tmp_path, network, action_space, deterministic):
    agent = make_player(action_space=action_space, network=network)
    call = call_of(agent.export(tmp_path / "agent", deterministic))
    options = {} if deterministic else {"key": KEY}
    taken = []
    for number in (1, 3):  # of observations: one file for both
        state, own = None, zeros_like_state(agent, number)
        for step in range(4):
            observations = np.stack(sample(VECTOR, number, step))
            is_first = np.full(number, step == 0)
            is_first[0] |= step == 2
            expected, state = agent.predict(
                observations, state, deterministic, episode_start=is_first, **options
            )
            action, own = call(observations, own, is_first, **options)
            if action_space.dtype.kind == "f":
                np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(action, expected)
            assert action.shape == (number, *action_space.shape)
            assert all(map(action_space.contains, np.asarray(action, action_space.dtype)))
            taken.extend(np.asarray(action).ravel())
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                list(own),
                jax.tree.leaves(state),
            )
    assert len(np.unique(taken)) > 1


class Halves(nn.Module):
    """A torso of somebody's own, whose `split` tells how it reads the batch."""

    split: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(8)(self.split(x))


@pytest.mark.parametrize("network", ["mlp_ff", "mlp_gru"])
def test_torso_of_ones_own_takes_batches_of_any_size(tmp_path, network):
    own = Halves(lambda x: x.reshape(x.shape[0], -1))
    agent = make_player(own=own, action_space=NUMBERS, network=network)
    call = call_of(agent.export(tmp_path / "agent"))
    for number in (1, 4):
        observations = np.stack(sample(VECTOR, number))
        state = zeros_like_state(agent, number)
        action, _ = call(observations, state, np.ones(number, bool))
        np.testing.assert_allclose(action, agent.predict(observations)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "split",
    [lambda x: x.reshape(len(x), -1), lambda x: x if x.shape[0] > 3 else -x],
    ids=["len", "if"],
)
def test_network_that_depends_on_the_batch_is_exported_for_one_size(tmp_path, split):
    agent = make_player(own=Halves(split))
    with pytest.raises(ValueError, match=r"^batch_size must be a number for a network [^\n]*$"):
        agent.export(tmp_path / "agent")
    observations = np.stack(sample(VECTOR, 2))
    call = call_of(agent.export(tmp_path / "agent", batch_size=2))
    action, _ = call(observations, (), np.ones(2, bool))
    np.testing.assert_array_equal(action, agent.predict(observations)[0])


SPACES = [
    Box(0, 255, (4, 84, 84), np.uint8),
    Box(0, 255, (21, 30, 3), np.uint8),
    slow(Box(0, 1, (3, 20, 24), np.float64)),
    slow(Box(-1, 1, (), np.float64)),
    MultiBinary((12, 12)),
    slow(Discrete(6, start=-3)),
    MATRIX,
    Dict({"z": Box(0, 9, (2, 2), np.int16), "a": Tuple([Discrete(3), Box(-1, 1, (1,))])}),
    Dict({"eye": Box(0, 255, (20, 20, 3), np.uint8), "map": MultiBinary((9, 9)), "x": VECTOR}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_observations_are_given_as_the_environment_shows_them(tmp_path, space):
    agent = make_player(space, NUMBERS)  # which tell more than choices
    call = call_of(agent.export(tmp_path / "agent"))
    observations = as_batch(space, sample(space, 3))
    expected, _ = agent.predict(observations)
    action, _ = call(jax.tree.map(np.asarray, observations), (), np.ones(3, bool))
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(action)) > 3


def test_statistics_and_exploration_are_in_the_file(tmp_path):
    agent = make_player(algorithm="n_step_q")
    statistics = ObservationStatistics(np.full(3, 0.3, "f4"), np.array([0.1, 2.0, 30.0], "f4"))
    snapshot = agent.snapshot._replace(statistics=statistics)
    agent = dataclasses.replace(agent, snapshot=snapshot)
    observations = np.stack(sample(VECTOR, 500))
    call = call_of(agent.export(tmp_path / "agent", deterministic=False))
    action, _ = call(observations, (), np.ones(500, bool), key=KEY)
    expected, _ = agent.predict(observations, None, False, key=KEY)
    np.testing.assert_array_equal(action, expected)
    assert 5 < np.sum(action != agent.predict(observations)[0]) < 50  # ε = 0.05


@pytest.mark.parametrize(("space", "shape"), [(CHOICES, (5,)), (MATRIX, (4, 4))], ids=str)
def test_forbidden_actions_are_not_taken(tmp_path, space, shape):
    agent = make_player(action_space=space)
    call = call_of(agent.export(tmp_path / "agent", deterministic=False, has_mask=True))
    only = np.zeros((2, *shape), bool)
    only[0, ..., 1] = only[1, ..., 0] = True
    observations = np.stack(sample(VECTOR, 2))
    action, _ = call(observations, (), np.ones(2, bool), key=KEY, action_mask=only)
    np.testing.assert_array_equal(np.asarray(action[0] - action[1]), np.ones(space.shape))


def test_file_tells_what_it_takes_and_where_it_runs(tmp_path):
    agent = make_player(network="mlp_lstm")
    program = export.deserialize(bytearray(agent.export(tmp_path / "any").read_bytes()))
    (observation, state, is_first), options = jax.tree.unflatten(program.in_tree, program.in_avals)
    assert [str(part) for part in (observation, is_first)] == ["float32[B,3]", "bool[B]"]
    assert len(state) == 2
    assert not options
    assert program.platforms == ("cpu", "cuda", "tpu")
    path = agent.export(tmp_path / "two", batch_size=2, platforms=("cpu",))
    program = export.deserialize(bytearray(path.read_bytes()))
    assert (program.in_avals[0].shape, program.platforms) == ((2, 3), ("cpu",))


def test_what_cannot_be_exported_is_said_in_a_line(tmp_path):
    agent = make_player(action_space=NUMBERS)
    for size in (0, 2.5):
        with pytest.raises(ValueError, match=rf"^batch_size must be a whole .*, got {size}\.$"):
            agent.export(tmp_path / "agent", batch_size=size)
    for platforms in ("cpu", ("gpu",), ()):
        with pytest.raises(ValueError, match=r"^platforms must be a list of some of cpu, cuda, "):
            agent.export(tmp_path / "agent", platforms=platforms)
    with pytest.raises(ValueError, match=r"^has_mask must be False for continuous actions\.$"):
        agent.export(tmp_path / "agent", has_mask=True)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_but_a_file_of_its_own(tmp_path):
    agent = make_player(action_space=NUMBERS)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    reader, writer = os.pipe()  # as `/dev/stdout` before a `|`
    for name in ("pipe", "loop", ".", "missing/agent", "/dev/full", f"/dev/fd/{writer}"):
        with pytest.raises(OSError, match=r"^the place of a result must be .*, got "):
            agent.export(tmp_path / name)
    os.close(reader)
    os.close(writer)
    for name in ("summary.json", "config.yaml", "run.lock", "checkpoints/1.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
        with pytest.raises(OSError, match=r"^the place of a result must not be a file of a run"):
            agent.export(path)
        assert path.read_text() == "precious"
    (tmp_path / "link").symlink_to("target")
    agent.export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert call_of(tmp_path / "target")


def test_verb_writes_the_file(tmp_path, capsys):
    main(["export", "pong", str(tmp_path / "pong"), "greedy=false", "batch_size=2"])
    assert f"written to {tmp_path / 'pong'}, 2.8 MB" in capsys.readouterr().out
    program = export.deserialize(bytearray((tmp_path / "pong").read_bytes()))
    assert [aval.shape for aval in program.in_avals] == [(2, 4, 84, 84), (2,), (2,)]


# The player of docs/tutorials/export.md, where nothing of a3cjax can be imported.

WITHOUT_A3CJAX = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"a3cjax", "flax", "optax", "chex"}:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
"""


def play_elsewhere(folder, num_games, max_steps):
    """The scores of Pong's exported agent in a process that has JAX and envpool."""
    a3cjax.load("pong").export(folder / "pong.stablehlo", deterministic=False)
    (player,) = [b for b in read_blocks(ROOT / "docs/tutorials/export.md") if b.title]
    (folder / player.title).write_text(WITHOUT_A3CJAX + player.code)
    command = [sys.executable, player.title, "pong.stablehlo", str(num_games), str(max_steps)]
    environment = {name: text for name, text in os.environ.items() if name != "JAX_ENABLE_X64"}
    said = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return [float(word) for word in said.stdout.split()]


def test_exported_pong_scores_as_far_as_the_agent_without_a3cjax(tmp_path):
    evaluation = a3cjax.load("pong").evaluate(2, is_greedy=False, max_episode_steps=150)
    assert play_elsewhere(tmp_path, 2, 150) == evaluation.scores
    assert any(evaluation.scores)


@pytest.mark.slow
def test_exported_pong_plays_whole_games_with_the_scores_of_an_evaluation(tmp_path):
    evaluation = a3cjax.load("pong").evaluate(30)
    assert play_elsewhere(tmp_path, 30, 27_001) == evaluation.scores


# Functions of one's own.


def test_functions_of_our_containers_can_be_exported():
    def turn(timestep, statistics):
        return timestep._replace(reward=-timestep.reward), statistics

    ones = np.ones(2, np.float32)
    arguments = TimeStep(ones, ones, ones, ones > 0), ObservationStatistics(ones, ones)
    exported = export.export(jax.jit(turn))(*arguments).serialize()
    timestep, statistics = export.deserialize(exported).call(*arguments)
    assert isinstance(timestep, TimeStep)
    assert isinstance(statistics, ObservationStatistics)
    np.testing.assert_array_equal(timestep.reward, [-1, -1])
    assert len({container.__name__ for container in CONTAINERS}) == len(CONTAINERS)
