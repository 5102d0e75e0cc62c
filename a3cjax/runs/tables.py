"""The CSV files of a run folder: how they are read, and cut back where a run goes on."""

import csv
import math
from pathlib import Path

from a3cjax.system.files import replace_file


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


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_columns(path: Path) -> dict[str, list[float]]:
    """A CSV file of numbers as name -> column; empty cells are NaN."""
    rows = read_table(path)
    names = rows[0].keys() if rows else []
    return {name: [float(row[name] or math.nan) for row in rows] for name in names}


def read_column(path: Path, name: str) -> list[float]:
    """The numbers of one column of a CSV file; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]
