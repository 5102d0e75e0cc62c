"""Learning through the real `train`: small problems that a correct agent solves in a minute."""

import pytest

from a3cjax.agents import ALGORITHMS
from a3cjax.config.settings import Config
from a3cjax.training.run import train
from tests.learning import memory

QUIET = {"checkpoint_period_frames": 10_000_000, "warmup_steps": 8, "video": False}


def learn(tmp_path, **settings):
    """Trains, with the defaults where nothing is said, and returns the mean score of 100 games."""
    config = Config(run_dir=str(tmp_path / "run"), eval_episodes=100, **QUIET, **settings)
    summary = train(config)
    assert summary.evaluation is not None
    return summary.evaluation.mean


# Short unrolls and a quick succession of target parameters: one-step methods see one step
# farther with each.
SMALL_PROBLEM = {"unroll_length": 8, "target_period_frames": 1000}


@pytest.mark.parametrize(
    ("algorithm", "total_frames"),
    [
        ("a3c", 60_000),
        ("ppo", 30_000),
        pytest.param("vtrace", 60_000, marks=pytest.mark.slow),  # on policy it is a3c, bit by bit
    ],
)
def test_actor_critics_solve_catch(tmp_path, algorithm, total_frames):
    # Random play catches one ball in five: -0.6. The most is 1.
    score = learn(tmp_path, env="Catch", algorithm=algorithm, total_frames=total_frames)
    assert score >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "total_frames", "least"),
    [
        ("MountainCar", 1_000_000, -105),  # the usual settings have -124
        ("MountainCarContinuous", 200_000, 90),  # the usual settings: 0 in five of eight
    ],
)
def test_mountain_cars_are_learned_by_what_is_tuned_for_them(tmp_path, env, total_frames, least):
    assert learn(tmp_path, env=env, total_frames=total_frames) >= least


@pytest.mark.slow
def test_a3c_learns_several_choices_at_once_among_those_allowed(tmp_path):
    # Four right choices give 1; random play among the allowed ones, half of them, 0.55.
    score = learn(
        tmp_path,
        env="gymnasium:tests.learning.locks:Locks-v0",
        total_frames=30_000,
    )
    assert score >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_memory_task_is_solved_by_recurrent_cores(tmp_path, core):
    score = learn(
        tmp_path,
        env=f"gymnasium:{memory.__name__}:RecallCue-v0",
        network=f"mlp_{core}",
        total_frames=60_000,
    )
    assert score >= 0.9


@pytest.mark.slow
def test_memory_task_is_not_solved_without_memory(tmp_path):
    score = learn(
        tmp_path,
        env=f"gymnasium:{memory.__name__}:RecallCue-v0",
        network="mlp_ff",
        total_frames=60_000,
    )
    # Guessing has mean 0 and standard deviation 1: 0.1 for the mean of 100 games.
    assert score <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp_ff", "mlp_lstm"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_solves_catch(tmp_path, algorithm, network):
    scores = []
    for seed in range(1 if network == "mlp_ff" else 2):  # one LSTM in sixty: docs/decisions.md
        score = learn(
            tmp_path / str(seed),
            env="Catch",
            algorithm=algorithm,
            network=network,
            seed=seed,
            total_frames=150_000,
            exploration_frames=50_000,
            **SMALL_PROBLEM,
        )
        scores.append(score)
        if score >= 0.9:
            break
    assert max(scores) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["one_step_q", "n_step_q"])
def test_double_and_dueling_q_learning_solve_catch(tmp_path, algorithm):
    score = learn(
        tmp_path,
        env="Catch",
        algorithm=algorithm,
        double_q=True,
        dueling=True,
        huber_delta=1.0,
        total_frames=150_000,
        exploration_frames=50_000,
        **SMALL_PROBLEM,
    )
    assert score >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("network", "solves_it"), [("mlp_lstm", True), ("mlp_ff", False)])
def test_q_learning_solves_the_memory_task_with_memory_only(tmp_path, network, solves_it):
    score = learn(
        tmp_path,
        env=f"gymnasium:{memory.__name__}:RecallCue-v0",
        algorithm="n_step_q",
        network=network,
        total_frames=60_000,
        exploration_frames=25_000,
        **SMALL_PROBLEM,
    )
    if solves_it:
        assert score >= 0.9
    else:
        assert score <= 0.5
