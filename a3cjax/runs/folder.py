"""The run folder: its name, and what is written into it by the run itself."""

import contextlib
import dataclasses
import datetime
import itertools
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs import tables
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.lock import LOCK, claimed
from a3cjax.system import machine, provenance
from a3cjax.system.files import as_place, replace_file
from a3cjax.types import Snapshot

NEWEST, BEST = "checkpoints", "best"  # folders of checkpoints
LOGS = (tables.METRICS, tables.EPISODES, tables.EVALUATIONS)
FILMS = (f"{tables.PLAY}.mp4", f"{tables.PLAY}.gif")
REPLACED = (tables.CONFIG_FILE, tables.SUMMARY, tables.CURVES, *FILMS)  # as a whole, each time


class Summary(NamedTuple):
    """The result of a run.

    `evaluation` is None if none was asked for or a signal ended the run; `signal_number` is
    None unless a signal did; `mean_return` is the mean over the last 100 training episodes,
    NaN before the first; `wall_seconds` includes what came before resuming;
    `best_score` is the mean of the best evaluation of the run; `stopped_by` is the callback that
    ended it before its budget was used up.
    """

    run_dir: Path
    num_frames: int
    num_updates: int
    wall_seconds: float
    mean_return: float
    evaluation: Evaluation | None
    signal_number: int | None
    num_resumes: int = 0
    best_score: float | None = None
    stopped_by: str | None = None


OWN_FILES = {
    *(LOCK, tables.CONFIG_FILE, tables.SUMMARY, tables.METRICS, tables.EPISODES),
    *(tables.EVALUATIONS, tables.ENVIRONMENT_FILE, tables.TRACKING),
}


def as_output(path: str | os.PathLike[str]) -> Path:
    """Where a result that somebody names is to be written.

    Raises:
      OSError: as `as_place`; if a file of a run would be overwritten.
    """
    place = as_place(path)
    if place.exists() and (place.name in OWN_FILES or place.suffix == ".safetensors"):
        raise OSError(f"the place of a result must not be a file of a run, got {path}.")
    return place


def check_run_dir(config: Config) -> None:
    """Refuse a run folder that is no place for a new run, before anything is started.

    The folder may exist if it is empty (or a link to an empty folder), or if a run was killed in
    it before its config.yaml was written.

    Raises:
      ConfigError: if something is there, or it cannot be looked at.
    """
    if config.run_dir is None:
        return
    run_dir = Path(config.run_dir)
    there = next(path for path in (run_dir, *run_dir.parents, Path()) if os.path.lexists(path))
    try:
        if not there.is_dir():  # a file, or a link that leads nowhere
            raise ConfigError(f"run_dir must be a new folder, got {run_dir}: {there} is none.")
        names = os.listdir(run_dir) if there == run_dir else []
        for path in (run_dir, *(there / part for part in run_dir.parts)):
            with contextlib.suppress(FileNotFoundError):
                os.lstat(path)  # a name may be too long
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"run_dir must be a path, got {run_dir}: {error}") from error
    if any(name != LOCK and not name.endswith(".part") for name in names):
        raise ConfigError(f"run_dir must be new or empty, got {run_dir}.")


@contextlib.contextmanager
def make_run_dir(config: Config) -> Iterator[Path]:
    """Make and claim `config.run_dir`, or else runs/<env>/<date-time>-seed<seed>.

    A new folder appears with its config.yaml in it, whatever happens: from then on there is a
    run to go on with.

    Raises:
      ConfigError: as `check_run_dir`; if it cannot be made; if another process makes it, too.
    """
    check_run_dir(config)
    for run_dir in _name_run_dirs(config):
        with contextlib.ExitStack() as stack:
            try:
                if not os.path.lexists(run_dir):
                    unfinished = run_dir.parent / f".{secrets.token_hex(8)}.part"
                    unfinished.mkdir(parents=True)
                    stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
                    stack.enter_context(claimed(unfinished, config.env))
                    write_config(config, run_dir, unfinished)
                    unfinished.rename(run_dir)
                elif config.run_dir is None:
                    continue  # another run began within this second
                else:
                    stack.enter_context(claimed(run_dir, config.env))
                    check_run_dir(config)  # still nobody has written there
                    write_config(config, run_dir)
            except OSError as error:
                check_run_dir(config)
                if config.run_dir is None and os.path.lexists(run_dir):
                    continue
                message = f"run_dir must be writable, got {run_dir}: {error}"
                raise ConfigError(message) from error
            yield run_dir
            return


def _name_run_dirs(config: Config) -> Iterator[Path]:
    if config.run_dir is not None:
        yield Path(config.run_dir)
        return
    parent = Path("runs") / re.sub(r"[^\w.+-]+", "-", config.env).strip("-")
    name = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-seed{config.seed}"
    yield parent / name
    yield from (parent / f"{name}-{number}" for number in itertools.count(2))


def write_config(config: Config, run_dir: Path, folder: Path | None = None) -> None:
    """Write config.yaml, in one piece: a run that is killed leaves the old one or the new.

    `resume` is left out: it is given anew each time. `folder` is the folder to write into while
    `run_dir` does not exist yet.
    """
    settings = {**dataclasses.asdict(config), "run_dir": str(run_dir), "resume": None}
    content = yaml.safe_dump(settings, sort_keys=False)
    replace_file((folder or run_dir) / tables.CONFIG_FILE, content)


def has_results(run_dir: Path) -> bool:
    """Whether a run folder holds anything that was learned, or a record that it once did.

    Raises:
      OSError: if the folder cannot be read.
    """
    folders = filter(os.path.lexists, (run_dir / NEWEST, run_dir / BEST))
    if any(not name.endswith(".part") for folder in folders for name in os.listdir(folder)):
        return True
    # If a signal ended random play, there is a summary, but nothing was learned.
    if (run_dir / tables.SUMMARY).exists() and tables.read_summary(run_dir).get("num_updates") != 0:
        return True
    return any(tables.read_rows(run_dir / name) != ([], 0) for name in LOGS)


def append_evaluation(
    run_dir: Path, snapshot: Snapshot, wall_seconds: float, evaluation: Evaluation
) -> bool:
    """Append a row to evaluations.csv; False if the last one is of these games."""
    path = run_dir / tables.EVALUATIONS
    values = {
        "num_frames": snapshot.num_frames,
        "wall_seconds": round(wall_seconds, 3),
        **evaluation.as_dict(),
        "scores": " ".join(tables.shorten(score, "") for score in evaluation.scores),
    }
    del values["lengths"]
    row = {name: str(value) for name, value in values.items()}
    past = tables.read_rows(path)[0]
    same = {name: text for name, text in row.items() if name != "wall_seconds"}
    if past and {name: past[-1].get(name, text) for name, text in same.items()} == same:
        return False
    tables.append_rows(path, [row], row)
    return True


def write_summary(config: Config, summary: Summary, commit: str) -> None:
    """Write summary.json: the result and where it comes from.

    `commit` is the one at the start: the checkout may have moved on since. Where nothing was
    learned since the last summary, that one's evaluation stays until there is a new one, and so
    does its `signal`.
    """
    evaluation = summary.evaluation.as_dict() if summary.evaluation else None
    signal_number, past = summary.signal_number, tables.read_summary(summary.run_dir)
    judged = past.get("evaluation")
    if evaluation is None and judged and past.get("num_updates") == summary.num_updates:
        evaluation, signal_number = judged, past.get("signal")
    content = {
        "env": config.env,
        "seed": config.seed,
        "command": provenance.describe_command(),
        "commit": commit,
        "num_frames": summary.num_frames,
        "num_updates": summary.num_updates,
        "num_resumes": summary.num_resumes,
        "training_seconds": round(summary.wall_seconds, 1),
        "frames_per_second": round(summary.num_frames / summary.wall_seconds, 1),
        "training_return_mean": None if math.isnan(summary.mean_return) else summary.mean_return,
        "evaluation": evaluation,
        "best_score": summary.best_score,
        "signal": signal_number,
        "stopped_by": summary.stopped_by,
        "machine": machine.describe_machine(),
        "versions": provenance.describe_versions(),
    }
    replace_file(summary.run_dir / tables.SUMMARY, json.dumps(content, indent=2) + "\n")
