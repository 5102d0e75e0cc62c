"""Threads that are watched: one failure stops all, and none vanishes."""

import contextlib
import functools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence


class StallError(RuntimeError):
    """A thread that has not come any further for too long."""


class Supervisor:
    """Runs one function a thread until all return, one raises, or a stop is asked for."""

    def __init__(
        self,
        stop_event: threading.Event | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """The event stops the threads; `should_stop` is asked whether they are to stop."""
        self.stop_event = stop_event or threading.Event()
        self.failures: list[Exception] = []
        self._should_stop = should_stop
        self._threads: list[threading.Thread] = []
        self._workers: dict[threading.Thread, Callable[[], float]] = {}  # what tells progress
        self._seen: dict[threading.Thread, tuple[float, float]] = {}  # which, and since when

    def start(
        self,
        targets: Sequence[Callable[[threading.Event], None]],
        name: str,
        progress: Callable[[int], float] = lambda index: time.monotonic(),
    ) -> None:
        """Starts threads `<name>-0`, `<name>-1`, …; each target is called with the stop event.

        `progress(index)` changes as long as the thread with this index works.
        """
        for index, target in enumerate(targets):
            thread = self.start_helper(target, f"{name}-{index}")
            self._workers[thread] = functools.partial(progress, index)

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
        """Notes a failure, wherever it happened, and asks all threads to stop.

        What is not an Exception is wrapped in a RuntimeError: a SystemExit of foreign code must
        not end the program as if nothing had happened.
        """
        if not isinstance(failure, Exception):
            cause, failure = failure, RuntimeError(f"a thread ended by {failure!r}")
            failure.__cause__ = cause
        self.failures.append(failure)
        self.stop_event.set()

    @contextlib.contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Notes the exception that ends the block, and goes on after it."""
        try:
            yield
        except Exception as failure:
            self.add_failure(failure)

    @property
    def is_stopping(self) -> bool:
        """Whether anything asked for a stop."""
        return self.stop_event.is_set() or self._should_stop()

    @property
    def is_running(self) -> bool:
        """Whether any worker still works and nothing asked it to stop."""
        return not self.is_stopping and any(thread.is_alive() for thread in self._workers)

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
        stalled, now = [], time.monotonic()
        for thread, progress in self._workers.items():
            last, since = self._seen.get(thread, (None, now))
            current = progress()
            since = since if current == last else now
            self._seen[thread] = current, since
            if thread.is_alive() and now - since > stall_seconds:
                stalled.append(thread)
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
        """Raises what failed: a single failure as it is, several as a group."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise ExceptionGroup("several parts of the run failed", self.failures)


def _describe_stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "  (ended)\n"
