"""The game as a picture: the environment's own, or one made of what the network reads."""

import math
from collections import deque
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from PIL import Image

from a3cjax.convolutions import blocks_to_frames
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.video import style
from a3cjax.video.game import Moment
from a3cjax.video.saliency import Saliency, shown_image

MAX_WIDTH, HEIGHT = 400, 420
"""Pixels that a picture is fitted into."""

_MAX_TRACES = 24  # rows that can be told apart
_TRACE_STEPS = 150
_BOARD_SIDE = 17  # smaller images are boards, with a channel for each kind of piece
_DIMMED, _LIT = 0.6, 0.65  # shares of picture and saliency: what is lit can still be seen


class Pictures:
    """Makes a picture of each moment, in turn; a vector is shown with its past."""

    def __init__(self, spec: EnvironmentSpec):
        """`spec` is that of the environment; of several images, the first is shown."""
        self._key, image = shown_image(spec)
        if self._key is not None:
            spec = spec._replace(observation=image)
        self._spec = spec
        self._past: deque[np.ndarray] = deque(maxlen=_TRACE_STEPS)
        self._low: np.ndarray = np.zeros(0)
        self._high: np.ndarray = np.zeros(0)

    def draw(self, moment: Moment) -> Image.Image:
        """The picture, at most `MAX_WIDTH` × `HEIGHT` pixels, with saliency over it."""
        if self._key is not None:
            moment = moment._replace(observation=moment.observation[self._key])
        # Saliency belongs to what the network reads. Atari's pictures show that, all of it; other
        # pictures are put aside.
        is_read = moment.saliency is None or self._spec.is_atari
        picture = moment.picture if is_read else None
        if picture is not None:
            image = fit(picture)
        else:
            observed = observed_picture(moment.observation, self._spec)
            if observed is None:
                return self._draw_traces(moment)
            image = fit(observed)
        if moment.saliency is not None:
            image = lay_over(image, moment.saliency)
        if self._spec.is_one_hot and picture is None:
            _write_numbers(image, moment.observation)
        return image

    def _draw_traces(self, moment: Moment) -> Image.Image:
        """Every number of a vector over time, each in the range that it has had until now."""
        numbers = moment.observation.ravel()[:_MAX_TRACES]
        if moment.num_steps == 0:
            self._past.clear()
            self._low, self._high = numbers, numbers
        self._past.append(numbers)
        self._low, self._high = np.minimum(self._low, numbers), np.maximum(self._high, numbers)

        image = Image.new("RGB", (MAX_WIDTH, HEIGHT), style.CARD)
        title = "observation"
        if moment.observation.size > len(numbers):
            title = f"{title}: the first {len(numbers)} of {moment.observation.size}"
        past = np.stack(self._past)
        left, right, top, bottom = 44, MAX_WIDTH - 64, 34, HEIGHT - 10
        row_height = (bottom - top) / len(numbers)
        lines = style.Lines(image)
        for index in range(len(numbers)):
            span = max(float(self._high[index] - self._low[index]), 1e-9)
            shares = (past[:, index] - self._low[index]) / span
            base = top + (index + 0.9) * row_height
            heights = base - 0.8 * row_height * shares
            steps = left + (right - left) * np.arange(len(past)) / (_TRACE_STEPS - 1)
            lines.add(np.stack([steps, heights], axis=1), style.ACCENT)
        image = lines.drawn()
        style.write(image, (14, 10), title, style.MUTED, 12)
        for index, number in enumerate(numbers):
            middle = top + (index + 0.5) * row_height
            style.write(image, (14, middle), f"{index}", style.MUTED, 11, anchor="lm")
            text = style.short_number(float(number))
            style.write(image, (MAX_WIDTH - 14, middle), text, style.TEXT, 11, anchor="rm")
        return image


def observed_picture(observation: np.ndarray, spec: EnvironmentSpec) -> np.ndarray | None:
    """What the network reads as a picture, uint8 `[height, width, 3]`; None for a vector.

    The newest of stacked frames, all channels of a small image at once, the numbers of a matrix
    from dark to light or, for numbered states, a board with a field for each.
    """
    if spec.is_image:
        frames = blocks_to_frames(observation[None])[0]
        black, white = _announced(spec.observation_space)
        shares = (frames.astype(np.float32) - black) / (white - black)
        frames = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
        newest = frames if len(frames) == 3 else frames[-1:]  # three channels are colours
        if len(frames) != 3 and min(frames.shape[1:]) < _BOARD_SIDE:
            newest = frames.max(axis=0, keepdims=True)
        return np.moveaxis(np.broadcast_to(newest, (3, *newest.shape[1:])), 0, -1)
    if spec.is_one_hot:
        observation = _board(observation)
    if observation.ndim != 2:
        return None
    low, high = float(observation.min()), float(observation.max())
    shares = (observation - low) / max(high - low, 1e-9)
    colours = np.array([style.CARD, style.ACCENT])
    return (colours[0] + shares[..., None] * (colours[1] - colours[0])).astype(np.uint8)


def _announced(space: Any) -> tuple[int, int]:
    """The bytes that a space announces: 0 and 1 for a board of zeros and ones, for example."""
    if not (isinstance(space, Box) and space.dtype == np.uint8):
        return 0, 255
    black, white = int(space.low.min()), int(space.high.max())
    return (black, white) if black < white else (0, 255)


def _board(states: np.ndarray) -> np.ndarray:
    """Lays out one number for each state on a board as nearly square as possible."""
    side = math.ceil(math.sqrt(len(states)))
    board = np.zeros(side * math.ceil(len(states) / side), states.dtype)
    board[: len(states)] = states
    return board.reshape(-1, side)


def _write_numbers(image: Image.Image, states: np.ndarray) -> None:
    rows, columns = _board(states).shape
    if columns > 8:  # no room
        return
    for state in range(len(states)):
        row, column = divmod(state, columns)
        centre = ((column + 0.5) * image.width / columns, (row + 0.5) * image.height / rows)
        colour = style.BACKGROUND if states[state] else style.MUTED
        style.write(image, centre, str(state), colour, 13, anchor="mm")


def fit(picture: np.ndarray) -> Image.Image:
    """Enlarges a picture by a whole number, so that pixels stay square and sharp, or shrinks it."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = min(MAX_WIDTH / image.width, HEIGHT / image.height)
    if factor >= 1:
        factor = math.floor(factor)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(size, Image.Resampling.BOX)


def lay_over(image: Image.Image, saliency: Saliency) -> Image.Image:
    """Makes a picture grey and dim, and adds light of two colours where policy and value look.

    Args:
      image: RGB.
      saliency: from 0, no light, to 1; of any size.
    """
    light = _DIMMED * np.asarray(image.convert("L"), np.float32)[..., None]
    for brightness, colour in zip(saliency, (style.ACTOR, style.CRITIC), strict=True):
        grid = Image.fromarray(np.asarray(brightness, np.float32))
        smooth = np.asarray(grid.resize(image.size, Image.Resampling.BICUBIC))
        light = light + smooth.clip(0, 1)[..., None] * (_LIT * np.array(colour, np.float32))
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))
