import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a3cjax.actors.statistics import lost_in_rounding, standing_images, statistics_of
from a3cjax.errors import ConfigError
from a3cjax.parameters.moments import map_moments, merge, moments_of
from tests.cases import for_each


def statistics_of_batches(*batches):
    """Of one array or dict of arrays after another, each `[N, ...]`."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches[0])
    each = [jax.tree.map(lambda x: moments_of(x, x.shape[1:]), batch) for batch in batches]
    return statistics_of(functools.reduce(functools.partial(map_moments, merge), each), shapes)


def test_statistics_by_hand():
    # Two pixels seen 0, 4 and 10, 10: means 2 and 10, variances 4 and 0, their mean 2.
    statistics = statistics_of_batches(np.array([[0, 10], [4, 10]], np.uint8))
    np.testing.assert_allclose(statistics.mean, [2, 10])
    np.testing.assert_allclose(statistics.scale, np.sqrt(2), rtol=1e-6)


def test_statistics_are_constants_of_the_agent():
    statistics = statistics_of_batches(np.zeros((4, 3, 2), np.uint8))
    assert isinstance(statistics.mean, jax.Array)
    assert (statistics.mean.shape, statistics.mean.dtype) == ((3, 2), np.float32)
    assert (statistics.scale.shape, statistics.scale.dtype) == ((), np.float32)


@given(
    hnp.arrays(np.uint8, (7, 3, 2), elements=st.integers(0, 255)),
    st.integers(0, 7),
)
def test_statistics_of_images_agree_with_numpy_however_the_batches_are_cut(pixels, cut):
    statistics = statistics_of_batches(pixels[:cut], pixels[cut:])
    mean = pixels.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(np.mean((pixels - mean) ** 2))
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5)
    least = 1 if pixels.max() > 1 else 0
    expected = max(scale, least) if scale else 255
    np.testing.assert_allclose(statistics.scale, expected, rtol=1e-4)


def test_large_bytes_keep_their_scale():
    # 255 ± 1 over many frames: sums of squares in float32 would have lost the difference.
    values = np.full((20_000, 2), 254, np.uint8)
    values[::2] = 252
    np.testing.assert_allclose(statistics_of_batches(values).scale, 1.0, rtol=1e-4)


@for_each("value", [0, 1, 200])
def test_images_that_never_change_are_not_blown_up(value):
    statistics = statistics_of_batches(np.full((5, 2), value, np.uint8))
    assert statistics.scale == 255


@for_each(("before", "after", "scale"), [(0, 2, 1.0), (200, 201, 1.0), (0, 1, 0.01)])
def test_scale_is_a_level_of_grey_at_least_unless_bytes_are_bits(before, after, scale):
    pixels = np.full((4, 2500), before, np.uint8)
    pixels[::2, 0] = after
    np.testing.assert_allclose(statistics_of_batches(pixels).scale, scale, rtol=1e-4)


def test_image_that_never_changes_is_spoken_of():
    shapes = {"eye": np.uint8, "map": np.uint8, "vector": np.float32}
    shapes = {name: jax.ShapeDtypeStruct((2,), dtype) for name, dtype in shapes.items()}
    seen = {
        "eye": moments_of(np.array([[0, 10], [4, 10]], np.uint8), (2,)),
        "map": moments_of(np.full((2, 2), 7, np.uint8), (2,)),
        "vector": moments_of(np.ones((2, 2), np.float32), (2,)),
    }
    (line,) = standing_images(seen, shapes)
    assert line.startswith("the image observation['map'] is the same in all of random play")


@for_each("dtype", [np.float32, np.float64])
def test_each_entry_of_a_vector_has_its_own_scale(dtype):
    values = np.random.default_rng(0).normal(size=(1000, 4)) * [1, 1e9, 1e-3, 1e-8] + [
        5,
        -1e9,
        0,
        1e-8,
    ]
    values = values.astype(dtype)
    statistics = statistics_of_batches(values[:300], values[300:])
    np.testing.assert_allclose(statistics.mean, values.mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(statistics.scale, values.std(axis=0, dtype=float), rtol=1e-6)
    assert {leaf.dtype for leaf in statistics} == {np.dtype(np.float32)}


@for_each("value", [0.0, 1e-40, 1e-8, 0.1, 200.0, -1e9])
def test_entries_that_did_not_vary_are_not_scaled(value):
    values = np.full((7, 2), value)
    values[:, 1] *= 1 + 1e-7 * np.arange(7)  # as rounding does
    np.testing.assert_array_equal(statistics_of_batches(values).scale, [1.0, 1.0])


def test_states_that_random_play_has_not_come_to_are_ones_later():
    # One-hot vectors of 4 states, of which two were seen, equally often.
    statistics = statistics_of_batches(np.eye(4)[[0, 1, 0, 1]])
    np.testing.assert_allclose(statistics.mean, [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(statistics.scale, [0.5, 0.5, 1, 1])


@for_each("values", [[0.0, 1e20, 0.0], [1e20, -1e20, 0.0], [1e20, 1e20, 1e20], [0.0, -np.inf, 1.0]])
def test_observations_whose_squares_are_not_finite_are_refused_by_entry(values):
    observations = np.ones((3, 2, 2))
    observations[:, 1, 0] = values
    with np.errstate(invalid="ignore"), pytest.raises(ConfigError) as error:
        statistics_of_batches(observations)
    assert "the scale of observations is not finite" in str(error.value)
    assert "observation[1, 0]" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_large_numbers_within_32_bits_are_not_refused():
    assert np.isfinite(statistics_of_batches(np.array([[1e18], [-1e18]])).scale).all()


def test_nothing_seen_has_no_statistics():
    with pytest.raises(ValueError, match="must be seen"):
        statistics_of_batches(np.zeros((0, 2)), np.zeros((0, 2)))


def test_every_leaf_has_statistics_of_its_own():
    rng = np.random.default_rng(0)
    batch = {
        "bright": rng.integers(200, 256, (50, 2, 2)).astype(np.uint8),
        "dark": rng.integers(0, 9, (50, 3)).astype(np.uint8),
        "vector": rng.normal(5, [1, 1000], (50, 2)).astype(np.float32),
    }
    statistics = statistics_of_batches(
        *(jax.tree.map(lambda x, part=part: x[part], batch) for part in (slice(20), slice(20, 50)))
    )
    for key, x in batch.items():
        alone = statistics_of_batches(x)
        np.testing.assert_allclose(statistics.mean[key], alone.mean, rtol=1e-6)
        np.testing.assert_allclose(statistics.scale[key], alone.scale, rtol=1e-6)
    assert {key: x.shape for key, x in statistics.scale.items()} == {
        "bright": (),
        "dark": (),
        "vector": (2,),
    }
    with pytest.raises(ConfigError, match=r"observation\['vector'\]\[1\] has mean"):
        statistics_of_batches(
            {"eye": np.ones((2, 1), np.uint8), "vector": np.array([[0, 1e20], [0, -1e20]])}
        )


def test_large_numbers_that_stand_still_are_told_and_no_others():
    """Of a time in seconds, 32 bits keep two minutes."""
    times = np.float32(1.7e9) + np.zeros((50, 1), np.float32)
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    seen = {
        "picture": None,
        "still": moments_of(np.full((50, 1), 3e4, np.float32), (1,)),
        "time": moments_of(np.concatenate([rows, -times], axis=1), (3,)),
        "wide": moments_of(1e6 * rows, (2,)),
    }
    (line,) = lost_in_rounding(seen)
    assert line.startswith("observation['time'][2] is -1.7e+09 in all of random play: ")
    assert "are 128 apart" in line
    assert list(lost_in_rounding(None)) == []
