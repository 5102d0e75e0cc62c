"""Spaces of environments: their leaves, and what must hold of numbers."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Tuple

from a3cjax.errors import AnswerError as AnswerError

# What is larger becomes infinite as a 32-bit float.
MAX_FLOAT = np.finfo(np.float32).max
# Nobody means larger bounds: dm_control's LQR, for one, writes 1e10 for "none".
MAX_BOUND = 1e6


def leaves_of(
    space: gymnasium.Space, values: Any, where: str, name: str = "observations"
) -> Iterator[tuple[str, gymnasium.Space, Any]]:
    """The name, space and value of each leaf of nested Dicts (by sorted keys) and Tuples.

    `values` is nested as the space is: an observation, a batch of them, or the space itself.

    Raises:
      AnswerError: if it is not; names `where`.
    """
    if isinstance(space, Dict):
        keys = sorted_keys(space)
        if not (isinstance(values, Mapping) and values.keys() == space.spaces.keys()):
            raise AnswerError(
                f"{name} must be a dict of {keys}, got {describe(values)} in {where}."
            )
        parts = [(key, space[key]) for key in keys]
    elif isinstance(space, Tuple):
        parts = list(enumerate(space))
        if not (isinstance(values, Sequence) and len(values) == len(parts)):
            rule = f"a tuple of {len(parts)}"
            raise AnswerError(f"{name} must be {rule}, got {describe(values)} in {where}.")
    else:
        yield name, space, values
        return
    for key, part in parts:
        yield from leaves_of(part, values[key], where, f"{name}[{key!r}]")


def sorted_keys(space: Dict) -> list[Any]:
    """The keys in the order in which leaves are joined, whoever wrote the space."""
    try:
        return sorted(space.spaces)
    except TypeError:  # of several types
        return sorted(space.spaces, key=lambda key: (str(key), type(key).__name__))


def describe(value: Any) -> str:
    """What an environment returned, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and {value.dtype}"
    if isinstance(value, Mapping):
        return f"a dict of {reprlib.repr(list(value))}"
    return reprlib.repr(value)


def check_numbers(name: str, values: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Raise AnswerError unless values are finite, as 32-bit floats too, and of this shape."""
    if values.shape != shape:
        raise AnswerError(f"{name} must be of shape {shape}, got {values.shape} in {where}.")
    # Bytes and whole numbers are always finite.
    if values.dtype.kind not in "biu" and not _are_small(values):
        check_all(name, values, np.abs(values) <= MAX_FLOAT, "finite", where)  # NaN is not


def _are_small(values: np.ndarray) -> bool:
    """Whether their sum of squares shows that all are finite; it may fail to show that."""
    return values.dtype.kind == "f" and bool(np.vdot(values, values) <= MAX_FLOAT)


def check_all(name: str, values: np.ndarray, is_right: np.ndarray, rule: str, where: str) -> None:
    """Raise AnswerError with the first value that is not right; all are `[B, ...]`."""
    if not is_right.all():
        index = tuple(np.argwhere(~is_right)[0])
        place = f"{where} (environment {index[0]} of the batch)"
        raise AnswerError(f"{name} must be {rule}, got {values[index]} in {place}.")
