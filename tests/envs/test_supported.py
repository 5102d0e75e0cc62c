import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Text,
    Tuple,
)

from a3cjax.envs.supported import MAX_STATES, check_spaces, doubts
from a3cjax.errors import ConfigError
from tests.cases import for_each

VECTOR, CHOICES = Box(-1, 1, (3,)), Discrete(2)
ACTIONS = "actions of a Box .of whole numbers within ±1,000,000., Discrete, MultiDiscrete"
MOST_ACTIONS = "at most 10000 actions to choose from"


@for_each(
    ("observations", "actions"),
    [
        (VECTOR, Discrete(2, start=5)),
        (VECTOR, Box(-1, 1, (2,), np.float64)),
        (VECTOR, Box(-np.inf, 1, (2, 3), np.float16)),
        (VECTOR, Box(-1, 1, ())),
        (VECTOR, Box(-3, 10**6, (2, 3), np.int64)),
        (VECTOR, Box(0, 1, (2,), bool)),
        (VECTOR, MultiDiscrete([[3, 2], [1, 4]], start=[[0, -1], [5, 0]])),
        (VECTOR, MultiDiscrete([1000] * 10)),
        (VECTOR, MultiBinary((2, 3))),
        (Box(0, 9, (2, 3), np.int16), CHOICES),
        (Box(0, 1, (2,), bool), CHOICES),
        (MultiBinary((2, 3)), CHOICES),
        (MultiDiscrete([[2, 3], [4, 5]]), CHOICES),
        (Discrete(MAX_STATES, start=-1), CHOICES),
        (Dict({"a": Tuple([Discrete(3), VECTOR]), "b": Dict({"c": MultiBinary(2)})}), CHOICES),
    ],
)
def test_spaces_that_can_be_learned_on_are_accepted(observations, actions):
    check_spaces("Some-v0", observations, actions)


@for_each(
    ("observations", "actions", "rule", "wrapper"),
    [
        (VECTOR, Box(0, 10**6 + 1, (2,), np.int64), ACTIONS, "TransformAction"),
        (VECTOR, Tuple([CHOICES, VECTOR]), ACTIONS, "TransformAction"),
        (VECTOR, Dict({"a": CHOICES}), ACTIONS, "TransformAction"),
        (VECTOR, OneOf([CHOICES, VECTOR]), ACTIONS, "TransformAction"),
        (VECTOR, Sequence(CHOICES), ACTIONS, "TransformAction"),
        (VECTOR, Graph(VECTOR, None), ACTIONS, "TransformAction"),
        (VECTOR, Text(5), ACTIONS, "TransformAction"),
        (Text(5), CHOICES, "observations of Box", "TransformObservation"),
        (Graph(VECTOR, None), CHOICES, "observations of Box", "TransformObservation"),
        (Sequence(VECTOR), CHOICES, "observations of Box", "TransformObservation"),
        (Dict({"a": VECTOR, "b": Text(5)}), CHOICES, "observations of Box", "FilterObservation"),
        (Tuple([VECTOR, Tuple([Text(5)])]), CHOICES, "observations of Box", "TransformObservation"),
        (Dict({}), CHOICES, "observations of Box", "TransformObservation"),
        (Discrete(10**6), CHOICES, f"at most {MAX_STATES} numbered", "TransformObservation"),
        (MultiDiscrete([60_000] * 2), CHOICES, f"at most {MAX_STATES}", "TransformObservation"),
        (MultiDiscrete([2**62] * 2), CHOICES, f"at most {MAX_STATES}", "TransformObservation"),
        (Dict({"a": Discrete(10**6)}), CHOICES, f"at most {MAX_STATES}", "TransformObservation"),
        (MultiBinary(3_000_000), CHOICES, f"at most {MAX_STATES}", "TransformObservation"),
        (Box(0, 255, (2000, 2000, 3), np.uint8), CHOICES, "at most 10000000", "ResizeObservation"),
        (VECTOR, Discrete(2**40), MOST_ACTIONS, "TransformAction"),
        (VECTOR, MultiDiscrete([5000, 2, 2]), MOST_ACTIONS, "TransformAction"),
        (VECTOR, MultiDiscrete([2**62] * 2), MOST_ACTIONS, "TransformAction"),
        (VECTOR, MultiBinary((100, 51)), MOST_ACTIONS, "TransformAction"),
        (VECTOR, Box(-1, 1, (101, 100)), MOST_ACTIONS, "TransformAction"),
        (VECTOR, Box(-1, 1, (0,)), "observations and actions of at least one", "FilterObservation"),
        (Tuple([VECTOR, Box(0, 1, (3, 0))]), CHOICES, "observations and", "FilterObservation"),
    ],
)
def test_refusals_are_one_line_and_name_a_wrapper_that_exists(observations, actions, rule, wrapper):
    with pytest.raises(
        ConfigError, match=rf"^env must have {rule}.*{wrapper}.*, got Some-v0 with"
    ) as caught:
        check_spaces("Some-v0", observations, actions)
    assert "\n" not in str(caught.value)
    assert hasattr(gymnasium.wrappers, wrapper)


BYTES = Box(0, 255, (24, 24, 3), np.uint8)


@for_each(
    ("observations", "reason"),
    [
        (Box(-1, 1, (64, 64, 3)), r"float32 of shape \(64, 64, 3\), are read as 12288 numbers"),
        (Box(-np.inf, np.inf, (4, 84, 84)), "image_layout=channels_first or channels_last"),
        (Box(0, 255, (84, 84, 1), np.int32), "announced in \\[0, 1\\]"),
        (Dict({"a": Box(-1, 1, (20, 20)), "x": VECTOR}), r"observations\['a'\] of Some"),
        (Box(0, 255, (64, 40, 40), np.uint8), "channels first; image_layout=channels_last"),
        (Box(0, 1, (10, 10, 10), bool), "channels last; image_layout=channels_first"),
        (Box(0, 255, (20, 30, 25), np.uint8), "image_layout=channels_last if"),
        (Box(0, 1, (64, 64, 3)), None),
        (Box(0, 255, (84, 84), np.uint8), None),
        (Box(0, 255, (4, 84, 84, 3), np.uint8), None),
        (Box(0, 255, (210, 160, 3), np.uint8), None),
        (Box(0, 255, (16, 210, 160), np.uint8), None),
        (Box(0, 1, (10, 10, 7), bool), None),
        (Dict({"image": BYTES, "x": VECTOR}), None),
        (BYTES, None),
        (Box(0, 255, (7, 7, 3), np.uint8), None),
        (Box(-1, 1, (5000,)), None),
        (Box(-1, 1, (10, 5)), None),  # Catch
        (Box(-1, 1, (4, 1080)), None),  # beams of a laser, stacked
        (Box(-1, 1, ()), None),
        (Dict({"a": VECTOR, "b": Discrete(4)}), None),
        (MultiBinary((30, 30)), None),
    ],
)
def test_what_may_be_a_picture_and_meets_no_convolutions_is_told(observations, reason):
    lines = list(doubts("Some-v0", observations))
    assert [bool(re.search(reason or "nothing", line)) for line in lines] == [True] * bool(reason)
    assert not any("\n" in line for line in lines)
