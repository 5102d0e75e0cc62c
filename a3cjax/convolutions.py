"""Strided convolution whose lowering suits the device it runs on.

On a CPU, XLA computes the gradient of a strided convolution slowly: for the first
layer of the Atari networks the weight gradient alone takes most of a training
step. After space-to-depth the same convolution has stride 1, and a stride-1
convolution is one matrix product whose columns are shifted and added. Every
lowering computes the same function of the same HWIO kernel, so a checkpoint does
not depend on the lowering.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from a3cjax.types import Array

Blocks = TypeVar("Blocks", np.ndarray, jax.Array)

_STORED = "output of a layer"

CHUNK_SIZE = 8
"""Samples that a CPU convolves at a time: of 4, 8, 16, 41 and 82 the cheapest."""

BLOCK_SIZE = 4
"""Side of the pixel blocks in which image observations travel: the stride of the
first layer in both networks of the paper."""


def frames_to_blocks(frames: Blocks) -> Blocks:
    """Rearrange stacked frames into blocks of 4×4 pixels (space-to-depth).

    On the host this is done once, while the pixels are still bytes; the acting pass and the
    learning pass then both read the layout that the first layer multiplies.

    Args:
      frames: `[B, C, height, width]`, channels first as envpool stacks them. Rows and
        columns beyond a multiple of 4 are dropped (an 8×8 kernel with stride 4 never
        reaches them).

    Returns:
      `[B, height // 4, width // 4, C·16]`, channels ordered (frame, y, x), same dtype.
    """
    batch_size, channels, height, width = frames.shape
    rows, columns = height // BLOCK_SIZE, width // BLOCK_SIZE
    frames = frames[:, :, : rows * BLOCK_SIZE, : columns * BLOCK_SIZE]
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8:
        # Four neighbouring bytes move as one word: five times as fast as byte by byte.
        order = _order_of_words(channels, rows, columns)
        words = np.ascontiguousarray(frames).view(np.uint32).reshape(batch_size, order.size)
        # `take` always copies. No index is out of range: "clip" only skips the check for one.
        blocks = words.take(order, axis=1, mode="clip").view(np.uint8)
    else:
        shape = (batch_size, channels, rows, BLOCK_SIZE, columns, BLOCK_SIZE)
        blocks = frames.reshape(shape).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(batch_size, rows, columns, channels * BLOCK_SIZE**2)


@lru_cache
def _order_of_words(channels: int, rows: int, columns: int) -> np.ndarray:
    """For each word of an image in blocks, its index in the frames; faster than transposing."""
    words = np.arange(channels * rows * BLOCK_SIZE * columns)
    return words.reshape(channels, rows, BLOCK_SIZE, columns).transpose(1, 3, 0, 2).ravel()


def num_channels(blocks: Array) -> int:
    """The number of channels C of images given as blocks, `[B, rows, columns, C·16]`.

    Raises:
      AssertionError: if the array does not hold blocks but, for example, frames.
    """
    shape = blocks.shape
    if len(shape) != 4 or shape[-1] == 0 or shape[-1] % BLOCK_SIZE**2 != 0:
        raise AssertionError(
            "observations must be images as blocks, [..., rows, columns, C·16], which "
            "a3cjax.convolutions.frames_to_blocks makes of frames [B, C, height, width], "
            f"got {shape}."
        )
    return shape[-1] // BLOCK_SIZE**2


def blocks_to_frames(blocks: Blocks) -> Blocks:
    """Undo `frames_to_blocks`, also for floats; rows and columns that it dropped stay lost."""
    channels = num_channels(blocks)
    batch_size, rows, columns, _ = blocks.shape
    frames = blocks.reshape(batch_size, rows, columns, channels, BLOCK_SIZE, BLOCK_SIZE)
    frames = frames.transpose(0, 3, 1, 4, 2, 5)
    return frames.reshape(batch_size, channels, rows * BLOCK_SIZE, columns * BLOCK_SIZE)


def conv_of_blocks(blocks: Array, kernel: Array) -> jax.Array:
    """Convolve frames given as blocks, with a stride of 4 and no padding.

    Args:
      blocks: float or uint8 `[B, rows, columns, C·16]` from `frames_to_blocks`.
      kernel: float `[K, K, C, C_out]` for whole frames, K a multiple of 4.

    Returns:
      `[B, rows − K/4 + 1, columns − K/4 + 1, C_out]` in the kernel's dtype.

    Raises:
      AssertionError: if the shapes do not fit.
    """
    chex.assert_rank([blocks, kernel], 4)
    kernel = kernel_for_blocks(kernel)
    chex.assert_equal(blocks.shape[3], kernel.shape[2])
    _assert_covers(blocks.shape[1:3], kernel.shape[0])
    return jax.lax.platform_dependent(blocks, kernel, cpu=_conv_by_matmul, default=_conv_native)


def kernel_for_blocks(kernel: Array) -> Array:
    """Turn a kernel `[K, K, C, C_out]` for frames into `[K/4, K/4, C·16, C_out]` for blocks.

    Raises:
      AssertionError: if the kernel is not square, or K is not a multiple of 4.
    """
    chex.assert_equal(kernel.shape[0], kernel.shape[1])
    chex.assert_is_divisible(kernel.shape[0], BLOCK_SIZE)
    taps, num_out = kernel.shape[0] // BLOCK_SIZE, kernel.shape[3]
    # (tap_y, y, tap_x, x, channel, out) -> (tap_y, tap_x, (channel, y, x), out)
    kernel = kernel.reshape(taps, BLOCK_SIZE, taps, BLOCK_SIZE, *kernel.shape[2:])
    return kernel.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, -1, num_out)


def conv_valid(inputs: Array, kernel: Array, stride: int) -> jax.Array:
    """Convolve without padding.

    Args:
      inputs: float `[B, height, width, C_in]`.
      kernel: float `[K, K, C_in, C_out]`, K a multiple of `stride`.
      stride: the step between outputs along both axes.

    Returns:
      float `[B, (height − K) // stride + 1, (width − K) // stride + 1, C_out]`.

    Raises:
      AssertionError: if the shapes do not fit.
    """
    chex.assert_rank([inputs, kernel], 4)
    chex.assert_equal(kernel.shape[0], kernel.shape[1])
    chex.assert_equal(inputs.shape[3], kernel.shape[2])
    chex.assert_is_divisible(kernel.shape[0], stride)
    size = (inputs.shape[1] // stride, inputs.shape[2] // stride)
    _assert_covers(size, kernel.shape[0] // stride)
    return jax.lax.platform_dependent(
        inputs,
        kernel,
        cpu=partial(_conv_valid_on_cpu, stride=stride),
        default=partial(_conv_native, stride=stride),
    )


def map_chunks(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Apply convolutions to a large batch; on a CPU, a few samples at a time.

    All that a chunk needs then stays in the processor's cache, in the forward and in the
    backward pass: of the intermediates only the outputs of `stored_relu` are kept for the
    backward pass, and the others are computed again.

    Args:
      function: maps a pytree of `[n, ...]` arrays to another one, for any n and each sample
        independently; it may close over parameters.
      inputs: a pytree of `[N, ...]` arrays.

    Returns:
      `function(inputs)`.
    """

    def chunked(inputs: Any) -> Any:
        num_samples = jax.tree.leaves(inputs)[0].shape[0]
        if not isinstance(num_samples, int):  # exported for a batch of any size
            return function(inputs)
        num_chunks, num_left = divmod(num_samples, CHUNK_SIZE)
        if num_chunks < 2:
            return function(inputs)
        policy = jax.checkpoint_policies.save_only_these_names(_STORED)
        split = num_samples - num_left
        chunks = jax.tree.map(lambda x: x[:split].reshape(-1, CHUNK_SIZE, *x.shape[1:]), inputs)
        outputs = jax.lax.map(jax.checkpoint(function, policy=policy), chunks)
        outputs = jax.tree.map(lambda x: x.reshape(split, *x.shape[2:]), outputs)
        if num_left:
            left = function(jax.tree.map(lambda x: x[split:], inputs))
            outputs = jax.tree.map(lambda *x: jnp.concatenate(x), outputs, left)
        return outputs

    inputs = jax.tree.map(jnp.asarray, inputs)
    return jax.lax.platform_dependent(inputs, cpu=chunked, default=function)


def relu(x: jax.Array, recalled: Array | None = None) -> jax.Array:
    """max(x, 0), differentiated through its output, so that x need not be computed again.

    Where the output is `recalled` from an earlier pass, x need not be computed at all: only its
    tangent is used.
    """
    return stored_relu(x) if recalled is None else recalled_relu(x, recalled)


@jax.custom_jvp
def stored_relu(x: jax.Array) -> jax.Array:
    """max(x, 0), which `map_chunks` stores for the backward pass."""
    return jnp.maximum(x, 0)


@stored_relu.defjvp
def _stored_relu_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    y = checkpoint_name(stored_relu(x), _STORED)
    return y, jnp.where(y > 0, tangent, 0)


@jax.custom_jvp
def recalled_relu(x: jax.Array, recalled: Array) -> jax.Array:
    """The given `recalled`, which must equal max(x, 0)."""
    chex.assert_equal_shape([x, recalled])
    return jnp.asarray(recalled, x.dtype)


@recalled_relu.defjvp
def _recalled_relu_jvp(primals, tangents):
    y = recalled_relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)


def _assert_covers(size: tuple[int, ...], taps: int) -> None:
    if min(size) < taps:
        raise AssertionError(f"image must cover the kernel, got {size} blocks for {taps}.")


def _conv_native(inputs: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """XLA's own convolution, the best there is on a GPU or TPU."""
    return jax.lax.conv_general_dilated(
        inputs.astype(kernel.dtype),
        kernel,
        window_strides=(stride, stride),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _conv_valid_on_cpu(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's own convolution; only its gradient would be slow, and is made of matrix products."""
    return _conv_native(inputs, kernel, stride)


@_conv_valid_on_cpu.defjvp
def _conv_valid_on_cpu_jvp(stride, primals, tangents):
    _, tangent = jax.jvp(partial(_conv_by_blocks, stride=stride), primals, tangents)
    return _conv_valid_on_cpu(*primals, stride), tangent


def _conv_by_blocks(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Space-to-depth, then a convolution of stride 1 as one matrix product."""
    taps = kernel.shape[0] // stride
    rows, columns = inputs.shape[1] // stride, inputs.shape[2] // stride
    # (row, y, column, x·channel) -> (row, column, y·x·channel)
    inputs = inputs[:, : rows * stride, : columns * stride]
    inputs = inputs.reshape(-1, rows, stride, columns, stride * inputs.shape[3])
    inputs = inputs.transpose(0, 1, 3, 2, 4).reshape(inputs.shape[0], rows, columns, -1)
    # (tap_y, y, tap_x, x·channel, out) -> (tap_y, tap_x, y·x·channel, out)
    num_out = kernel.shape[3]
    kernel = kernel.reshape(taps, stride, taps, -1, num_out)
    kernel = kernel.transpose(0, 2, 1, 3, 4).reshape(taps, taps, -1, num_out)
    return _conv_by_matmul(inputs, kernel)


def _conv_by_matmul(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product with all taps side by side: every input is read once, no patches are written."""
    taps, _, num_in, num_out = kernel.shape
    kernel = kernel.transpose(2, 0, 1, 3).reshape(num_in, taps * taps * num_out)
    products = inputs.reshape(-1, num_in).astype(kernel.dtype) @ kernel
    return _add_shifted(products.reshape(*inputs.shape[:3], -1), taps)


def _add_shifted(products: jax.Array, taps: int) -> jax.Array:
    """Add the taps·taps slices of the last axis, each shifted by its tap's offset."""
    _, rows, columns, depth = products.shape
    height, width = rows - taps + 1, columns - taps + 1
    # The gradient of `split` concatenates the gradients of its slices; the gradient of indexing
    # would add zero-padded arrays of the full size.
    slices = jax.lax.split(products, [depth // taps**2] * taps**2, axis=-1)
    shifted = (
        part[:, y : y + height, x : x + width]
        for part, (y, x) in zip(slices, np.ndindex(taps, taps), strict=True)
    )
    return sum(shifted, start=jnp.zeros((), products.dtype))
