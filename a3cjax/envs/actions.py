"""Action spaces of environments: from what agents decide to what environments take; and masks.

Agents number their choices from 0, all in one row, and act between -1 and 1 where there are bounds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from a3cjax.envs.base import ActionSpec
from a3cjax.envs.spaces import MAX_BOUND, describe
from a3cjax.errors import AnswerError, quote

ACTION_MASK = "action_mask"  # in infos, as Gymnasium and PettingZoo have it


def make_action_spec(space: gymnasium.Space) -> ActionSpec:
    """What an agent has to decide in a space that `check_spaces` accepts."""
    if isinstance(space, Box):
        return ActionSpec("continuous", (int(np.prod(space.shape)),), bool(has_bounds(space).all()))
    kind = "discrete" if isinstance(space, Discrete) else "multi_discrete"
    return ActionSpec(kind, tuple(count_choices(space).tolist()))


def count_choices(space: gymnasium.Space) -> np.ndarray:
    """How many choices each number of an action has, int `[K]`; a Discrete one is one number."""
    if isinstance(space, MultiBinary):
        return np.full(int(np.prod(space.shape)), 2)
    assert isinstance(space, Discrete | MultiDiscrete)
    return np.ravel(space.n if isinstance(space, Discrete) else space.nvec)


def count_outputs(space: gymnasium.Space) -> int:
    """How many outputs of a network an action takes: K rows, each as long as the longest."""
    num_numbers = math.prod(space.shape or ())
    if isinstance(space, Discrete | MultiDiscrete):
        return num_numbers * int(np.max(space.n if isinstance(space, Discrete) else space.nvec))
    return 2 * num_numbers if isinstance(space, MultiBinary) else num_numbers


def has_bounds(space: Box) -> np.ndarray:
    """Which numbers of an action have two bounds, `MAX_BOUND` at most, bool in its shape."""
    has_low, has_high = _has_each_bound(space)
    return has_low & has_high


def softplus_ends(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Which numbers of an action have a lower bound only, and which an upper one; bool arrays."""
    has_low, has_high = _has_each_bound(space)
    return has_low & ~has_high, has_high & ~has_low


def _has_each_bound(space: Box) -> list[np.ndarray]:
    return [np.abs(bound.astype(float)) <= MAX_BOUND for bound in (space.low, space.high)]


class Scale(NamedTuple):
    """How the numbers of a Box follow from those of a policy; float64 arrays of its shape.

    `middle + half · a` is between the bounds, which are `low` and `high`; `above` and `below` say
    which numbers have the one bound alone.
    """

    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    above: np.ndarray
    below: np.ndarray


def scale_of(space: Box) -> Scale:
    """The scale of a Box of numbers, whole ones or others."""
    low, high, is_bounded = space.low.astype(float), space.high.astype(float), has_bounds(space)
    # With half a number added at each end, the bounds are as frequent as other whole numbers.
    edge = 0.0 if space.dtype.kind == "f" else 0.5
    least = np.where(is_bounded, low - edge, -1.0)
    most = np.where(is_bounded, high + edge, 1.0)
    # In this form, bounds of -1 and 1 change nothing, to the last bit.
    return Scale(low, high, (least + most) / 2, (most - least) / 2, *softplus_ends(space))


def clip_actions(space: gymnasium.Space, actions: np.ndarray) -> np.ndarray:
    """Actions as the environment takes them, in its shape and dtype.

    Args:
      space: of one environment.
      actions: int `[B]` if Discrete, int `[B, K]` if MultiDiscrete or MultiBinary, numbered from
        0, or float `[B, D]` in a Box. There -1 and 1 stand for the bounds, and what is beyond is
        clipped. From the only bound of a number it is softplus(a) to where 0 stands, softplus(-a)
        if that is the upper one; numbers without bounds are left as they are. An environment that
        takes whole numbers is given the nearest.
    """
    return make_clip(space)(actions)


def make_clip(space: gymnasium.Space) -> Callable[[np.ndarray], np.ndarray]:
    """`clip_actions` of one space, with what is the same at every step computed once."""
    if isinstance(space, Box):
        low, high, middle, half, above, below = scale_of(space)
        is_whole = space.dtype.kind != "f"

        def clip(actions: np.ndarray) -> np.ndarray:
            in_shape = _in_shape(space, actions)
            taken = middle + half * in_shape
            if above.any():
                taken = np.where(above, low + np.logaddexp(0, in_shape), taken)
            if below.any():
                taken = np.where(below, high - np.logaddexp(0, -in_shape), taken)
            taken = np.clip(taken, low, high)
            return (np.rint(taken) if is_whole else taken).astype(space.dtype)

        return clip
    start = getattr(space, "start", 0)
    if isinstance(space, Discrete):
        return lambda actions: actions.astype(space.dtype) + start
    return lambda actions: (_in_shape(space, actions) + start).astype(space.dtype)


def make_check(space: gymnasium.Space, num_envs: int) -> Callable[[Any], np.ndarray]:
    """A function that returns a batch of B actions, as agents choose them, as an array.

    Several numbers may also have the shape of the space. It raises a ValueError if they are not as
    for `clip_actions`: environments may take them for others, or end the process.
    """
    if isinstance(space, Box):
        shape, kinds = (num_envs, int(np.prod(space.shape))), "fiu"
        rule = f"float {list(shape)} that are not NaN"

        def is_valid(actions: np.ndarray) -> bool:
            return not np.isnan(actions).any()

    else:
        sizes = count_choices(space)
        shape = (num_envs,) if isinstance(space, Discrete) else (num_envs, len(sizes))
        kinds, rule = "iub", f"int {list(shape)} from 0 on, below {' '.join(map(str, sizes))}"

        def is_valid(actions: np.ndarray) -> bool:
            # As without signs, negative numbers are too large, too.
            return bool((actions.view(f"u{actions.dtype.itemsize}") < sizes).all())

    in_space = (num_envs, *(space.shape or ()))

    def check(actions: Any) -> np.ndarray:
        array = np.asarray(actions)
        if array.shape == in_space:
            array = array.reshape(shape)
        if array.shape == shape and array.dtype.kind in kinds and is_valid(array):
            return array
        got = quote(array.tolist()) if array.shape == shape else describe(array)
        raise ValueError(f"actions must be {rule}, got {got}.")

    return check


def sample_actions(
    space: gymnasium.Space,
    num_envs: int,
    generator: np.random.Generator,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Uniformly random actions as agents choose them: int32 `[B]` or `[B, K]`, or float32 `[B, D]`.

    `mask`: bool `[B, A]` or `[B, K, M]`, what is allowed. A number that lacks a bound is not
    uniform but standard normal.
    """
    if isinstance(space, Box):
        size = (num_envs, *space.shape)
        normal = generator.standard_normal(size)
        actions = np.where(has_bounds(space), generator.uniform(-1.0, 1.0, size), normal)
        return actions.reshape(num_envs, -1).astype(np.float32)
    if mask is not None:  # the largest of numbers with one distribution
        draws = np.where(mask, generator.random(mask.shape), -1.0)
        return draws.argmax(axis=-1).astype(np.int32)
    if isinstance(space, Discrete):
        return generator.integers(int(space.n), size=num_envs, dtype=np.int32)
    sizes = count_choices(space)
    return generator.integers(sizes, size=(num_envs, len(sizes)), dtype=np.int32)


def _in_shape(space: gymnasium.Space, actions: np.ndarray) -> np.ndarray:
    return np.reshape(actions, (len(actions), *(space.shape or ())))


class ActionMasks:
    """Which actions B environments allow now, according to `info["action_mask"]`.

    The very first info decides for all: there is a mask always or never. Continuous actions have
    none, whatever the info says.
    """

    def __init__(self, space: gymnasium.Space, num_envs: int):
        self._space = space
        self._is_told: bool | None = False if isinstance(space, Box) else None
        self._masks: list[np.ndarray | None] = [None] * num_envs

    def read(self, index: int, info: Any, where: str, *, is_over: bool = False) -> None:
        """Keep the mask of one environment; if its episode is over, nothing need be allowed.

        Raises:
          AnswerError: if it is no mask of this space, or is missing or new; names `where`.
        """
        if isinstance(self._space, Box):
            return
        mask = info.get(ACTION_MASK) if isinstance(info, Mapping) else None
        if self._is_told is None:
            self._is_told = mask is not None
        if self._is_told and (mask is not None or is_over):
            self._masks[index] = read_mask(self._space, mask, where, is_over=is_over)
        elif self._is_told or mask is not None:
            got = "one after there was none" if self._is_told is False else "none after there was"
            raise AnswerError(
                f"info[{ACTION_MASK!r}] must be there always or never, got {got} in {where}."
            )

    def read_batch(
        self, info: Any, where: str, indices: np.ndarray, is_over: np.ndarray | None = None
    ) -> None:
        """Keep the masks in the one info of a vector environment; `is_over` is bool `[B]`.

        With Gymnasium, `info["_action_mask"]` says which environments have given one.
        """
        info = info if isinstance(info, Mapping) else {}
        rows, told = info.get(ACTION_MASK), info.get(f"_{ACTION_MASK}")
        if rows is None and self._is_told is False:
            return
        rows = np.asarray(rows) if hasattr(rows, "__array__") else rows
        is_batch = isinstance(rows, Sequence) or (isinstance(rows, np.ndarray) and rows.ndim > 0)
        if rows is not None and not (is_batch and len(rows) == len(self._masks)):
            rule = f"one for each of {len(self._masks)}"
            raise AnswerError(
                f"info[{ACTION_MASK!r}] must be {rule}, got {describe(rows)} in {where}."
            )
        for index in indices.tolist():
            is_told = told is None or told[index]
            own = {} if rows is None or not is_told else {ACTION_MASK: rows[index]}
            place = f"{where} (environment {index} of the batch)"
            self.read(index, own, place, is_over=is_over is not None and bool(is_over[index]))

    def stack(self) -> dict[str, np.ndarray]:
        """An info with all masks, bool `[B, A]` or `[B, K, M]`; empty where there are none."""
        return {ACTION_MASK: np.stack([*self._masks])} if self._is_told else {}  # type: ignore


def read_mask(
    space: gymnasium.Space, mask: Any, where: str, *, is_over: bool = False
) -> np.ndarray:
    """Which actions are allowed, bool `[A]` if Discrete, otherwise `[K, M]`.

    Args:
      space: Discrete, MultiDiscrete or MultiBinary.
      mask: as the space's own `sample` takes it: 0 or 1 for each choice; for several numbers a
        tuple of such arrays, or all of them one after the other in one array, or one array with a
        row for each, whose end is ignored where there are fewer choices. For a MultiBinary space
        also an array in its shape: 0 or 1 where a bit must be that, 2 where it is free.
      where: for messages.
      is_over: whether the episode ended here: a mask that allows nothing, or None, then allows all.

    Raises:
      AnswerError: if it is no such mask, or allows nothing to choose from.
    """
    sizes = count_choices(space)
    allowed = np.arange(sizes.max()) < sizes[:, None]
    if mask is not None:
        rows, got = _rows(space, mask, sizes), f"got {describe(mask)} in {where}"
        for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            if len(row) not in (size, sizes.max()) or not np.isin(row[:size], (0, 1)).all():
                rule = f"0 or 1 for each choice in {space}"
                raise AnswerError(f"info[{ACTION_MASK!r}] must be {rule}, {got}.")
            if row[:size].any():
                allowed[number, :size] = row[:size] == 1
            elif not is_over:
                rule = "at least one choice" + f" for number {number}" * (len(sizes) > 1)
                raise AnswerError(f"info[{ACTION_MASK!r}] must allow {rule}, {got}.")
    return allowed[0] if isinstance(space, Discrete) else allowed


def _rows(space: gymnasium.Space, mask: Any, sizes: np.ndarray) -> list[np.ndarray]:
    """The rows of a mask, one for each number, in order; rows of no length if it is no mask."""
    shape = space.shape or ()

    def read(part: Any, depth: int) -> list[np.ndarray]:
        if depth:
            return [row for inner in part for row in read(inner, depth - 1)]
        row = np.asarray(part)
        return [row if row.ndim == 1 and row.dtype.kind in "biuf" else np.zeros(0)]

    try:
        mask = np.asarray(mask) if hasattr(mask, "__array__") else mask
        if isinstance(mask, np.ndarray) and isinstance(space, MultiBinary) and mask.shape == shape:
            is_bit = np.isin(mask, (0, 1, 2)).ravel()
            rows = list(np.where(is_bit, [mask.ravel() != 1, mask.ravel() != 0], -1).T)
        elif shape and not isinstance(mask[0], np.ndarray | Sequence):  # all in one row
            rows = np.split(read(mask, 0)[0], np.cumsum(sizes)[:-1])
        else:
            rows = read(mask, len(shape))
    except (TypeError, ValueError, LookupError):
        rows = []
    return rows if len(rows) == len(sizes) else [np.zeros(0)] * len(sizes)
