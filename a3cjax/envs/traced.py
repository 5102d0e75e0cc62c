"""Observations as networks read them and actions as environments take them, in JAX.

This is what observations.py and actions.py do with NumPy, for B environments; but nothing is
checked, and numbers have 32 bits at most.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.convolutions import BLOCK_SIZE, frames_to_blocks
from a3cjax.envs.actions import scale_of
from a3cjax.envs.gymnasium_batch import nest
from a3cjax.envs.observations import CHANNELS_LAST, Leaf, count_states, join
from a3cjax.envs.spaces import leaves_of


def shapes_of_batch(space: gymnasium.Space, batch_size: Any) -> Any:
    """A batch of observations as `jax.ShapeDtypeStruct`s, nested as the space is."""
    leaves = (leaf for *_, leaf in leaves_of(space, space, "its space"))
    shapes = ((leaf.shape or (), _narrow(leaf.dtype)) for leaf in leaves)
    return nest(
        space, (jax.ShapeDtypeStruct((batch_size, *shape), dtype) for shape, dtype in shapes)
    )


def read_traced(space: gymnasium.Space, observations: Any, plan: Sequence[Leaf]) -> Any:
    """As `read_observations`."""
    values = [value for *_, value in leaves_of(space, observations, "traced observations")]
    pairs = list(zip(plan, values, strict=True))
    images = {leaf.key: _as_blocks(leaf, value) for leaf, value in pairs if leaf.layout}
    vectors = [_as_numbers(leaf.space, value) for leaf, value in pairs if not leaf.layout]
    if vectors and isinstance(space, Dict | Tuple):
        vectors = [jnp.concatenate([x.reshape(x.shape[0], -1) for x in vectors], axis=1)]
    return join(images, vectors)


def _as_numbers(leaf: gymnasium.Space, values: jax.Array) -> jax.Array:
    if not isinstance(leaf, Discrete | MultiDiscrete):
        return values.astype(jnp.float32)
    numbers = (values - np.asarray(leaf.start, np.int32)[None]).reshape(values.shape[0], -1)
    sizes = count_states(leaf).ravel().tolist()
    columns = [jax.nn.one_hot(numbers[:, i], size) for i, size in enumerate(sizes)]
    return jnp.concatenate(columns, axis=1)


def _as_blocks(leaf: Leaf, values: jax.Array) -> jax.Array:
    images = _as_bytes(leaf.space, values)
    if images.ndim > 3 and leaf.layout == CHANNELS_LAST:
        images = jnp.moveaxis(images, -1, -3)
    height, width, channels = leaf.size
    images = images.reshape(images.shape[0], channels, height, width)
    padding = [(0, 0), (0, 0), *((0, -side % BLOCK_SIZE) for side in (height, width))]
    return frames_to_blocks(jnp.pad(images, padding))


def _as_bytes(space: gymnasium.Space, values: jax.Array) -> jax.Array:
    if isinstance(space, MultiBinary) or space.dtype == bool:
        return values.astype(jnp.uint8) * jnp.uint8(255)
    assert isinstance(space, Box)
    if space.dtype == np.uint8:
        return values
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    shares = (values - low[None]) / np.where(high > low, high - low, 1)[None]
    return jnp.rint(255 * jnp.clip(shares, 0, 1)).astype(jnp.uint8)


def clip_traced(space: gymnasium.Space, actions: jax.Array) -> jax.Array:
    """As `clip_actions`; floats in 32 bits."""
    in_shape = actions.reshape(actions.shape[0], *(space.shape or ()))
    dtype = _narrow(space.dtype)
    if not isinstance(space, Box):
        start = np.broadcast_to(getattr(space, "start", 0), space.shape or ())
        return in_shape.astype(dtype) + start[None].astype(dtype)
    *numbers, above, below = scale_of(space)
    low, high, middle, half = (np.asarray(x, np.float32)[None] for x in numbers)
    taken = middle + half * in_shape
    if above.any():
        taken = jnp.where(above[None], low + jax.nn.softplus(in_shape), taken)
    if below.any():
        taken = jnp.where(below[None], high - jax.nn.softplus(-in_shape), taken)
    taken = jnp.clip(taken, low, high)
    return (taken if dtype.kind == "f" else jnp.rint(taken)).astype(dtype)


def _narrow(dtype: Any) -> np.dtype:
    """The same kind of number in 32 bits, if it has more."""
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}{min(dtype.itemsize, 4)}")
