"""Spaces of environments: observations as arrays for networks, actions within their bounds."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from a3cjax.convolutions import BLOCK_SIZE, frames_to_blocks
from a3cjax.errors import AnswerError as AnswerError

# What is larger becomes infinite as a 32-bit float.
MAX_FLOAT = np.finfo(np.float32).max
# Nobody means larger bounds: dm_control's LQR, for one, writes 1e10 for "none".
MAX_BOUND = 1e6


def leaves_of(
    space: gymnasium.Space, values: Any, name: str = "observations"
) -> Iterator[tuple[str, gymnasium.Space, Any]]:
    """The name, the space and the value of each leaf, a nested Dict's in the order of sorted keys.

    `values` is nested as the space is: a batch of its observations, or the space itself.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        for key in sorted(space.spaces):
            yield from leaves_of(space[key], values[key], f"{name}[{key!r}]")
    else:
        yield name, space, values


def read_observations(
    space: gymnasium.Space, observations: Any, where: str, num_envs: int | None = None
) -> np.ndarray:
    """A batch of observations, checked, as one fresh array in the layout that networks read.

    Images (uint8, rank 3) become blocks of 4×4 pixels, states of a Discrete space one-hot
    vectors, and all leaves of a Dict one vector in the order of sorted keys.

    Raises:
      AnswerError: names `where`, unless all leaves are as the space has them, for `num_envs`
        environments, or for as many as the first leaf is of.
    """
    leaves = list(leaves_of(space, observations))
    num_envs = len(leaves[0][2]) if num_envs is None else num_envs
    for name, leaf, values in leaves:
        check_numbers(name, values, (num_envs, *(leaf.shape or ())), where)
        if isinstance(leaf, gymnasium.spaces.Discrete):
            is_right = (values >= 0) & (values < leaf.n)
            _check_all(name, values, is_right, f"in [0, {leaf.n - 1}]", where)
    if isinstance(space, gymnasium.spaces.Dict):
        vectors = [values.reshape(num_envs, -1) for *_, values in leaves]
        return np.concatenate(vectors, axis=1, dtype=np.float32)
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[observations.astype(int)]
    if observations.dtype == np.uint8 and observations.ndim == 4:
        return _images_to_blocks(observations)
    return np.array(observations, np.float32)


def _images_to_blocks(images: np.ndarray) -> np.ndarray:
    if images.shape[-1] < images.shape[1]:  # channels last, as Gymnasium has them
        images = np.moveaxis(images, -1, 1)
    padding = [(0, -size % BLOCK_SIZE) for size in images.shape[2:]]
    if padding != [(0, 0), (0, 0)]:  # with black, to whole blocks: no pixel is lost
        images = np.pad(images, [(0, 0), (0, 0), *padding])
    return frames_to_blocks(images)


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


def clip_actions(space: gymnasium.Space, actions: np.ndarray) -> np.ndarray:
    """Actions as the environment takes them: those of a Box within its bounds, in its dtype."""
    if not isinstance(space, gymnasium.spaces.Box):
        return actions
    return np.clip(actions, space.low, space.high).astype(space.dtype)


def sample_actions(
    space: gymnasium.Space, num_envs: int, generator: np.random.Generator
) -> np.ndarray:
    """Uniformly random actions, int32 `[B]` if Discrete or float32 `[B, D]` in a Box `(D,)`.

    Where a bound is missing nothing is uniform: a standard normal number, clipped to the other.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return generator.integers(int(space.n), size=num_envs, dtype=np.int32)
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low.astype(float), space.high.astype(float)
    is_bounded = np.maximum(np.abs(low), np.abs(high)) <= MAX_BOUND
    size = (num_envs, *space.shape)
    uniform = generator.uniform(np.where(is_bounded, low, 0), np.where(is_bounded, high, 1), size)
    normal = np.clip(generator.standard_normal(size), low, high)
    return np.where(is_bounded, uniform, normal).astype(np.float32)
