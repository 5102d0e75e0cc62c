"""The terminal: a view of the run that redraws itself, or a line now and then."""

import contextlib
import sys
from collections.abc import Mapping, Sequence

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import SegmentLines
from rich.table import Column, Table

from a3cjax.logs.dashboard import Curve, Row, actor_lines, describe, one_line
from a3cjax.runs.evaluation import Evaluation, describe_games
from a3cjax.runs.tables import EpisodeRow, show_score
from a3cjax.system.output import Lasting

MIN_CURVE_ROWS, MAX_CURVE_ROWS = 3, 6
MIN_TABLE_WIDTH = 30


class TerminalLogger:
    """On a terminal, a view that redraws itself; elsewhere (a pipe, TERM=dumb), plain lines.

    `period_seconds` says how often a row is wanted, `memory` the weight of earlier periods in it
    (see `MetricsWindow`), and `is_live` whether it is wanted even when nothing has happened.
    """

    def __init__(
        self,
        title: str,
        total_frames: int,
        *,
        num_actors: int = 1,
        are_workers: bool = False,
        console: Console | None = None,
    ):
        """Starts the view; without a `console`, on the standard output.

        `are_workers`: each line stands for a process of several actor-learners, not for one.
        """
        self._are_workers = are_workers
        self._console = console or make_console()
        self._console.file = Lasting(self._console.file)  # pyright: ignore[reportAttributeAccessIssue]
        self._title = title
        self._total_frames = total_frames
        self._num_actors = num_actors
        self._curve = Curve(total_frames)
        self._row: Row | None = None
        self._is_first_row = True
        self._actors: Mapping[int, Row] = {}
        # With FORCE_COLOR, Rich takes any file for a terminal, so the file itself is asked, too.
        self.is_live = self._console.is_interactive and self._console.file.isatty()
        self.period_seconds, self.memory = (1.0, 0.8) if self.is_live else (10.0, 0.0)
        self._size = self._console.size
        # Not Rich's own thread: it would draw four times a second, even if nothing changed.
        self._live = Live(self, console=self._console, auto_refresh=False)
        if self.is_live:
            self._live.start(refresh=True)
        else:
            self.print(title)

    def print(self, message: str) -> None:
        """Shows a line, above the view if there is one."""
        self._console.print(message, soft_wrap=True, markup=False)

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes in games for the curve of returns."""
        for episode in episodes:
            self._curve.add(episode.num_frames, episode.episode_return)

    def write_metrics(self, row: Row, actors: Mapping[int, Row] | None = None) -> None:
        """Shows the newest row and, where there is room, that of each actor-learner."""
        self._is_first_row = self._row is None or not self._row["num_updates"]
        self._row, self._actors = row, actors or {}
        if not self.is_live:
            fields = describe(row, self._total_frames, is_first=self._is_first_row)
            self.print("  ".join(f"{name} {value}" for name, value in fields))
            return
        if self._console.size != self._size:
            # What was drawn for another width is now broken, and nobody knows where it is.
            self._size = self._console.size
            self._console.clear()
        self._live.refresh()

    def close(self) -> None:
        """Leaves the last view on the screen."""
        with contextlib.suppress(Exception):
            self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The view; what does not fit is cut off at the bottom."""
        state = "" if self._actors else "  starting: random play, then compilation"
        yield one_line((self._title, "bold"), state)
        if self._row is None:
            return
        height = options.size.height - 2  # the last line stays free: writing to it may scroll
        gap = [""] if height > self._num_actors + 16 else []
        is_first = self._is_first_row
        (_, frames), *fields = describe(self._row, self._total_frames, is_first=is_first)
        percent = f"{min(1.0, self._row['num_frames'] / self._total_frames):.0%}"
        progress = Table.grid(Column(ratio=1), "", padding=(0, 2), expand=True)
        bar = ProgressBar(self._total_frames, self._row["num_frames"])
        progress.add_row(bar, one_line(f"{percent}  {frames} frames"))
        texts = [one_line((f"{name} ", "dim"), value) for name, value in fields]
        head = Group(progress, *gap, Columns(texts, (0, 3)), *gap)
        lines = console.render_lines(head, options, pad=False)
        num_rows = height - len(lines) - len(gap) - self._num_actors - 1
        for_curve = options.update_height(max(MIN_CURVE_ROWS, min(num_rows, MAX_CURVE_ROWS)))
        lines += console.render_lines(self._curve, for_curve, pad=False)
        room = height - len(lines) - len(gap)
        are_workers = self._are_workers
        shown = actor_lines(self._actors, self._num_actors, room, are_workers=are_workers)
        lines += console.render_lines(Group(*gap, *shown), options, pad=False)
        yield SegmentLines(lines[: max(0, height)], new_lines=True)


def make_console(least_width: int = 1) -> Console:
    """A console on the standard output, of this width at least: COLUMNS=0 would show nothing."""
    console = Console(highlight=False, emoji=False)
    if console.width < least_width:
        console.width = least_width
    return console


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a table of scores."""
    result = evaluation.as_dict()
    title = f"{describe_games(result)}, {result['actions']} actions"
    names = ("mean", "median", "standard_deviation", "min", "max")
    texts = [show_score(result[name]) for name in names]
    heads = [name.replace("_", " ") for name in names]
    console = make_console(MIN_TABLE_WIDTH)
    console.file = Lasting(sys.stdout)  # pyright: ignore[reportAttributeAccessIssue]
    console.print(fitting_table(console, title, heads, [texts]))


def fitting_table(
    console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    """A table of numbers below their heads, or beside them where the console is too narrow."""
    table = Table(*(Column(head, justify="right") for head in heads), title=title)
    for row in rows:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(width=1000)).minimum > console.width:
        columns = (Column(justify="right") for _ in rows)
        table = Table("", *columns, title=title, show_header=False)
        for turned in zip(heads, *rows, strict=True):
            table.add_row(*turned)
    return table
