"""Observation spaces of environments: observations as arrays for networks."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.convolutions import BLOCK_SIZE, frames_to_blocks
from a3cjax.errors import AnswerError as AnswerError

# What is larger becomes infinite as a 32-bit float.
MAX_FLOAT = np.finfo(np.float32).max


def leaves_of(
    space: gymnasium.Space, values: Any, where: str, name: str = "observations"
) -> Iterator[tuple[str, gymnasium.Space, Any]]:
    """The name, the space and the value of each leaf of nested Dicts, by sorted keys, and Tuples.

    `values` is nested as the space is: an observation, a batch of them, or the space itself.

    Raises:
      AnswerError: names `where`, unless it is.
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


def read_observations(
    space: gymnasium.Space, observations: Any, where: str, num_envs: int | None = None
) -> np.ndarray:
    """A batch of observations, checked, as one fresh array in the layout that networks read.

    Images (uint8, rank 3) become blocks of 4×4 pixels, numbered states one-hot vectors, one
    beside the other where there are several, and all leaves of a Dict or Tuple one vector.

    Raises:
      AnswerError: names `where`, unless all leaves are as the space has them, for `num_envs`
        environments, or for as many as the first leaf is of.
    """
    leaves = list(leaves_of(space, observations, where))
    num_envs = len(leaves[0][2]) if num_envs is None else num_envs
    for name, leaf, values in leaves:
        check_numbers(name, values, (num_envs, *(leaf.shape or ())), where)
        if isinstance(leaf, Discrete | MultiDiscrete):
            numbers, sizes = _number_states(leaf, values), count_states(leaf)
            rule = f"in {leaf}"
            if isinstance(leaf, Discrete):
                rule = f"in [{leaf.start}, {leaf.start + leaf.n - 1}]"
            _check_all(name, values, (numbers >= 0) & (numbers < sizes), rule, where)
        elif isinstance(leaf, MultiBinary):
            _check_all(name, values, (values == 0) | (values == 1), "0 or 1", where)
    if is_image(space):
        return _images_to_blocks(observations)
    vectors = [_as_numbers(leaf, values) for _, leaf, values in leaves]
    if isinstance(space, Dict | Tuple):
        return np.concatenate([vector.reshape(num_envs, -1) for vector in vectors], axis=1)
    return vectors[0]


def is_image(space: gymnasium.Space) -> bool:
    """Whether observations reach convolutions."""
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3


def count_states(leaf: gymnasium.Space) -> np.ndarray:
    """How many states a Discrete leaf has, or each number of a MultiDiscrete one; others none."""
    if isinstance(leaf, Discrete):
        return np.array(leaf.n, int)
    return leaf.nvec.astype(int) if isinstance(leaf, MultiDiscrete) else np.zeros((), int)


def _number_states(leaf: Discrete | MultiDiscrete, values: np.ndarray) -> np.ndarray:
    return values.astype(int) - np.asarray(leaf.start, int)


def _as_numbers(leaf: gymnasium.Space, values: np.ndarray) -> np.ndarray:
    if not isinstance(leaf, Discrete | MultiDiscrete):
        return np.array(values, np.float32)
    sizes = count_states(leaf).ravel()
    begins = np.cumsum(sizes) - sizes
    columns = _number_states(leaf, values).reshape(len(values), -1) + begins
    vectors = np.zeros((len(values), sizes.sum()), np.float32)
    np.put_along_axis(vectors, columns, 1, axis=1)
    return vectors


def _images_to_blocks(images: np.ndarray) -> np.ndarray:
    if has_channels_last(images.shape[1:]):
        images = np.moveaxis(images, -1, 1)
    padding = [(0, -size % BLOCK_SIZE) for size in images.shape[2:]]
    if padding != [(0, 0), (0, 0)]:  # with black, to whole blocks: no pixel is lost
        images = np.pad(images, [(0, 0), (0, 0), *padding])
    return frames_to_blocks(images)


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image is `[height, width, channels]`, as Gymnasium's, or has its channels first.

    Two equal sides are the picture's, 64 planes of 40×40 among them; else the shorter of the
    first and the last axis are the channels.
    """
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return first == middle
    return last < first


def check_numbers(name: str, values: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Raises AnswerError unless values are finite, as 32-bit floats too, and of this shape."""
    if values.shape != shape:
        raise AnswerError(f"{name} must be of shape {shape}, got {values.shape} in {where}.")
    if values.dtype.kind not in "biu":  # bytes and whole numbers are always finite
        _check_all(name, values, np.abs(values) <= MAX_FLOAT, "finite", where)  # NaN is not


def _check_all(name: str, values: np.ndarray, is_right: np.ndarray, rule: str, where: str) -> None:
    if not is_right.all():
        index = tuple(np.argwhere(~is_right)[0])
        place = f"{where} (environment {index[0]} of the batch)"
        raise AnswerError(f"{name} must be {rule}, got {values[index]} in {place}.")
