"""Colours, letters and lines of a video."""

import functools
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BACKGROUND: Colour = (13, 17, 23)
CARD: Colour = (22, 27, 34)
RULE: Colour = (48, 54, 61)
TEXT: Colour = (230, 237, 243)
MUTED: Colour = (139, 148, 158)
ACCENT: Colour = (88, 166, 255)
CHOSEN: Colour = (240, 180, 70)
GAIN: Colour = (63, 185, 80)
LOSS: Colour = (248, 81, 73)
# Blue and orange differ for every kind of colour-blind eyes (Okabe & Ito 2008).
ACTOR: Colour = (60, 150, 255)
CRITIC: Colour = (255, 140, 0)

_LETTERS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_LEAST_SIZE = 7  # of letters that can be read
_SCALE = 2  # lines are drawn this many times as large, then made smaller: smooth edges


def write(
    image: Image.Image,
    place: tuple[float, float],
    text: str,
    colour: Colour,
    size: int,
    *,
    is_bold: bool = False,
    anchor: str = "la",
    max_width: float = math.inf,
) -> None:
    """Writes a line of text into an image.

    Args:
      image: RGB; changed.
      place: where the anchor goes, (x, y).
      text: not empty.
      colour: of the letters.
      size: of the letters, in pixels.
      is_bold: for titles and what changes.
      anchor: Pillow's two letters: left, middle or right, and ascender, middle or baseline.
      max_width: in pixels; where it is not enough, the letters are smaller.
    """
    mask, left, top = _letters(text, size, is_bold, anchor)
    while mask.width > max_width and size > _LEAST_SIZE:
        size -= 1
        mask, left, top = _letters(text, size, is_bold, anchor)
    image.paste(colour, (round(place[0]) + left, round(place[1]) + top), mask)


@functools.lru_cache(maxsize=4096)
def _letters(text: str, size: int, is_bold: bool, anchor: str) -> tuple[Image.Image, int, int]:
    """A mask of the text, and its offset from the anchor; cached, since most texts recur."""
    font = _font(size, is_bold)
    box = font.getbbox(text, anchor=anchor)
    left, top = math.floor(box[0]), math.floor(box[1])
    mask = Image.new("L", (math.ceil(box[2]) - left, math.ceil(box[3]) - top))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, font, anchor=anchor)
    return mask, left, top


@functools.cache
def _font(size: int, is_bold: bool) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which has all mathematical symbols."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_LETTERS / name), size)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A mix of two colours, from the first (`share` 0) to the second (1)."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def short_number(number: float) -> str:
    """Whole numbers with separators, others with about three digits."""
    if number.is_integer() and abs(number) < 1e9:
        text = f"{number:,.0f}"
    elif abs(number) >= 1e6 or 0 < abs(number) < 1e-3:
        text = f"{number:.1e}"
    elif abs(number) >= 100:
        text = f"{number:,.0f}"
    elif abs(number) >= 10:
        text = f"{number:.1f}"
    else:
        text = f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.3f}"
    return text.replace("-", "−")


class Lines:
    """Draws smooth lines into an image."""

    def __init__(self, image: Image.Image):
        """`image` is left as it is."""
        size = (image.width * _SCALE, image.height * _SCALE)
        self._large = image.resize(size, Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._large)

    def add(self, points: np.ndarray, colour: Colour, width: float = 1.5) -> None:
        """A line through float `[N, 2]` points, (x, y) in pixels of the image."""
        if len(points) > 1:
            corners = (points * _SCALE).ravel().tolist()
            self._draw.line(corners, colour, round(width * _SCALE), joint="curve")

    def add_dot(self, x: float, y: float, colour: Colour, radius: float = 3.5) -> None:
        """A filled circle."""
        self._draw.circle((x * _SCALE, y * _SCALE), radius * _SCALE, colour)

    def drawn(self) -> Image.Image:
        """The image with all lines."""
        return self._large.reduce(_SCALE)
