"""How training speed grows with actors, environments and the length of the unroll.

`python benchmarks/scaling.py` times the default run with one setting changed at a time, all in
turn, several rounds. One actor is also timed with a single core to itself: what more actors on
more cores are measured by. One row a figure goes to benchmarks/results/scaling.csv.
"""

import argparse
from pathlib import Path

from results_table import Results

from a3cjax.actors.placement import Place
from a3cjax.config.settings import Config
from a3cjax.system import machine
from a3cjax.training.measuring import Training

RESULTS = Path(__file__).parent / "results" / "scaling.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    arguments = parser.parse_args()

    config = Config(
        env=arguments.game,
        num_actors=machine.available_cores(),
        network="atari_ff",
        warmup_steps=64,
    )
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
    places = dict.fromkeys(variants, Place(None))
    if cores := machine.cores_of_thread():
        variants["1 actor, 1 core"] = config.replace(num_actors=1)
        places["1 actor, 1 core"] = Place(None, frozenset({min(cores)}))
    runs: dict[str, Training] = {}
    for name, variant in variants.items():
        with places[name].entered():
            runs[name] = Training(variant)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            with places[name].entered():
                rows[name].append(run.run(arguments.seconds))

    results = Results(RESULTS)
    for name in runs:
        results.add(name, [row["steps_per_second"] for row in rows[name]], "steps/s")
        lock = [100 * (row["wait"] + row["hold"]) for row in rows[name]]
        results.add(f"{name}: lock", lock, "% of time")
    if "1 actor, 1 core" in rows:
        ones = [row["steps_per_second"] for row in rows["1 actor, 1 core"]]
        several = [row["steps_per_second"] for row in rows["default"]]
        gains = [a / b for a, b in zip(several, ones, strict=True)]
        results.add(f"{config.num_actors} actors / 1 actor with 1 core", gains, "")
    settings = runs["default"].config
    results.write(
        f"{arguments.game}: default is {settings.num_actors} actors × {settings.envs_per_actor} "
        f"environments × {settings.unroll_length} steps"
    )
    for run in runs.values():
        run.close()


if __name__ == "__main__":
    main()
