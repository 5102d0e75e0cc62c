"""What is kept of a run to go on from, what is found again, and what lies beyond it."""

import errno
import os
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.config.reading import load_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.journal import BadUpdatesError
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST, write_config
from a3cjax.runs.lock import claimed
from a3cjax.runs.tables import BAD_TRAJECTORY, EPISODES, EpisodeRow
from a3cjax.training import saver as saver_module
from a3cjax.training.saver import Saver, find_checkpoint, open_run_dir
from a3cjax.types import LearnerState, Trajectory
from tests.fakes import FakeEnvironments

SPEC = FakeEnvironments().spec
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


def contents(run_dir):
    return {path: path.is_file() and path.read_bytes() for path in run_dir.rglob("*")}


def stems(folder):
    return sorted(path.stem.rpartition("-")[2] for path in folder.glob("*.safetensors"))


@pytest.fixture
def saver(tmp_path):
    return Saver(tmp_path, PAST, lambda: 4)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Of a run to resume, whose parameters need no environment to be understood."""

    def load_checkpoint(config, folder, parts):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder.name}")
        return SPEC, None, Checkpointer(folder).restore(checkpoint_at(0), print)

    monkeypatch.setattr(saver_module, "load_checkpoint", load_checkpoint)
    write_config(Config(seed=5), tmp_path)
    return resume_config(str(tmp_path), {})


def score(saver, num_frames, best_score):
    """Saves parameters that are the best by now."""
    saver.best_score = best_score
    saver.save(checkpoint_at(num_frames))
    saver.save(checkpoint_at(num_frames), is_best=True)


def go_on(run_dir):
    """As `train` begins to."""
    config = resume_config(str(run_dir), {})
    with claimed(run_dir), open_run_dir(config, find_checkpoint(config).progress, SPEC):
        pass


@pytest.mark.parametrize("is_dict", [False, True])
def test_a_bad_trajectory_is_read_without_trust(saver, tmp_path, is_dict):
    images, numbers = np.zeros((3, 2, 4), np.uint8), np.ones((3, 2, 1), np.float32)
    observations = {"camera": images, "vector": numbers} if is_dict else numbers
    ones = np.ones((2, 2), np.float32)
    trajectory = Trajectory(observations, ones, ones, ones, np.zeros((3, 2), bool), (ones, ones))
    report = types.SimpleNamespace(
        metrics={}, actor_index=0, run_frames=0, bad_trajectory=trajectory
    )
    saver.save_bad_trajectory(BadUpdatesError(report, 3))
    with np.load(tmp_path / BAD_TRAJECTORY, allow_pickle=False) as saved:
        found = {name: saved[name].shape for name in saved}
    shown = {"observations_camera": (3, 2, 4), "observations_vector": (3, 2, 1)}
    shown = shown if is_dict else {"observations": (3, 2, 1)}
    names = ("actions", "rewards", "discounts", "core_state_0", "core_state_1")
    assert found == shown | dict.fromkeys(names, (2, 2)) | {"is_first": (3, 2)}


def test_checkpoint_tells_what_the_actor_learners_do_not_know(saver, tmp_path):
    saver.best_score = 3.5
    saver.save(checkpoint_at(480))
    saved = newest_of(tmp_path / NEWEST)
    assert (saved.num_frames, saved.num_updates, saved.actor_keys) == (480, 6, ((1, 2),))
    assert (saved.num_resumes, saved.num_seeds, saved.best_score) == (2, 7 + 4, 3.5)
    assert 90.0 <= saved.wall_seconds <= saver.seconds()


def test_nothing_is_made_or_moved_before_the_first_save(saver, tmp_path):
    assert list(tmp_path.iterdir()) == []
    score(saver, 480, 3.5)
    before = contents(tmp_path)
    Saver(tmp_path, PAST, lambda: 4)
    assert contents(tmp_path) == before


def test_best_is_saved_by_itself_and_its_score_found_again(saver, config, tmp_path):
    score(saver, 480, 3.5)
    # Killed after an evaluation was told of, and before its parameters were kept.
    saver.best_score = 7.0
    saver.save(checkpoint_at(560))
    assert stems(tmp_path / BEST) == ["480"]
    assert stems(tmp_path / NEWEST) == ["480", "560"]
    before = contents(tmp_path)
    checkpoint = find_checkpoint(config)
    assert contents(tmp_path) == before
    assert checkpoint.progress.num_frames == 560
    assert checkpoint.progress.num_resumes == PAST.num_resumes + 1
    assert checkpoint.progress.best_score == 3.5
    assert Saver(tmp_path, checkpoint.progress, lambda: 4).best_score == 3.5


def test_damaged_best_parameters_are_told_of(saver, config, tmp_path, capsys):
    score(saver, 480, 3.5)
    best = tmp_path / BEST / "480.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    assert find_checkpoint(config).progress.best_score is None
    assert f"checkpoint {best} is damaged" in capsys.readouterr().err


def test_run_that_goes_on_drops_what_lies_beyond(saver, config, tmp_path):
    for num_frames in (400, 480):
        score(saver, num_frames, num_frames / 10)
    newest = tmp_path / NEWEST / "480.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])  # so it goes on from the one before
    header = ",".join(EpisodeRow._fields) + "\n"
    (tmp_path / EPISODES).write_text(f"{header}400,1,0,1,1\n480,2,0,1,1\n")
    checkpoint = find_checkpoint(config)
    assert checkpoint.progress.num_frames == 400
    assert checkpoint.progress.best_score is None  # one is kept, and it is later
    with open_run_dir(config, checkpoint.progress, SPEC) as run_dir:
        assert run_dir == tmp_path
    assert newest_of(tmp_path / NEWEST).num_frames == 400
    assert Checkpointer(tmp_path / BEST).read_progress() is None
    # Nothing is lost: it lies beside.
    assert stems(tmp_path / NEWEST) == ["400", "480"]
    assert [path.name[:10] for path in (tmp_path / BEST).iterdir()] == ["discarded-"]
    assert (tmp_path / EPISODES).read_text() == f"{header}400,1,0,1,1\n"


# Runs without a checkpoint.


def test_run_ended_before_it_learned_begins_anew_in_its_folder(config, tmp_path):
    with claimed(tmp_path):
        (tmp_path / "episodes.csv").write_text("num_frames,actor\n")
        (tmp_path / NEWEST).mkdir()
        (tmp_path / NEWEST / "0.safetensors.part").touch()
        assert find_checkpoint(config) is None
        with open_run_dir(config, Progress(), SPEC) as run_dir:
            assert run_dir == tmp_path
    assert list((tmp_path / NEWEST).iterdir()) == []
    assert load_config(tmp_path) == config.replace(resume=None)
    assert config.seed == 5


def test_results_without_checkpoints_are_nothing_to_go_on_with(saver, config, tmp_path):
    (tmp_path / "episodes.csv").write_text("num_frames,actor\n400,0\n")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"^resume must be a folder with a sound checkpoint, got"):
        find_checkpoint(config)
    assert contents(tmp_path) == before


# Faults of the disk.


@pytest.mark.parametrize(
    "name",
    [
        *("", "config.yaml", "episodes.csv", NEWEST, BEST),
        *(f"{NEWEST}/480.safetensors", f"{NEWEST}/400.safetensors", f"{BEST}/400.safetensors"),
    ],
)
def test_what_cannot_be_read_stops_in_a_line_with_nothing_changed(
    saver, config, tmp_path, monkeypatch, name
):
    score(saver, 400, 3.5)
    saver.save(checkpoint_at(480))
    saver.save(checkpoint_at(560))
    newest = tmp_path / NEWEST / "560.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    (tmp_path / "episodes.csv").write_text("num_frames,actor\n400,0\n560,0\n")
    before = contents(tmp_path)

    def failing(function, number):
        def call(path, *rest, **named):
            place = Path(path) if isinstance(path, str | Path) else Path("/")
            if place == tmp_path / name or (not name and place.parent == tmp_path):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *rest, **named)

        return call

    for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE):
        with monkeypatch.context() as patch:
            for owner, function in [(os, "listdir"), (os, "open"), (Path, "open")]:
                patch.setattr(owner, function, failing(getattr(owner, function), number))
            with pytest.raises((ConfigError, CheckpointError, OSError)) as caught:
                go_on(tmp_path)
        assert "\n" not in str(caught.value)
        assert os.strerror(number) in str(caught.value)
        after = contents(tmp_path)
        after.pop(tmp_path / "run.lock", None)
        assert after == before, number
