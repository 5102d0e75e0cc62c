"""Settings are declared once: name, type, default, rule and a line of help, in one place.

A dataclass whose fields are made by `setting` says all of it. From there come the checks, the
reading of `name=value`, the help of a command, the documentation's page, and the answer to an
unknown name.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import os
import re
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from a3cjax.errors import ConfigError, quote
from a3cjax.system.files import expand_home

# Computation is in 32-bit floats: what is larger than their largest would become infinite.
MAX_FLOAT = float(np.finfo(np.float32).max)
PYTHON_PREFIX = "python:"
MAX_DIGITS = 600  # Python refuses to print whole numbers that are much longer
KIND_NAMES = {
    **{int: "a whole number", float: "a number", bool: "true or false", str: "text"},
    dict: "values by name",
}
SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
WIDTH = 100  # of help, in columns
MAX_BITS = 2000  # of a whole number: about MAX_DIGITS digits
MAX_NESTING = 3  # of a setting that is values by name: our choice
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Rule(NamedTuple):
    """What must hold of a value: in words for the help, and as a check that explains a fault."""

    text: str
    explain: Callable[[Any], str | None]
    """What the value must be, None if it is."""
    names: Callable[[], Sequence[str]] = tuple
    """All that it can be, where these are names."""


def between(low: float, high: float) -> Rule:
    """A number from `low` to `high`; for one too small, only the lower bound is named."""

    def explain(value: float) -> str | None:
        if low <= value <= high:
            return None
        return f"between {low} and {high}" if value > high else f">= {low}"

    is_bounded = high <= 10**6
    return Rule(f"{low} to {high:,}" if is_bounded else f">= {low}", explain)


def at_least(low: float) -> Rule:
    """A number from `low` on."""
    return between(low, math.inf)


def _in_32_bits(holds: Callable[[Any], Any], text: str) -> Rule:
    """A number of which something must hold, also when it is rounded to a 32-bit float."""

    def explain(value: float) -> str | None:
        # To compiled programs, anything below the least normal number is 0.
        rounded = np.float32(value) if abs(value) >= np.finfo(np.float32).tiny else 0.0
        if holds(value) and holds(rounded):
            return None
        return f"{text} as a 32-bit float" if holds(value) else text

    return Rule(text, explain)


POSITIVE = _in_32_bits(lambda value: value > 0, "> 0")
BELOW_ONE = _in_32_bits(lambda value: 0 <= value < 1, ">= 0 and < 1")


def one_of(names: Callable[[], Sequence[str]], hint: str = "") -> Rule:
    """One of some names, looked up only when they are needed: that may take imports.

    The `hint` follows the names where another is refused.
    """

    def explain(value: str) -> str | None:
        return None if value in names() else f"one of {', '.join(names())}{hint}"

    return Rule("", explain, names)


def brought_or(rule: Rule) -> Rule:
    """What a rule allows, or the name of a Python object: `python:<module>:<name>`."""

    def explain(value: str) -> str | None:
        return None if value.startswith(PYTHON_PREFIX) else rule.explain(value)

    return rule._replace(explain=explain)


def setting(
    default: Any, text: str, rule: Rule | None = None, *, group: str = "", is_path: bool = False
) -> Any:
    """A field of a dataclass of settings.

    Args:
      default: its value where none is given.
      text: one line of help.
      rule: what must hold of it besides its type, which its annotation gives. Words that may
        take the place of a number are a Literal there.
      group: title under which the help shows it.
      is_path: whether `~` in it is the home folder.
    """
    metadata = {"text": text, "rule": rule, "group": group, "is_path": is_path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of dataclasses of settings: checks every setting when an instance is made."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = normalise(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            _check(field, value)

    def replace(self, **changes: Any) -> typing.Self:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


@functools.cache  # it is asked for every setting of every copy
def kinds_and_words(field: dataclasses.Field) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """The types that a setting may have, and the words that it may be instead of a number."""
    annotation = field.type
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if is_union else (annotation,)
    words = [word for part in parts for word in typing.get_args(part)]
    return tuple(part for part in parts if isinstance(part, type)), tuple(words)


def normalise(field: dataclasses.Field, value: Any) -> Any:
    """The value as it is meant: `1e6` frames are a whole number, `A3C` is `a3c`, `~` a folder.

    Numbers of NumPy and paths become those that YAML has words for.
    """
    kinds, words = kinds_and_words(field)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike) and field.metadata["is_path"]:
        value = os.fspath(value)
    if isinstance(value, str):
        rule = field.metadata["rule"]
        names = {plain_name(n): n for n in (*words, *(rule.names() if rule else ()))}
        value = names.get(plain_name(value), value)
        return expand_home(value) if field.metadata["is_path"] else value
    if type(value) is float and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    if dict in kinds and isinstance(value, Mapping):
        # None if it is empty, so that settings compare equal; else a copy that nobody changes.
        return _copy_plain(field.name, dict(value)) or None
    return value


def _copy_plain(name: str, value: Any, depth: int = 0) -> Any:
    """A copy of values by name, lists of values, or a value that YAML has words for."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (str, bool, type(None)) or (type(value) is float and value == value):
        return value
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    if isinstance(value, list | tuple) and depth < MAX_NESTING:
        return [_copy_plain(name, part, depth + 1) for part in value]
    if isinstance(value, Mapping) and depth < MAX_NESTING and all(type(k) is str for k in value):
        return {key: _copy_plain(name, part, depth + 1) for key, part in value.items()}
    raise ConfigError(
        f"{name} must hold numbers, texts, true, false, null, and lists and values by name of "
        f"them, nested at most {MAX_NESTING} deep (a function can bind others: "
        f"env=lambda: Environment(x)), got {quote(value)}."
    )


def _check(field: dataclasses.Field, value: Any) -> None:
    name, (kinds, words) = field.name, kinds_and_words(field)
    if type(value) is str and value in words:
        return
    # Not isinstance(): a bool is an int.
    is_right = type(value) in kinds or (float in kinds and type(value) is int)
    if type(value) is int and value.bit_length() > MAX_BITS:
        size = value.bit_length()
        raise ConfigError(f"{name} must be a number that can be printed, got one of {size} bits.")
    if not is_right or (isinstance(value, float) and math.isnan(value)):
        raise ConfigError(f"{name} must be {describe_kinds(field)}, got {quote(value)}.")
    if float in kinds and isinstance(value, int | float) and abs(value) > MAX_FLOAT:
        raise ConfigError(f"{name} must be finite as a 32-bit float, got {value}.")
    if type(value) is dict:
        return
    if field.metadata["is_path"] and value == "":  # it would be the current folder
        raise ConfigError(f"{name} must be a path, got ''.")
    rule: Rule | None = field.metadata["rule"]
    fault = rule.explain(value) if rule is not None and value is not None else None
    if fault is not None:
        raise ConfigError(f"{name} must be {fault}, got {value}.")


def describe_kinds(field: dataclasses.Field) -> str:
    """What a setting can be, in words."""
    kinds, words = kinds_and_words(field)
    names = [*(KIND_NAMES[kind] for kind in kinds if kind in KIND_NAMES), *words]
    names += ["null"] if type(None) in kinds else []
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def read_value(field: dataclasses.Field, text: str) -> Any:
    """The value that a text on the command line stands for; the text itself if it is none.

    A value that is text is taken literally; quotes around all of it, or around values by name, are
    left out.
    """
    kinds, _ = kinds_and_words(field)
    if type(None) in kinds and text.lower() in ("null", "none"):
        return None
    if bool in kinds:
        return TRUTHS.get(text.lower(), text)
    quoted = re.fullmatch(r"(['\"])(.*)\1", text, re.DOTALL)
    if dict in kinds:
        text = quoted[2] if quoted else text
        with contextlib.suppress(yaml.YAMLError, ValueError, LookupError, AttributeError):
            return yaml.load(text, _Loader)
        return text
    if int in kinds or float in kinds:
        number = _read_number(quoted[2] if quoted else text)
        if number is None or abs(number.adjusted()) > MAX_DIGITS:
            return text
        return int(number) if int in kinds and number == int(number) else float(number)
    return quoted[2] if quoted else text


class SettingsLoader(yaml.SafeLoader):
    """YAML without names that are given twice: of such, PyYAML takes the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises ValueError for a name that stands there already."""
        names = [name.value for name, _ in node.value]
        for index, (name, _) in enumerate(node.value):
            if name.value in names[:index]:
                raise ValueError(f"{name.value} twice, in line {name.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


class _Loader(SettingsLoader):
    """YAML in which 1e-3 is a number, as everywhere on the command line."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+$"), [*"+-0123456789"]
)


def _read_number(text: str) -> Decimal | None:
    """`1_000_000`, `1e6`, `10M` or `1.5e-4` as a number; None for anything else."""
    match = re.fullmatch(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)([kmbg]?)", text, re.I)
    if match is None:
        return None
    try:
        return Decimal(match[1].replace("_", "")) * SUFFIXES.get(match[2].lower(), 1)
    except ArithmeticError:  # Decimal cannot hold numbers that large
        return None


def read_settings(kind: type[Settings], texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of settings that are given as texts on a command line.

    Raises:
      ConfigError: for an unknown name; says what may have been meant.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in texts.keys() - fields.keys():
        raise ConfigError(unknown_name(name, fields))
    return {name: read_value(fields[name], text) for name, text in texts.items()}


def unknown_name(name: str, names: Collection[str]) -> str:
    """The message for a setting that does not exist, with what may have been meant."""
    own = own_name(name, names)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"There is no setting named {name}{f'; here it is {own}' if own else hint}."


def own_name(name: str, names: Collection[str]) -> str | None:
    """The one of `names` that is meant by a name in another spelling, or of another library."""
    plain, others = plain_name(name).strip("_+"), read_other_names()
    same = [own for own in names if plain_name(own).strip("_") == plain]
    same += [own for own in names if plain in others.get(own, "").split()]
    return same[0] if same else None


def plain_name(name: str) -> str:
    """A name as it compares with others: `N-Step-Q` is `n_step_q`."""
    return name.lower().replace("-", "_")


def read_other_names() -> dict[str, str]:
    """What other libraries call our settings: words with blanks between, by our name."""
    return yaml.safe_load(Path(__file__).with_name("other_names.yaml").read_text(encoding="utf-8"))


def describe(kind: type[Settings]) -> Iterator[str]:
    """Lines of help: the groups, and in each every setting with its default."""
    rows = [(f"{f.name}={show(f.default)}", f) for f in dataclasses.fields(kind)]
    column = max(len(shown) for shown, _ in rows) + 4
    group = ""
    for shown, field in rows:
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            yield from ("", f"{group}:")
        first, *more = textwrap.wrap(explain(field), WIDTH - column)
        yield f"  {shown:{column - 2}}{first}"
        yield from (" " * column + line for line in more)


def explain(field: dataclasses.Field) -> str:
    """The line of help of a setting, with all names that its value can be."""
    rule: Rule | None = field.metadata["rule"]
    names = f" ({' | '.join(rule.names())})" if rule and rule.names() else ""
    return field.metadata["text"] + names


def show(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
    return f"{value:_}" if type(value) is int else str(value)
