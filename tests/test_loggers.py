import csv
import io
import math
import struct
import sys

import pytest
from matplotlib.axes import Axes
from tensorboardX.proto.event_pb2 import Event

from a3cjax.evaluation import Evaluation
from a3cjax.loggers import (
    CsvLogger,
    TensorBoardLogger,
    TerminalLogger,
    format_seconds,
    print_evaluation,
)
from a3cjax.metrics import EpisodeRow, MetricsWindow
from a3cjax.plotting import plot_curves, read_columns
from a3cjax.vector_envs import Episode
from tests.fakes import make_report

EPISODES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, -0.125, 7)]


def make_row(num_frames=400, wall_seconds=1.0, **changes):
    """A row as training writes it."""
    window = MetricsWindow()
    window.add(make_report(episodes=[Episode(0, 12.5, 30)]))
    row = window.pop_row(
        num_frames=num_frames, num_updates=5, wall_seconds=wall_seconds, seconds=0.5
    )
    return {**row, **changes}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing of the shell around the tests tells Rich what a terminal is."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


# CSV


def test_csv_columns_are_those_of_the_row(tmp_path):
    logger = CsvLogger(tmp_path)
    rows = [make_row(400), make_row(800, entropy=0.1234567)]
    for row in rows:
        logger.write_metrics(row)
    logger.close()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == list(rows[0])
    assert len(lines) == 3
    assert all(len(line) == len(lines[0]) for line in lines)


def test_csv_numbers_come_back(tmp_path):
    logger = CsvLogger(tmp_path)
    rows = [make_row(400, entropy=1 / 3), make_row(320_000_000, episode_return_mean=math.nan)]
    for row in rows:
        logger.write_metrics(row)
    logger.close()
    columns = read_columns(tmp_path / "metrics.csv")
    for index, row in enumerate(rows):
        for name, value in row.items():
            assert columns[name][index] == pytest.approx(value, rel=1e-5, nan_ok=True)
    assert columns["num_frames"] == [400, 320_000_000]


def test_csv_episodes_come_back(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.write_episodes(EPISODES[:1])
    logger.write_episodes([])
    logger.write_episodes(EPISODES[1:])
    logger.close()
    text = (tmp_path / "episodes.csv").read_text()
    assert text.splitlines()[0] == "num_frames,wall_seconds,actor,episode_return,episode_length"
    columns = read_columns(tmp_path / "episodes.csv")
    assert [EpisodeRow(*values) for values in zip(*columns.values(), strict=True)] == EPISODES


def test_csv_rows_can_be_read_while_training_goes_on(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.write_metrics(make_row())
    logger.write_episodes(EPISODES)
    assert read_columns(tmp_path / "metrics.csv")["num_frames"] == [400]
    assert read_columns(tmp_path / "episodes.csv")["episode_length"] == [900, 7]
    logger.close()


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-7, 123456.5, 12345678.0, math.inf, -math.inf])
def test_csv_takes_any_number(tmp_path, value):
    logger = CsvLogger(tmp_path)
    logger.write_metrics(make_row(grad_norm=value))
    logger.close()
    columns = read_columns(tmp_path / "metrics.csv")
    assert columns["grad_norm"] == [pytest.approx(value, rel=1e-5)]


def test_csv_without_rows_reads_as_no_columns(tmp_path):
    CsvLogger(tmp_path).close()
    assert read_columns(tmp_path / "metrics.csv") == {}
    assert read_columns(tmp_path / "episodes.csv") == {}
    assert plot_curves(tmp_path, "nothing") is None


@pytest.mark.parametrize("episodes", [[], EPISODES])
def test_curves_are_drawn_with_and_without_episodes(tmp_path, episodes):
    logger = CsvLogger(tmp_path)
    for num_frames in (400, 800):
        logger.write_metrics(make_row(num_frames))
    logger.write_episodes(episodes)
    logger.close()
    path = plot_curves(tmp_path, "Pong, seed 1")
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_curves_of_a_q_method_are_drawn_without_an_entropy(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, label: labels.append(label))
    logger = CsvLogger(tmp_path)
    for num_frames in (400, 800):
        row = make_row(num_frames, q_value=1.5)
        del row["entropy"]
        logger.write_metrics(row)
    logger.close()
    assert plot_curves(tmp_path, "Pong, seed 1") == tmp_path / "curves.png"
    assert "Q of the actions taken" in labels
    assert "entropy (nats)" not in labels


# TensorBoard


def read_events(folder):
    """The scalars of a folder's events file as (tag, step, value)."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, position, scalars = path.read_bytes(), 0, []
    while position < len(data):
        # A record: its length, a checksum, the event, a checksum.
        (length,) = struct.unpack_from("<Q", data, position)
        event = Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4
        scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return scalars


def test_tensorboard_gets_every_metric_by_frames(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    rows = [make_row(400, episode_return_mean=math.nan), make_row(800, value_loss=7.0)]
    for row in rows:
        logger.write_metrics(row)
    logger.close()
    scalars = {(tag, step): value for tag, step, value in read_events(tmp_path)}
    names = set(rows[0]) - {"num_frames"}
    assert {tag for tag, step in scalars if step == 800} == {f"train/{name}" for name in names}
    assert scalars["train/value_loss", 400] == 2.0
    assert scalars["train/value_loss", 800] == 7.0
    assert ("train/episode_return_mean", 400) not in scalars
    assert scalars["train/episode_return_mean", 800] == 12.5


def test_tensorboard_gets_every_episode(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.write_episodes(EPISODES)
    logger.close()
    assert read_events(tmp_path) == [
        ("episodes/episode_return", 400, 21.0),
        ("episodes/episode_length", 400, 900.0),
        ("episodes/episode_return", 480, -0.125),
        ("episodes/episode_length", 480, 7.0),
    ]


# Terminal


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    logger = TerminalLogger("Pong", 4_000_000, stream)
    logger.write_metrics(make_row(400_000, frames_per_second=1000.0))
    logger.close()
    title, line = stream.getvalue().splitlines()
    assert title == "Pong"
    assert "\x1b" not in line
    assert "frames 400,000 / 4,000,000" in line
    assert "frames/s 1,000" in line
    assert "left 1:00:00" in line  # 3.6 million frames at 1,000 a second
    assert "return 12.50" in line
    assert "policy_loss -0.5  value_loss 2  entropy 1.5  grad_norm 3  staleness" in line


def test_terminal_shows_the_metrics_that_the_algorithm_has():
    stream = io.StringIO()
    row = make_row(grad_norm=0.00012345)
    for name in ("policy_loss", "entropy"):
        del row[name]
    logger = TerminalLogger("Pong", 4_000_000, stream)
    logger.write_metrics({**row, "epsilon": 0.25, "q_value": 1234.5})
    logger.close()
    expected = "value_loss 2  q_value 1234  epsilon 0.25  grad_norm 0.0001234  staleness"
    assert expected in stream.getvalue()


def test_terminals_want_a_row_more_often_than_files():
    logger = TerminalLogger("Pong", 1000, Terminal())
    assert logger.period_seconds == 1.0
    logger.close()
    assert TerminalLogger("Pong", 1000, io.StringIO()).period_seconds == 10.0


def test_table_on_a_terminal():
    stream = Terminal()
    logger = TerminalLogger("Pong in runs/1", 4_000_000, stream)
    logger.write_metrics(make_row(400_000))
    logger.write_metrics(make_row(800_000))
    logger.close()
    text = stream.getvalue()
    assert "\x1b" in text
    assert "Pong in runs/1  starting" in text[: text.index("800,000")]
    last = text[text.rindex("Pong in runs/1") :]
    assert "800,000 / 4,000,000" in last
    assert "12.50" in last
    assert "env 40%  act 30%  learn 20%  push 10%" in last


def test_table_gives_the_terminal_back():
    before = sys.stdout, sys.stderr
    logger = TerminalLogger("Pong", 4_000_000, Terminal())
    logger.write_metrics(make_row())
    logger.close()
    logger.close()
    assert (sys.stdout, sys.stderr) == before


def test_terminal_takes_rows_without_rates_and_losses():
    window = MetricsWindow()
    row = window.pop_row(num_frames=0, num_updates=0, wall_seconds=0.0, seconds=1.0)
    for stream in (io.StringIO(), Terminal()):
        logger = TerminalLogger("Pong", 4_000_000, stream)
        logger.write_metrics(row)
        logger.close()
        assert "?" in stream.getvalue()


def test_frames_beyond_the_budget_leave_no_time():
    stream = io.StringIO()
    logger = TerminalLogger("Pong", 1000, stream)
    logger.write_metrics(make_row(20_000))
    logger.close()
    assert "left 0:00" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (3661, "1:01:01"),
        (360_000, "100:00:00"),
        (math.nan, "?"),
    ],
)
def test_seconds_are_written_as_a_clock_shows_them(seconds, text):
    assert format_seconds(seconds) == text


def test_evaluation_is_printed_as_a_table():
    stream = io.StringIO()
    print_evaluation(Evaluation([Episode(0, 1.0, 5), Episode(1, 4.0, 9)], is_greedy=True), stream)
    text = stream.getvalue()
    assert "2 full games, greedy actions" in text
    for number in ("2.50", "1.50", "1.00", "4.00"):
        assert number in text
