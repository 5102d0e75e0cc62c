"""The fleet of a run with several processes: workers and shards, watched by a thread here."""

import bisect
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from a3cjax.actors.reports import Lost, Reports, Restarted
from a3cjax.actors.supervisor import Job, Stopped, Supervisor
from a3cjax.cluster.processes import Gone, Pending, Process, Question, Unreachable
from a3cjax.cluster.slices import Slicing
from a3cjax.cluster.store import RETRY_SECONDS, ShardedStore
from a3cjax.cluster.worker import Orders, Status
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.parameters.shared import Counts, as_views
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.types import LearnerState, Snapshot

POLL_SECONDS = 0.25
# A report arrives within half a second. One that takes longer than this is no longer waited for; if
# it arrives after all, it is taken in late.
STRAGGLER_SECONDS = 10.0
# Whoever waits longer than this for processes, which may find no place, is told so.
WAIT_SECONDS = 10.0
# After a failure the rest may finish a step or a gradient, but nobody waits for long.
FAREWELL_SECONDS = 2.0


def gather(pending: Sequence[Pending], supervisor: Supervisor) -> list[Any]:
    """Waits for the results of calls that may take long.

    Raises:
      Stopped: if a stop is asked for meanwhile.
      Exception: what a call raised.
    """
    began, is_told = time.monotonic(), False
    while num_missing := sum(not each.is_ready() for each in pending):
        if supervisor.is_stopping:
            raise Stopped
        if not is_told and time.monotonic() - began > WAIT_SECONDS:
            is_told = True
            supervisor.tell(f"waiting for {num_missing} of {len(pending)} processes")
        supervisor.look_around()
        time.sleep(0.02)
    return [each.result() for each in pending]


Hire = Callable[[int, int], tuple[Process, list[Pending]]]
"""Starts the worker of this index in this life, the first of which is 0.

It returns the process and its calls, the last of which returns the frames played at random.
"""


class Post:
    """A worker's place in the fleet: its present process, and what is known of it."""

    def __init__(self, index: int, process: Process):
        self.index, self.process = index, process
        self.life = 0
        self.is_done = False
        self.status: Question | None = None
        self.joining: list[Pending] = []  # as `Hire` returns them, and then the call of `start`
        self.keys: list[tuple[int, ...]] = []


class ShardsOfRun:
    """The shards as seen by whoever looks after the run: see `RunStore`."""

    def __init__(self, shards: Sequence[Process], slicing: Slicing | None, begun: Checkpoint):
        """`begun` is what the shards were told to begin with."""
        self.shards, self.slicing, self.latest = shards, slicing, begun
        self.stop_event = threading.Event()  # never set: the final state is read after a stop
        self.view = ShardedStore(shards, self.stop_event, slicing=slicing)
        self.newest = Counts(begun.progress.num_frames, begun.progress.num_updates)
        self._final: tuple[LearnerState, Snapshot] | None = None

    def counts(self) -> Counts:
        """How far the run has come, as far as it is known here."""
        return self.newest

    def note(self, num_frames: int, num_updates: int) -> None:
        """Notes that the run has been seen to come this far."""
        self.newest = Counts(*map(max, self.newest, (num_frames, num_updates)))

    def pull(self) -> Snapshot:
        """The newest parameters."""
        return self._final[1] if self._final else self.view.fetch()

    def read(self) -> tuple[LearnerState, Snapshot]:
        """The newest parameters and all that belongs to them."""
        if self._final:
            return self._final
        while True:
            try:
                return self._read_now()
            except Unreachable:  # a shard is being started again
                time.sleep(RETRY_SECONDS)

    def _read_now(self) -> tuple[LearnerState, Snapshot]:
        parts = [each.result() for each in [s.submit("read") for s in self.shards]]
        states, snapshots = zip(*parts, strict=True)
        state, snapshot = states[0], snapshots[0]
        if self.slicing is not None:
            state = self.slicing.join_states(states, self.latest.state)
        state = as_views(jax.tree.map(jnp.array, state._replace(seen=None)))._replace(
            seen=state.seen
        )
        snapshot = snapshot._replace(params=state.params, target_params=state.target_params)
        self.note(snapshot.num_frames, snapshot.version)
        progress = Progress(snapshot.num_frames, snapshot.version)
        self.latest = Checkpoint(state, snapshot.statistics, progress)
        return state, snapshot

    def keep(self) -> None:
        """Reads one last time: from now on the shards are not needed.

        Raises:
          Unreachable: if a shard does not answer now.
        """
        self._final = self._read_now()

    def slices(self) -> list[Checkpoint]:
        """What each shard is to begin with, cut from what was read last."""
        state, statistics, progress = self.latest
        if self.slicing is None:
            return [self.latest]
        states = self.slicing.cut_state(state)
        each = [statistics] + [None] * (len(states) - 1)
        return [Checkpoint(*own, progress) for own in zip(states, each, strict=True)]


class ClusterFleet:
    """Workers and shards at work: see `training.fleets.Fleet`.

    A thread polls them. A process that has died is started again, up to `max_restarts` times in
    all; what was on its way is lost, and reported as lost.
    """

    def __init__(
        self,
        store: ShardsOfRun,
        workers: Sequence[Process],
        spec: EnvironmentSpec,
        *,
        hire: Hire,
        make_orders: Callable[[tuple[tuple[int, ...], ...]], Orders],
        first_indices: Sequence[int],
        actor_keys: tuple[tuple[int, ...], ...] = (),
        max_restarts: int | None = None,
    ):
        """`workers` are ready to start; `make_orders` takes the keys of all actor-learners.

        `first_indices` has the index in the run of each worker's first actor-learner. Without
        `max_restarts` nobody who dies is replaced.
        """
        self._first_indices = first_indices
        self.store, self.spec = store, spec
        self.reports = Reports()
        self.posts = [Post(index, process) for index, process in enumerate(workers)]
        self.num_restarts = 0
        self._hire, self._make_orders, self._keys = hire, make_orders, actor_keys
        self._max_restarts = max_restarts
        self._looks: list[Question | None] = [None] * len(store.shards)
        self._is_there = [True] * len(store.shards)
        self._num_played = 0  # frames of random play that no shard has counted yet
        # Versions up to `_settled` are reported or lost; those up to `_awaited` are to be reported.
        self._settled = self._awaited = store.counts().num_updates
        self._due = 0.0

    def line_of(self, actor_index: int) -> int:
        """The index of the actor-learner's worker: each worker has a line in the terminal."""
        return bisect.bisect_right(self._first_indices, actor_index) - 1

    def start(self, supervisor: Supervisor) -> None:
        """Sets all workers to work, and looks after them in a thread of `supervisor`."""
        orders = self._make_orders(self._keys)
        started = [post.process.submit("start", orders) for post in self.posts]
        gather(started, supervisor)
        look_after = functools.partial(self._look_after, supervisor)
        supervisor.start([look_after], "cluster", "learning")

    def standstill(self) -> Checkpoint:
        """The newest state, with the keys that the actor-learners reported last."""
        state, snapshot = self.store.read()
        keys = tuple(key for post in self.posts for key in post.keys)
        progress = Progress(snapshot.num_frames, snapshot.version, actor_keys=keys or self._keys)
        return Checkpoint(state, snapshot.statistics, progress)

    def _look_after(self, supervisor: Supervisor, job: Job) -> None:
        """Polls until every worker is done; passes on a request to stop.

        Nothing here may wait for a shard to come back: it is this thread that tells a restarted
        shard what to begin with.
        """
        asked: float | None = None
        try:
            while not all(post.is_done for post in self.posts):
                is_stopping = job.wait(POLL_SECONDS)
                if is_stopping and asked is None:
                    asked = time.monotonic()
                self._look_at_shards(supervisor)
                for post in self.posts:
                    self._look_at(post, supervisor, is_stopping)
                if self._num_played and all(self._is_there):
                    num_frames, self._num_played = self._num_played, 0
                    self.store.view.count(num_frames)
                if time.monotonic() >= self._due:
                    self._declare_lost(self._awaited)
                    self._awaited = self.store.counts().num_updates
                    self._due = time.monotonic() + STRAGGLER_SECONDS
                if asked is not None:  # `job.wait` does not wait after a stop
                    time.sleep(POLL_SECONDS)
                    seconds = time.monotonic() - asked
                    if supervisor.failures and seconds > FAREWELL_SECONDS:
                        break
        finally:
            while not self._has_kept(supervisor):
                time.sleep(RETRY_SECONDS)
        num_frames, num_updates = self.store.counts()
        self._declare_lost(num_updates, num_frames)  # nobody will report any more

    def _look_at(self, post: Post, supervisor: Supervisor, is_stopping: bool) -> None:
        if post.is_done:
            return
        try:
            if post.joining and not self._has_joined(post, is_stopping):
                return
            if post.status is None:
                # Each poll repeats the request to stop: a call may get lost on the way.
                post.status = Question(post.process.submit("poll", is_stopping))
            if not post.status.is_over():
                return
            question, post.status = post.status, None
            self._take_in(post, question.answer())
        except Unreachable:
            pass  # it is asked again
        except Gone as death:
            post.status, post.joining = None, []
            if is_stopping:
                post.is_done = True
            else:
                self._start_again(post, supervisor, death)

    def _has_joined(self, post: Post, is_stopping: bool) -> bool:
        """Whether a worker that was started again has begun to learn, or is not wanted any more.

        Raises:
          Gone: if it has died, or one of its calls was lost.
          Exception: what a call raised.
        """
        if not all(each.is_ready() for each in post.joining):
            # It may wait for a place that nobody frees. What it would learn, nobody needs.
            others = [each for each in self.posts if each is not post]
            if is_stopping or (others and all(each.is_done for each in others)):
                post.process.kill()
                post.is_done = True
            return False
        try:
            *_, num_frames, _ = [each.result() for each in post.joining]
        except Unreachable as error:
            post.process.kill()
            raise Gone(str(error)) from error
        self._num_played += num_frames
        post.joining = []
        return True

    def _take_in(self, post: Post, status: Status) -> None:
        for report in status.reports:
            if report.bad_trajectory is None:
                self.store.note(report.run_frames, report.version)
            self.reports.put(report)
        if status.lost.versions:
            self.reports.put(status.lost)
        post.keys = status.actor_keys
        post.is_done = status.is_done
        if status.failures:
            first, *others = status.failures
            raise ExceptionGroup("several parts failed", status.failures) if others else first

    def _start_again(self, post: Post, supervisor: Supervisor, death: Gone) -> None:
        self._count_restart(f"worker {post.index}", supervisor, death, line=post.index)
        post.life += 1
        post.process, calls = self._hire(post.index, post.life)
        keys = tuple(key for each in self.posts for key in each.keys) or self._keys
        post.joining = [*calls, post.process.submit("start", self._make_orders(keys))]

    def _look_at_shards(self, supervisor: Supervisor) -> None:
        for index, shard in enumerate(self.store.shards):
            look = self._looks[index] or Question(shard.submit("counts"))
            self._looks[index] = look
            if not look.is_over():
                continue
            self._looks[index] = None
            try:
                counts = look.answer()
                self._is_there[index] = True
                if index == 0:
                    self.store.note(*counts)
            except Unreachable:
                self._is_there[index] = False
                self._begin_again(index, supervisor)

    def _has_kept(self, supervisor: Supervisor) -> bool:
        """Keeps what the shards have learned; if one does not answer, tells it to begin again."""
        try:
            self.store.keep()
        except Unreachable:
            for index in range(len(self.store.shards)):
                self._begin_again(index, supervisor)
            return False
        return True

    def _begin_again(self, index: int, supervisor: Supervisor) -> None:
        """Tells a shard that may have been started again what to begin with."""
        try:
            what = self.store.slices()[index], False, self.store.newest
            begun = self.store.shards[index].submit("begin", *what).result()
        except Unreachable:  # not yet
            return
        if begun is None:  # it was only slow
            return
        self._count_restart(f"shard {index}", supervisor, None)
        num_lost = begun.counts.num_updates - begun.num_updates_kept
        supervisor.tell(f"shard {index} goes on without its last {num_lost} updates")

    def _count_restart(
        self, name: str, supervisor: Supervisor, death: Gone | None, line: int | None = None
    ) -> None:
        self.num_restarts += 1
        self.reports.put(Restarted(line))
        if self._max_restarts is None:
            raise RuntimeError(f"{name} has died: a deterministic run ends by that.") from death
        if self.num_restarts > self._max_restarts:
            reason = f"max_restarts must be more than {self._max_restarts} to go on"
            raise RuntimeError(f"{name} has died: {reason}.") from death
        supervisor.tell(
            f"{name} has died and is started again: {self.num_restarts} of {self._max_restarts}"
        )

    def _declare_lost(self, last: int, num_frames: int = 0) -> None:
        """Reports as lost all versions up to `last` that should have been reported by now.

        Whoever pushed them has died or never got an answer; they were applied all the same.
        `num_frames` is where the run stands after the last of them, if that is known.
        """
        # The journal skips those that have been reported.
        self.reports.put(Lost(tuple(range(self._settled + 1, last))))
        self.reports.put(Lost((last,), num_frames))
        self._settled = last
