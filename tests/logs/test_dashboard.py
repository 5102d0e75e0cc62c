import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.logs.dashboard import ASCII, BLOCKS, Curve, draw_curve, draw_parts, flow, format_seconds


def filled(pairs, **settings):
    curve = Curve(**settings)
    for num_frames, value in pairs:
        curve.add(num_frames, value)
    return curve


def test_curve_gives_back_what_it_was_given():
    curve = filled((index, float(index**2)) for index in range(8))
    assert curve.columns(8) == [index**2 for index in range(8)]


def test_columns_are_means_over_equal_parts():
    curve = filled([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)])
    assert curve.columns(2) == [2.0, 6.0]
    assert curve.columns(1) == [4.0]
    assert curve.columns(8) == [1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 7.0, 7.0]


def test_values_count_alike_however_many_fall_into_an_interval():
    assert filled([(0, 1.0), (0, 1.0), (0, 4.0), (1, 9.0)]).columns(2) == [2.0, 9.0]


def test_gaps_hold_the_value_before_them():
    columns = filled([(2, 1.0), (5, 7.0)]).columns(6)
    assert math.isnan(columns[0])
    assert math.isnan(columns[1])
    assert columns[2:] == [1.0, 1.0, 1.0, 7.0]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.floats(-1e6, 1e6)), min_size=1))
def test_curve_stays_small_and_loses_no_value(pairs):
    curve = filled(pairs, max_size=8)
    sums, counts = curve._sums_and_counts
    assert len(sums) == len(counts) == 8
    assert counts.sum() == len(pairs)
    assert sums.sum() == pytest.approx(sum(value for _, value in pairs), abs=1e-3)


def test_long_curve_keeps_its_shape():
    frames = np.arange(0, 10_000_000, 1237)
    curve = filled((int(frame), frame / 1e6) for frame in frames)
    assert curve.columns(10) == pytest.approx(np.arange(10) + 0.5, abs=0.3)


def test_lowest_value_is_visible_and_the_highest_full():
    low, high = draw_curve([0.0, 10.0], 1, BLOCKS)[0].plain[-2:]
    assert (low, high) == ("▁", "█")
    rows = [line.plain[-3:] for line in draw_curve([-1.0, math.nan, 1.0], 2, ASCII)]
    assert rows == ["  #", ". #"]


def test_curve_of_nothing_takes_no_room():
    assert draw_curve([math.nan] * 3, 4, BLOCKS) == []
    assert draw_curve([1.0], 0, BLOCKS) == []


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 100))
def test_parts_fill_their_bar(weights, width):
    total = sum(weights)
    if not total:
        return
    fractions = [weight / total for weight in weights]
    bar = draw_parts(fractions, width, ASCII).plain
    assert len(bar) == width
    for letter, fraction in zip("ealp", fractions, strict=True):
        assert abs(bar.count(letter) - fraction * width) <= 1.01


def test_unknown_parts_are_an_empty_bar():
    assert draw_parts([math.nan] * 4, 10, ASCII).plain == ""


def test_fields_break_between_each_other():
    fields = [("frames/s", "1,000"), ("left", "1:00"), ("updates", "12")]
    assert [line.plain for line in flow(fields, 30)] == ["frames/s 1,000   left 1:00", "updates 12"]
    assert [line.plain for line in flow(fields, 26)] == ["frames/s 1,000   left 1:00", "updates 12"]
    assert len(flow(fields, 25)) == 2
    assert len(flow(fields, 10)) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (3661, "1:01:01"),
        (360_000, "100:00:00"),
        (math.nan, "?"),
    ],
)
def test_seconds_are_written_as_a_clock_shows_them(seconds, text):
    assert format_seconds(seconds) == text
