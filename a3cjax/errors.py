"""What users are told: the errors whose message is one line for them."""

import reprlib
from typing import Any

MAX_LENGTH = 1000  # of a message, in letters: it may quote a file that holds anything
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message is one line for the user."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class AnswerError(RuntimeError):
    """An environment answered what nothing can be learned from; the message is one line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str, max_length: int = MAX_LENGTH) -> str:
    """A text on one line, with its middle left out where it is long; what cannot be seen is shown.

    Escape sequences of terminals, for instance, become text.
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
    """A value as Python writes it, shortened: it may be any value, of any size."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number with more digits than Python prints
        return f"a long {type(value).__name__}"
