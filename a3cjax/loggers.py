"""Where metrics go: CSV, TensorBoard and the terminal. All are written by the main thread."""

import contextlib
import csv
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import rich.console
import rich.live
import rich.table
import rich.text
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # protobuf makes these at run time
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar

from a3cjax.evaluation import Evaluation
from a3cjax.files import replace_file
from a3cjax.metrics import EpisodeRow


class Logger(Protocol):
    """Takes rows of metrics and finished episodes."""

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Takes one logging period's row."""
        ...

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes the games finished since the last call."""
        ...

    def close(self) -> None:
        """Flushes and frees what is open."""
        ...


class CsvLogger:
    """Writes metrics.csv and episodes.csv, flushed at every row."""

    def __init__(self, run_dir: Path):
        """Appends to the files of a resumed run."""
        self._metrics_file, columns = _open_csv(run_dir / "metrics.csv")
        self._metrics = csv.DictWriter(self._metrics_file, columns) if columns else None
        self._episodes_file, columns = _open_csv(run_dir / "episodes.csv")
        self._episodes = csv.writer(self._episodes_file)
        if not columns:
            self._episodes.writerow(EpisodeRow._fields)

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Appends a row; the first one also fixes the columns."""
        if self._metrics is None:
            self._metrics = csv.DictWriter(self._metrics_file, row.keys())
            self._metrics.writeheader()
        self._metrics.writerow({name: _shorten(value) for name, value in row.items()})
        self._metrics_file.flush()

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Appends a line for each game."""
        self._episodes.writerows([_shorten(value) for value in episode] for episode in episodes)
        self._episodes_file.flush()

    def close(self) -> None:
        """Closes both files."""
        self._metrics_file.close()
        self._episodes_file.close()


def _open_csv(path: Path) -> tuple[IO[str], list[str]]:
    """A file to append to, and its columns: none if it is new."""
    columns: list[str] = []
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file), [])
    return path.open("a", newline=""), columns


def cut_csv(path: Path, num_frames: int) -> None:
    """Drops what a CSV file says of later frames, and a line that was cut short.

    What was written after the checkpoint that a run resumes from will be written again.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *lines = file.read().split("\n")[:-1] or [""]
    column = header.split(",").index("num_frames") if header else 0
    kept = [
        line
        for line in lines
        if line.count(",") == header.count(",") and int(line.split(",")[column]) <= num_frames
    ]
    replace_file(path, "".join(f"{line}\n" for line in (header, *kept) if line))


class TensorBoardLogger:
    """Writes TensorBoard events into the run folder; the step is the number of frames."""

    def __init__(self, run_dir: Path, first_frame: int = 0):
        """Earlier events of a resumed run count up to `first_frame`."""
        # Not SummaryWriter: its thread dies of a full disk and lets its callers wait for ever.
        suffix = f".{first_frame}" if first_frame else ""
        self._writer = EventsWriter(str(run_dir / "events"), suffix)
        if first_frame:  # what the run had written of later frames is not to be shown
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=first_frame + 1, session_log=start))

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Writes every metric as a scalar `train/<name>`."""
        for name, value in row.items():
            if name != "num_frames" and not math.isnan(value):
                self._write(f"train/{name}", value, int(row["num_frames"]))
        self._writer.flush()

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Writes each game's return and length."""
        for episode in episodes:
            for name in ("episode_return", "episode_length"):
                value = getattr(episode, name)
                self._write(f"episodes/{name}", value, episode.num_frames)
        self._writer.flush()

    def _write(self, tag: str, value: float, num_frames: int) -> None:
        event = Event(wall_time=time.time(), step=num_frames, summary=scalar(tag, value))
        self._writer.write_event(event)

    def close(self) -> None:
        """Flushes the events."""
        self._writer.close()


# Of the algorithms' own metrics, in the order in which the terminal shows them.
LEARNING_METRICS = ("policy_loss", "value_loss", "entropy", "q_value", "epsilon", "grad_norm")


class TerminalLogger:
    """A table that redraws itself on a terminal, plain lines elsewhere.

    `period_seconds` tells how often a row is wanted.
    """

    def __init__(self, title: str, total_frames: int, stream: Any = None):
        self._title = title
        self._total_frames = total_frames
        self._console = rich.console.Console(file=stream or sys.stdout, highlight=False)
        self._live: rich.live.Live | None = None
        if self._console.is_terminal:
            starting = rich.text.Text(f"{title}  starting: random play, then compilation")
            self._live = rich.live.Live(starting, console=self._console, refresh_per_second=4)
            self._live.start(refresh=True)
        else:
            self.print(title)
        self.period_seconds = 1.0 if self._console.is_terminal else 10.0

    def print(self, message: str) -> None:
        """Shows a line, above the table if there is one."""
        self._console.print(message, soft_wrap=True, markup=False)

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Shows the newest row."""
        if self._live is not None:
            self._live.update(self._table(row))
        else:
            self.print("  ".join(f"{name} {value}" for name, value in self._cells(row)))

    def close(self) -> None:
        """Leaves the last table on the screen."""
        if self._live is not None:
            with contextlib.suppress(Exception):
                self._live.stop()

    def _cells(self, row: Mapping[str, float]) -> list[tuple[str, str]]:
        frames_left = max(0.0, self._total_frames - row["num_frames"])
        rate = row["frames_per_second"]
        seconds_left = frames_left / rate if rate > 0 else math.nan
        return [
            ("frames", f"{row['num_frames']:,.0f} / {self._total_frames:,}"),
            ("frames/s", f"{rate:,.0f}"),
            ("left", format_seconds(seconds_left)),
            ("return", f"{row['episode_return_mean']:.2f}"),
            *((name, f"{row[name]:.4g}") for name in LEARNING_METRICS if name in row),
            ("staleness", f"{row['staleness_mean']:.2f}"),
        ]

    def _table(self, row: Mapping[str, float]) -> rich.table.Table:
        table = rich.table.Table(title=self._title, show_header=False, min_width=40)
        table.add_column(style="bold")
        table.add_column(justify="right")
        labels = {
            "left": "time left",
            "return": "mean return, last 100 episodes",
            "staleness": "staleness (updates)",
        }
        for name, value in self._cells(row):
            table.add_row(labels.get(name, name.replace("_", " ")), value)
        parts = (
            f"{part} {row[f'{part}_fraction']:.0%}" for part in ("env", "act", "learn", "push")
        )
        table.add_row("time of the actors", "  ".join(parts))
        return table


def format_seconds(seconds: float) -> str:
    """Seconds as `1:02:03`, or `?` for NaN."""
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _shorten(value: float) -> str:
    """Six significant digits for fractions; whole numbers as they are."""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def print_evaluation(evaluation: Evaluation, stream: Any = None) -> None:
    """Prints a table of scores."""
    result = evaluation.as_dict()
    table = rich.table.Table(
        title=f"{result['num_episodes']} full games, {result['actions']} actions"
    )
    for name in ("mean", "median", "standard_deviation", "min", "max"):
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(
        *(f"{result[name]:.2f}" for name in ("mean", "median", "standard_deviation", "min", "max"))
    )
    rich.console.Console(file=stream or sys.stdout, highlight=False).print(table)
