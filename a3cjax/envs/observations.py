"""How observations are read: which leaves are images, and how all become arrays for networks."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.convolutions import BLOCK_SIZE, frames_to_blocks
from a3cjax.envs.spaces import MAX_BOUND, check_all, check_numbers, leaves_of
from a3cjax.types import VECTOR

AUTO, CHANNELS_FIRST, CHANNELS_LAST, NONE = "auto", "channels_first", "channels_last", "none"
IMAGE_LAYOUTS = (AUTO, CHANNELS_FIRST, CHANNELS_LAST, NONE)

# Made once: they are asked for at every step.
NESTED, NUMBERED, BYTE = (Dict, Tuple), (Discrete, MultiDiscrete), np.dtype(np.uint8)

# Pictures seldom have shorter sides, unless they are arrays of bytes; our choice.
LEAST_SIDE = 8
MOST_COLOURS = 4  # of one frame of a stack: grey, RGB, and both with one more channel
# How far beyond its bounds a number may be by rounding, as a share of their distance.
ROUNDING = 1e-3


class Leaf(NamedTuple):
    """How one leaf of an observation is read.

    `key` names an image where an observation has several parts, and is `VECTOR` for numbers.
    `layout` is `channels_first` (also for a matrix, which has one channel) or `channels_last`;
    None: no image. `is_doubtful`: the other layout would make sense, too.
    """

    name: str
    space: gymnasium.Space
    key: str = VECTOR
    layout: str | None = None
    is_doubtful: bool = False

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of an image; the channels of all stacked frames together."""
        assert self.layout is not None
        *stack, height, width, channels = _sizes(self.space.shape or (), self.layout)
        return height, width, channels * math.prod(stack)

    def __str__(self) -> str:
        if self.layout is not None:
            height, width, channels = self.size
            text = f"image {height}×{width} with {channels} channel{'s' * (channels > 1)}"
            is_matrix = len(self.space.shape or ()) == 2
            return text if is_matrix else f"{text}, {self.layout.replace('_', ' ')}"
        if isinstance(self.space, Discrete):
            return f"one of {self.space.n} states"
        shape = _shape_of_numbers(self.space)
        return f"array of shape {shape}" if len(shape) > 1 else _describe_vector([self.space])


def plan_reading(space: gymnasium.Space, image_layout: str = AUTO) -> tuple[Leaf, ...]:
    """How each leaf is to be read, in the order of `leaves_of`.

    `auto` takes as images: bytes with three axes; and bytes, bools, bits and floats in [0, 1]
    whose pictures have sides of `LEAST_SIDE` or more: a matrix, three axes, or a stack of frames
    of few colours, with the stack's axis first. A named layout takes all arrays that have finite
    bounds, two to four axes, and that size unless there is no other leaf; `none` takes nothing.
    """
    is_alone = not isinstance(space, Dict | Tuple)
    plan: list[Leaf] = []
    for name, part, _ in leaves_of(space, space, "its space"):
        layout, is_doubtful = _choose_layout(part, image_layout, is_alone)
        key = _make_key(name, {leaf.key for leaf in plan}) if layout else VECTOR
        plan.append(Leaf(name, part, key, layout, is_doubtful))
    return tuple(plan)


def settle_layout(space: gymnasium.Space, image_layout: str) -> str:
    """The named layout that reads observations just as `auto` does; `auto` if none does."""
    layouts = [leaf.layout for leaf in plan_reading(space, image_layout)]
    for name in (NONE, CHANNELS_FIRST, CHANNELS_LAST):
        if image_layout == AUTO and layouts == [n.layout for n in plan_reading(space, name)]:
            return name
    return image_layout


def describe_reading(plan: Sequence[Leaf]) -> str:
    """What reaches the network, in a few words: each image, and how many other numbers."""
    if len(plan) == 1:
        return str(plan[0])
    texts = [f"{leaf.key}: {leaf}" for leaf in plan if leaf.layout]
    others = [leaf.space for leaf in plan if not leaf.layout]
    return "; ".join([*texts, *([_describe_vector(others)] if others else [])])


def _describe_vector(spaces: Sequence[gymnasium.Space]) -> str:
    num_numbers = sum(math.prod(_shape_of_numbers(space)) for space in spaces)
    return f"vector of {num_numbers} number{'s' * (num_numbers > 1)}"


def structure_of(space: gymnasium.Space, plan: Sequence[Leaf]) -> Any:
    """What `read_observations` makes of one observation, as `jax.ShapeDtypeStruct`s."""
    images, vectors = {}, []
    for leaf in plan:
        if leaf.layout:
            height, width, channels = leaf.size
            shape = (-(-height // BLOCK_SIZE), -(-width // BLOCK_SIZE), channels * BLOCK_SIZE**2)
            images[leaf.key] = jax.ShapeDtypeStruct(shape, np.uint8)
        else:
            vectors.append(_shape_of_numbers(leaf.space))
    if isinstance(space, Dict | Tuple):
        vectors = [(sum(map(math.prod, vectors)),)] if vectors else []
    return join(images, [jax.ShapeDtypeStruct(shape, np.float32) for shape in vectors])


def read_observations(
    space: gymnasium.Space,
    observations: Any,
    where: str,
    num_envs: int | None = None,
    plan: Sequence[Leaf] | None = None,
) -> Any:
    """A batch of observations, checked, as fresh arrays in the layout that networks read.

    Images become blocks of 4×4 pixels, of bytes: floats are scaled by their bounds, bools become
    black and white. Numbered states become one-hot vectors, side by side if there are several.
    All leaves of a Dict or Tuple except images are joined in one vector.

    Args:
      space: of one observation.
      observations: nested as the space is.
      where: for messages.
      num_envs: of the batch; None for the length of the first leaf.
      plan: from `plan_reading`; None for the plan of `auto`.

    Returns:
      One array `[B, ...]`, uint8 or float32; or a dict of the images by their keys, with float32
      `VECTOR` if there are other leaves.

    Raises:
      AnswerError: if a leaf is not as the space has it; names `where`.
    """
    plan = plan_reading(space) if plan is None else plan
    if not isinstance(space, NESTED):
        return _read(plan[0], observations, num_envs, where)
    values = [value for *_, value in leaves_of(space, observations, where)]
    num_envs = len(values[0]) if num_envs is None else num_envs
    images, vectors = {}, []
    for leaf, value in zip(plan, values, strict=True):
        read = _read(leaf, value, num_envs, where)
        if leaf.layout:
            images[leaf.key] = read
        else:
            vectors.append(read.reshape(num_envs, -1))
    return join(images, [np.concatenate(vectors, axis=1)] if vectors else [])


def join(images: Mapping[str, Any], vectors: Sequence[Any]) -> Any:
    """A single array as it is; several as a dict by their keys."""
    parts = dict(images) | dict.fromkeys([VECTOR] * len(vectors), *vectors)
    return parts if len(parts) > 1 else next(iter(parts.values()))


def _make_key(name: str, taken: Collection[str]) -> str:
    """`observations['a']['b']` is `a_b`: a name for arrays in files and for parts of networks."""
    key = "_".join(re.findall(r"\w+", name)[1:]) or "image"
    names = (key if count == 1 else f"{key}_{count}" for count in range(1, len(taken) + 3))
    return next(name for name in names if name not in {VECTOR, *taken})


def _sizes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Frames of a stack if there is one, height, width and channels."""
    if len(shape) == 2:
        return (*shape, 1)
    if layout == CHANNELS_LAST:
        return shape
    *stack, channels, height, width = shape
    return (*stack, height, width, channels)


def _choose_layout(
    leaf: gymnasium.Space, image_layout: str, is_alone: bool
) -> tuple[str | None, bool]:
    """The layout of a leaf, None if it is no image, and whether that is doubtful."""
    shape, layout = leaf.shape or (), image_layout
    if not isinstance(leaf, Box | MultiBinary) or len(shape) not in (2, 3, 4) or layout == NONE:
        return None, False
    is_auto = layout == AUTO
    is_bytes = leaf.dtype == np.uint8 and len(shape) == 3
    if is_auto:
        layout = CHANNELS_LAST if has_channels_last(shape) else CHANNELS_FIRST
    layout = CHANNELS_FIRST if len(shape) == 2 else layout
    *stack, height, width, channels = _sizes(shape, layout)
    is_large = min(height, width) >= LEAST_SIDE
    if is_auto:
        has_colours = not stack or channels <= MOST_COLOURS
        is_image = is_bytes or (is_large and has_colours and _is_bright(leaf))
    else:
        is_image = (is_bytes or is_large or is_alone) and _is_bounded(leaf)
    if not is_image:
        return None, False
    return layout, is_auto and len(shape) == 3 and _is_doubtful(shape, layout)


def _is_bright(leaf: Box | MultiBinary) -> bool:
    """Whether numbers are announced as brightness: bytes, bits, or floats from 0 to 1."""
    if isinstance(leaf, MultiBinary) or leaf.dtype in (np.uint8, bool):
        return True
    return leaf.dtype.kind == "f" and bool((leaf.low == 0).all() and (leaf.high == 1).all())


def _is_bounded(leaf: Box | MultiBinary) -> bool:
    """Whether bounds are given, and are not so far out that nobody means them."""
    if isinstance(leaf, MultiBinary):
        return True
    return all(
        bool((np.abs(edge.astype(float)) <= MAX_BOUND).all()) for edge in (leaf.low, leaf.high)
    )


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image is `[height, width, channels]`, as in Gymnasium, or has its channels first.

    Two equal axes side by side are the picture's, even for 64 planes of 40×40; otherwise the
    shorter of the first and the last axis counts channels, or the last if both are equally long.
    Of four axes, the first counts frames.
    """
    if len(shape) == 2:
        return False
    first, middle, last = shape[-3:]
    if (first == middle) != (middle == last):
        return first == middle
    return last <= first


def _is_doubtful(shape: tuple[int, ...], layout: str) -> bool:
    """Whether the layout that was not chosen gives a picture as likely, or nearly so.

    If the chosen picture is a square, the other one is unlikely with more channels than pixels on
    a side; if it is not, with more than twice as many.
    """
    other = CHANNELS_FIRST if layout == CHANNELS_LAST else CHANNELS_LAST
    height, width, _ = _sizes(shape, layout)
    side, channels = min(_sizes(shape, other)[:2]), _sizes(shape, other)[2]
    slack = 1 if height == width else 2
    return side >= min(LEAST_SIDE, min(height, width) / slack) and channels <= slack * side


def _read(leaf: Leaf, values: np.ndarray, num_envs: int | None, where: str) -> np.ndarray:
    num_envs = len(values) if num_envs is None else num_envs
    check_numbers(leaf.name, values, (num_envs, *(leaf.space.shape or ())), where)
    if not isinstance(leaf.space, Box):
        _check_whole(leaf, values, where)
    return _as_blocks(leaf, values, where) if leaf.layout else _as_numbers(leaf.space, values)


def _check_whole(leaf: Leaf, values: np.ndarray, where: str) -> None:
    space = leaf.space
    if isinstance(space, Discrete | MultiDiscrete):
        numbers, sizes = _number_states(space, values), count_states(space)
        rule = f"in {space}"
        if isinstance(space, Discrete):
            rule = f"in [{space.start}, {space.start + space.n - 1}]"
        check_all(leaf.name, values, (numbers >= 0) & (numbers < sizes), rule, where)
    elif isinstance(space, MultiBinary):
        check_all(leaf.name, values, (values == 0) | (values == 1), "0 or 1", where)


def count_states(leaf: gymnasium.Space) -> np.ndarray:
    """How many states a Discrete leaf has, or each number of a MultiDiscrete one; others none."""
    if isinstance(leaf, Discrete):
        return np.array(leaf.n, int)
    return leaf.nvec.astype(int) if isinstance(leaf, MultiDiscrete) else np.zeros((), int)


def _shape_of_numbers(leaf: gymnasium.Space) -> tuple[int, ...]:
    if isinstance(leaf, Discrete | MultiDiscrete):
        return (int(count_states(leaf).sum()),)
    return leaf.shape or ()


def _number_states(leaf: Discrete | MultiDiscrete, values: np.ndarray) -> np.ndarray:
    return values.astype(int) - np.asarray(leaf.start, int)


def _as_numbers(leaf: gymnasium.Space, values: np.ndarray) -> np.ndarray:
    if not isinstance(leaf, NUMBERED):
        return np.array(values, np.float32)
    sizes = count_states(leaf).ravel()
    begins = np.cumsum(sizes) - sizes
    columns = _number_states(leaf, values).reshape(len(values), -1) + begins
    vectors = np.zeros((len(values), sizes.sum()), np.float32)
    np.put_along_axis(vectors, columns, 1, axis=1)
    return vectors


def _as_blocks(leaf: Leaf, values: np.ndarray, where: str) -> np.ndarray:
    images = _as_bytes(leaf, values, where)
    if images.ndim > 3 and leaf.layout == CHANNELS_LAST:
        images = np.moveaxis(images, -1, -3)
    images = images.reshape(len(images), -1, *images.shape[-2:])  # stacked frames: channels
    height, width = images.shape[2:]
    if height % BLOCK_SIZE or width % BLOCK_SIZE:  # pads with black, so no pixel is lost
        padding = [(0, 0), (0, 0), (0, -height % BLOCK_SIZE), (0, -width % BLOCK_SIZE)]
        images = np.pad(images, padding)
    return frames_to_blocks(images)


def _as_bytes(leaf: Leaf, values: np.ndarray, where: str) -> np.ndarray:
    space = leaf.space
    if space.dtype == BYTE:
        return values
    if isinstance(space, MultiBinary) or space.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    assert isinstance(space, Box)
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    span = np.where(high > low, high - low, 1)
    shares = (values - low) / span
    is_right = (shares >= -ROUNDING) & (shares <= 1 + ROUNDING)
    rule = f"in [{low.min():g}, {high.max():g}] as announced (image_layout=none reads any numbers)"
    check_all(leaf.name, values, is_right, rule, where)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
