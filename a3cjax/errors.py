"""Errors for the user, each with a message of one line."""

import reprlib
from typing import Any

MAX_LENGTH = 1000  # of a message, in characters: it may quote a file with any content
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class _OneLineError(Exception):
    """Its message is one line for the user, whatever it quotes."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class ConfigError(_OneLineError, ValueError):
    """A setting that cannot be used; the message is one line."""


class CheckpointError(_OneLineError, RuntimeError):
    """A checkpoint that cannot be written or read; the message is one line."""


class AnswerError(_OneLineError, RuntimeError):
    """An environment's answer that nothing can be learned from; the message is one line."""


class OutputError(_OneLineError, RuntimeError):
    """A result that cannot be written; the message is one line."""


def one_line(text: str, max_length: int = MAX_LENGTH) -> str:
    """A text on one line, without its middle if it is long, and with invisible characters escaped.

    Escape sequences of terminals, for instance, become visible text.
    """
    if len(text) > 4 * max_length:
        text = f"{text[: 2 * max_length]} {text[-2 * max_length :]}"
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) <= max_length:
        return line
    half = (max_length - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def quote(value: Any) -> str:
    """The repr of a value, shortened, since the value may be of any type and size."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number with more digits than Python prints
        return f"a long {type(value).__name__}"


def check_flags(**flags: Any) -> None:
    """Refuse what is neither true nor false, such as "false", by the name of its argument."""
    for name, value in flags.items():
        is_flag = isinstance(value, int) and value in (0, 1)
        if not is_flag and str(getattr(value, "dtype", None)) != "bool":  # NumPy's
            raise ConfigError(f"{name} must be true or false, got {quote(value)}.")


# Which extra of pyproject.toml brings a package; a test compares them.
EXTRAS = {
    **dict.fromkeys(("envpool", "gymnasium", "rich", "tensorboardX", "safetensors", "av"), "train"),
    "flatbuffers": "train",
    **dict.fromkeys(("yaml", "jinja2", "markupsafe", "matplotlib", "PIL"), "report"),
}


def missing_extra(name: str, error: ModuleNotFoundError) -> Exception:
    """The error for a package that `a3cjax <name>` misses: it names the extra that brings it.

    For any other missing module, the error stays as it is.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return error
    return ConfigError(
        f"a3cjax {name} needs {package}, which comes with the extra {extra}: "
        f"in a checkout, pip install '.[{extra}]'."
    )
