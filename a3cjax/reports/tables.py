"""Tables as plain data, which HTML and Markdown render alike; numbers as people read them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CURVE_POINTS = 60
CURVE_QUANTILES = (0.02, 0.98)  # at bottom and top: else a single peak would flatten all the rest
LEAST_CHANGE = 0.1  # from bottom to top, at least: what hardly changes should look so
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by: None comes last.

    `curve` is drawn above the text where pictures can be: points of a line, x and y from 0 to 1.
    """

    text: str
    value: float | str | None = None
    is_code: bool = False
    curve: tuple[tuple[float, float], ...] = ()


class Table(NamedTuple):
    """A table; `numeric` says for each column whether it holds numbers."""

    name: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]


def make_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Makes a table; a column is numeric if none of its cells has a value that is text.

    Raises:
      ValueError: if a row has more or fewer cells than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row must have {len(columns)} cells, got {len(row)} in {name}.")
    numeric = tuple(
        all(not isinstance(row[index].value, str) for row in rows) for index in range(len(columns))
    )
    return Table(name, tuple(columns), numeric, tuple(tuple(row) for row in rows))


def text_cell(text: object, *, is_code: bool = False) -> Cell:
    """A cell of words, on one line."""
    words = " ".join(str(text).split())
    return Cell(words or DASH, words.lower(), is_code)


def number_cell(value: float, digits: int = 0) -> Cell:
    """A number with thousands separators; a dash for NaN."""
    return Cell(format_number(value, digits), _sortable(value))


def score_cell(value: float) -> Cell:
    """A raw score."""
    return Cell(format_score(value), _sortable(value))


def percent_cell(fraction: float, digits: int = 0) -> Cell:
    """A fraction as percent."""
    return Cell(format_percent(fraction, digits), _sortable(fraction))


def curve_cell(values: npt.NDArray[np.float64]) -> Cell:
    """How a number developed: its curve and both its ends, averaged; a dash if it is unknown."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Cell(DASH)
    parts = np.array_split(values, min(len(values), CURVE_POINTS))
    means = np.array([part.mean() for part in parts])
    low, high = np.quantile(means, CURVE_QUANTILES)
    height = max(high - low, LEAST_CHANGE * max(abs(low), abs(high))) or 1.0
    heights = np.clip(0.5 + (means - (low + high) / 2) / height, 0, 1)
    x = np.linspace(0, 1, len(means))
    text = f"{_three_digits(means[0])} → {_three_digits(means[-1])}"
    curve = tuple(zip(x.tolist(), heights.tolist(), strict=True))
    return Cell(text, float(means[-1]), curve=curve)


def _three_digits(value: float) -> str:
    """A number with about three digits, whatever its size."""
    digits = 2 - math.floor(math.log10(max(abs(value), 1e-2)))
    return format_number(value, min(max(digits, 0), 3))


def frames_cell(frames: float) -> Cell:
    """Frames, in millions or thousands."""
    return Cell(format_frames(frames), _sortable(frames))


def seconds_cell(seconds: float) -> Cell:
    """A duration."""
    return Cell(format_duration(seconds), _sortable(seconds))


def format_number(value: float, digits: int = 0) -> str:
    """`−1,234.5`; a dash for what is not finite."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    is_zero = not text.strip("-0.,")
    return text.lstrip("-") if is_zero else text.replace("-", MINUS)


def format_score(value: float) -> str:
    """A raw score: a decimal below 100, and two digits that count below 1."""
    size = abs(value)
    if 0 < size < 1e-4:
        return f"{value:.2g}".replace("-", MINUS)
    digits = 1 - math.floor(math.log10(size)) if 0 < size < 1 else int(size < 100)
    return format_number(value, digits)


def format_percent(fraction: float, digits: int = 0) -> str:
    """`113 %`."""
    text = format_number(100 * fraction, digits)
    return text if text == DASH else f"{text} %"


def format_frames(frames: float) -> str:
    """`6.0M`, `250k` or `800`."""
    if not math.isfinite(frames):
        return DASH
    if frames >= 1e6:
        return f"{frames / 1e6:,.1f}M"
    return f"{frames / 1e3:.0f}k" if frames >= 1e4 else f"{frames:.0f}"


def format_duration(seconds: float) -> str:
    """`1 h 02 min`, `29 min` or `45 s`."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def format_range(low: float, high: float) -> str:
    """`18.9 to 19.9`."""
    return f"{format_score(low)} to {format_score(high)}"


def _sortable(value: float) -> float | None:
    return value if math.isfinite(value) else None
