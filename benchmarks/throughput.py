"""How much of the emulator's speed is left when an agent learns.

`python benchmarks/throughput.py` times, in turn and several times, envpool alone and training
with each network, and prints medians and the ratio training / emulator. One row a figure
goes to benchmarks/results/throughput.csv. Nothing else should run on the machine.
"""

import argparse
from pathlib import Path

from results_table import Results

from a3cjax.config.settings import Config
from a3cjax.training.measuring import Training, emulator_rate

RESULTS = Path(__file__).parent / "results" / "throughput.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--networks", nargs="+", default=["atari_ff", "atari_gru", "nature_ff"])
    parser.add_argument("--num-actors", type=int, default=None, help="default: one for each core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    arguments = parser.parse_args()

    config = Config(env=arguments.game, num_actors=arguments.num_actors, warmup_steps=64)
    runs = {network: Training(config.replace(network=network)) for network in arguments.networks}
    settings = next(iter(runs.values())).config
    emulator = arguments.game, settings.num_actors, settings.envs_per_actor

    emulator_rates: list[float] = []
    rates: dict[str, list[float]] = {network: [] for network in runs}
    shares: dict[str, list[dict[str, float]]] = {network: [] for network in runs}
    for _ in range(arguments.rounds):
        emulator_rates.append(emulator_rate(*emulator, arguments.seconds))
        for network, run in runs.items():
            result = run.run(arguments.seconds)
            rates[network].append(result["steps_per_second"])
            shares[network].append(result)

    results = Results(RESULTS)
    results.add("emulator alone", emulator_rates, "steps/s")
    for network in runs:
        results.add(f"{network}: training", rates[network], "steps/s")
        ratios = [a / b for a, b in zip(rates[network], emulator_rates, strict=True)]
        results.add(f"{network}: training / emulator", ratios, "")
        for part in ("env", "act", "learn", "push", "wait", "hold"):
            values = [100 * share[part] for share in shares[network]]
            results.add(f"{network}: {part}", values, "% of time")
    results.write(
        f"{arguments.game}: {settings.num_actors} actors × {settings.envs_per_actor} "
        f"environments × {settings.unroll_length} steps"
    )
    for run in runs.values():
        run.close()


if __name__ == "__main__":
    main()
