"""What `tuned/` says of an environment: the last of what is chosen, and the first of defaults."""

import dataclasses

import jax
import numpy as np

from a3cjax.config import defaults
from a3cjax.config.defaults import (
    TUNED,
    describe_alternative,
    describe_tuned,
    fill_ahead,
    tuned_for,
)
from a3cjax.config.reading import load_config, make_config, read_config, resume_config
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.envs.making import resolve_envpool_id
from a3cjax.training.run import train
from tests.cases import for_each
from tests.documents import ROOT

ROBOT = EnvironmentSpec(
    jax.ShapeDtypeStruct((17,), np.float32),
    ActionSpec("continuous", (6,), True),
    1,
    is_atari=False,
    reading="numbers",
)
GAME = EnvironmentSpec(
    jax.ShapeDtypeStruct((84, 84, 4), np.uint8), ActionSpec("discrete", (6,)), 4, is_atari=True
)
MILLION = Config(env="Swimmer", total_frames=1_000_000)
OF_SWIMMER = {
    "algorithm": "ppo",
    "num_passes": 16,
    "unroll_length": 512,
    "lambda_": 0.99,
    "entropy_cost": 0.0,
    "num_actors": 2,
    "discount": 0.999,
}


def difference(config, other):
    """The settings in which a config is another than `other`."""
    settings, others = dataclasses.asdict(config), dataclasses.asdict(other)
    return {name: value for name, value in settings.items() if others[name] != value}


def test_a_robot_has_what_is_tuned_for_it_and_else_the_defaults():
    usual = resolve(MILLION.replace(env="Unheard", num_actors=2), ROBOT)
    assert usual.replace(**OF_SWIMMER, env="Swimmer") == resolve(MILLION, ROBOT)
    assert (usual.algorithm, usual.discount, usual.lambda_) == ("a3c", 0.99, 0.95)
    # The second entry of the file changes the first one for Swimmer.
    walker = resolve(MILLION.replace(env="Walker2d"), ROBOT)
    assert difference(walker, resolve(MILLION, ROBOT)) == {
        "env": "Walker2d",
        "discount": 0.99,
        "lambda_": 0.98,
        "num_passes": 8,
        "unroll_length": 256,
    }


@for_each(
    ("env", "is_tuned"),
    [
        ("Hopper", True),
        ("Hopper-v3", True),
        ("gymnasium:Hopper-v5", True),
        ("gymnasium:frogs:Hopper-v0", False),  # of which nobody knows what it is
        ("python:robots:Hopper", False),
        ("MountainCar", True),
        ("MountainCarContinuous-v0", True),
        ("MountainCarSparse-v0", False),
        ("HopperHop", False),
        ("Hopper-v", False),
        ("gymnasium:Tall-Hopper-v5", False),
    ],
)
def test_an_environment_has_one_name_in_envpool_and_gymnasium(env, is_tuned):
    assert bool(tuned_for(Config(env=env))) == is_tuned


@for_each("name", OF_SWIMMER)
def test_what_is_chosen_counts_more(name, monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: 4)
    # The values of the usual defaults, which must not pass for nothing being chosen.
    chosen = {"num_passes": 2, "unroll_length": 32, "discount": 0.99, "lambda_": 0.95}
    chosen |= {"entropy_cost": 1e-4, "algorithm": "a3c", "num_actors": 1}
    given = MILLION.replace(total_frames=10_000_000)  # in a million 4 cores have 2 actors, too
    filled = resolve(given.replace(**{name: chosen[name]}), ROBOT)
    assert getattr(filled, name) == chosen[name]
    others = set(difference(filled, resolve(given, ROBOT)))
    # Settings that are tuned for an algorithm belong to it.
    assert others == (set(OF_SWIMMER) if name == "algorithm" else {name})


@for_each(
    ("cores", "env", "settings", "expected"),
    [
        (1, "Hopper", {}, 2),  # as they were when the settings were found
        (64, "Hopper", {}, 2),
        (64, "Hopper", {"num_workers": 4}, 4),
        (64, "Hopper", {"num_workers": 4, "grads_per_push": 2}, 8),
        (64, "Unheard", {"num_workers": 8}, 8),
        (64, "Unheard", {"grads_per_push": 3}, 3),
        (2, "Hopper", {"num_workers": 8}, 2),  # which is refused as ever
        (64, "Unheard", {"num_workers": 4, "num_actors": 3}, 3),
    ],
)
def test_workers_that_are_asked_for_have_actors(cores, env, settings, expected, monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: cores)
    config = Config(env=env, total_frames=1_000_000, cluster="ray", **settings)
    assert fill_ahead(config).num_actors == expected


def test_presets_of_the_paper_stay_what_they_are():
    words = {"preset": "paper_mujoco", "num_actors": "1"}
    tuned, usual = (resolve(read_config(words | {"env": env}), ROBOT) for env in ("Swimmer", "Ant"))
    assert tuned == usual.replace(env="Swimmer")
    assert (tuned.algorithm, tuned.discount, tuned.lambda_) == ("a3c", 0.99, 1.0)


@for_each(
    ("total_frames", "num_actors", "envs_per_actor", "expected"),
    [
        (1_000_000, 2, 8, 512),
        (10**9, 2, 8, 512),
        (100_000, 2, 8, 195),
        (1_000_000, 16, 32, 61),
        (2_000, 2, 8, 32),  # as the usual one
    ],
)
def test_long_unrolls_leave_many_updates(total_frames, num_actors, envs_per_actor, expected):
    config = MILLION.replace(
        total_frames=total_frames, num_actors=num_actors, envs_per_actor=envs_per_actor
    )
    assert resolve(config, ROBOT).unroll_length == expected


def test_a_line_says_what_is_taken_and_nothing_where_all_is_chosen(monkeypatch):
    monkeypatch.setattr(defaults, "available_cores", lambda: 4)

    def line(given, spec):
        return describe_tuned(given, resolve(given, spec), spec)

    given = MILLION.replace(lambda_=0.9, total_frames=100_000)
    assert line(given, ROBOT) == (
        "as tuned for Swimmer: algorithm=ppo num_passes=16 unroll_length=195 entropy_cost=0.0 "
        "discount=0.999"
    )
    assert line(resolve(MILLION, ROBOT), ROBOT) == ""
    assert line(Config(env="Unheard"), ROBOT) == ""
    # What is tuned is nothing special where there are no such settings, or they are chosen.
    pong = Config(env="Pong")
    told = "as tuned for Pong: target_entropy=null normalize_advantages=false"
    assert line(pong, GAME) == line(pong.replace(algorithm="vtrace"), GAME) == told
    for chosen in ({"algorithm": "n_step_q"}, {"entropy_cost": 0.01}, {"algorithm": "ppo"}):
        assert line(pong.replace(**chosen), GAME) == ""
    qbert = Config(env="Qbert")
    assert line(qbert, GAME) == "as tuned for Qbert: normalize_advantages=false"
    assert line(qbert.replace(normalize_advantages=True), GAME) == ""


def test_a_short_run_with_continuous_actions_names_an_algorithm_that_learned_more():
    few = Config(env="Unheard", total_frames=999_999)
    for given, spec, is_told in (
        (few, ROBOT, True),
        (few.replace(total_frames=1_000_000), ROBOT, False),
        (few, GAME, False),
        (few.replace(algorithm="a3c"), ROBOT, False),
        (few.replace(env="Swimmer"), ROBOT, False),
    ):
        told = describe_alternative(given, resolve(given, spec), spec)
        assert ("algorithm=ppo num_passes=8" in told) is is_told, given


def test_advantages_of_games_have_one_size_where_the_entropy_is_steered():
    for chosen, is_normal in (
        ({}, True),
        ({"algorithm": "vtrace"}, True),
        ({"target_entropy": 0.5}, True),
        ({"target_entropy": None}, False),
        ({"entropy_cost": 0.01}, False),
        ({"algorithm": "ppo"}, False),
        ({"normalize_advantages": False}, False),
    ):
        config = resolve(Config(env="Boxing", **chosen), GAME)
        assert config.normalize_advantages is is_normal, chosen


def test_the_horizon_is_known_before_there_are_environments():
    filled = fill_ahead(MILLION)
    assert (filled.algorithm, filled.discount) == ("ppo", 0.999)
    assert fill_ahead(filled) == filled


@for_each("path", TUNED)
def test_files_hold_settings_of_environments_that_there_are(path, monkeypatch):
    monkeypatch.setattr(defaults, "TUNED", [path])
    defaults.read_tuned.cache_clear()
    try:
        entries = defaults.read_tuned()
    finally:
        defaults.read_tuned.cache_clear()
    assert entries
    for env, settings in entries.items():
        resolve_envpool_id(env)
        make_config(settings)
        assert settings == difference(Config(**settings), Config()), f"{env} has a default"


def test_a_run_learns_by_them_and_says_so(tmp_path, capfd):
    config = Config(
        env="swimmer-v4",
        total_frames=2_000,
        target_period_frames=9,  # of Q methods
        num_actors=1,
        eval_episodes=0,
        video=False,
        tensorboard=False,
        run_dir=str(tmp_path / "run"),
    )
    summary = train(config)
    line = (
        "as tuned for Swimmer-v4: algorithm=ppo num_passes=16 lambda_=0.99 "
        "entropy_cost=0.0 discount=0.999"
    )
    out = " ".join(capfd.readouterr().out.split())
    assert line in out
    assert "without effect with algorithm=ppo: target_period_frames" in out
    learned_by = load_config(summary.run_dir)
    assert {name: getattr(learned_by, name) for name in OF_SWIMMER} == {
        **OF_SWIMMER,
        "unroll_length": 32,
        "num_actors": 1,
    }
    assert summary.num_updates % 16 == 0
    # It goes on by what it began with, also where the table has changed since.
    config = resume_config(str(summary.run_dir), {"total_frames": 3_000})
    assert train(config).num_updates > summary.num_updates
    assert "as tuned" not in capfd.readouterr().out


# As results/README.md says of them. Where a run was made, and with what pictures, is its own.
OF_TODAY = (
    "atari5",
    "breakout-defaults",
    "other-games",
    "other-games-again",
    "pong-defaults",
    "space-invaders-fresh",
)
OWN = ("run_dir", "video", "tensorboard", "kernels")


@for_each("folder", OF_TODAY)
def test_runs_that_are_said_to_have_the_defaults_of_today_have_them(folder):
    run_dirs = [path.parent for path in (ROOT / "results" / folder).glob("*/config.yaml")]
    assert run_dirs
    for run_dir in run_dirs:
        held = load_config(run_dir)
        given = ("env", "seed", "total_frames", "num_actors", *OWN)
        usual = Config(**{name: getattr(held, name) for name in given})
        spec = GAME._replace(image_layout="channels_first")
        assert difference(held, resolve(usual, spec)) == {}, run_dir
