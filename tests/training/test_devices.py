"""Learner and actor-learners on devices of their own: four that JAX makes of one CPU."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from a3cjax.config.reading import resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.parameters.shared import ParametersOnDevice
from a3cjax.runs.loading import load
from a3cjax.runs.tables import EPISODES, read_episodes
from a3cjax.training.fleets import ThreadFleet
from a3cjax.training.run import train

FOUR = "cpu:0,cpu:1,cpu:2,cpu:3"
CONFIG = Config(
    env="Catch",
    total_frames=3000,
    num_actors=3,
    envs_per_actor=4,
    unroll_length=10,
    warmup_steps=16,
    anneal_learning_rate=False,
    deterministic=True,
    eval_episodes=0,
    video=False,
)
needs_four = pytest.mark.skipif(len(jax.devices()) < 4, reason="a child process has four devices")


@pytest.mark.slow  # 40 s
def test_these_tests_pass_on_four_devices():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", __file__]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "3 passed, 1 deselected" in child.stdout, child.stdout + child.stderr
    assert child.returncode == 0


def devices_of(tree):
    return {device.id for leaf in jax.tree.leaves(tree) for device in leaf.devices()}


@needs_four
def test_learner_and_actors_compute_where_they_should_and_learn_catch(tmp_path, monkeypatch):
    fleets, gradients, evaluated = [], {}, []
    start, push = ThreadFleet.start, ParametersOnDevice.push

    def start_and_tell(fleet, supervisor):
        fleets.append(fleet)
        start(fleet, supervisor)

    def look_and_push(self, grads, num_frames, version, actor_index=0, seen=None):
        gradients.setdefault(actor_index, set()).update(devices_of(grads))
        return push(self, grads, num_frames, version, actor_index, seen)

    class Look:
        def on_evaluation(self, evaluation):
            evaluated.append(evaluation.agent().snapshot)

    monkeypatch.setattr(ThreadFleet, "start", start_and_tell)
    monkeypatch.setattr(ParametersOnDevice, "push", look_and_push)
    summary = train(
        Config(
            **{"env": "Catch", "total_frames": 40_000, "num_actors": 3, "devices": FOUR},
            **{"warmup_steps": 8, "eval_period_frames": 20_000, "eval_episodes": 100},
            **{"video": False, "run_dir": str(tmp_path / "run")},
        ),
        callbacks=[Look()],
    )
    assert summary.evaluation.mean >= 0.9  # random play has -0.6
    assert gradients == {0: {1}, 1: {2}, 2: {3}}
    (fleet,) = fleets
    assert [devices_of(actor.standing.key) for actor in fleet.actors] == [{1}, {2}, {3}]
    state, snapshot = fleet.store.read()
    assert devices_of((state.params, state.opt_state, snapshot.params)) == {0}
    assert devices_of([snapshot.params for snapshot in evaluated]) == {0}


def learn_and_go_on(run_dir, devices, later_devices):
    """What a run has learned and played, its first half on other devices than the second."""
    train(CONFIG.replace(run_dir=str(run_dir), devices=devices, total_frames=1500))
    train(resume_config(str(run_dir), {"total_frames": 3000, "devices": later_devices}))
    games = [row._replace(wall_seconds=0.0) for row in read_episodes(run_dir / EPISODES)]
    return load(run_dir).snapshot, games


@needs_four
def test_runs_are_equal_bit_by_bit_on_one_device_and_on_four_and_resumed_on_two(tmp_path):
    one, games = learn_and_go_on(tmp_path / "one", "cpu:0", "cpu:0")
    four, same_games = learn_and_go_on(tmp_path / "four", FOUR, "cpu:2,cpu:0")
    assert one.num_frames == four.num_frames >= 3000
    jax.tree.map(np.testing.assert_array_equal, one.params, four.params)
    assert games == same_games != []


def test_devices_that_are_not_there_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"^devices must be of those .*cpu:0.* got cuda:1\.$"):
        train(CONFIG.replace(run_dir=str(tmp_path / "run"), devices="cpu:0,cuda:1"))
    assert not (tmp_path / "run").exists()
