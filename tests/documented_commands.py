"""Checks a command of the documents without running what takes time.

Settings go through the program's own checks, flags through its own parser, targets through
make itself: what the command would refuse, is refused here.
"""

import argparse
import contextlib
import functools
import io
import itertools
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from a3cjax.commands import sweep
from a3cjax.commands.sweeps import expand
from a3cjax.config.settings import check_override, make_config
from a3cjax.envs.making import GYMNASIUM_PREFIX, resolve_envpool_id
from a3cjax.errors import ConfigError
from tests.documents import ROOT

CONF = ROOT / "a3cjax" / "commands" / "conf"
PRESETS = [path.stem for path in (CONF / "preset").glob("*.yaml")]
# What a reader is to fill in: <run folder>, or …
PLACEHOLDER = re.compile(r"<[^>]+>|…")


class WrongCommandError(AssertionError):
    """A command that would not do what the document says."""


@functools.cache
def check_command(command: str) -> None:
    """Checks one line of a shell block.

    Raises:
      WrongCommandError: says what is wrong with it.
    """
    words = shlex.split(PLACEHOLDER.sub("PLACEHOLDER", command), comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment variables
        words.pop(0)
    try:
        match words:
            case ["python" | ".venv/bin/python", "-m", "pip", *rest] | ["pip", *rest]:
                _check_pip(rest)
            case ["python" | ".venv/bin/python", "experiments/run.py", *rest]:
                check_overrides(rest)
            case ["python" | ".venv/bin/python", "experiments/sweep.py", *rest]:
                check_sweep(rest)
            case ["python" | ".venv/bin/python", "-m", module, *rest]:
                _check_arguments(module, rest)
            case ["python" | ".venv/bin/python", script, *rest]:
                _check_arguments(ROOT / script, rest)
            case ["make", *rest]:
                _check_make(rest)
            case _:
                raise WrongCommandError("nothing here can check it")
    except WrongCommandError as error:
        raise WrongCommandError(f"{command}: {error}") from error


def check_overrides(arguments: Sequence[str]) -> None:
    """Checks the arguments of experiments/run.py, as it does before anything starts."""
    options = get_args_parser().parse_args(list(arguments))
    parser = OverridesParser.create()
    given: list[list[tuple[str, Any]]] = []
    try:
        for override in options.overrides:
            check_override(override, PRESETS)
            if "PLACEHOLDER" in override:
                continue
            (parsed,) = parser.parse_overrides([override])
            name = parsed.get_key_element()
            if not parsed.is_sweep_override():
                given.append([(name, parsed.value())])
            elif options.multirun:
                points = [f"{name}={value}" for value in parsed.sweep_string_iterator()]
                given.append([(name, point.value()) for point in parser.parse_overrides(points)])
            else:
                raise WrongCommandError(f"{override} needs -m")
        for point in itertools.product(*given):
            changes = dict(point)
            preset = changes.pop("preset", "laptop")
            check_settings({**read_preset(preset), **changes, "resume": None})
    except (ConfigError, HydraException) as error:
        raise WrongCommandError(str(error)) from error


def check_sweep(arguments: Sequence[str]) -> None:
    """Checks the arguments of experiments/sweep.py, as it does before anything starts."""
    try:
        own, values = sweep.parse(list(arguments))
        for point in expand(values, Path(own["sweep_dir"])):
            sweep.check(point)
    except (ConfigError, HydraException) as error:
        raise WrongCommandError(str(error)) from error


@functools.cache
def read_preset(name: str) -> dict[str, Any]:
    """All settings of a run with this preset, as run.py gets them from Hydra."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        settings = hydra.compose("config", overrides=[f"preset={name}"])
    values = OmegaConf.to_container(settings, resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def check_settings(values: Mapping[str, Any]) -> None:
    """Checks settings by name, and that there is such an environment."""
    try:
        config = make_config(dict(values))
        if not config.env.startswith(GYMNASIUM_PREFIX):
            resolve_envpool_id(config.env)
    except ConfigError as error:
        raise WrongCommandError(str(error)) from error


def check_text_settings(settings: Mapping[str, str], names: Sequence[str]) -> None:
    """Checks settings in a text, those that are settings of the run; others are of something else.

    Raises:
      WrongCommandError: if one of them cannot have that value.
    """
    known = {name: yaml.safe_load(value) for name, value in settings.items() if name in names}
    known.pop("resume", None)
    preset = known.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise WrongCommandError(f"there is no preset {preset}")
    check_settings(known)


class _ParsedError(Exception):
    """The arguments were parsed, and nothing else is wanted of the program."""


def _check_arguments(program: str | Path, arguments: Sequence[str]) -> None:
    """Lets a program parse its arguments, and stops it there."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise _ParsedError

    if isinstance(program, Path):
        if not program.is_file():
            raise WrongCommandError(f"there is no {program.relative_to(ROOT)}")
        if "argparse" not in program.read_text():
            raise WrongCommandError("it does not parse its arguments")
    for argument in arguments:
        if argument.startswith("results/") and not (ROOT / argument).parent.is_dir():
            raise WrongCommandError(f"there is no {argument}")
    said = io.StringIO()
    folder = program.parent if isinstance(program, Path) else ROOT
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only),
        mock.patch.object(sys, "argv", [str(program), *arguments]),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        contextlib.redirect_stderr(said),
    ):
        try:
            if isinstance(program, Path):
                runpy.run_path(str(program), run_name="__main__")
            else:
                with mock.patch.dict(sys.modules):
                    sys.modules.pop(program, None)  # runpy warns of a module that is there already
                    runpy.run_module(program, run_name="__main__")
        except _ParsedError:
            return
        except ImportError as error:
            raise WrongCommandError(str(error)) from error
        except SystemExit as error:
            raise WrongCommandError(said.getvalue().strip().splitlines()[-1]) from error
    raise WrongCommandError("it did not parse its arguments")


def _check_make(arguments: Sequence[str]) -> None:
    """Asks make what it would do, and checks settings as run.py would."""
    settings = [argument for argument in arguments if "=" in argument]
    make = ["make", "--dry-run", *arguments]
    result = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise WrongCommandError(result.stderr.strip())
    (check_sweep if "atari5" in arguments else check_overrides)(settings)


def _check_pip(arguments: Sequence[str]) -> None:
    """Checks that files and extras are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if not arguments or arguments[0] != "install":
        raise WrongCommandError("pip is only used to install")
    for argument in arguments[1:]:
        extras = re.fullmatch(r"\.\[([\w,]+)\]", argument)
        if extras:
            unknown = set(extras[1].split(",")) - set(project["optional-dependencies"])
            if unknown:
                raise WrongCommandError(f"there is no extra {', '.join(sorted(unknown))}")
        elif not argument.startswith("-") and not (ROOT / argument).exists():
            raise WrongCommandError(f"there is no {argument}")
