"""The laws of optimizers: the paper's formulas by hand, annealing by frames, clipping."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.agents import make_a3c
from a3cjax.distributions import Categorical
from a3cjax.exploration import evaluation_exploration
from a3cjax.networks import Network
from a3cjax.optimizers import (
    OPTIMIZER_NAMES,
    linear_annealing,
    make_optimizer,
    scale_by_frames,
)
from a3cjax.types import LearnerState, NetworkOutput, Snapshot, Trajectory
from a3cjax.updates import make_apply_gradients, make_compute_gradients
from tests.cases import for_each


def constant(learning_rate):
    return lambda num_frames: learning_rate


def run(optimizer, gradients, num_frames=0):
    """The updates that a scalar parameter gets from one gradient after another."""
    params = jnp.array(0.0)
    opt_state, all_updates = optimizer.init(params), []
    for gradient in gradients:
        updates, opt_state = optimizer.update(
            jnp.array(gradient), opt_state, params, num_frames=num_frames
        )
        all_updates.append(float(updates))
    return all_updates


def test_rmsprop_is_the_papers_formula_with_epsilon_inside_the_root():
    # g ← αg + (1 − α)Δ², θ ← θ − ηΔ/√(g + ε) with α = 0.9, ε = 0.1, η = 2:
    # Δ = 3: g = 0.1 · 9 = 0.9,           θ −= 2 · 3/√(0.9 + 0.1)  = 6
    # Δ = 1: g = 0.9 · 0.9 + 0.1 = 0.91,  θ −= 2 · 1/√(0.91 + 0.1)
    optimizer = make_optimizer("rmsprop", schedule=constant(2.0), decay=0.9, epsilon=0.1)
    np.testing.assert_allclose(run(optimizer, [3.0, 1.0]), [-6.0, -2 / math.sqrt(1.01)], rtol=1e-6)


def test_rmsprop_defaults_are_the_papers():
    # α = 0.99 and ε = 0.1: Δ = 3 gives −3/√(0.01 · 9 + 0.1)
    optimizer = make_optimizer("rmsprop", schedule=constant(1.0))
    np.testing.assert_allclose(run(optimizer, [3.0]), [-3 / math.sqrt(0.19)], rtol=1e-6)


def test_adam_of_a_hand_example():
    # β₁ = 0.5, β₂ = 0.9, ε = 1, η = 2; m and v are divided by 1 − β^t, ε is outside the root.
    # Δ = 3: m/(1 − 0.5) = 3, v/(1 − 0.9) = 9:  θ −= 2 · 3/(3 + 1) = 1.5
    # Δ = 1: m = 0.5 · 1.5 + 0.5 = 1.25,        over 1 − 0.25
    #        v = 0.9 · 0.9 + 0.1 = 0.91,        over 1 − 0.81
    optimizer = make_optimizer("adam", schedule=constant(2.0), momentum=0.5, decay=0.9, epsilon=1.0)
    second = -2 * (1.25 / 0.75) / (math.sqrt(0.91 / 0.19) + 1)
    np.testing.assert_allclose(run(optimizer, [3.0, 1.0]), [-1.5, second], rtol=1e-5)


def test_adam_has_no_momentum_unless_told():
    # β₁ = 0, β₂ = 0.999, ε = 1e-5; both gradients are divided by the root of their mean square.
    optimizer = make_optimizer("adam", schedule=constant(1.0))
    second = -1 / (math.sqrt((0.999 * 0.009 + 0.001) / (1 - 0.999**2)) + 1e-5)
    np.testing.assert_allclose(run(optimizer, [3.0, 1.0]), [-3 / (3 + 1e-5), second], rtol=1e-4)
    np.testing.assert_allclose(run(optimizer, [1e-5]), [-0.5], rtol=1e-4)  # 1e-5/(1e-5 + ε)


@for_each(
    ("name", "constants"),
    [
        ("adam", {"decay": 1.0}),
        ("adam", {"epsilon": 0.0}),
        ("adam", {"momentum": 1.0}),
        ("rmsprop", {"epsilon": 0.0}),
        ("rmsprop", {"decay": -0.1}),
        ("rmsprop", {"epsilon": math.inf}),
        ("rmsprop", {"epsilon": math.nan}),
        ("adam", {"decay": math.nan}),
        ("sgd", {"momentum": 1.5}),
        # A norm below 0 would turn every gradient around.
        *(("sgd", {"max_grad_norm": norm}) for norm in (-1.0, 0.0, 1e-300, math.nan)),
        *(("adam", {"epsilon": epsilon}) for epsilon in (1e-50, 1e39)),
    ],
)
def test_constants_out_of_range_are_refused(name, constants):
    with pytest.raises(ValueError, match=rf"^{next(iter(constants))} must be .*, got"):
        make_optimizer(name, schedule=constant(1.0), **constants)


@for_each("learning_rate", [-1.0, math.nan, math.inf])
@for_each("schedule", [constant, lambda rate: linear_annealing(rate, 100)])
def test_learning_rates_that_cannot_be_are_refused(schedule, learning_rate):
    with pytest.raises(ValueError, match=r"^learning_rate must be .*, got"):
        make_optimizer("sgd", schedule=schedule(learning_rate))


def test_schedule_is_a_function_and_updates_are_told_their_frames():
    number: Any = 0.1
    with pytest.raises(ValueError, match=r"^schedule must be a function of frames, .* got 0.1\.$"):
        make_optimizer("adam", schedule=number)
    optimizer, params = make_optimizer("adam", schedule=constant(0.1)), jnp.array(0.0)
    with pytest.raises(TypeError, match=r"^update must be given num_frames"):
        optimizer.update(params, optimizer.init(params), params)


@for_each("total_frames", [0, -1, math.nan, math.inf])
def test_annealing_over_no_frames_is_refused(total_frames):
    with pytest.raises(ValueError, match=r"^total_frames must be .*, got"):
        linear_annealing(1.0, total_frames)


@for_each("name", OPTIMIZER_NAMES)
def test_zero_gradients_leave_finite_parameters(name):
    assert run(make_optimizer(name, schedule=constant(1.0)), [0.0, 0.0]) == [0.0, 0.0]


@for_each("name", OPTIMIZER_NAMES)
def test_compiled_and_eager_updates_agree(name):
    optimizer = make_optimizer(name, schedule=linear_annealing(1.0, 100), max_grad_norm=1.0)
    params = {"w": jnp.ones(3), "b": jnp.zeros(())}
    grads = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}

    def update(grads, state):
        return optimizer.update(grads, state, params, num_frames=jnp.float32(40))

    state = optimizer.init(params)
    chex.assert_trees_all_close(jax.jit(update)(grads, state), update(grads, state), rtol=1e-6)


def test_sgd_averages_with_momentum():
    # m ← 0.5 m + 0.5 Δ, η = 2: m = 1.5 and θ −= 3, then m = 0.75 + 0.5 and θ −= 2.5
    optimizer = make_optimizer("sgd", schedule=constant(2.0), momentum=0.5)
    np.testing.assert_allclose(run(optimizer, [3.0, 1.0]), [-3.0, -2.5], rtol=1e-6)


@given(
    learning_rate=st.floats(1e-6, 1.0),
    total_frames=st.integers(1, 10**15),  # more than 32 bits
    fraction=st.floats(0.0, 1.0),
)
def test_annealing_is_linear_in_frames(learning_rate, total_frames, fraction):
    num_frames = int(fraction * total_frames)
    expected = learning_rate * (1 - num_frames / total_frames)
    actual = linear_annealing(learning_rate, total_frames)(np.float32(num_frames))
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-6 * learning_rate)


@for_each("name", OPTIMIZER_NAMES)
def test_annealing_scales_updates_and_ends_at_zero(name):
    optimizer = make_optimizer(name, schedule=linear_annealing(0.5, 1000))
    at = {frames: run(optimizer, [3.0], frames)[0] for frames in (0, 250, 999, 1000, 1016)}
    assert at[0] < 0
    np.testing.assert_allclose(at[250], 0.75 * at[0], rtol=1e-6)
    np.testing.assert_allclose(at[999], 0.001 * at[0], rtol=1e-3)
    # The last batch overshoots the budget a little: nothing more is learned, or unlearned.
    assert at[1000] == at[1016] == 0.0


def test_annealing_does_not_depend_on_the_number_of_updates():
    optimizer = make_optimizer("sgd", schedule=linear_annealing(1.0, 100), momentum=0.0)
    np.testing.assert_allclose(run(optimizer, [2.0] * 4, num_frames=50), [-1.0] * 4, rtol=1e-6)


GRADIENTS = {"a": np.array([3.0, 0.0], np.float32), "b": np.array(4.0, np.float32)}  # norm 5


def update_of(optimizer, gradients):
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, num_frames=0)
    return updates


def sgd(max_grad_norm):
    return make_optimizer("sgd", schedule=constant(1.0), momentum=0.0, max_grad_norm=max_grad_norm)


def test_clipping_scales_all_gradients_down_to_the_global_norm():
    # 5 → 1: everything is divided by 5.
    expected = {"a": np.array([-0.6, 0.0]), "b": np.array(-0.8)}
    chex.assert_trees_all_close(update_of(sgd(1.0), GRADIENTS), expected, rtol=1e-6)


@for_each("max_grad_norm", [None, 5.5])
def test_gradients_within_the_norm_are_left_alone(max_grad_norm):
    expected = {"a": np.array([-3.0, 0.0]), "b": np.array(-4.0)}
    updates = update_of(sgd(max_grad_norm), GRADIENTS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_clipping_comes_before_the_statistics():
    clipping = make_optimizer("rmsprop", schedule=constant(1.0), max_grad_norm=1.0)
    plain = make_optimizer("rmsprop", schedule=constant(1.0))
    small = {name: gradient / 5 for name, gradient in GRADIENTS.items()}
    chex.assert_trees_all_close(update_of(clipping, GRADIENTS), update_of(plain, small), rtol=1e-6)


def test_scale_by_frames_keeps_the_dtype_of_each_update():
    updates = jnp.ones(2, jnp.bfloat16), jnp.ones((), jnp.float32)
    scaling = scale_by_frames(linear_annealing(0.5, 10))
    scaled, _ = scaling.update(updates, scaling.init(updates), num_frames=5)
    chex.assert_trees_all_equal_dtypes(scaled, updates)
    chex.assert_trees_all_equal(scaled, (jnp.full(2, -0.25, jnp.bfloat16), jnp.float32(-0.25)))


def test_unknown_name_raises_with_rule_and_value():
    with pytest.raises(ValueError, match="optimizer must be") as error:
        make_optimizer("lion", schedule=constant(1.0))
    assert str(error.value) == "optimizer must be one of rmsprop, adam, sgd, got lion."


def test_policy_and_values_share_the_statistics_of_their_summed_gradient():
    # One parameter w = 0 is the logit of action 0 beside one of 0, and the value, too. A reward of
    # 1 ends the episode: −(1 − π) A = −½ of the policy and ½ (V − R) = −½ of the value make −1,
    # and θ −= −1/√(0.01 · 1² + 0.1). With statistics of their own it would be 1/√(0.01 · ½² + 0.1).
    def apply(params, statistics, observations, is_first, core_state):
        values = params["w"] * jnp.ones(is_first.shape)
        return NetworkOutput(
            Categorical(jnp.stack([values, 0 * values], axis=-1)), values
        ), core_state

    agent = make_a3c(Network(lambda *_: None, apply, lambda _: ()), entropy_cost=0.0)
    optimizer = make_optimizer("rmsprop", schedule=constant(1.0))
    params = {"w": jnp.zeros(())}
    trajectory = Trajectory(
        observations=np.zeros((2, 1), np.float32),
        actions=np.zeros((1, 1), np.int32),
        rewards=np.ones((1, 1), np.float32),
        discounts=np.zeros((1, 1), np.float32),
        is_first=np.zeros((2, 1), bool),
        core_state=(),
    )
    exploration = evaluation_exploration(1)
    grads, _ = make_compute_gradients(agent)(Snapshot(0, 0, params), exploration, trajectory)
    state = LearnerState(params, optimizer.init(params))
    state, _ = make_apply_gradients(optimizer)(state, grads, 0)
    np.testing.assert_allclose(state.params["w"], 1 / math.sqrt(0.11), rtol=1e-5)
