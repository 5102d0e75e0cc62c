"""What observations look like in random play: the mean, and the scale of what remains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.errors import ConfigError
from a3cjax.types import ObservationStatistics

# What deviates by no more than this part of its mean, in the root of the mean square, counts as
# constant: in 32 bits numbers are rounded by 1e-7 of their size. Our choice.
MIN_DEVIATION = 1e-6
# Of what is larger the square is not finite in 32 bits.
MAX_MAGNITUDE = float(np.sqrt(np.finfo(np.float32).max))


Moments = Any
"""A pytree of `ObservationMoments` in the structure of one observation."""


class ObservationMoments:
    """Of one array: sums in float64 from which mean and scale are computed.

    Observations are summed less the first one of them, which `origin` is: the squares of large
    numbers that differ little would cancel. The variance is at least 1/n of the square of what
    any one observation is off the mean, so that its relative error is about n · 1e-16. Bytes,
    which images are made of, are summed as they are: exactly.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.count = 0
        self.is_image = False
        self.origin, self.sum, self.sum_of_squares = np.zeros((3, *shape))

    def add(self, observations: np.ndarray) -> None:
        """Takes in a batch `[B, ...]`, of bytes or of floats."""
        self.is_image = observations.dtype == np.uint8
        if self.is_image:
            values = observations.astype(np.float32)  # in which squares of bytes are exact, too
        else:
            if self.count == 0:
                self.origin = observations[0].astype(np.float64)
            values = observations - self.origin
        self.count += len(values)
        self.sum += values.sum(axis=0, dtype=np.float64)
        self.sum_of_squares += np.square(values).sum(axis=0, dtype=np.float64)

    def about(self, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sums of what was seen less another origin, and of its squares."""
        shift = self.origin - origin
        squares = self.sum_of_squares + 2 * shift * self.sum + self.count * np.square(shift)
        return self.sum + self.count * shift, squares


def statistics_of(moments: Sequence[Moments]) -> ObservationStatistics:
    """The mean of all that was seen, entry by entry, and the root of the variance around it.

    Each image has one scale, the root of its mean variance, so that pixels which rarely change are
    not blown up; nothing is divided by less than a thousandth of the largest mean. Vectors have a
    scale for each entry, since their units differ. An entry that did not vary (`MIN_DEVIATION`)
    is not scaled, as in scikit-learn's StandardScaler: what it may be worth later nobody has
    seen, a state of a one-hot vector that random play has not come to, for example.

    Raises:
      ConfigError: names an entry whose mean or scale is too large to compute with in 32 bits.
      ValueError: if nothing was seen.
    """
    parts, structure = jax.tree.flatten_with_path(moments[0])
    columns = zip(*map(jax.tree.leaves, moments), strict=True)
    each = [
        _statistics_of_part(f"observation{jax.tree_util.keystr(path)}", column)
        for (path, _), column in zip(parts, columns, strict=True)
    ]
    mean, scale = (jax.tree.unflatten(structure, column) for column in zip(*each, strict=True))
    return ObservationStatistics(mean, scale)


def _statistics_of_part(
    name: str, moments: Sequence[ObservationMoments]
) -> tuple[jax.Array, jax.Array]:
    seen = [part for part in moments if part.count > 0]
    if not seen:
        raise ValueError("observations must be seen before they can be centred, got none.")
    count, origin = sum(part.count for part in seen), seen[0].origin
    sums, squares = map(sum, zip(*(part.about(origin) for part in seen), strict=True))
    offset = sums / count
    mean, variance = origin + offset, np.maximum(squares / count - np.square(offset), 0.0)
    scale = np.sqrt(variance)
    is_sound = (np.abs(mean) < MAX_MAGNITUDE) & (scale < MAX_MAGNITUDE)  # NaN is not
    if not is_sound.all():
        entry = tuple(np.argwhere(~is_sound)[0].tolist())
        raise ConfigError(
            f"the scale of observations is not finite in 32 bits: {name}{list(entry)} has "
            f"mean {mean[entry]:g} and deviates by {scale[entry]:g} in random play; "
            "env must be one of smaller numbers."
        )
    if seen[0].is_image:
        least = max(1e-3 * float(np.abs(mean).max()), 1e-6)
        scale = max(float(np.sqrt(variance.mean())), least)
    else:
        # Nor is divided by what is 0 in 32 bits.
        least = np.maximum(MIN_DEVIATION * np.abs(mean), np.finfo(np.float32).tiny)
        scale = np.where(scale <= least, 1.0, scale)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
