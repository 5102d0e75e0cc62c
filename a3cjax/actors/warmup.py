"""Random play before learning: decorrelates the environments and shows what they look like."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from a3cjax.actors.statistics import ObservationMoments
from a3cjax.actors.supervisor import Job, Stopped, Supervisor
from a3cjax.envs.base import Environments
from a3cjax.types import TimeStep, is_experienced

THREADS = "actor-learner"
"""Name of the threads of the actor-learners, and so of their environments: one for each."""

POLL_SECONDS = 0.01
# After one has failed or stands still, the others may finish their steps.
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
        num_taken += int(np.count_nonzero(is_experienced(timestep.is_first, timestep.is_idle)))
    environments.pop_episodes()
    return timestep, moments, num_taken


def warm_up(
    batches: Sequence[Environments],
    num_steps: int,
    seed: int,
    supervisor: Supervisor,
) -> tuple[list[TimeStep], list[ObservationMoments], int]:
    """As `play_randomly`, for every actor's environments at the same time, each in its thread.

    Returns:
      Each batch's timestep, the moments of what was seen in it, and the number of steps in all.

    Raises:
      Stopped: if a stop is asked for meanwhile: statistics of a part would be taken for the whole.
      StallError: if a batch stands still.
      Exception: what an environment raised; the other batches stop, too.
    """

    def play(index: int, job: Job) -> tuple[TimeStep, ObservationMoments, int]:
        generator = np.random.default_rng([seed, index])
        return play_randomly(batches[index], num_steps, generator, job.is_set)

    targets = [functools.partial(play, index) for index in range(len(batches))]
    jobs = supervisor.start(targets, THREADS, "random play")
    supervisor.watch(period=POLL_SECONDS)
    supervisor.wait(JOIN_SECONDS if supervisor.failures else math.inf)
    supervisor.raise_failures()
    if supervisor.is_stopping:
        raise Stopped
    timesteps, moments, nums_taken = zip(*(job.result for job in jobs), strict=True)
    return list(timesteps), list(moments), sum(nums_taken)
