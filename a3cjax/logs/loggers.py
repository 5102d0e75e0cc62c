"""Where metrics go: what a logger is, and the CSV files that every run leaves."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a3cjax.runs.tables import EPISODES, METRICS, EpisodeRow, append_rows


class Logger:
    """Takes rows of metrics, finished episodes and scores, from the thread of the run.

    A subclass overrides the methods that it needs; the others do nothing. An exception that it
    raises ends the run, after a last checkpoint.
    """

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Takes one logging period's row."""

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes the games finished since the last call."""

    def write_evaluation(self, num_frames: int, score: float) -> None:
        """Takes the mean score of an evaluation of the parameters at `num_frames`."""

    def close(self, *, has_failed: bool = False) -> None:
        """Flushes and frees what is open, at the end of a run that may have failed."""


class UntilItFails(Logger):
    """A logger of somebody's own, which is not written to any more once that has failed."""

    def __init__(self, logger: Logger):
        self._logger, self._has_failed = logger, False

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """As the logger's own."""
        self._write(self._logger.write_metrics, row)

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """As the logger's own."""
        self._write(self._logger.write_episodes, episodes)

    def write_evaluation(self, num_frames: int, score: float) -> None:
        """As the logger's own."""
        self._write(self._logger.write_evaluation, num_frames, score)

    def close(self, *, has_failed: bool = False) -> None:
        """As the logger's own."""
        self._logger.close(has_failed=has_failed)

    def _write(self, write: Callable[..., None], *values: Any) -> None:
        if not self._has_failed:
            self._has_failed = True
            write(*values)
            self._has_failed = False


class CsvLogger(Logger):
    """Writes metrics.csv, whose columns are those of its first row, and episodes.csv.

    Each is open only while it is written to: no row waits in memory. evaluations.csv, with the
    score of every game, is written by the run.
    """

    def __init__(self, run_dir: Path):
        """Continues the files of a resumed run."""
        self._metrics, self._episodes = run_dir / METRICS, run_dir / EPISODES
        self._metrics.touch()
        self.write_episodes([])

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Appends a row."""
        append_rows(self._metrics, [row], row)

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Appends a line for each game."""
        rows = (episode._asdict() for episode in episodes)
        append_rows(self._episodes, rows, EpisodeRow._fields)
