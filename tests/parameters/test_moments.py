"""What rewards and observations are divided by: against NumPy, slow loops and laws of scale."""

import functools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a3cjax.agents.experience import clean
from a3cjax.parameters.moments import (
    MIN_RETURN_DEVIATION,
    discounted_sums,
    entry_scale,
    merge,
    merge_seen,
    moments_of,
    moments_of_new,
    renew,
    reward_scale,
)
from a3cjax.types import Moments, ObservationStatistics, Seen, Trajectory
from tests.cases import for_each

T, B = 9, 3
numbers = st.floats(-1e6, 1e6)
seeds = st.integers(0, 2**32 - 1)


@given(hnp.arrays(np.float32, (12, 2), elements=st.floats(-1e6, 1e6, width=32)), st.data())
def test_moments_agree_with_numpy_however_they_are_cut_and_merged(values, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=5)))
    parts = [moments_of(part, (2,)) for part in np.split(values, cuts)]  # some of nothing
    from_left = functools.reduce(merge, parts)
    from_right = functools.reduce(lambda one, other: merge(other, one), reversed(parts))
    expected = values.astype(np.float64)
    for moments in (from_left, from_right):
        assert moments.num_seen == 12
        np.testing.assert_allclose(moments.mean, expected.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(moments.variance, expected.var(axis=0), rtol=1e-9, atol=1e-9)
        assert {np.asarray(part).dtype for part in moments} == {np.dtype(np.float64)}


@for_each("first", [1e9, 0.0, -1e9])
def test_small_deviations_from_a_large_mean_are_seen(first):
    # Wherever the sums begin: with what all the others are like, or far away.
    values = 1e9 + 1e4 * np.random.default_rng(0).normal(size=(4000, 2))
    values[0] = first
    parts = [moments_of(part, (2,)) for part in np.split(values, [1, 1000, 1001, 3000])]
    scale = entry_scale(functools.reduce(merge, parts))
    np.testing.assert_allclose(scale, values.std(axis=0), rtol=1e-5)


@for_each("num_images", [1, 8, 257, 258, 70_000])  # sums of 257 have 16 bits, squares of 66,051 32
def test_moments_of_bytes_agree_with_numpy(num_images):
    values = np.random.default_rng(0).integers(250, 256, (num_images, 3), dtype=np.uint8)
    values[:, 0] = 255
    moments = moments_of(values, (3,))
    np.testing.assert_array_equal(moments.mean, values.mean(axis=0))
    np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=1e-9, atol=1e-9)
    assert moments.variance[0] == 0
    assert {np.asarray(part).dtype for part in moments} == {np.dtype(np.float64)}


# Discounted sums of rewards.


def random_steps(seed):
    """Rewards, discounts and first steps of B environments: episodes end, and are truncated."""
    rng = np.random.default_rng(seed)
    is_first = rng.random((T + 1, B)) < 0.3
    discounts = np.where(rng.random((T, B)) < 0.3, 0.0, 0.9)
    is_idle = rng.random((T, B)) < 0.2
    rewards = np.where(is_idle, 0.0, rng.normal(size=(T, B)))
    return rewards, np.where(is_idle, 1.0, discounts), is_first, rng.normal(size=B)


def slow_sums(rewards, discounts, is_first, before):
    """Each step's sum, term by term; NaN for transitions into a first observation."""
    sums = np.full((T, B), np.nan)
    for t, b in np.ndindex(T, B):
        if is_first[t + 1, b]:
            continue
        begin = max((s for s in range(t + 1) if is_first[s, b]), default=None)
        if begin is None:
            sums[t, b] = np.prod(discounts[:t, b]) * before[b]
        else:
            sums[t, b] = 0.0
        for k in range(begin or 0, t + 1):
            sums[t, b] += np.prod(discounts[k:t, b]) * rewards[k, b]
    return sums


@given(seeds, st.integers(0, T))
def test_discounted_sums_are_those_of_the_slow_loop_however_unrolls_are_cut(seed, cut):
    rewards, discounts, is_first, before = random_steps(seed)
    expected = slow_sums(rewards, discounts, is_first, before)
    head, between = discounted_sums(rewards[:cut], discounts[:cut], is_first[: cut + 1], before)
    tail, _ = discounted_sums(rewards[cut:], discounts[cut:], is_first[cut:], between)
    sums = np.where(np.isnan(expected), np.nan, np.concatenate([head, tail]))
    np.testing.assert_allclose(sums, expected, rtol=1e-9, atol=1e-9)


def test_discounted_sums_by_hand():
    # An episode of 1, 2, 4 that is truncated, its reset, and 8; γ = ½. Before it stood ½ · 6.
    sums, after = discounted_sums(
        np.array([[1.0], [2.0], [4.0], [99.0], [8.0]]),
        np.array([[0.5], [0.5], [0.5], [99.0], [0.5]]),
        np.array([[0], [0], [0], [0], [1], [0]], bool),
        np.array([3.0]),
    )
    np.testing.assert_array_equal(sums[[0, 1, 2, 4], 0], [4.0, 4.0, 6.0, 8.0])
    np.testing.assert_array_equal(after, [4.0])


# What rewards are divided by.


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=numbers), st.floats(1e-3, 1e3))
def test_scale_of_rewards_is_the_returns_deviation_and_follows_their_unit(returns, unit):
    scale = reward_scale(moments_of(returns))
    assert scale.dtype == np.float32
    least = MIN_RETURN_DEVIATION * abs(returns.mean())
    expected = np.hypot(returns.std(), least)
    if not 1e-38 < expected < 2e-38:  # about the least number of 32 bits with all its digits
        np.testing.assert_allclose(scale, expected if expected > 1e-38 else 1, rtol=1e-5)
    if returns.std() + least > 1e-3:
        other = reward_scale(moments_of(unit * returns))
        np.testing.assert_allclose(other, unit * scale, rtol=1e-5)


@for_each(
    ("returns", "scale"), [([], 1), ([0, 0, 0], 1), ([5, 5, 5], 0.5), ([-5, -5], 0.5), ([3, -3], 3)]
)
def test_scale_of_rewards_where_returns_are_none_or_all_alike(returns, scale):
    np.testing.assert_allclose(reward_scale(moments_of(returns)), scale, rtol=1e-6)


def test_rewards_are_divided_by_their_scale_and_then_clipped():
    steps = np.ones((3, 1), np.float32)
    is_first = np.zeros((4, 1), bool)
    rewards = np.array([[4.0], [-100.0], [7.0]], np.float32)
    trajectory = Trajectory(np.zeros((4, 1, 1)), steps, rewards, steps, is_first, ())
    is_experience = np.array([[True], [True], [False]])
    cleaned = clean(trajectory, is_experience, None, np.float32(2.0))
    np.testing.assert_array_equal(cleaned.rewards, [[2.0], [-10.0], [0.0]])
    both = clean(trajectory._replace(rewards=rewards / 4), is_experience, 1.0, np.float32(2.0))
    np.testing.assert_array_equal(both.rewards, [[0.5], [-1.0], [0.0]])


# What observations are centred by.


def test_moments_of_new_observations_leave_out_images_and_idle_steps():
    seen = {"eye": np.full((2, 3, 4), 200, np.uint8), "vector": np.arange(12.0).reshape(2, 3, 2)}
    is_idle = np.array([[False, True, False], [True, False, False]])
    like = {"eye": None, "vector": moments_of((), (2,))}
    moments = moments_of_new(like, seen, is_idle)
    assert moments["eye"] is None
    kept = seen["vector"][[0, 0, 1, 1], [0, 2, 1, 2]]
    expected = moments_of(kept, (2,))
    assert moments["vector"].num_seen == 4
    np.testing.assert_array_equal(moments["vector"].mean, expected.mean)
    np.testing.assert_array_equal(moments["vector"].variance, expected.variance)


def test_statistics_of_vectors_are_renewed_and_those_of_images_kept():
    old = ObservationStatistics(
        {"eye": np.full(4, 9.0, np.float32), "vector": np.zeros(2, np.float32)},
        {"eye": np.float32(3.0), "vector": np.ones(2, np.float32)},
    )
    moments = Moments(np.array(2.0), np.array([1e9, 5.0]), np.array([4.0, 4.0]))
    new = renew(old, {"eye": None, "vector": moments})
    assert new.mean["eye"] is old.mean["eye"]
    assert new.scale["eye"] is old.scale["eye"]
    np.testing.assert_array_equal(new.mean["vector"], np.array([1e9, 5.0], np.float32))
    np.testing.assert_array_equal(new.scale["vector"], [1.0, 2.0])  # the first hardly deviates
    assert {new.mean["vector"].dtype, new.scale["vector"].dtype} == {np.dtype(np.float32)}
    assert renew(old, None) is old
    assert renew(None, {"eye": None, "vector": moments}) is None


def test_images_beside_numbers_have_no_moments_and_the_numbers_theirs():
    like = {"camera": None, "vector": moments_of([], (2,))}
    images = np.zeros((3, 4, 1, 1, 16), np.uint8)
    vectors = np.arange(24.0).reshape(3, 4, 2)
    is_idle = np.zeros((3, 4), bool)
    is_idle[1, 2] = True

    new = moments_of_new(like, {"camera": images, "vector": vectors}, is_idle)
    seen = merge_seen(Seen(None, like), Seen(None, new)).observations

    assert new["camera"] is None
    assert seen["camera"] is None
    assert seen["vector"].num_seen == 11
    np.testing.assert_allclose(seen["vector"].mean, vectors[~is_idle].mean(axis=0))
