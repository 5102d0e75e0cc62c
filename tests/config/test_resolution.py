import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import ALGORITHMS
from a3cjax.config import defaults
from a3cjax.config.builders import build_agent, build_network
from a3cjax.config.defaults import fill_ahead, fill_cluster
from a3cjax.config.reading import read_config
from a3cjax.config.resolution import describe_idle, resolve
from a3cjax.config.settings import CLUSTER_DEFAULTS, Config
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.errors import ConfigError
from a3cjax.networks import make_network
from a3cjax.torsos import LEAST_PIXELS
from a3cjax.types import Constants, Exploration
from tests.cases import for_each
from tests.tabular import random_params, random_trajectory

ONE_ACTOR = Config(num_actors=1)


def images_of(height, width):
    """What is told of three-coloured images of that size, which come in blocks of 4×4 pixels."""
    shape = (-(-height // 4), -(-width // 4), 48)
    image = jax.ShapeDtypeStruct(shape, np.uint8)
    return EnvironmentSpec(
        image, ActionSpec("discrete", (2,)), 1, is_atari=False, reading="an image"
    )


@for_each("torso", ["atari", "nature"])  # minatar takes the smallest there is
def test_least_size_of_an_image_is_that_of_the_convolutions(torso):
    def init(side):
        observations = np.zeros((1, 1, *images_of(side, side).observation_shape), np.uint8)
        jax.eval_shape(make_network(f"{torso}_ff", 2).init, jax.random.key(0), observations)

    init(LEAST_PIXELS[torso])
    with pytest.raises(AssertionError):
        init(LEAST_PIXELS[torso] - 1)


@for_each(
    ("size", "network"),
    [
        ((7, 7), "small_ff"),
        ((16, 84), "small_ff"),
        ((84, 16), "small_ff"),
        ((17, 17), "small_ff"),
        ((40, 84), "small_ff"),
        ((41, 41), "atari_ff"),
    ],
)
def test_network_of_images_is_one_that_fits(size, network):
    assert resolve(ONE_ACTOR, images_of(*size)).network == network


@for_each(("side", "size"), [(9, 3), (16, 3), (17, 8), (60, 8)])
def test_small_images_are_convolved_by_single_pixels_while_they_are_tiny(side, size):
    observations = np.zeros((1, 1, *images_of(side, 84).observation_shape), np.uint8)
    init = make_network("small_ff", 2).init
    params = jax.eval_shape(init, jax.random.key(0), observations)
    (kernel,) = (x for x in jax.tree.leaves(params) if x.ndim == 4)
    assert kernel.shape[:2] == (size, size)


@for_each(("network", "size", "least"), [("atari_lstm", (7, 7), 17), ("nature_ff", (32, 84), 33)])
def test_network_that_does_not_fit_is_answered_with_the_least_size(network, size, least):
    config = ONE_ACTOR.replace(network=network, env="Small")
    fitting = r"small_\*, (atari_\*, )?minatar_\*, mlp_\*, mujoco_\*"
    message = (
        rf"^network must be one of {fitting} for Small \(an image\), "
        f"got {network}, which takes {least} × {least} pixels or more.$"
    )
    with pytest.raises(ConfigError, match=message):
        resolve(config, images_of(*size))
    assert resolve(config, images_of(least, least)).network == network


def test_network_that_nobody_typed_is_told_with_its_preset():
    config = read_config({"preset": "paper", "total_frames": "3000"})
    with pytest.raises(ConfigError, match=r"^network must .* got atari_ff of preset=paper, which"):
        resolve(config, images_of(7, 7))


VECTORS = EnvironmentSpec(
    jax.ShapeDtypeStruct((4,), np.float32),
    ActionSpec("discrete", (2,)),
    1,
    is_atari=False,
    reading="numbers",
)


@for_each(
    ("setting", "algorithms"),
    [
        ({"double_q": True}, {"one_step_q", "n_step_q"}),
        ({"dueling": True}, {"one_step_q", "n_step_q", "one_step_sarsa"}),
        ({"huber_delta": 0.5}, {"one_step_q", "n_step_q", "one_step_sarsa"}),
        ({"num_passes": 3}, {"ppo", "vtrace"}),
        ({"clip_ratio": 0.1}, {"ppo"}),
    ],
)
def test_settings_of_some_methods_are_refused_by_what_does_not_know_them(setting, algorithms):
    ((name, value),) = setting.items()
    default, given = {
        True: ("false", "true"),
        0.5: ("null", "0.5"),
        3: ("null", "3"),
        0.1: ("0.2", "0.1"),
    }[value]
    for algorithm in ALGORITHMS:
        config = ONE_ACTOR.replace(algorithm=algorithm, **setting)
        if algorithm in algorithms:
            assert getattr(resolve(config, VECTORS), name) == value
            continue
        rule = (
            f"^{name} must be {default} for algorithm {algorithm}, which does not know it, "
            f"got {given}.$"
        )
        with pytest.raises(ConfigError, match=rule):
            resolve(config, VECTORS)


ATARI = images_of(84, 84)._replace(is_atari=True)
ROBOT = VECTORS._replace(actions=ActionSpec("continuous", (2,), True))
Q_ALONE = {"exploration_frames": "7", "epsilon_period_frames": "3", "target_period_frames": "3"}
LOSS = {"lambda_": "0.3", "value_cost": "7", "entropy_cost": "5", "entropy_spread": "3"}
LOSS_TOLD = "algorithm=one_step_q: lambda_, value_cost, entropy_cost, entropy_spread"
NO_COSTS = "algorithm=n_step_q: value_cost, entropy_cost, entropy_spread"  # but λ
GAUSSIAN = {"variance": "shared"}


@for_each(
    ("spec", "texts", "told"),
    [
        (VECTORS, LOSS | {"algorithm": "one_step_q"}, LOSS_TOLD),
        (VECTORS, LOSS | {"algorithm": "a3c"}, ""),
        (VECTORS, LOSS | {"algorithm": "n_step_q"}, NO_COSTS),
        (VECTORS, Q_ALONE, f"algorithm=a3c: {', '.join(Q_ALONE)}"),
        (VECTORS, Q_ALONE | {"algorithm": "one_step_sarsa"}, ""),
        (
            VECTORS,
            {"optimizer": "sgd", "decay": "0.5", "epsilon": "1"},
            "optimizer=sgd: decay, epsilon",
        ),
        (VECTORS, {"optimizer": "sgd", "momentum": "0.5"}, ""),
        (VECTORS, {"decay": "0.5", "epsilon": "1", "momentum": "0.5"}, ""),
        (VECTORS, {"optimizer": "rmsprop", "momentum": "0.5"}, "optimizer=rmsprop: momentum"),
        (VECTORS, GAUSSIAN | {"protocol": "machado"}, "env=Some: variance, protocol"),
        (ROBOT, GAUSSIAN | {"env": "Swimmer"}, ""),
        (ATARI, {"protocol": "machado"}, ""),
        (
            VECTORS,
            {"optimizer": "sgd", "decay": "1e-1"} | GAUSSIAN,
            "optimizer=sgd: decay; with env=Some: variance",
        ),
        (
            VECTORS,
            {"unroll_length": "episode", "lambda_": "0.3"},
            "unroll_length=episode: lambda_",
        ),
        (
            VECTORS,
            {"unroll_length": "episode", "algorithm": "n_step_q", "double_q": "true"},
            "unroll_length=episode: double_q",
        ),
        (VECTORS, {"unroll_length": "episode", "algorithm": "one_step_q", "double_q": "true"}, ""),
        # What comes from a preset, or has to be changed for it.
        (ATARI, {"preset": "paper", "algorithm": "one_step_q", "unroll_length": "9"}, ""),
        (ATARI, {"preset": "paper", "total_frames": "10k", "exploration_frames": "1k"}, ""),
        (ATARI, {"preset": "paper_mujoco", "network": "auto", "warmup_steps": "1"}, ""),
        (ATARI, {"preset": "paper", "decay": "0.5", "variance": "each"}, "env=Some: variance"),
    ],
)
def test_settings_without_effect_are_told_and_no_others(spec, texts, told):
    given = read_config({"env": "Some"} | texts)
    filled = resolve(given.replace(num_actors=1), spec)
    assert describe_idle(given, filled, spec) == (told and f"without effect with {told}")
    assert describe_idle(given.replace(resume="run"), filled, spec) == ""
    # What a run has filled in may be given to another one.
    usual = resolve(Config(env="Some", num_actors=1, algorithm=filled.algorithm), spec)
    assert describe_idle(usual, usual, spec) == ""


def test_settings_of_clusters_are_refused_without_one():
    assert len(CLUSTER_DEFAULTS) == 9
    for name, default in CLUSTER_DEFAULTS.items():
        value = {"ray_address": "auto", "push_dtype": "bfloat16"}.get(name, 7)
        with pytest.raises(
            ConfigError, match=rf"^{name} must be .* without cluster=ray, got {value}"
        ):
            resolve(ONE_ACTOR.replace(**{name: value}), VECTORS)
        resolve(ONE_ACTOR.replace(**{name: default}), VECTORS)


@for_each(
    ("settings", "message"),
    [
        ({"devices": "cuda"}, "devices must be auto or cpu with cluster, got cuda."),
        ({"ray_address": "local"}, "ray_address must be auto or host:port, got local."),
        (
            {"ray_address": "ray://head:10001"},
            "ray_address must be auto or host:port, got ray://head:10001.",
        ),
        (
            {"deterministic": True, "max_staleness": 9},
            "max_staleness must be null where actors take turns (deterministic), got 9.",
        ),
        (
            {"shared_statistics": False, "grads_per_push": 2},
            "grads_per_push must be 1 where each actor has its own statistics (shared_statistics), "
            "got 2.",
        ),
    ],
)
def test_what_contradicts_itself_in_a_cluster_is_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        Config(cluster="ray", **settings)
    assert str(caught.value) == message


def test_workers_are_filled_in_by_cores_or_machines(monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: 64)
    config = Config(cluster="ray", num_actors=100, grads_per_push=10)
    assert fill_cluster(config, None).num_workers == 8
    assert fill_cluster(config, [20] * 5).num_workers == 5
    assert fill_cluster(config.replace(num_workers=3), [40] * 5).num_workers == 3
    # Ten push, and the first gradient of each sum waits for the last one.
    assert fill_cluster(config.replace(max_staleness=20), [20] * 5).max_staleness == 20
    with pytest.raises(ConfigError, match=r"^max_staleness must be >= 20, .* got 19\.$"):
        fill_cluster(config.replace(max_staleness=19), [20] * 5)


def test_a_cluster_has_no_more_actors_than_the_budget_allows(monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: 2)
    # Five of eight environments for 6M frames, on however many cores; then a core each.
    for frames, counts in ((6_000_000, (5, 8)), (200_000_000, (128, 10)), (10**9, (128, 32))):
        filled = fill_ahead(Config(cluster="ray", total_frames=frames), 128)
        assert (filled.num_actors, filled.envs_per_actor) == counts
        assert fill_cluster(filled, [32] * 4).num_workers == 4


def test_workers_have_as_many_actors_as_a_push_has_gradients(monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: 128)
    for machines in (None, [32] * 4):
        filled = fill_ahead(Config(cluster="ray", grads_per_push=8), 128)
        assert filled.num_actors == 8
        assert fill_cluster(filled, machines).num_workers == 1
        filled = filled.replace(num_actors=20)
        assert fill_cluster(filled, machines).num_workers == 2


@for_each(
    ("num_actors", "num_workers", "machines", "expected"),
    [
        (136, None, [8, 32, 32, 32, 32], 17),  # a small head among large machines
        (64, None, [32, 32], 2),
        (60, None, [8, 32, 32], 4),
        (3, None, [8, 8, 8, 8], 3),
        (12, 2, [8, 8], 2),
        (17, None, [8, 8], "num_actors must be <= 16, the cores of the cluster, got 17."),
        (
            16,
            1,
            [8, 8],
            "num_workers must be so many that each surely finds 16 cores",
        ),
        (
            15,
            3,
            [4, 5, 6],
            "num_workers must be so many that each surely finds 5 cores",
        ),
    ],
)
def test_every_worker_finds_a_machine_or_a_line_says_why_not(
    num_actors, num_workers, machines, expected
):
    config = Config(cluster="ray", num_actors=num_actors, num_workers=num_workers)
    if isinstance(expected, int):
        assert fill_cluster(config, machines).num_workers == expected
    else:
        with pytest.raises(ConfigError, match=f"^{expected}"):
            fill_cluster(config, machines)


@for_each(
    ("algorithm", "given", "expected"),
    [("a3c", None, 1), ("ppo", None, 2), ("vtrace", None, 1), ("ppo", 4, 4), ("vtrace", 3, 3)],
)
def test_passes_are_those_asked_for_or_the_methods_own(algorithm, given, expected):
    config = resolve(ONE_ACTOR.replace(algorithm=algorithm, num_passes=given), VECTORS)
    assert config.num_passes == (None if algorithm == "a3c" else expected)
    assert build_agent(config, VECTORS).num_passes == expected


def test_settings_of_q_methods_reach_the_agent_and_its_network():
    config = ONE_ACTOR.replace(
        algorithm="one_step_q", dueling=True, double_q=True, huber_delta=0.1, network="mlp_ff"
    )
    config = resolve(config, VECTORS)
    plain = config.replace(double_q=False, huber_delta=None)
    agents = [
        build_agent(c, VECTORS)
        for c in (config, config.replace(double_q=False), config.replace(huber_delta=None), plain)
    ]
    observations = np.random.default_rng(0).normal(size=(31, 5, 4)).astype(np.float32)
    trajectory = random_trajectory(0, 30, 5, 2)._replace(observations=observations)
    params = random_params(build_network(config, VECTORS), observations)
    # What is best by one is not by the other.
    targets = params | {"advantage": jax.tree.map(jnp.negative, params["advantage"])}
    assert {"value", "advantage"} < set(params)
    exploration = Exploration(np.full(5, 0.1, np.float32), np.float32(1))
    constants = Constants(None, targets, exploration)
    losses = {float(agent.loss(params, constants, trajectory)[0]) for agent in agents}
    assert len(losses) == 4  # each of the two changes it
