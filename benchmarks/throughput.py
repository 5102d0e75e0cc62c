"""How much of the emulator's speed is left when an agent learns, alone or beside another checkout.

`python benchmarks/throughput.py` times, in turn and several times, envpool alone and training
in each case. It prints medians, the ratio training / emulator, CPU time for a step, where an
actor's time goes, and staleness. One row per figure goes to benchmarks/results/throughput.csv.

`--against ../before` times the a3cjax of another checkout, such as a worktree of the commit before,
in turn with this one, each in a process of its own; ratios new / old are taken within each round.
Processes of the same code differ by some percent for as long as they live, so each is started anew
several times. Nothing else should run on the machine; where something does, CPU time for a step
says more than steps a second.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkouts import Checkout, open_checkouts
from results_table import Results

from a3cjax.config.settings import Config
from a3cjax.system import machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# The emulator's pools have as many environments as the default of two cores, whatever is trained.
ENVS_PER_POOL = 8
# What is trained; random play and its length make no difference to what follows.
CASES: dict[str, dict[str, str]] = {
    "atari_ff": {"network": "atari_ff", "warmup_steps": "64"},
    "atari_gru": {"network": "atari_gru", "warmup_steps": "64"},
    "nature_ff": {"network": "nature_ff", "warmup_steps": "64"},
    "paper": {"preset": "paper"},
    "CartPole": {"env": "CartPole", "warmup_steps": "64"},
}
SHARES = ("env", "act", "learn", "push", "wait", "hold")

Measurement = Mapping[str, Any]  # what `TimedTraining.measure` returns


class Rounds:
    """What was measured: lists with an entry for each round.

    `emulator` has the steps a second of each environment; `trained` has, for each case, a list for
    each checkout.
    """

    def __init__(self, cases: Mapping[str, Mapping[str, str]], num_checkouts: int):
        self._cases = cases
        self._num_rounds = 0
        self.emulator: dict[str, list[float]] = {env_of(case): [] for case in cases.values()}
        self.trained: dict[str, list[list[Measurement]]] = {
            name: [[] for _ in range(num_checkouts)] for name in cases
        }

    def measure(self, checkouts: Sequence[Checkout], seconds: float) -> None:
        """Measures one round: the emulator by the first checkout, every case by all in turn.

        Which checkout comes first changes from round to round.
        """
        shape = (machine.available_cores(), ENVS_PER_POOL)
        for env, rates in self.emulator.items():
            rates.append(checkouts[0].emulator_rate(env, *shape, seconds))
        order = list(range(len(checkouts)))
        if self._num_rounds % 2:
            order.reverse()
        for name, settings in self._cases.items():
            for index in order:
                measurement = checkouts[index].train(settings, seconds)
                self.trained[name][index].append(measurement)
        self._num_rounds += 1


def env_of(settings: Mapping[str, str]) -> str:
    """The environment of a case."""
    return settings.get("env", Config.env)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of the two in each round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def add_case(
    results: Results, name: str, emulator_rates: Sequence[float], rows: Sequence[Measurement]
) -> None:
    """Adds the figures of one case of one checkout."""
    rates = [row["steps_per_second"] for row in rows]
    results.add(f"{name}: training", rates, "steps/s")
    results.add(f"{name}: training / emulator", ratios(rates, emulator_rates), "")
    results.add(f"{name}: CPU time", [row["core_ms"] for row in rows], "core-ms a step")
    for part in SHARES:
        results.add(f"{name}: {part}", [100 * row[part] for row in rows], "% of time")
    lock = [100 * (row["wait"] + row["hold"]) for row in rows]
    results.add(f"{name}: lock", lock, "% of time")
    medians = [statistics.median(row["staleness"]) for row in rows]
    results.add(f"{name}: staleness, median", medians, "updates")
    largest = [max(row["staleness"]) for row in rows]
    results.add(f"{name}: staleness, maximum", largest, "updates")


def add_comparison(
    results: Results, name: str, old: str, new_rows: Sequence[Measurement], old_rows: Sequence
) -> None:
    """Adds and prints the ratios new / old of each round; `old` is a commit."""
    for key, figure in (("steps_per_second", "training"), ("core_ms", "CPU time")):
        values = ratios([row[key] for row in new_rows], [row[key] for row in old_rows])
        figure = f"{name}: {figure} / that of {old}"
        median = results.add(figure, values, "")
        print(f"{figure}: {median:.3f} ({' '.join(f'{value:.3f}' for value in values)})")


def shorten(commit: str) -> str:
    """The first seven digits of a commit, with a `+` if files were changed."""
    return commit[:7] + "+" * commit.endswith("+changes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", metavar="CASE", choices=CASES, default=list(CASES))
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="folder of an older one")
    parser.add_argument("--processes", type=int, default=3, help="of each checkout, in sequence")
    parser.add_argument("--rounds", type=int, default=2, help="of each process")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--results", type=Path, help="CSV file; /dev/null: none")
    parser.add_argument("--settings", nargs="+", default=[], help="of all cases, as num_actors=1")
    arguments = parser.parse_args()

    more = dict(setting.split("=", 1) for setting in arguments.settings)
    cases = {name: CASES[name] | more for name in arguments.cases}
    folders = [ROOT] if arguments.against is None else [ROOT, arguments.against]
    rounds = Rounds(cases, len(folders))
    commits: list[str] = []
    for _ in range(arguments.processes):
        with open_checkouts(folders) as checkouts:
            commits = [checkout.commit for checkout in checkouts]
            for _ in range(arguments.rounds):
                rounds.measure(checkouts, arguments.seconds)

    default = "throughput.csv" if arguments.against is None else "against.csv"
    results = Results(arguments.results or RESULTS / default)
    for env, rates in rounds.emulator.items():
        results.add(f"emulator alone, {env}", rates, "steps/s")
    shapes = []
    for name, of_checkouts in rounds.trained.items():
        rates = rounds.emulator[env_of(cases[name])]
        add_case(results, name, rates, of_checkouts[0])
        if arguments.against is not None:
            old = shorten(commits[1])
            add_case(results, f"{name} of {old}", rates, of_checkouts[1])
            add_comparison(results, name, old, *of_checkouts)
        shapes.append(f"{name} {' × '.join(map(str, of_checkouts[0][0]['shape']))}")
    title = f"actors × environments × steps: {', '.join(shapes)}"
    results.write(title)


if __name__ == "__main__":
    main()
