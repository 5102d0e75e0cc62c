"""Pictures of a run, drawn without a display, from whatever metrics its algorithm has."""

from pathlib import Path
from typing import Any

import numpy as np

from a3cjax.reports import figures
from a3cjax.runs.tables import CURVES, EPISODES, METRICS, Column, read_columns

# Metrics that describe the choice of actions, by a policy or among action values.
CHOICE_LABELS = {"entropy": "entropy (nats)", "q_value": "Q of the actions taken"}
MOST_IN_A_ROW = 4
RETURN = "episode_return_mean"


def plot_curves(run_dir: Path, title: str) -> Path | None:
    """Draws curves.png from metrics.csv and episodes.csv; None if there is nothing to draw.

    The returns are above; below are every metric whose name ends in `loss`, one that describes the
    choice of actions if there is any, and the rate.
    """
    metrics, _ = read_columns(run_dir / METRICS)
    episodes, _ = read_columns(run_dir / EPISODES)
    if "num_frames" not in metrics:
        return None
    x = drawable(metrics["num_frames"]) / 1e6
    unknown = np.full(len(x), np.nan)  # for what the file has no column
    labels = {name: name.replace("_", " ") for name in metrics if name.endswith("loss")}
    labels |= dict([pair for pair in CHOICE_LABELS.items() if pair[0] in metrics][:1])
    labels |= {"frames_per_second": "frames / s"}
    width = min(len(labels), MOST_IN_A_ROW)
    blanks = ["."] * (-len(labels) % width)
    panels = [*[RETURN] * width, *labels, *blanks]
    rows: list[Any] = [panels[start : start + width] for start in range(0, len(panels), width)]
    figure = figures.new_figure(12, 3.5 * len(rows))
    axes = figure.subplot_mosaic(rows)
    axes[RETURN].set_title(title, parse_math=False)
    if {"num_frames", "episode_return"} <= episodes.keys():
        games = drawable(episodes["num_frames"]) / 1e6, drawable(episodes["episode_return"])
        style = {"markersize": 3, "alpha": 0.35, "color": figures.LIGHT["muted"]}
        axes[RETURN].plot(*games, ".", label="single games", **style)
    labels |= {RETURN: "episode return"}
    for name, label in labels.items():
        values = drawable(metrics.get(name, unknown))
        if name.endswith("loss") and (values > 0).any() and not (values < 0).any():
            axes[name].set_yscale("log")
            values[values == 0] = np.nan
        axes[name].plot(x, values, label="mean of last 100")
        axes[name].set_ylabel(label)
        axes[name].set_xlabel("million frames")
        axes[name].grid(alpha=0.3)
    axes[RETURN].legend(loc="upper left")
    axes["frames_per_second"].set_ylim(bottom=0)
    path = run_dir / CURVES
    figures.png(figure, path)
    return path


def drawable(values: Column) -> Column:
    """The values that an axis can hold, NaN for the others."""
    return np.where(np.abs(values) < 1e300, values, np.nan)
