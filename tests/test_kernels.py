"""Convolutions in C++ answer and are differentiated as JAX's own, or leave it to them."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import make_a3c
from a3cjax.config.declaring import show
from a3cjax.config.reading import resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.kernels import building, load_kernels
from a3cjax.networks import make_network
from a3cjax.torsos import NATURE_LAYERS, PAPER_LAYERS, ImageTorso
from a3cjax.training.assembly import choose_kernels
from a3cjax.types import ObservationStatistics
from tests.cases import for_each
from tests.test_recall import A, make_case, observe_all


@pytest.fixture(scope="module")
def kernels():
    found, reason = load_kernels()
    if found is None:
        has_compiler = any(map(shutil.which, building.COMPILERS))
        assert not has_compiler or jax.default_backend() != "cpu", reason
        pytest.skip(f"no kernels {reason}")
    return found


def differentiate(function, *args):
    """What the function returns, its gradient, and the program that computes both."""
    lowered = jax.jit(jax.value_and_grad(function)).lower(*args)
    return lowered.compile()(*args), lowered.as_text()


def assert_all_close(actual, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 2e-5), actual, expected)


@for_each(("name", "is_recalled"), [("atari_ff", False), ("nature_gru", True)])
def test_the_loss_and_its_gradient_are_those_of_jax(kernels, name, is_recalled):
    agent, constants, params, trajectory = make_case(name)
    if is_recalled:
        trajectory = observe_all(agent, params, constants, trajectory)
    with_kernels = make_a3c(make_network(name, A, kernels=kernels))
    expected, actual = (
        differentiate(lambda p, agent=agent: agent.loss(p, constants, trajectory)[0], params)
        for agent in (agent, with_kernels)
    )
    assert_all_close(actual[0], expected[0])
    assert "a3cjax_differentiate" in actual[1]
    assert ("a3cjax_convolve" in actual[1]) is not is_recalled


def make_torso_case(layers, side, channels, num_images, has_statistics):
    rng = np.random.default_rng(0)
    shape = (side // 4, side // 4, 16 * channels)
    blocks = rng.integers(0, 256, (num_images, *shape), np.uint8)
    mean = rng.uniform(0, 255, shape).astype(np.float32)
    statistics = ObservationStatistics(mean, np.float32(50)) if has_statistics else None
    cotangents = rng.normal(size=(num_images, 64)).astype(np.float32)
    torso = ImageTorso(layers, hidden_size=64)
    init = functools.partial(torso.init, jax.random.key(0), blocks, statistics)

    def loss(torso, params):
        return jnp.vdot(torso.apply({"params": params}, blocks, statistics), cotangents)

    return torso, loss, init


@for_each(
    ("layers", "side", "channels", "num_images", "has_statistics"),
    [
        (PAPER_LAYERS, 84, 4, 3, True),  # the paper's images
        (NATURE_LAYERS, 84, 4, 3, False),
        (PAPER_LAYERS, 36, 2, 70, True),  # more than are multiplied at once
    ],
)
def test_a_torso_is_that_of_jax(kernels, layers, side, channels, num_images, has_statistics):
    case = (layers, side, channels, num_images, has_statistics)
    torso, loss, init = make_torso_case(*case)
    params = jax.jit(init)()["params"]
    expected, _ = differentiate(functools.partial(loss, torso), params)
    with_kernels = torso.clone(kernels=kernels)
    actual, program = differentiate(functools.partial(loss, with_kernels), params)
    assert_all_close(actual, expected)
    assert "a3cjax_differentiate" in program
    assert ("a3cjax_multiply" in program) is (num_images <= 64)


@for_each(
    ("layers", "side", "channels"),
    [
        (PAPER_LAYERS, 40, 4),  # leaves pixels that no output reads
        (PAPER_LAYERS, 84, 3),
        (((8, 8, 4), (32, 4, 2)), 84, 4),
        (((16, 4, 4), (32, 4, 2)), 84, 4),
        (((16, 3, 1),), 12, 4),
    ],
)
def test_what_they_are_not_made_for_is_left_to_jax(kernels, layers, side, channels):
    torso, loss, init = make_torso_case(layers, side, channels, 2, True)
    params = jax.eval_shape(init)["params"]
    with_kernels = torso.clone(kernels=kernels._replace(multiply=None))
    actual, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, either))).lower(params).as_text()
        for either in (with_kernels, torso)
    )
    assert "a3cjax" not in actual
    assert actual == expected


def load_anew(monkeypatch, cache, compiler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("CXX", compiler)
    return load_kernels.__wrapped__()


@for_each(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler"), ("false", "fails"), ('g++ "', "no command line")],
)
def test_without_a_compiler_there_are_none(monkeypatch, tmp_path, compiler, reason):
    found, told = load_anew(monkeypatch, tmp_path, compiler)
    assert found is None
    assert reason in told


def test_an_empty_name_of_a_compiler_is_none(monkeypatch):
    monkeypatch.setenv("CXX", " ")
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert building._find_compiler() == ["g++"]


def test_the_config_says_whether_there_are_kernels(monkeypatch):
    config = Config(network="atari_ff")
    there = object()
    for found, kernels, expected in (
        (there, None, there),
        (there, False, None),
        (None, None, None),
        (None, False, None),
    ):
        monkeypatch.setattr("a3cjax.training.assembly.load_kernels", lambda f=found: (f, "here"))
        config, chosen = choose_kernels(config.replace(kernels=kernels))
        assert chosen is expected
        assert config.kernels is (expected is not None)
    for network, reason in (("atari_ff", "here"), ("mlp_ff", "for the network mlp_ff")):
        with pytest.raises(ConfigError, match=f"kernels must be false or null {reason}, got true"):
            choose_kernels(config.replace(network=network, kernels=True))


def test_a_deterministic_run_goes_on_as_it_began(tmp_path):
    # The last bits differ. The first of these runs is from before there were kernels.
    for line, expected in (("", False), ("kernels: true\n", True), ("kernels: false\n", False)):
        (tmp_path / "config.yaml").write_text(f"env: Pong\ndeterministic: true\n{line}")
        assert resume_config(str(tmp_path), {}).kernels is expected
        with pytest.raises(ConfigError, match=f"^kernels must be {show(expected)}, as in the run"):
            resume_config(str(tmp_path), {"kernels": not expected})


def test_they_are_compiled_once(kernels, monkeypatch, tmp_path):
    del kernels  # where they can be
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(building, "OPTIONS", ("-O0", *set(building.OPTIONS) - {"-O3"}))
    library = building.build_library()
    before = library.stat().st_mtime_ns
    assert building.build_library() == library
    assert library.stat().st_mtime_ns == before
    assert list(library.parent.iterdir()) == [library]
