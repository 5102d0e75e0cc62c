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
