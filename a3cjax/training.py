"""`train`: builds a run from its configuration, starts the actors, watches, stops, saves."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from a3cjax import provenance
from a3cjax.actor_learner import ActorLearner
from a3cjax.agents import Agent
from a3cjax.builders import build_actors, build_agent, build_batches, build_store, resolve
from a3cjax.checkpoints import Checkpoint, Checkpointer, CheckpointError, Progress
from a3cjax.config import Config, ConfigError
from a3cjax.envs import SEEDS_PER_RUN, Environments
from a3cjax.evaluation import Evaluation, Evaluator, evaluate_agent, load_checkpoint
from a3cjax.journal import BadUpdatesError, Journal
from a3cjax.loggers import (
    CsvLogger,
    TensorBoardLogger,
    TerminalLogger,
    cut_csv,
    print_evaluation,
    read_returns,
)
from a3cjax.plotting import plot_curves
from a3cjax.run_folder import (
    Summary,
    append_evaluation,
    check_run_dir,
    last_evaluated_frames,
    make_run_dir,
    write_config,
    write_summary,
)
from a3cjax.supervisor import SignalStop, Supervisor
from a3cjax.types import LearnerState, Snapshot
from a3cjax.warmup import warm_up

POLL_SECONDS = 0.1
# After a failure the run must end soon; asked to stop, an actor may finish its step or
# gradient, which includes compiling it when the run has just begun.
FAILURE_JOIN_SECONDS = 3.0
STOP_JOIN_SECONDS = 8.0


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
    commit = provenance.describe_commit()
    checkpoint = None
    if config.resume is None:
        check_run_dir(config)
    else:
        checkpoint = find_checkpoint(config)
    config = config.replace(num_actors=config.num_actors or provenance.available_cores())
    signal_stop = SignalStop()
    with contextlib.ExitStack() as stack:
        batches = build_batches(config, checkpoint.progress.num_resumes + 1 if checkpoint else 0)
        supervisor = Supervisor(threading.Event())
        stack.callback(close_batches, batches, supervisor)
        config = resolve(config, batches[0].spec)
        stack.enter_context(signal_stop.installed())
        return _train(config, batches, checkpoint, supervisor, signal_stop, commit)


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
    return summary


class Run:
    """The learning itself: from random play, or a checkpoint, to the last checkpoint."""

    def __init__(
        self,
        config: Config,
        agent: Agent,
        batches: Sequence[Environments],
        run_dir: Path,
        checkpoint: Checkpoint | None,
        supervisor: Supervisor,
        signal_stop: SignalStop,
        stack: contextlib.ExitStack,
    ):
        """Builds what a run needs; `stack` closes it."""
        past = checkpoint.progress if checkpoint else Progress()
        self._began = time.monotonic() - past.wall_seconds
        self._config = config
        self._agent = agent
        self._batches = batches
        self._run_dir = run_dir
        self._checkpoint = checkpoint
        self._supervisor = supervisor
        self._signal_stop = signal_stop
        self.num_resumes = past.num_resumes + (checkpoint is not None)
        self._checkpointer = Checkpointer(run_dir / "checkpoints")
        self._best = Checkpointer(run_dir / "best", max_to_keep=1)
        self._checkpointer.discard_after(past.num_frames)
        self._best.discard_after(past.num_frames)
        self.best_score = best.best_score if (best := self._best.read_progress()) else None
        self._terminal = TerminalLogger(f"{config.env}  {run_dir}", config.total_frames)
        loggers = [CsvLogger(run_dir), TensorBoardLogger(run_dir, past.num_frames)]
        for resource in (self._checkpointer, self._best, *loggers, self._terminal):
            stack.callback(resource.close)
        if checkpoint is not None:
            self._terminal.print(f"going on after {past.num_frames:,} frames")

        spec = batches[0].spec
        timesteps, statistics, num_steps = warm_up(
            batches,
            config.warmup_steps if past.num_frames < config.total_frames else 0,
            config.seed + SEEDS_PER_RUN * self.num_resumes,
            gather=config.centre_observations and checkpoint is None,
            should_stop=signal_stop.is_set,
        )
        self.store = build_store(
            config,
            agent,
            spec,
            statistics=checkpoint.statistics if checkpoint else statistics,
            # Random play costs frames, too.
            num_frames=past.num_frames + num_steps * spec.frames_per_step,
            num_updates=past.num_updates,
            state=checkpoint.state if checkpoint else None,
        )
        assert config.log_period_frames is not None
        self.journal = Journal(
            loggers,
            self._terminal,
            num_frames=self.store.pull().num_frames,
            num_updates=past.num_updates,
            past_returns=read_returns(run_dir) if checkpoint else (),
            period_frames=config.log_period_frames,
            max_bad_updates=config.max_bad_updates,
            began=self._began,
        )
        self._actors = build_actors(
            config,
            agent,
            batches,
            timesteps,
            self.store,
            self.journal.reports.put,
            stop_event=supervisor.stop_event,
            keys=past.actor_keys,
        )
        self._evaluator = Evaluator(
            self.evaluate,
            self.store,
            num_frames=last_evaluated_frames(run_dir),
            period_frames=config.eval_period_frames or config.total_frames,
        )

    def seconds(self) -> float:
        """Wall-clock seconds of the run until now, those before it was resumed included."""
        return time.monotonic() - self._began

    def evaluate(self, snapshot: Snapshot, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Plays the configured number of whole games."""
        return evaluate_agent(self._config, self._agent, snapshot, should_stop=should_stop)

    def learn(self) -> None:
        """Learns until the budget is used up, something fails or a signal comes; then saves."""
        supervisor = self._supervisor
        self.save()  # from now on there is something to resume
        supervisor.start(
            [actor.run for actor in self._actors],
            "actor-learner",
            [functools.partial(getattr, actor, "num_unrolled_steps") for actor in self._actors],
        )
        if self._config.eval_period_frames is not None:
            supervisor.start_helper(self._evaluator.run, "evaluator")
        try:
            self._watch()
        except KeyboardInterrupt:  # the second signal: at once
            supervisor.stop_event.set()
            raise
        except BaseException as failure:
            supervisor.add_failure(failure)
        self._end()

    def _watch(self) -> None:
        saved_frames = self.store.pull().num_frames
        while self._supervisor.is_running and not self._signal_stop.is_set():
            self.journal.write()
            self._take_evaluations()
            if self.store.pull().num_frames - saved_frames >= self._config.checkpoint_period_frames:
                saved_frames = self.save()
            self._supervisor.check_progress(self._config.stall_timeout_seconds)
            self._supervisor.stop_event.wait(POLL_SECONDS)

    def _end(self) -> None:
        """Stops all threads, writes and saves, whatever of it fails."""
        supervisor = self._supervisor
        supervisor.stop_event.set()
        if self._signal_stop.signal_number is not None:
            name = signal.Signals(self._signal_stop.signal_number).name
            self._terminal.print(f"{name}: stopping, then saving to {self._run_dir}")
        supervisor.join(FAILURE_JOIN_SECONDS if supervisor.has_failed else STOP_JOIN_SECONDS)
        steps: list[Callable[[], object]] = [self.journal.finish, self._take_evaluations]
        if not any(isinstance(failure, CheckpointError) for failure in supervisor.failures):
            steps.append(self.save)
        steps += [
            functools.partial(save_trajectory, failure, self._run_dir / "bad-trajectory.npz")
            for failure in supervisor.failures
            if isinstance(failure, BadUpdatesError)
        ]
        for step in steps:
            try:
                step()
            except Exception as failure:
                supervisor.add_failure(failure)
        supervisor.raise_failures()

    def save(self) -> int:
        """Saves the newest parameters with the optimizer state that belongs to them.

        The log files first: they must not miss what the parameters were learned from.

        Returns:
          The number of frames they were learned from.
        """
        state, snapshot = self.store.read()
        if not self._supervisor.has_failed:
            self.journal.write_up_to(snapshot.version)
        self._checkpointer.save(self._make_checkpoint(state, snapshot))
        return snapshot.num_frames

    def take_evaluation(
        self, state: LearnerState, snapshot: Snapshot, evaluation: Evaluation, seconds: float
    ) -> None:
        """Notes an evaluation at these seconds of the run, and keeps the best parameters.

        The newest are saved before: the best must not lie ahead of where a run can go on.
        """
        append_evaluation(self._run_dir, snapshot, seconds, evaluation)
        if self.best_score is None or evaluation.mean > self.best_score:
            self.best_score = evaluation.mean
            self.save()
            self._best.save(self._make_checkpoint(state, snapshot))

    def _take_evaluations(self) -> None:
        while self._evaluator.results.qsize():
            self.take_evaluation(*self._evaluator.results.get(), self.seconds())

    def _make_checkpoint(self, state: LearnerState, snapshot: Snapshot) -> Checkpoint:
        progress = Progress(
            num_frames=snapshot.num_frames,
            num_updates=snapshot.version,
            wall_seconds=self.seconds(),
            num_resumes=self.num_resumes,
            actor_keys=tuple(key_words(actor) for actor in self._actors),
            best_score=self.best_score,
        )
        return Checkpoint(state, snapshot.statistics, progress)


def key_words(actor: ActorLearner) -> tuple[int, ...]:
    """The words of the PRNG key that an actor will use next."""
    return tuple(int(word) for word in np.asarray(jax.random.key_data(actor.key)))


def save_trajectory(failure: BadUpdatesError, path: Path) -> None:
    """Saves what a refused update was computed from, for inspection."""
    trajectory = failure.report.bad_trajectory
    assert trajectory is not None
    arrays = trajectory._asdict()
    leaves = jax.tree.leaves(arrays.pop("core_state"))
    arrays |= {f"core_state_{index}": leaf for index, leaf in enumerate(leaves)}
    np.savez_compressed(path, **cast(dict[str, Any], arrays))
    failure.add_note(f"its trajectory is saved in {path}")
