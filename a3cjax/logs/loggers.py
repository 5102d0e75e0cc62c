"""Where metrics go: what a logger is, and the CSV files that every run leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
