"""Actor-learners that share a thread: many small ones on few cores.

As sixteen threads on two cores, the paper's sixteen actor-learners with one environment each wait
for each other: for Python's interpreter, for a core, for the lock. Here one thread for each core
drives its share of the actor-learners in turn. Each actor-learner keeps its own snapshot, key, core
state and unroll, and pushes its own gradients; only the step of their environments is one call.
They begin at different points of an unroll, so that they push one after another, as free threads
do.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from a3cjax.actors.actor_learner import ActorLearner, Stepped
from a3cjax.actors.supervisor import Job
from a3cjax.envs.base import Environments, Episode
from a3cjax.types import TimeStep


class SharedBatch:
    """A batch of environments that is stepped as one, and belongs to several actor-learners.

    The first `envs_per_actor` environments belong to the first actor-learner, and so on.
    """

    def __init__(self, environments: Environments, envs_per_actor: int):
        self.environments = environments
        begins = range(0, environments.num_envs, envs_per_actor)
        self.parts = [Part(self, slice(begin, begin + envs_per_actor)) for begin in begins]

    def split(self, timestep: TimeStep) -> list[TimeStep]:
        """The part of a timestep that each actor-learner sees."""
        return [jax.tree.map(lambda x, own=part.own: x[own], timestep) for part in self.parts]

    def hand_out_episodes(self) -> None:
        """Give each actor-learner the games that finished in its environments."""
        for episode in self.environments.pop_episodes():
            part = self.parts[episode.environment_index // self.parts[0].num_envs]
            part.episodes.append(
                episode._replace(environment_index=episode.environment_index - part.own.start)
            )


class Part:
    """The environments of one actor-learner, which others step for it."""

    def __init__(self, batch: SharedBatch, own: slice):
        self.own, self.episodes = own, list[Episode]()
        self._batch = batch
        self.num_envs = own.stop - own.start
        self.spec = batch.environments.spec

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call."""
        self._batch.hand_out_episodes()
        episodes, self.episodes = self.episodes, []
        return episodes

    def get_state(self) -> None:
        """Return None: free actor-learners do not go on exactly where they stood."""


@dataclass(eq=False)
class Crew:
    """Actor-learners and the batch that they share, for one thread."""

    actors: Sequence[ActorLearner]
    batch: SharedBatch

    def __post_init__(self):
        for index, actor in enumerate(self.actors):  # unrolls end one after another
            length = actor.unroll_length
            assert length is not None
            actor.first_length = length - index * length // len(self.actors)

    def run(self, stop_event: threading.Event | Job) -> None:
        """Drive actor-learners until one finds the frame budget used up, or `stop_event` is set.

        The unrolls that the others have begun by then are dropped, as at every stop.
        """
        clock, step = self.actors[0].clock, self.batch.environments.step
        works = [actor.work(stop_event) for actor in self.actors]
        with contextlib.suppress(StopIteration):
            actions = [next(work) for work in works]
            while True:
                began = clock()
                timesteps = self.batch.split(step(np.concatenate(actions)))
                seconds = (clock() - began) / len(works)
                stepped = [Stepped(timestep, seconds) for timestep in timesteps]
                actions = [work.send(x) for work, x in zip(works, stepped, strict=True)]
