"""Lays learning curves of runs over each other and over published ones.

`python experiments/plot.py results/pong-seed* --published Pong --output results/pong.png`
"""

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from a3cjax.config.settings import load_config
from a3cjax.runs.tables import read_columns

PUBLISHED = Path(__file__).parent.parent / "results" / "published" / "curves.csv"


def read_published(game: str) -> dict[str, tuple[list[float], list[float]]]:
    """Series name -> (million frames, mean return) of one game."""
    curves: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with PUBLISHED.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["game"] == game:
                frames, returns = curves[row["series"]]
                frames.append(float(row["num_frames"]) / 1e6)
                returns.append(float(row["mean_return"]))
    return dict(curves)


def plot(run_dirs: list[Path], game: str | None, output: Path) -> None:
    """Draws the mean training return over frames; published curves are dashed."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    last_frame = 0.0
    for run_dir in run_dirs:
        metrics = read_columns(run_dir / "metrics.csv")
        frames = [frame / 1e6 for frame in metrics["num_frames"]]
        label = f"a3cjax {run_dir.name} (seed {load_config(run_dir).seed})"
        axis.plot(frames, metrics["episode_return_mean"], linewidth=2, label=label)
        last_frame = max(last_frame, frames[-1])
    for name, (frames, returns) in sorted(read_published(game).items() if game else ()):
        shown = [(x, y) for x, y in zip(frames, returns, strict=True) if not math.isnan(y)]
        axis.plot(*zip(*shown, strict=True), "--", linewidth=1, alpha=0.8, label=name)
    axis.set_xlim(0, 1.5 * last_frame)
    axis.set_xlabel("million emulator frames")
    axis.set_ylabel("mean return of the last 100 training games")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.savefig(output, dpi=110)


def main() -> None:
    """Parses the command line and draws."""
    parser = argparse.ArgumentParser(description="Lays learning curves over each other.")
    parser.add_argument("run_dirs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--published", choices=["Pong", "Breakout"], help="lay published curves")
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args()
    for run_dir in arguments.run_dirs:
        if not (run_dir / "metrics.csv").is_file():
            parser.error(f"a run folder must hold metrics.csv, got {run_dir}.")
    plot(arguments.run_dirs, arguments.published, arguments.output)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
