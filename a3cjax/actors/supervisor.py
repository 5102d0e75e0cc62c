"""Supervised threads: each does one job after another; a failure stops all, and is never lost.

What belongs to a thread stays in it: an actor-learner's environments are made, reset, stepped and
closed by the same thread. And whatever may stand still, above all foreign code, runs in such a
thread, while another one watches over them all.
"""

import contextlib
import ctypes
import math
import queue
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from a3cjax.errors import one_line
from a3cjax.system.life import show_life, show_life_by

POLL_SECONDS = 0.1
# A process that was stopped for an hour was not silent for an hour.
MAX_TICK_SECONDS = 1.0
SIGN_SECONDS = 0.25  # between the signs of life of a thread that rests: our choice
# A waiting thread tells what it awaits: first after this, then each time after ten times as long.
ANNOUNCE_SECONDS = 3.0
# Saving in place of a thread that stands still must not stand still as well.
MAX_RESCUE_SECONDS = 60.0

CLONE_FS = 0x200  # linux/sched.h

Role = Literal["work", "help", "trifle", "question"]
"""What a job is to the run, which goes on while there is work. Help keeps no run alive; the failure
of a trifle is told and does no harm, that of a question is for whoever asked."""

_all_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class StallError(RuntimeError):
    """A thread that has made no progress for too long; the message shows where it is."""


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """A stop was asked for before there was anything to keep."""


class Job:
    """A piece of work for a thread. The job is passed to its target in place of a stop event.

    A target that asks it, by `is_set` or `wait`, shows that the thread makes progress.
    """

    def __init__(
        self, supervisor: "Supervisor", target: Callable[["Job"], Any], doing: str, role: Role
    ):
        self.target, self.doing, self.role = target, doing, role
        self.num_signs = 0
        self.is_stuck = False
        self.silent_seconds, self.seen_signs = 0.0, -1  # as the watcher saw it
        self.finished = threading.Event()
        self.result: Any = None
        self.failure: Exception | None = None
        self._supervisor = supervisor

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        self.show_life()
        return self._supervisor.is_stopping

    def wait(self, seconds: float) -> bool:
        """Wait for a stop at most this long, alive; return whether one was asked for."""
        end = time.monotonic() + seconds
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            self._supervisor.stop_event.wait(min(left, SIGN_SECONDS))
        return self.is_set()

    def show_life(self) -> None:
        """Show that the thread makes progress, or that another one is to be blamed."""
        self.num_signs += 1


class _Worker:
    """A thread and the jobs that it was given, which it does one after another."""

    def __init__(self, name: str, note_failure: Callable[[Job, Exception], None]):
        self.jobs = queue.SimpleQueue[Job | None]()
        self.job: Job | None = None  # the one in progress
        self._note_failure = note_failure
        # A daemon: a thread stuck in foreign code must not keep the program alive.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        _all_threads.add(self.thread)
        self.thread.start()

    @property
    def is_stuck(self) -> bool:
        job = self.job
        return job is not None and job.is_stuck

    def _run(self) -> None:
        _have_own_folder()
        while (job := self.jobs.get()) is not None:
            self.job = job
            show_life_by(job.show_life)
            try:
                job.result = job.target(job)
            except BaseException as failure:
                if job.role != "question":
                    failure.add_note(f"in thread {self.thread.name}")
                job.failure = _as_exception(failure)
                self._note_failure(job, job.failure)
            self.job = None
            job.finished.set()
            del job  # and what it holds


class Supervisor:
    """Runs jobs in threads until all work is done, a job fails, or a stop is asked for."""

    def __init__(
        self, should_stop: Callable[[], bool] = lambda: False, stall_seconds: float = math.inf
    ):
        """`should_stop` tells whether a stop is wanted from outside.

        A job that shows no sign of life for `stall_seconds` has failed.
        """
        self.stop_event = threading.Event()
        self.failures: list[Exception] = []
        self.announce: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
        self.rescue: Callable[[], object] = lambda: None
        """Saves what there is, where the overseen thread stands still and cannot."""
        self._should_stop, self._stall_seconds = should_stop, stall_seconds
        self._workers: dict[str, _Worker] = {}
        self._given: list[tuple[_Worker, Job]] = []  # not finished when last looked at
        self._giving = threading.Lock()
        self._looked = time.monotonic()
        self._is_overseen = self._is_dismissed = False
        self._kept: Any = None

    def start(
        self,
        targets: Sequence[Callable[[Job], Any]],
        name: str,
        doing: str = "working",
        role: Role = "work",
    ) -> list[Job]:
        """Give target i to the thread `<name>-i`, which runs it after the targets given before."""
        return [self._give(f"{name}-{i}", target, doing, role) for i, target in enumerate(targets)]

    def ask(self, target: Callable[[], Any], name: str, doing: str) -> Any:
        """Call the target in the thread of this name; return what it returns, raise what it raises.

        Raises:
          Stopped: if a stop is asked for before this call, or the thread stands still.
        """
        if self.is_stopping:
            raise Stopped
        job = self._give(name, lambda _: target(), doing, "question")
        while not job.finished.wait(POLL_SECONDS):
            self.look_around()
            if self._workers[name].is_stuck:
                raise Stopped
        if job.failure is not None:
            raise job.failure
        return job.result

    def _give(self, name: str, target: Callable[[Job], Any], doing: str, role: Role) -> Job:
        worker = self._workers.get(name)
        if worker is None or self._is_dismissed:
            worker = self._workers[name] = _Worker(name, self._note_failure)
        job = Job(self, target, doing, role)
        with self._giving:
            self._given.append((worker, job))
        worker.jobs.put(job)
        if self._is_dismissed:  # given by a thread that stood still and came back
            worker.jobs.put(None)
        return job

    def tell(self, line: str) -> None:
        """Announce a line, if that is possible: failing to do so must not end a run."""
        with contextlib.suppress(Exception):
            self.announce(line)

    def _note_failure(self, job: Job, failure: Exception) -> None:
        if job.role == "trifle":
            reason = one_line(f"{type(failure).__name__}: {failure}")
            self.tell(f"warning: {job.doing} failed: {reason}")
        elif job.role != "question":
            self.add_failure(failure)

    def add_failure(self, failure: BaseException) -> None:
        """Note a failure, wherever it happened, and ask all threads to stop."""
        self.failures.append(_as_exception(failure))
        self.stop_event.set()

    @contextlib.contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Note the exception that ends the block, and go on after the block.

        Ctrl-C goes through. It reaches the main thread alone; elsewhere a KeyboardInterrupt is as
        any other fault of foreign code.
        """
        try:
            yield
        except BaseException as failure:
            is_main = threading.current_thread() is threading.main_thread()
            if isinstance(failure, KeyboardInterrupt) and is_main:
                self.stop_event.set()
                raise
            self.add_failure(failure)

    @property
    def is_stopping(self) -> bool:
        """Whether anything asked for a stop."""
        return self.stop_event.is_set() or self._should_stop()

    def is_told(self) -> bool:
        """Whether a stop is wanted from outside; asking is a sign of life of this thread."""
        show_life()
        return self._should_stop()

    @property
    def is_running(self) -> bool:
        """Whether there is work, and nothing asked to stop."""
        return not self.is_stopping and any(job.role == "work" for _, job in self._unfinished())

    @property
    def is_busy(self) -> bool:
        """Whether there is a job that can still come to an end."""
        return bool(self._unfinished())

    def watch(self, look: Callable[[], None] = lambda: None, period: float = POLL_SECONDS) -> None:
        """Wait while there is work, calling `look` every `period` seconds.

        What `look` raises is noted as a failure, except Ctrl-C, which goes through at once.
        """
        with self.noting_failures():
            while self.is_running:
                look()
                self.look_around()
                self.stop_event.wait(period)

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until all jobs but the caller's have ended, and announce which ones it waits for.

        Jobs that stand still are not waited for; jobs that have not ended after `seconds` are a
        failure. If something has failed already, unfinished help is no further failure: it may be a
        compilation, which nothing can stop.
        """
        began, announced = time.monotonic(), ANNOUNCE_SECONDS
        while pending := self._unfinished():
            waited = time.monotonic() - began
            names = ", ".join(f"{worker.thread.name} ({job.doing})" for worker, job in pending)
            if waited >= seconds:
                if not self.failures or any(job.role != "help" for _, job in pending):
                    self.add_failure(RuntimeError(f"still running after {seconds:g} s: {names}"))
                for _, job in pending:
                    job.is_stuck = True  # nobody waits for it again
                return
            if waited >= announced:
                self.tell(f"waiting for {names}")
                announced *= 10
            self.look_around()
            pending[0][1].finished.wait(min(POLL_SECONDS, seconds - waited))

    def _unfinished(self) -> list[tuple[_Worker, Job]]:
        """The jobs that can still come to an end, without the caller's own."""
        with self._giving:
            self._given = [given for given in self._given if not given[1].finished.is_set()]
            pending = list(self._given)
        own = threading.current_thread()
        return [
            (worker, job)
            for worker, job in pending
            if worker.thread is not own and not worker.is_stuck
        ]

    def oversee(
        self,
        target: Callable[[], Any],
        at_stop: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> Any:
        """Run `target` in a thread, the run's own, and watch over this and all other threads.

        `at_stop` is called as soon as a stop is wanted from outside, `beat` at every look. If the
        run's own thread stands still, `rescue` is called in another one.

        Returns:
          What the target returns, or what it gave to `keep` before it stood still.

        Raises:
          Exception: what the target raises; a StallError, alone or in a group, if it stands still.
        """
        self._is_overseen, is_told = True, False
        job = self._give("run", lambda _: target(), "running", "question")
        run = self._workers["run"]
        try:
            while not (job.finished.wait(POLL_SECONDS) or run.is_stuck):
                beat()
                if self._should_stop() and not is_told:
                    is_told = True
                    self.stop_event.set()
                    at_stop()
                self._check()
            if self._should_stop() and not is_told:
                at_stop()  # the stop came between two looks
            if job.failure is not None and not isinstance(job.failure, Stopped):
                raise job.failure
            if job.finished.is_set():
                self.raise_failures()  # which may be why it stopped
                if job.failure is not None:
                    raise job.failure
                return job.result
            if self._kept is None:
                rescue = self._give("rescue", lambda _: self.rescue(), "saving", "help")
                rescue.finished.wait(min(self._stall_seconds, MAX_RESCUE_SECONDS))
                self.raise_failures()
            return self._kept
        finally:
            self.stop_event.set()
            self.dismiss()

    def keep(self, result: Any) -> None:
        """Keep the result of the overseen thread: from now on a stall is only announced."""
        self._kept = result

    def dismiss(self) -> None:
        """Let all threads end when they have done what they were given."""
        workers = self._workers.values()
        idle = [worker for worker in workers if worker.job is None and worker.jobs.empty()]
        for worker in workers:
            worker.jobs.put(None)
        for worker in idle:
            worker.thread.join()
        self._is_dismissed = True

    def raise_failures(self) -> None:
        """Raise what failed: a single failure as it is, several as a group."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise ExceptionGroup("several parts of the run failed", self.failures)

    def look_around(self) -> None:
        """Check whether a thread stands still, without waiting as `watch` does."""
        show_life()
        if not self._is_overseen:
            self._check()

    def _check(self) -> None:
        """Note the threads that stand still as a failure which shows where they are."""
        now, stuck = time.monotonic(), []
        tick, self._looked = min(now - self._looked, MAX_TICK_SECONDS), now
        for worker in list(self._workers.values()):
            job = worker.job
            if job is None or job.is_stuck:
                continue
            is_alive = job.num_signs != job.seen_signs
            job.silent_seconds = 0.0 if is_alive else job.silent_seconds + tick
            job.seen_signs = job.num_signs
            if job.silent_seconds > self._stall_seconds:
                stuck.append((worker.thread, job))
        if not stuck:
            return
        names = ", ".join(f"{thread.name} ({job.doing})" for thread, job in stuck)
        stacks = [f"{thread.name} is at:\n{_describe_stack(thread)}" for thread, _ in stuck]
        stall = StallError(
            f"no progress for {self._stall_seconds:g} s: {names}\n{''.join(stacks)}".rstrip()
        )
        if self._kept is not None or all(job.role == "trifle" for _, job in stuck):
            self.tell(f"warning: {stall}")
        else:
            self.add_failure(stall)
        for _, job in stuck:  # only after noting it: whoever waits for them goes on at once
            job.is_stuck = True


def _have_own_folder() -> None:
    """Give the calling thread a working folder of its own, which foreign code may change.

    Linux can do this without privileges; Python has `os.unshare` only from 3.12 on.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(CLONE_FS)


def _as_exception(failure: BaseException) -> Exception:
    """An Exception for any failure: a foreign SystemExit must not end the program unnoticed."""
    if isinstance(failure, Exception):
        return failure
    wrapped = RuntimeError(f"a thread ended by {failure!r}")
    wrapped.__cause__ = failure
    return wrapped


def left_behind() -> list[str]:
    """Names of threads that a supervisor could not bring to an end."""
    return [thread.name for thread in _all_threads if thread.is_alive()]


def _describe_stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "  (ended)\n"
