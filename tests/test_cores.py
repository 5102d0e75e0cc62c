"""The laws of recurrent cores: they are Flax's cells, one step after another."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from a3cjax.cores import GRU, LSTM, RecurrentCore

T, B, F, H = 6, 3, 4, 5
FEATURES = np.random.default_rng(0).normal(size=(T, B, F)).astype(np.float32)
IS_FIRST = np.arange(T * B).reshape(T, B) % 5 == 0  # at the first, the last and steps between
CELLS = [
    pytest.param(GRU, nn.GRUCell(H), id="gru"),
    pytest.param(LSTM, nn.OptimizedLSTMCell(H), id="lstm"),
]


class StepByStep(nn.Module):
    """A cell of Flax, from zeros where an episode begins."""

    cell: nn.RNNCellBase

    def __call__(self, core_state, features, is_first):
        outputs = []
        for x, begins in zip(features, is_first, strict=True):
            zeros = jax.tree.map(jnp.zeros_like, core_state)
            core_state = jax.tree.map(
                lambda z, state, begins=begins[:, None]: jnp.where(begins, z, state),
                *(zeros, core_state),
            )
            core_state, output = self.cell(core_state, x)
            outputs.append(output)
        return core_state, jnp.stack(outputs)


class WholeUnroll(nn.Module):
    cell: RecurrentCore

    def __call__(self, core_state, features, is_first):
        return self.cell(core_state, features, is_first)


def make_both(cell, flax_cell):
    """The two as modules, random parameters, and a state."""
    ours, flaxs = WholeUnroll(RecurrentCore(cell, H)), StepByStep(flax_cell)
    state = ours.cell.initial_state(B)
    params = flaxs.init(jax.random.key(0), state, FEATURES, IS_FIRST)
    first = ours.init(jax.random.key(0), state, FEATURES, IS_FIRST)
    chex.assert_trees_all_equal(first, params)  # checkpoints and first weights are the same
    rng = np.random.default_rng(1)
    params, state = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), (params, state)
    )
    return ours, flaxs, params, state


def squares_of(module):
    """A function of parameters, state and features that all that the module returns counts in."""

    def sum_of_squares(params, state, features):
        results = jax.tree.leaves(module.apply(params, state, features, IS_FIRST))
        return sum(jnp.sum((x - 0.3) ** 2) for x in results)

    return sum_of_squares


@pytest.mark.parametrize(("cell", "flax_cell"), CELLS)
def test_cores_are_flaxs_cells_step_by_step(cell, flax_cell):
    ours, flaxs, params, state = make_both(cell, flax_cell)
    both = [jax.jit(m.apply)(params, state, FEATURES, IS_FIRST) for m in (ours, flaxs)]
    chex.assert_trees_all_close(*both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "flax_cell"), CELLS)
def test_derivatives_of_all_kinds_are_those_of_flaxs_cells(cell, flax_cell):
    ours, flaxs, params, state = make_both(cell, flax_cell)
    point = (params, state, FEATURES)
    rng = np.random.default_rng(2)
    change = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), point)

    def derivatives(module):
        function = squares_of(module)
        gradient = jax.grad(function, (0, 1, 2))
        by_parameters = jax.grad(function)

        def size_of_gradient(params):
            return sum(jnp.sum(x**2) for x in jax.tree.leaves(by_parameters(params, *point[1:])))

        several = jnp.stack([FEATURES, 2 * FEATURES])
        return {
            "gradient": gradient(*point),
            "jvp": jax.jvp(function, point, change)[1],
            "forward over reverse": jax.jvp(gradient, point, change)[1],
            "reverse over reverse": jax.grad(size_of_gradient)(params),
            "of a batch": jax.vmap(by_parameters, (None, None, 0))(params, state, several),
        }

    both = [jax.jit(derivatives, static_argnums=0)(module) for module in (ours, flaxs)]
    for name in both[0]:
        chex.assert_trees_all_close(
            *(found[name] for found in both), rtol=1e-3, atol=1e-3, custom_message=name
        )
