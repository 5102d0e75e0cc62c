"""A worker: a process with some of a run's actor-learners, each in a thread of its own."""

import contextlib
import copy
import pickle
import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.programs import Programs
from a3cjax.actors.reports import Lost, UpdateReport
from a3cjax.actors.supervisor import Job, Stopped, Supervisor
from a3cjax.actors.warmup import THREADS
from a3cjax.cluster.outliers import Outliers
from a3cjax.cluster.processes import Process
from a3cjax.cluster.store import Pool, RoundsAtShards, ShardedStore
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.parameters.shared import ParameterStore, Receipt
from a3cjax.parameters.turns import StoreInTurns
from a3cjax.types import Exploration, Params, Seen, Snapshot, Trajectory
from a3cjax.updates import ComputeGradients, GradientMetrics


class Staff(Protocol):
    """What a worker leaves to `training`, which knows about settings and environments."""

    first_index: int
    """Of its actor-learners, which are numbered over the whole run."""
    size: int
    num_in_run: int

    def make(self, supervisor: Supervisor) -> EnvironmentSpec:
        """Makes the environments."""
        ...

    def envs_per_actor(self) -> int:
        """How many environments each actor-learner has."""
        ...

    def warm_up(self, config: Any, supervisor: Supervisor) -> list[tuple[Seen, int]]:
        """Plays at random, by settings with nothing left open.

        Returns what was seen and the number of steps, for each batch.
        """
        ...

    def programs(self, normalizer: Seen) -> Programs:
        """What the actor-learners have in common."""
        ...

    def recruit(
        self,
        programs: Programs,
        stores: Sequence[ParameterStore],
        actor_keys: tuple[tuple[int, ...], ...],
        report: Callable[[UpdateReport], None],
    ) -> tuple[list[ActorLearner], list[Callable[[Job], None]]]:
        """The actor-learners, and what their threads are to run."""
        ...

    def close(self, supervisor: Supervisor) -> None:
        """Frees the environments."""
        ...


class Orders(NamedTuple):
    """How a worker treats gradients, and what it continues from.

    `make_store` makes its view of the shards, given the event that asks for a stop. The gradients
    of `grads_per_push` actor-learners are pushed as one. `actor_keys` are those of the whole run.
    """

    shards: Sequence[Process]
    make_store: Callable[[Sequence[Process], threading.Event], ShardedStore]
    normalizer: Seen = Seen()
    grads_per_push: int = 1
    outlier_deviations: float | None = None
    takes_turns: bool = False
    actor_keys: tuple[tuple[int, ...], ...] = ()


class Status(NamedTuple):
    """A worker's answer to a poll: what has happened since the last one.

    `actor_keys` are those of its own actor-learners; `failures` have their tracebacks as text.
    """

    reports: list[UpdateReport]
    lost: Lost
    actor_keys: list[tuple[int, ...]]
    is_done: bool
    failures: list[Exception]


class Worker:
    """In a process of its own; all but `make`, `play`, `warm_up`, `start` and `close` is quick."""

    def __init__(self, staff: Staff, stall_seconds: float):
        self._staff = staff
        self._supervisor = Supervisor(stall_seconds=stall_seconds)
        self._reports = queue.SimpleQueue[UpdateReport]()
        self._actors: list[ActorLearner] = []
        self._pool: Pool | None = None

    def make(self) -> EnvironmentSpec:
        """Makes environments; each is stepped by the thread that made it."""
        with self._telling():
            return self._staff.make(self._supervisor)

    def envs_per_actor(self) -> int:
        """How many environments each actor-learner has."""
        return self._staff.envs_per_actor()

    def warm_up(self, config: Any) -> list[tuple[Seen, int]]:
        """Plays at random; returns what was seen and the number of steps, for each batch."""
        with self._telling():
            return self._staff.warm_up(config, self._supervisor)

    def play(self, config: Any, frames_per_step: int) -> int:
        """As `warm_up`, for a worker that is started again; returns the number of frames."""
        return sum(num_steps for _, num_steps in self.warm_up(config)) * frames_per_step

    def start(self, orders: Orders) -> None:
        """Sets the actor-learners to work."""
        staff, stop_event = self._staff, self._supervisor.stop_event
        programs, base = staff.programs(orders.normalizer), self._make_base(orders)
        view: View = base
        stores: Sequence[ParameterStore] = []
        if orders.takes_turns:
            assert isinstance(base, ShardedStore)
            rounds = RoundsAtShards(base, orders.shards, staff.num_in_run, stop_event)
            stores = [StoreInTurns(rounds, staff.first_index + own) for own in range(staff.size)]
        elif isinstance(slot := programs.learning_slot, threading.Semaphore):
            view = OutsideSlot(base, slot)
        sieves: Sequence[Sieve] = []
        if orders.outlier_deviations is not None:  # never the case with turns
            outliers = Outliers(orders.outlier_deviations)
            compute = programs.compute_gradients
            stores = sieves = [Sieve(view, outliers, compute) for _ in range(staff.size)]
        stores = stores or [view] * staff.size
        keys, report = orders.actor_keys, self._reports.put
        self._actors, targets = staff.recruit(programs, stores, keys, report)
        for actor, sieve in zip(self._actors, sieves, strict=False):
            compute = sieve.compute_gradients
            actor.programs = actor.programs._replace(compute_gradients=compute)
        self._supervisor.start(targets, THREADS, "learning")

    def _make_base(self, orders: Orders) -> "ShardedStore | Pool":
        store = orders.make_store(orders.shards, self._supervisor.stop_event)
        if orders.grads_per_push == 1:
            return store
        self._pool = Pool(store, orders.grads_per_push)
        return self._pool

    def poll(self, is_to_stop: bool) -> Status:
        """What has happened since the last poll.

        If the worker `is_to_stop`, its actor-learners finish what they are doing; a later answer
        says when they are done.
        """
        supervisor = self._supervisor
        if is_to_stop:
            self.stop()
        supervisor.look_around()
        is_done, lost = not supervisor.is_busy, Lost(())
        if is_done and self._pool is not None:
            receipt = self._pool.flush()
            if receipt is not None and not (receipt.is_dropped or receipt.is_refused):
                lost = Lost((receipt.version,), receipt.num_frames)
        reports = [self._reports.get() for _ in range(self._reports.qsize())]
        keys = [actor.key_words() for actor in self._actors]
        return Status(reports, lost, keys, is_done, list(map(portable, supervisor.failures)))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Raises what has failed in place of the stop that followed."""
        try:
            yield
        except Stopped:
            self._supervisor.raise_failures()
            raise

    def stop(self) -> None:
        """Asks the actor-learners to stop; `poll` says when they have."""
        self._supervisor.stop_event.set()

    def close(self) -> None:
        """Frees the environments, when no actor-learner works any more."""
        self._staff.close(self._supervisor)
        self._supervisor.dismiss()


def portable(failure: Exception) -> Exception:
    """A failure that can be sent to another process, with its traceback as text."""
    lines = "".join(traceback.format_exception(failure)).rstrip()
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:
        failure = RuntimeError(f"{type(failure).__name__}: {failure}")
    failure = copy.copy(failure)
    failure.add_note(f"in another process:\n{lines}")
    return failure


class View(ParameterStore, Protocol):
    """A store that can be told of frames without a gradient."""

    def drop(self, num_frames: int, version: int) -> Receipt:
        """Counts frames without a gradient."""
        ...


class OutsideSlot(NamedTuple):
    """A store that frees a learning slot, and so a core, while a push is on its way."""

    store: View
    slot: threading.Semaphore

    def pull(self) -> Snapshot:
        """The newest parameters."""
        return self.store.pull()

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """Pushes, then takes a slot again."""
        return self._outside(self.store.push, grads, num_frames, version, actor_index, seen)

    def drop(self, num_frames: int, version: int) -> Receipt:
        """Counts frames without a gradient."""
        return self._outside(self.store.drop, num_frames, version)

    def _outside(self, send: Callable[..., Receipt], *args: Any) -> Receipt:
        self.slot.release()
        try:
            return send(*args)
        finally:
            self.slot.acquire()


class Sieve:
    """The store of one actor-learner; it holds back the gradients of outliers."""

    def __init__(self, store: View, outliers: Outliers, compute_gradients: ComputeGradients):
        """Looks at the loss of each gradient; the whole worker shares `outliers`."""
        self._store, self._outliers, self._is_outlier = store, outliers, False
        self._compute_gradients = compute_gradients

    def compute_gradients(
        self, snapshot: Snapshot, exploration: Exploration, trajectory: Trajectory
    ) -> tuple[Params, GradientMetrics]:
        """Computes gradients, and remembers whether the next push is that of an outlier."""
        grads, metrics = self._compute_gradients(snapshot, exploration, trajectory)
        self._is_outlier = self._outliers.is_outlier(loss_of(metrics))
        return grads, metrics

    def pull(self) -> Snapshot:
        """The newest parameters."""
        return self._store.pull()

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """Pushes, or counts an outlier's frames."""
        if self._is_outlier:
            return self._store.drop(num_frames, version)
        return self._store.push(grads, num_frames, version, actor_index, seen)


def loss_of(metrics: GradientMetrics) -> float:
    """The sum of the absolute values of all losses or, if there is none, the gradient's norm."""
    losses = [abs(value) for name, value in metrics.as_dict().items() if name.endswith("_loss")]
    return sum(losses) if losses else float(metrics.grad_norm)
