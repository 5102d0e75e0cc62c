"""How observations are read: what is an image, what its channels are, and what reaches networks."""

import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from gymnasium.vector.utils import concatenate, create_empty_array

from a3cjax.convolutions import blocks_to_frames
from a3cjax.envs.observations import (
    describe_reading,
    plan_reading,
    read_observations,
    settle_layout,
    structure_of,
)
from a3cjax.envs.supported import check_layout
from a3cjax.errors import AnswerError, ConfigError
from tests.cases import for_each

BYTES, SHARES = np.uint8, np.float32
RNG = np.random.default_rng(0)


def frames_of(values, space, layout="auto"):
    """The pixels `[C, height, width]` that reach a network, and what is said of them."""
    plan = plan_reading(space, layout)
    blocks = read_observations(space, values[None], "reset()", plan=plan)
    assert blocks.dtype == np.uint8
    return blocks_to_frames(blocks)[0], describe_reading(plan)


LAST = np.arange(10 * 12 * 4).reshape(10, 12, 4) % 256  # [row, column, channel]
FIRST = LAST.transpose(2, 0, 1)
STACK = np.arange(2 * 10 * 12 * 3).reshape(2, 10, 12, 3) % 256  # [frame, row, column, colour]
COLOURS = np.concatenate([STACK[0].transpose(2, 0, 1), STACK[1].transpose(2, 0, 1)])
TEXT = "image 10×12 with {} channels, channels {}"


@for_each(
    ("values", "space", "expected", "text"),
    [
        (LAST, Box(0, 255, LAST.shape, BYTES), FIRST, TEXT.format(4, "last")),
        (FIRST, Box(0, 255, FIRST.shape, BYTES), FIRST, TEXT.format(4, "first")),
        (LAST / 255, Box(0, 1, LAST.shape, SHARES), FIRST, TEXT.format(4, "last")),
        (FIRST / 255, Box(0, 1, FIRST.shape, np.float64), FIRST, TEXT.format(4, "first")),
        (LAST % 2 == 1, Box(0, 1, LAST.shape, bool), FIRST % 2 * 255, TEXT.format(4, "last")),
        (LAST % 2, MultiBinary(LAST.shape), FIRST % 2 * 255, TEXT.format(4, "last")),
        (FIRST[0], Box(0, 255, (10, 12), BYTES), FIRST[:1], "image 10×12 with 1 channel"),
        (FIRST[0] % 2 == 1, Box(0, 1, (10, 12), bool), FIRST[:1] % 2 * 255, "image 10×12 with 1"),
        (STACK, Box(0, 255, STACK.shape, BYTES), COLOURS, TEXT.format(6, "last")),
        (
            STACK.transpose(0, 3, 1, 2) / 255,
            Box(0, 1, (2, 3, 10, 12), SHARES),
            COLOURS,
            TEXT.format(6, "first"),
        ),
        (LAST[:7, :7, :3], Box(0, 255, (7, 7, 3), BYTES), FIRST[:3, :7, :7], "image 7×7 with 3"),
    ],
)
def test_pixels_reach_networks_as_bytes_with_their_channels_first(values, space, expected, text):
    frames, told = frames_of(values.astype(space.dtype), space)
    height, width = expected.shape[1:]
    np.testing.assert_array_equal(frames[:, :height, :width], expected)
    assert not frames[:, height:].any()
    assert not frames[:, :, width:].any()
    assert told.startswith(text)


@for_each(
    "space",
    [
        Box(-np.inf, np.inf, (64, 64, 3)),
        Box(-1, 1, (64, 64, 3)),
        Box(0, 2, (10, 10), np.float32),
        Box(0, 255, (84, 84, 3), np.int32),
        Box(0, 1, (7, 7, 4), bool),
        Box(0, 1, (10, 5)),
        Box(0, 255, (64,), BYTES),
        Box(0, 255, (16, 16, 3, 4), BYTES),  # frames in the last place
        Box(0, 255, (2, 2, 10, 10, 3), BYTES),
        MultiBinary(100),
    ],
)
def test_what_is_announced_as_no_picture_stays_numbers(space):
    space.seed(1)
    values = np.array(space.sample())
    numbers = read_observations(space, values[None], "reset()")
    np.testing.assert_array_equal(numbers[0], values.astype(np.float32))


def test_named_layout_brings_any_finite_bounds_to_bytes():
    space = Box(np.full((2, 4, 4), -1.0), np.full((2, 4, 4), 3.0), dtype=np.float64)
    values = RNG.uniform(-1, 3, (2, 4, 4))
    values[0, 0, :3] = -1.0, 1.0, 3.0  # black, in the middle, white
    frames, text = frames_of(values, space, "channels_first")
    np.testing.assert_allclose(frames, (values + 1) / 4 * 255, atol=0.51)
    assert frames[0, 0, [0, 2]].tolist() == [0, 255]
    assert text == "image 4×4 with 2 channels, channels first"
    frames, text = frames_of(values, space, "channels_last")  # as is asked for, however unlikely
    assert text == "image 2×4 with 4 channels, channels last"
    np.testing.assert_allclose(frames[:, :2].transpose(1, 2, 0), (values + 1) / 4 * 255, atol=0.51)


def test_named_layout_is_followed_where_auto_would_read_the_other():
    values = RNG.integers(0, 256, (12, 10, 10)).astype(BYTES)
    space = Box(0, 255, values.shape, BYTES)
    frames, _ = frames_of(values, space, "auto")
    np.testing.assert_array_equal(frames[:, :10, :10], values)
    frames, _ = frames_of(values, space, "channels_last")
    np.testing.assert_array_equal(frames[:, :, :10], values.transpose(2, 0, 1))
    plan = plan_reading(space, "none")
    numbers = read_observations(space, values[None], "reset()", plan=plan)
    np.testing.assert_array_equal(numbers, values[None].astype(np.float32))


@for_each("value", [200.0, -0.5])
def test_brightness_beyond_its_bounds_is_refused(value):
    space = Box(0, 1, (8, 8, 3))
    images = np.zeros((2, 8, 8, 3), np.float32)
    images[1, 0, 0, 1] = 1 + 1e-5  # by rounding
    assert read_observations(space, images, "step() of Camera").any()
    images[1, 4, 4, 0] = value
    rule = rf"^observations must be in \[0, 1\] as announced .*image_layout=none.*, got {value} in "
    with pytest.raises(AnswerError, match=rule + r"step\(\) of Camera \(environment 1"):
        read_observations(space, images, "step() of Camera")


def test_nest_is_read_leaf_by_leaf():
    space = Dict(
        {
            "sight": Dict({"left": Box(0, 255, (8, 8, 1), BYTES), "depth": Box(0, 1, (8, 12))}),
            "body": Tuple([Discrete(3, start=-1), Box(-1, 1, (2,), np.float64), MultiBinary(2)]),
            "age": Box(0, 99, (), np.int64),
        }
    )
    left, depth = RNG.integers(0, 256, (3, 8, 8, 1)).astype(BYTES), np.full((3, 8, 12), 0.2)
    observations = {
        "sight": {"depth": depth.astype(np.float32), "left": left},
        "body": (np.array([-1, 0, 1]), np.array([[0.5, -0.5]] * 3), np.array([[0, 1]] * 3)),
        "age": np.array([7, 8, 9]),
    }
    read = read_observations(space, observations, "reset()")
    assert read.keys() == {"sight_left", "sight_depth", "vector"}
    frames = blocks_to_frames(read["sight_left"])
    np.testing.assert_array_equal(frames, left.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(blocks_to_frames(read["sight_depth"]), np.full((3, 1, 8, 12), 51))
    expected = [[7, 1, 0, 0, 0.5, -0.5, 0, 1], [8, 0, 1, 0, 0.5, -0.5, 0, 1]]
    np.testing.assert_array_equal(read["vector"], [*expected, [9, 0, 0, 1, 0.5, -0.5, 0, 1]])


def test_image_that_is_the_only_leaf_is_one_array():
    image = Box(0, 255, (24, 24, 3), BYTES)
    values = RNG.integers(0, 256, (2, 24, 24, 3)).astype(BYTES)
    alone = read_observations(image, values, "reset()")
    np.testing.assert_array_equal(
        read_observations(Dict({"camera": image}), {"camera": values}, "reset()"), alone
    )


def test_images_have_names_of_their_own_whatever_their_keys_are():
    image, number = Box(0, 255, (8, 8, 3), BYTES), Box(-1, 1, (1,))
    keys = ["vector", "a_b", "a.b", "/", "", 1, "1", "Höhe"]
    space = Dict(dict.fromkeys(keys, image) | {"a": Dict({"b": image}), "x": number})
    names = [leaf.key for leaf in plan_reading(space)]
    assert len(set(names)) == len(names) == 10
    assert names.count("vector") == 1
    assert all(name.isidentifier() or name[0].isdigit() for name in names)
    assert structure_of(space, plan_reading(space)).keys() == set(names)


SPACES = [
    Box(-1, 1, ()),
    Box(-9, 9, (3, 2), np.int16),
    Discrete(4, start=2),
    Box(0, 255, (9, 30, 3), BYTES),
    Box(0, 1, (10, 10, 10), bool),
    Box(0, 1, (4, 20, 24, 3)),
    Tuple([Box(0, 255, (64, 40, 40), BYTES), Discrete(3)]),
    Dict({"depth": Box(0, 1, (20, 20)), "rgb": Box(0, 255, (20, 20, 3), BYTES)}),
    Dict({"a": Box(0, 255, (3, 20, 20), BYTES), "b": Box(0, 255, (20, 20, 3), BYTES)}),
    Dict({"rgb": Box(0, 255, (20, 20, 3), BYTES), "map": Box(-1, 1, (20, 20))}),
    Dict({"a": MultiBinary(3), "b": Box(-1, 1, (2, 2))}),
]


@for_each("space", SPACES)
def test_structure_is_told_without_an_observation(space):
    space.seed(0)
    batch = concatenate(
        space, [space.sample() for _ in range(2)], create_empty_array(space, 2, fn=np.zeros)
    )
    plan = plan_reading(space)
    read = read_observations(space, batch, "reset()", 2, plan)
    told = structure_of(space, plan)
    assert jax.tree.structure(read) == jax.tree.structure(told)
    for array, struct in zip(jax.tree.leaves(read), jax.tree.leaves(told), strict=True):
        assert (array.shape, array.dtype) == ((2, *struct.shape), struct.dtype)


@for_each("space", SPACES)
def test_settled_layout_reads_as_auto_does(space):
    def layouts(name):
        return [leaf.layout for leaf in plan_reading(space, name)]

    settled = settle_layout(space, "auto")
    assert layouts(settled) == layouts("auto")
    # Only where leaves differ, or a named layout would take more, there is no name for it.
    named = {
        name for name in ("channels_first", "channels_last") if layouts(name) == layouts("auto")
    }
    assert settled in (named if any(layouts("auto")) and named else {"none", "auto"})
    assert settle_layout(space, "channels_last") == "channels_last"


def test_layout_that_no_observation_has_is_refused():
    for space in (Box(-np.inf, np.inf, (20, 20, 3)), Discrete(3), Box(-1, 1, (9,))):
        plan = plan_reading(space, "channels_last")
        with pytest.raises(ConfigError, match=r"^image_layout must be auto or none for Rover") as e:
            check_layout("Rover", space, plan, "channels_last")
        assert "\n" not in str(e.value)
        check_layout("Rover", space, plan_reading(space, "none"), "none")
