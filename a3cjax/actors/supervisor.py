"""Threads that are watched: one failure stops all, and none vanishes."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class StallError(RuntimeError):
    """A thread that has not come any further for too long."""


@dataclass
class _Watch:
    """A thread, what tells its progress, when that last changed, and what it was."""

    thread: threading.Thread
    progress: Callable[[], float]
    since: float
    last: float = -1

    def idle_seconds(self) -> float:
        """Seconds without progress, as far as anybody looked."""
        now, progress = time.monotonic(), self.progress()
        if progress != self.last:
            self.last, self.since = progress, now
        return now - self.since


class Supervisor:
    """Runs one function a thread until all return, one raises, or a stop is asked for."""

    def __init__(
        self,
        stop_event: threading.Event | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """The event stops the threads; `should_stop` is asked whether they are to stop."""
        self.stop_event = stop_event or threading.Event()
        self.failures: list[BaseException] = []
        self._should_stop = should_stop
        self._threads: list[threading.Thread] = []
        self._workers: list[_Watch] = []

    def start(
        self,
        targets: Sequence[Callable[[threading.Event], None]],
        name: str,
        progresses: Sequence[Callable[[], float]] = (),
    ) -> None:
        """Starts threads `<name>-0`, `<name>-1`, …; each target is called with the stop event.

        Each of `progresses` tells a number that changes as long as its thread works.
        """
        for index, target in enumerate(targets):
            thread = self.start_helper(target, f"{name}-{index}")
            progress = progresses[index] if progresses else time.monotonic
            self._workers.append(_Watch(thread, progress, time.monotonic()))

    def start_helper(
        self, target: Callable[[threading.Event], None], name: str
    ) -> threading.Thread:
        """Starts a thread that goes on until it is asked to stop: it keeps no run alive."""
        # Daemons: a thread stuck in foreign code must not keep the program alive.
        thread = threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _run(self, target: Callable[[threading.Event], None]) -> None:
        try:
            target(self.stop_event)
        except BaseException as failure:
            failure.add_note(f"in thread {threading.current_thread().name}")
            self.add_failure(failure)

    def add_failure(self, failure: BaseException) -> None:
        """Notes a failure, wherever it happened, and asks all threads to stop."""
        self.failures.append(failure)
        self.stop_event.set()

    @property
    def has_failed(self) -> bool:
        """Whether anything failed."""
        return bool(self.failures)

    @property
    def is_stopping(self) -> bool:
        """Whether anything asked for a stop."""
        return self.stop_event.is_set() or self._should_stop()

    @property
    def is_running(self) -> bool:
        """Whether any worker still works and nothing asked it to stop."""
        return not self.is_stopping and any(w.thread.is_alive() for w in self._workers)

    @property
    def has_stuck_threads(self) -> bool:
        """Whether any thread is still there, after `join`."""
        return any(thread.is_alive() for thread in self._threads)

    def watch(
        self, stall_seconds: float, look: Callable[[], None] = lambda: None, period: float = 0.1
    ) -> None:
        """Watches while the workers run, and calls `look` every `period` seconds.

        What that raises is noted as a failure, and so are workers that have not come any
        further for `stall_seconds`. A KeyboardInterrupt goes through at once.
        """
        try:
            while self.is_running:
                look()
                self._check_progress(stall_seconds)
                self.stop_event.wait(period)
        except KeyboardInterrupt:
            self.stop_event.set()
            raise
        except BaseException as failure:
            self.add_failure(failure)

    def _check_progress(self, stall_seconds: float) -> None:
        """Raises an error that names the workers that stand still, and shows where they are."""
        alive = [watch for watch in self._workers if watch.thread.is_alive()]
        stalled = [watch.thread for watch in alive if watch.idle_seconds() > stall_seconds]
        if stalled:
            names = ", ".join(thread.name for thread in stalled)
            stacks = [f"{thread.name} is at:\n{_describe_stack(thread)}" for thread in stalled]
            raise StallError(f"no progress for {stall_seconds:g} s: {names}\n{''.join(stacks)}")

    def join(self, seconds: float) -> None:
        """Waits for all threads together at most this long; a stuck one counts as a failure."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            self.add_failure(RuntimeError(f"still running after {seconds} s: {stuck}"))

    def raise_failures(self) -> None:
        """Raises what failed: a single failure as it is, several as a group.

        What is not an Exception comes wrapped in a RuntimeError: a SystemExit of foreign
        code must not end the program as if nothing had happened.
        """
        failures = [_as_exception(failure) for failure in self.failures]
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("several parts of the run failed", failures)


def _describe_stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "  (ended)\n"


def _as_exception(failure: BaseException) -> Exception:
    if isinstance(failure, Exception):
        return failure
    wrapped = RuntimeError(f"a thread ended by {failure!r}")
    wrapped.__cause__ = failure
    return wrapped
