"""Spaces as plain values: what is written is read again, and nothing else is."""

import json
from collections import OrderedDict

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a3cjax.envs.stored_spaces import space_from_json, space_to_json
from tests.cases import for_each

INFINITY = np.inf
CHANNELS = np.broadcast_to(np.array([1, 20, 3], np.uint8)[:, None, None], (3, 40, 50))
SPACES = [
    Discrete(3),
    Discrete(5, start=-2, dtype=np.int8),
    MultiDiscrete([[2, 3], [4, 5]], dtype=np.int32, start=[[0, 1], [-1, 7]]),
    MultiDiscrete([7]),
    MultiBinary(3),
    MultiBinary([2, 1, 3]),
    MultiBinary([4]),
    Box(0, 255, (4, 84, 84), np.uint8),
    Box(0, CHANNELS.copy(), dtype=np.uint8),
    Box(-INFINITY, INFINITY, (), np.float32),
    Box(np.array([-INFINITY, -0.1]), np.array([1 / 3, INFINITY]), dtype=np.float64),
    Box(-1.0, 1.0, (2, 3), np.float16),
    Box(-INFINITY, INFINITY, (2,), np.int64),
    Box(0, 2**64 - 1, (1,), np.uint64),
    Box(0, 1, (10, 10, 4), bool),
    Dict(OrderedDict([("b", Discrete(2)), ("a", Box(0, 1, (2,))), (3, Discrete(3))])),
    Dict({(1, ("x", None)): Discrete(2), 1.5: Discrete(2), True: MultiBinary(1)}),
    Dict({np.int64(4): Discrete(2), "\ud800\n": Tuple([Dict({"q": Discrete(2)}), Discrete(4)])}),
    Tuple([]),
]


def through_json(space):
    return space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))


def parts_of(space):
    if isinstance(space, Dict):
        return [(key, parts_of(part)) for key, part in space.items()]
    if isinstance(space, Tuple):
        return list(map(parts_of, space))
    return space.shape, space.dtype, np.asarray(getattr(space, "start", 0)).tolist()


@for_each("space", SPACES)
def test_spaces_come_back_with_the_order_of_their_keys_their_starts_and_dtypes(space):
    again = through_json(space)
    assert again == space
    assert parts_of(again) == parts_of(space)


@given(
    hnp.array_shapes(min_dims=0, max_dims=3).flatmap(
        lambda shape: hnp.arrays(np.float32, (2, *shape), elements=st.floats(width=32))
    )
)
def test_bounds_come_back_to_the_last_bit(edges):
    edges = np.nan_to_num(edges, posinf=INFINITY, neginf=-INFINITY)
    space = Box(np.minimum(*edges), np.maximum(*edges), edges.shape[1:], np.float32)
    again = through_json(space)
    np.testing.assert_array_equal(again.low, space.low)
    np.testing.assert_array_equal(again.high, space.high)


def test_bounds_that_repeat_are_stored_once():
    content = space_to_json(Box(0, CHANNELS.copy(), dtype=np.uint8))
    assert content["low"] == 0
    assert content["high"] == [[[1]], [[20]], [[3]]]


@for_each(
    "space",
    [
        Text(3),
        Dict({frozenset(): Discrete(2)}),
        Tuple([Dict({b"x": Discrete(2)})]),
        Dict({(float("nan"),): Discrete(2)}),
        Box(np.longdouble(0), np.longdouble(1), (1,), np.longdouble),
    ],
)
def test_what_could_not_be_read_again_is_not_stored(space):
    with pytest.raises(ValueError, match=r"stored|keys must be of JSON"):
        space_to_json(space)


BOX = space_to_json(Box(0, 1, (2,)))
DISCRETE = space_to_json(Discrete(3))


def nested(depth):
    return {"type": "Tuple", "spaces": [nested(depth - 1)]} if depth else DISCRETE


@for_each(
    "content",
    [
        *(None, 3, "Box", [], {}, {"type": "Text"}, {"type": ["Box"]}, {"type": "Box"}),
        *(DISCRETE | {"n": n} for n in (0, -1, 2.0, "3", True, None, [3], 2**70)),
        *(DISCRETE | {"start": n} for n in (0.5, 2**64, "0")),
        *(DISCRETE | {"dtype": name} for name in ("O", "float32", "i8", 8, None, ["int64"])),
        DISCRETE | {"more": 1},
        *(BOX | {"shape": shape} for shape in ([-2], [2.0], 2, "2", [[2]], None, [3] * 99)),
        *(BOX | {"shape": shape} for shape in ([10**12], [10**4] * 3, [10**9, 0, 10**9])),
        *(BOX | {"low": low} for low in (2, [0, 2], [0, [0]], "nan", "0", [0, 0, 0], [[0, 1]])),
        *(BOX | {"low": low} for low in ([0, 0], {}, None, [{}], 10**400)),
        BOX | {"dtype": "object"},
        BOX | {"dtype": "uint8", "low": -1},
        BOX | {"dtype": "uint8", "low": 0.5},
        {"type": "Tuple", "spaces": [BOX | {"shape": [6 * 10**6]}] * 2},
        {"type": "Tuple", "spaces": DISCRETE},
        {"type": "Dict", "spaces": [["a", DISCRETE], ["a", DISCRETE]]},
        {"type": "Dict", "spaces": {"a": DISCRETE}},
        {"type": "Dict", "spaces": [[{}, DISCRETE]]},
        {"type": "MultiDiscrete", "nvec": [2, 0], "start": [0, 0], "dtype": "int64"},
        {"type": "MultiDiscrete", "nvec": [2, 3], "start": [0], "dtype": "int64"},
        {"type": "MultiBinary", "n": 10**12},
        {"type": "MultiBinary", "n": 2.0},
        nested(50),
        nested(300),
    ],
)
def test_what_no_space_is_written_as_is_refused(content):
    with pytest.raises(ValueError):  # noqa: PT011 - of a hundred reasons
        space_from_json(content)
