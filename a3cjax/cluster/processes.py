"""How a fleet uses other processes, whatever runs them: a call now, and its result later."""

import time
from typing import Any, Protocol

# The longest that a call which is answered at once may take, however busy the machine. A connection
# that the network has lost reports nothing: only a new call finds out.
CALL_SECONDS = 60.0


class Unreachable(RuntimeError):  # noqa: N818  (it may come back)
    """A process that does not answer now, or has not been told yet what to begin with.

    It is not known whether it has done what it was asked for.
    """


class Gone(RuntimeError):  # noqa: N818
    """A process that has died, and that nobody starts again."""


class Pending(Protocol):
    """The result of a call, which is on its way."""

    def is_ready(self) -> bool:
        """Whether `result` returns or raises at once."""
        ...

    def result(self) -> Any:
        """What the call returned.

        Raises:
          Unreachable: if it is not known whether the call was made.
          Gone: if the process has died for good.
          Exception: what the call itself raised.
        """
        ...


class Process(Protocol):
    """An object in another process, which serves calls one after another, in order."""

    def submit(self, name: str, *args: Any) -> Pending:
        """Calls its method of this name."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


class Question:
    """A call that is answered at once, as far as the network permits."""

    def __init__(self, pending: Pending):
        self._pending, self._asked = pending, time.monotonic()

    def is_over(self) -> bool:
        """Whether there is an answer, or none can be expected any more."""
        return self._pending.is_ready() or time.monotonic() - self._asked > CALL_SECONDS

    def answer(self) -> Any:
        """See `Pending.result`."""
        if not self._pending.is_ready():
            raise Unreachable(f"no answer came in {CALL_SECONDS:g} s.")
        return self._pending.result()
