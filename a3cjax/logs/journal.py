"""The log of a run: takes in the actors' reports and writes rows when they are due."""

import collections
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass

from a3cjax.actors.reports import Lost, Report, Reports, Restarted, UpdateReport
from a3cjax.logs.loggers import Logger
from a3cjax.logs.metrics import MetricsWindow
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.runs.tables import EpisodeRow
from a3cjax.system.files import same_folder

SETTLE_SECONDS = 2.0  # an actor reports within milliseconds of its push, if it still lives
ACTOR_RETURN_WINDOW = 10  # episodes over which the mean return of one actor-learner is taken


class BadUpdatesError(FloatingPointError):
    """Too many gradients in a row were not finite; `report` is the last one's."""

    def __init__(self, report: UpdateReport, count: int):
        numbers = ", ".join(f"{name} {value:g}" for name, value in report.metrics.items())
        super().__init__(
            f"{count} updates in a row were refused, because loss, gradient or new parameters "
            f"were NaN or infinite; the last is of actor {report.actor_index} after "
            f"{report.run_frames} frames: {numbers}."
        )
        self.report = report


@dataclass
class Journal:
    """Writes a row to the files every `period_frames`, and one to the terminal by the clock.

    Updates are taken in by version, whatever the order in which actors report them: what the files
    hold up to a number of frames is what the parameters at that number were learned from. Versions
    may be missing once they are reported as `Lost`. A dropped update comes after the version that
    it found. Used by the thread of the run alone.
    """

    reports: Reports  # what the actors report is put here
    loggers: Sequence[Logger]  # of the files
    terminal: TerminalLogger  # for people
    _: KW_ONLY
    num_frames: int  # emulator frames so far
    num_updates: int = 0  # so far
    past_returns: InitVar[Sequence[float]] = ()  # scores of all episodes so far
    period_frames: int  # between rows of the files
    max_bad_updates: int  # refused in a row before `write` raises
    tell: Callable[[UpdateReport, list[EpisodeRow]], object] = lambda report, episodes: None
    """Told of each update that was taken in, and the games that ended in it, in their order."""
    line_of: Callable[[int], int] = lambda actor_index: actor_index
    """The line of the terminal that an actor-learner counts to."""
    began: float  # monotonic time of the run's start, less a resumed run's earlier seconds

    def __post_init__(self, past_returns: Sequence[float]):
        self._early: dict[int, UpdateReport | Lost] = {}
        self._dropped: list[UpdateReport] = []
        self._frames_told = 0  # random play may follow the last update
        self._num_bad_in_a_row = 0
        self._bad_updates: list[BadUpdatesError] = []  # raised when all else is written
        self._row_frames = self.num_frames
        memory = self.terminal.memory
        self._for_files = MetricsWindow(past_returns)
        self._for_terminal = MetricsWindow(past_returns, memory)
        self._for_actors: dict[int, MetricsWindow] = collections.defaultdict(
            lambda: MetricsWindow((), memory, num_episodes=ACTOR_RETURN_WINDOW)
        )
        self._file_time = self._terminal_time = time.monotonic()

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 training episodes; NaN before the first."""
        return self._for_files.mean_return

    def write(self) -> None:
        """Takes in what the actors reported, and writes the rows that are due.

        Raises:
          BadUpdatesError: if `max_bad_updates` in a row were refused.
        """
        self._receive()
        if self.num_frames - self._row_frames >= self.period_frames:
            self._write_file_row()
        self._write_terminal_row(is_due=False)
        if self._bad_updates:
            raise self._bad_updates.pop()

    def write_up_to(self, num_updates: int) -> None:
        """Writes all updates up to this one and none beyond, then a row of metrics.

        Call it before the parameters of that version are saved. It gives up on an update
        whose actor does not report it within two seconds.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            self._receive(last=num_updates)
            if self.num_updates >= num_updates or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        self._write_file_row()

    def finish(self) -> None:
        """Writes what is left at the end of the run, when no actor works any more."""
        self._receive()
        self._take_in([self._early.pop(version) for version in sorted(self._early)])
        self._take_in_dropped()
        self.num_frames = max(self.num_frames, self._frames_told)
        if not self._for_files.is_empty:  # what was dropped or refused may have cost no frames
            self._row_frames = -1
        self._write_file_row()
        self._write_terminal_row(is_due=True)
        if self._bad_updates:
            raise self._bad_updates.pop()

    def _receive(self, last: float = math.inf) -> None:
        """Takes in the updates that continue the sequence without a gap, up to version `last`."""
        # As many as there are now: fast actors must not keep the caller here.
        for _ in range(self.reports.qsize()):
            self._sort_in(self.reports.get())
        reports = []
        while (version := self.num_updates + len(reports) + 1) in self._early and version <= last:
            reports.append(self._early.pop(version))
        self._take_in(reports)
        if self._dropped:
            self._take_in_dropped(self.num_updates)

    def _sort_in(self, report: Report) -> None:
        if isinstance(report, Restarted):
            windows = [self._for_files, self._for_terminal]
            windows += [] if report.line is None else [self._for_actors[report.line]]
            for window in windows:
                window.add_restart()
            return
        if isinstance(report, Lost):
            self._frames_told = max(self._frames_told, report.run_frames)
            unheard = [version for version in report.versions if version > self.num_updates]
            self._early = dict.fromkeys(unheard, report) | self._early
            return
        if report.bad_trajectory is None:
            self._num_bad_in_a_row = 0
            if report.is_dropped:
                self._dropped.append(report)
            elif report.is_pooled or report.version <= self.num_updates:
                self._take_in([report])
            else:
                self._early[report.version] = report
            return
        self._num_bad_in_a_row += 1
        self._take_in([report])
        if self._num_bad_in_a_row == 1:
            self.terminal.print(
                f"Actor {report.actor_index}: an update that is not finite was refused."
            )
        if self._num_bad_in_a_row == self.max_bad_updates:
            self._bad_updates.append(BadUpdatesError(report, self._num_bad_in_a_row))

    def _take_in_dropped(self, last: float = math.inf) -> None:
        """Takes in the updates dropped up to version `last`, in the order of their frames."""
        due = [report for report in self._dropped if report.version <= last]
        self._dropped = [report for report in self._dropped if report.version > last]
        due.sort(key=lambda report: report.run_frames)
        self._take_in(due)

    def _take_in(self, reports: Sequence[UpdateReport | Lost]) -> None:
        """Takes in reports in this order; each `Lost` in the list stands for one version."""
        rows: list[tuple[UpdateReport, list[EpisodeRow]]] = []
        for report in reports:
            if isinstance(report, Lost):
                self.num_updates += 1
                self.num_frames = max(self.num_frames, report.run_frames)
                continue
            for_actor = self._for_actors[self.line_of(report.actor_index)]
            for window in (self._for_files, self._for_terminal, for_actor):
                window.add(report)
            if report.is_applied:
                self.num_updates = max(self.num_updates, report.version)
            if report.is_applied or report.is_dropped:
                self.num_frames = max(self.num_frames, report.run_frames)
            seconds = round(time.monotonic() - self.began, 3)
            where = self.num_frames, seconds, report.actor_index
            episodes = [
                EpisodeRow(*where, game.episode_return, game.episode_length)
                for game in report.episodes
            ]
            rows.append((report, episodes))
        if episodes := [episode for _, own in rows for episode in own]:
            for logger in (*self.loggers, self.terminal):
                with same_folder():  # people's own may change it
                    logger.write_episodes(list(episodes))
        for report, own in rows:  # at the very end: `tell` may raise, and so end the run
            self.tell(report, own)

    def _write_file_row(self) -> None:
        if self.num_frames == self._row_frames:
            return
        now = time.monotonic()
        row = self._pop_row(self._for_files, now - self._file_time)
        self._row_frames, self._file_time = self.num_frames, now
        for logger in self.loggers:
            with same_folder():
                logger.write_metrics(dict(row))

    def _write_terminal_row(self, *, is_due: bool) -> None:
        now = time.monotonic()
        seconds = now - self._terminal_time
        is_due = is_due or seconds >= self.terminal.period_seconds
        if is_due and (self._for_terminal.num_updates or self.terminal.is_live):
            row = self._pop_row(self._for_terminal, seconds)
            actors = {
                index: self._pop_row(window, seconds)
                | {
                    "idle_seconds": window.idle_seconds,
                    "num_dropped_updates": window.dropped_in_all,
                    "num_restarts": window.restarts_in_all,
                }
                for index, window in self._for_actors.items()
            }
            self.terminal.write_metrics(row, actors)
            self._terminal_time = now

    def _pop_row(self, window: MetricsWindow, seconds: float) -> dict[str, float]:
        return {
            "num_frames": self.num_frames,
            "num_updates": self.num_updates,
            "wall_seconds": round(time.monotonic() - self.began, 3),
            **window.pop_row(seconds),
        }
