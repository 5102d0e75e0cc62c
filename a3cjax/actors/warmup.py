"""Random play before learning: decorrelates the environments and shows what they look like."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np

from a3cjax.actors.supervisor import Job, Stopped, Supervisor
from a3cjax.envs.base import Environments
from a3cjax.parameters.moments import (
    discounted_sums,
    map_moments,
    merge,
    merge_seen,
    moments_of,
    moments_of_new,
)
from a3cjax.types import Seen, TimeStep, is_experienced

THREADS = "actor-learner"
"""Name of the threads of the actor-learners, and so of their environments: one for each."""

POLL_SECONDS = 0.01
# After one has failed or stands still, the others have this long to finish their steps.
JOIN_SECONDS = 3.0


def play_randomly(
    environments: Environments,
    num_steps: int,
    generator: np.random.Generator,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[TimeStep, Seen, int]:
    """Play `num_steps` uniformly random steps in every environment.

    Each game is restarted once, at a step of its own: learning then begins with games at
    all stages, not with a batch of games in lockstep. `should_stop` is asked at every
    step; True ends the play.

    Returns:
      The timestep at which the environments stand, the moments of what was seen (including
      images), and the number of steps in all environments together, without automatic resets.
    """
    shapes = environments.spec.observation
    moments = jax.tree.map(lambda part: moments_of((), part.shape), shapes)
    restarts = generator.integers(max(num_steps, 1), size=environments.num_envs)
    timestep = environments.reset()
    steps, taken = [], [np.zeros((0, environments.num_envs), bool)]
    for step in range(num_steps):
        if should_stop():
            break
        environments.restart(np.flatnonzero(restarts == step))
        discount = np.where(restarts == step, 0.0, timestep.discount)  # nothing continues there
        steps.append((timestep.reward, discount, timestep.is_first))
        timestep = environments.step(environments.sample_actions(generator))
        taken.append(is_experienced(timestep.is_first, timestep.is_idle))
        new = moments_of_new(moments, timestep.observation, timestep.is_idle)
        moments = map_moments(merge, moments, new)
    environments.pop_episodes()
    steps.append((timestep.reward, timestep.discount, timestep.is_first))
    rewards, discounts, is_first = map(np.stack, zip(*steps, strict=True))
    before = np.zeros(environments.num_envs)
    sums, _ = discounted_sums(rewards[1:], discounts[1:], is_first, before)
    is_taken = np.vstack(taken)
    return timestep, Seen(moments_of(sums[is_taken]), moments), int(is_taken.sum())


def warm_up(
    batches: Sequence[Environments],
    num_steps: int,
    seed: int,
    supervisor: Supervisor,
) -> tuple[list[TimeStep], Seen, int]:
    """As `play_in_each`, in the batches of a whole run.

    Returns:
      The timestep of each batch, the moments of what all have seen, and the number of all steps.
    """
    timesteps, seen, nums_taken = zip(
        *play_in_each(batches, num_steps, seed, supervisor), strict=True
    )
    return list(timesteps), functools.reduce(merge_seen, seen), sum(nums_taken)


def play_in_each(
    batches: Sequence[Environments],
    num_steps: int,
    seed: int,
    supervisor: Supervisor,
    first_index: int = 0,
) -> list[tuple[TimeStep, Seen, int]]:
    """As `play_randomly`, for every actor's environments at the same time, each in its thread.

    `first_index` is the index of the first batch in the whole run: each index has actions of its
    own.

    Raises:
      Stopped: if a stop is asked for meanwhile, as partial statistics would be taken for complete.
      StallError: if a batch stands still.
      Exception: what an environment raised; the other batches stop, too.
    """

    def play(index: int, job: Job) -> tuple[TimeStep, Seen, int]:
        generator = np.random.default_rng([seed, first_index + index])
        return play_randomly(batches[index], num_steps, generator, job.is_set)

    targets = [functools.partial(play, index) for index in range(len(batches))]
    jobs = supervisor.start(targets, THREADS, "random play")
    supervisor.watch(period=POLL_SECONDS)
    supervisor.wait(JOIN_SECONDS if supervisor.failures else math.inf)
    supervisor.raise_failures()
    if supervisor.is_stopping:
        raise Stopped
    return [job.result for job in jobs]
