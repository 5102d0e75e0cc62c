import dataclasses
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib
import pytest

from a3cjax.commands import VERBS, main, train
from a3cjax.commands.arguments import parse
from a3cjax.commands.beginning import importing
from a3cjax.config.settings import Config
from a3cjax.errors import EXTRAS, ConfigError, missing_extra
from tests.cases import for_each
from tests.fakes import PATIENCE_SECONDS, compilation_cache_options, wait_until

ROOT = Path(__file__).parents[2]
RUN, EVALUATE, SWEEP = "train", "evaluate", "sweep"
SMALL = (
    "num_actors=1",
    "envs_per_actor=2",
    "unroll_length=10",
    "warmup_steps=16",
    "eval_episodes=2",
    "video=false",
    "run_dir=run",
)

# A Gymnasium module as a user may have one: five steps an episode, and a defect on demand.
BREAKING_MODULE = """
import ctypes
import os
import time

import gymnasium
import numpy as np


class Breaking(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.num_steps = self.num_steps_ever = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return self.observation(), {}

    def observation(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        self.num_steps += 1
        self.num_steps_ever += 1
        if self.num_steps_ever > int(os.environ.get("BREAK_AFTER", 10**9)):
            raise OSError("the emulator broke")
        if self.num_steps_ever > int(os.environ.get("LEAVE_AFTER", 10**9)):
            os._exit(0)
        if self.num_steps_ever > int(os.environ.get("HANG_AFTER", 10**9)):
            time.sleep(10**6)
        if self.num_steps_ever > int(os.environ.get("CRASH_AFTER", 10**9)):
            ctypes.string_at(0)
        reward = float(action)
        if self.num_steps_ever > int(os.environ.get("NAN_AFTER", 10**9)):
            reward = float("nan")
        return self.observation(), reward, self.num_steps == 5, False, {}


gymnasium.register("Breaking-v0", Breaking)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a program in this process as if from the command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(program, *arguments):
        monkeypatch.setattr(sys, "argv", ["a3cjax", program, *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def start(tmp_path, tmp_path_factory):
    """Starts a program in a process and an empty folder of its own."""
    options = compilation_cache_options(tmp_path_factory)
    processes = []

    def start_process(program, *arguments, **variables):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **{name.upper(): str(value) for name, value in options.items()},
            **variables,
        }
        environment = {name: value for name, value in environment.items() if value}
        process = subprocess.Popen(
            [sys.executable, "-m", "a3cjax", program, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def end_of(process):
    """What a program prints until it ends: a sweep is several, one after another."""
    return process.communicate(timeout=4 * PATIENCE_SECONDS)


def assert_refused(answer, *words):
    """Exit code 2 and one line that holds these words."""
    code, _, err = answer
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


# Wrong names and values.


@for_each(
    ("argument", "words"),
    [
        ("evn=Pong", ["evn", "nearest: env"]),
        ("unrol_length=20", ["unrol_length", "nearest: unroll_length"]),
        ("+evn=Pong", ["evn", "nearest: env"]),
        ("env=Pnog", ["env must be", "got Pnog", "nearest: Pong"]),
        ("env=PongNoFrameskip-v4", ["env must be", "here it is Pong."]),
        ("env=gymnasium:CartPoel-v1", ["env must be", "CartPole"]),
        ("env=gymnasium:no_such_module:X-v0", ["env must be", "no_such_module"]),
        ("env=gymnasium:a:b:X-v0", ["env must be in a module to import", "got gymnasium:a:b:X-v0"]),
        ("preset=papr", ["preset", "papr", "paper"]),
        ("preset=", ["preset must be one of laptop, paper, paper_mujoco, got ."]),
        (
            "algorithm=a2c",
            ["algorithm must be one of", "a3c", "in a3cjax.agents.ALGORITHMS, got a2c"],
        ),
        ("unroll_length=epsiode", ["a whole number, auto or episode, got 'epsiode'"]),
        ("unroll_length=100", ["total_frames must be at least the 800 of one update", "got 100."]),
        ("exploration_frames=101", ["exploration_frames must be between 1 and 100, got 101."]),
        ("discount=1.5", ["discount must be between 0 and 1, got 1.5."]),
        ("total_frames=1e30", ["total_frames must be between 1 and 10000"]),
        ("seed=1,2", ["seed must be a whole number, got '1,2'", "a3cjax sweep seed=1,2"]),
        ("env=Pong,Breakout", ["a3cjax sweep env=Pong,Breakout"]),
        ("seed=range(3,3)", ["seed must be a whole number, got 'range(3,3)'"]),
        ("lr=1e-3", ["lr", "here it is learning_rate"]),
        ("--env Pong", ["name=value: env=Pong, got --env Pong."]),
        ("--env=Pong", ["name=value: env=Pong, got --env=Pong."]),
        ("--total-timesteps 1e6", ["name=value: total_frames=1e6, got --total-timesteps 1e6."]),
        ("--deterministic", ["name=value: deterministic=true, got --deterministic."]),
        ("--nonsense 3", ["name=value, got --nonsense."]),
        ("Pong", ["name=value: env=Pong, got Pong."]),
    ],
)
def test_wrong_settings_are_refused_in_one_line(command, argument, words):
    assert_refused(command(RUN, *SMALL, "total_frames=100", *argument.split()), *words)
    assert os.listdir() == []


@for_each(
    ("argument", "is_told"),
    [
        ("algorithm=a3c,ppo", True),
        ("devices=cuda:7,cuda:8", False),  # one value, of devices that are not here
        ("env_kwargs={a: 1, b: 2}", False),
        ("total_frames=1,000", False),
        ("discount=0,99", False),
        ("run_dir=a,b", False),
    ],
)
def test_a_sweep_is_named_only_where_it_has_several_right_values(monkeypatch, argument, is_told):
    name, _, text = argument.partition("=")

    def refuse(texts):
        raise ConfigError(f"{name} must be another, got {texts[name]}.")

    monkeypatch.setattr(train, "read_config", refuse)
    with pytest.raises(ConfigError) as caught:
        train.main([], {name: text})
    assert ("several values: a3cjax sweep" in str(caught.value)) == is_told


@for_each(
    ("argument", "example"),
    [
        *((f"env{between}Catch", "env=Catch") for between in (" = ", ": ", " ", ":", " =")),
        ("lr = 1e-3", "learning_rate=1e-3"),
        ("env:", "env=..."),
        ("=3", None),
        ("gymnasium:CartPole-v1", "env=gymnasium:CartPole-v1"),
    ],
)
def test_settings_in_another_form_are_answered_by_their_own(argument, example):
    with pytest.raises(ConfigError) as caught:
        parse([argument], Config)
    shown = "" if example is None else f": {example}"
    assert str(caught.value) == f"Settings are given as name=value{shown}, got {argument}."


def test_wrong_settings_of_a_sweep_are_refused(command, tmp_path):
    assert_refused(command(RUN, "-m", "evn=Pong,Breakout"), "nearest: env")
    assert list(tmp_path.iterdir()) == []


def test_refusal_reaches_the_shell(start):
    process = start(RUN, "env=Pnog")
    _, err = end_of(process)
    assert_refused((process.returncode, "", err), "nearest: Pong")


@for_each(
    ("folder", "words"),
    [
        ("nothing", ["no run folder nothing", "beamrider, breakout, pong, qbert, spaceinvaders"]),
        (".", ["config.yaml", "got ."]),
    ],
)
def test_evaluating_what_is_no_run_folder_is_refused(command, folder, words):
    assert_refused(command(EVALUATE, folder), *words)
    assert os.listdir() == []


@for_each(
    ("argument", "words"),
    [
        *((f"num_episodes={value}", ["num_episodes must be"]) for value in ("0", "-1", "x", "1e9")),
        *((f"sticky_actions={value}", ["sticky_actions must be"]) for value in ("1.1", "nan", "x")),
        ("--episodes 100", ["name=value: num_episodes=100"]),
        ("--greedy", ["name=value: greedy=true"]),
        ("deterministic=true", ["here it is greedy"]),
        ("env=Pong", ["no setting named env"]),
        ("another", ["name=value, got another"]),
        ("output=", ["output must be a path"]),
        ("output=missing/scores.json", ["the place of a result must be in a folder that exists"]),
        ("output=.", ["the place of a result must be a file, got ."]),
    ],
)
def test_evaluation_with_what_it_does_not_take_is_refused(command, argument, words):
    assert_refused(command(EVALUATE, ".", *argument.split()), *words)
    assert os.listdir() == []


@for_each("verb", VERBS)
def test_every_verb_has_help(command, verb):
    code, out, err = command(verb, "--help")
    module = importlib.import_module(f"a3cjax.commands.{verb}")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: a3cjax {verb}")
    assert module.__doc__.strip() in out
    for kind in module.SETTINGS:
        for field in dataclasses.fields(kind):
            assert f"\n  {field.name}=" in out
    assert os.listdir() == []


@for_each("verb", [verb for verb in VERBS if verb not in ("train", "sweep", "doctor")])
def test_verbs_about_an_agent_or_runs_want_one(command, verb):
    assert_refused(command(verb), "must be given, got nothing")
    assert_refused(command(verb, "", "out"), "must be given, got ''")


def test_last_of_a_name_counts_and_folders_may_have_equal_signs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    arguments = ["seed=1", "lr=0.1", "seed=2=3", "runs/lr=0.2"]
    words, texts = parse(arguments, Config, places="<run folder> ...")
    assert (words, texts) == (["lr=0.1", "runs/lr=0.2"], {"seed": "2=3"})


def test_a_path_that_begins_with_a_dash_is_told_how_it_is_given(command):
    for verb, words in (EVALUATE, ["-run"]), ("publish", ["./-run", "-out"]):
        assert_refused(command(verb, *words), f"got {words[-1]} (a path: ./{words[-1]}).")
    assert_refused(command(RUN, "-x"), "name=value, got -x.")


def test_verb_that_is_none_is_answered_with_the_nearest(command):
    assert_refused(command("trian", "env=Pong"), "train, evaluate", "got trian; nearest: train")
    code, out, _ = command("--help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in VERBS)


@for_each("verb", VERBS)
def test_missing_extra_is_said_in_one_line(verb):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        error = missing_extra(verb, ModuleNotFoundError("none", name=f"{package}.part"))
        assert f"a3cjax {verb} needs {package}" in str(error)
        assert f".[{extra}]" in str(error)
        names = {"yaml": "PyYAML", "PIL": "pillow"}
        assert any(line.startswith(names.get(package, package)) for line in extras[extra])
    other = ModuleNotFoundError("none", name="somebodys_module")
    assert missing_extra(verb, other) is other


def test_imports_are_announced_and_spared_the_garbage_collector(capsys):
    with importing():
        assert capsys.readouterr().out == "importing JAX and envpool ...\n"
        assert not gc.isenabled()
    assert gc.isenabled()


# Runs.


def test_sweep_runs_all_reports_and_started_again_runs_none(start, tmp_path):
    settings = [setting for setting in SMALL if not setting.startswith("run_dir")]
    arguments = ["sweep_dir=sweep", "env=CartPole", "seed=range(3,5)", "total_frames=60", *settings]
    told_by_turns = ("sweep/CartPole-seed4: env=CartPole", "sweep/CartPole-seed4: finished before")
    for verb, told in zip(((SWEEP,), (RUN, "-m")), told_by_turns, strict=True):
        process = start(*verb, *arguments, "eval_episodes=0")
        out, err = end_of(process)
        assert process.returncode == 0, err
        assert told in out
        assert "written to sweep/report.html" in out
    for seed in (3, 4):
        folder = tmp_path / "sweep" / f"CartPole-seed{seed}"
        assert json.loads((folder / "summary.json").read_text())["seed"] == seed
    assert "CartPole" in (tmp_path / "sweep" / "report.html").read_text()


@for_each(
    ("arguments", "words"),
    [
        (["jobs=0"], ["jobs", "got 0"]),
        (["jobs=many"], ["jobs", "got 'many'"]),
        (["jobs=100000"], ["jobs", "got 100000"]),
        (["env=Pong,Brekout"], ["env", "nearest: Breakout"]),
        (["seeed=1,2"], ["seeed", "nearest: seed"]),
        (["seed=1,x"], ["seed", "'x'"]),
        (["seed=1,1"], ["each run once", "seed1"]),
        (["discount=0.9,2"], ["discount", "got 2"]),
        (["run_dir=here"], ["run_dir", "got here"]),
        (["Pong"], ["name=value", "got Pong"]),
        (["seed=1,,2"], ["seed"]),
        (["seed=range(3,3)"], ["A range must have at least one value, got range(3,3)."]),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_starts(command, arguments, words):
    assert_refused(command(SWEEP, "sweep_dir=sweep", *arguments), *words)
    assert os.listdir() == []


@pytest.mark.slow
def test_second_run_of_a_configuration_compiles_nothing(start, tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MPLCONFIGDIR": matplotlib.get_configdir()}
    arguments = (*SMALL, "env=CartPole", "total_frames=100", "eval_episodes=0")
    compiled = []
    for seed in (1, 2):
        process = start(
            RUN,
            *arguments,
            f"seed={seed}",
            f"run_dir=run{seed}",
            JAX_COMPILATION_CACHE_DIR="",
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1.0",
            **home,
        )
        _, err = end_of(process)
        assert process.returncode == 0, err
        # Of the many programs, the one that always takes long enough to be kept, on any machine.
        programs = (tmp_path / "cache").rglob("jit_compute_gradients-*-cache")
        compiled.append({path.name for path in programs})
    assert compiled[0]
    assert compiled[1] == compiled[0]


def start_endless(start, run_dir):
    """A run of CartPole that has learned something."""
    process = start(RUN, "env=CartPole", "total_frames=1000000000", "log_period_frames=20", *SMALL)
    metrics = run_dir / "metrics.csv"

    def has_learned():
        assert process.poll() is None, process.communicate()
        return metrics.exists() and metrics.read_text().count("\n") >= 2

    wait_until(has_learned)
    return process


def test_interrupt_saves_and_exits_with_130(start, tmp_path):
    run_dir = tmp_path / "run"
    process = start_endless(start, run_dir)
    process.send_signal(signal.SIGINT)
    out, err = end_of(process)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "entropy" in out  # a plain line of progress
    assert "SIGINT: stopping, then saving\n" in out
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["signal"] == signal.SIGINT
    assert summary["num_updates"] > 0
    assert (run_dir / "checkpoints" / f"{summary['num_frames']}.safetensors").is_file()
    assert "a3cjax train env=CartPole" in summary["command"]


def test_run_whose_folder_is_moved_saves_and_says_so_in_one_line(start, tmp_path):
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    process = start_endless(start, run_dir)
    run_dir.rename(moved)
    _, err = end_of(process)
    assert process.returncode == 1
    assert "Traceback" not in err
    told = "\nerror: the run folder run was moved or removed while the run went on;"
    assert told in f"\n{err}"  # XLA may have written before
    (last,) = (run_dir / "checkpoints").iterdir()
    assert int(last.stem) > max(int(path.stem) for path in (moved / "checkpoints").iterdir())


def test_failure_exits_with_1_and_leaves_a_run_to_evaluate(start, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING_MODULE)
    process = start(RUN, "env=gymnasium:breaking:Breaking-v0", *SMALL, BREAK_AFTER="60")
    _, err = end_of(process)
    assert process.returncode == 1
    assert "Traceback" in err
    assert 'breaking.py", line' in err
    assert "OSError: the emulator broke" in err
    assert "actor-learner-0" in err

    process = start(EVALUATE, "run", "stall_timeout_seconds=15", HANG_AFTER="3")
    _, err = end_of(process)
    assert process.returncode == 1
    assert "error: no progress for 15 s: run (running)" in err
    assert 'breaking.py", line' in err

    process = start(EVALUATE, "run")
    out, err = end_of(process)
    assert process.returncode == 0, err
    assert "evaluation-greedy-2.json" in out
    result = json.loads((tmp_path / "run" / "evaluation-greedy-2.json").read_text())
    assert result["lengths"] == [5, 5]  # whole games
    assert result["num_episodes"] == 2


@pytest.mark.parametrize(
    ("fault", "code", "named"),
    [("LEAVE_AFTER", 0, ""), ("CRASH_AFTER", -signal.SIGSEGV, 'breaking.py", line')],
)
def test_environment_that_ends_the_process_is_spoken_of(start, tmp_path, fault, code, named):
    (tmp_path / "breaking.py").write_text(BREAKING_MODULE)
    process = start(RUN, "env=gymnasium:breaking:Breaking-v0", *SMALL, **{fault: "60"})
    _, err = end_of(process)
    assert process.returncode == code
    assert named in err
    assert not (tmp_path / "run" / "summary.json").exists()  # without it, 0 is no success
    assert err.endswith(
        "a3cjax: the process ended without a word. to go on: a3cjax train resume=run\n"
    )


def test_reward_that_is_no_number_exits_with_1_and_saves_what_was_learned(start, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING_MODULE)
    process = start(RUN, "env=gymnasium:breaking:Breaking-v0", *SMALL, NAN_AFTER="60")
    _, err = end_of(process)
    assert process.returncode == 1
    where = "in step() of gymnasium:breaking:Breaking-v0 (environment 0 of the batch)"
    assert f"error: rewards must be finite, got nan {where}." in err
    saved = [int(path.stem) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved) > min(saved)  # the first one is written before the first update
