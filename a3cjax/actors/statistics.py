"""Statistics of observations in random play: the mean, and the scale of what remains."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.errors import ConfigError
from a3cjax.parameters.moments import MIN_DEVIATION, entry_scale
from a3cjax.types import Moments, ObservationStatistics

# The square of anything larger is not finite in 32 bits.
MAX_MAGNITUDE = float(np.sqrt(np.finfo(np.float32).max))
# An image that never changed is divided by this, as all images are that are not centred.
WHITE = 255.0
# From here on, 32-bit floats are rounded by a hundredth and more.
LARGE = 1e5


def statistics_of(moments: Any, observation: Any) -> ObservationStatistics:
    """The mean of all that was seen, entry by entry, and the standard deviation around it.

    Each image has one scale, the root of its mean variance, so that pixels which rarely change are
    not blown up. It is at least 1, one level of grey, unless bytes are zeros and ones; and `WHITE`
    if the image never changed, since nobody has seen yet what it may show. Vectors have a scale for
    each entry (`entry_scale`), since their units differ.

    Args:
      moments: a pytree of Moments in the structure of one observation.
      observation: a pytree of `jax.ShapeDtypeStruct`s in the same structure; bytes are images.

    Raises:
      ConfigError: names an entry whose mean or scale is too large to compute with in 32 bits.
      ValueError: if nothing was seen.
    """
    parts, structure = jax.tree.flatten_with_path(observation)
    each = [
        _statistics_of_part(f"observation{jax.tree_util.keystr(path)}", part, shape.dtype)
        for (path, shape), part in zip(parts, structure.flatten_up_to(moments), strict=True)
    ]
    mean, scale = (jax.tree.unflatten(structure, column) for column in zip(*each, strict=True))
    return ObservationStatistics(mean, scale)


def lost_in_rounding(moments: Any) -> Iterator[str]:
    """For each part of the observations, a sentence about an entry that is large and stands still.

    It may have varied before it became a 32-bit float, as a time in seconds since 1970 does.

    Args:
      moments: a pytree of Moments, with None for parts that nobody has asked for.
    """
    leaves = jax.tree_util.tree_leaves_with_path(moments, is_leaf=lambda x: isinstance(x, Moments))
    for path, part in leaves:
        size = np.abs(part.mean)
        stands = (np.sqrt(part.variance) <= MIN_DEVIATION * size) & (size >= LARGE)
        if stands.any():
            entry = tuple(np.argwhere(stands)[0].tolist())
            name = f"observation{jax.tree_util.keystr(path)}{list(entry)}"
            mean = part.mean[entry]
            yield (
                f"{name} is {mean:g} in all of random play: 32-bit floats of this size are "
                f"{np.spacing(np.float32(abs(mean))):g} apart. "
                "If smaller differences matter, its environment has to subtract an offset."
            )


def standing_images(moments: Any, observation: Any) -> Iterator[str]:
    """For each image that is the same in all of random play, a sentence.

    Args:
      moments: of every part of the observation, a pytree like it.
      observation: as `statistics_of` takes it.
    """
    parts, structure = jax.tree.flatten_with_path(observation)
    for (path, shape), part in zip(parts, structure.flatten_up_to(moments), strict=True):
        if shape.dtype == np.uint8 and _image_scale(part) is None:
            yield (
                f"the image observation{jax.tree_util.keystr(path)} is the same in all of random "
                "play, so that nothing tells its scale: what it shows later is divided by 255. "
                "With more warmup_steps more of it may be seen."
            )


def _image_scale(moments: Moments) -> float | None:
    """The scale of an image; None if it never changed."""
    scale = float(np.sqrt(moments.variance.mean()))
    squares = moments.variance + moments.mean**2
    if scale <= MIN_DEVIATION * np.sqrt(squares.max()):
        return None
    has_greys = bool((squares > (1 + MIN_DEVIATION) * moments.mean).any())  # x² = x for 0 and 1
    return max(scale, 1.0) if has_greys else scale


def _statistics_of_part(
    name: str, moments: Moments, dtype: np.dtype
) -> tuple[jax.Array, jax.Array]:
    if moments.num_seen == 0:
        raise ValueError("observations must be seen before they can be centred, got none.")
    mean, deviation = moments.mean, np.sqrt(moments.variance)
    is_sound = (np.abs(mean) < MAX_MAGNITUDE) & (deviation < MAX_MAGNITUDE)  # NaN is not
    if not is_sound.all():
        entry = tuple(np.argwhere(~is_sound)[0].tolist())
        raise ConfigError(
            f"the scale of observations is not finite in 32 bits: {name}{list(entry)} has "
            f"mean {mean[entry]:g} and deviates by {deviation[entry]:g} in random play; "
            "env must be one of smaller numbers."
        )
    scale = entry_scale(moments)
    if dtype == np.uint8:
        scale = _image_scale(moments) or WHITE
    return jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
