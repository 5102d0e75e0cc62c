"""Signals that ask a run to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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
        with contextlib.ExitStack() as restoring:

            def handle(number: int, _frame) -> None:
                self.signal_number = number
                restoring.close()

            for number in (signal.SIGINT, signal.SIGTERM):
                restoring.callback(signal.signal, number, signal.getsignal(number))
                signal.signal(number, handle)
            yield
