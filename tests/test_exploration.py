"""The laws of exploration: how ε falls, what it ends at, and how actors differ."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.exploration import (
    EVALUATION_EPSILON,
    FINAL_EPSILONS,
    FINAL_PROBABILITIES,
    evaluation_exploration,
    make_explore,
    spread_factors,
)
from tests.cases import for_each

NUM_FRAMES = 1000
B = 5


def final_epsilons(seed, actor_index, num_envs):
    return make_explore(seed, actor_index, num_envs, num_frames=NUM_FRAMES)(NUM_FRAMES).epsilons


def test_epsilon_is_one_at_first_and_final_at_last():
    explore = make_explore(1, 0, 100, num_frames=NUM_FRAMES)
    np.testing.assert_array_equal(explore(0).epsilons, np.ones(100))
    assert set(explore(NUM_FRAMES).epsilons) == set(np.float32(FINAL_EPSILONS))


@for_each("frames_now", [1, 250, 500, 999, 1000, 1001, 10**15])
def test_epsilon_falls_in_a_line(frames_now):
    explore = make_explore(1, 0, B, num_frames=NUM_FRAMES)
    finals = explore(NUM_FRAMES).epsilons.astype(float)
    weight = min(1, frames_now / NUM_FRAMES)
    np.testing.assert_allclose(
        explore(frames_now).epsilons, (1 - weight) * 1.0 + weight * finals, rtol=1e-6
    )


def test_final_values_are_those_of_the_paper_with_its_probabilities():
    # Mnih et al. 2016, section 8.
    assert dict(zip(FINAL_EPSILONS, FINAL_PROBABILITIES, strict=True)) == {
        0.1: 0.4,
        0.01: 0.3,
        0.5: 0.3,
    }
    # Standard deviations are at most √(¼ / 20000) = 0.0035, whether one actor has all
    # environments or each has a few.
    one_actor = final_epsilons(1, 0, 20_000)
    many_actors = np.concatenate([final_epsilons(1, index, 10) for index in range(2000)])
    for finals in (one_actor, many_actors):
        frequencies = [np.mean(finals == np.float32(epsilon)) for epsilon in FINAL_EPSILONS]
        np.testing.assert_allclose(frequencies, FINAL_PROBABILITIES, atol=0.02)


def test_draws_follow_from_seed_and_actor():
    draws = {
        (seed, index): tuple(final_epsilons(seed, index, 50))
        for seed in range(4)
        for index in range(4)
    }
    for (seed, index), draw in draws.items():
        assert tuple(final_epsilons(seed, index, 50)) == draw
    assert len(set(draws.values())) == len(draws)


def test_neither_frames_nor_entropy_factor_change_the_draws():
    explore = make_explore(3, 2, 50, num_frames=7, entropy_factor=2.0)
    np.testing.assert_array_equal(explore(7).epsilons, final_epsilons(3, 2, 50))


def test_final_values_are_drawn_anew_after_every_period_and_once_without():
    explore = make_explore(1, 0, 50, num_frames=NUM_FRAMES, period_frames=NUM_FRAMES)
    draws = [tuple(explore(number * NUM_FRAMES).epsilons) for number in range(1, 4)]
    assert len(set(draws)) == 3
    for number, draw in enumerate(draws, start=1):  # until the end of the period
        assert tuple(explore((number + 1) * NUM_FRAMES - 1).epsilons) == draw
    once = make_explore(1, 0, 50, num_frames=NUM_FRAMES)
    np.testing.assert_array_equal(once(10**9).epsilons, once(NUM_FRAMES).epsilons)


@given(frames_now=st.integers(0, 2 * NUM_FRAMES), num_envs=st.integers(1, 20))
def test_every_environment_has_a_probability_of_its_own(frames_now, num_envs):
    explore = make_explore(1, 0, num_envs, num_frames=NUM_FRAMES, entropy_factor=0.5)
    epsilons, entropy_factor, _ = explore(frames_now)
    assert (epsilons.shape, epsilons.dtype) == ((num_envs,), np.float32)
    assert np.all((epsilons >= np.float32(0.01)) & (epsilons <= 1))
    assert (np.shape(entropy_factor), entropy_factor.dtype) == ((), np.float32)
    assert entropy_factor == 0.5


def test_every_call_gives_arrays_of_its_own():
    explore = make_explore(1, 0, B, num_frames=NUM_FRAMES)
    before = explore(NUM_FRAMES).epsilons
    expected = before.copy()
    explore(NUM_FRAMES).epsilons[:] = 0.0
    np.testing.assert_array_equal(before, expected)


def test_entropy_is_left_alone_by_default():
    exploration = make_explore(1, 0, B, num_frames=NUM_FRAMES)(0)
    assert exploration.entropy_factor == 1.0
    assert exploration.target_entropy is None


@for_each(
    ("frames_now", "expected"), [(0, 1.0), (250, 0.8), (999, 0.2008), (1000, 0.2), (10**15, 0.2)]
)
def test_target_entropy_falls_in_a_line_from_that_of_random_play(frames_now, expected):
    explore = make_explore(1, 0, B, num_frames=1, target_entropy=0.2, total_frames=1000)
    exploration = explore(frames_now)
    assert exploration.target_entropy.dtype == np.float32
    np.testing.assert_allclose(exploration.target_entropy, expected, rtol=1e-5)
    assert exploration.entropy_factor == 1.0


@for_each(
    ("target_entropy", "total_frames", "rule"),
    [
        (0.5, None, "total_frames must be given with a target_entropy."),
        (0.5, 0, "total_frames must be >= 1 and finite, got 0."),
        (1.5, 10, "target_entropy must be in [0, 1], got 1.5."),
        (-0.1, 10, "target_entropy must be in [0, 1], got -0.1."),
        (math.nan, 10, "target_entropy must be in [0, 1], got nan."),
    ],
)
def test_target_that_no_policy_can_come_to_is_refused(target_entropy, total_frames, rule):
    targets = {"target_entropy": target_entropy, "total_frames": total_frames}
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        make_explore(1, 0, B, num_frames=NUM_FRAMES, **targets)


def test_evaluation_explores_a_little_everywhere():
    epsilons, entropy_factor, target_entropy = evaluation_exploration(B)
    # Mnih et al. 2015, methods.
    assert EVALUATION_EPSILON == 0.05
    np.testing.assert_array_equal(epsilons, np.full(B, 0.05, np.float32))
    assert epsilons.dtype == np.float32
    assert entropy_factor == 1.0
    assert target_entropy is None


@for_each(
    ("num_actors", "spread", "expected"),
    [
        (1, 4.0, [1.0]),
        (2, 4.0, [0.25, 4.0]),
        (3, 4.0, [0.25, 1.0, 4.0]),
        (5, 4.0, [0.25, 0.5, 1.0, 2.0, 4.0]),
        (3, 1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_factors_by_hand(num_actors, spread, expected):
    np.testing.assert_allclose(spread_factors(num_actors, spread), expected, rtol=1e-12)


@given(num_actors=st.integers(2, 50), spread=st.floats(1, 1e3))
def test_factors_are_symmetric_around_one(num_actors, spread):
    factors = spread_factors(num_actors, spread)
    assert len(factors) == num_actors
    assert all(type(factor) is float for factor in factors)
    np.testing.assert_allclose([factors[0], factors[-1]], [1 / spread, spread], rtol=1e-9)
    np.testing.assert_allclose(np.multiply(factors, factors[::-1]), np.ones(num_actors), rtol=1e-9)
    np.testing.assert_allclose(math.prod(factors), 1.0, rtol=1e-6)
    # Evenly on a logarithmic scale, from the smallest to the largest.
    steps = np.diff(np.log(factors))
    np.testing.assert_allclose(steps, np.full(num_actors - 1, np.mean(steps)), atol=1e-9)
    assert np.all(steps >= 0)


@for_each(
    ("argument", "value", "least"),
    [
        *(("num_frames", value, 1) for value in (0, -5, math.nan)),
        *(("num_envs", value, 1) for value in (0, -1)),
        ("seed", -1, 0),
        ("actor_index", -1, 0),
        *(("entropy_factor", value, 0) for value in (-0.5, math.nan, math.inf)),
    ],
)
def test_arguments_without_meaning_are_refused_by_name(argument, value, least):
    arguments = {"seed": 1, "actor_index": 0, "num_envs": B, "num_frames": NUM_FRAMES}
    rule = f"^{argument} must be >= {least} and finite, got {value}.$"
    with pytest.raises(ValueError, match=rule):
        make_explore(**arguments | {argument: value})


@for_each(
    ("function", "arguments", "name"),
    [
        (evaluation_exploration, (0,), "num_envs"),
        (spread_factors, (0, 2.0), "num_actors"),
        (spread_factors, (-1, 2.0), "num_actors"),
        (spread_factors, (3, 0.5), "spread"),
        (spread_factors, (3, math.nan), "spread"),
    ],
)
def test_kinds_of_exploration_refuse_what_is_too_little(function, arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be >= 1 and finite, got "):
        function(*arguments)
