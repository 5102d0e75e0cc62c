"""Random play before learning: decorrelates the environments and shows what they look like."""

from collections.abc import Sequence

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
        values = observations.astype(np.float64)
        self._count += len(values)
        self._sum += values.sum(axis=0)
        self._sum_of_squares += np.square(values).sum(axis=0)

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
    environments: Environments,
    num_steps: int,
    generator: np.random.Generator,
    moments: ObservationMoments | None = None,
) -> TimeStep:
    """Plays `num_steps` uniformly random steps in every environment.

    Returns:
      The timestep at which the environments stand.
    """
    timestep = environments.reset()
    for _ in range(num_steps):
        if moments is not None:
            moments.add(np.asarray(timestep.observation))
        actions = generator.integers(environments.spec.num_actions, size=environments.num_envs)
        timestep = environments.step(actions.astype(np.int32))
    environments.pop_episodes()
    return timestep


def warm_up(
    batches: Sequence[Environments], num_steps: int, seed: int, *, gather: bool
) -> tuple[list[TimeStep], ObservationStatistics | None]:
    """Warms up every actor's environments; optionally gathers the statistics of all of them.

    Returns:
      Each batch's timestep, and the statistics (None unless `gather`).
    """
    moments = ObservationMoments(batches[0].spec.observation_shape) if gather else None
    timesteps = [
        play_randomly(batch, num_steps, np.random.default_rng([seed, index]), moments)
        for index, batch in enumerate(batches)
    ]
    return timesteps, moments.statistics() if moments is not None else None
