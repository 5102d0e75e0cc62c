"""One run: learning from random play, or a checkpoint, to the last checkpoint."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.supervisor import Supervisor
from a3cjax.actors.warmup import warm_up
from a3cjax.agents import Agent
from a3cjax.config.builders import build_schedule
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments
from a3cjax.envs.making import SEEDS_PER_RUN
from a3cjax.errors import CheckpointError
from a3cjax.logs.journal import BadUpdatesError, Journal
from a3cjax.logs.loggers import CsvLogger, Logger, read_episodes
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.logs.tracking import MlflowLogger, TensorBoardLogger, WandbLogger
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import BEST, NEWEST, append_evaluation
from a3cjax.runs.playing import TrainedAgent, evaluate_agent
from a3cjax.runs.tables import read_column
from a3cjax.system.signals import SignalStop
from a3cjax.training.assembly import build_actors, build_store
from a3cjax.training.evaluator import Evaluator
from a3cjax.types import LearnerState, Snapshot

POLL_SECONDS = 0.1
# After a failure the run must end soon; asked to stop, an actor may finish its step or
# gradient, which includes compiling it when the run has just begun.
FAILURE_JOIN_SECONDS = 3.0
STOP_JOIN_SECONDS = 8.0


class _Standstill(NamedTuple):
    """What belongs together at one moment: parameters, and where the actors stand."""

    state: LearnerState
    snapshot: Snapshot
    actor_keys: tuple[tuple[int, ...], ...] = ()
    standings: tuple[dict[str, Any], ...] = ()


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
        self._run_dir = run_dir
        self._supervisor = supervisor
        self._signal_stop = signal_stop
        self.num_resumes = past.num_resumes + (checkpoint is not None)
        self._num_seeds = past.num_seeds + sum(batch.num_envs for batch in batches)
        self._standstill: _Standstill | None = None
        self._checkpointer = Checkpointer(run_dir / NEWEST)
        self._best = Checkpointer(run_dir / BEST, max_to_keep=1)
        self._checkpointer.discard_after(past.num_frames)
        self._best.discard_after(past.num_frames)
        self.best_score = self._read_best_score()
        for checkpointer in (self._checkpointer, self._best):
            stack.callback(checkpointer.close)
        self._terminal = TerminalLogger(
            f"{config.env}  {run_dir}", config.total_frames, num_actors=config.num_actors or 1
        )
        stack.callback(self._terminal.close)
        self._loggers = self._open_loggers(past.num_frames, stack)
        past_episodes = read_episodes(run_dir / "episodes.csv")
        self._terminal.write_episodes(past_episodes)
        if checkpoint is not None:
            self._terminal.print(f"going on after {past.num_frames:,} frames")

        spec = batches[0].spec
        is_over = past.num_frames >= config.total_frames
        timesteps, statistics, num_steps = warm_up(
            batches,
            0 if is_over or past.standings else config.warmup_steps or 0,
            config.seed + SEEDS_PER_RUN * self.num_resumes,
            gather=bool(config.centre_observations) and checkpoint is None,
            should_stop=signal_stop.is_set,
            supervisor=supervisor,
            stall_seconds=config.stall_timeout_seconds,
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
            self._loggers,
            self._terminal,
            num_frames=self.store.pull().num_frames,
            num_updates=past.num_updates,
            past_returns=[episode.episode_return for episode in past_episodes],
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
            at_round_end=self._note_standstill,
            keys=past.actor_keys,
        )
        if past.standings:  # of a deterministic run, which goes on with as many actors
            self._restore_standings(past.standings)
        if config.deterministic:
            self._note_standstill()
        self._evaluator = Evaluator(
            self.evaluate,
            self.store,
            num_frames=int(max(read_column(run_dir / "evaluations.csv", "num_frames"), default=0)),
            period_frames=config.eval_period_frames or config.total_frames,
        )

    def _read_best_score(self) -> float | None:
        try:
            best = self._best.read_progress()
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return best.best_score if best else None

    def _open_loggers(self, first_frame: int, stack: contextlib.ExitStack) -> list[Logger]:
        """The configured loggers; each is told at the end whether the run failed."""
        config, run_dir, schedule = self._config, self._run_dir, build_schedule(self._config)
        loggers: list[Logger] = []

        def add(logger: Logger) -> None:
            stack.push(lambda failure, *_: logger.close(has_failed=failure is not None))
            loggers.append(logger)

        add(CsvLogger(run_dir))
        if config.tensorboard:
            add(TensorBoardLogger(run_dir, schedule, first_frame))
        settings = dataclasses.asdict(config)
        if config.wandb:
            add(WandbLogger(run_dir, schedule, settings, self._terminal.print))
        if config.mlflow:
            add(MlflowLogger(run_dir, schedule, settings, self._terminal.print))
        return loggers

    def _restore_standings(self, standings: Sequence[dict[str, Any]]) -> None:
        try:
            for actor, standing in zip(self._actors, standings, strict=True):
                actor.set_standing(standing)
        # What an environment makes of a state that it did not write, only itself knows.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"environments cannot be restored: {reason}") from error

    def seconds(self) -> float:
        """Wall-clock seconds of the run until now, those before it was resumed included."""
        return time.monotonic() - self._began

    def evaluate(self, snapshot: Snapshot, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Plays the configured number of whole games; None if it was stopped."""
        trained = TrainedAgent(self._config, self._agent, snapshot)
        return evaluate_agent(trained, self._config.eval_episodes, should_stop=should_stop)

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
        # The later ones go by the failures of those before.
        for step in (
            self._tell_of_signal,  # Ctrl-C ends the other side of a pipe, too
            self._join,
            self.journal.finish,
            self._take_evaluations,
            self._save_at_last,
            self._save_bad_trajectories,
        ):
            try:
                step()
            except Exception as failure:
                supervisor.add_failure(failure)
        supervisor.raise_failures()

    def _tell_of_signal(self) -> None:
        if self._signal_stop.signal_number is not None:
            name = signal.Signals(self._signal_stop.signal_number).name
            self._terminal.print(f"{name}: stopping, then saving to {self._run_dir}")

    def _join(self) -> None:
        has_failed = self._supervisor.has_failed
        self._supervisor.join(FAILURE_JOIN_SECONDS if has_failed else STOP_JOIN_SECONDS)

    def _save_at_last(self) -> None:
        if not any(isinstance(failure, CheckpointError) for failure in self._supervisor.failures):
            self.save()

    def _save_bad_trajectories(self) -> None:
        for failure in self._supervisor.failures:
            if isinstance(failure, BadUpdatesError):
                save_trajectory(failure, self._run_dir / "bad-trajectory.npz")

    def save(self) -> int:
        """Saves the newest parameters with the optimizer state that belongs to them.

        The log files first: they must not miss what the parameters were learned from.

        Returns:
          The number of frames they were learned from.
        """
        standstill = self._standstill or self._look()
        if not self._supervisor.has_failed:
            self.journal.write_up_to(standstill.snapshot.version)
        self._checkpointer.save(self._make_checkpoint(standstill))
        return standstill.snapshot.num_frames

    def _look(self, standings: tuple[dict[str, Any], ...] = ()) -> _Standstill:
        keys = tuple(key_words(actor) for actor in self._actors)
        return _Standstill(*self.store.read(), keys, standings)

    def _note_standstill(self) -> None:
        """Remembers all that a checkpoint needs, when no actor works, to go on just there."""
        standings = [actor.get_standing() for actor in self._actors]
        if None not in standings:
            self._standstill = self._look(tuple(filter(None, standings)))

    def take_evaluation(
        self, state: LearnerState, snapshot: Snapshot, evaluation: Evaluation, seconds: float
    ) -> None:
        """Notes an evaluation at these seconds of the run, and keeps the best parameters.

        The newest are saved before: the best must not lie ahead of where a run can go on.
        """
        is_new = append_evaluation(self._run_dir, snapshot, seconds, evaluation)
        if self.best_score is None or evaluation.mean > self.best_score:
            self.best_score = evaluation.mean
            self.save()
            self._best.save(self._make_checkpoint(_Standstill(state, snapshot)))
        if is_new:
            for logger in self._loggers:
                logger.write_evaluation(snapshot.num_frames, evaluation.mean)

    def _take_evaluations(self) -> None:
        while self._evaluator.results.qsize():
            self.take_evaluation(*self._evaluator.results.get(), self.seconds())

    def _make_checkpoint(self, standstill: _Standstill) -> Checkpoint:
        snapshot = standstill.snapshot
        progress = Progress(
            num_frames=snapshot.num_frames,
            num_updates=snapshot.version,
            wall_seconds=self.seconds(),
            num_resumes=self.num_resumes,
            actor_keys=standstill.actor_keys,
            best_score=self.best_score,
            num_seeds=self._num_seeds,
            standings=standstill.standings,
        )
        return Checkpoint(standstill.state, snapshot.statistics, progress)


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
