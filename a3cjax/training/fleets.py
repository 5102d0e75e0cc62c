"""What runs the actor-learners of a run: threads of this process, or processes anywhere."""

from collections.abc import Callable
from typing import Any, Protocol

from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.reports import Report, Reports
from a3cjax.actors.supervisor import POLL_SECONDS, Job, Supervisor
from a3cjax.actors.warmup import THREADS
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.parameters.shared import RunStore, SharedParameters
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.system.life import show_life

# Far more than actor-learners make between two looks of the log, and minutes of Pong.
MAX_BACKLOG = 1_000


class Fleet(Protocol):
    """Actor-learners at work, as seen by the code that looks after log and checkpoints."""

    @property
    def store(self) -> RunStore:
        """The parameters."""
        ...

    reports: Reports
    """What their updates leave for the log."""
    spec: EnvironmentSpec
    """That of their environments."""

    def line_of(self, actor_index: int) -> int:
        """The terminal line of an actor-learner: one for its whole process, or one of its own."""
        ...

    def start(self, supervisor: Supervisor) -> None:
        """Start them as jobs of this supervisor, with its rules for ends, failures and stops."""
        ...

    def standstill(self) -> Checkpoint:
        """A checkpoint whose parts belong to one moment, as far as that is known."""
        ...


class ThreadFleet:
    """Actor-learners, each in a thread of its own, and the parameters that they share.

    `targets` holds what their threads run.
    """

    def __init__(self, store: SharedParameters, spec: EnvironmentSpec):
        self.store, self.spec = store, spec
        self.reports = Reports()
        self._supervisor: Supervisor | None = None
        self._has_waited = False
        self.actors: list[ActorLearner] = []
        self.targets: list[Callable[[Job], None]] = []
        self._last_round: Checkpoint | None = None

    def line_of(self, actor_index: int) -> int:
        """Each has a line of its own."""
        return actor_index

    def start(self, supervisor: Supervisor) -> None:
        """Start them all, watched by this supervisor."""
        self._supervisor = supervisor
        supervisor.start(self.targets, THREADS, "learning")

    def report(self, report: Report) -> None:
        """Leave a report for the log; wait while the log is `MAX_BACKLOG` reports behind.

        Otherwise, slow callbacks would be told of a run that has long been over. Nobody waits
        where targets run without `start`, as in measurements, whose reports are read at the end.
        """
        self.reports.put(report)
        supervisor = self._supervisor
        if supervisor is None:
            return
        while self.reports.qsize() >= MAX_BACKLOG and not supervisor.is_stopping:
            if not self._has_waited:
                self._has_waited = True
                supervisor.tell("actor-learners wait for the log: callbacks or loggers are slow")
            show_life()
            supervisor.stop_event.wait(POLL_SECONDS)

    def standstill(self) -> Checkpoint:
        """A checkpoint whose parts belong to one moment, as far as the actor-learners know it.

        If they take turns, it is the end of the last round, so that a run goes on just there.
        """
        return self._last_round or self._look()

    def note_round(self) -> None:
        """Remember the end of a round, when no actor-learner works, if all can be saved."""
        standings = [actor.get_standing() for actor in self.actors]
        if None not in standings:
            self._last_round = self._look(tuple(standings))

    def _look(self, standings: tuple[Any, ...] = ()) -> Checkpoint:
        state, snapshot = self.store.read()
        progress = Progress(
            snapshot.num_frames,
            snapshot.version,
            actor_keys=tuple(actor.key_words() for actor in self.actors),
            standings=standings,
        )
        return Checkpoint(state, snapshot.statistics, progress)
