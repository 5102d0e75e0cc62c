"""How actor-learners explore: an ε for every environment, an entropy cost for every actor."""

import math
from collections.abc import Callable

import numpy as np

from a3cjax.types import Exploration

# Mnih et al. 2016, section 8: the final values of ε in a thread, and their probabilities.
FINAL_EPSILONS = (0.1, 0.01, 0.5)
FINAL_PROBABILITIES = (0.4, 0.3, 0.3)

# Mnih et al. 2015, methods: ε when a Q method is evaluated.
EVALUATION_EPSILON = 0.05

Explore = Callable[[int], Exploration]
"""The exploration of one actor-learner after a number of emulator frames."""


def make_explore(
    seed: int,
    actor_index: int,
    num_envs: int,
    *,
    num_frames: int,
    period_frames: int | None = None,
    entropy_factor: float = 1.0,
    target_entropy: float | None = None,
    total_frames: int | None = None,
) -> Explore:
    """The exploration of one actor-learner.

    Every environment has its own ε, since the paper's threads have one environment each. It
    goes linearly from 1 to a final value, which is drawn once or repeatedly ("periodically" in
    Mnih et al. 2016, section 4).

    Args:
      seed: the run's seed.
      actor_index: the actor's index; draws differ from actor to actor.
      num_envs: B.
      num_frames: emulator frames after which ε has its final value.
      period_frames: emulator frames after which final values are drawn anew; None for never.
      entropy_factor: multiplies the entropy cost of this actor.
      target_entropy: final target for the policy's entropy, as a share of a random policy's
        entropy, in [0, 1]; the target falls linearly from 1. None sets no target.
      total_frames: emulator frames after which the target is final; only needed with a target.

    Raises:
      ValueError: unless `num_envs` and all numbers of frames are >= 1, seed and index >= 0, and
        the factor is >= 0 and finite.
    """
    _check(seed=(seed, 0), actor_index=(actor_index, 0), entropy_factor=(entropy_factor, 0))
    _check(num_envs=(num_envs, 1), num_frames=(num_frames, 1))
    if period_frames is not None:
        _check(period_frames=(period_frames, 1))
    if target_entropy is not None:
        if not 0 <= target_entropy <= 1:
            raise ValueError(f"target_entropy must be in [0, 1], got {target_entropy}.")
        if total_frames is None:
            raise ValueError("total_frames must be given with a target_entropy.")
        _check(total_frames=(total_frames, 1))

    def explore(frames_now: int) -> Exploration:
        period = 0 if period_frames is None else frames_now // period_frames
        generator = np.random.default_rng([seed, actor_index, period])
        finals = generator.choice(FINAL_EPSILONS, size=num_envs, p=FINAL_PROBABILITIES)
        progress = min(1.0, frames_now / num_frames)
        epsilons = 1.0 + progress * (finals - 1.0)
        target = None
        if target_entropy is not None and total_frames is not None:
            passed = min(1.0, frames_now / total_frames)
            target = np.float32(1.0 + passed * (target_entropy - 1.0))
        return Exploration(epsilons.astype(np.float32), np.float32(entropy_factor), target)

    return explore


def evaluation_exploration(num_envs: int) -> Exploration:
    """The exploration for an evaluation of sampled actions in B >= 1 environments."""
    _check(num_envs=(num_envs, 1))
    return Exploration(np.full(num_envs, EVALUATION_EPSILON, np.float32), np.float32(1.0))


def spread_factors(num_actors: int, spread: float) -> list[float]:
    """Factors from 1/`spread` to `spread`, evenly on a logarithmic scale; a single actor has 1.

    Raises:
      ValueError: unless both are >= 1 and finite.
    """
    _check(num_actors=(num_actors, 1), spread=(spread, 1))
    if num_actors == 1:
        return [1.0]
    return [float(spread ** (2 * k / (num_actors - 1) - 1)) for k in range(num_actors)]


def _check(**arguments: tuple[float, int]) -> None:
    """Raise a ValueError naming the first argument that is below its minimum or not finite."""
    for name, (value, least) in arguments.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be >= {least} and finite, got {value}.")
