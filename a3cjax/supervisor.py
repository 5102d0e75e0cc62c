"""Threads that are watched: one failure stops all, and none vanishes."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence


class Supervisor:
    """Runs one function a thread until all return, one raises, or a stop is asked for."""

    def __init__(self, stop_event: threading.Event):
        self._stop_event = stop_event
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, targets: Sequence[Callable[[threading.Event], None]], name: str) -> None:
        """Starts threads `<name>-0`, `<name>-1`, …; each target is called with the stop event."""
        for index, target in enumerate(targets):
            # Daemons: a thread stuck in foreign code must not keep the program alive.
            thread = threading.Thread(
                target=self._run, args=(target,), name=f"{name}-{index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, target: Callable[[threading.Event], None]) -> None:
        try:
            target(self._stop_event)
        except BaseException as failure:
            failure.add_note(f"in thread {threading.current_thread().name}")
            self._failures.append(failure)
            self._stop_event.set()

    @property
    def has_failed(self) -> bool:
        """Whether any thread raised."""
        return bool(self._failures)

    @property
    def is_running(self) -> bool:
        """Whether any thread still works and nothing asked it to stop."""
        return not self._stop_event.is_set() and any(t.is_alive() for t in self._threads)

    def join(self, seconds: float) -> None:
        """Waits for all threads together at most this long; a stuck one counts as a failure."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            self._failures.append(RuntimeError(f"still running after {seconds} s: {stuck}"))

    def raise_failures(self) -> None:
        """Raises what threads raised: a single failure as it is, several as a group.

        What is not an Exception comes wrapped in a RuntimeError: a SystemExit of foreign
        code must not end the program as if nothing had happened.
        """
        failures = [_as_exception(failure) for failure in self._failures]
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("several threads failed", failures)


def _as_exception(failure: BaseException) -> Exception:
    if isinstance(failure, Exception):
        return failure
    wrapped = RuntimeError(f"a thread ended by {failure!r}")
    wrapped.__cause__ = failure
    return wrapped


class SignalStop:
    """Remembers the first SIGINT or SIGTERM; the second acts as usual.

    The handler takes no lock: it may interrupt the main thread while that holds one.
    """

    def __init__(self):
        self.signal_number: int | None = None

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles signals inside the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, _frame) -> None:
            self.signal_number = number
            for other, handler in previous.items():
                signal.signal(other, handler)

        for number in previous:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
