import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from a3cjax.logs.dashboard import NUM_INTERVALS, Curve, clock, shown
from tests.cases import for_each


def filled(pairs, total_frames=NUM_INTERVALS):
    curve = Curve(total_frames)
    for num_frames, value in pairs:
        curve.add(num_frames, value)
    return curve


@for_each(
    ("score", "expected"),
    [
        (12.5, "12.50"),
        (-0.25, "-0.25"),
        (0.0, "0.00"),
        (0.0016, "0.0016"),
        (-2.5e-7, "-2.5e-07"),
        (1.25e9, "1.25e+09"),
        (math.nan, "-"),
        (math.inf, "inf"),
    ],
)
def test_scores_of_all_sizes_can_be_read(score, expected):
    assert shown(score) == expected


def test_curve_gives_back_what_it_was_given():
    curve = filled((index, float(index**2)) for index in range(8))
    assert curve.columns(8).tolist() == [index**2 for index in range(8)]


def test_columns_are_means_over_equal_parts():
    curve = filled([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)])
    assert curve.columns(2).tolist() == [2.0, 6.0]
    assert curve.columns(1).tolist() == [4.0]
    assert curve.columns(8).tolist() == [1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 7.0, 7.0]


def test_values_count_alike_however_many_fall_into_an_interval():
    assert filled([(0, 1.0), (0, 1.0), (0, 4.0), (1, 9.0)]).columns(2).tolist() == [2.0, 9.0]


def test_gaps_hold_the_value_before_them():
    columns = filled([(2, 1.0), (5, 7.0)]).columns(6)
    np.testing.assert_array_equal(columns, [math.nan, math.nan, 1.0, 1.0, 1.0, 7.0])


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.floats(-1e6, 1e6)), min_size=1),
    st.integers(1, 10**12),
)
def test_curve_loses_no_value(pairs, total_frames):
    (mean,) = filled(pairs, total_frames).columns(1)
    assert mean == pytest.approx(np.mean([value for _, value in pairs]), abs=1e-3)


def test_long_curve_keeps_its_shape():
    frames = np.arange(0, 10_000_000, 1237)
    curve = filled(((int(frame), frame / 1e6) for frame in frames), 20_000_000)
    assert curve.columns(10) == pytest.approx(np.arange(10) + 0.5, abs=0.3)


def drawn(curve, num_rows, width, encoding="utf-8"):
    """The lines of a curve, without what stands at their left."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=12 + width, height=25)
    lines = console.render_lines(curve, console.options.update_height(num_rows))
    return ["".join(segment.text for segment in line)[12:] for line in lines]


def test_lowest_value_is_visible_and_the_highest_full():
    assert drawn(filled([(0, 0.0), (1, 10.0)]), 1, 2) == ["▁█"]
    assert drawn(filled([(1, -1.0), (2, 1.0)]), 2, 3, "ascii") == ["  #", " .#"]


def test_curve_of_nothing_is_empty():
    assert drawn(filled([]), 2, 5) == [" " * 5] * 2
    assert drawn(filled([(0, math.inf)]), 2, 5) == [" " * 5] * 2


@for_each(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (9.4, "0:00:09"),
        (59.6, "0:01:00"),
        (61, "0:01:01"),
        (3599.7, "1:00:00"),
        (3661, "1:01:01"),
        (360_000, "4 days, 4:00:00"),
        (math.nan, "?"),
        (1e300, "?"),
    ],
)
def test_seconds_are_written_as_a_clock_shows_them(seconds, text):
    assert clock(seconds) == text
