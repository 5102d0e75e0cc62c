"""`train`: prepares a run, opens its files, warms up, learns, judges the result, and leaves."""

import contextlib
from collections.abc import Sequence

from a3cjax.actors.supervisor import Supervisor
from a3cjax.agents import Agent
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments
from a3cjax.logs.journal import Journal
from a3cjax.logs.terminal import print_evaluation
from a3cjax.reports.run_curves import plot_curves
from a3cjax.runs.checkpoints import Progress
from a3cjax.runs.evaluation import evaluate_agent
from a3cjax.runs.folder import Summary, write_summary
from a3cjax.runs.tables import read_column
from a3cjax.system import provenance
from a3cjax.system.compilation import configure_jax
from a3cjax.system.signals import SignalStop
from a3cjax.training.assembly import assemble, close_all, prepare
from a3cjax.training.evaluator import Evaluator
from a3cjax.training.learning import Learning
from a3cjax.training.opening import check_trackers, find_checkpoint, open_logs, open_run_dir
from a3cjax.training.saver import open_saver
from a3cjax.types import Snapshot
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
    checkpoint = find_checkpoint(config)
    past = checkpoint.progress if checkpoint else Progress()
    signal_stop = SignalStop()
    supervisor = Supervisor(should_stop=signal_stop.is_set)
    with contextlib.ExitStack() as stack:
        config, agent, batches = prepare(config, past.num_seeds)
        stack.callback(_close_batches, batches, supervisor)
        stack.enter_context(signal_stop.installed())
        run_dir = open_run_dir(config, past)
        num_envs = sum(batch.num_envs for batch in batches)
        with (
            open_saver(run_dir, past, num_envs) as saver,
            open_logs(config, run_dir, past) as logs,
        ):
            fleet = assemble(config, agent, batches, checkpoint=checkpoint, supervisor=supervisor)
            assert config.log_period_frames is not None
            journal = Journal(
                fleet.reports,
                logs.loggers,
                logs.terminal,
                num_frames=fleet.store.pull().num_frames,
                num_updates=past.num_updates,
                past_returns=logs.past_returns,
                period_frames=config.log_period_frames,
                max_bad_updates=config.max_bad_updates,
                began=saver.began,
            )
            evaluator = Evaluator(
                lambda snapshot, should_stop: evaluate_agent(
                    config, agent, snapshot, should_stop=should_stop
                ),
                fleet.store,
                num_frames=int(
                    max(read_column(run_dir / "evaluations.csv", "num_frames"), default=0)
                ),
                period_frames=config.eval_period_frames or config.total_frames,
            )
            learning = Learning(
                config, fleet, logs, journal, saver, evaluator, supervisor, signal_stop
            )
            learning.run()
            seconds = saver.seconds()
            evaluation = learning.judge(seconds)
        if evaluation is not None:
            print_evaluation(evaluation)
        snapshot = fleet.store.pull()
        summary = Summary(
            run_dir=run_dir,
            num_frames=snapshot.num_frames,
            num_updates=snapshot.version,
            wall_seconds=seconds,
            mean_return=journal.mean_return,
            evaluation=evaluation,
            signal_number=signal_stop.signal_number,
            num_resumes=past.num_resumes,
            best_score=saver.progress.best_score,
        )
        _leave(config, agent, snapshot, summary, commit, signal_stop)
    return summary


def _leave(
    config: Config,
    agent: Agent,
    snapshot: Snapshot,
    summary: Summary,
    commit: str,
    signal_stop: SignalStop,
) -> None:
    """Writes what a run leaves beside its logs: the summary, pictures, a video."""
    write_summary(config, summary, commit)
    title = f"{config.env}, {config.algorithm}, {config.network}, seed {config.seed}"
    plot_curves(summary.run_dir, title)
    if config.video and not signal_stop.is_set():
        record_at_end(config, agent, snapshot, summary.run_dir, signal_stop.is_set)


def _close_batches(batches: Sequence[Environments], supervisor: Supervisor) -> None:
    """Frees all environments, unless a thread is stuck in one: that could take for ever."""
    if not supervisor.has_stuck_threads:
        close_all(batches)
