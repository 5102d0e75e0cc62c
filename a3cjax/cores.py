"""Recurrent cores over whole unrolls: Flax's GRU and LSTM cells, and their parameters.

A scan over a cell of Flax multiplies one step's inputs at a time, and on its way back it adds up
gradients as large as all matrices, once a step. Here the inputs of all steps are multiplied at
once, and so is what the gradients of the matrices are made of. Left to the scan is what needs the
step before.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from a3cjax.types import Array, CoreState, check_shapes

Gates = tuple[jax.Array, ...]
"""An array for each gate of a cell."""


class Cell(NamedTuple):
    """The equations of a cell, and how Flax calls its parameters.

    `gates`: a letter for each. The matrix that multiplies the inputs is called i and the letter,
    the one that multiplies the output of the step before h and the letter. `with_bias`: those
    that have one. `num_arrays`: of the state; the last one is the output, too.
    `update(inputs, recurrent, state) -> state`: where `inputs` and `recurrent` are `[B, H]` for
    each gate, products and bias.
    """

    gates: str
    with_bias: tuple[str, ...]
    num_arrays: int
    update: Callable[[Gates, Gates, CoreState], CoreState]


def _update_gru(inputs: Gates, recurrent: Gates, state: CoreState) -> CoreState:
    reset = nn.sigmoid(inputs[0] + recurrent[0])
    keep = nn.sigmoid(inputs[1] + recurrent[1])
    return (1.0 - keep) * nn.tanh(inputs[2] + reset * recurrent[2]) + keep * state


def _update_lstm(inputs: Gates, recurrent: Gates, state: CoreState) -> CoreState:
    write, keep, candidate, show = map(jnp.add, inputs, recurrent)
    memory = nn.sigmoid(keep) * state[0] + nn.sigmoid(write) * nn.tanh(candidate)
    return memory, nn.sigmoid(show) * nn.tanh(memory)


GRU = Cell("rzn", ("ir", "iz", "in", "hn"), 1, _update_gru)
"""Cho et al. 2014, as `flax.linen.GRUCell`."""
LSTM = Cell("ifgo", ("hi", "hf", "hg", "ho"), 2, _update_lstm)
"""Hochreiter & Schmidhuber 1997 with forget gates, as `flax.linen.LSTMCell`."""


class RecurrentCore(nn.Module):
    """A cell of `size` units over the steps of an unroll, from zeros where an episode begins."""

    cell: Cell
    size: int

    @nn.nowrap
    def initial_state(self, batch_size: int) -> CoreState:
        """The state of new episodes: zeros, `[B, H]` or, for an LSTM, a pair of them."""
        shape, num_arrays = (batch_size, self.size), self.cell.num_arrays
        zeros = jnp.zeros(shape, jnp.float32)
        return zeros if num_arrays == 1 else (zeros,) * num_arrays

    @nn.compact
    def __call__(
        self, core_state: CoreState, features: jax.Array, is_first: Array
    ) -> tuple[CoreState, jax.Array]:
        """Map the state before `[T, B, F]` features to the state after them and `[T, B, H]`."""
        batch_size = np.shape(is_first)[1]
        for x in jax.tree.leaves(core_state):
            check_shapes((batch_size, "H"), f"is_first {np.shape(is_first)}", core_state=x)
        gates, with_bias = self.cell.gates, self.cell.with_bias
        inputs = tuple(
            nn.Dense(self.size, use_bias=f"i{gate}" in with_bias, name=f"i{gate}")(features)
            for gate in gates
        )
        weights = [
            _Weights(self.size, f"h{gate}" in with_bias, name=f"h{gate}")() for gate in gates
        ]
        matrices, biases = zip(*weights, strict=True)
        return _unroll(self.cell, matrices, biases, inputs, jnp.asarray(is_first), core_state)


class _Weights(nn.Module):
    """The parameters of a recurrent layer: matrix and bias, which is zeros if there is none."""

    size: int
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        zeros, shape = nn.initializers.zeros_init(), (self.size, self.size)
        matrix = self.param("kernel", nn.initializers.orthogonal(), shape, jnp.float32)
        if not self.use_bias:
            return matrix, jnp.zeros(self.size, matrix.dtype)
        return matrix, self.param("bias", zeros, (self.size,), jnp.float32)


def _scan(
    cell: Cell, matrices: Gates, biases: Gates, inputs: Gates, is_first: Array, state: CoreState
) -> tuple[tuple[CoreState, jax.Array], jax.Array]:
    """Go through the steps with biases `[T, B, H]`, one for each.

    Returns the last state and the outputs; and what the matrices have multiplied, `[T, B, H]`.
    """

    def step(state, now):
        biases, inputs, is_first = now
        state = jax.tree.map(lambda x: jnp.where(is_first[:, None], 0.0, x), state)
        before = jax.tree.leaves(state)[-1]
        products = [before @ matrix + bias for matrix, bias in zip(matrices, biases, strict=True)]
        state = cell.update(inputs, tuple(products), state)
        return state, (jax.tree.leaves(state)[-1], before)

    state, (outputs, before) = jax.lax.scan(step, state, (biases, inputs, is_first))
    return (state, outputs), before


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _unroll(
    cell: Cell, matrices: Gates, biases: Gates, inputs: Gates, is_first: Array, state: CoreState
) -> tuple[CoreState, jax.Array]:
    return _scan(cell, matrices, _at_steps(biases, inputs), inputs, is_first, state)[0]


@_unroll.defjvp
def _unroll_jvp(cell, primals, tangents):
    """A change of the matrices is, at each step, one of the biases: `before` times the change."""
    matrices, biases, inputs, is_first, state = primals
    d_matrices, d_biases, d_inputs, _, d_state = tangents
    outputs, differentiate, before = jax.linearize(
        lambda biases, inputs, state: _scan(cell, matrices, biases, inputs, is_first, state),
        *(_at_steps(biases, inputs), inputs, state),
        has_aux=True,
    )
    d_biases = _at_steps(d_biases, inputs)
    pairs = zip(d_matrices, d_biases, strict=True)
    d_biases = tuple(before @ d_matrix + d_bias for d_matrix, d_bias in pairs)
    return outputs, differentiate(d_biases, d_inputs, d_state)


def _at_steps(biases: Gates, inputs: Gates) -> Gates:
    """Biases `[H]` at each step, as `[T, B, H]`.

    A select on a constant varies over the same axes of a mesh as the inputs, and costs nothing.
    """
    return tuple(
        jnp.where(True, bias[None, None], x) for bias, x in zip(biases, inputs, strict=True)
    )
