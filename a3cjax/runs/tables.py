"""What lies in a run folder, by name, and how its tables are written and read again.

Cells hold numbers or plain words: nothing is quoted. A run that is killed may leave its last
line cut short: readers leave out such a line, and any other that is damaged.
"""

import csv
import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from a3cjax.config.settings import CONFIG_FILE as CONFIG_FILE
from a3cjax.system.files import replace_file

METRICS, EPISODES, EVALUATIONS = "metrics.csv", "episodes.csv", "evaluations.csv"
SUMMARY, TRACKING = "summary.json", "tracking.json"
CURVES, BAD_TRAJECTORY = "curves.png", "bad-trajectory.npz"
PLAY = "play"  # .mp4 and .gif

Column = npt.NDArray[np.float64]

TIME_PARTS = ("env", "act", "learn", "push")
"""What an actor-learner's time goes into: metrics.csv has a `…_fraction` of each."""
RETURN_WINDOW = 100  # episodes over which metrics.csv takes the mean training return


class EpisodeRow(NamedTuple):
    """A line of episodes.csv."""

    num_frames: int
    wall_seconds: float
    actor: int
    episode_return: float
    episode_length: int


def append_rows(
    path: Path, rows: Iterable[Mapping[str, float | str]], columns: Collection[str]
) -> None:
    """Appends rows to a CSV file: fractions with six significant digits, else as they are.

    The file's own columns hold, `columns` are those of a new one. What it has no column for is
    left out: a newer version may know more than the one that began the run.
    """
    with path.open("a+", newline="") as file:
        file.seek(0)
        known = next(csv.reader(file), [])
        writer = csv.DictWriter(file, known or columns, extrasaction="ignore", lineterminator="\n")
        if not known:
            writer.writeheader()
        writer.writerows({name: _shorten(value) for name, value in row.items()} for row in rows)


def cut_logs(run_dir: Path, num_frames: int) -> None:
    """Drops what the CSV files of a run say of later frames, and what is damaged in them.

    What was written after the checkpoint that a run resumes from will be written again.
    """
    for path in (run_dir / METRICS, run_dir / EPISODES, run_dir / EVALUATIONS):
        rows, _ = read_rows(path)
        kept = [row for row in rows if int(row["num_frames"]) <= num_frames]
        lines = [kept[0], *(row.values() for row in kept)] if kept else []
        if path.exists():
            replace_file(path, "".join(",".join(cells) + "\n" for cells in lines))


def read_rows(path: Path) -> tuple[list[dict[str, str]], int]:
    """The whole lines of a CSV file as column -> cell, and how many are not; no file, no lines."""
    if not path.exists():
        return [], 0
    with path.open(newline="", errors="replace") as file:
        lines = [line if line.endswith("\n") else "" for line in file]
    rows = list(csv.DictReader(filter(None, lines), quoting=csv.QUOTE_NONE))
    # The csv module gives what is too much the name None, and what is missing that value.
    whole = [row for row in rows if None not in row and None not in row.values()]
    return whole, len(rows) - len(whole) + lines.count("")


def read_columns(path: Path, wanted: Collection[str] = ()) -> tuple[dict[str, Column], int]:
    """Name -> column of numbers, NaN where a cell is empty, and how many lines are damaged.

    Without `wanted`, all columns are read.
    """
    rows, num_damaged = read_rows(path)
    names = [name for name in (rows[0] if rows else ()) if not wanted or name in wanted]
    lines = []
    for row in rows:
        try:
            lines.append([float(row[name] or math.nan) for name in names])
        except ValueError:
            num_damaged += 1
    columns = np.array(lines, float).reshape(len(lines), len(names)).T
    return dict(zip(names, columns, strict=True)), num_damaged


def read_episodes(path: Path) -> list[EpisodeRow]:
    """The games of an episodes.csv; none if there is no such file."""
    columns, _ = read_columns(path)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [EpisodeRow(int(f), seconds, int(a), score, int(n)) for f, seconds, a, score, n in rows]


def _shorten(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds by name; None if it is not there, or holds nothing of the kind."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError, OSError):
        return None
    return content if isinstance(content, dict) else None


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What summary.json holds by name; nothing before a run has ended for the first time."""
    return read_json(run_dir / SUMMARY) or {}
