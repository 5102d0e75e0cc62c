"""A file with what an agent must know of its environment, so that it can act without one.

Reading a file executes nothing, and takes nothing in it on trust.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.observations import AUTO
from a3cjax.envs.specs import make_spec
from a3cjax.envs.stored_spaces import space_from_json, space_to_json
from a3cjax.envs.supported import check_spaces
from a3cjax.errors import ConfigError, quote
from a3cjax.runs.parameter_files import is_amount, read_file, told_in_a_line
from a3cjax.runs.tables import ENVIRONMENT_FILE as ENVIRONMENT_FILE
from a3cjax.system.files import replace_file

ENVIRONMENT_FORMAT = "a3cjax-environment-1"
MAX_BYTES = 10_000_000  # ours have a few hundred; bounds may differ from number to number
SPACES = ("observation_space", "action_space")


def _is_number(value: Any) -> bool:
    return is_amount(value) and value > 0


# The fields beside the spaces, and what each must be; for a missing one, `make_spec` has a
# default.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "frames_per_step": ("a whole number >= 1", _is_number),
    "is_atari": ("true or false", lambda value: type(value) is bool),
    "max_episode_steps": (
        "a whole number >= 1 or null",
        lambda value: value is None or _is_number(value),
    ),
}


def write_environment(folder: Path, spec: EnvironmentSpec) -> None:
    """Write the file on these environments into a folder, in one piece.

    None is written if it could not be read again: a Dict may have keys of any type.
    """
    try:
        spaces = {name: space_to_json(getattr(spec, name)) for name in SPACES}
    except ValueError:
        return
    content = {"format": ENVIRONMENT_FORMAT, **spaces}
    content |= {name: getattr(spec, name) for name in _FIELDS}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if len(text) <= MAX_BYTES:
        replace_file(folder / ENVIRONMENT_FILE, text)


def read_environment(folder: Path, image_layout: str = AUTO) -> EnvironmentSpec | None:
    """What `write_environment` wrote; None if there is no such file, as in older folders.

    `image_layout` is taken from the folder's settings.

    Raises:
      CheckpointError: if it is damaged, of another format, or made up.
    """
    path = folder / ENVIRONMENT_FILE
    if not os.path.lexists(path):
        return None
    with told_in_a_line(f"{path} cannot be read"):
        content = json.loads(read_file(path, MAX_BYTES), parse_constant=_refuse)
        if not isinstance(content, dict) or content.get("format") != ENVIRONMENT_FORMAT:
            found = content.get("format") if isinstance(content, dict) else content
            raise ValueError(f"format must be {ENVIRONMENT_FORMAT}, got {quote(found)}.")
        del content["format"]
        if not set(SPACES) <= content.keys() <= {*SPACES, *_FIELDS}:
            known = ", ".join((*SPACES, *_FIELDS))
            raise ValueError(f"it must hold {known}, got {quote(list(content))}.")
        for name, (rule, holds) in _FIELDS.items():
            if name in content and not holds(content[name]):
                raise ValueError(f"{name} must be {rule}, got {quote(content[name])}.")
        spaces = [space_from_json(content.pop(name)) for name in SPACES]
        check_spaces(str(path), *spaces)
        return make_spec(*spaces, **content, image_layout=image_layout)


def _refuse(constant: str) -> None:
    raise ValueError(f"numbers must be of JSON, got {constant}.")


def check_environment(folder: Path, spec: EnvironmentSpec) -> None:
    """Refuse environments other than those that the run of a folder has learned on.

    Raises:
      ConfigError: if a space is not what it was.
      CheckpointError: if the file in the folder cannot be read.
    """
    stored = read_environment(folder)
    for name in SPACES if stored else ():
        old, new = getattr(stored, name), getattr(spec, name)
        if space_to_json(old) != space_to_json(new):
            raise ConfigError(
                f"env must have the {name} with which the run in {folder} began, {quote(old)}, "
                f"got {quote(new)}."
            )
