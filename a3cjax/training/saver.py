"""Where a run goes on from, and what it leaves to go on from: its newest and best parameters."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.journal import BadUpdatesError
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST, check_run_dir, make_run_dir, write_config
from a3cjax.runs.loading import load_checkpoint
from a3cjax.runs.tables import BAD_TRAJECTORY, cut_logs


def find_checkpoint(config: Config) -> Checkpoint | None:
    """The checkpoint that a run goes on from, resumed once more; None where a run begins.

    Raises:
      ConfigError: if there is none that can be used, or the folder of a new run exists.
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

    Checkpoints that lie beyond `past`, where the run has come to, are discarded at once.
    """

    run_dir: Path
    past: Progress
    num_envs: int  # of all actors: each uses a seed

    def __post_init__(self):
        self.began = time.monotonic() - self.past.wall_seconds
        self._newest = Checkpointer(self.run_dir / NEWEST)
        self._best = Checkpointer(self.run_dir / BEST, max_to_keep=1)
        for checkpointer in (self._newest, self._best):
            checkpointer.discard_after(self.past.num_frames)
        best = self._best.read_progress()
        self.best_score = best.best_score if best else None  # a mean score of an evaluation

    def seconds(self) -> float:
        """Wall-clock seconds of the run until now, those before it was resumed included."""
        return time.monotonic() - self.began

    def save(self, checkpoint: Checkpoint, *, is_best: bool = False) -> None:
        """Saves where the run stands, or its best parameters so far.

        These after the newest: the best must not lie ahead of where a run can go on.
        """
        progress = checkpoint.progress._replace(
            wall_seconds=self.seconds(),
            num_resumes=self.past.num_resumes,
            num_seeds=self.past.num_seeds + self.num_envs,
            best_score=self.best_score,
        )
        checkpointer = self._best if is_best else self._newest
        checkpointer.save(checkpoint._replace(progress=progress))

    def save_bad_trajectory(self, failure: BadUpdatesError) -> None:
        """Saves what a refused update was computed from, for inspection."""
        path = self.run_dir / BAD_TRAJECTORY
        trajectory = failure.report.bad_trajectory
        assert trajectory is not None
        arrays: dict[str, Any] = trajectory._asdict()
        leaves = jax.tree.leaves(arrays.pop("core_state"))
        arrays |= {f"core_state_{index}": leaf for index, leaf in enumerate(leaves)}
        np.savez_compressed(path, **arrays)
        failure.add_note(f"its trajectory is saved in {path}")
