"""Trains an agent and leaves a run folder.

    a3cjax train env=Pong
    a3cjax train env=Breakout total_frames=10M seed=3
    a3cjax train resume=runs/Pong/<folder>

Exit codes: 0 done, 1 something failed (the traceback says what), 2 a wrong setting (one
line says which), 130 or 143 stopped by SIGINT or SIGTERM after saving.
"""

import errno
import os
import signal
import sys

from a3cjax.config.settings import Config, Preset, read_config
from a3cjax.errors import CheckpointError, ConfigError

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
    try:
        summary = train(config)
    except KeyboardInterrupt:
        # The second signal. At once: threads still compute, and Python's own way out would pull
        # the interpreter away from under them.
        os._exit(128 + signal.SIGINT)
    except ConfigError:
        raise
    except Exception as failure:
        reason = find_write_failure(failure)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(1)
    if summary.signal_number is not None:
        sys.exit(128 + summary.signal_number)


def find_write_failure(failure: BaseException) -> str | None:
    """Says which file could not be written, if that is what ended the run."""
    if isinstance(failure, CheckpointError):
        return str(failure)
    notes = getattr(failure, "__notes__", ())
    is_of_a_thread = any(note.startswith("in thread") for note in notes)
    if isinstance(failure, OSError) and failure.errno in WRITE_ERRNOS and not is_of_a_thread:
        return f"the run folder cannot be written to: {failure}"
    if isinstance(failure, BaseExceptionGroup):
        reasons = [find_write_failure(part) for part in failure.exceptions]
        return reasons[0] if None not in reasons else None
    return None
