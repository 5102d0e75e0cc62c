"""`train`: builds a run from its configuration, starts the actors, watches, stops, saves."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from a3cjax.actors.supervisor import Supervisor
from a3cjax.config.builders import build_agent
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.terminal import print_evaluation
from a3cjax.logs.tracking import TRACKERS, is_installed
from a3cjax.reports.run_curves import plot_curves
from a3cjax.runs.checkpoints import Checkpoint
from a3cjax.runs.folder import Summary, check_run_dir, make_run_dir, write_config, write_summary
from a3cjax.runs.loading import load_checkpoint
from a3cjax.runs.playing import TrainedAgent
from a3cjax.runs.tables import cut_csv
from a3cjax.system import machine, provenance
from a3cjax.system.compilation import configure_jax
from a3cjax.system.signals import SignalStop
from a3cjax.training.assembly import build_batches
from a3cjax.training.learning import Run
from a3cjax.video import record_at_end


def train(config: Config) -> Summary:
    """Trains, evaluates, and leaves a run folder.

    Args:
      config: settings; what is None or `auto` is resolved here. With `resume` they are those
        of `resume_config`, and the run goes on from its newest sound checkpoint.

    Returns:
      The run folder and its result.

    Raises:
      ConfigError: before anything is written, if a setting does not fit the environment, or
        there is nothing to resume.
      CheckpointError: if a checkpoint cannot be written.
      Exception: whatever an actor, a logger or the evaluator raised, as it is; several
        failures come as an ExceptionGroup. What was learned until then is saved.
    """
    configure_jax()
    check_trackers(config)
    commit = provenance.describe_commit()
    checkpoint = None
    if config.resume is None:
        check_run_dir(config)
    else:
        checkpoint = find_checkpoint(config)
    config = config.replace(num_actors=config.num_actors or machine.available_cores())
    signal_stop = SignalStop()
    with contextlib.ExitStack() as stack:
        batches = build_batches(config, checkpoint.progress.num_seeds if checkpoint else 0)
        supervisor = Supervisor(threading.Event())
        stack.callback(close_batches, batches, supervisor)
        config = resolve(config, batches[0].spec)
        stack.enter_context(signal_stop.installed())
        return _train(config, batches, checkpoint, supervisor, signal_stop, commit)


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


def find_checkpoint(config: Config) -> Checkpoint:
    """The checkpoint that a run goes on from.

    Raises:
      ConfigError: if the folder holds none that can be used.
    """
    assert config.resume is not None
    try:
        return load_checkpoint(config, Path(config.resume))[1]
    except (OSError, ValueError, CheckpointError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"resume must be a folder with a sound checkpoint, got {config.resume}: {reason}"
        ) from error


def close_batches(batches: Sequence[Environments], supervisor: Supervisor) -> None:
    """Frees all environments, unless a thread is stuck in one: that could take for ever."""
    if not supervisor.has_stuck_threads:
        for batch in batches:
            batch.close()


def _train(
    config: Config,
    batches: Sequence[Environments],
    checkpoint: Checkpoint | None,
    supervisor: Supervisor,
    signal_stop: SignalStop,
    commit: str,
) -> Summary:
    agent = build_agent(config, batches[0].spec)
    if checkpoint is None:
        run_dir = make_run_dir(config)
    else:
        run_dir = Path(config.resume or "")
        write_config(config, run_dir)
        for name in ("metrics.csv", "episodes.csv", "evaluations.csv"):
            cut_csv(run_dir / name, checkpoint.progress.num_frames)
    with contextlib.ExitStack() as stack:
        run = Run(config, agent, batches, run_dir, checkpoint, supervisor, signal_stop, stack)
        run.learn()
        seconds = run.seconds()
        evaluation = None
        if config.eval_episodes and not signal_stop.is_set():
            evaluation = run.evaluate(run.store.pull(), signal_stop.is_set)
        if evaluation is not None:
            run.take_evaluation(*run.store.read(), evaluation, seconds)
    if evaluation is not None:
        print_evaluation(evaluation)
    snapshot = run.store.pull()
    summary = Summary(
        run_dir,
        snapshot.num_frames,
        snapshot.version,
        seconds,
        run.journal.mean_return,
        evaluation,
        signal_stop.signal_number,
        run.num_resumes,
        run.best_score,
    )
    write_summary(config, summary, commit)
    plot_curves(run_dir, f"{config.env}, {config.algorithm}, {config.network}, seed {config.seed}")
    if config.video and not signal_stop.is_set():
        trained = TrainedAgent(config, agent, snapshot)
        record_at_end(trained, run_dir, signal_stop.is_set)
    return summary
