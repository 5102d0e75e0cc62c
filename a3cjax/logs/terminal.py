"""The terminal: a view of the run that redraws itself, or a line now and then."""

import contextlib
from collections.abc import Mapping, Sequence

import rich.console
import rich.live
import rich.table
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from a3cjax.logs.dashboard import (
    ASCII,
    BLOCKS,
    COLOURLESS_BLOCKS,
    Dashboard,
    Glyphs,
    learning_fields,
    speed_fields,
)
from a3cjax.logs.metrics import ActorRow
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
        console: rich.console.Console | None = None,
    ):
        """Starts the view; without a `console`, on the standard output."""
        self._console = console or rich.console.Console(highlight=False)
        self._total_frames = total_frames
        self._dashboard = Dashboard(self._encodable(title), total_frames, num_actors)
        # FORCE_COLOR makes a terminal of a file in Rich's eyes: what follows asks the file itself.
        self.is_live = self._console.is_interactive and self._console.file.isatty()
        self.period_seconds, self.memory = (1.0, 0.8) if self.is_live else (10.0, 0.0)
        self._size = self._console.size
        self._live: rich.live.Live | None = None
        if self.is_live:
            # Not Rich's own thread: it would draw four times a second, whether anything changed.
            self._live = rich.live.Live(console=self._console, auto_refresh=False)
            self._live.start()
            starting = Text(f"{self._encodable(title)}  starting: random play, then compilation")
            self._draw([starting])
        else:
            self.print(title)

    def print(self, message: str) -> None:
        """Shows a line, above the view if there is one."""
        self._console.print(self._encodable(message), soft_wrap=True, markup=False)

    def write_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes in games for the curve of returns."""
        self._dashboard.add_episodes(episodes)

    def write_metrics(self, row: Mapping[str, float], actors: Sequence[ActorRow] = ()) -> None:
        """Shows the newest row, and where there is room for it that of each actor-learner."""
        if self._live is None:
            fields = [
                ("frames", f"{row['num_frames']:,.0f} / {self._total_frames:,}"),
                *speed_fields(row, self._total_frames),
                ("return", f"{row['episode_return_mean']:.2f}"),
                *learning_fields(row),
            ]
            self.print("  ".join(f"{name} {value}" for name, value in fields))
            return
        width, height = self._console.size
        # The last line stays free: a window may scroll when it is written to.
        self._draw(self._dashboard.lines(row, actors, width, height - 1, self._glyphs()))

    def close(self) -> None:
        """Leaves the last view on the screen."""
        if self._live is not None:
            with contextlib.suppress(Exception):
                self._live.stop()

    def _draw(self, lines: Sequence[Text]) -> None:
        assert self._live is not None
        if self._console.size != self._size:
            # What was drawn for another width lies broken on the screen: nobody knows where.
            self._size = self._console.size
            self._console.control(Control(ControlType.HOME, ControlType.CLEAR))
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)

    def _glyphs(self) -> Glyphs:
        if self._console.options.ascii_only:
            return ASCII
        has_colour = self._console.color_system is not None and not self._console.no_color
        return BLOCKS if has_colour else COLOURLESS_BLOCKS

    def _encodable(self, text: str) -> str:
        """The text with a question mark for each letter that the terminal has not."""
        encoding = self._console.encoding
        return text.encode(encoding, "replace").decode(encoding)


def print_evaluation(evaluation: Evaluation, console: rich.console.Console | None = None) -> None:
    """Prints a table of scores."""
    result = evaluation.as_dict()
    names = ("mean", "median", "standard_deviation", "min", "max")
    columns = (rich.table.Column(name.replace("_", " "), justify="right") for name in names)
    title = f"{result['num_episodes']} full games, {result['actions']} actions"
    table = rich.table.Table(*columns, title=title)
    table.add_row(*(f"{result[name]:.2f}" for name in names))
    (console or rich.console.Console(highlight=False)).print(table)
