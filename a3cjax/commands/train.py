"""Trains an agent: `a3cjax train env=Pong`, with any setting as `name=value`.

Exit codes: 0 done, 1 something failed (the traceback says what), 2 a wrong setting (one
line says which), 130 or 143 stopped by SIGINT or SIGTERM after saving.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from a3cjax.config.settings import Config, check_override, make_config, resume_config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.training.run import train

WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
PRESETS = [path.stem for path in (Path(__file__).parent / "conf" / "preset").glob("*.yaml")]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def _train(settings: DictConfig) -> None:
    """Runs one training job; Hydra calls it once, or once for each point of a sweep."""
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
        summary = train(make_config(values) if values["resume"] is None else resumed(values))
    except ConfigError as error:
        refuse(error)
    except KeyboardInterrupt:
        # The second signal. At once: threads still compute, and Python's own way out would pull
        # the interpreter away from under them.
        os._exit(128 + signal.SIGINT)
    except Exception as failure:
        reason = find_write_failure(failure)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(1)
    if summary.signal_number is not None:
        sys.exit(128 + summary.signal_number)


def resumed(values: dict[str, Any]) -> Config:
    """The settings of the run to resume, with those that the command line names changed."""
    named = {
        override.lstrip("+~").partition("=")[0] for override in HydraConfig.get().overrides.task
    }
    if "preset" in named:
        raise ConfigError("preset cannot be given with resume: the run has its settings.")
    changes = {name: values[name] for name in named - {"resume"} if name in values}
    return resume_config(str(values["resume"]), changes)


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


def refuse(error: Exception) -> NoReturn:
    """Ends the program because of a wrong setting."""
    print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Checks the command line, then trains."""
    # Hydra then raises what is wrong with the command line instead of printing it.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.path.append(os.getcwd())  # one's own Gymnasium environments
    try:
        for override in get_args_parser().parse_args().overrides:
            check_override(override, PRESETS)
            OverridesParser.create().parse_overrides([override])
        _train()
    except OverrideParseException as error:
        refuse(ConfigError(f"{error.override} cannot be read: {error}"))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        refuse(error)
