"""How training speed grows with actors, environments and the length of the unroll.

`python benchmarks/scaling.py` times the default run with one setting changed at a time, all in
turn, in several rounds. One actor is also timed with a single core to itself, as a baseline for
more actors on more cores. One row per figure goes to benchmarks/results/scaling.csv.

`python benchmarks/scaling.py --env free` combines every number of actors with every number of
environments that cost nothing: what one process can do, however fast its environments are. Its
rows go to benchmarks/results/scaling-free.csv, a picture to benchmarks/results/scaling-free.png.
"""

import argparse
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import free_environments
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results_table import Results

from a3cjax.actors.placement import Place
from a3cjax.config.settings import Config
from a3cjax.system import machine
from a3cjax.training.measuring import Training

RESULTS = Path(__file__).parent / "results"
FREE = "free"
NUM_ACTORS = (1, 2, 4, 8, 16)
ENVS_PER_ACTOR = (1, 2, 4, 8, 16, 32, 64, 128)
ONE_CORE = "1 actor, 1 core"

Rows = Mapping[str, Sequence[Mapping[str, float]]]  # what `Training.run` returned, by variant


def vary(config: Config) -> dict[str, Config]:
    """The default run and its variants, most of which change one setting, by name."""
    variants = {"default": config}
    for num_actors in (1, 2, 3, 4):
        variants[f"{num_actors} actor{'s' * (num_actors > 1)}"] = config.replace(
            num_actors=num_actors
        )
    for envs_per_actor in (2, 4, 16, 32):
        variants[f"{envs_per_actor} environments"] = config.replace(envs_per_actor=envs_per_actor)
    for unroll_length in (5, 10, 20, 80):
        variants[f"{unroll_length} steps"] = config.replace(unroll_length=unroll_length)
    variants["16 actors × 1 environment × 5 steps"] = config.replace(
        num_actors=16, envs_per_actor=1, unroll_length=5
    )
    if machine.cores_of_thread():
        variants[ONE_CORE] = config.replace(num_actors=1)
    return variants


def combine(
    config: Config, num_actors: Sequence[int], envs_per_actor: Sequence[int]
) -> dict[str, Config]:
    """Combines every number of actors with every number of environments, by name."""
    pairs = itertools.product(num_actors, envs_per_actor)
    return {
        name_of(*pair): config.replace(num_actors=pair[0], envs_per_actor=pair[1]) for pair in pairs
    }


def name_of(num_actors: int, envs_per_actor: int) -> str:
    """The name of a combination, as it stands in the file of results."""
    return f"{num_actors} × {envs_per_actor}"


def measure_in_turn(variants: Mapping[str, Config], rounds: int, seconds: float) -> Rows:
    """Times every variant once a round; the one with a single core is bound to it."""
    places = dict.fromkeys(variants, Place(None))
    if ONE_CORE in variants:
        places[ONE_CORE] = Place(None, frozenset({min(machine.cores_of_thread())}))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    with contextlib.ExitStack() as stack:
        runs: dict[str, Training] = {}
        for name, variant in variants.items():
            with places[name].entered():
                runs[name] = stack.enter_context(contextlib.closing(Training(variant)))
        for _ in range(rounds):
            for name, run in runs.items():
                with places[name].entered():
                    rows[name].append(run.run(seconds))
    return rows


def add_variants(results: Results, rows: Rows) -> dict[str, float]:
    """Adds rate and lock of each variant; returns the medians of the rates."""
    medians = {}
    for name, of_variant in rows.items():
        rates = [row["steps_per_second"] for row in of_variant]
        medians[name] = results.add(name, rates, "steps/s")
        lock = [100 * (row["wait"] + row["hold"]) for row in of_variant]
        results.add(f"{name}: lock", lock, "% of time")
    return medians


def plot(
    rates: Mapping[str, float],
    num_actors: Sequence[int],
    envs_per_actor: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """Draws a line for each number of actors, over the number of environments of each actor."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for actors in num_actors:
        line = [rates[name_of(actors, envs)] for envs in envs_per_actor]
        axis.plot(envs_per_actor, line, marker="o", label=f"{actors} actor{'s' * (actors > 1)}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(envs_per_actor, [str(envs) for envs in envs_per_actor])
    axis.set_xlabel("environments an actor")
    axis.set_ylabel("agent steps a second")
    axis.grid(which="both", alpha=0.25)
    axis.set_title(title, fontsize="medium")
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="Pong", help=f"a game; {FREE}: one that costs nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--actors", type=int, nargs="+", default=NUM_ACTORS, help="of free ones")
    parser.add_argument("--environments", type=int, nargs="+", default=ENVS_PER_ACTOR)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    arguments = parser.parse_args()

    if arguments.env == FREE:
        numbers = arguments.actors, arguments.environments
        config = Config(env=free_environments.NAME, network="mlp_ff", warmup_steps=64)
        rows = measure_in_turn(combine(config, *numbers), arguments.rounds, arguments.seconds)
        results = Results(arguments.results / "scaling-free.csv")
        rates = add_variants(results, rows)
        title = "Environments that cost nothing, one process: actors × environments"
        cores = f"{machine.available_cores()} cores"
        results.write(f"{title}, {cores}")
        picture = arguments.results / "scaling-free.png"
        plot(rates, *numbers, f"Environments that cost nothing, one process, {cores}", picture)
        return

    num_actors = machine.available_cores()
    config = Config(
        env=arguments.env,
        num_actors=num_actors,
        envs_per_actor=8,
        unroll_length=40,
        network="atari_ff",
        warmup_steps=64,
    )
    rows = measure_in_turn(vary(config), arguments.rounds, arguments.seconds)
    results = Results(arguments.results / "scaling.csv")
    add_variants(results, rows)
    if ONE_CORE in rows:
        ones = [row["steps_per_second"] for row in rows[ONE_CORE]]
        several = [row["steps_per_second"] for row in rows["default"]]
        gains = [a / b for a, b in zip(several, ones, strict=True)]
        results.add(f"{num_actors} actors / 1 actor with 1 core", gains, "")
    results.write(f"{arguments.env}: default is {num_actors} actors × 8 environments × 40 steps")


if __name__ == "__main__":
    main()
