"""The run folder: its name, and what is written into it by the run itself."""

import dataclasses
import datetime
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import yaml

from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs import tables
from a3cjax.runs.evaluation import Evaluation
from a3cjax.system import machine, provenance
from a3cjax.system.files import replace_file
from a3cjax.types import Snapshot

NEWEST, BEST = "checkpoints", "best"  # folders of checkpoints


class Summary(NamedTuple):
    """What a run came to.

    `evaluation` is None where none was asked for or a signal ended the run;
    `signal_number` is None unless one did; `mean_return` is that of the last 100 training
    episodes, NaN before the first; `wall_seconds` includes what came before resuming;
    `best_score` is the mean of the best evaluation of the run.
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


def check_run_dir(config: Config) -> None:
    """Refuses, by a ConfigError, a run folder that is there already, before anything is started."""
    try:
        if config.run_dir is not None and Path(config.run_dir).exists():
            raise ConfigError(f"run_dir must not exist yet, got {config.run_dir}.")
    except OSError as error:  # a name that is too long, for instance
        raise ConfigError(f"run_dir must be a path, got {config.run_dir}: {error}") from error


def make_run_dir(config: Config) -> Path:
    """Makes `config.run_dir`, or else runs/<env>/<date-time>-seed<seed>, with its config.yaml.

    Raises:
      ConfigError: if it exists already or cannot be made.
    """
    parent = Path("runs") / config.env.replace(":", "-").replace("/", "-")
    name = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-seed{config.seed}"
    run_dir = parent / name if config.run_dir is None else Path(config.run_dir)
    for number in itertools.count(2):
        try:
            run_dir.mkdir(parents=True)
            break
        except FileExistsError:
            check_run_dir(config)
            run_dir = parent / f"{name}-{number}"  # another run began within this second
        except OSError as error:
            raise ConfigError(f"run_dir must be writable, got {run_dir}: {error}") from error
    write_config(config, run_dir)
    return run_dir


def write_config(config: Config, run_dir: Path) -> None:
    """Writes config.yaml, in one piece: a run that is killed leaves the old one or the new.

    `resume` is left out of it: that is said anew each time.
    """
    settings = {**dataclasses.asdict(config), "run_dir": str(run_dir), "resume": None}
    replace_file(run_dir / tables.CONFIG_FILE, yaml.safe_dump(settings, sort_keys=False))


def append_evaluation(
    run_dir: Path, snapshot: Snapshot, wall_seconds: float, evaluation: Evaluation
) -> bool:
    """Appends a row to evaluations.csv; False: the same parameters get no second one."""
    path = run_dir / tables.EVALUATIONS
    past = tables.read_rows(path)[0]
    if past and past[-1]["num_frames"] == str(snapshot.num_frames):
        return False
    row = {
        "num_frames": snapshot.num_frames,
        "wall_seconds": round(wall_seconds, 3),
        **evaluation.as_dict(),
        "scores": " ".join(f"{score:g}" for score in evaluation.scores),
    }
    del row["lengths"]
    tables.append_rows(path, [{name: str(value) for name, value in row.items()}], row)
    return True


def write_summary(config: Config, summary: Summary, commit: str) -> None:
    """Writes summary.json: the result and where it comes from.

    `commit` is that of the start: the checkout may have moved on since.
    """
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
        "evaluation": summary.evaluation.as_dict() if summary.evaluation else None,
        "best_score": summary.best_score,
        "signal": summary.signal_number,
        "machine": machine.describe_machine(),
        "versions": provenance.describe_versions(),
    }
    replace_file(summary.run_dir / tables.SUMMARY, json.dumps(content, indent=2) + "\n")
