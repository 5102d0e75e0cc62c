"""Lines to draw: seeds as median and spread, the runs behind them, and published curves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from a3cjax.reports.groups import Group
from a3cjax.reports.published import Curve, published_curves
from a3cjax.reports.runs import Run
from a3cjax.runs.tables import Column

NUM_POINTS = 240
# Published curves go on for hundreds of millions of frames: shown up to this many times ours.
SHOWN_OF_PUBLISHED = 1.5


class Band(NamedTuple):
    """Seeds of one group on a common grid: `x`, median, lowest and highest, all `[P]`."""

    x: Column
    median: Column
    low: Column
    high: Column


class Line(NamedTuple):
    """A group's curves: each seed over its full length, and the band as far as all seeds reach.

    A seed without a finished game has no curve of returns, and is not among the seeds.
    """

    label: str
    seeds: tuple[tuple[Column, Column], ...]
    band: Band | None


class Panel(NamedTuple):
    """What one set of axes shows; `levels` are horizontal lines, name -> y."""

    x_label: str
    lines: tuple[Line, ...]
    published: tuple[Curve, ...]
    evaluations: tuple[tuple[int, Column, Column], ...]
    levels: dict[str, float]
    x_max: float


def make_band(seeds: Sequence[tuple[Column, Column]]) -> Band | None:
    """Median and spread of curves, where all of them are known; None if there is no such place.

    Args:
      seeds: (x, y) for each seed, x increasing, both `[n]`; n may differ between seeds.
    """
    if not seeds or any(len(x) == 0 for x, _ in seeds):
        return None
    start, end = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    if end < start:
        return None
    grid = np.linspace(start, end, NUM_POINTS if end > start else 1)
    values = np.stack([np.interp(grid, x, y) for x, y in seeds])
    return Band(grid, np.median(values, axis=0), values.min(axis=0), values.max(axis=0))


def return_panels(groups: Sequence[Group], *, show_published: bool) -> list[Panel]:
    """The mean training return of one game's groups, over frames and over wall-clock time."""
    env = groups[0].env
    algorithms = {run.algorithm for group in groups for run in group.runs}
    longest = max(_last(run.training_curve[1]) for group in groups for run in group.runs)
    unit, name = (3600.0, "hours") if longest > 5400 else (60.0, "minutes")
    over_frames, over_time = [], []
    if show_published:
        over_frames = published_curves(env, algorithms, "frames")
        over_time = [
            curve._replace(x=curve.x * 3600 / unit)
            for curve in published_curves(env, algorithms, "hours")
        ]
    return [
        _panel(groups, "million frames", over_frames, "num_frames", 1e6),
        _panel(groups, name, over_time, "wall_seconds", unit),
    ]


def speed_panels(groups: Sequence[Group]) -> list[Panel]:
    """Frames a second and staleness of all runs, over frames."""
    return [
        Panel(
            x_label="million frames",
            lines=tuple(
                Line(
                    f"{group.env}, {group.label}",
                    tuple(_whole_periods(run, name) for run in group.runs),
                    None,
                )
                for group in groups
            ),
            published=(),
            evaluations=(),
            levels={},
            x_max=max(_last(run.column("num_frames")) for g in groups for run in g.runs) / 1e6,
        )
        for name in ("frames_per_second", "staleness_mean")
    ]


def _panel(
    groups: Sequence[Group],
    x_label: str,
    curves: Sequence[Curve],
    x_name: str,
    unit: float,
) -> Panel:
    lines, evaluations = [], []
    for index, group in enumerate(groups):
        curves_of_seeds = (_training_curve(run, x_name, unit) for run in group.runs)
        seeds = tuple(seed for seed in curves_of_seeds if len(seed[0]))
        lines.append(Line(group.label, seeds, make_band(seeds)))
        for run in group.runs:
            if "mean" in run.evaluations and x_name in run.evaluations:
                x = run.evaluations[x_name] / unit
                evaluations.append((index, x, run.evaluations["mean"]))
    longest = max((_last(x) for line in lines for x, _ in line.seeds), default=0.0)
    x_max = longest * (SHOWN_OF_PUBLISHED if curves else 1.02)
    atari = groups[0].atari
    levels = {"human": atari.human, "random": atari.random} if atari else {}
    shown = tuple(_cut(curve, x_max) for curve in curves if len(curve.x) and curve.x[0] < x_max)
    return Panel(x_label, tuple(lines), shown, tuple(evaluations), levels, x_max)


def _cut(curve: Curve, x_max: float) -> Curve:
    """The part up to `x_max`: what lies beyond would still stretch the y axis."""
    if curve.x[-1] <= x_max:
        return curve
    is_shown = curve.x < x_max
    end = np.interp(x_max, curve.x, curve.y)
    return curve._replace(
        x=np.append(curve.x[is_shown], x_max), y=np.append(curve.y[is_shown], end)
    )


def _whole_periods(run: Run, name: str) -> tuple[Column, Column]:
    """A column over frames, without the shorter period that ends a run or a part of it."""
    frames = run.column("num_frames")
    lengths = np.diff(frames, prepend=0)
    is_whole = lengths > 0.5 * np.median(lengths) if len(frames) else np.zeros(0, bool)
    return frames[is_whole] / 1e6, run.column(name)[is_whole]


def _training_curve(run: Run, x_name: str, unit: float) -> tuple[Column, Column]:
    frames, seconds, returns = run.training_curve
    return (frames if x_name == "num_frames" else seconds) / unit, returns


def _last(column: Column) -> float:
    return float(column[-1]) if len(column) else 0.0
