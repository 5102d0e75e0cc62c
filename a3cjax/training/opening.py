"""What a run opens before it begins: its checkpoint, its folder, its logs."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from a3cjax.config.builders import build_schedule
from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.loggers import CsvLogger, Logger, read_episodes
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.logs.tracking import (
    TRACKERS,
    MlflowLogger,
    TensorBoardLogger,
    WandbLogger,
    is_installed,
)
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.runs.folder import check_run_dir, make_run_dir, write_config
from a3cjax.runs.loading import load_checkpoint
from a3cjax.runs.tables import cut_csv


def check_trackers(config: Config) -> None:
    """Refuses a tracker whose package is missing, before anything is started.

    Raises:
      ConfigError: says what to install.
    """
    for name in TRACKERS:
        if getattr(config, name) and not is_installed(name):
            raise ConfigError(
                f"{name} must be false where its package is missing, got true: "
                f"pip install 'a3cjax[{name}]'"
            )


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
        checkpoint = load_checkpoint(config, Path(config.resume))[1]
    except (OSError, ValueError, CheckpointError) as error:
        if isinstance(error, ConfigError):
            raise
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
    for name in ("metrics.csv", "episodes.csv", "evaluations.csv"):
        cut_csv(run_dir / name, past.num_frames)
    return run_dir


class Logs(NamedTuple):
    """Where a run's progress is written: for people, for files; and the scores of before."""

    terminal: TerminalLogger
    loggers: list[Logger]
    past_returns: list[float]


@contextlib.contextmanager
def open_logs(config: Config, run_dir: Path, past: Progress) -> Iterator[Logs]:
    """Opens the terminal and the configured loggers.

    All are closed at the end; the loggers are told whether the run failed.
    """
    with contextlib.ExitStack() as stack:
        terminal = TerminalLogger(
            f"{config.env}  {run_dir}", config.total_frames, num_actors=config.num_actors or 1
        )
        stack.callback(terminal.close)
        schedule, settings = build_schedule(config), dataclasses.asdict(config)
        loggers: list[Logger] = []

        def add(logger: Logger) -> None:
            stack.push(lambda failure, *_: logger.close(has_failed=failure is not None))
            loggers.append(logger)

        add(CsvLogger(run_dir))
        if config.tensorboard:
            add(TensorBoardLogger(run_dir, schedule, past.num_frames))
        if config.wandb:
            add(WandbLogger(run_dir, schedule, settings, terminal.print))
        if config.mlflow:
            add(MlflowLogger(run_dir, schedule, settings, terminal.print))
        past_episodes = read_episodes(run_dir / "episodes.csv")
        terminal.write_episodes(past_episodes)
        if config.resume is not None:
            terminal.print(f"going on after {past.num_frames:,} frames")
        yield Logs(terminal, loggers, [episode.episode_return for episode in past_episodes])
