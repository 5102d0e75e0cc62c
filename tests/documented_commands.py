"""Checks a command of the documents without running what takes time.

Settings go through the program's own checks, flags through its own parser, targets through
make itself: what the command would refuse, is refused here.
"""

import argparse
import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import metadata
from pathlib import Path
from unittest import mock

from a3cjax.commands import VERBS, sweep
from a3cjax.commands.arguments import parse, read
from a3cjax.config.reading import read_config
from a3cjax.config.settings import Config
from a3cjax.envs.base import GYMNASIUM_PREFIX
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.envs.making import resolve_envpool_id
from a3cjax.errors import ConfigError
from a3cjax.runs.loading import find_agent
from tests.documents import ROOT

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
    if words and words[0].startswith(".venv/bin/"):
        words[0] = words[0].removeprefix(".venv/bin/")
    try:
        match words:
            case ["python", "-m", "pip", *rest] | ["pip", *rest]:
                _check_pip(rest)
            case ["python", "-m", "a3cjax", verb, *rest] | ["a3cjax", verb, *rest]:
                check_verb(verb, rest)
            case ["python", "experiments/run.py", *rest]:
                check_verb("train", rest)
            case ["python", "-m", module, *rest]:
                _check_arguments(module, rest)
            case ["python", script, *rest]:
                _check_arguments(ROOT / script, rest)
            case ["make", *rest]:
                _check_make(rest)
            case _:
                raise WrongCommandError("nothing here can check it")
    except (WrongCommandError, ConfigError, OSError) as error:
        raise WrongCommandError(f"{command}: {error}") from error


def check_verb(verb: str, arguments: Sequence[str]) -> None:
    """Checks what stands behind a verb of a3cjax, as it does itself before anything starts."""
    if verb not in VERBS or list(arguments) == ["--help"]:
        if verb not in (*VERBS, "--help", "--version"):
            raise WrongCommandError(f"there is no verb {verb}")
        return
    module = importlib.import_module(f"a3cjax.commands.{verb}")
    words, texts = parse(arguments, *module.SETTINGS, places=module.PLACES)
    texts = {name: text for name, text in texts.items() if "PLACEHOLDER" not in text}
    if verb == "train":
        check_config(read_config(texts))
    elif verb == "sweep":
        sweep.check(sweep.read_points(texts)[1])
    else:
        for kind in module.SETTINGS:
            read(kind, texts)
    for word in words:
        is_there = word.startswith("results/") and list(ROOT.glob(word))
        if verb in ("evaluate", "play") and "PLACEHOLDER" not in word and not is_there:
            find_agent(word)
        elif word.startswith("results/") and not is_there and verb == "report":
            raise WrongCommandError(f"there is no {word}")


def check_config(config: Config) -> None:
    """Checks that there is such an environment."""
    if not config.env.startswith((GYMNASIUM_PREFIX, PYTHON_PREFIX)):
        resolve_envpool_id(config.env)


def check_text_settings(settings: Mapping[str, str], names: Sequence[str]) -> None:
    """Checks settings in a text, those that are settings of the run; others are of something else.

    Raises:
      WrongCommandError: if one of them cannot have that value.
    """
    known = {name: value for name, value in settings.items() if name in names and name != "resume"}
    try:
        check_config(read_config(known))
    except ConfigError as error:
        raise WrongCommandError(str(error)) from error


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
            if arguments:
                raise WrongCommandError("it takes no arguments")
            return
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
                    for name in (program, f"{program}.__main__"):
                        sys.modules.pop(name, None)  # runpy warns of what is there already
                    runpy.run_module(program, run_name="__main__")
        except _ParsedError:
            return
        except ImportError as error:
            raise WrongCommandError(str(error)) from error
        except SystemExit as error:
            raise WrongCommandError(said.getvalue().strip().splitlines()[-1]) from error
    raise WrongCommandError("it did not parse its arguments")


def _check_make(arguments: Sequence[str]) -> None:
    """Asks make what it would do, and checks settings as the command that it calls would."""
    settings = [argument for argument in arguments if "=" in argument]
    make = ["make", "--dry-run", *arguments]
    result = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise WrongCommandError(result.stderr.strip())
    if "control" in arguments:
        _check_arguments(ROOT / "benchmarks" / "control.py", settings)
    else:
        check_verb("sweep" if "atari5" in arguments else "train", settings)


def _check_pip(arguments: Sequence[str]) -> None:
    """Checks that files and extras are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if not arguments or arguments[0] != "install":
        raise WrongCommandError("pip is only used to install")
    for argument in arguments[1:]:
        extras = re.fullmatch(r"\.\[([\w,]+)\]", argument)
        if accelerator := re.fullmatch(r"jax\[([\w-]+)\]", argument):
            if accelerator[1] not in metadata("jax").get_all("Provides-Extra", []):
                raise WrongCommandError(f"JAX has no extra {accelerator[1]}")
        elif extras:
            unknown = set(extras[1].split(",")) - set(project["optional-dependencies"])
            if unknown:
                raise WrongCommandError(f"there is no extra {', '.join(sorted(unknown))}")
        elif not argument.startswith("-") and not (ROOT / argument).exists():
            raise WrongCommandError(f"there is no {argument}")
