"""The log of a run: takes the actors' reports in and writes rows when they are due."""

import queue
import time
from collections.abc import Sequence

from a3cjax.actor_learner import UpdateReport
from a3cjax.loggers import Logger, TerminalLogger
from a3cjax.metrics import EpisodeRow, MetricsWindow


class Journal:
    """Files get a row every `period_frames`; the terminal one by the clock.

    Used by the main thread alone; `reports.put` is what the actors call.
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        terminal: TerminalLogger,
        *,
        num_frames: int,
        period_frames: int,
        began: float,
    ):
        """`num_frames` is where the run stands, `began` the monotonic time of its start."""
        self.reports: queue.SimpleQueue[UpdateReport] = queue.SimpleQueue()
        self._loggers = loggers
        self._terminal = terminal
        self._period_frames = period_frames
        self._began = began
        self._num_frames = self._row_frames = num_frames
        self._num_updates = 0
        self._for_files, self._for_terminal = MetricsWindow(), MetricsWindow()
        self._file_time = self._terminal_time = time.monotonic()

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 training episodes; NaN before the first."""
        return self._for_files.mean_return

    def write(self, *, is_last: bool = False) -> None:
        """Takes in what the actors reported, and writes the rows that are due."""
        episodes = self._take_in()
        if episodes:
            for logger in self._loggers:
                logger.write_episodes(episodes)
        now = time.monotonic()
        frames_since = self._num_frames - self._row_frames
        if frames_since >= self._period_frames or (is_last and frames_since):
            row = self._pop_row(self._for_files, now - self._file_time)
            self._row_frames, self._file_time = self._num_frames, now
            for logger in self._loggers:
                logger.write_metrics(row)
        seconds = now - self._terminal_time
        is_due = is_last or seconds >= self._terminal.period_seconds
        if is_due and self._for_terminal.num_updates:
            self._terminal.write_metrics(self._pop_row(self._for_terminal, seconds))
            self._terminal_time = now

    def _take_in(self) -> list[EpisodeRow]:
        episodes = []
        # As many as there are now: fast actors must not keep the caller here.
        for _ in range(self.reports.qsize()):
            report = self.reports.get()
            self._num_frames += report.num_frames
            self._num_updates += 1
            self._for_files.add(report)
            self._for_terminal.add(report)
            wall_seconds = round(time.monotonic() - self._began, 3)
            episodes += [
                EpisodeRow(
                    self._num_frames,
                    wall_seconds,
                    report.actor_index,
                    episode.episode_return,
                    episode.episode_length,
                )
                for episode in report.episodes
            ]
        return episodes

    def _pop_row(self, window: MetricsWindow, seconds: float) -> dict[str, float]:
        return window.pop_row(
            num_frames=self._num_frames,
            num_updates=self._num_updates,
            wall_seconds=time.monotonic() - self._began,
            seconds=seconds,
        )
