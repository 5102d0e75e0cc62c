"""What a fleet of so many actor-learners comes to: a model of its queues, not a measurement.

    python benchmarks/scale_model.py                  the table of docs/distributed.md
    python benchmarks/scale_model.py --measure        service times of this machine, through Ray
    python benchmarks/scale_model.py --check          1, 2 and 4 workers beside what it says of them

An actor-learner plays and differentiates for `Costs.actor_seconds`, then pushes to every shard at
once and waits for the slowest answer. A shard serves one push after another; the actor-learners
of a machine share its link. Needs simpy (and Ray to measure):
pip install -c constraints.txt '.[ray]' simpy
"""

import argparse
import dataclasses
import os
import random
import signal
import statistics
import sys
import time
from typing import Any, NamedTuple

WORKERS_CHECKED = (1, 2, 4)
SLICE_SECONDS = 3e-3  # for which whoever gets a core keeps it
NUM_STEPS = 320  # of a push: unrolls of 40 steps in 8 environments


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one push by atari_ff on Pong, with the preset laptop.

    Defaults: measured with a prototype on two shared cores (docs/distributed.md).
    """

    num_bytes: float = 2.71e6
    num_steps: int = NUM_STEPS
    actor_seconds: float = 0.64
    spread: float = 0.1  # of the actor's seconds, as a standard deviation over their mean
    shard_seconds: float = 0.8e-3  # and for each byte
    shard_seconds_per_byte: float = 1.6e-9
    call_seconds: float = 1e-3
    client_seconds: float = 1.2e-3
    client_seconds_per_byte: float = 0.6e-9
    link_bytes_per_second: float = 1.25e9  # 10 Gb/s for each machine
    actors_per_machine: int = 16
    cores_per_machine: int | None = None  # None: one for each actor-learner, others for shards
    slowdown: float = 1.0  # of a core while others of its machine work, too


class Outcome(NamedTuple):
    """What a model run came to."""

    steps_per_second: float
    efficiency: float
    staleness: float
    bytes_per_second: float


def simulate(
    num_actors: int,
    num_shards: int,
    grads_per_push: int = 1,
    costs: Costs = Costs(),
    seconds: float = 20.0,
    seed: int = 0,
) -> Outcome:
    """Runs `num_actors` actor-learners against `num_shards` shards for simulated `seconds`."""
    import simpy

    environment, generator = simpy.Environment(), random.Random(seed)
    shards = [simpy.Resource(environment) for _ in range(num_shards)]
    machines = -(-num_actors // costs.actors_per_machine)
    links = [simpy.Resource(environment) for _ in range(machines)]
    cores = [simpy.Resource(environment, costs.cores_per_machine or 1) for _ in range(machines)]
    pools: list[list[int]] = [[] for _ in range(-(-num_actors // max(grads_per_push, 1)))]
    slice_bytes = costs.num_bytes / num_shards
    counts = {"gradients": 0, "pushes": 0, "version": 0}
    stalenesses: list[int] = []

    def compute(machine: int, length: float) -> Any:
        """Takes this many seconds of a core, which others use in turn."""
        if costs.cores_per_machine is None:
            yield environment.timeout(length)
            return
        while length > 0:
            with cores[machine].request() as turn:
                yield turn
                part = min(length, SLICE_SECONDS)
                is_alone = cores[machine].count == 1
                yield environment.timeout(part * (1.0 if is_alone else costs.slowdown))
            length -= part

    def serve(shard: Any) -> Any:
        with shard.request() as turn:
            yield turn
            length = costs.shard_seconds + slice_bytes * costs.shard_seconds_per_byte
            yield from compute(0, length)

    def push(machine: int) -> Any:
        length = costs.client_seconds + costs.num_bytes * costs.client_seconds_per_byte
        yield from compute(machine, length)
        if machines > 1:
            with links[machine].request() as turn:  # there and back
                yield turn
                yield environment.timeout(2 * costs.num_bytes / costs.link_bytes_per_second)
        yield environment.timeout(costs.call_seconds)
        yield environment.all_of([environment.process(serve(shard)) for shard in shards])

    def act(index: int) -> Any:
        yield environment.timeout(generator.random() * costs.actor_seconds)
        pool = pools[index // grads_per_push]
        while True:
            seen = counts["version"]
            length = generator.gauss(costs.actor_seconds, costs.spread * costs.actor_seconds)
            machine = index // costs.actors_per_machine
            yield from compute(machine, max(length, 0.1 * costs.actor_seconds))
            counts["gradients"] += 1
            pool.append(seen)
            if len(pool) == grads_per_push:
                oldest = min(pool)
                pool.clear()
                yield from push(machine)
                stalenesses.append(counts["version"] - oldest)
                counts["version"] += 1
                counts["pushes"] += 1

    for index in range(num_actors):
        environment.process(act(index))
    environment.run(until=seconds / 4)  # until it has settled
    stalenesses.clear()
    before = dict(counts)
    environment.run(until=seconds)
    lasted = 0.75 * seconds
    rate = (counts["gradients"] - before["gradients"]) / lasted
    pushes = (counts["pushes"] - before["pushes"]) / lasted
    return Outcome(
        rate * costs.num_steps,
        rate * costs.actor_seconds / num_actors,
        statistics.fmean(stalenesses) if stalenesses else 0.0,
        2 * pushes * costs.num_bytes,
    )


def measure(rounds: int = 200) -> dict[str, tuple[float, float]]:
    """Times a null call, and a push of atari_ff that brings parameters back.

    Returns:
      By name, the minimum and the median in milliseconds.
    """
    from a3cjax.cluster.environment import environment_of_ray

    with environment_of_ray(is_private=True):
        from a3cjax.cluster.ray_engine import ray_engine

        with ray_engine(None) as engine:
            return _measure(engine, rounds)


def _measure(engine: Any, rounds: int) -> dict[str, tuple[float, float]]:
    import threading

    import jax
    import numpy as np

    from a3cjax.cluster.shard import make_shard
    from a3cjax.cluster.store import ShardedStore
    from a3cjax.config.builders import build_agent, init_state
    from a3cjax.config.resolution import resolve
    from a3cjax.config.settings import Config
    from a3cjax.envs.making import make_environments
    from a3cjax.parameters.shared import as_views
    from a3cjax.runs.checkpoints import Checkpoint, Progress

    jax.config.update("jax_platforms", "cpu")
    config = Config(env="Pong", cluster="ray", kernels=False)
    environments = make_environments("Pong", num_envs=1, seed=0, discount=0.99)
    config = resolve(config, environments.spec)
    agent = build_agent(config, environments.spec)
    state = as_views(init_state(config, agent, environments.spec)._replace(seen=None))
    environments.close()
    from a3cjax.types import Seen

    shard = engine.spawn(make_shard, config, True, None, has_lanes=True)
    begun = Checkpoint(state._replace(seen=Seen()), None, Progress())
    shard.submit("begin", begun, True).result()
    store = ShardedStore([shard], threading.Event())
    grads = jax.tree.map(lambda x: np.full_like(x, 1e-3), state.params)
    print(f"{sum(x.size for x in jax.tree.leaves(grads)):,} parameters, {rounds} rounds")

    def timed(call: Any) -> tuple[float, float]:
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            call()
            seconds.append(1e3 * (time.perf_counter() - began))
        return min(seconds), statistics.median(seconds)

    store.push(grads, 1, 0)
    figures = {}
    for name, call in (
        ("null call", lambda: shard.submit("counts").result()),
        ("fused push and pull", lambda: store.push(grads, 1, 0)),
    ):
        figures[name] = timed(call)
        print("{}: {:.2f} ms at least, {:.2f} in the middle".format(name, *figures[name]))
    return figures


def costs_here(alone: float, together: float, num_cores: int, push_seconds: float) -> Costs:
    """Costs on a single machine, from what was measured without a fleet.

    Args:
      alone: steps/s of one actor-learner with a core, while the others rest.
      together: steps/s of as many actor-learners as there are cores, in one process.
      num_cores: how many.
      push_seconds: for a push that brings new parameters back.
    """
    costs = Costs()
    here = costs.call_seconds + costs.shard_seconds + costs.client_seconds
    here += costs.num_bytes * (costs.shard_seconds_per_byte + costs.client_seconds_per_byte)
    return dataclasses.replace(
        costs,
        actor_seconds=costs.num_steps / alone,
        cores_per_machine=num_cores,
        actors_per_machine=max(WORKERS_CHECKED),
        slowdown=num_cores * alone / together,
        **{
            name: getattr(costs, name) * push_seconds / here  # in the proportions of the prototype
            for name in (
                "call_seconds",
                "shard_seconds",
                "shard_seconds_per_byte",
                "client_seconds",
                "client_seconds_per_byte",
            )
        },
    )


def check(rounds: int) -> None:
    """Prints steps/s of 1, 2 and 4 workers on Pong, and what the model says of them."""
    import fleets

    cores = sorted(os.sched_getaffinity(0))
    _, push = measure()["fused push and pull"]
    threads = str(len(cores))
    shapes = ["1", threads, *(f"{workers}x1" for workers in WORKERS_CHECKED)]
    rates: dict[str, list[float]] = {shape: [] for shape in shapes}
    for _ in range(rounds):
        for shape in shapes:
            bound = cores[-1:] if shape == "1" else None
            settings = [*fleets.settings_of(shape, "Pong", ()), f"unroll_length={NUM_STEPS // 8}"]
            rate, _ = fleets.measure(settings, 6.0, 20.0, bound)
            rates[shape].append(rate)
            print(f"{shape}: {rate:,.0f} steps/s", flush=True)
    alone, together = (statistics.median(rates[shape]) for shape in ("1", threads))
    costs = costs_here(alone, together, len(cores), push / 1e3)
    print(f"one core alone {alone:,.0f} steps/s, {threads} threads {together:,.0f}")
    print("| workers | measured | model | model / measured |\n|---|---|---|---|")
    for workers in WORKERS_CHECKED:
        measured = statistics.median(rates[f"{workers}x1"])
        said = simulate(workers, 1, costs=costs, seconds=240.0).steps_per_second
        print(f"| {workers} | {measured:,.0f} | {said:,.0f} | {said / measured:.2f} |", flush=True)


def main() -> None:
    """Prints the table, or measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="a push of atari_ff, through Ray")
    parser.add_argument("--check", action="store_true", help="beside 1, 2 and 4 workers on Pong")
    parser.add_argument("--rounds", type=int, default=5, help="of the check")
    arguments = parser.parse_args()
    if arguments.check:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        check(arguments.rounds)
        return
    if arguments.measure:
        measure()
        return
    print("| actor-learners | gradients of a push | 1 shard | 4 shards | 16 shards | 64 shards |")
    print("|---|---|---|---|---|---|")
    for num_actors in (16, 64, 256, 1_000):
        for grads_per_push in (1, 16):
            outcomes = [simulate(num_actors, n, grads_per_push) for n in (1, 4, 16, 64)]
            cells = [
                f"{o.steps_per_second:,.0f} ({o.efficiency:.2f}; {o.staleness:.0f})"
                for o in outcomes
            ]
            print(f"| {num_actors:,} | {grads_per_push} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
