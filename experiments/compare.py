"""Lays algorithms over each other and over the paper's own curves, in frames and in hours.

`python experiments/compare.py results/pong-* --game Pong --output results/pong-methods.png`

Runs of one algorithm count as its seeds: the line is their median, the band goes from the
lowest to the highest. Beside the picture lies a table with the same name and the suffix .md.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from a3cjax.config.settings import load_config
from a3cjax.errors import ConfigError
from a3cjax.runs.tables import read_columns, read_table

PUBLISHED = Path(__file__).parent.parent / "results" / "published" / "paper_methods.csv"
COLORS = {
    "a3c": "tab:blue",
    "n_step_q": "tab:orange",
    "one_step_q": "tab:green",
    "one_step_sarsa": "tab:red",
    "DQN": "tab:gray",
}
NUM_POINTS = 200


class Run(NamedTuple):
    """The learning curve of a run folder, with what a table says of it."""

    algorithm: str
    seed: int
    frames: np.ndarray
    hours: np.ndarray
    returns: np.ndarray
    evaluation: float | None
    best: float


def read_run(run_dir: Path) -> Run:
    """Reads a run folder; the curve is the mean of the last 100 training games."""
    config = load_config(run_dir)
    metrics = {
        name: np.array(column) for name, column in read_columns(run_dir / "metrics.csv").items()
    }
    is_known = ~np.isnan(metrics["episode_return_mean"])
    summary = run_dir / "summary.json"
    result = json.loads(summary.read_text())["evaluation"] if summary.is_file() else None
    returns = metrics["episode_return_mean"][is_known]
    return Run(
        config.algorithm,
        config.seed,
        metrics["num_frames"][is_known] / 1e6,
        metrics["wall_seconds"][is_known] / 3600,
        returns,
        result["mean"] if result else None,
        float(returns.max()),
    )


def draw_runs(axis: Axes, runs: list[Run], x_kind: str) -> None:
    """One line and band for each algorithm, as far as all its seeds go."""
    by_algorithm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_algorithm[run.algorithm].append(run)
    for algorithm, seeds in by_algorithm.items():
        xs = np.linspace(0, min(getattr(run, x_kind)[-1] for run in seeds), NUM_POINTS)
        ys = np.stack([np.interp(xs, getattr(run, x_kind), run.returns) for run in seeds])
        label = f"a3cjax {algorithm}" + (f", {len(seeds)} seeds" if len(seeds) > 1 else "")
        color = COLORS.get(algorithm)
        axis.plot(xs, np.median(ys, axis=0), linewidth=2, color=color, label=label)
        if len(seeds) > 1:
            axis.fill_between(xs, ys.min(axis=0), ys.max(axis=0), alpha=0.2, color=color)


def draw_published(axis: Axes, game: str, x_kind: str) -> None:
    """The paper's curves, dashed; its hours are those of 16 cores."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_table(PUBLISHED):
        if row["game"] == game and row["x_kind"] == x_kind:
            x = float(row["x"]) / (1e6 if x_kind == "frames" else 1)
            curves[row["algorithm"]].append((x, float(row["score"])))
    for algorithm, points in curves.items():
        label = f"paper {algorithm}"
        axis.plot(*zip(*points, strict=True), "--", color=COLORS[algorithm], label=label)


def draw(runs: list[Run], game: str | None, output: Path) -> None:
    """Draws both panels; x goes a little further than the longest run."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    labels = {"frames": "million emulator frames", "hours": "hours"}
    for axis, (x_kind, label) in zip(
        figure.subplots(1, 2, sharey=True), labels.items(), strict=True
    ):
        draw_runs(axis, runs, x_kind)
        if game is not None:
            draw_published(axis, game, x_kind)
        axis.set_xlim(0, 1.5 * max(getattr(run, x_kind)[-1] for run in runs))
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.axes[0].set_ylabel("mean return of the last 100 training games")
    figure.savefig(output, dpi=110)


def make_table(runs: list[Run]) -> str:
    """A row for each run, in Markdown."""
    lines = [
        "| algorithm | seed | million frames | hours | final evaluation | best of 100 games |",
        "|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=lambda run: (run.algorithm, run.seed)):
        evaluation = "" if run.evaluation is None else f"{run.evaluation:.1f}"
        lines.append(
            f"| `{run.algorithm}` | {run.seed} | {run.frames[-1]:.1f} | {run.hours[-1]:.2f} "
            f"| {evaluation} | {run.best:.1f} |"
        )
    finals: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.evaluation is not None:
            finals[run.algorithm].append(run.evaluation)
    for algorithm, scores in finals.items():
        if len(scores) > 1:
            lines.append(f"| `{algorithm}`, median | | | | {statistics.median(scores):.1f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parses the command line, draws, writes and prints the table."""
    parser = argparse.ArgumentParser(description="Lays algorithms over each other.")
    parser.add_argument("run_dirs", type=Path, nargs="+", help="run folders")
    games = sorted({row["game"] for row in read_table(PUBLISHED)})
    parser.add_argument("--game", choices=games, help="lay the paper's curves of this game")
    parser.add_argument("--output", type=Path, default=Path("comparison.png"))
    arguments = parser.parse_args()
    try:
        runs = [read_run(run_dir) for run_dir in arguments.run_dirs]
    except (FileNotFoundError, ConfigError) as error:
        parser.error(str(error))
    draw(runs, arguments.game, arguments.output)
    table = make_table(runs)
    arguments.output.with_suffix(".md").write_text(table)
    print(table)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
