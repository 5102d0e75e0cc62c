import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.cluster.slices import Slicing
from a3cjax.optimizers import OPTIMIZER_NAMES, linear_annealing, make_optimizer
from a3cjax.types import LearnerState, Seen
from a3cjax.updates import make_apply_gradients

PARAMS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": {"c": np.array(6.0, np.float32), "d": np.arange(7, 12, dtype=np.float32)},
}


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("num_slices", [1, 2, 5, 12, 13])
def test_slices_are_of_equal_size_in_order_and_join_again(num_slices):
    slicing = Slicing(PARAMS, num_slices)
    slices = slicing.cut(PARAMS)
    assert max(map(len, slices)) - min(map(len, slices)) <= 1
    np.testing.assert_array_equal(np.concatenate(slices), np.arange(12))
    assert_equal(slicing.join(slices), PARAMS)


def make(name, max_grad_norm=None):
    schedule = linear_annealing(0.1, 1_000)
    return make_optimizer(name, schedule=schedule, max_grad_norm=max_grad_norm)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
@pytest.mark.parametrize("is_shared", [True, False])
def test_slices_learn_what_the_whole_learns(name, is_shared):
    optimizer = make(name)
    opt_state = optimizer.init(PARAMS)
    whole = LearnerState(PARAMS, opt_state if is_shared else (opt_state,) * 2, PARAMS, Seen())
    slicing = Slicing(PARAMS, 5)
    slices = slicing.cut_state(whole)
    assert_equal(slicing.join_states(slices, whole), whole)
    apply_gradients = make_apply_gradients(optimizer)

    def learn(state, grads, step):
        if is_shared:
            return apply_gradients(state, grads, np.float32(step))[0]
        actor, opt_states = step % 2, list(state.opt_state)  # which take turns
        state = state._replace(opt_state=opt_states[actor])
        state, _ = apply_gradients(state, grads, np.float32(step))
        opt_states[actor] = state.opt_state
        return state._replace(opt_state=tuple(opt_states))

    generator = np.random.default_rng(0)
    for step in range(3):
        grads = jax.tree.map(lambda x: generator.normal(size=x.shape).astype("f"), PARAMS)
        whole = learn(whole, grads, step)
        slices = [
            learn(state, own, step) for state, own in zip(slices, slicing.cut(grads), strict=True)
        ]
    joined = slicing.join_states(slices, whole)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), joined, whole)
    assert not np.array_equal(joined.params["a"], PARAMS["a"])


def test_what_was_seen_is_left_with_the_first_slice():
    state = LearnerState(PARAMS, (), None, Seen(returns=jnp.ones(())))
    first, second = Slicing(PARAMS, 2).cut_state(state)
    assert (first.seen.returns, second.seen) == (1.0, Seen())
    assert (first.target_params, second.target_params) == (None, None)
