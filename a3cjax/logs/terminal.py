"""The terminal: a view of the run that redraws itself, or a line now and then."""

import contextlib
from collections.abc import Mapping, Sequence

import rich
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from a3cjax.logs.dashboard import Dashboard, Row, describe
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.tables import EpisodeRow


class TerminalLogger:
    """On a terminal, a view that redraws itself; elsewhere (a pipe, TERM=dumb), plain lines.

    `period_seconds` tells how often a row is wanted, `memory` the weight of earlier periods in
    it (see `MetricsWindow`), `is_live` whether it is wanted when nothing has happened, too.
    """

    def __init__(
        self,
        title: str,
        total_frames: int,
        *,
        num_actors: int = 1,
        console: Console | None = None,
    ):
        """Starts the view; without a `console`, on the standard output."""
        self._console = console or Console(highlight=False)
        self._dashboard = Dashboard(self._encodable(title), total_frames, num_actors)
        # FORCE_COLOR makes a terminal of a file in Rich's eyes: what follows asks the file itself.
        self.is_live = self._console.is_interactive and self._console.file.isatty()
        self.period_seconds, self.memory = (1.0, 0.8) if self.is_live else (10.0, 0.0)
        self._live: Live | None = None
        if self.is_live:
            # Not Rich's own thread: it would draw four times a second, whether anything changed.
            self._live = Live(self._dashboard, console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
            self._size = self._console.size
        else:
            self.print(title)

    def print(self, message: str) -> None:
        """Shows a line, above the view if there is one."""
        self._console.print(self._encodable(message), soft_wrap=True, markup=False)

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes in games for the curve of returns."""
        self._dashboard.add_episodes(episodes)

    def write_metrics(self, row: Row, actors: Mapping[int, Row] | None = None) -> None:
        """Shows the newest row, and where there is room for it that of each actor-learner."""
        if self._live is None:
            total_frames = self._dashboard.total_frames
            fields = [("frames", f"{row['num_frames']:,.0f} / {total_frames:,}")]
            fields += describe(row, total_frames)
            self.print("  ".join(f"{name} {value}" for name, value in fields))
            return
        if self._console.size != self._size:
            # What was drawn for another width lies broken on the screen: nobody knows where.
            self._size = self._console.size
            self._console.clear()
        self._dashboard.row, self._dashboard.actors = row, actors or {}
        self._live.refresh()

    def close(self) -> None:
        """Leaves the last view on the screen."""
        if self._live is not None:
            with contextlib.suppress(Exception):
                self._live.stop()

    def _encodable(self, text: str) -> str:
        """The text with a question mark for each letter that the terminal has not."""
        encoding = self._console.encoding
        return text.encode(encoding, "replace").decode(encoding)


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a table of scores."""
    result = evaluation.as_dict()
    title = f"{result['num_episodes']} full games, {result['actions']} actions"
    names = ("mean", "median", "standard_deviation", "min", "max")
    table = Table(*(Column(name.replace("_", " "), justify="right") for name in names), title=title)
    table.add_row(*(f"{result[name]:.2f}" for name in names))
    rich.print(table)
