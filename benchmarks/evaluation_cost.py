"""What evaluating during training costs.

`python benchmarks/evaluation_cost.py` trains in turn without evaluations, with one of 30 games
every 200,000 frames, and with one after another without a pause, and prints frames per second
and their ratios. One row a figure goes to benchmarks/results/evaluation_cost.csv. Nothing else
should run on the machine.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from results_table import Results

RUN = Path(__file__).parent.parent / "experiments" / "run.py"
RESULTS = Path(__file__).parent / "results" / "evaluation_cost.csv"
# Frames until the programs are compiled and the first evaluation has begun.
NUM_SETTLING_FRAMES = 100_000


def frames_per_second(arguments: list[str], total_frames: int, run_dir: Path) -> float:
    """Emulator frames a second of a run, between settling and its end."""
    settings = [
        *arguments,
        f"total_frames={total_frames}",
        f"log_period_frames={NUM_SETTLING_FRAMES // 4}",
        f"run_dir={run_dir}",
    ]
    subprocess.run([sys.executable, str(RUN), *settings], stdout=subprocess.DEVNULL, check=True)
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = [
            (int(row["num_frames"]), float(row["wall_seconds"])) for row in csv.DictReader(file)
        ]
    start_frames, start_seconds = next(row for row in rows if row[0] >= NUM_SETTLING_FRAMES)
    end_frames, end_seconds = rows[-1]
    return (end_frames - start_frames) / (end_seconds - start_seconds)


def main() -> None:
    """Parses the command line, measures in turn, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--total-frames", type=int, default=500_000)
    arguments = parser.parse_args()
    game = [f"env={arguments.game}"]
    kinds = {
        "without": [*game, "eval_episodes=0"],
        "every 200,000 frames": [*game, "eval_period_frames=200000"],
        "without a pause": [*game, "eval_period_frames=1"],
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.rounds):
            for number, (kind, settings) in enumerate(kinds.items()):
                run_dir = Path(folder) / f"{index}-{number}"
                rates[kind].append(frames_per_second(settings, arguments.total_frames, run_dir))
    results = Results(RESULTS)
    for kind in kinds:
        results.add(f"{kind}: training", rates[kind], "frames/s")
        ratios = [a / b for a, b in zip(rates[kind], rates["without"], strict=True)]
        results.add(f"{kind}: share of the speed without", ratios, "")
    results.write(f"{arguments.game}, 30 games an evaluation")


if __name__ == "__main__":
    main()
