import math

import numpy as np
import pytest

from a3cjax.envs.base import Episode
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import append_evaluation
from a3cjax.runs.tables import (
    COLUMNS,
    EPISODES,
    EVALUATIONS,
    METRICS,
    SUMMARY,
    EpisodeRow,
    append_rows,
    cut_logs,
    read_columns,
    read_episodes,
    read_rows,
    read_summary,
)
from a3cjax.types import Snapshot
from tests.cases import for_each

GAMES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, -0.125, 7)]
METRICS_HEADER, REST = ",".join(COLUMNS[METRICS]), ",1" * (len(COLUMNS[METRICS]) - 1)
HEADER = b"num_frames,wall_seconds,mean\n"


def write_games(path, games=GAMES):
    append_rows(path, [game._asdict() for game in games], EpisodeRow._fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


# Writing.


def test_file_keeps_the_columns_with_which_it_began(path):
    append_rows(path, [], ("a", "b"))
    append_rows(path, [{"b": 2, "a": 0.5}], ("c",))
    append_rows(path, [{"a": 1.0, "b": "word", "new": 3}, {"a": 4}], ())
    assert path.read_bytes() == b"a,b\n0.5,2\n1,word\n4,\n"


@for_each(
    ("value", "cell"),
    [
        (0.0, "0"),
        (-1.0, "-1"),
        (1e-7, "1e-07"),
        (1 / 3, "0.333333"),
        (12345678.0, "12345678"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_any_number_comes_back(tmp_path, value, cell):
    path = tmp_path / "table.csv"
    append_rows(path, [{"x": value}], ("x",))
    assert read_rows(path) == ([{"x": cell}], 0)
    np.testing.assert_allclose(read_columns(path)[0]["x"], [value], rtol=1e-5)


# Reading.


def test_file_that_is_not_there_is_empty(path):
    assert read_rows(path) == ([], 0)
    assert read_columns(path) == ({}, 0)
    assert read_episodes(path) == []
    assert not path.exists()


@for_each(
    "line",
    [
        b"3000",
        b"3000,3,1",  # of 17, maybe: a line without its end may be cut within a number
        b"3000,3\n",
        b"3000,3,17,1\n",
        b"\0\0\0\0\n",  # as a power cut leaves them
        b'\xff\xfe"\n',
    ],
)
def test_damaged_line_costs_itself_alone(tmp_path, line):
    path = tmp_path / "table.csv"
    after = b"4000,4,20\n" if line.endswith(b"\n") else b""
    path.write_bytes(HEADER + b"1000,1,\n2000,2,5\n" + line + after)
    columns, num_damaged = read_columns(path)
    assert columns["num_frames"].tolist() == [1000, 2000, *[4000] * bool(after)]
    assert columns["mean"].tolist()[1:] == [5, *[20] * bool(after)]
    assert math.isnan(columns["mean"][0])  # an empty cell
    assert num_damaged == 1


def test_words_are_damage_only_where_numbers_are_wanted(path):
    path.write_bytes(HEADER + b"1000,1,high\n2000,2,5\n")
    columns, num_damaged = read_columns(path)
    assert (columns["num_frames"].tolist(), num_damaged) == ([2000], 1)
    columns, num_damaged = read_columns(path, ("num_frames",))
    assert (list(columns), columns["num_frames"].tolist()) == (["num_frames"], [1000, 2000])
    assert num_damaged == 0


def test_games_come_back(path):
    write_games(path, GAMES[:1])
    write_games(path, [])
    write_games(path, GAMES[1:])
    columns = "num_frames,wall_seconds,actor,episode_return,episode_length"
    assert path.read_text().splitlines()[0] == columns
    assert read_episodes(path) == GAMES
    with path.open("a") as file:
        file.write("500,3,1,x,9\n600,3.5,0,2")
    assert read_episodes(path) == GAMES


# Of a run folder.


def test_logs_are_cut_back_to_a_checkpoint(tmp_path):
    write_games(tmp_path / EPISODES)
    with (tmp_path / EPISODES).open("a") as file:
        file.write("4\n400,1.5,0,2")
    append_rows(tmp_path / METRICS, [{"num_frames": 480}], COLUMNS[METRICS])
    cut_logs(tmp_path, 479)
    assert read_episodes(tmp_path / EPISODES) == GAMES[:1]
    assert not (tmp_path / EVALUATIONS).exists()
    evaluations = [{"num_frames": num_frames, "scores": "1 2"} for num_frames in (400, 480)]
    append_rows(tmp_path / EVALUATIONS, evaluations, COLUMNS[EVALUATIONS])
    cut_logs(tmp_path, 479)
    assert read_rows(tmp_path / EVALUATIONS)[0] == [
        dict.fromkeys(COLUMNS[EVALUATIONS], "") | {"num_frames": "400", "scores": "1 2"}
    ]
    # Nothing is left of the metrics: what is written next begins the file anew.
    append_rows(tmp_path / METRICS, [{"num_frames": 500, "y": 2}], ("num_frames", "y"))
    assert (tmp_path / METRICS).read_text() == "num_frames,y\n500,2\n"
    write_games(tmp_path / EPISODES, GAMES[1:])
    assert read_episodes(tmp_path / EPISODES) == GAMES
    cut_logs(tmp_path, 480)
    assert read_episodes(tmp_path / EPISODES) == GAMES


def test_bad_rows_of_a_log_are_left_out_with_a_warning(tmp_path, capsys):
    path = tmp_path / METRICS
    rows = [f"{n}{REST}" for n in ("400", "x", "-5", "9" * 5000, "450", "900")]
    path.write_text("\n".join([METRICS_HEADER, *rows, "500", "950,"]))
    cut_logs(tmp_path, 479)
    assert path.read_text() == f"{METRICS_HEADER}\n400{REST}\n450{REST}\n"
    assert capsys.readouterr().err == (
        f"warning: {path} is damaged in 4 of its lines, which are left out.\n"
    )
    path.write_text(f"{METRICS_HEADER}\n400{REST}\nx\n")
    cut_logs(tmp_path, 479)
    assert "in 1 of its lines" in capsys.readouterr().err


# The fourth one lacks a comma, so that no line has as many cells as it.
@for_each(
    ("name", "old", "new"),
    [
        (METRICS, "num_frames,", "frames,"),
        (METRICS, "num_episodes", "num_epXsodes"),
        (EPISODES, "wall_seconds", "wall_secoXds"),
        (EPISODES, "num_frames,", "num_frames"),
        (EPISODES, "actor,episode_return", "actor,actor"),
        (EVALUATIONS, "median", "mediam"),
        (EVALUATIONS, "num_frames", "\0\0"),
        (EVALUATIONS, ",".join(COLUMNS[EVALUATIONS]) + "\n", ""),
    ],
)
def test_log_without_a_sound_line_or_header_is_moved_aside(tmp_path, capsys, name, old, new):
    path = tmp_path / name
    line = "400" + ",1" * (len(COLUMNS[name]) - 1)
    path.write_text(",".join(COLUMNS[name]) + f"\n{line}\n")
    before = path.read_text()
    cut_logs(tmp_path, 479)
    assert path.read_text() == before
    path.write_text(before.replace(old, new))
    cut_logs(tmp_path, 479)
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("discarded-")
    assert aside.read_text() == before.replace(old, new)
    assert f"is now {aside.name}" in capsys.readouterr().err


def test_a_line_that_was_cut_short_is_no_damage_to_speak_of(tmp_path, capsys):
    (tmp_path / METRICS).write_text(f"{METRICS_HEADER}\n400{REST}\n450,")
    (tmp_path / EPISODES).write_text("num_fra")
    cut_logs(tmp_path, 479)
    assert (tmp_path / METRICS).read_text() == f"{METRICS_HEADER}\n400{REST}\n"
    assert (tmp_path / EPISODES).read_text() == ""
    assert capsys.readouterr().err == ""


def test_evaluation_is_written_once_unless_its_games_are_others(tmp_path):
    scores = (1.0, 2.5, 1234567.0, -1234567.25)
    evaluation = Evaluation([Episode(0, score, 5) for score in scores], False)
    snapshot = Snapshot(version=7, num_frames=1000, params=None)
    assert append_evaluation(tmp_path, snapshot, 12.34567, evaluation)
    assert not append_evaluation(tmp_path, snapshot, 13.0, evaluation)
    assert append_evaluation(tmp_path, snapshot._replace(num_frames=2000), 20.0, evaluation)
    others = [evaluation._replace(is_greedy=True), evaluation._replace(num_cut=1)]
    others.append(evaluation._replace(episodes=evaluation.episodes[:3]))
    (tmp_path / "others").mkdir()
    for other in others:
        assert append_evaluation(tmp_path / "others", snapshot, 12.0, other)
        assert not append_evaluation(tmp_path / "others", snapshot, 14.0, other)
    rows, _ = read_rows(tmp_path / EVALUATIONS)
    assert " ".join(rows[0]) == (
        "num_frames wall_seconds actions num_episodes num_cut "
        "mean median standard_deviation min max scores"
    )
    assert [row["num_frames"] for row in rows] == ["1000", "2000"]
    assert (rows[0]["wall_seconds"], rows[0]["actions"]) == ("12.346", "sampled")
    assert (rows[0]["mean"], rows[0]["scores"]) == ("0.8125", "1 2.5 1234567 -1234567.25")


@for_each(
    "text",
    [
        None,
        "",
        "[1, 2]",
        "[" * 100_000,
        '{"a": ' + "[" * 30 + "]" * 30 + "}",
        "{",
        '{"a": 1' + "0" * 5000,
    ],
)
def test_summary_that_is_missing_or_damaged_says_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / SUMMARY).write_text(text)
    assert read_summary(tmp_path) == {}
