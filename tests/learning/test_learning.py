"""Learning through the real `train`: small problems that a correct agent solves in a minute."""

import pytest

from a3cjax.config import Config
from a3cjax.training import train
from tests.learning import memory

QUIET = {"checkpoint_period_frames": 10_000_000, "warmup_steps": 8}


def learn(tmp_path, **settings):
    """Trains with two actors and returns the mean score of 100 games after it."""
    config = Config(
        run_dir=str(tmp_path / "run"), num_actors=2, eval_episodes=100, **QUIET, **settings
    )
    summary = train(config)
    assert summary.evaluation is not None
    return summary.evaluation.mean


def test_a3c_solves_catch(tmp_path):
    # Random play catches one ball in five: -0.6. The most is 1.
    score = learn(tmp_path, env="Catch", total_frames=250_000, centre_observations=False)
    assert score >= 0.9


def test_a3c_solves_cart_pole(tmp_path):
    # Random play balances for about 22 steps. The most is 500; Gymnasium calls 475 solved.
    score = learn(
        tmp_path,
        env="CartPole",
        total_frames=300_000,
        centre_observations=False,
        envs_per_actor=8,
        unroll_length=8,
        learning_rate=0.003,
        discount=0.98,
        entropy_cost=0.001,
    )
    assert score >= 475


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_memory_task_is_solved_by_recurrent_cores(tmp_path, core):
    score = learn(
        tmp_path,
        env=f"gymnasium:{memory.__name__}:RecallCue-v0",
        network=f"mlp_{core}",
        total_frames=60_000,
        centre_observations=False,
    )
    assert score >= 0.9


def test_memory_task_is_not_solved_without_memory(tmp_path):
    score = learn(
        tmp_path,
        env=f"gymnasium:{memory.__name__}:RecallCue-v0",
        network="mlp_ff",
        total_frames=60_000,
        centre_observations=False,
    )
    # Guessing has mean 0 and standard deviation 1: 0.1 for the mean of 100 games.
    assert score <= 0.5
