"""Runs hardly depend on the units of rewards and observations, from their files to their end."""

from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

from a3cjax.config.settings import Config
from a3cjax.runs.folder import NEWEST
from a3cjax.runs.loading import load, load_checkpoint
from a3cjax.training.run import train

UNIT = 1024.0  # a power of two: no number is rounded in another way
SIZE = np.array([1.0, UNIT], np.float32)


class Walk(gymnasium.Env):
    """A random walk that an action steers; numbers and rewards are in units of one's own."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward_unit=1.0, observation_units=(1.0, 1.0), offset=0.0):
        self._reward_unit, self._units = reward_unit, np.array(observation_units)
        self._offset = offset

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position = self.np_random.normal(size=2).astype(np.float32)
        return self._show(), {}

    def step(self, action):
        drift = 0.3 if action else -0.3
        self._position += (self.np_random.normal(size=2) + drift).astype(np.float32)
        is_over = bool(np.abs(self._position[0]) > 4)
        return self._show(), float(self._position[1]) * self._reward_unit, is_over, False, {}

    def _show(self):
        return (self._position * self._units + self._offset).astype(np.float32)


gymnasium.register("Walk-v0", Walk, max_episode_steps=17)

CONFIG = Config(
    env="gymnasium:Walk-v0",
    total_frames=800,
    num_actors=2,
    envs_per_actor=4,
    unroll_length=8,
    warmup_steps=16,
    eval_episodes=0,
    video=False,
    tensorboard=False,
    deterministic=True,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains with settings, and returns the agent that comes of it; once for each."""
    runs = {}

    def run_once(algorithm, **env_kwargs):
        key = (algorithm, *env_kwargs)
        if key not in runs:
            folder = tmp_path_factory.mktemp("run") / "run"
            config = CONFIG.replace(algorithm=algorithm, run_dir=str(folder))
            train(config.replace(env_kwargs=env_kwargs or None))
            runs[key] = load(folder)
        return runs[key]

    return run_once


@pytest.mark.parametrize("algorithm", ["a3c", pytest.param("n_step_q", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "units", [{"reward_unit": UNIT}, {"observation_units": [1.0, UNIT]}], ids=["reward", "entry"]
)
def test_units_of_rewards_and_of_single_entries_change_nothing(run, algorithm, units):
    one, other = run(algorithm).snapshot, run(algorithm, **units).snapshot
    assert one.version == other.version > 5
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    reward_unit = units.get("reward_unit", 1.0)
    np.testing.assert_allclose(other.reward_scale, reward_unit * one.reward_scale, rtol=1e-6)
    size = np.array(units.get("observation_units", [1.0, 1.0]))
    np.testing.assert_allclose(other.statistics.mean, size * one.statistics.mean, rtol=1e-6)
    np.testing.assert_allclose(other.statistics.scale, size * one.statistics.scale, rtol=1e-6)


def test_units_matter_where_nothing_is_normalised(tmp_path):
    # Otherwise the test above could not fail.
    params = []
    for unit in (1.0, UNIT):
        config = CONFIG.replace(run_dir=str(tmp_path / str(unit)), total_frames=400)
        train(config.replace(normalize_rewards=False, env_kwargs={"reward_unit": unit}))
        params.append(jax.tree.leaves(load(tmp_path / str(unit)).snapshot.params))
    assert any(np.any(np.abs(a - b) > 1e-4) for a, b in zip(*params, strict=True))


def test_what_was_seen_is_saved_in_64_bits_and_counts_every_step(run):
    agent = run("a3c")
    _, _, checkpoint = load_checkpoint(agent.config, Path(agent.config.run_dir) / NEWEST)
    returns, observations = checkpoint.state.seen
    num_frames = checkpoint.progress.num_frames
    assert {np.asarray(x).dtype for x in jax.tree.leaves((returns, observations))} == {
        np.dtype(np.float64)
    }
    assert returns.num_seen == num_frames  # random play too, but no reset
    assert observations.num_seen >= num_frames  # those of resets, too
    assert agent.snapshot.reward_scale > 0


def test_numbers_too_large_for_32_bits_are_told_of(capfd, tmp_path):
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), total_frames=200)
    train(config.replace(env_kwargs={"offset": 1e9}))
    lines = "".join(capfd.readouterr()).splitlines()
    (line,) = [line for line in lines if "32-bit floats" in line]
    assert line.startswith("warning: observation[0] is 1e+09 in all of random play")
