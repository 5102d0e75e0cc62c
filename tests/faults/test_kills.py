"""The real program, killed again and again, goes on every time and loses little."""

import collections
import contextlib
import csv
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import a3cjax
from a3cjax.config.reading import load_config
from a3cjax.runs.checkpoints import Checkpointer, Progress
from tests.fakes import PATIENCE_SECONDS, compilation_cache_options, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[2]
NUM_KILLS = 25
NUM_KILLS_IN_A_CHECKPOINT = 10
CHECKPOINT_PERIOD = 4_000
# The program writes a row, looks whether a checkpoint is due, and if so writes another row, up to
# where the checkpoint is, and saves it. So killed before that is done it has written two rows at
# most since the checkpoint was due.
MAX_LATE_ROWS = 2
SETTINGS = (
    *("env=CartPole", "total_frames=100000000", "num_actors=2", "envs_per_actor=2"),
    *("unroll_length=5", "warmup_steps=16", "eval_episodes=0", "log_period_frames=500"),
    *(f"checkpoint_period_frames={CHECKPOINT_PERIOD}", "run_dir=run", "video=false"),
)
# On a disk so slow that the writing of a checkpoint can be seen and cut short.
PROGRAM = """
import os, time
fsync = os.fsync
os.fsync = lambda file: (time.sleep(0.02), fsync(file))
from a3cjax.commands import main
main()
"""


class Program:
    """`a3cjax train` in a folder, started as often as wanted."""

    def __init__(self, folder, options):
        self.folder = folder
        self.run_dir = folder / "run"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **{name.upper(): str(value) for name, value in options.items()},
        }
        self._processes, self._writers = [], []

    def start(self, *arguments, program=("-c", PROGRAM)):
        """Starts it; what it prints goes through `cat`, which no limit of its own binds."""
        path = self.folder / f"output-{len(self._processes)}.txt"
        process = subprocess.Popen(
            [sys.executable, *program, "train", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with path.open("w") as file:
            self._writers.append(subprocess.Popen(["cat"], stdin=process.stdout, stdout=file))
        assert process.stdout is not None
        process.stdout.close()
        self._processes.append(process)
        return process

    def wait_until(self, condition):
        """Waits for what the last one is about to do."""

        def is_true():
            assert self._processes[-1].poll() is None, f"it ended by itself:\n{self.output()}"
            return condition()

        wait_until(is_true)

    def output(self):
        """What the last one printed, once it has ended."""
        self._writers[-1].wait(PATIENCE_SECONDS)
        return self.output_so_far()

    def output_so_far(self):
        return (self.folder / f"output-{len(self._processes) - 1}.txt").read_text()

    def close(self):
        for process in self._processes:
            process.kill()
        for process in self._processes + self._writers:
            process.wait()


@pytest.fixture
def program(tmp_path, tmp_path_factory):
    with contextlib.closing(Program(tmp_path, compilation_cache_options(tmp_path_factory))) as it:
        yield it


def read_rows(path):
    """All rows of a CSV file but one that a kill cut short."""
    if not path.exists():
        return []
    header, *lines = path.read_text().split("\n")[:-1] or [""]
    rows = list(csv.DictReader([header, *lines]))
    assert all(None not in row and None not in row.values() for row in rows), path
    return rows


def last_frames(run_dir):
    """The number of frames that the log has come to."""
    rows = read_rows(run_dir / "metrics.csv")
    return int(rows[-1]["num_frames"]) if rows else 0


def new_frames(run_dir, began):
    """As `last_frames`, 0 as long as nothing was written after this moment."""
    path = run_dir / "metrics.csv"
    is_new = path.exists() and path.stat().st_mtime > began
    return last_frames(run_dir) if is_new else 0


def read_progress(run_dir):
    return Checkpointer(run_dir / "checkpoints").read_progress() or Progress()


def unfinished(run_dir):
    """Names of checkpoints that are being written, or whose writing was cut short."""
    return {path.name for path in (run_dir / "checkpoints").glob("*.part")}


def stop_while_it_saves(program, process, left_over):
    """Halts it when it has begun to write a checkpoint and has not come to the end of it."""
    while True:
        program.wait_until(lambda: unfinished(program.run_dir) - left_over)
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        if unfinished(program.run_dir) - left_over:
            return
        process.send_signal(signal.SIGCONT)


def count_checkpoints(run_dir):
    """How many checkpoints are complete."""
    return len(list((run_dir / "checkpoints").glob("*.safetensors")))


def check_that_all_files_parse(run_dir):
    read_rows(run_dir / "metrics.csv")
    read_rows(run_dir / "episodes.csv")
    load_config(run_dir)


def live_and_be_killed(program, arguments, before, delay_seconds):
    """One life of the program: it gets further than `before`, is killed and loses little.

    It is killed after `delay_seconds`, or, where that is None, while it saves.

    Returns:
      Its last checkpoint's progress, and whether it was killed in the middle of a checkpoint.
    """
    run_dir, began = program.run_dir, time.time()
    process = program.start(*arguments)
    # Every life gets further than the checkpoint it began with.
    program.wait_until(lambda: new_frames(run_dir, began) > before.num_frames + 1000)
    left_over = unfinished(run_dir)
    if delay_seconds is None:
        stop_while_it_saves(program, process, left_over)
    else:
        time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    is_in_a_checkpoint = bool(unfinished(run_dir) - left_over)

    saved = read_progress(run_dir)
    check_that_all_files_parse(run_dir)
    assert saved.num_frames >= before.num_frames
    assert saved.num_updates >= before.num_updates
    assert saved.wall_seconds >= before.wall_seconds
    frames = [int(row["num_frames"]) for row in read_rows(run_dir / "metrics.csv")]
    assert sum(n - saved.num_frames > CHECKPOINT_PERIOD for n in frames) <= MAX_LATE_ROWS
    return saved, is_in_a_checkpoint


def test_killed_at_random_moments_it_goes_on_every_time(program):
    generator = random.Random(0)
    moments = ["saving"] * NUM_KILLS_IN_A_CHECKPOINT
    moments += ["any"] * (NUM_KILLS - NUM_KILLS_IN_A_CHECKPOINT)
    generator.shuffle(moments)
    run_dir, saved, killed_in_a_checkpoint = program.run_dir, Progress(), 0
    arguments = SETTINGS
    for moment in moments:
        delay_seconds = None if moment == "saving" else generator.uniform(0.0, 2.0)
        saved, is_in_a_checkpoint = live_and_be_killed(program, arguments, saved, delay_seconds)
        killed_in_a_checkpoint += is_in_a_checkpoint
        arguments = ("resume=run",)
    print(f"{NUM_KILLS} kills, {killed_in_a_checkpoint} in the middle of a checkpoint")
    assert killed_in_a_checkpoint >= NUM_KILLS_IN_A_CHECKPOINT

    process = program.start("resume=run", f"total_frames={saved.num_frames + 20_000}")
    assert process.wait(PATIENCE_SECONDS) == 0, program.output()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["num_frames"] >= saved.num_frames + 20_000
    metrics, episodes = (read_rows(run_dir / f"{name}.csv") for name in ("metrics", "episodes"))
    assert int(metrics[-1]["num_frames"]) == summary["num_frames"]
    assert int(metrics[-1]["num_updates"]) == summary["num_updates"]
    for name in ("num_frames", "num_updates"):
        values = [int(row[name]) for row in metrics]
        assert all(a < b for a, b in itertools.pairwise(values)), name
    seconds = [float(row["wall_seconds"]) for row in metrics]
    assert seconds == sorted(seconds)
    frames = [int(row["num_frames"]) for row in episodes]
    assert frames == sorted(frames)
    assert len(episodes) == int(metrics[-1]["num_episodes"])


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_signals_save_and_exit_and_say_how_to_go_on(program, number):
    process = program.start(*SETTINGS)
    program.wait_until(lambda: last_frames(program.run_dir) > 1000)
    process.send_signal(number)
    process.send_signal(number)  # as one `timeout` does
    assert process.wait(PATIENCE_SECONDS) == 128 + number
    assert read_progress(program.run_dir).num_frames == last_frames(program.run_dir) > 1000
    output = program.output()
    assert f"{number.name}: stopping, then saving" in output
    assert "to go on: a3cjax train resume=run" in output
    assert "Traceback" not in output


# A whole life of the program: start, random play, compilation, learning, checkpoints, evaluation,
# film. The moments are drawn over somewhat more than it lasts.
LIFE = (
    *("env=CartPole", "total_frames=16000", "num_actors=2", "envs_per_actor=2"),
    *("unroll_length=5", "log_period_frames=500", "eval_episodes=10", "run_dir=run"),
    f"checkpoint_period_frames={CHECKPOINT_PERIOD}",
)
NUM_LIVES = 40  # with a kill, and as many with a signal


@pytest.mark.parametrize("kind", ["kill", "signal"])
def test_whatever_moment_of_its_life_ends_it_every_run_goes_on(program, kind):
    generator, began = random.Random(1), time.monotonic()
    process = program.start(*LIFE)
    assert process.wait(PATIENCE_SECONDS) == 0, program.output()
    life_seconds = time.monotonic() - began
    counts = collections.Counter()
    for index in range(NUM_LIVES):
        shutil.rmtree(program.run_dir)
        number = signal.SIGKILL if kind == "kill" else STOPPING[index % 3]
        process = program.start(*LIFE)
        # Both ends of the life are short, and most can go wrong there.
        time.sleep(generator.betavariate(0.7, 0.7) * life_seconds)
        process.send_signal(number)
        code = process.wait(PATIENCE_SECONDS)
        counts[stage_of(program.run_dir)] += 1
        told = f"life {index}, {number.name}:\n{program.output()}"
        if code != 0:  # it was over already
            # While Python starts and ends, nothing of the program is there that could answer; for
            # a shell both are 128 + number.
            is_outside = stage_of(program.run_dir) in ("start", "end")
            codes = {128 + number, -number} if is_outside or kind == "kill" else {128 + number}
            assert code in codes, told
        if not program.run_dir.exists():
            program.run_dir.mkdir()
            continue
        saved = read_progress(program.run_dir)
        check_that_all_files_parse(program.run_dir)
        frames = [int(row["num_frames"]) for row in read_rows(program.run_dir / "metrics.csv")]
        late = sum(n - saved.num_frames > CHECKPOINT_PERIOD for n in frames)
        assert late <= (MAX_LATE_ROWS if kind == "kill" else 0), told
        total_frames = f"total_frames={saved.num_frames + 5000}"
        process = program.start("resume=run", total_frames, "eval_episodes=0", "video=false")
        assert process.wait(PATIENCE_SECONDS) == 0, f"{told}\nthen:\n{program.output()}"
        frames = [int(row["num_frames"]) for row in read_rows(program.run_dir / "metrics.csv")]
        assert frames == sorted(set(frames))
        assert frames[-1] >= saved.num_frames + 5000
    print(f"{NUM_LIVES} lives of {life_seconds:.0f} s, ended by a {kind}: {dict(counts)}")


def stage_of(run_dir):
    """What a life came to, by the files that it left."""
    if not run_dir.exists():
        return "start"
    if not count_checkpoints(run_dir):
        return "random play"
    if not (run_dir / "summary.json").exists():
        return "learning"
    has_film = (run_dir / "play.mp4").exists()
    return "end" if has_film else "evaluation or film"


# A Gymnasium module whose environments get stuck as soon as there is a file `block`.
BLOCKING_MODULE = """
import pathlib, time
import gymnasium
import numpy as np

class Blocking(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        if pathlib.Path("block").exists():
            pathlib.Path("blocked").touch()
            time.sleep(1e6)
        return np.zeros(3, np.float32), 1.0, False, False, {}

gymnasium.register("Blocking-v0", Blocking, max_episode_steps=20)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_later_interrupt_ends_it_at_once(program, number):
    (program.folder / "blocking.py").write_text(BLOCKING_MODULE)
    env = "env=gymnasium:blocking:Blocking-v0"
    process = program.start(*SETTINGS, env)
    program.wait_until(lambda: last_frames(program.run_dir) > 1000)
    (program.folder / "block").touch()
    program.wait_until((program.folder / "blocked").exists)
    process.send_signal(number)
    program.wait_until(lambda: "waiting for actor-learner" in program.output_so_far())
    process.send_signal(number)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGINT
    assert not (program.run_dir / "summary.json").exists()
    assert "ended without a word. to go on: a3cjax train resume=run" in program.output()


def test_process_that_is_stopped_and_goes_on_is_not_taken_for_stalled(program):
    process = program.start(*SETTINGS, "stall_timeout_seconds=5")
    program.wait_until(lambda: last_frames(program.run_dir) > 1000)
    process.send_signal(signal.SIGSTOP)
    time.sleep(40)  # more than the watch inside and the witness outside wait for a sign of life
    process.send_signal(signal.SIGCONT)
    frames = last_frames(program.run_dir)
    program.wait_until(lambda: last_frames(program.run_dir) > frames + 10_000)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 143, program.output()


# Two runs differ in nothing but where they run and what runs beside them.
DETERMINISTIC = (
    *("env=Catch", "deterministic=true", "num_actors=2", "total_frames=20000"),
    *("eval_episodes=0", "video=false", "tensorboard=false"),
)


def test_deterministic_runs_are_equal_on_one_core_and_two_and_beside_a_busy_loop(program):
    before = os.sched_getaffinity(0)
    cores = sorted(before)[:2]
    places = {"first": cores[:1], "last": cores[-1:], "both": cores, "busy": cores}
    leaves = {}
    for name, own in places.items():
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in own
            if name == "busy"
        ]
        try:
            os.sched_setaffinity(0, own)
            process = program.start(*DETERMINISTIC, f"run_dir={name}")
            assert process.wait(PATIENCE_SECONDS) == 0, program.output()
        finally:
            os.sched_setaffinity(0, before)
            for loop in busy:
                loop.kill()
                loop.wait()
        snapshot = a3cjax.load(program.folder / name).snapshot
        leaves[name] = jax.tree.leaves(snapshot.params)
    for name in places:
        jax.tree.map(np.testing.assert_array_equal, leaves[name], leaves["both"])


def test_full_disk_ends_it_with_a_line_and_leaves_the_last_checkpoint(program):
    process = program.start(*SETTINGS)
    program.wait_until(lambda: count_checkpoints(program.run_dir) > 0)
    # No file of this process may grow beyond 100 bytes from now on.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    assert process.wait(PATIENCE_SECONDS) == 1
    assert re.search("^error: .*cannot be written", program.output(), re.M), program.output()
    saved = read_progress(program.run_dir)
    assert saved.num_frames > 0
    process = program.start("resume=run", f"total_frames={saved.num_frames + 5000}")
    assert process.wait(PATIENCE_SECONDS) == 0, program.output()
