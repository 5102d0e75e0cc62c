"""`train`: builds a run from its configuration, starts the actors, watches, stops, saves."""

import contextlib
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from a3cjax import provenance
from a3cjax.agents import Agent
from a3cjax.builders import (
    build_actors,
    build_agent,
    build_batches,
    build_store,
    resolve,
)
from a3cjax.checkpoints import Checkpoint, Checkpointer
from a3cjax.config import Config
from a3cjax.envs import Environments
from a3cjax.evaluation import evaluate_agent
from a3cjax.journal import Journal
from a3cjax.loggers import CsvLogger, TensorBoardLogger, TerminalLogger, print_evaluation
from a3cjax.parameters import SharedParameters
from a3cjax.plotting import plot_curves
from a3cjax.run_folder import Summary, check_run_dir, make_run_dir, write_summary
from a3cjax.supervisor import SignalStop, Supervisor
from a3cjax.types import Snapshot
from a3cjax.warmup import warm_up

POLL_SECONDS = 0.1
# After a failure the run must end soon; asked to stop, an actor may finish its step or
# gradient, which includes compiling it when the run has just begun.
FAILURE_JOIN_SECONDS = 5.0
STOP_JOIN_SECONDS = 60.0


def train(config: Config) -> Summary:
    """Trains, evaluates, and leaves a run folder.

    Args:
      config: settings; what is None or `auto` is resolved here.

    Returns:
      The run folder and its result.

    Raises:
      ConfigError: before anything is written, if a setting does not fit the environment.
      Exception: whatever an actor raised, as it is; several failures come as an
        ExceptionGroup. What was learned until then is saved.
    """
    configure_jax()
    commit = provenance.describe_commit()
    check_run_dir(config)
    config = config.replace(num_actors=config.num_actors or provenance.available_cores())
    signal_stop = SignalStop()
    with contextlib.ExitStack() as stack:
        batches = build_batches(config)
        for batch in batches:
            stack.callback(batch.close)
        config = resolve(config, batches[0].spec)
        stack.enter_context(signal_stop.installed())
        return _train(config, batches, signal_stop, commit)


def configure_jax() -> None:
    """Settings of the program, not of the library: call before the first computation."""
    # A call returns when its result is there: the actors are the parallelism.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # The second run of a configuration starts without compiling.
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    cache_dir = provenance.compilation_cache_dir()
    if chosen is None and cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _train(
    config: Config, batches: Sequence[Environments], signal_stop: SignalStop, commit: str
) -> Summary:
    agent = build_agent(config, batches[0].spec)
    run_dir = make_run_dir(config)
    began = time.monotonic()
    snapshot, mean_return = _learn(config, agent, batches, run_dir, signal_stop)
    seconds = time.monotonic() - began
    evaluation = None
    if config.eval_episodes and not signal_stop.is_set():
        evaluation = evaluate_agent(config, agent, snapshot, should_stop=signal_stop.is_set)
    if evaluation is not None:
        print_evaluation(evaluation)
    summary = Summary(
        run_dir,
        snapshot.num_frames,
        snapshot.version,
        seconds,
        mean_return,
        evaluation,
        signal_stop.signal_number,
    )
    write_summary(config, summary, commit)
    plot_curves(run_dir, f"{config.env}, {config.algorithm}, {config.network}, seed {config.seed}")
    return summary


def _learn(
    config: Config,
    agent: Agent,
    batches: Sequence[Environments],
    run_dir: Path,
    signal_stop: SignalStop,
) -> tuple[Snapshot, float]:
    """The learning itself: from random play to the last checkpoint.

    Returns:
      The final parameters, and the mean return of the last 100 training episodes.
    """
    began = time.monotonic()
    spec = batches[0].spec
    with contextlib.ExitStack() as stack:
        checkpointer = Checkpointer(run_dir / "checkpoints")
        terminal = TerminalLogger(f"{config.env}  {run_dir}", config.total_frames)
        loggers = [CsvLogger(run_dir), TensorBoardLogger(run_dir)]
        for resource in (checkpointer, *loggers, terminal):
            stack.callback(resource.close)

        timesteps, statistics, num_steps = warm_up(
            batches,
            config.warmup_steps,
            config.seed,
            gather=config.centre_observations,
            should_stop=signal_stop.is_set,
        )
        store = build_store(
            config,
            agent,
            spec,
            statistics=statistics,
            num_frames=num_steps * spec.frames_per_step,  # random play costs frames, too
        )
        assert config.log_period_frames is not None
        journal = Journal(
            loggers,
            terminal,
            num_frames=store.pull().num_frames,
            period_frames=config.log_period_frames,
            began=began,
        )
        actors = build_actors(config, agent, batches, timesteps, store, journal.reports.put)
        stop_event = threading.Event()
        supervisor = Supervisor(stop_event)
        supervisor.start([actor.run for actor in actors], "actor-learner")
        saved_frames = store.pull().num_frames
        try:
            while supervisor.is_running and not signal_stop.is_set():
                journal.write()
                if store.pull().num_frames - saved_frames >= config.checkpoint_period_frames:
                    saved_frames = save(checkpointer, store, began)
                stop_event.wait(POLL_SECONDS)
        finally:
            stop_event.set()
            if signal_stop.signal_number is not None:
                name = signal.Signals(signal_stop.signal_number).name
                terminal.print(f"{name}: stopping, then saving to {run_dir}")
            try:
                supervisor.join(
                    FAILURE_JOIN_SECONDS if supervisor.has_failed else STOP_JOIN_SECONDS
                )
                save(checkpointer, store, began)
                journal.write(is_last=True)
            finally:
                supervisor.raise_failures()
        return store.pull(), journal.mean_return


def save(checkpointer: Checkpointer, store: SharedParameters, began: float) -> int:
    """Saves the newest parameters with the optimizer state that belongs to them.

    Returns:
      The number of frames they were learned from.
    """
    state, snapshot = store.read()
    counters = {
        "num_frames": snapshot.num_frames,
        "num_updates": snapshot.version,
        "wall_seconds": time.monotonic() - began,
    }
    checkpointer.save(Checkpoint(state, snapshot.statistics, counters))
    return snapshot.num_frames
