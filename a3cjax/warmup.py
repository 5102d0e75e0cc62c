"""Random play before learning: decorrelates the environments and shows what they look like."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from a3cjax.envs import Environments
from a3cjax.types import ObservationStatistics, TimeStep


class ObservationMoments:
    """Sums from which the mean image and the scale of what remains are computed."""

    def __init__(self, shape: tuple[int, ...]):
        self._count = 0
        self._sum = np.zeros(shape)
        self._sum_of_squares = np.zeros(shape)

    def add(self, observations: np.ndarray) -> None:
        """Takes in a batch `[B, ...]`."""
        values = observations.astype(np.float32)
        self._count += len(values)
        self._sum += values.sum(axis=0, dtype=np.float64)
        self._sum_of_squares += np.square(values).sum(axis=0, dtype=np.float64)

    def merge(self, other: "ObservationMoments") -> None:
        """Takes in what another one saw."""
        self._count += other._count
        self._sum += other._sum
        self._sum_of_squares += other._sum_of_squares

    def statistics(self) -> ObservationStatistics:
        """The per-pixel mean and the root of the mean variance around it.

        One scale for all pixels: rarely changing pixels are not blown up. Nothing is
        divided by less than a thousandth of the largest mean.
        """
        mean = self._sum / self._count
        variance = np.maximum(self._sum_of_squares / self._count - np.square(mean), 0.0)
        least = max(1e-3 * float(np.abs(mean).max()), 1e-6)
        scale = max(float(np.sqrt(variance.mean())), least)
        return ObservationStatistics(
            jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
        )


def play_randomly(
    environments: Environments, num_steps: int, generator: np.random.Generator
) -> tuple[TimeStep, ObservationMoments]:
    """Plays `num_steps` uniformly random steps in every environment.

    Each game is restarted once, at a step of its own: learning then begins with games at
    all stages, not with a batch of games that go on in step.

    Returns:
      The timestep at which the environments stand, and the moments of what was seen.
    """
    num_envs, num_actions = environments.num_envs, environments.spec.num_actions
    moments = ObservationMoments(environments.spec.observation_shape)
    restarts = generator.integers(num_steps, size=num_envs) if num_steps else np.zeros(0)
    timestep = environments.reset()
    for step in range(num_steps):
        environments.restart(np.flatnonzero(restarts == step))
        actions = generator.integers(num_actions, size=num_envs, dtype=np.int32)
        timestep = environments.step(actions)
        moments.add(np.asarray(timestep.observation))
    environments.pop_episodes()
    return timestep, moments


def warm_up(
    batches: Sequence[Environments], num_steps: int, seed: int, *, gather: bool
) -> tuple[list[TimeStep], ObservationStatistics | None]:
    """Warms up every actor's environments, all batches at the same time.

    Returns:
      Each batch's timestep, and the statistics over all batches (None unless `gather`).
    """
    generators = [np.random.default_rng([seed, index]) for index in range(len(batches))]
    with ThreadPoolExecutor(len(batches), thread_name_prefix="warm-up") as executor:
        results = list(
            executor.map(
                lambda pair: play_randomly(pair[0], num_steps, pair[1]),
                zip(batches, generators, strict=True),
            )
        )
    timesteps = [timestep for timestep, _ in results]
    if not gather:
        return timesteps, None
    total = ObservationMoments(batches[0].spec.observation_shape)
    for _, moments in results:
        total.merge(moments)
    return timesteps, total.statistics()
