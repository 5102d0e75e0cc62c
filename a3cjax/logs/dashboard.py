"""What a terminal shows of a run: the curve of returns, actor-learners, and other numbers."""

import datetime
import math
from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from a3cjax.runs.tables import TIME_PARTS, show_score

Row = Mapping[str, float]

# Those of the algorithms' own metrics that are shown, in this order.
LEARNING_METRICS = (
    *("policy_loss", "value_loss", "entropy", "explained_variance", "q_value", "epsilon"),
    "grad_norm",
)
# What is shown of an actor-learner: a header, the name in its row, and the format; "": a score.
ACTOR_COLUMNS = (
    ("actor", "actor", ".0f"),
    ("steps/s", "steps_per_second", ",.0f"),
    *((part, f"{part}_fraction", ".0%") for part in TIME_PARTS),
    ("lock", "lock_wait_fraction", ".1%"),
    ("stale", "staleness_mean", ".1f"),
    ("return", "episode_return_mean", ""),
    ("idle s", "idle_seconds", ",.0f"),
)
WORKER_COLUMNS = (
    *ACTOR_COLUMNS,
    ("dropped", "num_dropped_updates", ".0f"),
    ("restarts", "num_restarts", ".0f"),
)
"""Of a process with several of them: their shares of time, and means, are those of all."""
SILENT_ACTOR = {name: math.nan for _, name, _ in ACTOR_COLUMNS} | {
    "steps_per_second": 0.0,
    "num_dropped_updates": 0.0,
    "num_restarts": 0.0,
}
"""The row of one that has reported nothing yet."""
STALL_SECONDS = 10.0  # without an update: then it is marked; an update usually takes a second
NUM_INTERVALS = 10_000
LABEL_SIZE = 11  # of the highest and the lowest value beside the curve


class Curve:
    """Means of a quantity in `NUM_INTERVALS` equal parts of a run, drawn as wide as possible."""

    def __init__(self, total_frames: int):
        self._total_frames = total_frames
        self._sums_and_counts = np.zeros((2, NUM_INTERVALS))

    def add(self, num_frames: int, value: float) -> None:
        """Adds a value; one that comes after the last frame counts in the last interval."""
        index = min(num_frames * NUM_INTERVALS // self._total_frames, NUM_INTERVALS - 1)
        self._sums_and_counts[:, index] += (value, 1)

    def columns(self, size: int) -> np.ndarray:
        """The mean in each of `size` equal parts of the run up to the last value.

        A part to which nothing was added repeats the one before; NaN before the first value.
        """
        length = np.max(np.nonzero(self._sums_and_counts[1]), initial=0) + 1
        begins = np.arange(size) * length // size
        totals, counts = np.add.reduceat(self._sums_and_counts, begins, axis=1)
        newest = np.maximum.accumulate(np.where(counts > 0, np.arange(size), 0))
        return (totals / np.where(counts > 0, counts, math.nan))[newest]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws columns as high as their values; even the lowest one is visible."""
        values = self.columns(max(1, options.max_width - LABEL_SIZE - 1))
        values = np.where(np.isfinite(values), values, math.nan)
        if np.isnan(values).all():
            return
        levels = " .:#" if options.ascii_only else " ▁▂▃▄▅▆▇█"  # of a cell from empty to full
        low, high = np.nanmin(values), np.nanmax(values)
        steps, num_rows = len(levels) - 1, options.height or 1
        heights = 1 + np.round((values - low) / (high - low or 1.0) * (num_rows * steps - 1))
        labels = {0: f"{low:.5g}", num_rows - 1: f"{high:.5g}"}
        for row in reversed(range(num_rows)):
            sizes = np.clip(np.nan_to_num(heights) - row * steps, 0, steps).astype(int)
            label = f"{labels.get(row, ''):>{LABEL_SIZE}} "
            yield one_line((label, "dim"), ("".join(levels[size] for size in sizes), "cyan"))


def actor_lines(
    actors: Mapping[int, Row], num_actors: int, room: int, *, are_workers: bool = False
) -> Iterator[Table | Text]:
    """A header and a line for each actor-learner: all by index, or the slowest and a summary.

    `are_workers`: each line stands for a process with some of the actor-learners.
    """
    columns = WORKER_COLUMNS if are_workers else ACTOR_COLUMNS
    rows = [
        {**SILENT_ACTOR, "actor": index, **actors.get(index, {})} for index in range(num_actors)
    ]
    num_shown = len(rows)
    if len(rows) > room - 1:
        rows.sort(key=lambda row: (not is_stalled(row), row["steps_per_second"]))
        num_shown = max(0, room - 2)
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
    for header, _, _ in columns:
        header = "worker" if are_workers and header == "actor" else header
        table.add_column(header, justify="right", no_wrap=True, overflow="crop")
    for row in rows[:num_shown]:
        cells = (shown(row[name], form) for _, name, form in columns)
        table.add_row(*cells, style="bold red" if is_stalled(row) else None)
    yield table
    if rest := rows[num_shown:]:
        speeds = [row["steps_per_second"] for row in rest]
        yield one_line(
            f"{len(rest)} others: {min(speeds):,.0f} to {max(speeds):,.0f} steps/s, "
            f"{sum(map(is_stalled, rest))} stalled"
        )


def is_stalled(actor: Row) -> bool:
    """Whether an actor-learner has been without an update for too long."""
    return actor["idle_seconds"] >= STALL_SECONDS


def describe(row: Row, total_frames: int, *, is_first: bool = False) -> list[tuple[str, str]]:
    """Names and values to show; the time left assumes the present rate.

    The rate of the first row says nothing of it: most of that period was compilation.
    """
    frames_left = max(0.0, total_frames - row["num_frames"])
    rate = row["frames_per_second"]
    is_known = rate > 0 and not (is_first and frames_left)
    seconds_left = frames_left / rate if is_known else math.nan
    fields = [
        ("frames", f"{row['num_frames']:,.0f} / {total_frames:,}"),
        ("frames/s", f"{rate:,.0f}"),
        ("elapsed", clock(row["wall_seconds"])),
        ("left", clock(seconds_left)),
        ("updates", f"{row['num_updates']:,.0f}"),
        ("episodes", f"{row['num_episodes']:,.0f}"),
        ("return", shown(row["episode_return_mean"])),
        *((name.replace("_", " "), f"{row[name]:.4g}") for name in LEARNING_METRICS if name in row),
        ("staleness", f"{shown(row['staleness_mean'], '.2f')} (max {row['staleness_max']:.0f})"),
        ("lock wait", shown(row["lock_wait_fraction"], ".1%")),
    ]
    for name in ("refused_updates", "dropped_updates", "restarts"):
        if row[f"num_{name}"]:
            fields.append((name.replace("_", " "), f"{row[f'num_{name}']:.0f}"))
    return fields


def one_line(*parts: str | tuple[str, str]) -> Text:
    """Joins texts, or (text, style), cut where the window ends: without a …, which ASCII lacks."""
    return Text.assemble(*parts, no_wrap=True, overflow="crop")


def shown(value: float, form: str = "") -> str:
    """A number; a dash for NaN. Without a form it is a score."""
    if math.isnan(value):
        return "-"
    return format(value, form) if form else show_score(value)


def clock(seconds: float) -> str:
    """Seconds as `1:02:03`; `?` for NaN or more than any run takes."""
    return str(datetime.timedelta(seconds=round(seconds))) if seconds < 1e9 else "?"
