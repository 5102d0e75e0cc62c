"""Measures speed: the emulator alone, and training without its program."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from a3cjax.actors.actor_learner import Seconds
from a3cjax.actors.supervisor import Supervisor
from a3cjax.config.settings import Config
from a3cjax.envs.making import make_pool, resolve_envpool_id
from a3cjax.envs.spaces import sample_actions
from a3cjax.system.compilation import configure_jax
from a3cjax.training.assembly import Fleet, assemble, prepare

# Asked to stop, an actor-learner may first compile what it began with.
JOIN_SECONDS = 600.0


def run_threads(
    targets: Sequence[Callable[[threading.Event], None]],
    seconds: float,
    is_enough: Callable[[], object] = lambda: True,
) -> None:
    """Runs `target(stop_event)` in a thread each for so long, and until that is enough.

    What they raise is raised as by `Supervisor.raise_failures`.
    """
    supervisor = Supervisor()
    supervisor.start(targets, "measured")
    supervisor.stop_event.wait(seconds)
    while not (is_enough() or supervisor.stop_event.wait(0.01)):
        pass
    supervisor.stop_event.set()
    supervisor.join(JOIN_SECONDS)
    supervisor.raise_failures()


class Emulator:
    """envpool and nothing else: a pool with one thread for each actor, random actions."""

    def __init__(self, env: str, num_actors: int, envs_per_actor: int):
        self._pools = [
            make_pool(resolve_envpool_id(env), num_envs=envs_per_actor, seed=index * envs_per_actor)
            for index in range(num_actors)
        ]
        self._num_envs = envs_per_actor
        for pool in self._pools:
            pool.reset()

    def steps_per_second(self, seconds: float) -> float:
        """Agent steps a second of all pools together."""
        rates = []

        def play(pool, stop_event: threading.Event) -> None:
            rng, num_steps, began = np.random.default_rng(0), 0, time.perf_counter()
            while not (num_steps and stop_event.is_set()):
                pool.step(sample_actions(pool.action_space, self._num_envs, rng))
                num_steps += self._num_envs
            rates.append(num_steps / (time.perf_counter() - began))

        run_threads([partial(play, pool) for pool in self._pools], seconds)
        return sum(rates)

    def close(self) -> None:
        """Frees the pools."""
        for pool in self._pools:
            pool.close()


@dataclass
class Training:
    """A run without its program: actor-learners that train, with nothing written."""

    config: Config  # resolved
    fleet: Fleet

    def run(self, seconds: float) -> dict[str, float]:
        """Trains for so long, or until the first update where that takes longer.

        Returns:
          `steps_per_second` of all actors together, and the shares of an actor's time in
          environments, acting, learning, pushing, and waiting for and holding the lock.
        """
        queue = self.fleet.reports
        while queue.qsize():
            queue.get()
        run_threads(self.fleet.targets, seconds, queue.qsize)
        reports = [queue.get() for _ in range(queue.qsize())]
        # Whole updates over their own time: what a stop cuts off counts in neither.
        rate = 0.0
        for index in {report.actor_index for report in reports}:
            own = [report for report in reports if report.actor_index == index]
            rate += sum(r.num_steps for r in own) / sum(r.seconds.total for r in own)
        sums = Seconds(*map(sum, zip(*(report.seconds for report in reports), strict=True)))
        shares = {part: seconds / sums.total for part, seconds in sums._asdict().items()}
        return {"steps_per_second": rate, **shares}

    def close(self) -> None:
        """Frees the environments."""
        for actor in self.fleet.actors:
            actor.environments.close()


def start_training(config: Config) -> Training:
    """Puts a run together, and trains until every program is compiled."""
    configure_jax()
    config, agent, batches = prepare(config)
    fleet = assemble(config, agent, batches)
    # The first update of every actor compiles or waits for it: not to be timed.
    run_threads(fleet.targets, 0.0, lambda: fleet.reports.qsize() >= 2 * len(batches))
    return Training(config, fleet)
