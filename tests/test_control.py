"""The table of control problems: its runs, what is kept of them, and that it is honest."""

import csv
import re
import sys

import gymnasium
import numpy as np
import pytest

from a3cjax.config.reading import read_config
from benchmarks import control
from tests.cases import for_each
from tests.documents import ROOT

BY_NAME = {problem.name: problem for problem in control.PROBLEMS}

# Stands for the program: notes that it was called, and leaves what a run leaves.
PROGRAM = """
import json, pathlib, sys
settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
run_dir = pathlib.Path(settings.get("run_dir") or settings["resume"])
run_dir.mkdir(parents=True, exist_ok=True)
with open(run_dir.parent / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
(run_dir / "config.yaml").write_text("env: CartPole")
if settings.get("seed") == "666":
    sys.exit(1)
seed = int(settings.get("seed", 666))
evaluation = {"mean": 400.0 + seed, "standard_deviation": 2.5, "num_episodes": 30}
(run_dir / "summary.json").write_text(json.dumps({
    "signal": None, "num_frames": int(settings["total_frames"]), "training_seconds": 12.0,
    "evaluation": evaluation, "commit": "0123456789abcdef",
    "machine": {"processor": "a processor", "cores": 2}}))
"""


def make_rows(name, means, **changes):
    problem = BY_NAME[name]
    rows = [
        control.Row(problem.env, seed, problem.frames, 90.0, mean, 1.5, 30, "abc", "X, 2 cores")
        for seed, mean in enumerate(means, start=1)
    ]
    return [row._replace(**changes) for row in rows]


def cells_of(name, rows):
    (line,) = [r for r in control.make_table(rows).splitlines() if r.startswith(f"| `{name}`")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the script with a program that stands for training; the calls of that program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")  # the script sets it: put back afterwards
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(control, "PROGRAM", [sys.executable, str(tmp_path / "program.py")])
    monkeypatch.setattr(control, "OUTPUT", tmp_path / "results" / "control")
    monkeypatch.setattr(control, "RUNS", tmp_path / "runs" / "control")
    calls = tmp_path / "runs" / "control" / "calls"

    def run(*arguments):
        calls.unlink(missing_ok=True)
        code = control.main(arguments)
        return code, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_runs_have_the_defaults_and_nothing_else(tmp_path):
    points = control.make_points(control.PROBLEMS, control.SEEDS, tmp_path)
    assert len(points) == 5 * len(control.PROBLEMS)
    for point in points:
        is_table = BY_NAME[point.settings["env"].rpartition(":")[2]].settings != ()
        chosen = {"env", "total_frames", "seed", *(["network"] if is_table else [])}
        assert point.settings.keys() - {"video", "tensorboard"} == chosen
        read_config(point.settings)


def test_finished_runs_are_kept_and_the_others_begun_or_resumed(call, tmp_path):
    words = ("env=CartPole", "--jobs", "1")
    code, calls = call(*words, "--seeds", "1,666")
    assert code == 1
    assert len(calls) == 2
    assert [row.seed for row in control.read_rows(tmp_path / "results/control/control.csv")] == [1]
    code, calls = call(*words, "seed=1,2,666")
    assert code == 0
    assert [line.split()[0] for line in calls] == [
        "env=CartPole",
        "resume=runs/control/CartPole-200000-seed666",
    ]
    rows = control.read_rows(tmp_path / "results/control/control.csv")
    assert [(row.seed, row.mean) for row in rows] == [(1, 401.0), (2, 402.0), (666, 1066.0)]
    assert call(*words, "seed=2") == (0, [])
    table = (tmp_path / "results/control/control.md").read_text()
    assert "| 1 of 3 |" in table
    assert "1: 401, 2: 402, 666: 1,066" in table


def test_rows_of_another_machine_are_kept_and_not_run_again(call, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    rows = make_rows("CartPole", [491.25, 492.5])
    with (output / "control.csv").open("w", newline="") as file:
        csv.writer(file).writerows([control.Row._fields, *rows])
    code, calls = call("env=CartPole", "seed=2,3", "output=out")
    assert code == 0
    assert [line.split()[2] for line in calls] == ["seed=3"]
    kept = control.read_rows(output / "control.csv")
    assert kept[:2] == rows
    assert kept[2][:6] == ("CartPole", 3, 200_000, 12.0, 403.0, 2.5)
    assert kept[2].machine == "a processor, 2 cores"


def test_another_budget_is_another_run_and_no_row_of_the_table(call, tmp_path):
    assert call("env=CartPole", "seed=1", "total_frames=2000")[0] == 0
    code, calls = call("env=CartPole", "seed=1")
    assert code == 0
    assert len(calls) == 1
    assert "total_frames=200000" in calls[0]
    rows = control.read_rows(tmp_path / "results/control/control.csv")
    assert [row.frames for row in rows] == [2000, 200_000]
    assert cells_of("CartPole", rows)[3] == "0 of 1"


@for_each(
    ("means", "reached"),
    [
        ([490.0, 495.0, 500.0, 500.0, 500.0], "**5 of 5**"),
        ([489.9, 495.0, 500.0, 500.0, 500.0], "4 of 5"),
        ([500.0, 500.0], "2 of 2"),  # in bold once all seeds are there
        ([], ""),
    ],
)
def test_table_says_how_many_seeds_reach_the_bar(means, reached):
    cells = cells_of("CartPole", make_rows("CartPole", means))
    assert cells[1:4] == ["200k", "490", reached]
    assert cells[6:] == ([cells[6], "1.5 to 1.5"] if means else ["not run", ""])


def test_bars_and_aims_are_told_apart():
    rows = make_rows("HalfCheetah", [3000.0, 5000.0, 6000.0]) + make_rows("Walker2d", [10.0])
    assert cells_of("HalfCheetah", rows)[2:6] == ["3,041", "2 of 3", "5,819", "1 of 3"]
    assert cells_of("Walker2d", rows)[2:6] == ["", "", "3,479", "0 of 1"]
    assert "3,041" not in "".join(cells_of("Swimmer", rows))


@for_each(
    ("word", "message"),
    [
        ("env=CartPol", "must be of CartPole, .*got CartPol"),
        ("jobs=1000", "jobs must be between"),
        ("seed=a", "invalid numbers value"),
        ("frames=3", "unrecognized arguments: --frames=3"),
    ],
)
def test_wrong_words_are_refused(call, capsys, word, message):
    with pytest.raises(SystemExit) as exit_:
        call("env=CartPole", word)
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_what_is_named_twice_is_run_once(call):
    code, calls = call("env=CartPole,CartPole", "seed=1,1", "jobs=2")
    assert (code, len(calls)) == (0, 1)


def test_missing_package_leaves_its_problems_out(call, monkeypatch, capsys):
    monkeypatch.setattr(control.importlib.util, "find_spec", lambda name: None)
    assert call("env=MinAtar/Breakout-v1,CartPole", "seed=1")[0] == 0
    out = capsys.readouterr().out
    assert "MinAtar/Breakout-v1 is left out: pip install" in out
    assert "CartPole seed 1: 401 after 200,000 frames, 12 s" in out


def test_page_shows_the_rows_that_lie_beside_it():
    rows = control.read_rows(ROOT / "results" / "control" / control.CSV)
    text = control.PAGE.read_text()
    assert control.TABLE.search(text)
    assert text == control.refresh(text, rows), "run python benchmarks/control.py --only_table"


# What is best in the tables, by value iteration.


def solve(name, num_steps, is_start):
    """Mean and standard deviation of the score of the best player of a game of Gymnasium.

    Undiscounted, with the same action in a state whatever the time; `is_start` tells the states
    that a game begins in, each as often as the others.
    """
    table = gymnasium.make(name).unwrapped.P
    shape = len(table), len(table[0])
    reward, square = np.zeros(shape), np.zeros(shape)
    goes_on, rewarded = np.zeros((*shape, len(table))), np.zeros((*shape, len(table)))
    for state, action in np.ndindex(shape):
        for p, after, r, is_over in table[state][action]:
            reward[state, action] += p * r
            square[state, action] += p * r**2
            goes_on[state, action, after] += p * (not is_over)
            rewarded[state, action, after] += p * r * (not is_over)
    values = np.zeros(len(table))
    for _ in range(2000):
        values = (reward + goes_on @ values).max(axis=1)
    best = np.arange(len(table)), (reward + goes_on @ values).argmax(axis=1)
    means, squares = np.zeros(len(table)), np.zeros(len(table))
    for _ in range(num_steps):
        squares = square[best] + 2 * rewarded[best] @ means + goes_on[best] @ squares
        means = reward[best] + goes_on[best] @ means
    starts = [state for state in range(len(table)) if is_start(state)]
    mean = means[starts].mean()
    return mean, np.sqrt(squares[starts].mean() - mean**2)


@pytest.mark.parametrize(
    ("name", "version", "num_steps", "is_start"),
    [
        ("FrozenLake", "FrozenLake-v1", 100, lambda state: state == 0),
        # ((row · 5 + column) · 5 + passenger) · 4 + destination; passenger 4 sits in the taxi.
        ("Taxi", "Taxi-v4", 200, lambda state: state // 4 % 5 < 4),
    ],
)
def test_bars_of_tables_are_what_the_best_player_passes(name, version, num_steps, is_start):
    mean, deviation = solve(version, num_steps, is_start)
    problem = BY_NAME[name]
    assert problem.aim == pytest.approx(mean, abs=5e-4)
    assert problem.bar == pytest.approx(mean - 2.33 * deviation / np.sqrt(30), abs=0.03)
