"""Spaces of Gymnasium as plain values for JSON, and back: an agent acts without its environment.

What is read may have been written by anybody: it is accepted only if the space made from it is
written in just the same way, and no space is made that is larger than an environment may have.
"""

import itertools
import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.envs.supported import MAX_NUMBERS
from a3cjax.errors import quote

# Levels of nested spaces, and axes of an array: nobody has so many, and readers recurse.
MAX_NESTING = 16
_FLOATS = ("float16", "float32", "float64")
_WHOLE = tuple(f"{sign}int{bits}" for sign, bits in itertools.product(("", "u"), (8, 16, 32, 64)))


def space_to_json(space: gymnasium.Space) -> dict[str, Any]:
    """A space as dicts, lists, numbers and texts.

    Bounds are one number if all are the same, and have length 1 along each axis on which they do
    not change; `inf` and `-inf` are texts. A Dict's keys keep their order; those that JSON has, and
    tuples of them, are stored as they are.

    Raises:
      ValueError: if the space is not one that can be learned on, or has keys of another type.
    """
    return _write(space, MAX_NESTING)


def _write(space: gymnasium.Space, depth: int) -> dict[str, Any]:
    if depth == 0:
        raise ValueError(f"spaces must be nested less than {MAX_NESTING} times.")
    if isinstance(space, Dict):
        parts = [[_write_key(key), _write(part, depth - 1)] for key, part in space.items()]
        return {"type": "Dict", "spaces": parts}
    if isinstance(space, Tuple):
        return {"type": "Tuple", "spaces": [_write(part, depth - 1) for part in space]}
    if isinstance(space, Discrete):
        own = {"n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
        return {"type": "Discrete", **own}
    if isinstance(space, MultiDiscrete):
        own = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": "MultiDiscrete", **own, "dtype": space.dtype.name}
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else [*space.n]}
    if isinstance(space, Box) and space.dtype.name in (*_FLOATS, *_WHOLE, "bool"):
        own = {"low": _write_bounds(space.low), "high": _write_bounds(space.high)}
        return {"type": "Box", **own, "shape": list(space.shape), "dtype": space.dtype.name}
    raise ValueError(f"{quote(space)} cannot be stored.")


def _write_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return [_write_key(part) for part in key]
    if isinstance(key, np.generic):
        key = key.item()  # which is equal, and is found under the same hash
    if key is None or type(key) in (str, int, bool) or (type(key) is float and math.isfinite(key)):
        return key
    raise ValueError(f"keys must be of JSON, got {quote(key)}.")


def _write_bounds(bounds: np.ndarray) -> Any:
    for axis in range(bounds.ndim):
        first = bounds.take([0], axis) if bounds.shape[axis] else bounds
        if (bounds == first).all():
            bounds = first
    values = bounds.tolist() if bounds.size != 1 else bounds.item()
    return _map_leaves(lambda x: str(x) if x in (math.inf, -math.inf) else x, values)


def _map_leaves(function: Any, values: Any) -> Any:
    if isinstance(values, list):
        return [_map_leaves(function, value) for value in values]
    return function(values)


def space_from_json(content: Any) -> gymnasium.Space:
    """The space from which `space_to_json` made this.

    Raises:
      ValueError: if there is no such space, or it has more numbers than `MAX_NUMBERS`.
    """
    try:
        space = _Reader().read(content, MAX_NESTING)
        written = space_to_json(space)
    # What NumPy and Gymnasium raise for values of other types and sizes.
    except (TypeError, LookupError, ArithmeticError, AssertionError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"a space must be as it is written, got {reason}") from error
    if written != content:
        raise ValueError(f"a space must be as it is written, got {quote(content)}.")
    return space


class _Reader:
    """Makes spaces whose arrays hold no more numbers in all than an environment may have."""

    def __init__(self):
        self._numbers_left = MAX_NUMBERS

    def read(self, content: Any, depth: int) -> gymnasium.Space:
        """Read a space; any ValueError, TypeError, LookupError … means that this is none."""
        if depth == 0:
            raise ValueError(f"spaces must be nested less than {MAX_NESTING} times.")
        kind = content["type"]
        if kind == "Dict":
            parts = [(_read_key(key), self.read(p, depth - 1)) for key, p in content["spaces"]]
            return Dict(parts)
        if kind == "Tuple":
            return Tuple([self.read(part, depth - 1) for part in content["spaces"]])
        if kind == "Discrete":
            dtype = _read_dtype(content, _WHOLE)
            return Discrete(content["n"], start=content["start"], dtype=dtype.type)
        if kind == "MultiDiscrete":
            dtype, start = _read_dtype(content, _WHOLE), content["start"]
            start = np.array(start, dtype)
            return MultiDiscrete(np.array(content["nvec"], dtype), dtype=dtype.type, start=start)
        if kind == "MultiBinary":
            n = content["n"]
            self._take(n if isinstance(n, list) else [n])
            return MultiBinary(n)
        if kind == "Box":
            dtype = _read_dtype(content, (*_FLOATS, *_WHOLE, "bool"))
            shape = self._take(content["shape"])
            low, high = (_read_bounds(content[name], shape, dtype) for name in ("low", "high"))
            return Box(low, high, shape, dtype.type)
        raise ValueError(f"type must be that of a space, got {quote(kind)}.")

    def _take(self, shape: Any) -> tuple[int, ...]:
        if not (len(shape) <= MAX_NESTING and all(type(n) is int and n >= 0 for n in shape)):
            raise ValueError(f"shape must be whole numbers, got {quote(shape)}.")
        self._numbers_left -= math.prod(shape)
        if self._numbers_left < 0:
            raise ValueError(f"spaces must have at most {MAX_NUMBERS:,} numbers, got more.")
        return tuple(shape)


def _read_key(key: Any) -> Any:
    return tuple(map(_read_key, key)) if isinstance(key, list) else key


def _read_dtype(content: Any, names: tuple[str, ...]) -> np.dtype:
    if content["dtype"] not in names:
        raise ValueError(f"dtype must be of {', '.join(names)}, got {quote(content['dtype'])}.")
    return np.dtype(content["dtype"])


def _read_bounds(values: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = _map_leaves(lambda x: float(x) if x in ("inf", "-inf") else x, values)
    return np.broadcast_to(np.array(values, dtype), shape).copy()
