import csv
import math

import pytest
from matplotlib.axes import Axes

from a3cjax.logs.loggers import CsvLogger, read_episodes
from a3cjax.logs.metrics import EpisodeRow
from a3cjax.reports.run_curves import plot_curves
from a3cjax.runs.tables import cut_csv, read_columns
from tests.fakes import make_row

EPISODES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, -0.125, 7)]


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
    assert read_episodes(tmp_path / "episodes.csv") == EPISODES


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
    assert read_episodes(tmp_path / "episodes.csv") == []
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


def test_no_file_holds_no_episodes(tmp_path):
    assert read_episodes(tmp_path / "episodes.csv") == []


def test_cut_drops_later_rows_and_half_a_line(tmp_path):
    path = tmp_path / "episodes.csv"
    logger = CsvLogger(tmp_path)
    logger.write_episodes(EPISODES)
    logger.close()
    with path.open("a") as file:
        file.write("400,1.5,0,2")
    cut_csv(path, 479)
    assert read_episodes(path) == EPISODES[:1]
