"""The run folder: its name, config.yaml and summary.json."""

import dataclasses
import datetime
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import yaml

from a3cjax import provenance
from a3cjax.config import Config, ConfigError
from a3cjax.evaluation import Evaluation


class Summary(NamedTuple):
    """What a run came to.

    `evaluation` is None where none was asked for or a signal ended the run;
    `signal_number` is None unless one did; `mean_return` is that of the last 100 training
    episodes, NaN before the first.
    """

    run_dir: Path
    num_frames: int
    num_updates: int
    wall_seconds: float
    mean_return: float
    evaluation: Evaluation | None
    signal_number: int | None


def check_run_dir(config: Config) -> None:
    """Refuses a run folder that is there already, before anything is started.

    Raises:
      ConfigError: if it exists.
    """
    if config.run_dir is not None and Path(config.run_dir).exists():
        raise ConfigError(f"run_dir must not exist yet, got {config.run_dir}.")


def make_run_dir(config: Config) -> Path:
    """Makes the run folder and writes config.yaml into it.

    Returns:
      `config.run_dir`, or runs/<env>/<date-time>-seed<seed> where that is None.

    Raises:
      ConfigError: if it exists already or cannot be made.
    """
    check_run_dir(config)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parent = Path("runs") / config.env.replace(":", "-").replace("/", "-")
    name = f"{stamp}-seed{config.seed}"
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
    with (run_dir / "config.yaml").open("w") as file:
        settings = {**dataclasses.asdict(config), "run_dir": str(run_dir)}
        yaml.safe_dump(settings, file, sort_keys=False)
    return run_dir


def write_summary(config: Config, summary: Summary, commit: str) -> None:
    """Writes summary.json: the result and where it comes from.

    `commit` is that of the start: the checkout may have moved on since.
    """
    seconds, mean_return = summary.wall_seconds, summary.mean_return
    content = {
        "env": config.env,
        "seed": config.seed,
        "command": provenance.describe_command(),
        "commit": commit,
        "num_frames": summary.num_frames,
        "num_updates": summary.num_updates,
        "training_seconds": round(seconds, 1),
        "frames_per_second": round(summary.num_frames / seconds, 1),
        "training_return_mean": None if math.isnan(mean_return) else mean_return,
        "evaluation": summary.evaluation.as_dict() if summary.evaluation else None,
        "signal": summary.signal_number,
        "machine": provenance.describe_machine(),
        "versions": provenance.describe_versions(),
    }
    (summary.run_dir / "summary.json").write_text(json.dumps(content, indent=2) + "\n")
