"""Printing that never ends a run: no printed line is worth one."""

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from typing import IO, Any


class Lasting:
    """A text stream that goes on silently when its reader is gone or its disk is full.

    Letters that its encoding lacks become question marks. Everything else is taken from `stream`,
    such as whether it is a terminal. If there is no stream, because it was closed before the
    program began, what is written goes nowhere.
    """

    def __init__(self, stream: IO[str] | None):
        self._stream = _nowhere() if stream is None else stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written; returns the length of the text all the same."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the stream, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal; False if it is closed."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False


@functools.cache  # one for all, open until the program ends
def _nowhere() -> IO[str]:
    files = contextlib.ExitStack()
    atexit.register(files.close)
    return files.enter_context(open(os.devnull, "w", encoding="utf-8"))


def make_output_last() -> None:
    """Makes the standard streams of this program `Lasting`; for the command line.

    Python flushes them at its end: without this, a failure would turn its exit code into 120.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file opened gets this number, and what libraries print.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), Lasting):
            setattr(sys, name, Lasting(getattr(sys, name)))


def tell(line: str) -> None:
    """Prints a line on the standard output."""
    print(line, file=Lasting(sys.stdout))


def warn(line: str) -> None:
    """Prints a line on the standard error, as a warning."""
    print(f"warning: {line}", file=Lasting(sys.stderr))
