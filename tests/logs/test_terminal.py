import io
import math
import sys

import pyte
import pytest
from rich.console import Console, ConsoleDimensions

from a3cjax.envs.base import Episode
from a3cjax.logs.metrics import MetricsWindow
from a3cjax.logs.terminal import TerminalLogger, fitting_table, print_evaluation
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.tables import EpisodeRow
from tests.cases import for_each
from tests.fakes import make_row

COLOURS = {"TERM": "xterm-256color"}


class Terminal(io.TextIOWrapper):
    """What a program takes for a terminal; `text` is all that it wrote."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, newline="", write_through=True)

    def isatty(self):
        return True

    @property
    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


class Window:
    """A TerminalLogger before a terminal emulator's window."""

    def __init__(self, width=80, height=24, *, environment=COLOURS, encoding="utf-8", **settings):
        self.stream = Terminal(encoding)
        self.console = Console(
            file=self.stream, width=width, height=height, highlight=False, _environ=environment
        )
        self.screen = pyte.HistoryScreen(width, height)
        self._emulator, self._num_fed = pyte.Stream(self.screen), 0
        settings = {"title": "Pong  runs/Pong/1", "total_frames": 4_000_000} | settings
        self.logger = TerminalLogger(console=self.console, **settings)

    def lines(self):
        """What is to be seen now, without blanks at the right."""
        text = self.stream.text.replace("\n", "\r\n")  # as the driver of a terminal does
        self._emulator.feed(text[self._num_fed :])
        self._num_fed = len(text)
        return [line.rstrip() for line in self.screen.display]

    def resize(self, width, height):
        self.lines()  # what was drawn before belongs to the old window
        self.console.size = ConsoleDimensions(width, height)
        self.screen.resize(height, width)

    def show(self, num_frames=400_000, actors=None, **changes):
        self.logger.write_metrics(make_row(num_frames, **changes), actors or make_actors(1))
        return self.lines()


def make_actors(num_actors, **changes):
    row = make_row(lock_wait_fraction=0.005, staleness_mean=1.25, idle_seconds=0.0)
    return {
        index: {**row, "steps_per_second": 400.0 + index, **changes} for index in range(num_actors)
    }


def learning_curve(logger, num_episodes=400):
    """Returns that rise from -20 to 20."""
    logger.write_episodes(
        [
            EpisodeRow(1000 * index, 0.0, index % 2, -20.0 + 40.0 * index / (num_episodes - 1), 9)
            for index in range(num_episodes)
        ]
    )


def line_with(lines, text):
    (line,) = (line for line in lines if text in line)
    return line


# Plain lines.


def plain(stream=None, **settings):
    console = Console(file=stream or io.StringIO(), highlight=False, _environ={}, width=80)
    settings = {"title": "Pong", "total_frames": 4_000_000} | settings
    return TerminalLogger(console=console, **settings), console.file


def test_plain_lines_where_there_is_no_terminal():
    logger, stream = plain()
    logger.write_episodes([EpisodeRow(400, 1.5, 0, 21.0, 900)])
    logger.write_metrics(make_row(1_000, frames_per_second=5.0), make_actors(1))
    logger.write_metrics(make_row(400_000, frames_per_second=1000.0), make_actors(1))
    logger.close()
    title, first, line = stream.getvalue().splitlines()
    assert title == "Pong"
    assert "\x1b" not in line
    assert "frames 400,000 / 4,000,000" in line
    assert "frames/s 1,000" in line
    assert "left ?" in first  # whose period held the compilation
    assert "left 1:00:00" in line  # 3.6 million frames at 1,000 a second
    assert "return 12.50" in line
    assert "policy loss -0.5  value loss 2  entropy 1.5  grad norm 3  staleness" in line


def test_plain_lines_show_the_metrics_that_the_algorithm_has():
    logger, stream = plain()
    row = make_row(grad_norm=0.00012345)
    for name in ("policy_loss", "entropy"):
        del row[name]
    logger.write_metrics({**row, "epsilon": 0.25, "q_value": 1234.5})
    expected = "value loss 2  q value 1234  epsilon 0.25  grad norm 0.0001234  staleness"
    assert expected in stream.getvalue()


def test_frames_beyond_the_budget_leave_no_time():
    logger, stream = plain(total_frames=1000)
    logger.write_metrics(make_row(20_000))
    assert "left 0:00:00" in stream.getvalue()


@for_each(
    ("stream", "environment", "is_live"),
    [
        (Terminal, COLOURS, True),
        (Terminal, {"TERM": "dumb"}, False),
        (Terminal, {**COLOURS, "TTY_INTERACTIVE": "0"}, False),
        (io.StringIO, COLOURS, False),
        (io.StringIO, {**COLOURS, "FORCE_COLOR": "1"}, False),
    ],
)
def test_the_view_is_for_terminals_that_can_move_a_cursor(stream, environment, is_live):
    console = Console(file=stream(), _environ=environment)
    logger = TerminalLogger("Pong", 1000, console=console)
    logger.close()
    assert logger.is_live is is_live
    assert logger.period_seconds == (1.0 if is_live else 10.0)


def test_letters_that_a_terminal_has_not_become_question_marks():
    stream = Terminal("ascii")
    logger, _ = plain(stream, title="Pong in späte Läufe")
    logger.print("Ähnlich")
    logger.close()
    assert "Pong in sp?te L?ufe" in stream.text
    assert "?hnlich" in stream.text


# The view.


def test_view_begins_before_there_are_numbers():
    window = Window()
    assert window.lines()[0] == "Pong  runs/Pong/1  starting: random play, then compilation"
    window.logger.close()


def test_view_shows_where_the_run_stands():
    window = Window(num_actors=2)
    learning_curve(window.logger)
    window.show(400_000)
    lines = window.show(
        1_000_000, make_actors(2), frames_per_second=1000.0, wall_seconds=3661.0, epsilon=0.25
    )
    assert lines[0] == "Pong  runs/Pong/1"
    assert lines[1].endswith("25%  1,000,000 / 4,000,000 frames")
    colours = [cell.fg for column, cell in sorted(window.screen.buffer[1].items()) if column < 44]
    assert colours.count(colours[0]) == 11  # a quarter is done, of a bar of 44
    words = " ".join(" ".join(lines).split())
    assert "frames/s 1,000 elapsed 1:01:01 left 0:50:00 updates 5 episodes 1 return 12.50" in words
    assert "policy loss -0.5 value loss 2 entropy 1.5 epsilon 0.25 grad norm 3" in words
    assert "staleness 0.00 (max 0) lock wait 5.0%" in words
    window.logger.close()


def test_view_has_a_line_for_each_actor_learner():
    window = Window(num_actors=3)
    shares = {"env_fraction": 0.5, "act_fraction": 0.25, "learn_fraction": 0.25}
    lines = window.show(actors=make_actors(2, **shares, push_fraction=0.0, idle_seconds=2.0))
    header = next(index for index, line in enumerate(lines) if "actor " in line)
    assert " ".join(lines[header].split()) == (
        "actor steps/s env act learn push lock stale return idle s"
    )
    first, second, third = (lines[header + row].split() for row in (1, 2, 3))
    assert first == ["0", "400", "50%", "25%", "25%", "0%", "0.5%", "1.2", "12.50", "2"]
    assert second[:2] == ["1", "401"]
    assert third == ["2", "0", *"--------"]  # nothing reported yet
    window.logger.close()


def test_a_line_of_a_worker_tells_what_was_dropped_and_how_often_it_began_again():
    window = Window(num_actors=2, are_workers=True, width=100)
    counts = {"num_dropped_updates": 7, "num_restarts": 3}
    lines = window.show(actors=make_actors(1, **counts), **counts)
    header = next(index for index, line in enumerate(lines) if "worker " in line)
    assert lines[header].split()[-2:] == ["dropped", "restarts"]
    assert [lines[header + row].split()[-2:] for row in (1, 2)] == [["7", "3"], ["0", "0"]]
    shown = " ".join(lines)
    assert "dropped updates 7" in shown
    assert "restarts 3" in shown
    window.logger.close()


def test_stalled_actors_are_marked():
    window = Window(num_actors=2)
    actors = make_actors(2)
    for seconds, colour in ((9.0, "default"), (35.2, "red")):
        actors[1]["idle_seconds"] = seconds
        lines = window.show(actors=actors)
        (row,) = (index for index, line in enumerate(lines) if line.endswith(f" {seconds:.0f}"))
        assert lines[row].split()[0] == "1"
        assert window.screen.buffer[row][lines[row].index("401")].fg == colour
        assert window.screen.buffer[row - 1][lines[row].index("401")].fg == "default"
    window.logger.close()


def test_of_many_actors_the_slowest_are_shown_and_the_rest_summed_up():
    window = Window(num_actors=100)
    actors = make_actors(100)
    actors[70]["steps_per_second"] = 3.0
    actors[50]["idle_seconds"] = 20.0
    lines = window.show(actors=dict(reversed(actors.items())))
    header = next(index for index, line in enumerate(lines) if "actor " in line)
    assert [line.split()[0] for line in lines[header + 1 : header + 5]] == ["50", "70", "0", "1"]
    num_shown = 22 - header - 1
    assert num_shown >= 8
    slowest = 400 + num_shown - 2
    assert lines[22] == f"{100 - num_shown} others: {slowest} to 499 steps/s, 0 stalled"
    assert lines[23] == ""
    lines = window.show(actors=make_actors(100, idle_seconds=60.0))
    assert lines[22].endswith(f"to 499 steps/s, {100 - num_shown} stalled")
    window.logger.close()


def curve_in(lines):
    """The rows of the curve, and the values at its ends."""
    top = next(index for index, line in enumerate(lines) if "█" in line or "▁" in line)
    rows = [line[12:].ljust(68) for line in lines[top : top + 6]]
    return rows, float(lines[top + 5][:12]), float(lines[top][:12] or math.nan)


def test_curve_rises_with_the_returns():
    window = Window()
    learning_curve(window.logger)
    rows, low, high = curve_in(window.show())
    assert (low, high) == (pytest.approx(-20, abs=0.5), pytest.approx(20, abs=0.5))
    levels = " ▁▂▃▄▅▆▇█"
    heights = [sum(levels.index(row[column]) for row in rows) for column in range(68)]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (1, 48)
    window.logger.close()


def test_curve_that_is_flat_or_empty_is_drawn():
    window = Window()
    lines = window.show(episode_return_mean=math.nan)
    assert "return -  " in line_with(lines, "episodes 1")
    window.logger.write_episodes([EpisodeRow(0, 1.5, 0, 7.0, 9)] * 3)
    assert "          7 " + "▁" * 68 in window.show()
    window.logger.close()


# Windows of any size.


@for_each("num_actors", [2, 100])
@for_each(
    ("width", "height", "encoding"),
    [
        (80, 24, "utf-8"),
        (60, 24, "utf-8"),
        (60, 12, "ascii"),
        (132, 43, "utf-8"),
        (40, 10, "utf-8"),
        (20, 5, "ascii"),
        (8, 2, "utf-8"),
    ],
)
def test_view_never_leaves_its_window(width, height, num_actors, encoding):
    window = Window(
        width, height, num_actors=num_actors, encoding=encoding, title="Pong  runs/" + "x" * 200
    )
    learning_curve(window.logger)
    numbers = {"frames_per_second": 1e7, "grad_norm": -1.2345e-30, "episode_return_mean": -1e7}
    for num_frames in (400_000, 10**12):
        lines = window.show(num_frames, make_actors(num_actors, idle_seconds=12.0), **numbers)
        assert not window.screen.history.top  # nothing has scrolled away
        assert lines[0].startswith("Pong")
        assert not lines[height - 1]
    # No line goes on in the next one: each is drawn as a whole, or cut.
    assert sum("frames/s" in line for line in lines) <= 1
    assert all(line[0] != "x" for line in lines if line)
    window.logger.close()


@pytest.mark.parametrize("width", [60, 80])
def test_columns_stand_below_their_names(width):
    window = Window(width, num_actors=2)
    actors = make_actors(2, steps_per_second=123_456.0, episode_return_mean=-123_456.0)
    lines = window.show(actors=actors)
    header = line_with(lines, "actor")
    row = next(line for line in lines if line.split()[:1] == ["0"])
    for name, value in (("steps/s", "123,456"), ("lock", "0.5%"), ("return", "-123456.00")):
        assert header.index(name) + len(name) == row.index(value) + len(value)
    assert len(header) <= width
    assert len(row) <= width
    window.logger.close()


def test_view_without_unicode_is_ascii():
    window = Window(encoding="ascii", num_actors=2)
    learning_curve(window.logger)
    lines = window.show(1_000_000, make_actors(2))
    assert window.stream.text.isascii()
    assert lines[1].startswith("----------- ----")
    assert any(line.endswith("####") for line in lines)
    window.logger.close()


def test_view_without_colours_has_none():
    window = Window(environment={**COLOURS, "NO_COLOR": "1"}, num_actors=2)
    learning_curve(window.logger)
    window.show(actors=make_actors(2, idle_seconds=20.0))
    colours = {cell.fg for row in window.screen.buffer.values() for cell in row.values()}
    assert colours == {"default"}
    window.logger.close()


@for_each("size", [(60, 24), (100, 30), (50, 12)])
def test_view_follows_a_window_that_changes_its_size(size):
    window = Window(num_actors=4)
    learning_curve(window.logger)
    window.show(actors=make_actors(4))
    window.resize(*size)
    lines = window.show(800_000, make_actors(4))
    assert lines[0] == "Pong  runs/Pong/1"
    assert sum("frames/s" in line for line in lines) == 1
    assert sum("Pong" in line for line in lines) == 1
    assert line_with(lines, "800,000 / 4,000,000").endswith("frames")
    assert all(len(line) <= size[0] for line in lines)
    window.show(900_000, make_actors(4))
    assert window.stream.text.count("\x1b[2J") == 1  # what windows make of broken lines differs
    window.logger.close()


def test_messages_stand_above_the_view():
    window = Window()
    window.show()
    window.logger.print("Actor 3: an update that is not finite was refused.")
    lines = window.show(800_000)
    assert lines[0] == "Actor 3: an update that is not finite was refused."
    assert lines[1] == "Pong  runs/Pong/1"
    window.logger.close()


def test_view_stays_on_the_screen_and_gives_the_terminal_back():
    before = sys.stdout, sys.stderr
    window = Window()
    window.show()
    window.show(4_000_000)
    window.logger.close()
    window.logger.close()
    window.console.print("after it")
    lines = window.lines()
    assert (sys.stdout, sys.stderr) == before
    assert "100%  4,000,000 / 4,000,000 frames" in lines[1]
    assert "after it" in lines[lines.index("after it") :]
    assert not window.screen.cursor.hidden


def test_rows_without_rates_and_losses_are_shown():
    counters = {"num_frames": 0, "num_updates": 0, "wall_seconds": 0.0}
    row = counters | MetricsWindow().pop_row(seconds=1.0)
    window = Window(num_actors=2)
    window.logger.write_metrics(row)
    lines = window.lines()
    assert lines[0] == "Pong  runs/Pong/1  starting: random play, then compilation"
    assert "left ?" in line_with(lines, "frames/s 0")
    window.logger.close()
    logger, stream = plain()
    logger.write_metrics(row)
    assert "left ?" in stream.getvalue()


def test_evaluation_is_printed_as_a_table(capsys):
    print_evaluation(Evaluation([Episode(0, 1.0, 5), Episode(1, 4.0, 9)], is_greedy=True))
    text = capsys.readouterr().out
    assert "2 full games, greedy actions" in text
    assert "standard deviation" in text
    for number in ("2.50", "1.50", "1.00", "4.00"):
        assert number in text
    print_evaluation(Evaluation([Episode(0, -8e29, 5)], is_greedy=True))
    assert "-8e+29" in capsys.readouterr().out
    print_evaluation(Evaluation([Episode(0, 0.0016, 5)], is_greedy=True))
    assert capsys.readouterr().out.count("0.0016") == 4


@for_each("width", [80, 50, 40, 30, 10, 0])
def test_scores_are_readable_on_a_terminal_of_any_width(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_evaluation(Evaluation([Episode(0, -1234.5, 5)], is_greedy=True))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= max(width, 30)
    assert " ".join(lines).count(" -1234.50 ") == 4
    assert "…" not in " ".join(lines)


def test_lines_are_shown_on_no_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    TerminalLogger("Pong  runs/pong", 1000).close()
    assert capsys.readouterr().out == "Pong  runs/pong\n"


def test_rows_become_columns_where_a_table_is_too_wide():
    heads, rows = ["steps", *"bcdef"], [["1,234", *"22222"], ["5,678", *"33333"]]
    for width, expected in ((40, ["steps", *"bcdef"]), (28, ["steps", "1,234", "5,678"])):
        console = Console(file=io.StringIO(), width=width)
        console.print(fitting_table(console, "title", heads, rows))
        lines = console.file.getvalue().splitlines()
        assert lines[0].strip() == "title"
        assert lines[2].replace("┃", "│").replace(" ", "").strip("│").split("│") == expected


@for_each(
    ("num_games", "num_cut", "title"),
    [
        (1, 0, "1 full game, sampled actions"),
        (2, 0, "2 full games, sampled actions"),
        (1, 1, "1 game, 1 cut, sampled actions"),
        (3, 2, "3 games, 2 cut, sampled actions"),
    ],
)
def test_title_of_an_evaluation_counts_its_games(capsys, num_games, num_cut, title):
    games = [Episode(index, 1.0, 5) for index in range(num_games)]
    print_evaluation(Evaluation(games, is_greedy=False, num_cut=num_cut))
    assert capsys.readouterr().out.splitlines()[0].strip() == title


def test_names_between_colons_are_no_pictures(capsys):
    TerminalLogger("python:robot:make  runs/:car:", 1000).close()
    assert "python:robot:make  runs/:car:" in capsys.readouterr().out
