"""What rewards and observations are divided by: moments of all that a run has seen so far.

Computed by actor-learners of their own trajectories, merged with each gradient, and so the same for
all who read one snapshot.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from a3cjax.types import Array, Moments, ObservationStatistics, Seen

# What deviates by no more than this part of its mean, in the root of the mean square, counts as
# constant: in 32 bits numbers are rounded by 1e-7 of their size. Our choice.
MIN_DEVIATION = 1e-6
# Of the mean of returns, the part that stands under the root beside their variance: where all are
# alike, rewards would be blown up without it. Our choice.
MIN_RETURN_DEVIATION = 0.1


def moments_of(values: npt.ArrayLike, shape: tuple[int, ...] = ()) -> Moments:
    """Of N arrays `[N, *shape]`: how many, their mean and their variance, entry by entry."""
    values = np.asarray(values).reshape(-1, *shape)
    count = len(values)
    if count == 0:
        return Moments(np.zeros(()), np.zeros(shape), np.zeros(shape))
    if values.dtype == np.uint8:  # sums of whole numbers are exact, and take a tenth of the time
        squares = np.square(values, dtype=np.uint16)
        mean = _sum(values, 255 * count) / count
        variance = _sum(squares, 255**2 * count) / count - np.square(mean)
    else:
        values = values.astype(np.float64)
        mean = values.mean(axis=0)
        variance = np.square(values - mean).mean(axis=0)
    return Moments(np.array(float(count)), mean, variance)


def _sum(values: np.ndarray, largest: int) -> np.ndarray:
    """Along the first axis, in the smallest integers that hold it."""
    return values.sum(axis=0, dtype=np.min_scalar_type(largest))


def merge(one: Moments, other: Moments) -> Moments:
    """The moments of all that either has seen (Chan et al. 1979, equations 2.1)."""
    count = one.num_seen + other.num_seen
    if count == 0:
        return one
    share, distance = other.num_seen / count, other.mean - one.mean
    mean = one.mean + distance * share
    variance = one.variance + (other.variance - one.variance) * share
    return Moments(count, mean, variance + np.square(distance) * share * (1 - share))


def map_moments(function: Callable[..., Any], *trees: Any) -> Any:
    """Maps pytrees of Moments to a pytree of what `function` makes of each; None stays None."""

    def of_part(part: Moments | None, *others: Any) -> Any:
        return None if part is None else function(part, *others)

    return jax.tree.map(of_part, *trees, is_leaf=lambda x: x is None or isinstance(x, Moments))


def moments_of_new(like: Any, observations: Any, is_idle: Array | None) -> Any:
    """The moments of observations, but for those of idle steps, which are there already.

    Args:
      like: a pytree of Moments, None for parts that are left out.
      observations: of the same structure, each part with the axes of `is_idle` before its own.
      is_idle: bool, `[B]` or `[T, B]`; None where no step is.
    """

    def of_part(part: Moments | None, values: Array) -> Moments | None:
        if part is None:
            return None
        values = np.asarray(values)
        return moments_of(values if is_idle is None else values[~is_idle], part.mean.shape)

    # None is a leaf here: for JAX it would be a tree of nothing, which an image does not fit.
    return jax.tree.map(
        of_part,
        like,
        observations,
        is_leaf=lambda part: part is None or isinstance(part, Moments),
    )


def merge_seen(one: Seen, other: Seen) -> Seen:
    """Merges each of the moments in both; they have one structure."""
    return map_moments(merge, one, other)


def reward_scale(returns: Moments) -> np.float32:
    """√(σ² + (0.1 µ)²) of discounted returns: about their standard deviation, if they differ.

    1 where all were 0, or are in 32 bits: rewards are none yet.
    """
    least = np.square(MIN_RETURN_DEVIATION * returns.mean)
    scale = np.float32(np.sqrt(returns.variance + least))
    return scale if scale >= np.finfo(np.float32).tiny else np.float32(1)


def entry_scale(moments: Moments) -> np.ndarray:
    """The standard deviation of each entry, float64; 1 where it did not vary.

    As in scikit-learn's StandardScaler: what such an entry may be worth later nobody has seen, a
    state of a one-hot vector that random play has not come to, for example.
    """
    scale = np.sqrt(moments.variance)
    # Nor is divided by what is 0 in 32 bits.
    least = np.maximum(MIN_DEVIATION * np.abs(moments.mean), np.finfo(np.float32).tiny)
    return np.where(scale <= least, 1.0, scale)


def renew(
    statistics: ObservationStatistics | None, observations: Any
) -> ObservationStatistics | None:
    """Statistics by the moments of observations; images, which have none there, keep theirs."""
    if statistics is None or observations is None:
        return statistics

    def choose(kept, moments, make):
        return kept if moments is None else np.asarray(make(moments), np.float32)

    def map_parts(kept, make):
        if not isinstance(observations, dict):
            return choose(kept, observations, make)
        return {name: choose(kept[name], part, make) for name, part in observations.items()}

    mean = map_parts(statistics.mean, lambda moments: moments.mean)
    return ObservationStatistics(mean, map_parts(statistics.scale, entry_scale))


def discounted_sums(
    rewards: Array, discounts: Array, is_first: Array, before: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Gₜ = rₜ + γₜ₋₁ Gₜ₋₁: what each step's rewards so far come to, as VecNormalize sums them.

    (stable_baselines3/common/vec_env/vec_normalize.py)

    Args:
      rewards: float `[T, B]`.
      discounts: float `[T, B]`, γ·(1 − terminated).
      is_first: bool `[T+1, B]`, where an episode begins: sums begin with it.
      before: float `[B]`, γ G of the step before.

    Returns:
      float64 `[T, B]`, and `[B]` to go on from. Steps into a first observation have no sum, and
      the numbers in their places mean nothing. Nor have idle steps: with their reward of 0 and
      discount of 1 they pass on the sum before them.
    """
    kept = np.where(is_first[1:], 0.0, discounts)
    carried = np.where(is_first[0], 0.0, before)
    sums = np.zeros(np.shape(rewards))
    for sum_t, reward_t, kept_t in zip(sums, rewards, kept, strict=True):
        np.add(carried, reward_t, out=sum_t)
        carried = kept_t * sum_t
    return sums, carried
