import itertools
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a3cjax.envs.actions import clip_actions, make_action_spec, read_mask, sample_actions
from a3cjax.envs.base import ActionSpec
from a3cjax.envs.batches import VectorEnvironments
from a3cjax.envs.gymnasium_batch import GymnasiumBatch
from a3cjax.errors import AnswerError
from tests.cases import for_each

INFINITY = np.inf
NESTED = MultiDiscrete([[3, 2], [1, 4]], start=[[0, -1], [5, 0]])


def bounds(low, high, dtype=np.float32):
    """A Box of the actions `(D,)` between these bounds."""
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


# Numbers within bounds.


@given(
    hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-3, 3, width=32)),
    st.sampled_from([np.float32, np.float64]),
)
def test_minus_one_and_one_are_the_bounds_and_what_is_beyond_is_clipped(edges, actions, dtype):
    low, high = edges.min(axis=0).astype(dtype), edges.max(axis=0).astype(dtype)
    taken = clip_actions(bounds(low, high, dtype), actions)
    assert taken.dtype == dtype
    shares = (np.clip(actions.astype(float), -1, 1) + 1) / 2
    expected = low.astype(float) + shares * (high.astype(float) - low.astype(float))
    np.testing.assert_allclose(taken, expected, rtol=1e-6, atol=1e-6 * np.abs(edges).max())
    assert ((low <= taken) & (taken <= high)).all()
    ends = clip_actions(bounds(low, high, dtype), np.array([[-1.0] * 3, [1.0] * 3], np.float32))
    np.testing.assert_allclose(ends, [low, high], rtol=1e-6, atol=1e-9)


def test_bounds_of_minus_one_and_one_change_no_bit():
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    taken = clip_actions(bounds([-1, -1], [1, 1]), actions)
    np.testing.assert_array_equal(taken, actions)


@for_each("bound", [INFINITY, np.finfo(np.float32).max, 1e10])
def test_numbers_without_bounds_are_left_as_they_are_and_one_bound_is_never_reached(bound):
    space = bounds([-bound, 5.0, -bound, 0.0], [bound, bound, 1.0, 100.0])
    actions = np.array([[-30, -2, -30, -0.5], [30, 30, 2, 0.5], [0, 0, 0, 0]], np.float32)
    up, down = 5 + np.log(1 + np.exp(-2)), 1 - np.log(1 + np.exp(-2))
    half = np.log(2)
    expected = [[-30, up, -30 + 1, 25], [30, 35, down, 75], [0, 5 + half, 1 - half, 50]]
    np.testing.assert_allclose(clip_actions(space, actions), expected, rtol=1e-6)


def test_a_number_with_one_bound_has_a_slope_on_both_sides_of_it():
    space = bounds([0.0, -INFINITY], [INFINITY, 0.0])
    actions = np.linspace(-8, 8, 50, dtype=np.float32)[:, None].repeat(2, axis=1)
    assert (np.diff(clip_actions(space, actions), axis=0) > 0).all()


@for_each("shape", [(), (1,), (2, 3), (2, 1, 2)])
@for_each("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8, bool])
def test_actions_have_the_shape_and_dtype_of_their_box(shape, dtype):
    space = Box(0, 1 if dtype is bool else 100, shape, dtype)
    generator = np.random.default_rng(0)
    sampled = sample_actions(space, 500, generator)
    assert (sampled.shape, sampled.dtype) == ((500, int(np.prod(shape))), np.float32)
    taken = clip_actions(space, sampled)
    assert (taken.shape, taken.dtype) == ((500, *shape), dtype)
    assert all(space.contains(np.asarray(action)) for action in taken[:5])
    assert make_action_spec(space) == ActionSpec("continuous", (int(np.prod(shape)),), True)
    if dtype is not bool:
        assert taken.max() > 90
    np.testing.assert_allclose(taken.astype(float).mean() / float(space.high.max()), 0.5, atol=0.06)


def test_every_whole_number_is_as_frequent_as_another():
    space = bounds([-1, 0], [2, 1], np.int64)
    sampled = sample_actions(space, 8000, np.random.default_rng(0))
    taken = clip_actions(space, sampled)
    for column, numbers in zip(taken.T, [range(-1, 3), range(2)], strict=True):
        shares = [np.mean(column == number) for number in numbers]
        np.testing.assert_allclose(shares, 1 / len(shares), atol=0.03)


def test_order_of_numbers_in_a_box_is_kept():
    space = Box(np.zeros((2, 2), np.float32), np.array([[1, 10], [100, 1000]], np.float32))
    taken = clip_actions(space, np.array([[1, 1, 1, 1], [0, 1, -1, 0]], np.float32))
    np.testing.assert_array_equal(taken, [[[1, 10], [100, 1000]], [[0.5, 10], [0, 500]]])


@for_each("bound", [INFINITY, np.finfo(np.float32).max, 1e10])
def test_samples_are_uniform_in_bounds_and_normal_where_one_is_missing(bound):
    space = bounds([-bound, 0.5, -bound, 0], [bound, bound, -0.5, 100])
    sampled = sample_actions(space, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(sampled[:, :3].mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(sampled[:, :3].std(axis=0), 1.0, atol=0.05)
    assert all(space.contains(action) for action in clip_actions(space, sampled))
    quarters, _ = np.histogram(clip_actions(space, sampled)[:, 3], 4, (0, 100))
    np.testing.assert_allclose(quarters / 4000, 0.25, atol=0.03)


# Choices.


@for_each(
    ("start", "dtype"),
    [
        *((start, np.int64) for start in (0, -1, 5, 2**40)),
        *((0, dtype) for dtype in (np.int8, np.uint16, np.uint64)),
        (2**60 + 1, np.uint64),
    ],
)
def test_discrete_actions_are_numbered_from_the_start_of_their_space(start, dtype):
    actions, space = np.array([0, 2], np.int32), Discrete(3, start=start, dtype=dtype)
    taken = clip_actions(space, actions)
    np.testing.assert_array_equal(taken, [start, start + 2])
    assert all(space.contains(action) for action in taken)
    np.testing.assert_array_equal(actions, [0, 2])


def test_discrete_samples_are_the_integers_of_the_generator():
    sampled = sample_actions(Discrete(4), 6, np.random.default_rng(3))
    expected = np.random.default_rng(3).integers(4, size=6, dtype=np.int32)
    assert sampled.dtype == np.int32
    np.testing.assert_array_equal(sampled, expected)


@for_each(
    ("space", "sizes"),
    [
        (MultiDiscrete([3, 2]), (3, 2)),
        (MultiDiscrete([3, 1], start=[-1, 4]), (3, 1)),
        (MultiDiscrete([200, 2], np.uint8, start=[50, 1]), (200, 2)),
        (NESTED, (3, 2, 1, 4)),
        (MultiBinary(3), (2, 2, 2)),
        (MultiBinary((2, 2)), (2, 2, 2, 2)),
    ],
)
def test_every_choice_of_several_numbers_is_reached_and_is_one_of_the_space(space, sizes):
    assert make_action_spec(space) == ActionSpec("multi_discrete", sizes)
    sampled = sample_actions(space, 2000, np.random.default_rng(0))
    assert (sampled.shape, sampled.dtype) == ((2000, len(sizes)), np.int32)
    taken = clip_actions(space, sampled)
    assert (taken.shape, taken.dtype) == ((2000, *space.shape), space.dtype)
    assert all(space.contains(action) for action in taken)
    for column, own, size in zip(taken.reshape(2000, -1).T, sampled.T, sizes, strict=True):
        assert len(np.unique(column)) == size
        np.testing.assert_array_equal(column - column.min(), own)


# Masks.

BITS = MultiBinary((1, 3))
MASKS = [  # a space, a mask, and what of each number is allowed
    (Discrete(3), np.array([1, 0, 1], np.int8), [[1, 0, 1]]),
    (Discrete(3, start=5), [True, False, True], [[1, 0, 1]]),
    (Discrete(3), np.array([0.0, 1.0, 0.0]), [[0, 1, 0]]),
    (MultiDiscrete([3, 2]), (np.array([1, 0, 1], np.int8), np.array([0, 1], np.int8)), "101 01"),
    (MultiDiscrete([3, 2]), np.array([1, 0, 1, 0, 1], np.int8), "101 01"),
    (MultiDiscrete([3, 2]), np.array([[1, 0, 1], [0, 1, 1]], np.int8), "101 01"),
    (MultiDiscrete([2, 2]), np.array([[1, 0], [0, 1]], bool), "10 01"),
    (MultiDiscrete([2, 2]), np.array([1, 0, 0, 1], bool), "10 01"),
    (NESTED, tuple((np.ones(a), np.eye(1, b)[0]) for a, b in NESTED.nvec), "111 10 1 1000"),
    (NESTED, np.array([0, 0, 1, 1, 1, 1, 0, 0, 1, 1]), "001 11 1 0011"),
    (BITS, np.array([[0, 1, 2]], np.int8), "10 01 11"),  # 0, 1, and free: as its `sample` has it
    (BITS, np.array([1, 0, 0, 1, 1, 1], np.int8), "10 01 11"),
    (BITS, np.array([[[1, 0], [0, 1], [1, 1]]], np.int8), "10 01 11"),
]


@for_each(("space", "mask", "expected"), MASKS)
def test_masks_are_read_as_the_space_itself_samples_by_them(space, mask, expected):
    if isinstance(expected, str):
        expected = [[int(bit) for bit in row] for row in expected.split()]
    allowed = read_mask(space, mask, "reset()")
    rows = np.atleast_2d(allowed)
    assert allowed.dtype == bool
    assert len(rows) == len(expected)
    for row, own in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row, [*own, *[0] * (rows.shape[1] - len(own))])
    actions = sample_actions(space, 300, np.random.default_rng(0), np.stack([allowed] * 300))
    assert actions.dtype == np.int32
    for column, own in zip(np.reshape(actions, (300, -1)).T, expected, strict=True):
        assert set(column) == set(np.flatnonzero(own))
    space.seed(0)
    is_its_own = isinstance(mask, tuple) or (isinstance(mask, np.ndarray) and mask.ndim == 1)
    if is_its_own and isinstance(space, Discrete) and mask.dtype == np.int8:
        assert {int(space.sample(mask)) for _ in range(50)} == {0, 2}
    assert all(space.contains(action) for action in clip_actions(space, actions))


@for_each(
    ("space", "mask", "rule"),
    [
        (Discrete(3), np.ones(2), r"0 or 1 for each choice in Discrete\(3\), got an array"),
        (Discrete(3), np.array([1, 2, 0]), "0 or 1 for each"),
        (Discrete(3), np.array([1, np.nan, 0]), "0 or 1 for each"),
        (Discrete(3), np.ones((1, 3)), "0 or 1 for each"),
        (Discrete(3), "all", "0 or 1 for each"),
        (Discrete(3), 7, "0 or 1 for each"),
        (Discrete(3), np.zeros(3), "allow at least one choice, got"),
        (MultiDiscrete([3, 2]), np.ones(4), "0 or 1 for each"),
        (MultiDiscrete([3, 2]), (np.ones(3), np.ones(4)), "0 or 1 for each"),
        (MultiDiscrete([3, 2]), (np.ones(2), np.ones(3)), "0 or 1 for each"),
        (MultiDiscrete([3, 2]), (np.ones(3),), "0 or 1 for each"),
        (MultiDiscrete([3, 2]), np.array(1), "0 or 1 for each"),
        (MultiDiscrete([3, 2]), np.array([1, 1, 1, 0, 0]), "at least one choice for number 1,"),
        (MultiDiscrete([3, 2]), np.array([[1, 1, 1], [0, 0, 1]]), "choice for number 1,"),
        (BITS, np.array([[0, 1, 3]]), "0 or 1 for each"),
    ],
)
def test_masks_that_are_none_are_one_line(space, mask, rule):
    with pytest.raises(AnswerError, match=rf"^info\['action_mask'\] must .*{rule}.*") as caught:
        read_mask(space, mask, "step() of Some-v0")
    assert str(caught.value).endswith("in step() of Some-v0.")
    assert "\n" not in str(caught.value)


class Telling(gymnasium.Env):
    """Tells masks from a script: one for the reset, one for each step; ends after the script."""

    observation_space = Box(-1.0, 1.0, (1,))
    action_space: gymnasium.Space = Discrete(3)
    script: ClassVar[list] = []

    def reset(self, *, seed=None, options=None):
        self.masks = iter(self.script)
        return np.zeros(1, np.float32), self.info()

    def step(self, action):
        info = self.info()
        return np.zeros(1, np.float32), 0.0, info == {"over": True}, False, info

    def info(self):
        mask = next(self.masks, "over")
        if isinstance(mask, str):
            return {"over": True} if mask == "over" else {}
        return {"action_mask": mask}


def telling(monkeypatch, *scripts, space=Telling.action_space):
    monkeypatch.setattr(Telling, "action_space", space)
    own = iter(scripts)

    def make():
        env = Telling()
        env.script = next(own)  # type: ignore
        return env

    return VectorEnvironments(
        "Telling",
        GymnasiumBatch("Telling", make, len(scripts)),
        discount=0.9,
        frames_per_step=1,
        is_atari=False,
    )


FIRST, LAST, ALL = np.array([1, 0, 0], np.int8), np.array([0, 0, 1], np.int8), np.ones(3, np.int8)


def test_masks_belong_to_the_observation_that_they_came_with(monkeypatch):
    environments = telling(monkeypatch, [FIRST, LAST, ALL], [ALL, FIRST])
    masks = [environments.reset().action_mask]
    for _ in range(4):
        timestep = environments.step(np.zeros(2, np.int32))
        masks.append(timestep.action_mask)
        sampled = environments.sample_actions(np.random.default_rng(0))
        assert masks[-1][np.arange(2), sampled].all()
    # Where an episode ended nothing is told and all is allowed; the next step begins the next one.
    ours = [FIRST, LAST, ALL, ALL, FIRST], [ALL, FIRST, ALL, ALL, FIRST]
    for t, mask in enumerate(masks):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, [column[t] for column in ours])


def test_masks_follow_a_restart(monkeypatch):
    environments = telling(monkeypatch, [FIRST, LAST, LAST], [FIRST, LAST, LAST])
    environments.step(np.zeros(2, np.int32))
    environments.restart(np.array([1]))
    np.testing.assert_array_equal(environments.sample_actions(np.random.default_rng(0)), [2, 0])


def test_one_buffer_that_an_environment_writes_its_masks_into_is_copied(monkeypatch):
    buffer = FIRST.copy()
    environments = telling(monkeypatch, [buffer, buffer])
    mask = environments.reset().action_mask
    buffer[:] = LAST
    np.testing.assert_array_equal(mask, [FIRST])
    np.testing.assert_array_equal(environments.step(np.zeros(1, np.int32)).action_mask, [LAST])


@for_each(
    ("scripts", "got", "index"),
    [
        ([[ALL, "none"]], "none after there was", 0),
        ([["none", ALL]], "one after there was none", 0),
        ([[ALL], ["none"]], "none after there was", 1),
        ([["none"], [ALL]], "one after there was none", 1),
    ],
)
def test_masks_are_there_always_or_never(monkeypatch, scripts, got, index):
    with pytest.raises(
        AnswerError,
        match=rf"always or never, got {got} in .* of Telling \(environment {index} of the batch\)",
    ):
        telling(monkeypatch, *scripts).step(np.zeros(len(scripts), np.int32))


def test_continuous_actions_have_no_masks(monkeypatch):
    environments = telling(monkeypatch, [np.array([7]), "none"], space=Box(-1.0, 1.0, (1,)))
    assert environments.reset().action_mask is None
    assert environments.step(np.zeros((1, 1), np.float32)).action_mask is None


def test_state_of_environments_has_their_masks(monkeypatch):
    scripts = [[FIRST, LAST, ALL]]
    here, there = telling(monkeypatch, *scripts), telling(monkeypatch, *scripts)
    for name in ("get_state", "set_state"):
        monkeypatch.setattr(Telling, name, lambda self, *state: 0, raising=False)
    here.step(np.zeros(1, np.int32))
    there.set_state(here.get_state())
    assert there.sample_actions(np.random.default_rng(0)) == [2]
    older = {name: value for name, value in here.get_state().items() if name != "action_mask"}
    there.set_state(older)


def test_several_choices_have_a_row_for_each(monkeypatch):
    space = MultiDiscrete([2, 3])
    mask = (np.array([0, 1], np.int8), np.array([1, 0, 1], np.int8))
    environments = telling(monkeypatch, [mask, mask], space=space)
    expected = [[[False, True, False], [True, False, True]]]
    np.testing.assert_array_equal(environments.reset().action_mask, expected)
    samples = {
        tuple(environments.sample_actions(np.random.default_rng(seed))[0]) for seed in range(40)
    }
    assert samples == set(itertools.product([1], [0, 2]))


def test_spec_names_kinds_and_whether_all_is_bounded():
    assert make_action_spec(Discrete(4, start=2)) == ActionSpec("discrete", (4,))
    half = make_action_spec(bounds([-1, 0], [1, INFINITY]))
    assert half == ActionSpec("continuous", (2,), is_bounded=False)
    assert make_action_spec(MultiDiscrete([3, 2])).num_outputs == (3, 2)
    assert make_action_spec(Discrete(4)).num_outputs == 4
