"""`train`: builds a run from its configuration, starts the actors, watches, stops, saves."""

import dataclasses
import datetime
import json
import math
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import yaml

from a3cjax import provenance
from a3cjax.actor_learner import ActorLearner, UpdateReport
from a3cjax.builders import (
    build_agent,
    build_batches,
    build_optimizer,
    init_params,
    make_keys,
    resolve,
)
from a3cjax.checkpoints import Checkpoint, Checkpointer
from a3cjax.config import Config, ConfigError
from a3cjax.envs import Environments
from a3cjax.evaluation import Evaluation, evaluate_agent
from a3cjax.loggers import CsvLogger, Logger, TensorBoardLogger, TerminalLogger, print_evaluation
from a3cjax.metrics import EpisodeRow, MetricsWindow
from a3cjax.parameters import SharedParameters
from a3cjax.plotting import plot_curves
from a3cjax.supervisor import SignalStop, Supervisor
from a3cjax.types import LearnerState
from a3cjax.updates import make_act, make_apply_gradients, make_compute_gradients
from a3cjax.warmup import warm_up

POLL_SECONDS = 0.1
# After a failure the run must end soon; asked to stop, an actor may finish its update, which
# includes compiling it when the run has just begun.
FAILURE_JOIN_SECONDS = 5.0
STOP_JOIN_SECONDS = 60.0


class Summary(NamedTuple):
    """What a run came to.

    `evaluation` is None where none was asked for or a signal ended the run;
    `signal_number` is None unless one did.
    """

    run_dir: Path
    num_frames: int
    wall_seconds: float
    evaluation: Evaluation | None
    signal_number: int | None


def train(config: Config) -> Summary:
    """Trains, evaluates, and leaves a run folder.

    Args:
      config: settings; what is None or `auto` is resolved here.

    Returns:
      The run folder and its result.

    Raises:
      ConfigError: before anything is written, if a setting does not fit the environment.
      BaseException: whatever an actor raised, as it is; several failures come as a
        BaseExceptionGroup. What was learned until then is saved.
    """
    configure_jax()
    stop_event = threading.Event()
    signal_stop = SignalStop(stop_event)
    config = config.replace(num_actors=config.num_actors or provenance.available_cores())
    batches = build_batches(config)
    try:
        config = resolve(config, batches[0].spec)
        with signal_stop.installed():
            return _train(config, batches, stop_event, signal_stop)
    finally:
        for batch in batches:
            batch.close()


def configure_jax() -> None:
    """Settings of the program, not of the library: call before the first computation."""
    # A computation runs on the thread that asks for it: the actors are the parallelism.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")


def _train(
    config: Config,
    batches: Sequence[Environments],
    stop_event: threading.Event,
    signal_stop: SignalStop,
) -> Summary:
    began = time.monotonic()
    spec = batches[0].spec
    agent = build_agent(config, spec)
    optimizer = build_optimizer(config)
    keys = make_keys(config.seed)
    params = init_params(agent, spec, keys.init)
    run_dir = make_run_dir(config)
    checkpointer = Checkpointer(run_dir / "checkpoints")
    terminal = TerminalLogger(f"{config.env}  {run_dir}", config.total_frames)
    loggers: list[Logger] = [CsvLogger(run_dir), TensorBoardLogger(run_dir), terminal]

    timesteps, statistics = warm_up(
        batches, config.warmup_steps, config.seed, gather=config.centre_observations
    )
    store = SharedParameters(
        LearnerState(params, optimizer.init(params)),
        make_apply_gradients(optimizer),
        statistics=statistics,
        # Random play costs frames too.
        num_frames=config.warmup_steps
        * sum(batch.num_envs for batch in batches)
        * spec.frames_per_step,
    )
    reports: queue.SimpleQueue[UpdateReport] = queue.SimpleQueue()
    act, compute_gradients = make_act(agent), make_compute_gradients(agent)
    actors = [
        ActorLearner(
            index,
            act=act,
            compute_gradients=compute_gradients,
            core_state=agent.initial_state(batch.num_envs),
            environments=batch,
            store=store,
            key=jax.random.fold_in(keys.actors, index),
            unroll_length=config.unroll_length,
            total_frames=config.total_frames,
            report=reports.put,
            timestep=timestep,
        )
        for index, (batch, timestep) in enumerate(zip(batches, timesteps, strict=True))
    ]
    supervisor = Supervisor(stop_event)
    supervisor.start([actor.run for actor in actors], "actor-learner")
    journal = _Journal(config, store, reports, loggers, began)
    try:
        while supervisor.is_running:
            journal.write()
            if journal.checkpoint_is_due():
                save(checkpointer, store, began)
            stop_event.wait(POLL_SECONDS)
    finally:
        stop_event.set()
        supervisor.join(FAILURE_JOIN_SECONDS if supervisor.has_failed else STOP_JOIN_SECONDS)
        journal.write(is_last=True)
        for logger in loggers:
            logger.close()
        save(checkpointer, store, began)
        checkpointer.close()
    supervisor.raise_failures()

    training_seconds = time.monotonic() - began
    snapshot = store.pull()
    evaluation = None
    if config.eval_episodes and signal_stop.signal_number is None:
        evaluation = evaluate_agent(
            config,
            agent,
            snapshot,
            should_stop=lambda: signal_stop.signal_number is not None,
        )
    if evaluation is not None:
        print_evaluation(evaluation)
    plot_curves(run_dir, f"{config.env}, {config.algorithm}, {config.network}, seed {config.seed}")
    summary = Summary(
        run_dir, snapshot.num_frames, training_seconds, evaluation, signal_stop.signal_number
    )
    write_summary(config, summary, num_updates=snapshot.version, mean_return=journal.mean_return)
    return summary


class _Journal:
    """Turns the actors' reports into rows, a row a logging period, and tells what is due."""

    def __init__(
        self,
        config: Config,
        store: SharedParameters,
        reports: "queue.SimpleQueue[UpdateReport]",
        loggers: Sequence[Logger],
        began: float,
    ):
        self._config = config
        self._store = store
        self._reports = reports
        self._loggers = loggers
        self._began = began
        self._window = MetricsWindow()
        self._num_frames = store.pull().num_frames
        self._num_updates = 0
        self._row_frames = self._num_frames
        self._row_time = time.monotonic()
        self._checkpoint_frames = self._num_frames

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 training episodes."""
        return self._window.mean_return

    def write(self, *, is_last: bool = False) -> None:
        """Takes in what the actors reported, and writes the rows that are due."""
        episodes = []
        while True:
            try:
                report = self._reports.get_nowait()
            except queue.Empty:
                break
            self._num_frames += report.num_frames
            self._num_updates += 1
            self._window.add(report)
            wall_seconds = round(time.monotonic() - self._began, 3)
            episodes += [
                EpisodeRow(
                    self._num_frames,
                    wall_seconds,
                    report.actor_index,
                    episode.episode_return,
                    episode.episode_length,
                )
                for episode in report.episodes
            ]
        if episodes:
            for logger in self._loggers:
                logger.write_episodes(episodes)
        assert self._config.log_period_frames is not None
        frames_since = self._num_frames - self._row_frames
        if frames_since >= self._config.log_period_frames or (is_last and frames_since):
            now = time.monotonic()
            row = self._window.pop_row(
                num_frames=self._num_frames,
                num_updates=self._num_updates,
                wall_seconds=now - self._began,
                seconds=now - self._row_time,
            )
            self._row_frames, self._row_time = self._num_frames, now
            for logger in self._loggers:
                logger.write_metrics(row)

    def checkpoint_is_due(self) -> bool:
        """True once for every `checkpoint_period_frames`."""
        is_due = self._num_frames - self._checkpoint_frames >= self._config.checkpoint_period_frames
        if is_due:
            self._checkpoint_frames = self._num_frames
        return is_due


def save(checkpointer: Checkpointer, store: SharedParameters, began: float) -> None:
    """Saves the newest parameters with the optimizer state that belongs to them."""
    state, snapshot = store.read()
    counters = {
        "num_frames": snapshot.num_frames,
        "num_updates": snapshot.version,
        "wall_seconds": time.monotonic() - began,
    }
    checkpointer.save(Checkpoint(state, snapshot.statistics, counters))


def make_run_dir(config: Config) -> Path:
    """Makes the run folder and writes config.yaml into it."""
    if config.run_dir is not None:
        run_dir = Path(config.run_dir)
    else:
        stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run_dir = (
            Path("runs")
            / config.env.replace(":", "-").replace("/", "-")
            / f"{stamp}-seed{config.seed}"
        )
    try:
        run_dir.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"run_dir must not exist yet, got {run_dir}.") from error
    with (run_dir / "config.yaml").open("w") as file:
        yaml.safe_dump(dataclasses.asdict(config), file, sort_keys=False)
    return run_dir


def write_summary(
    config: Config, summary: Summary, *, num_updates: int, mean_return: float
) -> None:
    """Writes summary.json: the result and where it comes from."""
    seconds = summary.wall_seconds
    content = {
        "env": config.env,
        "seed": config.seed,
        "command": provenance.describe_command(),
        "commit": provenance.describe_commit(),
        "num_frames": summary.num_frames,
        "num_updates": num_updates,
        "training_seconds": round(seconds, 1),
        "frames_per_second": round(summary.num_frames / seconds, 1),
        "training_return_mean": None if math.isnan(mean_return) else mean_return,
        "evaluation": summary.evaluation.as_dict() if summary.evaluation else None,
        "signal": summary.signal_number,
        "machine": provenance.describe_machine(),
        "versions": provenance.describe_versions(),
    }
    (summary.run_dir / "summary.json").write_text(json.dumps(content, indent=2) + "\n")
