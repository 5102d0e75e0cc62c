"""Moments of all that a run has seen so far, by which rewards and observations are normalised.

Actor-learners compute them from their own trajectories. They are merged with each gradient, and so
are the same for all who read the same snapshot.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from a3cjax.types import Array, Moments, ObservationStatistics, Seen

# An entry whose standard deviation is at most this fraction of its mean counts as constant: in 32
# bits numbers are rounded by 1e-7 of their size. Our choice.
MIN_DEVIATION = 1e-6
# The fraction of the mean return whose square is added to the variance of returns under the root:
# without it, rewards would be blown up where all returns are alike. Our choice.
MIN_RETURN_DEVIATION = 0.1


def moments_of(values: npt.ArrayLike, shape: tuple[int, ...] = ()) -> Moments:
    """Count, mean and variance of N arrays `[N, *shape]`, entry by entry."""
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
    """Sum along the first axis, in the smallest integer type that holds `largest`."""
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
    """Map `function` over the Moments in pytrees; None stays None, whatever the others have."""

    def of_part(part: Moments | None, *others: Any) -> Any:
        return None if part is None else function(part, *others)

    return jax.tree.map(of_part, *trees, is_leaf=lambda x: x is None or isinstance(x, Moments))


def moments_of_new(like: Any, observations: Any, is_idle: Array | None) -> Any:
    """The moments of observations, without those at idle steps, which were counted before.

    Args:
      like: a pytree of Moments, with None for parts that are left out.
      observations: a pytree of the same structure, each part with the axes of `is_idle` first.
      is_idle: bool, `[B]` or `[T, B]`; None if no step is idle.
    """

    def of_part(values: Array, part: Moments | None) -> Moments | None:
        if part is None:
            return None
        values = np.asarray(values)
        return moments_of(values if is_idle is None else values[~is_idle], part.mean.shape)

    return jax.tree.map(of_part, observations, like)


def merge_seen(one: Seen, other: Seen) -> Seen:
    """Merge the moments in both, part by part; both must have the same structure."""
    return map_moments(merge, one, other)


def reward_scale(returns: Moments) -> np.float32:
    """√(σ² + (0.1 µ)²) of discounted returns: about their standard deviation, if they differ.

    1 if all returns are 0, or 0 in 32 bits: there were no rewards yet.
    """
    least = np.square(MIN_RETURN_DEVIATION * returns.mean)
    scale = np.float32(np.sqrt(returns.variance + least))
    return scale if scale >= np.finfo(np.float32).tiny else np.float32(1)


def entry_scale(moments: Moments) -> np.ndarray:
    """The standard deviation of each entry, float64; 1 where it did not vary.

    As in scikit-learn's StandardScaler: nobody has seen yet what values such an entry may take, for
    example an entry of a one-hot vector whose state random play has not reached.
    """
    scale = np.sqrt(moments.variance)
    # Nothing is divided by what is 0 in 32 bits, either.
    least = np.maximum(MIN_DEVIATION * np.abs(moments.mean), np.finfo(np.float32).tiny)
    return np.where(scale <= least, 1.0, scale)


def renew(
    statistics: ObservationStatistics | None, observations: Any
) -> ObservationStatistics | None:
    """Renew statistics from moments of observations; images, which have none, keep theirs."""
    if statistics is None or observations is None:
        return statistics

    def renewed(make: Callable[[Moments], np.ndarray], kept: Any) -> Any:
        def of_part(old: Array, part: Moments | None) -> Array:
            return old if part is None else np.asarray(make(part), np.float32)

        return jax.tree.map(of_part, kept, observations)

    mean = renewed(lambda moments: moments.mean, statistics.mean)
    return ObservationStatistics(mean, renewed(entry_scale, statistics.scale))


def discounted_sums(
    rewards: Array, discounts: Array, is_first: Array, before: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Gₜ = rₜ + γₜ₋₁ Gₜ₋₁: the discounted sum of rewards up to each step, as in VecNormalize.

    (stable_baselines3/common/vec_env/vec_normalize.py)

    Args:
      rewards: float `[T, B]`.
      discounts: float `[T, B]`, γ·(1 − terminated).
      is_first: bool `[T+1, B]`, where an episode begins, and the sum with it.
      before: float `[B]`, γ G of the step before.

    Returns:
      float64 `[T, B]` sums, and `[B]` to pass as `before` next time. Steps into a first observation
      have no sum, and the numbers in their places mean nothing. Idle steps have none, either: with
      their reward of 0 and discount of 1 they pass on the sum before them.
    """
    kept = np.where(is_first[1:], 0.0, discounts)
    carried = np.where(is_first[0], 0.0, before)
    sums = np.zeros(np.shape(rewards))
    for sum_t, reward_t, kept_t in zip(sums, rewards, kept, strict=True):
        np.add(carried, reward_t, out=sum_t)
        carried = kept_t * sum_t
    return sums, carried
