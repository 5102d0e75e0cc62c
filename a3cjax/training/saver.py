"""Where a run goes on from, and what it leaves to go on from: its newest and best parameters."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.journal import BadUpdatesError
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST, check_run_dir, make_run_dir, write_config
from a3cjax.runs.loading import load_checkpoint
from a3cjax.runs.tables import BAD_TRAJECTORY, cut_logs
from a3cjax.types import LearnerState, Snapshot


def find_checkpoint(config: Config) -> Checkpoint | None:
    """The checkpoint that a run goes on from, resumed once more; None where a run begins.

    Raises:
      ConfigError: if the folder to resume holds none that can be used, or that of a new run
        is there already.
    """
    if config.resume is None:
        check_run_dir(config)
        return None
    try:
        checkpoint = load_checkpoint(config, Path(config.resume) / NEWEST)[1]
    except (OSError, CheckpointError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"resume must be a folder with a sound checkpoint, got {config.resume}: {reason}"
        ) from error
    num_resumes = checkpoint.progress.num_resumes + 1
    return checkpoint._replace(progress=checkpoint.progress._replace(num_resumes=num_resumes))


def open_run_dir(config: Config, past: Progress) -> Path:
    """Makes the run folder, or cuts the logs of the one to resume back to its checkpoint.

    Raises:
      ConfigError: if it cannot be made.
    """
    if config.resume is None:
        return make_run_dir(config)
    run_dir = Path(config.resume)
    write_config(config, run_dir)
    cut_logs(run_dir, past.num_frames)
    return run_dir


@dataclass
class Saver:
    """Saves the newest and the best parameters of a run, or raises a CheckpointError.

    `progress` holds what the actor-learners do not know: how often the run was resumed, the
    seeds used by now, the best score. `began` is the monotonic time of its start, the
    seconds before it was resumed deducted.
    """

    run_dir: Path
    newest: Checkpointer
    best: Checkpointer
    progress: Progress
    began: float

    def seconds(self) -> float:
        """Wall-clock seconds of the run until now, those before it was resumed included."""
        return time.monotonic() - self.began

    def save(self, newest: Checkpoint) -> None:
        """Saves where the run stands."""
        self.newest.save(self._complete(newest))

    def note_score(self, score: float) -> bool:
        """Notes the mean score of an evaluation; whether it is the best of the run so far."""
        best = self.progress.best_score
        is_best = best is None or score > best
        if is_best:
            self.progress = self.progress._replace(best_score=score)
        return is_best

    def save_best(self, state: LearnerState, snapshot: Snapshot) -> None:
        """Saves the best parameters so far.

        The newest are to be saved before: the best must not lie ahead of where a run can go on.
        """
        progress = Progress(num_frames=snapshot.num_frames, num_updates=snapshot.version)
        self.best.save(self._complete(Checkpoint(state, snapshot.statistics, progress)))

    def save_bad_trajectory(self, failure: BadUpdatesError) -> None:
        """Saves what a refused update was computed from, for inspection."""
        path = self.run_dir / BAD_TRAJECTORY
        trajectory = failure.report.bad_trajectory
        assert trajectory is not None
        arrays = trajectory._asdict()
        leaves = jax.tree.leaves(arrays.pop("core_state"))
        arrays |= {f"core_state_{index}": leaf for index, leaf in enumerate(leaves)}
        np.savez_compressed(path, **cast(dict[str, Any], arrays))
        failure.add_note(f"its trajectory is saved in {path}")

    def _complete(self, checkpoint: Checkpoint) -> Checkpoint:
        progress = checkpoint.progress._replace(
            wall_seconds=self.seconds(),
            num_resumes=self.progress.num_resumes,
            num_seeds=self.progress.num_seeds,
            best_score=self.progress.best_score,
        )
        return checkpoint._replace(progress=progress)


def open_saver(run_dir: Path, past: Progress, num_envs: int) -> Saver:
    """For a run that has come this far; what lies beyond is discarded.

    Each of all its `num_envs` environments uses a seed.

    Raises:
      CheckpointError: if checkpoints cannot be read or moved.
    """
    newest, best = Checkpointer(run_dir / NEWEST), Checkpointer(run_dir / BEST, max_to_keep=1)
    for checkpointer in (newest, best):
        checkpointer.discard_after(past.num_frames)
    found = best.read_progress()
    best_score, num_seeds = found.best_score if found else None, past.num_seeds + num_envs
    progress = past._replace(num_seeds=num_seeds, best_score=best_score)
    return Saver(run_dir, newest, best, progress, time.monotonic() - past.wall_seconds)
