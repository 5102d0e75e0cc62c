"""What a fleet of so many actor-learners comes to: a model of its queues, not a measurement.

    python benchmarks/scale_model.py                  the table of docs/distributed.md
    python benchmarks/scale_model.py --measure        service times of this machine, through Ray

An actor-learner plays and differentiates for `Costs.actor_seconds`, then pushes to every shard at
once and waits for the slowest answer. A shard serves one push after another; machines share a link.
Needs simpy (and Ray to measure): pip install -c constraints.txt '.[ray]' simpy
"""

import argparse
import dataclasses
import random
import statistics
import time
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one push, of atari_ff on Pong with the preset laptop.

    Defaults: measured with a prototype on two shared cores (docs/distributed.md).
    """

    num_bytes: float = 2.71e6
    num_steps: int = 320
    actor_seconds: float = 0.64
    spread: float = 0.1  # of the actor's seconds, as a standard deviation over their mean
    shard_seconds: float = 0.8e-3  # and for each byte
    shard_seconds_per_byte: float = 1.6e-9
    call_seconds: float = 1e-3
    client_seconds: float = 1.2e-3
    client_seconds_per_byte: float = 0.6e-9
    link_bytes_per_second: float = 1.25e9  # 10 Gb/s for each machine
    actors_per_machine: int = 16


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
    """Lets so many actor-learners run against so many shards for simulated seconds."""
    import simpy

    environment, generator = simpy.Environment(), random.Random(seed)
    shards = [simpy.Resource(environment) for _ in range(num_shards)]
    machines = -(-num_actors // costs.actors_per_machine)
    links = [simpy.Resource(environment) for _ in range(machines)]
    pools: list[list[int]] = [[] for _ in range(-(-num_actors // max(grads_per_push, 1)))]
    slice_bytes = costs.num_bytes / num_shards
    counts = {"gradients": 0, "pushes": 0, "version": 0}
    stalenesses: list[int] = []

    def serve(shard: Any) -> Any:
        with shard.request() as turn:
            yield turn
            yield environment.timeout(
                costs.shard_seconds + slice_bytes * costs.shard_seconds_per_byte
            )

    def push(machine: int) -> Any:
        yield environment.timeout(
            costs.client_seconds + costs.num_bytes * costs.client_seconds_per_byte
        )
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
            yield environment.timeout(max(length, 0.1 * costs.actor_seconds))
            counts["gradients"] += 1
            pool.append(seen)
            if len(pool) == grads_per_push:
                oldest = min(pool)
                pool.clear()
                yield from push(index // costs.actors_per_machine)
                stalenesses.append(counts["version"] - oldest)
                counts["version"] += 1
                counts["pushes"] += 1

    for index in range(num_actors):
        environment.process(act(index))
    environment.run(until=seconds / 4)  # until it is in step
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


def measure(rounds: int = 200) -> dict[str, float]:
    """Milliseconds of a null call, and of a push of atari_ff that brings parameters back."""
    from a3cjax.cluster.environment import environment_of_ray

    with environment_of_ray(is_private=True):
        from a3cjax.cluster.ray_engine import ray_engine

        with ray_engine(None) as engine:
            return _measure(engine, rounds)


def _measure(engine: Any, rounds: int) -> dict[str, float]:
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

    shard = engine.spawn(make_shard, config, True, None)
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
        figures[name], median = timed(call)
        print(f"{name}: {figures[name]:.2f} ms at least, {median:.2f} in the middle")
    return figures


def main() -> None:
    """Prints the table, or measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="a push of atari_ff, through Ray")
    if parser.parse_args().measure:
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
