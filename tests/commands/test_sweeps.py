"""Sweeps: every combination once, resumable, within the machine's cores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import types
from unittest.mock import Mock

import pytest

from a3cjax.commands import sweep as sweep_verb
from a3cjax.commands import sweeps
from a3cjax.commands.sweep import read_points, split
from a3cjax.commands.sweeps import (
    MAX_RUNS,
    Point,
    Sweep,
    arguments_of,
    expand,
    occupied,
    record,
    share_cores,
)
from a3cjax.errors import ConfigError
from a3cjax.system.machine import available_cores, cores_of_thread
from tests.cases import for_each
from tests.fakes import PATIENCE_SECONDS, wait_until

# Stands for the program: notes what it was called with and where, and leaves what a run leaves.
PROGRAM = """
import json, os, pathlib, signal, sys, time
settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
run_dir = pathlib.Path(settings.get("run_dir") or settings["resume"])
run_dir.mkdir(parents=True, exist_ok="resume" in settings)
with open(run_dir / "calls", "a") as file:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    file.write(json.dumps({"arguments": sys.argv[1:], "cores": cores}) + "\\n")
(run_dir / "config.yaml").write_text("env: Pong")
if settings.get("seed") == "666":
    sys.exit(1)
if settings.get("seed") == "668":
    os._exit(0)
(run_dir / "checkpoints").mkdir(exist_ok=True)
(run_dir / "checkpoints" / "100.safetensors").touch()
stopped_by = None
if settings.get("env") == "Endless":
    def stop(number, frame):
        global stopped_by
        stopped_by = number
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU:
        signal.signal(number, stop)
    (run_dir / "ready").touch()
    while stopped_by is None:
        time.sleep(0.01)
    if settings.get("seed") == "667":
        sys.exit(1)
summary = {"signal": stopped_by, "num_frames": int(settings.get("total_frames", 100))}
(run_dir / "summary.json").write_text(json.dumps(summary))
sys.exit(128 + stopped_by if stopped_by else 0)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def calls(run_dir):
    return [json.loads(line) for line in (run_dir / "calls").read_text().splitlines()]


def run(program, points, jobs=1, lock=None):
    lines = []
    sweep = Sweep(program, points, jobs, lines.append)
    return sweep.run(lock), sweep, lines


def begin(point):
    (point.run_dir / "checkpoints").mkdir(parents=True)
    (point.run_dir / "checkpoints" / "0.safetensors").touch()


def names(points):
    return [point.run_dir.name for point in points]


@for_each(
    ("text", "values"),
    [
        ("3", ["3"]),
        ("1,2,10", ["1", "2", "10"]),
        ("range(1,4)", ["1", "2", "3"]),
        ("range(1, 8, 3)", ["1", "4", "7"]),
        ("range(1," + "9" * 40 + ")", ["range(1", "9" * 40 + ")"]),  # which its run refuses
        ("1, 2 ,3", ["1", "2", "3"]),
        ("'a,b'", ["'a,b'"]),
        ("'a,b',\"c,'d\"", ["'a,b'", '"c,\'d"']),
        ("{a: 1, b: [2, 3]},{a: 2}", ["{a: 1, b: [2, 3]}", "{a: 2}"]),
        ("dog's,{cat", ["dog's", "{cat"]),
        ("Pong,Breakout", ["Pong", "Breakout"]),
    ],
)
def test_values_of_a_setting_stand_between_commas_or_in_a_range(text, values):
    assert split(text) == values


def test_a_sweep_has_no_more_runs_than_anybody_can_want(tmp_path):
    rule = rf"^A range must have at most {MAX_RUNS:,} values, got range\(1,99999999999\)\.$"
    with pytest.raises(ConfigError, match=rule):
        split("range(1,99999999999)")
    many = split("range(0,500)")
    with pytest.raises(ConfigError, match=rf"^A sweep must have at most {MAX_RUNS:,} runs\.$"):
        expand({"seed": many, "learning_rate": many}, tmp_path)


def test_a_folder_has_a_name_that_file_systems_take(tmp_path):
    values = {"env_kwargs": [f"{{a: {'y' * 300}{end}}}" for end in "zä"], "seed": ["1"]}
    points = expand(values, tmp_path)
    for point in points:
        point.run_dir.with_name(f"{point.run_dir.name}.log").mkdir()
    assert len(set(names(points))) == 2
    assert names(points) == names(expand(values, tmp_path))


def test_every_combination_is_run_once_in_order(tmp_path):
    values = {"env": ["Pong", "Breakout"], "discount": ["0.99"], "seed": ["1", "2"]}
    points = expand(values, tmp_path)
    assert names(points) == ["Pong-seed1", "Pong-seed2", "Breakout-seed1", "Breakout-seed2"]
    assert points[1].settings == {"env": "Pong", "discount": "0.99", "seed": "2"}
    assert points[0].run_dir == tmp_path / "Pong-seed1"


def test_folders_are_named_by_what_differs(tmp_path):
    values = {"env": ["gymnasium:m:A-v0"], "discount": ["0.9", "0.99"], "unroll_length": ["5"]}
    assert names(expand(values, tmp_path)) == [
        "gymnasium-m-A-v0-discount0.9",
        "gymnasium-m-A-v0-discount0.99",
    ]
    assert names(expand({}, tmp_path)) == ["run"]


@for_each(
    ("name", "values", "twice"),
    [
        ("env", ["Pong", "Pong"], "Pong"),
        ("env", ["m:A", "m/A"], "m-A"),  # one folder
        ("seed", ["1", "2", "01"], "seed1"),
        ("learning_rate", ["1e-3", "0.001"], "learning_rate1e-3"),
        ("algorithm", ["a3c", "A3C"], "algorithma3c"),
        ("preset", ["paper", "'Paper'"], "presetpaper"),
        ("env_kwargs", ["{a: 1, b: 2}", "{b: 2, a: 1}"], "env_kwargs{a- 1, b- 2}"),
    ],
)
def test_the_same_run_twice_is_refused(tmp_path, name, values, twice):
    with pytest.raises(ConfigError) as caught:
        expand({name: values}, tmp_path)
    assert str(caught.value) == f"A sweep must have each run once, got {twice} twice."


def test_a_sweep_in_another_order_or_notation_goes_on_with_its_runs(tmp_path):
    def found(**texts):
        _, points = read_points({"sweep_dir": str(tmp_path), **texts})
        record(points, tmp_path)
        for point in points:
            (point.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
            (point.run_dir / "checkpoints" / "0.safetensors").touch()
        return names(points)

    begun = found(env="Catch", seed="1,2", learning_rate="1e-3", total_frames="1000")
    assert begun == ["Catch-seed1", "Catch-seed2"]
    same = {"learning_rate": "0.001", "seed": "1,2.0", "env": "Catch"}
    assert found(total_frames="1k", **same) == begun
    assert found(total_frames="2k", **same) == begun  # longer
    # A part and an extension of it; a new run has its own name.
    assert found(seed="2,3", env="Catch", learning_rate=".001") == [begun[1], "seed3-Catch"]
    # Budgets tell runs apart where they are several.
    budgets = found(env="Pong", total_frames="100,200")
    assert budgets == ["Pong-total_frames100", "Pong-total_frames200"]
    assert found(total_frames="200,100", env="Pong") == budgets[::-1]
    assert found(total_frames="300", env="Pong") == ["Pong"]
    with pytest.raises(ConfigError, match=r"^learning_rate must be \.001, as when seed3-Catch"):
        found(seed="3", env="Catch", learning_rate="0.002")


@for_each("name", ["run_dir", "resume"])
def test_folders_of_runs_are_the_sweeps_to_choose(tmp_path, name):
    with pytest.raises(ConfigError, match=f"^{name} must be left to the sweep, got here"):
        expand({name: ["here"]}, tmp_path)


def test_a_sweep_runs_all_and_started_again_none(tmp_path, program):
    points = expand({"env": ["Pong"], "seed": ["1", "2"], "total_frames": ["100"]}, tmp_path)
    stop_signal, sweep, _ = run(program, points)
    assert stop_signal is None
    assert sweep.failed == []
    for seed, point in zip("12", points, strict=True):
        (call,) = calls(point.run_dir)
        assert call["arguments"] == [
            "env=Pong",
            f"seed={seed}",
            "total_frames=100",
            f"run_dir={point.run_dir}",
        ]
    _, _, lines = run(program, points)
    assert [line.endswith("finished before") for line in lines] == [True, True]
    assert len(calls(points[0].run_dir)) == 1


def test_a_larger_budget_makes_finished_runs_longer(tmp_path, program):
    run(program, expand({"seed": ["1"], "total_frames": ["100"]}, tmp_path))
    (point,) = expand({"seed": ["1"], "total_frames": ["200"]}, tmp_path)
    run(program, [point])
    assert calls(point.run_dir)[1]["arguments"] == [f"resume={point.run_dir}", "total_frames=200"]
    assert arguments_of(point) is None


# "50" is of an older version: the run says that it cannot read it, and nothing is deleted.
@for_each("name", ["50.safetensors", "50"])
@for_each(
    "summary",
    [None, '{"signal": 2, "num_frames": 100}', '{"signal": null, "num_frames": 99}'],
)
def test_what_was_killed_or_interrupted_is_resumed(tmp_path, summary, name):
    point = Point({"total_frames": "100"}, tmp_path / "run")
    (point.run_dir / "checkpoints" / name).mkdir(parents=True)
    (point.run_dir / "config.yaml").write_text("env: Pong")
    if summary is not None:
        (point.run_dir / "summary.json").write_text(summary)
    assert arguments_of(point) == [f"resume={point.run_dir}", "total_frames=100"]


def test_what_ended_before_its_first_checkpoint_is_left_to_its_program(tmp_path):
    point = Point({"seed": "1"}, tmp_path / "run")
    unfinished = point.run_dir / "checkpoints" / "50.safetensors.part"
    unfinished.mkdir(parents=True)
    (point.run_dir / "config.yaml").write_text("env: Pong")
    assert arguments_of(point) == [f"resume={point.run_dir}"]
    assert unfinished.exists()


def folder_content(folder):
    return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*") if p.name != "sweep.lock"}


def test_a_finished_run_without_its_checkpoints_is_finished(tmp_path, program):
    points = expand({"seed": ["1"], "total_frames": ["100"]}, tmp_path)
    run(program, points)
    (points[0].run_dir / "checkpoints" / "100.safetensors").unlink()
    (points[0].run_dir / "checkpoints").rmdir()
    before = folder_content(tmp_path)
    _, sweep, lines = run(program, points)
    assert (sweep.failed, lines) == ([], [f"1/1 {points[0].run_dir}: finished before"])
    assert folder_content(tmp_path) == before


@for_each(
    ("eval_episodes", "evaluation", "is_finished"),
    [("30", None, False), ("30", {"mean": 1.0}, True), ("0", None, True)],
)
def test_a_run_whose_games_at_the_end_were_not_played_is_not_finished(
    tmp_path, program, eval_episodes, evaluation, is_finished
):
    points = expand({"seed": ["1"], "total_frames": ["100"]}, tmp_path)
    run(program, points)
    run_dir = points[0].run_dir
    (run_dir / "config.yaml").write_text(f"env: Pong\neval_episodes: {eval_episodes}")
    summary = {"signal": None, "num_frames": 100, "evaluation": evaluation}
    (run_dir / "summary.json").write_text(json.dumps(summary))
    expected = None if is_finished else [f"resume={run_dir}", "total_frames=100"]
    assert arguments_of(points[0]) == expected


# A longer one that was killed may have an older summary, from before it was resumed.
def test_the_budget_of_a_run_is_that_of_its_settings_where_none_is_given(tmp_path):
    point = Point({}, tmp_path / "run")
    point.run_dir.mkdir()
    (point.run_dir / "summary.json").write_text('{"signal": null, "num_frames": 100}')
    for total_frames, arguments in ((100, None), (200, [f"resume={point.run_dir}"])):
        (point.run_dir / "config.yaml").write_text(f"total_frames: {total_frames}")
        assert arguments_of(point) == arguments


def test_a_run_is_done_with_exit_code_0_and_its_summary(tmp_path, program):
    (point,) = points = expand({"seed": ["668"]}, tmp_path)
    _, sweep, lines = run(program, points)
    assert sweep.failed == [point.run_dir]
    assert lines[-1].endswith("failed, exit code 0, but no summary.json of its end")


DAMAGED = [
    *("", "{", "[1, 2]", "null", "\0", "[" * 100_000, "1" * 5000),
    *('{"signal": null}', '{"signal": null, "num_frames": "100"}', '{"num_frames": true}'),
]


def test_a_damaged_summary_fails_its_run_in_a_line_and_nothing_is_written(tmp_path, program):
    points = expand({"seed": ["1"], "total_frames": ["100"]}, tmp_path)
    run(program, points)
    for text in DAMAGED:
        (points[0].run_dir / "summary.json").write_text(text)
        before = folder_content(tmp_path)
        _, sweep, (line,) = run(program, points)
        assert sweep.failed == [points[0].run_dir], text[:40]
        assert "failed, " in line
        assert "summary.json must " in line
        assert folder_content(tmp_path) == before


@for_each("text", [*DAMAGED[:7], '{"seed1": 3}', '{"seed1": [1]}'])
def test_a_damaged_note_of_a_sweep_is_refused_and_kept(tmp_path, text):
    points = expand({"seed": ["1"]}, tmp_path)
    begin(points[0])
    (tmp_path / "sweep.json").write_text(text)
    before = folder_content(tmp_path)
    with pytest.raises(ConfigError, match=r"^\S*sweep\.json must "):
        record(points, tmp_path)
    assert folder_content(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    point = Point({"seed": "1"}, tmp_path / "run")
    point.run_dir.mkdir()
    (point.run_dir / "thesis.tex").touch()
    assert arguments_of(point) == ["seed=1", f"run_dir={point.run_dir}"]  # the program refuses it
    assert (point.run_dir / "thesis.tex").exists()


def test_a_failed_run_does_not_keep_the_others_from_running(tmp_path, program):
    points = expand({"seed": ["666", "2"]}, tmp_path)
    stop_signal, sweep, lines = run(program, points)
    assert stop_signal is None
    assert sweep.failed == [points[0].run_dir]
    assert any("failed, exit code 1" in line for line in lines)
    assert arguments_of(points[1]) is None


def test_a_run_that_cannot_be_begun_does_not_keep_the_others_from_running(
    tmp_path, program, monkeypatch
):
    points = expand({"seed": ["1", "2"]}, tmp_path)
    read_sound = sweeps.read_sound

    def fail(path):
        if path.parent == points[0].run_dir:
            raise OSError("the disk is gone")
        return read_sound(path)

    monkeypatch.setattr(sweeps, "read_sound", fail)
    stop_signal, sweep, lines = run(program, points)
    assert stop_signal is None
    assert sweep.failed == [points[0].run_dir]
    assert any("seed1: failed, the disk is gone" in line for line in lines)
    assert arguments_of(points[1]) is None


def test_other_settings_than_those_of_the_beginning_are_refused_by_name(tmp_path):
    sweep_dir = tmp_path / "sweep"

    def note(values):
        points = expand(values, sweep_dir)
        with occupied(sweep_dir):
            record(points, sweep_dir)
        return points

    note({"seed": ["1"], "discount": ["0.9"], "total_frames": ["100"]})  # it never began
    begin(*note({"seed": ["1"], "discount": ["0.99"], "total_frames": ["100"]}))
    begin(note({"seed": ["1", "2"], "discount": ["0.99"], "total_frames": ["200"]})[1])
    with pytest.raises(ConfigError, match=r"^discount must be 0.99, as when seed1 began, got 0.9"):
        note({"seed": ["1"], "discount": ["0.9"]})
    with pytest.raises(ConfigError, match=r"^discount must be 0.99, as when .*, got nothing\.$"):
        note({"seed": ["2"]})
    with pytest.raises(ConfigError, match=r"^lambda_ must be left alone, as when seed1 began, got"):
        note({"seed": ["1"], "discount": ["0.99"], "lambda_": ["1"]})
    # Without a note, the run's own settings tell, where something is to be as the sweep says.
    config = "env: Pong\nseed: 1\ndiscount: 0.9\nnetwork: mlp_ff\ntotal_frames: 100\n"
    (sweep_dir / "sweep.json").unlink()
    (sweep_dir / "pong-seed1").mkdir()
    (sweep_dir / "pong-seed1" / "config.yaml").write_text(config)
    same = {"env": ["pong"], "seed": ["1"], "network": ["auto"], "total_frames": ["2e2"]}
    with pytest.raises(ConfigError, match=r"^discount must be 0.9, as when pong-seed1 began, got"):
        note(same | {"discount": ["0.99"]})
    same["discount"] = ["0.90"]
    note(same)
    # What a run has had cannot be taken back; less is enough for one that has not come so far.
    (sweep_dir / "pong-seed1" / "summary.json").write_text('{"num_frames": 120}')
    noted = (sweep_dir / "sweep.json").read_text()
    with pytest.raises(
        ConfigError, match=r"^total_frames must be more than the 120 that .*, got 9"
    ):
        note(same | {"total_frames": ["90"]})
    assert (sweep_dir / "sweep.json").read_text() == noted
    note(same | {"total_frames": ["100"]})
    (sweep_dir / "pong-seed1" / "summary.json").write_text('{"num_frames": 80}')
    note(same | {"total_frames": ["90"]})


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_runs_at_once_share_the_cores(tmp_path, program):
    before = cores_of_thread()
    points = expand({"seed": ["1", "2", "3", "4", "666"]}, tmp_path)
    _, _, lines = run(program, points, jobs=2)
    log = tmp_path / "seed666.log"
    assert f"5/5 {log.with_suffix('')}: failed, exit code 1, see {log}" in lines
    shares = {tuple(calls(point.run_dir)[0]["cores"]) for point in points}
    assert shares <= {tuple(sorted(share)) for share in share_cores(2)}
    assert (tmp_path / "seed1.log").is_file()
    assert cores_of_thread() == before


@for_each(
    ("cores", "jobs", "expected"),
    [(4, 1, [{0, 1, 2, 3}]), (4, 2, [{0, 2}, {1, 3}]), (3, 2, [{0, 2}, {1}])],
)
@for_each("num_others", [0, 60])
def test_cores_are_shared_out_evenly(monkeypatch, cores, jobs, expected, num_others):
    monkeypatch.setattr(sweeps, "available_cores", lambda: cores)  # a container's share of more
    monkeypatch.setattr(sweeps, "cores_of_thread", lambda: set(range(cores + num_others)))
    assert share_cores(jobs) == expected


@for_each("jobs", [0, 4])
def test_more_jobs_than_cores_are_refused(monkeypatch, jobs):
    monkeypatch.setattr(sweeps, "available_cores", lambda: 3)
    with pytest.raises(ConfigError, match=f"jobs must be between 1 and 3, .*, got {jobs}"):
        share_cores(jobs)


@pytest.mark.parametrize("number", sweeps.SIGNALS)
def test_a_signal_reaches_the_runs_as_it_is_and_begins_no_other(tmp_path, program, number):
    points = expand({"env": ["Endless"], "seed": ["1", "2"]}, tmp_path)
    first = points[0].run_dir

    def interrupt():
        wait_until((first / "ready").exists)
        os.kill(os.getpid(), number)

    helper = threading.Thread(target=interrupt)
    helper.start()
    before = signal.getsignal(number)
    stop_signal, sweep, _ = run(program, points)
    helper.join()
    assert stop_signal == number
    assert sweep.failed == []
    assert json.loads((first / "summary.json").read_text())["signal"] == number
    assert not points[1].run_dir.exists()
    assert signal.getsignal(number) is before
    assert arguments_of(points[0]) == [f"resume={first}"]


def test_the_same_signal_at_once_is_one_and_later_another(program, monkeypatch):
    seconds = iter([100.0, 101.0, 103.0, 104.0])
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(sweeps, "time", clock)
    passed_on = []
    process = Mock(send_signal=passed_on.append)
    sweep = Sweep(program, [], 1, lambda line: None)
    sweep._processes.add(process)
    with sweep._passing_signals_on():
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
    assert passed_on == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]
    assert sweep._stop_signal == signal.SIGINT


def test_signals_that_are_ignored_stay_so(tmp_path, program, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    try:
        points = expand({"seed": ["1"]}, tmp_path)
        seen = []
        sweep = Sweep(program, points, 1, lambda line: seen.append(signal.getsignal(signal.SIGHUP)))
        assert sweep.run() is None
        assert seen == [signal.SIG_IGN]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_comes_while_a_run_is_being_started_ends_it(tmp_path, program, monkeypatch):
    (point,) = expand({"env": ["Endless"]}, tmp_path)
    sweep = Sweep(program, [point], 1, lambda line: None)
    started, start_process = [], subprocess.Popen

    def start(*arguments, **named):
        started.append(start_process(*arguments, **named))
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: sweep._stop_signal is not None)  # the main thread has noticed
        return started[0]

    timer = threading.Timer(PATIENCE_SECONDS, lambda: started[0].kill())
    timer.start()
    monkeypatch.setattr(subprocess, "Popen", start)
    assert sweep.run() == signal.SIGINT
    timer.cancel()
    timer.join()
    assert sweep.failed == []  # killed, it would have failed


def test_a_run_that_fails_when_it_is_stopped_is_told(tmp_path, program):
    (point,) = expand({"env": ["Endless"], "seed": ["667"]}, tmp_path)

    def interrupt():
        wait_until((point.run_dir / "ready").exists)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    stop_signal, sweep, lines = run(program, [point])
    helper.join()
    assert stop_signal == signal.SIGINT
    assert sweep.failed == [point.run_dir]
    assert any("failed, exit code 1" in line for line in lines)


def test_a_sweep_that_was_stopped_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Sweep, "run", lambda self, lock: signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        sweep_verb.main(
            [], {"sweep_dir": str(tmp_path / "sweep"), "env": "CartPole", "seed": "1,2"}
        )
    assert caught.value.code == 128 + signal.SIGTERM
    told = "stopped with 0 of 2 runs finished; to go on: the same command\n"
    assert capsys.readouterr().err == told


def test_two_sweeps_in_one_folder_are_refused(tmp_path):
    with (
        occupied(tmp_path / "sweep"),
        pytest.raises(ConfigError, match=r"^sweep_dir must not be that of a sweep, .*sweep\.$"),
        occupied(tmp_path / "sweep"),
    ):
        pass
    with occupied(tmp_path / "sweep"):
        pass


def test_a_folder_of_a_run_is_refused(tmp_path):
    (tmp_path / "config.yaml").touch()
    with (
        pytest.raises(ConfigError, match=r"^sweep_dir must not be the folder of a run, got "),
        occupied(tmp_path),
    ):
        pass
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_run_that_outlives_its_sweep_keeps_the_folder_occupied(tmp_path, program):
    (point,) = expand({"env": ["Endless"]}, tmp_path)
    stack = contextlib.ExitStack()
    lock = stack.enter_context(occupied(tmp_path))
    refused = []

    def leave():
        wait_until((point.run_dir / "ready").exists)
        stack.close()  # as when the sweep is killed
        try:
            with occupied(tmp_path):
                pass
        except ConfigError as error:
            refused.append(str(error))
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=leave)
    helper.start()
    run(program, [point], lock=lock)
    helper.join()
    assert len(refused) == 1
    with occupied(tmp_path):
        pass


@for_each("name", ["file", "file/sweep"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"^sweep_dir must be writable, got "),
        occupied(tmp_path / name),
    ):
        pass
