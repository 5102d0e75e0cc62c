from collections import OrderedDict

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, flatten
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import assume, example, given
from hypothesis import strategies as st

from a3cjax.convolutions import blocks_to_frames
from a3cjax.envs.observations import read_observations
from a3cjax.envs.spaces import AnswerError
from tests.cases import for_each

INFINITY = np.inf

# Observations.

ARM = Dict(
    {
        "touch": Box(0, 1, (2,), np.int8),
        "arm": Dict({"b": Box(-1, 1, (2, 2), np.float64), "a": Box(-1, 1, (), np.float32)}),
        "Height": Box(0, 9, (1,), np.float32),
    }
)


def arm(num_envs):
    """A batch as a pool may answer: keys in any order, each environment its own numbers."""
    own = np.arange(num_envs)
    return {
        "touch": (own[:, None] * 100 + [1, 2]).astype(np.int8),
        "Height": (own[:, None] * 100 + [3]).astype(np.float32),
        "arm": {
            "a": (own * 100 + 4).astype(np.float32),
            "b": (own[:, None, None] * 100 + [[5, 6], [7, 8]]).astype(np.float64),
        },
    }


def test_leaves_of_a_dict_are_joined_in_the_order_of_sorted_keys():
    # Height, arm[a], arm[b] row by row, touch: capitals sort first.
    expected = np.array([3, 4, 5, 6, 7, 8, 1, 2])
    vectors = read_observations(ARM, arm(2), "reset() of Arm")
    assert (vectors.shape, vectors.dtype) == ((2, 8), np.float32)
    np.testing.assert_array_equal(vectors, [expected, expected + 100])


def test_order_of_a_dict_does_not_depend_on_who_wrote_it():
    # Gymnasium sorts what it is given as a plain dict.
    turned = Dict(OrderedDict((key, ARM[key]) for key in reversed(list(ARM.spaces))))
    vectors = [read_observations(space, arm(3), "reset() of Arm") for space in (turned, ARM)]
    np.testing.assert_array_equal(*vectors)


@for_each(
    "space",
    [
        Discrete(5),
        Discrete(3, start=-7),
        MultiBinary(4),
        MultiBinary((2, 3)),
        MultiDiscrete([3, 1, 2]),
        MultiDiscrete([[2, 3], [4, 1]], start=[[0, -1], [5, 0]]),
        MultiDiscrete([255, 2], np.uint8, start=[1, 1]),
        Box(-9, 9, (3,), np.int16),
        Box(0, 255, (2, 3), np.uint8),
        Box(-1, 1, (2,), np.float16),
        Box(-1, 1, (), np.float64),
        Tuple([Discrete(3), Box(-1, 1, (2, 2)), Tuple([MultiBinary(2)])]),
        Dict({"b": Tuple([MultiDiscrete([2, 2]), ARM]), "a": Discrete(2, start=1)}),
    ],
)
def test_observations_are_what_gymnasium_flattens_them_to(space):
    space.seed(3)
    samples = [space.sample() for _ in range(4)]
    batch = create_empty_array(space, n=4, fn=np.zeros)
    vectors = read_observations(space, concatenate(space, samples, batch), "reset()")
    assert vectors.dtype == np.float32
    assert (vectors.ndim, len(vectors)) == (1 + len(space.shape or ()), 4) or vectors.ndim == 2
    expected = np.stack([flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(vectors.reshape(4, -1), expected.astype(np.float32))


def test_keys_of_several_types_have_one_order():
    leaf = Box(-1, 9, (1,))
    spaces = [
        Dict({10: leaf, "b": leaf, 2: leaf, "2": leaf}),
        Dict({"2": leaf, 2: leaf, "b": leaf, 10: leaf}),
    ]
    values = {10: np.full((1, 1), 1.0), 2: np.full((1, 1), 2.0)}
    values |= {"2": np.full((1, 1), 3.0), "b": np.full((1, 1), 4.0)}
    for space in spaces:  # by their text, then by their type
        np.testing.assert_array_equal(read_observations(space, values, "reset()"), [[1, 2, 3, 4]])
    numbers = Dict({10: leaf, 2: leaf})  # as ever
    values = {10: np.full((1, 1), 1.0), 2: np.full((1, 1), 2.0)}
    np.testing.assert_array_equal(read_observations(numbers, values, "reset()"), [[2, 1]])


def test_many_states_need_no_matrix_of_all_states_by_all():
    states = np.array([0, 7, 99_999])
    vectors = read_observations(Discrete(100_000), states, "reset()")  # a matrix were 40 GB
    np.testing.assert_array_equal(np.argwhere(vectors), [[0, 0], [1, 7], [2, 99_999]])
    assert vectors.sum() == 3


@for_each(
    ("space", "values", "rule"),
    [
        (Discrete(5), 5, r"in \[0, 4\], got 5"),
        (Discrete(3, start=-1), -2, r"in \[-1, 1\], got -2"),
        (Discrete(3, start=-1), 2, r"in \[-1, 1\], got 2"),
        (MultiDiscrete([3, 2]), [1, 2], r"in MultiDiscrete\(\[3 2\]\), got 2"),
        (MultiDiscrete([3, 2], start=[4, 0]), [3, 0], r"in MultiDiscrete\(.*\), got 3"),
        (MultiBinary(2), [0, 2], "0 or 1, got 2"),
        (MultiBinary(2), [-1, 0], "0 or 1, got -1"),
    ],
)
def test_states_that_do_not_exist_are_refused(space, values, rule):
    batch = np.stack([np.array(space.sample()), np.array(values)])
    place = r" in step\(\) of Arm \(environment 1 of the batch\)\.$"
    with pytest.raises(AnswerError, match=f"^observations must be {rule}{place}"):
        read_observations(space, batch, "step() of Arm")
    with pytest.raises(AnswerError, match=rf"^observations\['x'\]\[0\] must be {rule}{place}"):
        read_observations(Dict({"x": Tuple([space])}), {"x": (batch,)}, "step() of Arm")


@for_each("dtype", [np.float32, np.float64])
def test_the_largest_finite_numbers_are_read(dtype):
    # The sum of their squares, by which most batches are found right, is infinite.
    values = np.full((2, 3), np.finfo(np.float32).max, dtype)
    vectors = read_observations(Box(-np.inf, np.inf, (3,), dtype), values, "reset()")
    np.testing.assert_array_equal(vectors, values)


@for_each("space", [Box(-1, 1, (3,)), Box(-1, 1, (3,), np.float64)])
def test_vectors_of_a_dict_of_one_are_arrays_of_their_own(space):
    values = np.ones((2, 3), space.dtype)
    vectors = read_observations(Dict({"position": space}), {"position": values}, "reset()")
    assert not np.shares_memory(vectors, values)
    np.testing.assert_array_equal(vectors, values)


@for_each(
    ("keys", "name"),
    [(("Height",), "observations['Height']"), (("arm", "b"), "observations['arm']['b']")],
)
@for_each("value", [np.nan, INFINITY, -INFINITY])
def test_leaf_that_is_not_finite_is_named(keys, name, value):
    observations = arm(3)
    leaf = observations
    for key in keys:
        leaf = leaf[key]
    leaf[1] = value
    with pytest.raises(AnswerError) as caught:
        read_observations(ARM, observations, "step() of Arm", 3)
    assert str(caught.value) == (
        f"{name} must be finite, got {value} in step() of Arm (environment 1 of the batch)."
    )


def test_leaf_of_another_shape_is_named():
    observations = arm(2)
    observations["arm"]["b"] = np.zeros((2, 4))
    with pytest.raises(AnswerError) as caught:
        read_observations(ARM, observations, "reset() of Arm")
    assert str(caught.value) == (
        "observations['arm']['b'] must be of shape (2, 2, 2), got (2, 4) in reset() of Arm."
    )


@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 4), st.booleans())
@example(height=3, width=3, channels=3, is_last=False)
def test_images_of_any_size_keep_all_their_pixels(height, width, channels, is_last):
    channels = min(channels, height, width)
    shape = (height, width, channels) if is_last else (channels, height, width)
    values = np.random.default_rng(0).integers(1, 256, (2, *shape)).astype(np.uint8)
    blocks = read_observations(Box(0, 255, shape, np.uint8), values, "reset()")
    assert blocks.dtype == np.uint8
    frames = blocks_to_frames(blocks)
    # As deep as one side is long, it could be either: two equal sides are the picture's.
    assume(channels not in (height, width) or height == width)
    is_last = channels <= height if channels == width else is_last and channels < height
    expected = np.moveaxis(values, -1, 1) if is_last else values
    rows, columns = expected.shape[2:]
    np.testing.assert_array_equal(frames[:, :, :rows, :columns], expected)
    assert not frames[:, :, rows:].any()
    assert not frames[:, :, :, columns:].any()
    assert frames.shape[2:] == (-(-rows // 4) * 4, -(-columns // 4) * 4)


@for_each(
    ("shape", "blocks"),
    [
        ((3, 64, 64), (16, 16, 48)),  # Procgen
        ((96, 96, 3), (24, 24, 48)),  # CarRacing
        ((72, 96, 4), (18, 24, 64)),  # football
        ((12, 84, 84), (21, 21, 192)),  # ViZDoom, four colour frames
        ((4, 84, 84), (21, 21, 64)),  # Atari
        ((210, 160, 3), (53, 40, 48)),  # ALE through Gymnasium
        ((3, 210, 160), (53, 40, 48)),
        ((7, 7, 3), (2, 2, 48)),  # MiniGrid
        ((84, 84, 4), (21, 21, 64)),
        ((64, 40, 40), (10, 10, 1024)),  # more planes than pixels on a side
        ((40, 40, 64), (10, 10, 1024)),
        ((8, 8, 8), (2, 2, 128)),
    ],
)
def test_images_of_known_games_become_blocks(shape, blocks):
    space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    images = np.zeros((2, *shape), np.uint8)
    assert read_observations(space, images, "reset()").shape == (2, *blocks)
