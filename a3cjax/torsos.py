"""Torsos in flax.linen: from one observation of any structure to features."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from a3cjax.convolutions import (
    BLOCK_SIZE,
    blocks_to_frames,
    conv_of_blocks,
    conv_valid,
    map_chunks,
    num_channels,
    relu,
)
from a3cjax.types import VECTOR, Array, Observation, ObservationStatistics

# Flax's default for Dense, used for the convolutions, too.
# docs/decisions.md compares it with orthogonal matrices.
KERNEL_INIT = nn.initializers.lecun_normal()
# Limit of centred vectors: an entry that hardly varied in random play may go far beyond that later.
# As `clip_obs` of Stable-Baselines3's VecNormalize
# (stable_baselines3/common/vec_env/vec_normalize.py).
MAX_CENTRED = 10.0


Layers = tuple[tuple[int, int, int], ...]


class ImageKernels(NamedTuple):
    """Functions that compute the layers of an `ImageTorso` in place of XLA, where they can.

    `convolve(blocks, mean, kernels, biases, strides, recalled) -> outputs`: for every convolution
    max(conv(x) + bias, 0), float32 `[N, rows, columns, channels]`, where the first x is uint8
    blocks minus their mean (None for 0). Only the last output has derivatives. `recalled` are the
    outputs if they are known already. It returns None for shapes that it does not support.
    `multiply`: as `jax.lax.dot_general`, for two matrices.
    """

    convolve: Callable[..., list[jax.Array] | None]
    multiply: Callable[..., jax.Array]


class ImageTorso(nn.Module):
    """Convolutions and one dense layer over frames given as 4×4 blocks.

    `layers`: (channels, kernel size, stride) of each convolution, or a function that gives them
    for the shorter side of an image, in pixels. Where the first stride is 4,
    the size of the blocks, blocks are multiplied as they are; otherwise they are turned back into
    frames. `kernels` compute, in place of JAX, the layers that they support. `use_layer_norm`: of
    the dense layer, before max(·, 0).
    """

    layers: Layers | Callable[[int], Layers]
    hidden_size: int
    use_layer_norm: bool = False
    kernels: ImageKernels | None = None

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Map uint8 `[N, rows, columns, C·16]` to float32 `[N, hidden_size]`."""
        scale = 255.0 if statistics is None else statistics.scale
        num_in = num_channels(observations)
        layers = self.layers
        if callable(layers):
            layers = layers(shorter_side(observations.shape[1:]))
        stride = layers[0][2]
        convolve_first = conv_of_blocks
        if stride != BLOCK_SIZE:
            convolve_first = functools.partial(_conv_of_frames, stride=stride)
        kernels, biases = [], []
        for i, (channels, size, _) in enumerate(layers):
            shape = (size, size, num_in, channels)
            kernels.append(self.param(f"conv_{i}_kernel", KERNEL_INIT, shape, jnp.float32))
            zeros = nn.initializers.zeros_init()
            bias = self.param(f"conv_{i}_bias", zeros, (channels,), jnp.float32)
            biases.append(bias[None, None, None])
            num_in = channels
        # conv((x − mean) / scale) = conv(x) / scale − conv(mean) / scale: the bytes enter the
        # first layer as they are, and centring costs nothing.
        kernels[0] /= scale
        mean, shifts = None, [*biases]
        if statistics is not None:
            mean = statistics.mean
            chex.assert_shape(mean, observations.shape[1:])
            shifts[0] -= convolve_first(mean[None], kernels[0])

        keeps = self.is_mutable_collection(LAYERS)
        names = [f"conv_{i}" for i in range(len(layers))]

        def convolve(inputs: tuple[Array, list[Array | None]]) -> list[jax.Array]:
            x, recalled = inputs
            outputs = []
            for i, (_, _, stride) in enumerate(layers):
                convolved = (
                    conv_valid(x, kernels[i], stride) if i else convolve_first(x, kernels[0])
                )
                outputs.append(x := relu(convolved + shifts[i], recalled[i]))
            return outputs if keeps else outputs[-1:]

        recalled = [self.get_variable(LAYERS, name) for name in names]
        outputs = None
        if self.kernels is not None:
            strides = [stride for *_, stride in layers]
            known = None if recalled[0] is None else recalled
            outputs = self.kernels.convolve(observations, mean, kernels, biases, strides, known)
        if outputs is None:
            outputs = map_chunks(convolve, (observations, recalled))
        if keeps:
            for name, output in zip(names, outputs, strict=True):
                _keep(self, name, output)
        multiply = None if self.kernels is None else self.kernels.multiply
        x = outputs[-1].reshape(observations.shape[0], -1)
        return _dense_relu(self, self.hidden_size, x, multiply, use_layer_norm=self.use_layer_norm)


LAYERS = "layers"
"""The collection of a module's variables that holds what its layers answered before."""


def _keep(module: nn.Module, name: str, output: jax.Array) -> None:
    """Keep the output of a layer, if the collection `LAYERS` is asked for."""
    if module.is_mutable_collection(LAYERS):
        module.put_variable(LAYERS, name, output)


def _dense_relu(
    module: nn.Module,
    size: int,
    x: jax.Array,
    multiply: Callable[..., jax.Array] | None = None,
    *,
    use_layer_norm: bool = False,
) -> jax.Array:
    """A dense layer and max(·, 0), recalled or kept under the name `dense`."""
    x = nn.Dense(size, dot_general=multiply)(x)
    x = nn.LayerNorm()(x) if use_layer_norm else x
    x = relu(x, module.get_variable(LAYERS, "dense"))
    _keep(module, "dense", x)
    return x


def _conv_of_frames(blocks: Array, kernel: Array, stride: int) -> jax.Array:
    """Convolve frames given as blocks, with any stride."""
    frames = jnp.moveaxis(blocks_to_frames(jnp.asarray(blocks, kernel.dtype)), 1, -1)
    return conv_valid(frames, kernel, stride)


class VectorTorso(nn.Module):
    """Dense layers over a flattened observation; without layers, the observation itself."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.silu
    use_layer_norm: bool = True

    @nn.compact
    def __call__(
        self, observations: Observation, statistics: ObservationStatistics | None
    ) -> jax.Array:
        """Map `[N, ...]`, or a dict of such arrays, to float32 `[N, hidden_sizes[-1]]`."""
        parts = jax.tree.leaves(_centre(observations, statistics))
        x = jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=-1)
        for size in self.hidden_sizes:
            x = nn.Dense(size)(x)
            x = self.activation(nn.LayerNorm()(x) if self.use_layer_norm else x)
        return x


def _centre(observations: Observation, statistics: ObservationStatistics | None) -> Observation:
    """Observations `[N, ...]` as floats, minus their mean, over their scale, leaf by leaf."""

    def centre(x, mean, scale):
        is_image = jnp.ndim(x) > jnp.ndim(scale) + 1  # all of its pixels share one scale
        x = (jnp.asarray(x, jnp.float32) - mean[None]) / (scale if is_image else scale[None])
        return x if is_image else jnp.clip(x, -MAX_CENTRED, MAX_CENTRED)

    if statistics is None:
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), observations)
    return jax.tree.map(centre, observations, statistics.mean, statistics.scale)


class MultiTorso(nn.Module):
    """For each image, convolutions that fit its size; for all other numbers, dense layers.

    One dense layer joins their outputs.
    """

    hidden_size: int

    @nn.compact
    def __call__(
        self, observations: dict[str, Array], statistics: ObservationStatistics | None
    ) -> jax.Array:
        """Map a dict of `[N, ...]` arrays to float32 `[N, hidden_size]`."""
        parts = []
        for key in sorted(observations):
            own = statistics and ObservationStatistics(statistics.mean[key], statistics.scale[key])
            if key == VECTOR:
                torso = TORSOS["mlp"][0](name=key)
            else:
                # Small images keep the torso that was the only one: saved parameters fit it.
                fitting = [t for t in _image_torsos_for(observations[key].shape[1:]) if t != SMALL]
                torso = TORSOS[fitting[0]][0](name=f"image_{key}")
            parts.append(torso(observations[key], own))
        return _dense_relu(self, self.hidden_size, jnp.concatenate(parts, axis=-1))


class OwnTorso(nn.Module):
    """A custom torso, which knows nothing of blocks and statistics.

    `module` is called on a batch of observations, float32 `[N, ...]`: images as
    `[N, height, width, channels]`, centred and scaled with the statistics if there are any, else
    divided by 255; other arrays centred, scaled and clipped to ±10 with statistics, else as they
    are. Its output, `[N, ...]`, is flattened into features.
    """

    module: nn.Module

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Map `[N, ...]`, or a pytree of such arrays, to float32 features `[N, H]`."""
        if statistics is None:
            seen = jax.tree.map(_show, observations)
        else:
            seen = jax.tree.map(_show, observations, statistics.mean, statistics.scale)
        # Not `len`: an exported program leaves the number open.
        num_observations = jax.tree.leaves(observations)[0].shape[0]
        features = self.module(seen)
        if not isinstance(features, jax.Array) or features.shape[:1] != (num_observations,):
            got = getattr(features, "shape", type(features).__name__)
            raise ValueError(
                f"network must map observations [N, ...] to features [N, ...], got {got} for "
                f"N = {num_observations}."
            )
        return jnp.asarray(features, jnp.float32).reshape(num_observations, -1)


def _show(values: Array, mean: Array | None = None, scale: chex.Numeric = 255.0) -> jax.Array:
    """Observations as a custom torso reads them."""
    is_image = values.dtype == jnp.uint8
    x = jnp.asarray(values, jnp.float32)
    if mean is not None:
        scale = jnp.asarray(scale)
        x = (x - jnp.asarray(mean)[None]) / (scale[None] if scale.ndim else scale)
    elif is_image:
        x = x / scale
    if is_image:
        frames: Any = blocks_to_frames(x)  # pyright: ignore[reportArgumentType]
        return frames.transpose(0, 2, 3, 1)
    return x if mean is None else jnp.clip(x, -MAX_CENTRED, MAX_CENTRED)


PAPER_LAYERS = ((16, 8, 4), (32, 4, 2))  # Mnih et al. 2016, section 8; Mnih et al. 2013
NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al. 2015, methods
MINATAR_LAYERS = ((16, 3, 1),)  # Young & Tian 2019, section 4; kenjyoung/MinAtar, examples/dqn.py

SMALL = "small"
"""The torso for images of less than `LARGE_PIXELS`: one convolution, and a layer norm."""


def layers_of_small_images(side: int) -> Layers:
    """MinAtar's convolution, by single pixels, or the paper's first one where that fits."""
    return MINATAR_LAYERS if side < LEAST_PIXELS["atari"] else PAPER_LAYERS[:1]


# How many features a recurrent core has: 256 in Atari games (Mnih et al. 2016, section 5.1), 128
# in MuJoCo (section 9); for small problems our choice.
TORSOS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "atari": (functools.partial(ImageTorso, layers=PAPER_LAYERS, hidden_size=256), 256),
    "nature": (functools.partial(ImageTorso, layers=NATURE_LAYERS, hidden_size=512), 256),
    "minatar": (functools.partial(ImageTorso, layers=MINATAR_LAYERS, hidden_size=128), 128),
    SMALL: (  # our choice: docs/decisions.md
        functools.partial(
            ImageTorso, layers=layers_of_small_images, hidden_size=128, use_layer_norm=True
        ),
        128,
    ),
    "multi": (functools.partial(MultiTorso, hidden_size=256), 256),  # our choice
    "mujoco": (
        functools.partial(
            VectorTorso, hidden_sizes=(200,), activation=nn.relu, use_layer_norm=False
        ),
        128,
    ),
    "mlp": (functools.partial(VectorTorso, hidden_sizes=(64, 64)), 256),  # our choice
}
# The side, in pixels, of the smallest image for which a torso's convolutions have any output;
# images come in blocks of 4×4.
LEAST_PIXELS = {"atari": 17, "nature": 33, SMALL: 1, "minatar": 1}
LARGE_PIXELS = 41
"""The side from which on `atari` fits an image better than `small`: docs/decisions.md."""
ANY_TORSOS = ("mlp", "mujoco")  # which flatten what they read


def torsos_for(observation: Any) -> tuple[str, ...]:
    """The torsos that can read observations of this structure, the most fitting first.

    `observation`: one observation, or its `jax.ShapeDtypeStruct`s; uint8 arrays are images.
    """
    if isinstance(observation, dict):
        return ("multi", *ANY_TORSOS)
    if observation.dtype != jnp.uint8:
        return ANY_TORSOS
    return (*_image_torsos_for(observation.shape), *ANY_TORSOS)


def _image_torsos_for(shape: tuple[int, ...]) -> tuple[str, ...]:
    """The torsos for images of `[rows, columns, ...]` blocks, the most fitting first.

    Their convolutions have some output.
    """
    side = shorter_side(shape)
    fitting = [torso for torso, least in LEAST_PIXELS.items() if side >= least]
    if side < LARGE_PIXELS:
        fitting.sort(key=lambda torso: torso != SMALL)
    return tuple(fitting)


def shorter_side(shape: tuple[int, ...]) -> int:
    """Of an image of `[rows, columns, ...]` blocks, in pixels."""
    return BLOCK_SIZE * min(shape[:2])
