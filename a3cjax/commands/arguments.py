"""The command language: settings as `name=value`, whatever the verb; and its refusals."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from a3cjax.config.declaring import (
    Settings,
    describe,
    kinds_and_words,
    own_name,
    read_settings,
    unknown_name,
)
from a3cjax.errors import ConfigError
from a3cjax.system.files import WRITE_ERRNOS, expand_home

S = TypeVar("S", bound=Settings)
HELP = {"-h", "--help", "help", "-?"}


def parse(
    arguments: Sequence[str], *kinds: type[Settings], places: str = ""
) -> tuple[list[str], dict[str, str]]:
    """Take a command line apart.

    Args:
      arguments: what stands after the verb.
      kinds: declare the settings that it may have.
      places: what its other words are, as in the help: `<run folder>`; `...` at its end if there
        may be several.

    Returns:
      The other words, and the texts of the settings by name; the last one given counts.

    Raises:
      ConfigError: for anything else; says how it is written here.
    """
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    most = len(arguments) if places.endswith("...") else len(re.findall("<", places))
    words: list[str] = []
    texts: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, text = argument.partition("=")
        looks_like_a_setting = equals and re.fullmatch(r"[-+~]*\w[\w.-]*", name)
        if equals and name in fields:
            texts[name] = text
        elif argument.startswith("-"):
            path = f" (a path: ./{argument})" if places and argument[1:2] != "-" else ""
            raise ConfigError(f"{_translate(argument, following, fields)[:-1]}{path}.")
        elif looks_like_a_setting and not os.path.exists(argument):
            raise ConfigError(unknown_name(name, fields))
        elif len(words) == most:
            raise ConfigError(_exemplify(argument, fields))
        elif not argument:  # it would be the current folder
            raise ConfigError(f"{places} must be given, got ''.")
        else:
            words.append(expand_home(argument))
    least = 1 if places.endswith("...") else len(re.findall("<", places))
    if len(words) < least:
        raise ConfigError(f"{places} must be given, got {' '.join(words) or 'nothing'}.")
    return words, texts


def _exemplify(argument: str, fields: dict[str, dataclasses.Field]) -> str:
    """The message for a word where a setting should stand: `env = Pong`, `env: Pong` or `Pong`."""
    first, *rest = re.split(r"[\s:=]+", argument.strip(), maxsplit=1)
    own, example = own_name(first, fields), ""
    if own is not None:
        example = f": {own}={''.join(rest) or '...'}"
    elif "env" in fields and "=" not in argument:
        example = f": env={argument}"
    return f"Settings are given as name=value{example}, got {argument}."


def _translate(argument: str, following: str, fields: dict[str, dataclasses.Field]) -> str:
    """The message for a flag in the style of other programs."""
    name, equals, text = argument.partition("=")
    own = own_name(name.lstrip("-"), fields)
    if own is None:
        return f"Settings are given as name=value, got {argument}."
    is_value = not equals and following and not following.startswith("-") and "=" not in following
    value = following if is_value else text
    if not value:
        value = "true" if bool in kinds_and_words(fields[own])[0] else "..."
    got = f"{argument} {following}" if is_value else argument
    return f"Settings are given as name=value: {own}={value}, got {got}."


def read(kind: type[S], texts: Mapping[str, str]) -> S:
    """The settings of one kind, out of all those on a command line.

    Raises:
      ConfigError: names the setting, the rule and what it got.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**read_settings(kind, {name: t for name, t in texts.items() if name in names}))


def print_help(verb: str, text: str | None, *kinds: type[Settings], places: str = "") -> None:
    """Print how a verb is called, what it does, and a line for each of its settings."""
    words = " ".join(filter(None, ["a3cjax", verb, places, "[name=value ...]"]))
    print(f"usage: {words}\n\n{(text or '').strip()}")
    for kind in kinds:
        lines = list(describe(kind))
        print("\n".join(lines if not lines[0] else ["", *lines]))


@contextlib.contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Make a ConfigError of these errors: the program ends with one line and exit code 2.

    Not of a disk that is full or broken: that is no wrong setting.
    """
    try:
        yield
    except errors as error:
        if getattr(error, "errno", None) in WRITE_ERRNOS:
            raise
        raise ConfigError(str(error).partition("\n")[0] or type(error).__name__) from error
