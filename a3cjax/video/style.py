"""Colours, letters and lines of a video."""

import functools
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
HEAT: Colour = (255, 70, 50)

_LETTERS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_SCALE = 2  # lines are drawn this many times as large, then made smaller: smooth edges


@functools.cache
def font(size: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """The letters of matplotlib, which have all of mathematics in them."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_LETTERS / name), size)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """From the first (`share` 0) to the second colour (1)."""
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
    else:
        text = f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"
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
