"""What lies in a run folder, by name, and how its tables are written and read again.

Cells hold numbers or plain words: nothing is quoted. A run that is killed may leave its last
line cut short: readers leave out such a line, and any other that is damaged.
"""

import csv
import json
import math
import re
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from a3cjax.config.reading import CONFIG_FILE as CONFIG_FILE
from a3cjax.config.reading import as_of_today as as_of_today
from a3cjax.config.reading import read_config_file as read_config_file
from a3cjax.errors import ConfigError, OutputError
from a3cjax.system.files import replace_file
from a3cjax.system.output import warn

METRICS, EPISODES, EVALUATIONS = "metrics.csv", "episodes.csv", "evaluations.csv"
SUMMARY, TRACKING = "summary.json", "tracking.json"
ENVIRONMENT_FILE = "environment.json"
CURVES, BAD_TRAJECTORY = "curves.png", "bad-trajectory.npz"
PLAY = "play"  # .mp4 and .gif

Column = npt.NDArray[np.float64]

TIME_PARTS = ("env", "act", "learn", "push")
"""What an actor-learner's time goes into: metrics.csv has a `…_fraction` of each."""
RETURN_WINDOW = 100  # episodes over which metrics.csv takes the mean training return
MAX_COUNT = 10**15  # frames of the longest run that there can be
MAX_NESTING, MAX_BYTES = 20, 10**8  # of a JSON file; ours have four levels and at most 1 MB


class EpisodeRow(NamedTuple):
    """A line of episodes.csv."""

    num_frames: int
    wall_seconds: float
    actor: int
    episode_return: float
    episode_length: int


COLUMNS = {
    METRICS: (
        *("num_frames", "num_updates", "wall_seconds", "frames_per_second", "steps_per_second"),
        *("num_episodes", "episode_return_mean"),
    ),
    EPISODES: EpisodeRow._fields,
    EVALUATIONS: (
        *("num_frames", "wall_seconds", "actions", "num_episodes", "mean", "median"),
        *("standard_deviation", "min", "max", "scores"),
    ),
}
"""Those that each log has, of whatever algorithm and version; it may have others."""


def append_rows(
    path: Path, rows: Iterable[Mapping[str, float | str]], columns: Collection[str]
) -> None:
    """Append rows to a CSV file: fractions with six significant digits, all else as it is.

    A file keeps its columns; `columns` are those of a new file. Values that have no column are
    left out: a newer version may know more than the one that began the run.

    Raises:
      OutputError: if its folder is gone.
    """
    try:
        file = path.open("a+", encoding="utf-8", newline="", errors="replace")
    except FileNotFoundError as error:
        raise OutputError(
            f"the run folder {path.parent} was moved or removed while the run went on; what was "
            "saved since then lies in a new folder of that name."
        ) from error
    with file:
        file.seek(0)
        known = _cells(file.readline())
        writer = csv.DictWriter(file, known or columns, extrasaction="ignore", lineterminator="\n")
        if not known:
            writer.writeheader()
        writer.writerows({name: shorten(value) for name, value in row.items()} for row in rows)


def cut_logs(run_dir: Path, num_frames: int) -> None:
    """Drop the lines of later frames, and the damaged ones, from the CSV files of a run.

    What was written after the checkpoint that a run resumes from will be written again. A
    warning says what is damaged; a file without a sound line or header is moved aside.

    Raises:
      ConfigError: if a file cannot be read.
    """
    for path in (run_dir / METRICS, run_dir / EPISODES, run_dir / EVALUATIONS):
        names, rows, num_damaged, _ = _read_lines(path)
        frames = [frames_of(row) for row in rows]
        num_damaged += frames.count(-1)
        lacks_column = bool(names) and not set(names) >= set(COLUMNS[path.name])
        if lacks_column or (num_damaged and max(frames, default=-1) < 0):
            aside = path.with_name(f"discarded-{time.time_ns()}-{path.name}")
            path.rename(aside)
            warn(f"{path} is damaged: it begins anew, and is now {aside.name}.")
            continue
        if num_damaged:
            warn(f"{path} is damaged in {num_damaged} of its lines, which are left out.")
        kept = [row for row, n in zip(rows, frames, strict=True) if 0 <= n <= num_frames]
        lines = [kept[0], *(row.values() for row in kept)] if kept else []
        if path.exists():
            replace_file(path, "".join(",".join(cells) + "\n" for cells in lines))


def frames_of(row: Mapping[str, str]) -> int:
    """The number of frames that a row gives; −1 if it gives none."""
    text = row.get("num_frames", "")
    return int(text) if re.fullmatch(r"[0-9]{1,16}", text) else -1


def read_rows(path: Path) -> tuple[list[dict[str, str]], int]:
    """The whole lines of a CSV file as column -> cell, and how many others it has.

    A file that does not exist has no lines.

    Raises:
      ConfigError: if it is no file, or cannot be opened.
    """
    _, rows, num_damaged, is_cut_short = _read_lines(path)
    return rows, num_damaged + is_cut_short


def _read_lines(path: Path) -> tuple[list[str], list[dict[str, str]], int, bool]:
    """As `read_rows`, after the columns; a last line that a kill cut short is told separately."""
    try:
        if not path.exists():
            return [], [], 0, False
        if not path.is_file():  # a pipe may never end
            raise OSError("it is no file")
        # Other programs may have put a byte order mark before it.
        with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            lines = file.readlines()
    except OSError as error:
        raise ConfigError(f"{path} must be a table that can be read, got {error}.") from error
    is_cut_short = bool(lines) and not lines[-1].endswith("\n")
    cells = map(_cells, lines[: len(lines) - is_cut_short])
    names, *rows = list(filter(None, cells)) or [[]]
    whole = [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
    return names, whole, len(rows) - len(whole), is_cut_short


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
    columns, _ = read_columns(path, EpisodeRow._fields)
    if columns.keys() != set(EpisodeRow._fields):
        return []
    rows = zip(*(columns[name].tolist() for name in EpisodeRow._fields), strict=True)
    return [
        EpisodeRow(int(f), seconds, int(a), score, int(n))
        for f, seconds, a, score, n in rows
        if 0 <= f <= MAX_COUNT and 0 <= a <= MAX_COUNT and 0 <= n <= MAX_COUNT
    ]


def _cells(line: str) -> list[str]:
    """The cells of a line; nothing is quoted in our tables."""
    text = line.rstrip("\r\n")
    return text.split(",") if text else []


def shorten(value: float | str, form: str = ".6g") -> str:
    """A value as a cell: whole numbers have all their digits, fractions this form ("": all)."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else format(float(value), form)


def show_score(value: float) -> str:
    """A score or return: two decimals, or four digits where these would hide it or be too long."""
    return format(value, ".2f" if value == 0 or 0.1 <= abs(value) < 1e9 else ".4g")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, as a dict; None if there is no file or it holds no object."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:  # a pipe may never end
            return None
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None
    level: list[Any] = [content]
    for _ in range(MAX_NESTING):
        inner = [part for part in level if isinstance(part, dict | list)]
        level = [x for part in inner for x in (part.values() if type(part) is dict else part)]
    return content if isinstance(content, dict) and not level else None


def check_no_run(name: str, folder: Path) -> None:
    """Refuse a folder for results, given by the setting `name`, that is a run's own.

    Raises:
      ConfigError: if it holds a run.
    """
    if (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{name} must not be the folder of a run, got {folder}.")


def check_budget(run_dir: Path, total_frames: int, num_frames: Any) -> None:
    """Refuse a smaller budget for a run than its own, if its `num_frames` have used that up.

    What is no number, in files that somebody has changed, is refused elsewhere.

    Raises:
      ConfigError: names the folder and its frames.
    """
    budget = read_config_file(run_dir).get("total_frames")
    if type(budget) is not int or type(num_frames) is not int:
        return
    if total_frames < min(budget, num_frames):
        raise ConfigError(
            f"total_frames must be more than the {num_frames:,} that {run_dir} has had, "
            f"got {total_frames:,}."
        )


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What summary.json holds by name; nothing before a run has ended for the first time."""
    return read_json(run_dir / SUMMARY) or {}
