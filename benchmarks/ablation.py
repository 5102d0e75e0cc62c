"""What single deviations from the paper are worth in Pong: one picture.

`python benchmarks/ablation.py` draws the defaults of Pong and, for each deviation, the same with
that one taken back to the paper's choice; and one change that the paper does not have. A line is
the median of seeds 61 to 63, its band their span. The script reads `results/pong-seeds.csv`, whose
points are means of the training games that ended in the 200,000 frames before each.
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from a3cjax.reports import figures
from a3cjax.reports.curves import Line, Panel, make_band
from a3cjax.runs.tables import Column

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "results" / "pong-seeds.csv"
PICTURE = ROOT / "results" / "pong-ablation.png"
SEEDS = ("61", "62", "63")
DEFAULTS = "decay=0.99 unroll_length=20"  # what they are now, in the words of the table
CHANGES = {
    "normalised advantages, other costs": (
        "normalize_advantages=true entropy_cost=0.02 value_cost=2"
    ),
    "RMSProp, learning rate 7·10⁻⁴, instead of Adam": "optimizer=rmsprop learning_rate=0.0007",
    "pixels from 0 to 1, not centred": "centre_observations=false",
    "unrolls of 5 steps instead of 20": "unroll_length=5",
    "n-step returns (λ = 1 instead of 0.95)": "lambda_=1",
}
MEAN_AT, MILLION = "mean_at_", "M"  # around the frames in the names of columns
UNTIL = 2.6  # million frames, which all but the defaults were stopped at


def read_line(label: str, changed: str, path: Path = ROWS) -> Line:
    """The seeds that were trained with these changes.

    Raises:
      ValueError: if one of them has no row.
    """
    with path.open(newline="") as file:
        first = {}  # of a seed; what was run again is not mixed in
        for row in csv.DictReader(file):
            if row["changed"] == changed:
                first.setdefault(row["seed"], row)
    missing = [seed for seed in SEEDS if seed not in first]
    if missing:
        raise ValueError(f"{path} has no row of `{changed}` with seed {', '.join(missing)}.")
    seeds = tuple(_curve(first[seed]) for seed in SEEDS)
    return Line(label, seeds, make_band(seeds))


def _curve(row: Mapping[str, str]) -> tuple[Column, Column]:
    """Million frames and mean returns, `[n]` each, as far as the run came."""
    points = [
        (float(name.removeprefix(MEAN_AT).removesuffix(MILLION)), float(mean))
        for name, mean in row.items()
        if name.startswith(MEAN_AT) and mean
    ]
    x, y = np.array([point for point in points if point[0] <= UNTIL]).T
    return x, y


def draw(lines: tuple[Line, ...], path: Path) -> None:
    """Draw the lines with their names beside them."""
    figure = figures.new_figure(10.5, 4.2)
    axis = figure.subplots()
    panel = Panel("million frames", lines, (), (), {}, UNTIL)
    figures.draw_panel(axis, panel, figures.LIGHT)
    axis.set_ylabel("mean return of recent games", color=figures.LIGHT["muted"])
    axis.set_title("Pong: one change at a time", color=figures.LIGHT["ink"])
    handles = [
        Line2D([], [], color=figures.LIGHT[figures.series_role(index)], linewidth=2.2)
        for index in range(len(lines))
    ]
    axis.legend(
        handles,
        [line.label for line in lines],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        fontsize=figures.FONT_SIZE,
        frameon=False,
    )
    figures.png(figure, path)


def main() -> None:
    """Draw the picture, and print the last mean of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=PICTURE, help="the picture, a PNG")
    output = parser.parse_args().output
    lines = [read_line("defaults of Pong", DEFAULTS)]
    lines += [read_line(label, f"{DEFAULTS} {changed}") for label, changed in CHANGES.items()]
    draw(tuple(lines), output)
    for line in lines:
        ends = ", ".join(f"{y[-1]:.1f} at {x[-1]:.1f}M" for x, y in line.seeds)
        print(f"{line.label}: {ends}")


if __name__ == "__main__":
    main()
