"""The learning of a run: from its first checkpoint to its last."""

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from a3cjax.actors.placement import find_devices
from a3cjax.actors.reports import UpdateReport
from a3cjax.actors.supervisor import Supervisor
from a3cjax.agents import Agent
from a3cjax.config.builders import build_evaluation_environments
from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError
from a3cjax.logs.journal import BadUpdatesError, Journal
from a3cjax.logs.loggers import Logger
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.parameters.shared import make_snapshot
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import Summary, append_evaluation
from a3cjax.runs.playing import TrainedAgent, closing_quietly, evaluate_agent
from a3cjax.runs.tables import EpisodeRow, cut_logs
from a3cjax.system.files import same_folder
from a3cjax.system.signals import SignalStop
from a3cjax.training.bringing import Brought
from a3cjax.training.callbacks import EpisodeEvent, EvaluationEvent, Event, UpdateEvent, call
from a3cjax.training.evaluator import Evaluator
from a3cjax.training.fleets import Fleet
from a3cjax.training.saver import Saver
from a3cjax.types import LearnerState, Snapshot

# After a failure the run must end soon. After a mere request to stop, an actor may finish its step
# or gradient, however long that takes.
FAILURE_JOIN_SECONDS = 3.0


class Logs(NamedTuple):
    """Where a run's progress is written, for people and in files, and what was there before.

    `past_returns` are the returns of all earlier training games; `judged_frames` is the number of
    frames at the last evaluation.
    """

    terminal: TerminalLogger
    loggers: list[Logger]
    past_returns: list[float]
    judged_frames: int


@dataclass
class Learning:
    """Sets the actor-learners to work, and looks after log, checkpoints and evaluations."""

    config: Config
    agent: Agent
    fleet: Fleet
    logs: Logs
    saver: Saver
    supervisor: Supervisor
    signal_stop: SignalStop
    brought: Brought

    def __post_init__(self):
        config, store = self.config, self.fleet.store
        self._stopped_by: str | None = None  # name of the callback that stopped the run
        self._have_stopped: list[Any] = []  # callbacks that asked to stop
        assert config.log_period_frames is not None
        self.journal = Journal(
            self.fleet.reports,
            self.logs.loggers,
            self.logs.terminal,
            num_frames=store.counts().num_frames,
            num_updates=store.counts().num_updates,
            past_returns=self.logs.past_returns,
            period_frames=config.log_period_frames,
            max_bad_updates=config.max_bad_updates,
            tell=self._tell_of_update,
            line_of=self.fleet.line_of,
            began=self.saver.began,
        )
        self.evaluator = Evaluator(
            self._evaluate_meanwhile,
            store,
            num_frames=self.logs.judged_frames,
            period_frames=config.eval_period_frames or config.total_frames,
            learner=find_devices(config.devices)[0],
        )

    def run(self) -> None:
        """Learn until the budget is used up, something fails or a signal comes; then save."""
        self.supervisor.rescue = self.save
        self._saved_frames = self.save().progress.num_frames  # where learning begins
        self.fleet.start(self.supervisor)
        if self.config.eval_period_frames is not None:
            self.supervisor.start([self.evaluator.run], "evaluator", "evaluating", "help")
        self.supervisor.watch(self._look_after_files)
        self._end()

    def summarise(self, evaluation: Evaluation | None = None) -> Summary:
        """The result of the run, with its final evaluation if there is one yet."""
        saved = self._newest.progress
        return Summary(
            run_dir=self.saver.run_dir,
            num_frames=saved.num_frames,
            num_updates=saved.num_updates,
            wall_seconds=self._learned_seconds,
            mean_return=self.journal.mean_return,
            evaluation=evaluation,
            signal_number=self.signal_stop.signal_number,
            num_resumes=self.saver.past.num_resumes,
            best_score=self.saver.best_score,
            stopped_by=self._stopped_by,
        )

    def judge(self, closing: contextlib.ExitStack, keep: Callable[[Summary], object]) -> Summary:
        """Evaluate what was saved at the end, unless a signal came or no games are wanted.

        `keep` gets the result even if a callback or a logger raises. The environments stay open
        until the caller leaves `closing`, so that closing them cannot lose the result.
        """
        evaluation, state, snapshot = None, self._newest.state, self.saved_snapshot()
        if self.config.eval_episodes and not self.signal_stop.is_set():
            evaluation = self._evaluate(snapshot, self.supervisor.is_told, closing)
        try:
            if evaluation is not None:
                self._take_evaluation(state, snapshot, evaluation, self._learned_seconds)
        finally:  # the best score may be new
            keep(summary := self.summarise(evaluation))
        return summary

    def saved_snapshot(self) -> Snapshot:
        """The parameters that were saved at the end.

        Actors that take turns may have been stopped within a round, which is not saved.
        """
        state, statistics, (num_frames, num_updates, *_) = self._newest
        return make_snapshot(state, num_updates, num_frames, statistics)

    def _evaluate_meanwhile(
        self, snapshot: Snapshot, should_stop: Callable[[], bool]
    ) -> Evaluation | None:
        with contextlib.ExitStack() as closing:
            return self._evaluate(snapshot, should_stop, closing)

    def _evaluate(
        self, snapshot: Snapshot, should_stop: Callable[[], bool], closing: contextlib.ExitStack
    ) -> Evaluation | None:
        with same_folder():  # environments may change it
            number, parts = self.config.eval_episodes, self.brought.parts
            environments = build_evaluation_environments(self.config, number, parts=parts)
            closing.enter_context(closing_quietly(environments))
            trained, report = self.trained_agent(snapshot), self.supervisor.tell
            hint = ", eval_episodes=0 leaves evaluations out"
            options = {"should_stop": should_stop, "report": report, "hint": hint}
            return evaluate_agent(trained, environments, number, **options)

    def trained_agent(self, snapshot: Snapshot | None = None) -> TrainedAgent:
        """The agent with these parameters; None for the newest."""
        snapshot = snapshot or self.fleet.store.pull()
        spec, parts = self.fleet.spec, self.brought.parts
        return TrainedAgent(self.config, self.agent, snapshot, spec, parts=parts)

    def _tell_of_update(self, report: UpdateReport, episodes: list[EpisodeRow]) -> None:
        """Tells callbacks of an update that was applied, and of the games that ended in it."""
        if not self.brought.callbacks:
            return
        agent = self.trained_agent
        for row in episodes:
            game = (row.actor, row.episode_return, row.episode_length)
            self._tell("on_episode", EpisodeEvent(row.num_frames, *game, agent))
        if report.is_applied:
            update = UpdateEvent(report.run_frames, report.version, report.metrics, agent)
            self._tell("on_update", update)

    def _tell(self, method: str, event: Event) -> None:
        if self.supervisor.failures:  # a callback may have failed, and would fail again
            return
        self.supervisor.look_around()  # a slow callback that answers is no thread that stands still
        is_evaluation = isinstance(event, EvaluationEvent)
        told = (
            callback
            for callback in self.brought.callbacks
            if is_evaluation or not any(callback is other for other in self._have_stopped)
        )
        with same_folder():  # they may change it
            for callback in call(told, method, event):
                self._have_stopped.append(callback)
                if not self.supervisor.is_stopping:
                    self._stopped_by = name = type(callback).__name__
                    self.supervisor.stop_event.set()
                    self.supervisor.tell(f"{name} stops the run after {event.num_frames:,} frames")

    def save(self) -> Checkpoint:
        """Save where the run stands; return what was saved.

        The log files come first: they must not lack what the parameters were learned from.
        """
        newest = self.fleet.standstill()
        if not self.supervisor.failures:
            self.journal.write_up_to(newest.progress.num_updates)
        self.saver.save(newest)
        return newest

    def _look_after_files(self) -> None:
        self.journal.write()
        self._take_evaluations()
        num_frames, num_updates = self.fleet.store.counts()
        if num_updates > 0:
            import_pictures()
        if num_frames - self._saved_frames >= self.config.checkpoint_period_frames:
            self._saved_frames = self.save().progress.num_frames

    def _take_evaluations(self) -> None:
        while self.evaluator.results.qsize():
            self._take_evaluation(*self.evaluator.results.get(), self.saver.seconds())

    def _take_evaluation(
        self, state: LearnerState, snapshot: Snapshot, evaluation: Evaluation, seconds: float
    ) -> None:
        """Record an evaluation, made after `seconds` of the run, and keep the best parameters.

        The `state` is that of the snapshot: what was seen by then belongs to the parameters.
        """
        is_new = append_evaluation(self.saver.run_dir, snapshot, seconds, evaluation)
        best_score = self.saver.best_score
        if best_score is None or evaluation.mean > best_score:
            self.saver.best_score = evaluation.mean
            self.save()
            progress = Progress(snapshot.num_frames, snapshot.version)
            self.saver.save(Checkpoint(state, snapshot.statistics, progress), is_best=True)
        if is_new:
            for logger in self.logs.loggers:
                with same_folder():  # people's own may change it
                    logger.write_evaluation(snapshot.num_frames, evaluation.mean)
            where = snapshot.num_frames, snapshot.version
            agent = functools.partial(self.trained_agent, snapshot)
            scores = (evaluation.mean, evaluation.scores)
            self._tell("on_evaluation", EvaluationEvent(*where, *scores, agent))

    def _end(self) -> None:
        """Stop all threads, write and save; go on if one of these fails."""
        supervisor, failures = self.supervisor, self.supervisor.failures
        supervisor.stop_event.set()
        # Later steps take account of the failures of earlier ones.
        supervisor.wait(FAILURE_JOIN_SECONDS if failures else math.inf)
        self._learned_seconds = self.saver.seconds()
        with supervisor.noting_failures():
            self.journal.finish()
        with supervisor.noting_failures():
            self._take_evaluations()
        if not any(isinstance(failure, CheckpointError) for failure in failures):
            with supervisor.noting_failures():
                self._newest = self.save()
                num_frames = self._newest.progress.num_frames
                is_ahead = num_frames < self.journal.num_frames
                if self.config.deterministic and is_ahead and not failures:
                    cut_logs(self.saver.run_dir, num_frames)
        with supervisor.noting_failures():
            for failure in failures:
                if isinstance(failure, BadUpdatesError):
                    self.saver.save_bad_trajectory(failure)
        supervisor.raise_failures()


def import_pictures() -> None:
    """Import the modules that draw at the end of a run.

    Not before the first update, which need not wait for matplotlib, and not only at the end, when
    the files of a checkout may have changed.
    """
    from a3cjax import video  # noqa: F401
    from a3cjax.reports import run_curves  # noqa: F401
