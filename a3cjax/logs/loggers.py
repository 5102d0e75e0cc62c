"""Where metrics go: what a logger is, and the CSV files that every run leaves."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from a3cjax.logs.metrics import EpisodeRow


class Logger(Protocol):
    """Takes rows of metrics and finished episodes, from the main thread.

    What it raises ends the run, after a last checkpoint.
    """

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Takes one logging period's row."""
        ...

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes the games finished since the last call."""
        ...

    def write_evaluation(self, num_frames: int, score: float) -> None:
        """Takes the mean score of an evaluation of the parameters of this frame."""
        ...

    def close(self, *, has_failed: bool = False) -> None:
        """Flushes and frees what is open, at the end of a run that may have failed."""
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

    def write_evaluation(self, num_frames: int, score: float) -> None:
        """Does nothing: evaluations.csv, which the run writes, has every game's score."""

    def close(self, *, has_failed: bool = False) -> None:
        """Closes both files."""
        del has_failed
        self._metrics_file.close()
        self._episodes_file.close()


def _open_csv(path: Path) -> tuple[IO[str], list[str]]:
    """A file to append to, and its columns: none if it is new."""
    columns: list[str] = []
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file), [])
    return path.open("a", newline=""), columns


def _shorten(value: float) -> str:
    """Six significant digits for fractions; whole numbers as they are."""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def read_episodes(path: Path) -> list[EpisodeRow]:
    """The games of an episodes.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            EpisodeRow(
                int(row["num_frames"]),
                float(row["wall_seconds"]),
                int(row["actor"]),
                float(row["episode_return"]),
                int(row["episode_length"]),
            )
            for row in csv.DictReader(file)
        ]
