"""TensorBoard, Weights & Biases and MLflow: the same names for the same numbers.

The last two are optional extras, imported when they are asked for. The thread of the run
writes to all of them: a slow one keeps rows and checkpoints waiting, but no actor-learner.
"""

import contextlib
import importlib.util
import json
import logging
import math
import os
import secrets
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from a3cjax.errors import ConfigError, OutputError
from a3cjax.logs.loggers import Logger
from a3cjax.runs.tables import TRACKING, EpisodeRow, read_json
from a3cjax.system.files import alone, replace_file

# Metrics by the names that CleanRL's scripts give them (ppo_atari_envpool.py, dqn_atari.py);
# those that CleanRL does not have are `train/<name>`. The step is always the number of emulator
# frames; in CleanRL it is that of agent steps.
TAGS = {
    "episode_return_mean": "charts/avg_episodic_return",  # over 100 episodes, in CleanRL over 20
    "steps_per_second": "charts/SPS",  # agent steps, as there, but since the last row
    "learning_rate": "charts/learning_rate",
    "epsilon": "charts/epsilon",
    "policy_loss": "losses/policy_loss",
    "value_loss": "losses/value_loss",  # ½(R − V)², as there
    "entropy": "losses/entropy",
    "explained_variance": "losses/explained_variance",
    "q_value": "losses/q_values",
}
Q_TAGS = TAGS | {"value_loss": "losses/td_loss"}  # ½(y − Q)², in CleanRL without the half
PROJECT = "a3cjax"
TRACKERS = ("wandb", "mlflow")  # names of packages, of extras and of settings

Schedule = Callable[[float], Any]  # the learning rate by number of frames
Settings = Mapping[str, Any]
Announce = Callable[[str], None]


@contextlib.contextmanager
def beginning(tracker: str, advice: str, run_dir: Path) -> Iterator[None]:
    """Says in one line that a tracker cannot begin, and how the run does.

    Raises:
      OutputError: in place of whatever the tracker raises.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        resume = shlex.quote(f"resume={run_dir}")
        raise OutputError(
            f"{tracker} cannot begin ({advice}). Without it: a3cjax train {resume} "
            f"{tracker}=false. {type(error).__name__}: {error}"
        ) from error


def is_installed(tracker: str) -> bool:
    """Whether a package can be imported; a mere folder of that name, as W&B makes, cannot."""
    spec = importlib.util.find_spec(tracker)
    return spec is not None and spec.origin is not None


def tag_row(row: Mapping[str, float], schedule: Schedule) -> dict[str, float]:
    """A row of metrics and the learning rate by tag, without unknown values."""
    tags = Q_TAGS if "q_value" in row else TAGS
    values = {**row, "learning_rate": float(schedule(float(row["num_frames"])))}
    return {
        tags.get(name, f"train/{name}"): value
        for name, value in values.items()
        if name != "num_frames" and not math.isnan(value)
    }


def tag_episodes(episodes: Sequence[EpisodeRow]) -> dict[str, float]:
    """Mean return and length of games by tag; empty if there is no game."""
    if not episodes:
        return {}
    return {
        "charts/episodic_return": statistics.fmean(game.episode_return for game in episodes),
        "charts/episodic_length": statistics.fmean(game.episode_length for game in episodes),
    }


class _Tracker(Logger):
    """Sends one record per row, with the means of its episodes, by the `_log` of a subclass.

    Thousands of short episodes a second would be too many to send one by one.
    """

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._episodes: list[EpisodeRow] = []

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        self._episodes += episodes

    def write_metrics(self, row: Mapping[str, float]) -> None:
        values = tag_row(row, self._schedule) | tag_episodes(self._episodes)
        self._episodes = []
        self._log(values, int(row["num_frames"]))

    def write_evaluation(self, num_frames: int, score: float) -> None:
        self._log({"eval/episodic_return": score}, num_frames)

    def _log(self, values: Mapping[str, float], num_frames: int) -> None:
        raise NotImplementedError


class TensorBoardLogger(_Tracker):
    """Writes TensorBoard events into the run folder: every row and, being files, every game."""

    def __init__(self, run_dir: Path, schedule: Schedule, first_frame: int = 0):
        """Earlier events of a resumed run count up to `first_frame`."""
        super().__init__(schedule)
        # Not SummaryWriter: its thread dies when the disk is full, and its callers wait for ever.
        suffix = f".{first_frame}" if first_frame else ""
        self._writer = EventsWriter(str(run_dir / "events"), suffix)
        if first_frame:  # hides what the run had written about later frames
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=first_frame + 1, session_log=start))

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Writes each game's return and length."""
        for episode in episodes:
            self._add(tag_episodes([episode]), episode.num_frames)
        self._writer.flush()  # not after each: that takes six times as long

    def _log(self, values: Mapping[str, float], num_frames: int) -> None:
        self._add(values, num_frames)
        self._writer.flush()

    def _add(self, values: Mapping[str, float], num_frames: int) -> None:
        for tag, value in values.items():
            summary = scalar(tag, value)
            self._writer.write_event(Event(wall_time=time.time(), step=num_frames, summary=summary))

    def close(self, *, has_failed: bool = False) -> None:
        """Flushes the events."""
        self._writer.close()


class WandbLogger(_Tracker):
    """Writes to Weights & Biases; a resumed run goes on in the same W&B run.

    Without an account (no API key), or with WANDB_MODE=offline, everything stays in the run
    folder until `wandb sync` uploads it.
    """

    def __init__(self, run_dir: Path, schedule: Schedule, settings: Settings, announce: Announce):
        """Starts W&B's service process; raises W&B's own errors where it cannot."""
        super().__init__(schedule)
        # W&B reports its own defects to its makers, in threads that would outlive the run.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(prompt=False, verify=False):
            mode = "offline"  # instead of asking for a key in the middle of the view
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run_dir.name,
            group=str(settings["env"]),
            id=_remember(run_dir, "wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            reinit="create_new",  # a run of the caller's own stays as it is
            dir=str(run_dir),
            config=dict(settings),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(
                silent=True,
                console="off",  # it would copy all output, and the live view with it
                disable_git=True,
                save_code=False,
                finish_timeout=60,  # what is not uploaded by then can be, with `wandb sync`
                finish_timeout_raises=True,
            ),
        )
        self._run.config.update(dict(settings), allow_val_change=True)  # changed by resuming
        self._run.define_metric("*", step_metric="num_frames")
        if self._run.settings.mode == "offline":  # asking for the URL would make W&B warn
            where = f", offline: `wandb sync {run_dir}/wandb/offline-run-*` uploads it"
        else:
            where = f": {self._run.url or mode}"
        announce(f"Weights & Biases{where}")

    def _log(self, values: Mapping[str, float], num_frames: int) -> None:
        self._run.log({"num_frames": num_frames, **values})

    def close(self, *, has_failed: bool = False) -> None:
        """Ends the W&B run; other runs of the process may need the service, which ends with it."""
        self._run.finish(exit_code=int(has_failed))


class MlflowLogger(_Tracker):
    """Writes to MLflow: to MLFLOW_TRACKING_URI, or MLflow's default, ./mlflow.db (SQLite).

    No server is needed: `mlflow ui` in the same folder shows it. A resumed run goes on in the same
    MLflow run, which keeps the parameters that it began with, since MLflow never changes any.
    """

    def __init__(self, run_dir: Path, schedule: Schedule, settings: Settings, announce: Announce):
        """Opens or makes the experiment `a3cjax` (or MLFLOW_EXPERIMENT_NAME) and a run in it.

        Raises MLflow's own errors where its store cannot be used.
        """
        super().__init__(schedule)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        import mlflow.entities

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports every table it makes
        self._make_metric = mlflow.entities.Metric

        def start_run() -> str:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(name)
            run = self._client.create_run(
                experiment.experiment_id if experiment else self._client.create_experiment(name),
                run_name=run_dir.name,
                tags={"env": str(settings["env"]), "run_dir": str(run_dir)},
            )
            params = [mlflow.entities.Param(name, str(value)) for name, value in settings.items()]
            self._client.log_batch(run.info.run_id, params=params)
            return run.info.run_id

        # Runs that begin at once would all make MLflow's tables and experiment, and break them.
        with alone(Path(tempfile.gettempdir()) / f"a3cjax-mlflow-{os.getuid()}.lock"):
            self._client = mlflow.MlflowClient()
            self._run_id = _remember(run_dir, "mlflow", start_run, self._knows)
        self._client.update_run(self._run_id, status="RUNNING")
        announce(f"MLflow: run {self._run_id} in {mlflow.get_tracking_uri()}")

    def _knows(self, run_id: str) -> bool:
        """Whether the store, which may be that of another folder, has this run."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False
        return True

    def _log(self, values: Mapping[str, float], num_frames: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._make_metric(tag, value, now, num_frames) for tag, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, *, has_failed: bool = False) -> None:
        """Ends the MLflow run."""
        self._client.set_terminated(self._run_id, "FAILED" if has_failed else "FINISHED")


def _remember(
    run_dir: Path,
    tracker: str,
    make_id: Callable[[], str],
    is_known: Callable[[str], bool] = lambda _: True,
) -> str:
    """The tracker's id in the run folder's file, where it is made if there is none it knows."""
    path = run_dir / TRACKING
    ids = read_json(path)
    if path.exists() and (ids is None or not isinstance(ids.get(tracker, ""), str)):
        raise ConfigError(f"{path} must hold the ids of trackers, but is damaged: move it away.")
    ids = ids or {}
    if tracker not in ids or not is_known(ids[tracker]):
        ids[tracker] = make_id()
        replace_file(path, json.dumps(ids, indent=2) + "\n")
    return ids[tracker]
