"""Measures speed: the emulator alone, and training without its program."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from a3cjax.actors.actor_learner import UpdateReport
from a3cjax.actors.warmup import warm_up
from a3cjax.config.builders import build_agent
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.making import make_pool, resolve_envpool_id
from a3cjax.envs.spaces import sample_actions
from a3cjax.system import machine
from a3cjax.system.compilation import configure_jax
from a3cjax.training.assembly import build_actors, build_batches, build_store


def run_threads(
    targets: Sequence[Callable[[threading.Event], None]],
    seconds: float,
    is_enough: Callable[[], bool] = lambda: True,
) -> None:
    """Runs `target(stop_event)` in a thread each for so long, and until that is enough.

    Raises:
      BaseException: what one of them raised.
    """
    stop_event, failures = threading.Event(), []

    def run(target: Callable[[threading.Event], None]) -> None:
        try:
            target(stop_event)
        except BaseException as failure:
            failures.append(failure)
            stop_event.set()

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    stop_event.wait(seconds)
    while not is_enough() and not stop_event.wait(0.01):
        pass
    stop_event.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


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


class Training:
    """A run without its program: actor-learners that train, with nothing written."""

    def __init__(self, config: Config):
        configure_jax()
        num_actors = config.num_actors or machine.available_cores()
        config = config.replace(num_actors=num_actors)
        self._batches = build_batches(config)
        spec = self._batches[0].spec
        self.config = config = resolve(config, spec)
        agent = build_agent(config, spec)
        timesteps, observation_statistics, _ = warm_up(
            self._batches,
            config.warmup_steps or 0,
            config.seed,
            gather=bool(config.centre_observations),
        )
        store = build_store(config, agent, spec, statistics=observation_statistics, num_frames=0)
        self._reports: queue.SimpleQueue[UpdateReport] = queue.SimpleQueue()
        self._actors = build_actors(
            config, agent, self._batches, timesteps, store, self._reports.put
        )
        # The first update of every actor compiles or waits for it: not to be timed.
        self._run(0.0, 2 * num_actors)

    def _run(self, seconds: float, num_reports: int) -> None:
        """Trains for so long, and until there are so many reports."""
        targets = [actor.run for actor in self._actors]
        run_threads(targets, seconds, lambda: self._reports.qsize() >= num_reports)

    def run(self, seconds: float) -> dict[str, float]:
        """Trains for so long, or until the first update where that takes longer.

        Returns:
          `steps_per_second` of all actors together, and the shares of an actor's time in
          environments, acting, learning, pushing, and waiting for and holding the lock.
        """
        while self._reports.qsize():
            self._reports.get()
        self._run(seconds, 1)
        reports = [self._reports.get() for _ in range(self._reports.qsize())]
        # Whole updates over their own time: what a stop cuts off counts in neither.
        rate = 0.0
        for index in {report.actor_index for report in reports}:
            own = [report for report in reports if report.actor_index == index]
            rate += sum(r.num_steps for r in own) / sum(_actor_seconds(r) for r in own)
        total = sum(_actor_seconds(report) for report in reports)
        parts = ("env", "act", "learn", "push", "wait", "hold")
        return {
            "steps_per_second": rate,
            **{part: sum(getattr(r, f"{part}_seconds") for r in reports) / total for part in parts},
        }

    def close(self) -> None:
        """Frees the environments."""
        for batch in self._batches:
            batch.close()


def _actor_seconds(report: UpdateReport) -> float:
    return report.env_seconds + report.act_seconds + report.learn_seconds + report.push_seconds
