"""How verbs that run foreign code are watched, and how they end."""

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from a3cjax.actors.supervisor import StallError, Supervisor, left_behind
from a3cjax.cluster.processes import Gone
from a3cjax.errors import AnswerError, CheckpointError, ConfigError, OutputError
from a3cjax.system.files import WRITE_ERRNOS
from a3cjax.system.signals import on_leaving
from a3cjax.system.witness import WITNESS_SECONDS, witnessed


def conclude(work: Callable[[], object]) -> None:
    """Do the work of a verb, and leave with the exit code for what happened."""
    sys.path.append(os.getcwd())  # for the user's own environments
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # shows where an environment crashes
    exit_code = 0
    try:
        work()
    except ConfigError as error:
        if not left_behind():
            raise
        print(f"error: {error}", file=sys.stderr)
        exit_code = 2
    except SystemExit as leaving:
        exit_code = leaving.code if isinstance(leaving.code, int) else 1
    except Exception as failure:
        reasons = describe(failure)
        if reasons is None:
            traceback.print_exception(failure)
        else:
            print(*(f"error: {reason}" for reason in reasons), sep="\n", file=sys.stderr)
        exit_code = 1
    if left_behind():
        # Python's own way out would pull the interpreter away from under a thread that is stuck.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    if exit_code:
        sys.exit(exit_code)


def watched(work: Callable[[Supervisor], Any], stall_seconds: float) -> Any:
    """Do work in an overseen thread and return its result; it asks `is_told` between its steps."""
    supervisor = Supervisor(stall_seconds=stall_seconds)
    with (
        witnessed(stall_seconds + WITNESS_SECONDS) as witness,
        on_leaving(witness.say_goodbye),
    ):
        return supervisor.oversee(lambda: work(supervisor), beat=witness.beat)


def describe(failure: BaseException) -> list[str] | None:
    """The lines to print about a failure; None if its traceback is needed."""
    if isinstance(failure, BaseExceptionGroup):
        parts = [describe(part) for part in failure.exceptions]
        if None in parts:
            return None
        return list(dict.fromkeys(line for lines in parts for line in lines or ()))
    if isinstance(failure, (CheckpointError, AnswerError, OutputError, StallError, Gone)):
        return [str(failure)]
    notes = getattr(failure, "__notes__", ())
    is_of_a_thread = any(note.startswith("in thread actor") for note in notes)
    if isinstance(failure, OSError) and failure.errno in WRITE_ERRNOS and not is_of_a_thread:
        return [f"the results cannot be written: {failure}"]
    return None
