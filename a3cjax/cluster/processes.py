"""What a fleet asks of other processes, whatever runs them: a call, and its result later."""

import threading
import time
from typing import Any, Protocol

# What a call may take that answers at once, however busy the machine. A connection that a network
# has lost says nothing: only a call that is made anew finds out.
CALL_SECONDS = 60.0


class Unreachable(RuntimeError):  # noqa: N818  (it may come back)
    """A process that does not answer now, or has not been told yet what to begin with.

    Whether it has done what it was asked for is not known.
    """


class Gone(RuntimeError):  # noqa: N818
    """A process that has died, and that nobody starts again."""


class Pending(Protocol):
    """The result of a call, which is on its way."""

    def is_ready(self) -> bool:
        """Whether `result` has something to tell at once."""
        ...

    def result(self) -> Any:
        """What the call returned.

        Raises:
          Unreachable: if it is not known whether it was done.
          Gone: if it never will be.
          Exception: what the call itself raised.
        """
        ...


class Process(Protocol):
    """An object in another process, which does one call after another, in their order."""

    def submit(self, name: str, *args: Any) -> Pending:
        """Calls its method of this name."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


class Question:
    """A call that answers at once, as far as the network lets it."""

    def __init__(self, pending: Pending):
        self._pending, self._asked = pending, time.monotonic()

    def is_over(self) -> bool:
        """Whether there is an answer, or none is to be expected any more."""
        return self._pending.is_ready() or time.monotonic() - self._asked > CALL_SECONDS

    def answer(self) -> Any:
        """See `Pending.result`."""
        if not self._pending.is_ready():
            raise Unreachable(f"no answer came in {CALL_SECONDS:g} s.")
        return self._pending.result()


class Done:
    """The result of a call that was made at once."""

    def __init__(self, value: Any = None, failure: BaseException | None = None):
        self._value, self._failure = value, failure

    def is_ready(self) -> bool:
        """It is."""
        return True

    def result(self) -> Any:
        """The value, or what was raised."""
        if self._failure is not None:
            raise self._failure
        return self._value


class LocalProcess:
    """An object of this very process behind the same seam: for tests, and without Ray."""

    def __init__(self, inside: Any):
        self.inside = inside
        self._lock = threading.Lock()

    def submit(self, name: str, *args: Any) -> Pending:
        """Calls it here and now."""
        with self._lock:
            try:
                return Done(getattr(self.inside, name)(*args))
            except Exception as failure:
                return Done(failure=failure)

    def kill(self) -> None:
        """What it holds is left to the interpreter."""
