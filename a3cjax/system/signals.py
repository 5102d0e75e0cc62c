"""Signals that ask a run to stop, and how the command line responds to them."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

# One `timeout` sends its signal twice, to the program and to its group.
SAME_SIGNAL_SECONDS = 2.0

ALWAYS = (signal.SIGINT, signal.SIGTERM)
# A closed terminal, the warnings of batch systems. A program may use them for something else.
BY_DEFAULT = (signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


_farewells: list[Callable[[], None]] = []


@contextlib.contextmanager
def on_leaving(farewell: Callable[[], None]) -> Iterator[None]:
    """Has this called if `leave` ends the process inside the block; it must take no lock."""
    _farewells.append(farewell)
    try:
        yield
    finally:
        _farewells.remove(farewell)


def leave(number: int, _frame=None) -> None:
    """Ends the process at once, with exit code 128 + the signal's number.

    It avoids Python's own shutdown, which would pull the interpreter away from under threads that
    still compute.
    """
    for farewell in _farewells:
        with contextlib.suppress(Exception):
            farewell()
    os._exit(128 + number)


def _is_free(number: signal.Signals) -> bool:
    """Whether a signal may be taken over: `nohup` and ignored ones stay as they are."""
    handler = signal.getsignal(number)
    if number in ALWAYS:
        return handler not in (signal.SIG_IGN, None)
    return handler in (signal.SIG_DFL, leave)


@contextlib.contextmanager
def _handled(handler: Callable[..., None]) -> Iterator[Callable[[], None]]:
    """Handles all signals that ask for a stop; yields a function that restores them early."""
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in filter(_is_free, ALWAYS + BY_DEFAULT):
                stack.callback(signal.signal, number, signal.getsignal(number))
                signal.signal(number, handler)
        yield stack.close


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Makes all these signals end the process inside the block, silently and with their code."""
    with _handled(leave):
        yield


class SignalStop:
    """Postpones signals that ask for a stop until what was begun is saved.

    The first one is remembered, and acts as usual when it is passed on. A SIGINT that comes at
    least `SAME_SIGNAL_SECONDS` later acts at once. The handler takes no lock, because it may
    interrupt the main thread while that holds one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.signal_number: int | None = None
        self._clock = clock

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    @property
    def name(self) -> str:
        """The signal's name, such as `SIGINT`; empty before one came."""
        return "" if self.signal_number is None else signal.Signals(self.signal_number).name

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles signals inside the block; does nothing outside the main thread."""
        began, pid = 0.0, os.getpid()

        def handle(number: int, _frame) -> None:
            nonlocal began
            if os.getpid() != pid:  # a child that an environment forked
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
                signal.raise_signal(number)
            elif self.signal_number is None:
                self.signal_number, began = number, self._clock()
            elif number == signal.SIGINT and self._clock() - began >= SAME_SIGNAL_SECONDS:
                set_back()
                signal.raise_signal(number)

        with _handled(handle) as set_back:
            yield

    def pass_on(self) -> None:
        """Lets the signal that came take its usual effect, after the block.

        Raises:
          KeyboardInterrupt: after a SIGINT under `asyncio.run`, which would end its task only when
            that awaits something.
        """
        if self.signal_number is not None:
            signal.raise_signal(self.signal_number)
        handler = getattr(signal.getsignal(signal.SIGINT), "func", None)
        if self.signal_number == signal.SIGINT and "asyncio" in getattr(handler, "__module__", ""):
            raise KeyboardInterrupt
