"""What is kept of a run to go on from, and for whoever wants its best."""

import jax.numpy as jnp
import pytest

from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.training.saver import Saver
from a3cjax.types import LearnerState

STATE = LearnerState(jnp.arange(3.0), ())
PAST = Progress(num_frames=400, num_updates=5, wall_seconds=90.0, num_resumes=2, num_seeds=7)


def checkpoint_at(num_frames):
    """What the actor-learners know of a checkpoint."""
    progress = Progress(num_frames=num_frames, num_updates=num_frames // 80, actor_keys=((1, 2),))
    return Checkpoint(STATE, None, progress)


def newest_of(folder):
    progress = Checkpointer(folder).read_progress()
    assert progress is not None
    return progress


@pytest.fixture
def saver(tmp_path):
    return Saver(tmp_path, PAST, num_envs=4)


def test_checkpoint_tells_what_the_actor_learners_do_not_know(saver, tmp_path):
    saver.best_score = 3.5
    saver.save(checkpoint_at(480))
    saved = newest_of(tmp_path / NEWEST)
    assert (saved.num_frames, saved.num_updates, saved.actor_keys) == (480, 6, ((1, 2),))
    assert (saved.num_resumes, saved.num_seeds, saved.best_score) == (2, 7 + 4, 3.5)
    assert 90.0 <= saved.wall_seconds <= saver.seconds()


def test_best_is_saved_by_itself_and_found_again(saver, tmp_path):
    saver.best_score = 3.5
    saver.save(checkpoint_at(480), is_best=True)
    saved = newest_of(tmp_path / BEST)
    assert (saved.num_frames, saved.num_updates, saved.best_score) == (480, 6, 3.5)
    assert Checkpointer(tmp_path / NEWEST).read_progress() is None
    assert Saver(tmp_path, saved, 4).best_score == 3.5


def test_run_that_goes_on_drops_what_lies_beyond(saver, tmp_path):
    for num_frames in (400, 480):
        saver.save(checkpoint_at(num_frames))
        saver.save(checkpoint_at(num_frames), is_best=True)
    assert Saver(tmp_path, PAST, 4).best_score is None
    assert newest_of(tmp_path / NEWEST).num_frames == 400
    assert Checkpointer(tmp_path / BEST).read_progress() is None  # one is kept, and it is later
