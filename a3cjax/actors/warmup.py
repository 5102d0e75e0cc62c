"""Random play before learning: decorrelates the environments and shows what they look like."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from a3cjax.actors.statistics import ObservationMoments, statistics_of
from a3cjax.actors.supervisor import Supervisor
from a3cjax.envs.base import Environments
from a3cjax.types import ObservationStatistics, TimeStep

POLL_SECONDS = 0.01
# After one has failed, stalls or a stop is asked for, a batch may finish its step.
JOIN_SECONDS = 3.0


def play_randomly(
    environments: Environments,
    num_steps: int,
    generator: np.random.Generator,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[TimeStep, ObservationMoments, int]:
    """Plays `num_steps` uniformly random steps in every environment.

    Each game is restarted once, at a step of its own: learning then begins with games at
    all stages, not with a batch of games that go on in step. `should_stop` is asked at every
    step; True ends the play.

    Returns:
      The timestep at which the environments stand, the moments of what was seen, and the
      number of steps in all environments together, automatic resets not counted.
    """
    moments, num_taken = ObservationMoments(environments.spec.observation_shape), 0
    restarts = generator.integers(max(num_steps, 1), size=environments.num_envs)
    timestep = environments.reset()
    for step in range(num_steps):
        if should_stop():
            break
        environments.restart(np.flatnonzero(restarts == step))
        timestep = environments.step(environments.sample_actions(generator))
        moments.add(np.asarray(timestep.observation))
        num_taken += int(np.count_nonzero(~timestep.is_first))
    environments.pop_episodes()
    return timestep, moments, num_taken


def warm_up(
    batches: Sequence[Environments],
    num_steps: int,
    seed: int,
    supervisor: Supervisor | None = None,
    stall_seconds: float = math.inf,
) -> tuple[list[TimeStep], ObservationStatistics | None, int]:
    """As `play_randomly`, for every actor's environments at the same time.

    The supervisor, one of its own if none is given, runs the threads and tells when to stop.

    Returns:
      Each batch's timestep, the statistics over all batches (None if nothing was played), and the
      number of steps in all.

    Raises:
      StallError: if a batch does not come any further for `stall_seconds`.
      Exception: what an environment raised; the other batches stop, too.
    """
    supervisor = supervisor or Supervisor()
    num_looks = [0] * len(batches)  # one a step: shows that a batch comes any further
    results: dict[int, tuple[TimeStep, ObservationMoments, int]] = {}

    def play(index: int, _) -> None:
        def should_stop() -> bool:
            num_looks[index] += 1
            return supervisor.is_stopping

        generator = np.random.default_rng([seed, index])
        results[index] = play_randomly(batches[index], num_steps, generator, should_stop)

    indices = range(len(batches))
    targets = [functools.partial(play, index) for index in indices]
    supervisor.start(targets, "warm-up", num_looks.__getitem__)
    supervisor.watch(stall_seconds, period=POLL_SECONDS)
    supervisor.join(JOIN_SECONDS)
    supervisor.raise_failures()
    timesteps, moments, nums_taken = zip(*(results[index] for index in indices), strict=True)
    statistics = statistics_of(moments) if any(part.count for part in moments) else None
    return list(timesteps), statistics, sum(nums_taken)
