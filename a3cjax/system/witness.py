"""A small process beside the run, to report what nothing inside the run can report any more.

A thread that hangs with the interpreter's lock blocks the watching thread and signals alike;
`os._exit` in foreign code, the kernel or a second signal ends the process without a word. The
witness notices both, because the run sends it signs of life, and a goodbye at its end. It ends a
run that has fallen silent, whose threads then print where they were (faulthandler), and it prints
a last line for one that is gone. It counts looks instead of time, so that a run which is suspended
(Ctrl-Z, a frozen machine) does not count as silent.
"""

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

LOOK_SECONDS = 1.0
WITNESS_SECONDS = 20.0  # that it waits beyond the watch inside the run, which acts first
DUMP_SECONDS = 5.0  # for a process that was told to end, to say where its threads are
BEAT, GOODBYE, LAST_WORDS = b".\n", b"goodbye\n", b"say "


class Witness:
    """The run's side: it sends signs of life, the words to print if it is gone, and goodbye."""

    def __init__(self, process: subprocess.Popen | None):
        self._process = process
        self._last_beat = 0.0

    def beat(self) -> None:
        """Says that the run lives; may be called as often as you like."""
        if time.monotonic() - self._last_beat >= LOOK_SECONDS:
            self._write(BEAT)
            self._last_beat = time.monotonic()

    def leave_word(self, line: str) -> None:
        """Sets the words to print if the run is gone without a goodbye."""
        self._write(LAST_WORDS + " ".join(line.split()).encode(errors="replace") + b"\n")

    def say_goodbye(self) -> None:
        """Has the witness end without a word."""
        self._write(GOODBYE)

    def _write(self, line: bytes) -> None:
        # The witness may have been killed; the run goes on without it.
        with contextlib.suppress(OSError, ValueError):
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(line)

    def close(self) -> None:
        """Says goodbye, and waits for the witness to end."""
        self.say_goodbye()
        if self._process is not None:
            try:
                self._process.communicate(timeout=DUMP_SECONDS)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()


@contextlib.contextmanager
def witnessed(silent_seconds: float) -> Iterator[Witness]:
    """Starts a witness of the block, which ends this process after so long without a `beat`.

    Where no process can be started there is no witness, and everything else works.
    """
    was_enabled, process = faulthandler.is_enabled(), None
    # `sys.executable` may be None, or a program that has Python inside and would start itself.
    may_start = bool(sys.executable) and not getattr(sys, "frozen", False)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not was_enabled:
            faulthandler.enable(2)
        process = may_start and subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(silent_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # signals of the terminal are for the run
        )
        if process and process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
    witness = Witness(process or None)
    try:
        yield witness
    finally:
        witness.close()
        if not was_enabled:
            faulthandler.disable()


def _is_halted(pid: int) -> bool:
    """Whether a process is suspended; True where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in "tT"
    except OSError:
        return True


def watch(pid: int, silent_seconds: float, source: int) -> None:
    """The witness's side: reads lines from the run until it says goodbye or is gone."""
    silent, words, rest = 0.0, "", b""
    # Readable when the run is gone, though its children may still hold the other end of the pipe.
    process = source
    with contextlib.suppress(OSError, AttributeError):  # not every system has it
        process = os.pidfd_open(pid)
    while True:
        ready = select.select([source, process], [], [], LOOK_SECONDS)[0]
        if not ready:
            if not _is_halted(pid):
                silent += LOOK_SECONDS
            if silent > silent_seconds:
                tell(f"a3cjax: no sign of life for {silent_seconds:g} s; where its threads are:")
                os.kill(pid, signal.SIGABRT)  # faulthandler shows their stacks
            if silent > silent_seconds + DUMP_SECONDS:
                os.kill(pid, signal.SIGKILL)
            continue
        silent = 0.0
        data = os.read(source, 65536) if source in ready else b""
        *lines, rest = (rest + data).split(b"\n")
        if GOODBYE.strip() in lines:
            return
        for line in lines:
            if line.startswith(LAST_WORDS):
                words = line.removeprefix(LAST_WORDS).decode(errors="replace")
        if not data:
            tell(f"a3cjax: the process ended without a word. {words}".rstrip())
            return


def tell(line: str) -> None:
    """Writes a line where the run's errors go."""
    with contextlib.suppress(OSError):
        os.write(2, line.encode() + b"\n")


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), 0)
