"""The lowered convolutions compute what XLA's own convolution computes, gradients included."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export

from a3cjax import convolutions
from a3cjax.convolutions import (
    blocks_to_frames,
    conv_of_blocks,
    conv_valid,
    frames_to_blocks,
    map_chunks,
    stored_relu,
)
from a3cjax.torsos import NATURE_LAYERS, PAPER_LAYERS
from tests.cases import for_each

BATCH_SIZE = 2


def zoo_layers():
    """(input size, channels in, channels out, kernel size, stride) of layers on 84×84 frames."""
    shapes = []
    for layers in (PAPER_LAYERS, NATURE_LAYERS):
        size, channels = 84, 4
        for channels_out, kernel_size, stride in layers:
            shapes.append((size, channels, channels_out, kernel_size, stride))
            size, channels = (size - kernel_size) // stride + 1, channels_out
    return shapes


def reference(inputs, kernel, stride):
    """XLA's strided convolution of `[B, height, width, C]`."""
    return jax.lax.conv_general_dilated(
        inputs, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def value_and_gradients(convolve, inputs, kernel, cotangent):
    """The output and, for a given cotangent of it, the gradients by input and by kernel."""

    @jax.jit
    def run(inputs, kernel, cotangent):
        output, pull_back = jax.vjp(convolve, inputs, kernel)
        return output, *pull_back(cotangent)

    return run(inputs, kernel, cotangent)


def random_layer(size, channels_in, channels_out, kernel_size, stride, seed=0):
    rng = np.random.default_rng(seed)
    size_out = (size - kernel_size) // stride + 1
    shapes = (
        (BATCH_SIZE, size, size, channels_in),
        (kernel_size, kernel_size, channels_in, channels_out),
        (BATCH_SIZE, size_out, size_out, channels_out),
    )
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def assert_equal_within(relative, actual, expected):
    """Compares to the size of the largest element: sums of thousands of terms round."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * np.max(np.abs(b)))


def as_blocks(images):
    """`[B, height, width, C]` images to blocks, in operations that can be differentiated."""
    B, height, width, C = images.shape
    blocks = images.reshape(B, height // 4, 4, width // 4, 4, C).transpose(0, 1, 3, 5, 2, 4)
    return blocks.reshape(B, height // 4, width // 4, C * 16)


@pytest.mark.parametrize("layer", sorted({x for x in zoo_layers() if x[4] == 4}))
def test_conv_of_blocks_equals_strided_convolution_in_value_and_gradients(layer):
    inputs, kernel, cotangent = random_layer(*layer)
    expected = value_and_gradients(lambda x, k: reference(x, k, 4), inputs, kernel, cotangent)
    of_blocks = value_and_gradients(conv_of_blocks, as_blocks(inputs), kernel, cotangent)
    expected = (expected[0], as_blocks(expected[1]), expected[2])
    assert_equal_within(1e-5, of_blocks, expected)


@pytest.mark.parametrize("layer", sorted(set(zoo_layers())))
def test_conv_valid_equals_strided_convolution_in_value_and_gradients(layer):
    stride = layer[-1]
    tensors = random_layer(*layer)
    expected = value_and_gradients(lambda x, k: reference(x, k, stride), *tensors)
    assert_equal_within(
        1e-5, value_and_gradients(lambda x, k: conv_valid(x, k, stride), *tensors), expected
    )


def test_conv_valid_ignores_rows_and_columns_that_no_kernel_reaches():
    # 11 = 4 + 3 · 2 + 1: with a 4×4 kernel and stride 2 the last row and column are unread.
    inputs, kernel, cotangent = random_layer(11, 3, 5, 4, 2)
    tensors = inputs, kernel, cotangent
    expected = value_and_gradients(lambda x, k: reference(x, k, 2), *tensors)
    actual = value_and_gradients(lambda x, k: conv_valid(x, k, 2), *tensors)
    assert_equal_within(1e-5, actual, expected)
    assert not np.any(np.asarray(actual[1])[:, 10:])


def test_convolutions_of_images_that_are_not_square():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 16, 24, 2)).astype(np.float32)
    kernel = rng.normal(size=(8, 8, 2, 3)).astype(np.float32)
    expected = [reference(images, kernel, 4)]
    assert_equal_within(1e-5, [conv_valid(images, kernel, 4)], expected)
    assert_equal_within(1e-5, [conv_of_blocks(as_blocks(images), kernel)], expected)


def test_conv_of_blocks_takes_bytes_from_frames_to_blocks():
    # The whole way of a frame: channels-first bytes, blocks on the host, first layer.
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, size=(2, 4, 21, 19), dtype=np.uint8)
    kernel = rng.normal(size=(8, 8, 4, 3)).astype(np.float32)
    expected = reference(frames.transpose(0, 2, 3, 1).astype(np.float32), kernel, 4)
    actual = jax.jit(conv_of_blocks)(frames_to_blocks(frames), kernel)
    assert_equal_within(1e-5, [actual], [expected])


def test_both_lowerings_compute_the_same():
    # Only one of them runs on this machine's device; a GPU takes the other.
    rng = np.random.default_rng(2)
    inputs = rng.integers(0, 256, size=(2, 5, 6, 32), dtype=np.uint8)
    kernel = rng.normal(size=(2, 2, 32, 3)).astype(np.float32)
    native = jax.jit(convolutions._conv_native)(inputs, kernel)
    by_matmul = jax.jit(convolutions._conv_by_matmul)(inputs, kernel)
    assert_equal_within(1e-5, [by_matmul], [native])


@pytest.mark.parametrize(("platform", "is_native"), [("cpu", False), ("cuda", True)])
def test_each_platform_gets_its_own_lowering(platform, is_native):
    shapes = [
        jax.ShapeDtypeStruct((2, 21, 21, 64), jnp.uint8),
        jax.ShapeDtypeStruct((8, 8, 4, 16), jnp.float32),
    ]
    exported = export.export(jax.jit(conv_of_blocks), platforms=[platform])(*shapes)
    assert ("stablehlo.convolution" in exported.mlir_module()) == is_native


dtypes = st.sampled_from([np.uint8, np.float32, np.float64, np.int32])
sizes = st.integers(4, 13)


def numbered_frames(batch_size, channels, height, width, dtype):
    """Frames whose every pixel differs from its neighbours."""
    count = batch_size * channels * height * width
    return np.arange(count).reshape(batch_size, channels, height, width).astype(dtype)


@given(B=st.integers(1, 3), C=st.integers(1, 4), height=sizes, width=sizes, dtype=dtypes)
def test_blocks_to_frames_inverts_frames_to_blocks(B, C, height, width, dtype):
    frames = numbered_frames(B, C, height, width, dtype)
    before = frames.copy()
    blocks = frames_to_blocks(frames)
    rows, columns = height // 4, width // 4
    assert blocks.shape == (B, rows, columns, 16 * C)
    assert blocks.dtype == dtype
    # What is beyond a multiple of 4 is dropped, the rest comes back.
    np.testing.assert_array_equal(blocks_to_frames(blocks), frames[:, :, : 4 * rows, : 4 * columns])
    np.testing.assert_array_equal(frames, before)


@given(C=st.integers(1, 3), height=sizes, width=sizes, dtype=dtypes)
def test_blocks_hold_pixels_ordered_by_frame_then_row_then_column(C, height, width, dtype):
    frames = numbered_frames(2, C, height, width, dtype)
    blocks = frames_to_blocks(frames)
    for row, column, channel, y, x in np.ndindex(height // 4, width // 4, C, 4, 4):
        np.testing.assert_array_equal(
            blocks[:, row, column, 16 * channel + 4 * y + x],
            frames[:, channel, 4 * row + y, 4 * column + x],
        )


def test_frames_to_blocks_accepts_frames_that_are_not_contiguous():
    frames = numbered_frames(2, 3, 8, 12, np.uint8)
    channels_last = np.ascontiguousarray(frames.transpose(0, 2, 3, 1))
    view = channels_last.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(frames_to_blocks(view), frames_to_blocks(frames))


BLOCKS, KERNEL = np.ones((1, 5, 5, 32), np.float32), np.ones((8, 8, 2, 3), np.float32)


@for_each(
    ("convolve", "arguments"),
    [
        (conv_of_blocks, (BLOCKS[0], KERNEL)),  # no batch axis
        (conv_of_blocks, (BLOCKS, KERNEL[:6, :6])),  # 6 is no multiple of 4
        (conv_of_blocks, (BLOCKS[..., :16], KERNEL)),  # one frame, a kernel for two
        (conv_valid, (BLOCKS[0], KERNEL[:, :, 0], 4)),
        (conv_valid, (BLOCKS, KERNEL, 4)),  # 32 channels, a kernel for two
        (conv_valid, (BLOCKS[..., :2], KERNEL[:4, :4], 3)),
    ],
)
def test_shapes_that_do_not_fit_raise(convolve, arguments):
    with pytest.raises(AssertionError):
        convolve(*arguments)


@for_each("kernel", [KERNEL[:4], KERNEL[:, :4]])
def test_kernels_that_are_not_square_raise(kernel):
    with pytest.raises(AssertionError):
        conv_of_blocks(BLOCKS, kernel)
    with pytest.raises(AssertionError):
        conv_valid(BLOCKS[..., :2], kernel, 4)


@pytest.mark.parametrize("num_samples", [1, 8, 15, 16, 19, 24])
def test_chunks_change_neither_values_nor_gradients(num_samples):
    key, subkey = jax.random.split(jax.random.key(0))
    inputs = jax.random.normal(key, (num_samples, 6, 7, 3))
    kernel = jax.random.normal(subkey, (2, 2, 3, 4))

    def loss(inputs, kernel, apply):
        outputs = apply(lambda x: stored_relu(conv_valid(x, kernel, 1)), inputs)
        chex.assert_shape(outputs, (num_samples, 5, 6, 4))
        return jnp.sum(jnp.sin(outputs))

    expected = jax.value_and_grad(loss, (0, 1))(inputs, kernel, lambda f, x: f(x))
    chunked = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(
        inputs, kernel, map_chunks
    )
    chex.assert_trees_all_close(chunked, expected, rtol=1e-5, atol=1e-5)


def test_stored_relu_is_relu():
    x = jnp.array([-2.0, -0.0, 0.0, 0.5, 3.0])
    for function in (lambda x: x, jnp.square, jnp.sin):
        np.testing.assert_array_equal(
            jax.vjp(stored_relu, x)[1](function(x))[0], jax.vjp(jax.nn.relu, x)[1](function(x))[0]
        )
    np.testing.assert_array_equal(stored_relu(x), jax.nn.relu(x))


@pytest.mark.parametrize("num_samples", [3, 19])  # as they are, and in chunks
def test_convolutions_have_forward_derivatives_and_hessian_vector_products(num_samples):
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(num_samples, 5, 5, 16)).astype(np.float32)
    kernels = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in [(8, 8, 1, 3), (4, 4, 3, 2)]]
    directions = [jnp.asarray(rng.normal(size=k.shape), jnp.float32) for k in kernels]

    def loss(kernels, convolve_first, convolve, relu, through):
        def convolutions_of(x):
            return relu(convolve(relu(convolve_first(x, kernels[0])), kernels[1], 2))

        return jnp.mean(jnp.sin(through(convolutions_of, blocks) / 10))

    def ours(kernels):
        return loss(kernels, conv_of_blocks, conv_valid, stored_relu, map_chunks)

    def plain(kernels):
        def first(blocks, kernel):
            frames = blocks_to_frames(blocks).transpose(0, 2, 3, 1)
            return reference(frames, kernel, 4)

        return loss(kernels, first, reference, jax.nn.relu, lambda f, x: f(x))

    def derivatives(function):
        push = jax.jvp(function, (kernels,), (directions,))
        return push, jax.jvp(jax.grad(function), (kernels,), (directions,))

    actual, expected = (jax.jit(lambda f=f: derivatives(f))() for f in (ours, plain))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.any(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.max(np.abs(b)))


@for_each("shape", [(2, 84, 84, 4), (2, 4, 84, 84), (2, 3, 3, 0), (2, 64)])
def test_what_is_no_blocks_is_refused_with_what_makes_some(shape):
    rule = rf"^observations must be .*frames_to_blocks .*, got {re.escape(str(shape))}.$"
    with pytest.raises(AssertionError, match=rule):
        blocks_to_frames(np.zeros(shape, np.uint8))
