"""Where a run goes on from, and what it leaves to go on from: its newest and best parameters."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a3cjax.config.bringing import NO_PARTS, Parts
from a3cjax.config.settings import Config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.journal import BadUpdatesError
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.environment_files import check_environment, write_environment
from a3cjax.runs.folder import (
    BEST,
    LOGS,
    NEWEST,
    REPLACED,
    check_run_dir,
    has_results,
    make_run_dir,
    write_config,
)
from a3cjax.runs.loading import load_checkpoint
from a3cjax.runs.tables import BAD_TRAJECTORY, check_budget, cut_logs, read_rows
from a3cjax.system.output import warn


def find_checkpoint(config: Config, parts: Parts = NO_PARTS) -> Checkpoint | None:
    """The checkpoint that a run goes on from, with one more resume counted; None if it begins.

    It also begins where the run to resume ended before it had learned anything. The best score
    is read with the parameters in `BEST`: a better evaluation may have been saved without its
    parameters. No file is changed. The caller claims the folder of a run to resume.

    Raises:
      ConfigError: if there is none that can be used, the folder of a new run exists, or
        `total_frames` is smaller than it was, and used up.
    """
    if config.resume is None:
        check_run_dir(config)
        return None
    run_dir = Path(config.resume).absolute()  # environments may change the working folder
    try:
        if not has_results(run_dir):
            return None
        *_, checkpoint = load_checkpoint(config, run_dir / NEWEST, parts)
        last = checkpoint.progress.num_frames
        best = Checkpointer(run_dir / BEST).read_progress(last, warn)
        for name in LOGS:  # will be cut: what cannot be read stops here
            read_rows(run_dir / name)
        for name in (*REPLACED, *(f"{name}.part" for name in REPLACED)):
            if (run_dir / name).is_dir():  # it would be found out after all the learning
                raise IsADirectoryError(f"{name} must be a file.")
    except (OSError, CheckpointError) as error:
        raise ConfigError(
            f"resume must be a folder with a sound checkpoint, got {config.resume}: {error}"
        ) from error
    check_budget(Path(config.resume), config.total_frames, last)
    progress = checkpoint.progress._replace(
        num_resumes=checkpoint.progress.num_resumes + 1,
        best_score=best.best_score if best else None,
    )
    return checkpoint._replace(progress=progress)


@contextlib.contextmanager
def open_run_dir(config: Config, past: Progress, spec: EnvironmentSpec) -> Iterator[Path]:
    """Make and claim a new run folder, or cut the resumed run's back to where it stood.

    Later checkpoints are moved aside, once all that may be unreadable has been read. `spec`, of
    the environments, is kept in the folder.

    Raises:
      ConfigError: if it cannot be made, or environments are not what they were.
      CheckpointError: if checkpoints or the file on the environments cannot be read, or
        checkpoints cannot be moved.
    """
    if config.resume is None:
        with make_run_dir(config) as run_dir:
            write_environment(run_dir, spec)
            yield run_dir
        return
    run_dir = Path(config.resume)
    check_environment(run_dir, spec)
    checkpointers = [Checkpointer(run_dir / name) for name in (NEWEST, BEST)]
    stale = [checkpointer.find_stale(past.num_frames) for checkpointer in checkpointers]
    for checkpointer, paths in zip(checkpointers, stale, strict=True):
        checkpointer.discard(paths)
    write_config(config, run_dir)
    write_environment(run_dir, spec)
    cut_logs(run_dir, past.num_frames)
    yield run_dir


class Saver:
    """Saves the newest and the best parameters of a run, or raises a CheckpointError."""

    def __init__(self, run_dir: Path, past: Progress, count_seeds: Callable[[], int]):
        """`past` is where the run stands; `count_seeds` says how many seeds it has used since."""
        self.run_dir, self.past, self._count_seeds = run_dir, past, count_seeds
        self.began = time.monotonic() - past.wall_seconds
        self.best_score = past.best_score  # a mean score of an evaluation
        self._newest = Checkpointer(run_dir / NEWEST)
        self._best = Checkpointer(run_dir / BEST, max_to_keep=1)

    def seconds(self) -> float:
        """Wall-clock seconds of the run until now, including those before it was resumed."""
        return time.monotonic() - self.began

    def save(self, checkpoint: Checkpoint, *, is_best: bool = False) -> None:
        """Save where the run stands, or its best parameters so far.

        The best are saved after the newest: they must not lie ahead of where a run can go on.
        """
        progress = checkpoint.progress._replace(
            wall_seconds=self.seconds(),
            num_resumes=self.past.num_resumes,
            num_seeds=self.past.num_seeds + self._count_seeds(),
            best_score=self.best_score,
        )
        checkpointer = self._best if is_best else self._newest
        checkpointer.save(checkpoint._replace(progress=progress))

    def save_bad_trajectory(self, failure: BadUpdatesError) -> None:
        """Save what a refused update was computed from, for inspection."""
        path = self.run_dir / BAD_TRAJECTORY
        trajectory = failure.report.bad_trajectory
        assert trajectory is not None
        arrays: dict[str, Any] = trajectory._asdict()
        leaves = jax.tree.leaves(arrays.pop("core_state"))
        arrays |= {f"core_state_{index}": leaf for index, leaf in enumerate(leaves)}
        if isinstance(trajectory.observations, dict):
            by_key = arrays.pop("observations").items()
            arrays |= {f"observations_{key}": array for key, array in by_key}
        np.savez_compressed(path, **{k: x for k, x in arrays.items() if x is not None})
        failure.add_note(f"its trajectory is saved in {path}")
