"""Trains an agent and leaves a run folder.

    a3cjax train env=Pong
    a3cjax train env=Breakout total_frames=10M seed=3
    a3cjax train resume=runs/Pong/<folder>

Exit codes: 0 done (then there is a summary.json), 1 something failed (a line or the traceback says
what), 2 a wrong setting (one line says which), 128 + its number stopped by a signal after saving:
130 SIGINT, 143 SIGTERM, 129 SIGHUP.
"""

import errno
import faulthandler
import os
import sys
import traceback

from a3cjax.actors.supervisor import StallError, left_behind
from a3cjax.config.settings import Config, Preset, read_config
from a3cjax.errors import AnswerError, CheckpointError, ConfigError

WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


SETTINGS, PLACES = (Preset, Config), ""


def main(words: list[str], texts: dict[str, str]) -> None:
    """Runs one training."""
    del words
    print("importing JAX and envpool ...", flush=True)
    try:
        run(read_config(texts))
    except ConfigError as error:
        name = str(error).partition(" ")[0]
        if "," not in texts.get(name, ""):
            raise
        hint = f"several values: a3cjax sweep {name}={texts[name]}"
        raise ConfigError(f"{str(error).removesuffix('.')}; {hint}") from error


def run(config: Config) -> None:
    """Trains, and leaves with the exit code that belongs to what happened."""
    from a3cjax.training import train

    sys.path.append(os.getcwd())  # one's own Gymnasium environments
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # names a crash in an environment
    exit_code = 0
    try:
        train(config)
    except ConfigError:
        if not left_behind():
            raise
        traceback.print_exc()
        exit_code = 2
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


def describe(failure: BaseException) -> list[str] | None:
    """What is to be told of a failure; None if its traceback is needed."""
    if isinstance(failure, BaseExceptionGroup):
        parts = [describe(part) for part in failure.exceptions]
        if None in parts:
            return None
        return list(dict.fromkeys(line for lines in parts for line in lines or ()))
    if isinstance(failure, (CheckpointError, AnswerError, StallError)):
        return [str(failure)]
    notes = getattr(failure, "__notes__", ())
    is_of_a_thread = any(note.startswith("in thread actor") for note in notes)
    if isinstance(failure, OSError) and failure.errno in WRITE_ERRNOS and not is_of_a_thread:
        return [f"the run folder cannot be written to: {failure}"]
    return None
