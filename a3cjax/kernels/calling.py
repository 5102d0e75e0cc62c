"""The kernels as functions of JAX."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.convolutions import BLOCK_SIZE, kernel_for_blocks
from a3cjax.torsos import ImageKernels
from a3cjax.types import Array

MOST_ROWS = 64
"""Of more, XLA's product is as fast."""


class Names(NamedTuple):
    """What the programs are called in XLA."""

    convolve: str
    differentiate: str
    multiply: str


def make_kernels(names: Names) -> ImageKernels:
    """The functions that call the programs registered for CPUs under these names."""
    return ImageKernels(
        convolve=functools.partial(_convolve, names),
        multiply=functools.partial(_multiply_if_few, names),
    )


def _convolve(
    names: Names,
    blocks: Array,
    mean: Array | None,
    kernels: Sequence[Array],
    biases: Sequence[Array],
    strides: Sequence[int],
    recalled: Sequence[Array] | None,
) -> list[jax.Array] | None:
    """See `ImageKernels.convolve`."""
    shapes = _output_shapes(blocks, kernels, strides)
    if not _are_made_for(blocks, kernels, strides, shapes):
        return None
    mean = jnp.zeros(blocks.shape[1:]) if mean is None else jnp.asarray(mean)
    pairs = zip(kernels, (bias.reshape(-1) for bias in biases), strict=True)
    params = tuple(param for pair in pairs for param in pair)
    if recalled is None:
        types = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        call = jax.ffi.ffi_call(names.convolve, types)
        recalled = call(*jax.lax.stop_gradient((blocks, mean, *params)), strides=np.array(strides))
    outputs = tuple(jax.lax.stop_gradient(jnp.asarray(output)) for output in recalled)
    return [*outputs[:-1], _recall((names.differentiate, *strides), blocks, mean, params, outputs)]


def _output_shapes(blocks, kernels, strides) -> list[tuple[int, ...]]:
    """The shape of each layer's output, `[N, rows, columns, channels]`."""
    num_samples, *sides, _ = blocks.shape
    sides, shapes = [BLOCK_SIZE * side for side in sides], []
    for (size, _, _, num_out), stride in zip((k.shape for k in kernels), strides, strict=True):
        sides = [(side - size) // stride + 1 for side in sides]
        shapes.append((num_samples, *sides, num_out))
    return shapes


def _are_made_for(blocks, kernels, strides, shapes) -> bool:
    """Whether the programs support these arguments."""
    if blocks.dtype != jnp.uint8 or not isinstance(blocks.shape[0], int):
        return False  # floats, or a batch of any size
    if strides[0] != BLOCK_SIZE or kernels[0].shape[0] != 2 * BLOCK_SIZE:
        return False
    rests, distances = [shape[3] % 16 for shape in shapes], [blocks.shape[3]]
    for kernel, stride, inputs in zip(kernels[1:], strides[1:], shapes, strict=False):
        size, _, num_in, num_out = kernel.shape
        rests += [size % stride, *((side - size) % stride for side in inputs[1:3])]
        distances += [stride * num_in, num_out]  # between what adjacent outputs read
    return not any(rests) and {32, 64}.issuperset(distances) and min(map(min, shapes)) > 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recall(how, blocks, mean, params, outputs):
    """The last output; `how` is the name of the program that differentiates it, and the strides."""
    del how, blocks, mean, params
    return outputs[-1]


def _recall_forward(how, *args):
    del how
    return args[-1][-1], args


def _recall_backward(how, args, cotangent):
    (name, *strides), (blocks, mean, params, outputs) = how, args
    reversed_kernels = map(_reverse, params[2::2], strides[1:])
    of_blocks = jax.eval_shape(kernel_for_blocks, params[0])
    types = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (of_blocks, *params[1:])]
    grad, *grads = jax.ffi.ffi_call(name, types)(
        blocks, mean, *params, *outputs, cotangent, *reversed_kernels, strides=np.array(strides)
    )
    (grad,) = jax.linear_transpose(kernel_for_blocks, params[0])(grad)
    return None, None, (grad, *grads), None


_recall.defvjp(_recall_forward, _recall_backward)


def _reverse(kernel: jax.Array, stride: int) -> jax.Array:
    """The kernel in the layout for the gradient of the inputs: with taps from last to first."""
    taps, (num_in, num_out) = kernel.shape[0] // stride, kernel.shape[2:]
    kernel = kernel.reshape(taps, stride, taps, stride, num_in, num_out)
    # (tap_y, dy, tap_x, dx, in, out) -> (dy, tap_y, tap_x, out, dx, in)
    return jnp.flip(kernel.transpose(1, 0, 2, 5, 3, 4), (1, 2))


def _multiply_if_few(names: Names, inputs: Array, weights: Array, *args, **kwargs) -> jax.Array:
    """As `jax.lax.dot_general`, for two matrices."""
    num_rows, is_wide = inputs.shape[0], weights.shape[1] % 16 == 0
    if inputs.ndim == 2 and isinstance(num_rows, int) and num_rows <= MOST_ROWS and is_wide:
        return _multiply(names, inputs, weights)
    return jax.lax.dot_general(inputs, weights, *args, **kwargs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(names, inputs, weights):
    shape = (inputs.shape[0], weights.shape[1])
    call = jax.ffi.ffi_call(names.multiply, jax.ShapeDtypeStruct(shape, jnp.float32))
    return call(inputs, weights)


def _multiply_forward(names, inputs, weights):
    return _multiply(names, inputs, weights), (inputs, weights)


def _multiply_backward(names, args, cotangent):
    del names
    inputs, weights = args
    return cotangent @ weights.T, inputs.T @ cotangent


_multiply.defvjp(_multiply_forward, _multiply_backward)
