"""Measures speed: of the emulator alone, and of actor-learners with nothing written."""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from a3cjax.actors.reports import Seconds, UpdateReport
from a3cjax.actors.supervisor import Job, Supervisor
from a3cjax.actors.warmup import THREADS
from a3cjax.config.settings import Config
from a3cjax.envs.actions import make_clip, sample_actions
from a3cjax.envs.making import make_pool, resolve_envpool_id, without_warnings_on_bounds
from a3cjax.errors import ConfigError
from a3cjax.system.compilation import jax_settings
from a3cjax.training.assembly import assemble, close_all, prepare

# Before it stops, an actor-learner may have to finish a compilation.
JOIN_SECONDS = 600.0


def run_threads(
    supervisor: Supervisor,
    targets: Sequence[Callable[[Job], None]],
    seconds: float,
    is_enough: Callable[[], object] = lambda: True,
) -> None:
    """Run each target in a thread of its own, for `seconds` and on until `is_enough()`.

    Raises:
      ConfigError: if all targets come to an end before.
    """
    supervisor.start(targets, THREADS)
    supervisor.stop_event.wait(seconds)
    while True:
        is_over = not supervisor.is_running
        has_enough = bool(is_enough())
        if has_enough or is_over:
            break
        supervisor.stop_event.wait(0.01)
    supervisor.stop_event.set()
    supervisor.wait(JOIN_SECONDS)
    supervisor.raise_failures()
    supervisor.stop_event.clear()
    if not has_enough:
        raise ConfigError(
            "total_frames must be more: they are used up before anything is measured."
        )


def emulator_rate(env: str, num_actors: int, envs_per_actor: int, seconds: float) -> float:
    """Agent steps a second of envpool alone, with random actions and a pool for each actor."""
    env_id, rates = resolve_envpool_id(env), []
    pools = [
        make_pool(env_id, num_envs=envs_per_actor, seed=index * envs_per_actor)
        for index in range(num_actors)
    ]

    def play(pool, stop_event: Job) -> None:
        clip, rng = make_clip(pool.action_space), np.random.default_rng(0)
        num_steps, began = 0, time.perf_counter()
        while not (num_steps and stop_event.is_set()):
            pool.step(clip(sample_actions(pool.action_space, envs_per_actor, rng)))
            num_steps += envs_per_actor
        rates.append(num_steps / (time.perf_counter() - began))

    with contextlib.ExitStack() as stack:
        stack.enter_context(without_warnings_on_bounds())
        for pool in pools:
            stack.callback(pool.close)
            pool.reset()
        supervisor = Supervisor()
        stack.callback(supervisor.dismiss)
        run_threads(supervisor, [partial(play, pool) for pool in pools], seconds)
    return sum(rates)


class Training:
    """A run reduced to its actor-learners: they train, and nothing is written."""

    def __init__(self, config: Config):
        """Assemble the run, resolve its settings, and train until every program is compiled.

        Raises:
          ConfigError: if actors are to take turns: stopped in the middle of a round, they would
            wait for each other for ever.
        """
        if config.deterministic:
            raise ConfigError("deterministic must be false to measure speed, got true.")
        with contextlib.ExitStack() as closing:
            closing.enter_context(jax_settings())
            self._supervisor = supervisor = Supervisor()
            closing.callback(supervisor.dismiss)
            self.config, agent, batches = prepare(config, supervisor=supervisor)
            closing.callback(close_all, batches, supervisor)
            fleet = assemble(self.config, agent, batches, supervisor=supervisor)
            self._targets, self._reports = fleet.targets, fleet.reports
            # The first update of every actor compiles, or waits for that, and is not to be timed.
            num_updates = 2 * len(batches)
            self._run(0.0, lambda: self._reports.qsize() >= num_updates)
            self._closing = closing.pop_all()

    def run(self, seconds: float) -> dict[str, float]:
        """Train for `seconds`, or until the first update if that takes longer.

        Returns:
          `steps_per_second` of all actors together, and the shares of an actor's time in
          environments, acting, learning, pushing, and waiting for and holding the lock.
        """
        self._pop_reports()
        self._run(seconds, self._reports.qsize)
        reports = self._pop_reports()
        sums = Seconds(*map(sum, zip(*(report.seconds for report in reports), strict=True)))
        # Whole updates over their own time: what a stop cuts off counts in neither. Threads work
        # at the same time, the actor-learners of one thread one after another.
        num_steps = sum(report.num_steps for report in reports)
        rate = len(self._targets) * num_steps / sums.total
        shares = {part: seconds / sums.total for part, seconds in sums._asdict().items()}
        return {"steps_per_second": rate, **shares}

    def _run(self, seconds: float, is_enough: Callable[[], object]) -> None:
        run_threads(self._supervisor, self._targets, seconds, is_enough)

    def _pop_reports(self) -> list[UpdateReport]:
        reports = [self._reports.get() for _ in range(self._reports.qsize())]
        return [report for report in reports if isinstance(report, UpdateReport)]

    def close(self) -> None:
        """Free the environments; a second call does nothing."""
        self._closing.close()
