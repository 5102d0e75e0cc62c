import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

from a3cjax.actors import warmup
from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.supervisor import StallError
from a3cjax.config.builders import init_state
from a3cjax.config.reading import load_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.envs.base import Episode
from a3cjax.envs.batches import VectorEnvironments
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.logs.journal import BadUpdatesError
from a3cjax.logs.loggers import CsvLogger
from a3cjax.logs.tracking import TensorBoardLogger
from a3cjax.runs.checkpoints import FORMAT, Checkpointer, seal
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import BEST, write_config
from a3cjax.runs.loading import load
from a3cjax.runs.tables import EpisodeRow
from a3cjax.training import learning, mustering
from a3cjax.training.run import train
from tests.cases import for_each
from tests.fakes import PATIENCE_SECONDS, wait_until

CONFIG = Config(
    env="CartPole",
    total_frames=1500,
    num_actors=1,
    envs_per_actor=4,
    unroll_length=10,
    warmup_steps=16,
    log_period_frames=400,
    eval_episodes=3,
    video=False,
)
# Longer than anything that works is silent, on a busy machine, too.
STALL_SECONDS = 5.0
ENDLESS = CONFIG.replace(total_frames=10**9, eval_episodes=0)
WARMUP_FRAMES, FRAMES_PER_UPDATE = 16 * 4, 10 * 4


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Actors that are asked to stop may take their time: the machine may be busy."""
    monkeypatch.setattr(warmup, "JOIN_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(learning, "FAILURE_JOIN_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The summary of a run that came to its end."""
    return train(CONFIG.replace(run_dir=str(tmp_path_factory.mktemp("runs") / "finished")))


@contextlib.contextmanager
def listening_to_durations(listen):
    """Has `listen(name, seconds, ...)` called for what JAX tells of its work."""
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_episodes(run_dir):
    """All of episodes.csv that does not tell the time."""
    rows = read_rows(run_dir / "episodes.csv")
    return [{name: row[name] for name in row if name != "wall_seconds"} for row in rows]


def read_params(run_dir):
    snapshot = load(run_dir).snapshot
    return jax.tree.leaves(snapshot.params)


def actor_threads():
    return [thread.name for thread in threading.enumerate() if "actor-learner" in thread.name]


# The run folder.


def test_run_folder_is_complete(finished):
    names = {path.name for path in finished.run_dir.iterdir()}
    (events,) = (name for name in names if name.startswith("events.out.tfevents."))
    assert names - {events} == {
        "config.yaml",
        "environment.json",
        "run.lock",
        "metrics.csv",
        "episodes.csv",
        "evaluations.csv",
        "summary.json",
        "checkpoints",
        "best",
        "curves.png",
    }
    assert (finished.run_dir / events).stat().st_size > 1000
    assert (finished.run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_config_file_holds_every_setting_of_the_resolved_config(finished):
    text = (finished.run_dir / "config.yaml").read_text()
    for field in dataclasses.fields(Config):
        assert re.search(rf"^{field.name}: ", text, re.MULTILINE)
    config = load_config(finished.run_dir)
    assert config == CONFIG.replace(
        algorithm="a3c",
        discount=0.99,
        lambda_=0.95,
        network="mlp_ff",
        image_layout="none",
        run_dir=str(finished.run_dir),
        value_cost=0.5,
        entropy_cost=0.01,
        target_entropy=None,
        centre_observations=True,
        exploration_frames=300,
        optimizer="adam",
        learning_rate=3e-3,
        decay=0.999,
        epsilon=1e-5,
        momentum=0.0,
        max_grad_norm=40.0,
        normalize_rewards=True,
        normalize_advantages=True,
        greedy_evaluation=True,
        kernels=False,
    )


def test_budget_of_frames_is_kept(finished):
    # The random play before counts too; one update may reach beyond the end.
    assert 1500 <= finished.num_frames < 1500 + FRAMES_PER_UPDATE
    num_updates = json.loads((finished.run_dir / "summary.json").read_text())["num_updates"]
    assert (num_updates - 1) * FRAMES_PER_UPDATE < 1500
    # Automatic resets cost no frames.
    assert finished.num_frames < WARMUP_FRAMES + num_updates * FRAMES_PER_UPDATE


def test_metrics_have_their_columns_and_count_up_to_the_end_of_the_run(finished):
    rows = read_rows(finished.run_dir / "metrics.csv")
    columns = (
        "num_frames num_updates wall_seconds frames_per_second episode_return_mean policy_loss "
        "value_loss entropy grad_norm staleness_mean lock_wait_fraction"
    )
    assert set(columns.split()) <= set(rows[0])
    assert not any(value in (None, "") for row in rows for value in row.values())
    for name in ("num_frames", "num_updates", "wall_seconds"):
        values = [float(row[name]) for row in rows]
        assert all(np.diff(values) > 0)
    frames = [int(row["num_frames"]) for row in rows]
    assert all(np.diff(frames)[:-1] >= 400)
    assert all(float(row["staleness_mean"]) == 0 for row in rows)  # a single actor
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert frames[-1] == summary["num_frames"] == finished.num_frames
    assert int(rows[-1]["num_updates"]) == summary["num_updates"]


def test_episodes_agree_with_the_metrics(finished):
    rows = read_rows(finished.run_dir / "episodes.csv")
    last = read_rows(finished.run_dir / "metrics.csv")[-1]
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert tuple(rows[0]) == EpisodeRow._fields
    assert len(rows) == int(last["num_episodes"])
    frames = [int(row["num_frames"]) for row in rows]
    assert frames == sorted(frames)
    assert frames[-1] <= finished.num_frames
    returns = [float(row["episode_return"]) for row in rows]
    assert returns == [float(row["episode_length"]) for row in rows]  # CartPole: 1 a step
    assert float(last["episode_return_mean"]) == pytest.approx(np.mean(returns[-100:]), rel=1e-5)
    assert summary["training_return_mean"] == pytest.approx(np.mean(returns[-100:]))
    assert {row["actor"] for row in rows} == {"0"}


def test_summary_tells_result_and_origin(finished):
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert (summary["env"], summary["seed"], summary["signal"]) == ("CartPole", 1, None)
    assert summary["evaluation"] == finished.evaluation.as_dict()
    assert summary["evaluation"]["num_episodes"] == 3
    assert summary["evaluation"]["actions"] == "greedy"
    seconds = summary["num_frames"] / summary["frames_per_second"]
    assert summary["training_seconds"] == pytest.approx(seconds, abs=0.06)  # it has one digit
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["machine"]["cores"] >= 1
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", summary["commit"])
    assert summary["command"].startswith("python ")


def test_checkpoint_is_the_end_of_the_run(finished):
    snapshot = load(finished.run_dir).snapshot
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert (snapshot.num_frames, snapshot.version) == (finished.num_frames, summary["num_updates"])
    assert snapshot.statistics is not None
    assert snapshot.statistics.mean.shape == (4,)


def test_final_evaluation_can_be_repeated(finished):
    scores = finished.evaluation.scores
    assert load(finished.run_dir).evaluate().scores == scores
    assert load(finished.run_dir).evaluate(3, is_greedy=False).scores != scores


# Reproducibility.


def test_runs_of_one_seed_and_actor_are_equal_bit_by_bit(finished, tmp_path):
    again = train(CONFIG.replace(run_dir=str(tmp_path / "again")))
    assert again.num_frames == finished.num_frames
    assert read_episodes(again.run_dir) == read_episodes(finished.run_dir)
    for one, other in zip(read_params(again.run_dir), read_params(finished.run_dir), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.evaluation.scores == finished.evaluation.scores


def test_runs_of_another_seed_differ_and_compile_nothing(finished, tmp_path):
    train(CONFIG.replace(run_dir=str(tmp_path / "again")))  # others may have run since `finished`
    compiled = []
    with listening_to_durations(lambda name, *_, **__: compiled.append(name)):
        other = train(CONFIG.replace(run_dir=str(tmp_path / "other"), seed=2))
    assert not [name for name in compiled if "compile" in name]
    assert read_episodes(other.run_dir) != read_episodes(finished.run_dir)
    params = zip(read_params(other.run_dir), read_params(finished.run_dir), strict=True)
    assert not any(np.array_equal(one, other) for one, other in params)


# Several actors, failures and signals.


def watch_steps(monkeypatch, watch):
    """Has `watch(actor, num_steps)` called in the actors' threads before every step."""
    step, run, counts = VectorEnvironments.step, ActorLearner.run, {}

    def watched_run(self, job):
        counts[threading.get_ident()] = (self.index, itertools.count(1))
        run(self, job)
        del counts[threading.get_ident()]

    def watched_step(self, actions):
        if threading.get_ident() in counts:  # not in random play
            actor, numbers = counts[threading.get_ident()]
            watch(actor, next(numbers))
        return step(self, actions)

    monkeypatch.setattr(ActorLearner, "run", watched_run)
    monkeypatch.setattr(VectorEnvironments, "step", watched_step)


@pytest.fixture
def num_closed(monkeypatch):
    """The number of batches that were closed, as a list of ones."""
    close, closed = VectorEnvironments.close, []

    def count_and_close(self):
        closed.append(1)
        close(self)

    monkeypatch.setattr(VectorEnvironments, "close", count_and_close)
    return closed


def test_two_actors_share_parameters_and_budget(tmp_path, num_closed, monkeypatch):
    # Side by side until both have played some games: one alone could use up the budget.
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    watch_steps(monkeypatch, lambda _, num_steps: both.wait() if num_steps <= 80 else None)
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), num_actors=2, eval_episodes=0)
    summary = train(config)
    assert 1500 <= summary.num_frames < 1500 + 2 * FRAMES_PER_UPDATE
    assert summary.evaluation is None
    rows = read_rows(summary.run_dir / "metrics.csv")
    assert int(rows[-1]["num_frames"]) == summary.num_frames
    num_updates = int(rows[-1]["num_updates"])
    assert num_updates == json.loads((summary.run_dir / "summary.json").read_text())["num_updates"]
    assert {row["actor"] for row in read_rows(summary.run_dir / "episodes.csv")} == {"0", "1"}
    assert len(num_closed) == 2
    assert actor_threads() == []


def test_failing_actor_stops_the_run_with_its_own_exception(tmp_path, num_closed, monkeypatch):
    threads, written = [], []
    save, write_up_to = learning.Learning.save, learning.Journal.write_up_to

    def break_down(actor, num_steps):
        if actor == 1 and num_steps == 25:
            raise OSError("the emulator broke")

    def save_and_look(run):
        threads.append([job.doing for _, job in run.supervisor._unfinished()])
        return save(run)

    def write_and_count(journal, num_updates):
        written.append(num_updates)
        write_up_to(journal, num_updates)

    watch_steps(monkeypatch, break_down)
    monkeypatch.setattr(learning.Learning, "save", save_and_look)
    monkeypatch.setattr(learning.Journal, "write_up_to", write_and_count)
    run_dir = tmp_path / "run"
    with pytest.raises(OSError, match="the emulator broke") as caught:
        train(ENDLESS.replace(run_dir=str(run_dir), num_actors=2, eval_episodes=3))
    text = "".join(traceback.format_exception(caught.value))
    assert 'raise OSError("the emulator broke")' in text
    assert "actor-learner-1" in text
    assert threads[-1] == []
    assert len(written) == len(threads) - 1  # the log of a run that failed is finished already
    # What was learned until then is there.
    snapshot = load(run_dir).snapshot
    last = read_rows(run_dir / "metrics.csv")[-1]
    assert int(last["num_updates"]) == snapshot.version >= 2
    assert int(last["num_frames"]) == snapshot.num_frames
    assert len(num_closed) == 2  # to load the agent takes none


def test_stuck_actor_cannot_hold_up_the_end(tmp_path, monkeypatch):
    release, is_stuck = threading.Event(), threading.Event()

    def get_stuck(actor, num_steps):
        if actor == 1 and num_steps == 25:
            is_stuck.set()
            release.wait(PATIENCE_SECONDS)
            raise RuntimeError("too late")
        if actor == 0 and is_stuck.is_set():
            raise OSError("the emulator broke")

    watch_steps(monkeypatch, get_stuck)
    monkeypatch.setattr(learning, "FAILURE_JOIN_SECONDS", 0.2)
    run_dir = tmp_path / "run"
    with pytest.raises(BaseExceptionGroup) as caught:
        train(ENDLESS.replace(run_dir=str(run_dir), num_actors=2))
    release.set()
    failure, stuck = caught.value.exceptions
    assert isinstance(failure, OSError)
    assert re.search(r"still running .*actor-learner-1", str(stuck))
    assert load(run_dir).snapshot.version >= 2


@pytest.fixture
def stop(request):
    """Sends a signal that asks for a stop, and counts how often it was passed on."""
    number = getattr(request, "param", signal.SIGINT)

    class PassedOnError(Exception):
        pass

    def pass_on(number, frame):
        stop.num_passed_on += 1
        raise PassedOnError

    def stop():
        os.kill(os.getpid(), stop.number)

    stop.number, stop.num_passed_on, stop.PassedOn = number, 0, PassedOnError
    before = signal.signal(stop.number, pass_on)
    stop.handler = pass_on
    yield stop
    signal.signal(stop.number, before)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], indirect=True)
def test_interrupted_run_is_saved_as_it_goes_and_at_its_end(tmp_path, monkeypatch, stop, capsys):
    run_dir, stopped = tmp_path / "run", []

    def stop_after_two_checkpoints(actor, num_steps):
        if stopped or num_steps % 10:
            return
        if len(list((run_dir / "checkpoints").glob("*.safetensors"))) >= 2:
            stopped.append(num_steps)
            stop()

    watch_steps(monkeypatch, stop_after_two_checkpoints)
    # Nothing fails: the actor may finish its update.
    monkeypatch.setattr(learning, "FAILURE_JOIN_SECONDS", 0.0)
    config = ENDLESS.replace(run_dir=str(run_dir), checkpoint_period_frames=200, eval_episodes=3)
    with pytest.raises(stop.PassedOn):
        train(config)
    assert stop.num_passed_on == 1
    written = json.loads((run_dir / "summary.json").read_text())
    assert (written["signal"], written["evaluation"]) == (stop.number, None)
    saved = sorted(int(path.stem) for path in (run_dir / "checkpoints").iterdir())
    assert saved[-1] == written["num_frames"]
    assert saved[1] - saved[0] >= 200
    assert signal.getsignal(stop.number) is stop.handler
    assert actor_threads() == []
    out = capsys.readouterr().out
    assert f"{signal.Signals(stop.number).name}: stopping, then saving\n" in out
    assert f"saved at frame {saved[-1]:,}; to go on: a3cjax train resume={run_dir}\n" in out


def test_line_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch, stop):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError  # Ctrl-C ends the `tee` of `run.py | tee log`, too

    def stop_soon(actor, num_steps):
        if num_steps == 25:
            stop()

    watch_steps(monkeypatch, stop_soon)
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(stop.PassedOn):
        train(ENDLESS.replace(run_dir=str(tmp_path / "run")))
    assert load(tmp_path / "run").snapshot.version >= 1


def test_first_line_says_how_many_environments_are_being_made(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ConfigError("no environment is made here")

    monkeypatch.setattr(mustering, "prepare", fail)
    for envs_per_actor, number in ((4, 4), (None, 8)):
        config = CONFIG.replace(envs_per_actor=envs_per_actor, run_dir=str(tmp_path))
        with pytest.raises(ConfigError, match="no environment is made here"):
            train(config)
        assert capsys.readouterr().out == f"making 1 × {number} environments of CartPole ...\n"


def test_game_is_spelt_one_way_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = train(CONFIG.replace(env="cartpole", total_frames=WARMUP_FRAMES + 1, eval_episodes=0))
    assert summary.run_dir.parts[:2] == ("runs", "CartPole")
    assert load_config(summary.run_dir).env == "CartPole"


def test_run_whose_games_are_cut_says_how_to_leave_evaluations_out(tmp_path, capfd):
    settings = {"total_frames": WARMUP_FRAMES + 1, "max_episode_steps": 2}
    train(CONFIG.replace(run_dir=str(tmp_path / "run"), **settings))
    out, err = capfd.readouterr()
    assert "sets another limit, eval_episodes=0 leaves evaluations out\n" in out + err


def test_signal_ends_the_evaluation(tmp_path, monkeypatch, stop, capsys):
    def evaluate_agent(*_, should_stop, **__):
        assert not should_stop()
        stop()
        wait_until(should_stop)

    monkeypatch.setattr(learning, "evaluate_agent", evaluate_agent)
    with pytest.raises(stop.PassedOn):
        train(CONFIG.replace(run_dir=str(tmp_path / "run"), total_frames=WARMUP_FRAMES + 1))
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (written["signal"], written["evaluation"]) == (stop.number, None)
    assert "all that was learned is saved, but not evaluated; to go on: " in capsys.readouterr().out
    assert written["num_updates"] == 1
    assert (tmp_path / "run" / "curves.png").is_file()


@pytest.mark.parametrize("way", ["signal", "error"])
def test_evaluation_of_a_finished_run_stays_until_there_is_a_new_one(
    tmp_path, monkeypatch, stop, way
):
    run_dir = tmp_path / "run"
    train(CONFIG.replace(run_dir=str(run_dir), total_frames=WARMUP_FRAMES + 1))
    finished = json.loads((run_dir / "summary.json").read_text())

    def evaluate_agent(*_, should_stop, **__):
        if way == "error":
            raise ZeroDivisionError
        stop()
        wait_until(should_stop)

    monkeypatch.setattr(learning, "evaluate_agent", evaluate_agent)
    with pytest.raises(ZeroDivisionError if way == "error" else stop.PassedOn):
        train(resume_config(str(run_dir), {}))
    written = json.loads((run_dir / "summary.json").read_text())
    assert finished["evaluation"] is not None
    for name in ("evaluation", "signal", "num_frames"):
        assert written[name] == finished[name]
    with pytest.raises(ZeroDivisionError if way == "error" else stop.PassedOn):
        train(resume_config(str(run_dir), {"total_frames": 3 * WARMUP_FRAMES}))
    written = json.loads((run_dir / "summary.json").read_text())
    assert written["num_updates"] > finished["num_updates"]
    assert written["evaluation"] is None  # that was of other parameters


def test_signal_in_the_film_is_passed_on_and_the_result_is_kept(
    tmp_path, monkeypatch, stop, capsys
):
    def record_at_end(trained, run_dir, should_stop):
        assert not should_stop()
        stop()
        wait_until(should_stop)

    monkeypatch.setattr("a3cjax.video.record_at_end", record_at_end)
    settings = {"run_dir": str(tmp_path / "run"), "total_frames": WARMUP_FRAMES + 1, "video": True}
    with pytest.raises(stop.PassedOn):
        train(CONFIG.replace(**settings))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation"] is not None
    out = capsys.readouterr().out
    assert f"{signal.Signals(stop.number).name}: stopping, then saving\n" in out
    assert f"all that was learned is saved in {tmp_path / 'run'}\n" in out


def test_signal_in_the_random_play_ends_it_and_the_run_can_be_begun_again(
    tmp_path, monkeypatch, stop, finished
):
    num_steps, step = [], VectorEnvironments.step

    def stop_and_step(self, actions):
        num_steps.append(1)
        if len(num_steps) == 3:
            stop()
        return step(self, actions)

    run_dir = tmp_path / "run"
    config = CONFIG.replace(run_dir=str(run_dir))
    with monkeypatch.context() as patch:
        patch.setattr(VectorEnvironments, "step", stop_and_step)
        with pytest.raises(stop.PassedOn):
            train(config.replace(warmup_steps=None, total_frames=10**9))
    assert not (run_dir / "checkpoints").exists()
    assert not (run_dir / "summary.json").exists()
    resume(run_dir, total_frames=CONFIG.total_frames, warmup_steps=CONFIG.warmup_steps)
    # With the statistics of the whole random play, and all else as if nothing had happened.
    for one, other in zip(read_params(run_dir), read_params(finished.run_dir), strict=True):
        np.testing.assert_array_equal(one, other)


def test_failure_of_the_log_does_not_hide_that_of_an_actor(tmp_path, monkeypatch):
    has_broken = threading.Event()

    def break_down(actor, num_steps):
        if num_steps == 25:
            has_broken.set()
            raise OSError("the emulator broke")

    def write_metrics(self, row):
        assert has_broken.wait(PATIENCE_SECONDS)
        raise ValueError("the disk is full")

    watch_steps(monkeypatch, break_down)
    monkeypatch.setattr(CsvLogger, "write_metrics", write_metrics)
    with pytest.raises(BaseExceptionGroup) as caught:
        train(ENDLESS.replace(run_dir=str(tmp_path / "run"), log_period_frames=1))
    messages = {str(failure) for failure in caught.value.exceptions}
    assert messages == {"the emulator broke", "the disk is full"}
    assert load(tmp_path / "run").snapshot.version >= 1


# Settings that do not fit.


def test_existing_run_folder_is_refused_and_left_alone(tmp_path, num_closed):
    (tmp_path / "results.csv").write_text("precious")
    with pytest.raises(ConfigError, match=f"^run_dir must be new or empty, got {tmp_path}"):
        train(CONFIG.replace(run_dir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
    assert num_closed == []  # nothing had been started


@for_each(
    ("settings", "message"),
    [
        ({"network": "atari_ff"}, "network must .*, got atari_ff"),
        ({"network": "tabular"}, "network must not be tabular for CartPole"),
        ({"env": "Pnog"}, "env must .*, got Pnog"),
        ({"env": "Pendulum", "algorithm": "n_step_q"}, "algorithm must .*, got n_step_q"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(CONFIG.replace(**settings))
    assert list(tmp_path.iterdir()) == []


# Going on with a run.


def resume(run_dir, **changes):
    return train(resume_config(str(run_dir), changes))


@pytest.fixture(scope="module")
def resumed(finished, tmp_path_factory):
    """A copy of the finished run, its log lines of before, and the summary of going on."""
    run_dir = tmp_path_factory.mktemp("runs") / "resumed"
    shutil.copytree(finished.run_dir, run_dir)
    before = {name: (run_dir / name).read_text() for name in LOGS}
    return before, resume(run_dir, total_frames=3000)


LOGS = ("metrics.csv", "episodes.csv", "evaluations.csv")


def test_resumed_run_counts_on_to_the_new_budget(finished, resumed):
    _, summary = resumed
    assert 3000 <= summary.num_frames < 3000 + FRAMES_PER_UPDATE
    assert summary.num_updates > finished.num_updates
    assert summary.wall_seconds > finished.wall_seconds
    assert summary.num_resumes == 1
    written = json.loads((summary.run_dir / "summary.json").read_text())
    assert written["num_resumes"] == 1
    assert written["num_frames"] == summary.num_frames
    assert load_config(summary.run_dir).total_frames == 3000
    assert load_config(summary.run_dir).resume is None
    snapshot = load(summary.run_dir).snapshot
    assert (snapshot.num_frames, snapshot.version) == (summary.num_frames, summary.num_updates)


@for_each("name", LOGS)
def test_resumed_run_appends_to_its_logs(resumed, name):
    before, summary = resumed
    text = (summary.run_dir / name).read_text()
    assert text.startswith(before[name])
    assert len(text) > len(before[name])
    rows = read_rows(summary.run_dir / name)
    for column in ("num_frames", "wall_seconds"):
        values = [float(row[column]) for row in rows]
        assert values == sorted(values)
    if name == "metrics.csv":
        assert int(rows[-1]["num_episodes"]) == len(read_rows(summary.run_dir / "episodes.csv"))
        assert int(rows[-1]["num_updates"]) == summary.num_updates


def test_resumed_run_keeps_what_was_learned(resumed, finished):
    # More updates move the parameters; a fresh start would be much further away.
    agent = load(finished.run_dir)
    fresh = jax.tree.leaves(init_state(agent.config, agent.agent, agent.spec).params)
    later = read_params(resumed[1].run_dir)
    distances = [
        sum(float(np.square(a - b).sum()) for a, b in zip(later, other, strict=True))
        for other in (read_params(finished.run_dir), fresh)
    ]
    assert 0 < distances[0] < distances[1]


def test_killed_run_goes_on_from_its_last_checkpoint_without_a_gap(finished, tmp_path):
    run_dir = tmp_path / "killed"
    shutil.copytree(finished.run_dir, run_dir)
    checkpoint = json.loads((run_dir / "summary.json").read_text())["num_frames"]
    with (run_dir / "episodes.csv").open("a") as file:  # written after the checkpoint
        file.write(f"{checkpoint + 40},99.5,0,17,17\r\n{checkpoint + 80},99.")
    summary = resume(run_dir, total_frames=2500)
    rows = read_rows(run_dir / "episodes.csv")
    before = read_rows(finished.run_dir / "episodes.csv")
    assert rows[: len(before)] == before
    assert all(int(row["num_frames"]) > checkpoint for row in rows[len(before) :])
    assert "99.5" not in {row["wall_seconds"] for row in rows}
    assert summary.num_frames >= 2500


def test_damaged_checkpoint_is_told_and_the_one_before_used(tmp_path, capfd):
    config = CONFIG.replace(
        run_dir=str(tmp_path / "run"), checkpoint_period_frames=300, eval_episodes=0
    )
    train(config)
    saved = (tmp_path / "run" / "checkpoints").iterdir()
    newest = max(saved, key=lambda path: int(path.stem))
    newest.write_bytes(newest.read_bytes()[:-1])
    summary = resume(tmp_path / "run", total_frames=1700)
    assert f"checkpoint {newest} is damaged" in capfd.readouterr().err
    assert summary.num_frames >= 1700
    frames = [int(row["num_frames"]) for row in read_rows(tmp_path / "run" / "episodes.csv")]
    assert frames == sorted(frames)


def test_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match=r"^resume must be a run folder, got .*nothing"):
        resume(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_finished_run_without_its_checkpoints_is_not_begun_again(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir, ignore=shutil.ignore_patterns(BEST, "checkpoints"))
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(ConfigError, match=r"^resume must be a folder with a sound checkpoint"):
        resume(run_dir)
    after = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    assert after | {"run.lock": b""} == before | {"run.lock": b""}


def test_run_that_ended_in_random_play_is_begun_again_in_its_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the emulator broke")

    config = CONFIG.replace(run_dir=str(tmp_path / "run"), total_frames=200, eval_episodes=0)
    with monkeypatch.context() as patch:
        patch.setattr(VectorEnvironments, "step", fail)
        with pytest.raises(OSError, match="the emulator broke"):
            train(config)
    assert "checkpoints" not in os.listdir(tmp_path / "run")
    summary = resume(tmp_path / "run")
    untroubled = train(config.replace(run_dir=str(tmp_path / "untroubled")))
    assert (summary.run_dir, summary.num_resumes) == (tmp_path / "run", 0)
    for one, other in zip(*map(read_params, (summary.run_dir, untroubled.run_dir)), strict=True):
        np.testing.assert_array_equal(one, other)  # a single actor-learner
    assert read_episodes(summary.run_dir) == read_episodes(untroubled.run_dir)


def test_run_that_trains_can_be_loaded_and_not_resumed(tmp_path, monkeypatch):
    refusals, run_dir = [], tmp_path / "run"

    def load_and_resume(actor, num_steps):
        if num_steps == 25:
            load(run_dir)
            for attempt in (resume, lambda run_dir: train(CONFIG.replace(run_dir=str(run_dir)))):
                with pytest.raises(ConfigError) as caught:
                    attempt(run_dir)
                refusals.append(str(caught.value))

    watch_steps(monkeypatch, load_and_resume)
    summary = train(CONFIG.replace(run_dir=str(run_dir), total_frames=300, eval_episodes=0))
    assert f"must have one writer, got {run_dir}: it is process {os.getpid()} on" in refusals[0]
    assert refusals[1] == f"run_dir must be new or empty, got {run_dir}."
    assert summary.num_resumes == 0
    assert resume(run_dir, total_frames=400).num_resumes == 1


def test_best_checkpoint_that_someone_made_up_is_refused_in_one_line(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    (best,) = (run_dir / "best").iterdir()
    best.write_bytes(seal(best.read_bytes().replace(FORMAT.encode(), b"a3cjax-checkpoint-9")))
    with pytest.raises(ConfigError, match=f": checkpoint {best} .* got 'a3cjax-checkpoint-9'"):
        resume(run_dir, total_frames=3000)


# Faults of the parts around the actors.


def test_stalled_actor_is_named_with_its_stack(tmp_path, monkeypatch):
    release = threading.Event()

    def get_stuck(actor, num_steps):
        if actor == 1 and num_steps == 25:
            assert release.wait(PATIENCE_SECONDS)

    watch_steps(monkeypatch, get_stuck)
    config = ENDLESS.replace(run_dir=str(tmp_path / "run"), num_actors=2)
    with pytest.raises(StallError) as caught:
        train(config.replace(stall_timeout_seconds=STALL_SECONDS))
    release.set()
    assert re.search(r"no progress for .* s: actor-learner-1 \(learning\)\n", str(caught.value))
    assert "in get_stuck" in str(caught.value)
    assert load(tmp_path / "run").snapshot.version >= 2


STANDING_STILL = {
    "making": (VectorEnvironments, "__init__", "actor-learner-0 (making CartPole)"),
    "evaluation": (learning, "evaluate_agent", "run (running)"),
    "logger": (TensorBoardLogger, "write_metrics", "run (running)"),
    "close": (VectorEnvironments, "close", "actor-learner-0 (closing environments)"),
}


@pytest.mark.parametrize("where", STANDING_STILL)
def test_whatever_stands_still_is_named_with_its_stack_and_costs_nothing(
    tmp_path, monkeypatch, capsys, where
):
    release, (owner, name, thread) = threading.Event(), STANDING_STILL[where]

    def get_stuck(*_, **__):
        assert release.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(owner, name, get_stuck)
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), stall_timeout_seconds=STALL_SECONDS)
    if where == "close":
        summary = train(config)  # nothing is lost by it
        told, out = "", capsys.readouterr()
        told = out.out + out.err
        assert summary.evaluation is not None
    else:
        with pytest.raises(StallError) as caught:
            train(config)
        told = str(caught.value)
    release.set()
    assert thread in told
    assert "in get_stuck" in told
    assert (tmp_path / "run" / "checkpoints").exists() == (where != "making")
    if where == "evaluation":  # what was learned is there all the same
        assert (tmp_path / "run" / "summary.json").is_file()
        assert (tmp_path / "run" / "curves.png").is_file()


class AtHome(gymnasium.Env):
    """Refuses to be used by another thread than the one that made it, as SQLite does."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    num_closed = 0

    def __init__(self):
        self.home = threading.get_ident()

    def check(self):
        assert self.home == threading.get_ident() != threading.main_thread().ident

    def reset(self, *, seed=None, options=None):
        self.check()
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.check()
        return np.zeros(2, np.float32), 1.0, False, False, {}

    def close(self):
        self.check()
        type(self).num_closed += 1


gymnasium.register("AtHome-v0", AtHome, max_episode_steps=5)


def test_environments_live_in_one_thread(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(AtHome, "num_closed", 0)  # tests of one process come in any order
    train(
        CONFIG.replace(
            env="gymnasium:AtHome-v0", run_dir=str(tmp_path / "run"), num_actors=2, total_frames=600
        )
    )
    assert AtHome.num_closed == 2 * CONFIG.envs_per_actor + CONFIG.eval_episodes
    assert "warning" not in capsys.readouterr().err


class Moving(AtHome):
    """Changes the working folder wherever it can."""

    num_closed = 0

    def __init__(self):
        super().__init__()
        os.chdir("/")

    def step(self, action):
        os.chdir("/")
        return super().step(action)

    def close(self):
        os.chdir("/")
        super().close()


gymnasium.register("Moving-v0", Moving, max_episode_steps=5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a working folder a thread")
def test_environments_move_nobody_but_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"env": "gymnasium:Moving-v0", "run_dir": "run", "eval_period_frames": 200}
    train(CONFIG.replace(**settings, total_frames=600))
    assert Path.cwd() == tmp_path
    resume("run", total_frames=700)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {"summary.json", "curves.png", "evaluations.csv"} <= set(os.listdir(tmp_path / "run"))


def test_process_is_left_as_it_was(tmp_path):
    def look():
        return {
            "jax": dict(jax.config.values),
            "signals": [signal.getsignal(number) for number in signal.valid_signals()],
            "affinity": os.sched_getaffinity(0),
            "path": list(sys.path),
            "warnings": list(warnings.filters),
            "variables": dict(os.environ),
            "streams": (sys.stdout, sys.stderr),
            "threads": threading.enumerate(),
        }

    before = look()
    train(CONFIG.replace(run_dir=str(tmp_path / "run"), total_frames=WARMUP_FRAMES + 1))
    assert look() == before
    with pytest.raises(ConfigError):
        train(CONFIG.replace(env="Pnog"))
    assert look() == before


def test_bad_updates_are_refused_and_end_the_run_with_their_trajectory(tmp_path, monkeypatch):
    learn = ActorLearner._learn

    def poisoned_learn(self, snapshot, exploration, trajectory):
        if snapshot.version == 5:
            trajectory = trajectory._replace(rewards=np.full_like(trajectory.rewards, np.nan))
        learn(self, snapshot, exploration, trajectory)

    monkeypatch.setattr(ActorLearner, "_learn", poisoned_learn)
    config = ENDLESS.replace(run_dir=str(tmp_path / "run"), max_bad_updates=4)
    with pytest.raises(BadUpdatesError, match="4 updates in a row"):
        train(config)
    snapshot = load(tmp_path / "run").snapshot
    assert snapshot.version == 5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(snapshot.params))
    with np.load(tmp_path / "run" / "bad-trajectory.npz", allow_pickle=False) as trajectory:
        assert np.isnan(trajectory["rewards"]).any()
        assert trajectory["observations"].shape == (11, 4, 4)


def test_failing_logger_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("the logger broke")

    monkeypatch.setattr(TensorBoardLogger, "write_metrics", fail)
    with pytest.raises((RuntimeError, BaseExceptionGroup)) as caught:
        train(ENDLESS.replace(run_dir=str(tmp_path / "run")))
    assert "the logger broke" in "".join(traceback.format_exception(caught.value))
    assert load(tmp_path / "run").snapshot.version >= 1
    assert actor_threads() == []


def test_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    saved = []

    def save(self, checkpoint):
        if saved:
            raise CheckpointError("no space left")
        saved.append(checkpoint)

    monkeypatch.setattr(Checkpointer, "save", save)
    config = ENDLESS.replace(run_dir=str(tmp_path / "run"), checkpoint_period_frames=100)
    with pytest.raises(CheckpointError, match="no space left"):
        train(config)
    assert actor_threads() == []


@pytest.mark.parametrize(
    ("mean", "scores", "is_greedy", "is_told"),
    [
        (94.0, [1.0, 2.0], True, True),
        (94.0, [1.0, 2.0], False, False),
        (94.0, [1.0, 900.0], True, False),
        (94.0, [93.8, 93.9], True, False),
        (-94.0, [-94.2, -94.1], True, False),
        (-94.0, [-97.0, -96.0], True, True),
    ],
)
def test_greedy_actions_that_do_worse_than_training_are_told(
    tmp_path, monkeypatch, capsys, mean, scores, is_greedy, is_told
):
    monkeypatch.setattr(learning.Journal, "mean_return", mean)
    evaluation = Evaluation([Episode(i, x, 10) for i, x in enumerate(scores)], is_greedy)
    monkeypatch.setattr(learning, "evaluate_agent", lambda *_, **__: evaluation)
    monkeypatch.chdir(tmp_path)
    train(CONFIG.replace(run_dir="-run"))
    expected = f"its last 100 games, {mean:.4g}: a3cjax evaluate ./-run greedy=false"
    assert (expected in " ".join(capsys.readouterr().err.split())) == is_told


def test_evaluations_go_along_and_the_best_is_kept(tmp_path, monkeypatch):
    scores, num_evaluations = iter([3.0, 7.0, 7.0]), []
    saves, save = [], Checkpointer.save

    def evaluate_agent(*_, **__):
        num_evaluations.append(1)
        return Evaluation([Episode(0, next(scores, 1.0), 10)], is_greedy=False)

    def save_and_note(self, checkpoint):
        saves.append((self._folder.name, checkpoint.progress.num_frames))
        save(self, checkpoint)

    def wait_for_evaluations(actor, num_steps):  # 100 steps are 400 frames, but for resets
        wait_until(lambda: len(num_evaluations) >= min(num_steps // 100, 2))

    monkeypatch.setattr(learning, "evaluate_agent", evaluate_agent)
    monkeypatch.setattr(Checkpointer, "save", save_and_note)
    watch_steps(monkeypatch, wait_for_evaluations)
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), eval_period_frames=300)
    summary = train(config)
    rows = read_rows(summary.run_dir / "evaluations.csv")
    assert [float(row["mean"]) for row in rows][:3] == [3.0, 7.0, 7.0]
    frames = [int(row["num_frames"]) for row in rows]
    assert frames == sorted(set(frames))
    assert frames[-1] == summary.num_frames
    assert summary.best_score == 7.0
    (best,) = (path.stem for path in (summary.run_dir / "best").iterdir())
    assert best == rows[1]["num_frames"]
    snapshot = load(summary.run_dir, best=True).snapshot
    assert snapshot.num_frames == int(best) < summary.num_frames
    # The best never lies ahead of where the run could go on.
    for (_, before), (folder, num_frames) in itertools.pairwise(saves):
        assert folder != BEST or num_frames <= before


def test_failing_evaluator_ends_the_run(tmp_path, monkeypatch):
    def evaluate_agent(*_, **__):
        raise RuntimeError("the evaluator broke")

    monkeypatch.setattr(learning, "evaluate_agent", evaluate_agent)
    config = ENDLESS.replace(run_dir=str(tmp_path / "run"), eval_episodes=1, eval_period_frames=100)
    with pytest.raises(RuntimeError, match="the evaluator broke") as caught:
        train(config)
    assert "in thread evaluator-0" in caught.value.__notes__
    assert load(tmp_path / "run").snapshot.version >= 1


def test_deterministic_runs_of_several_actors_are_equal_bit_by_bit(tmp_path, monkeypatch):
    generator = np.random.default_rng()
    watch_steps(monkeypatch, lambda *_: time.sleep(generator.uniform(0, 0.002)))
    runs = [
        train(
            CONFIG.replace(
                run_dir=str(tmp_path / name), num_actors=3, deterministic=True, eval_episodes=0
            )
        )
        for name in "ab"
    ]
    one, other = (read_params(run.run_dir) for run in runs)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0].num_frames == runs[1].num_frames
    assert read_episodes(runs[0].run_dir) == read_episodes(runs[1].run_dir)


@pytest.mark.parametrize(
    "settings", [{"algorithm": "ppo", "num_passes": 1}, {"algorithm": "vtrace"}]
)
def test_one_pass_of_one_actor_is_a3c_bit_by_bit(tmp_path, finished, settings):
    settings = {"run_dir": str(tmp_path / "run"), "eval_episodes": 0, **settings}
    summary = train(CONFIG.replace(**settings))
    for a, b in zip(read_params(summary.run_dir), read_params(finished.run_dir), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (summary.num_frames, summary.num_updates) == (finished.num_frames, finished.num_updates)
    assert read_episodes(summary.run_dir) == read_episodes(finished.run_dir)


class Drifting(gymnasium.Env):
    """A random walk with a time limit around it, whose state can be saved and restored."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position = self.np_random.normal(size=2)
        return self._position.astype(np.float32), {}

    def step(self, action):
        self._position += self.np_random.normal(size=2) + (0.3 if action else -0.3)
        is_over = bool(np.abs(self._position[0]) > 4)
        reward = float(self._position[1])
        return self._position.astype(np.float32), reward, is_over, False, {}

    def get_state(self):
        return {
            "position": self._position.tolist(),
            "generator": self.np_random.bit_generator.state,
        }

    def set_state(self, state):
        self._position = np.array(state["position"])
        self.np_random.bit_generator.state = state["generator"]


class Fenced(Drifting):
    """Forbids to go on to the right from some point on."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, self._tell()

    def step(self, action):
        assert self._tell()["action_mask"][action]
        *answer, _ = super().step(action)
        return *answer, self._tell()

    def _tell(self):
        return {"action_mask": np.array([1, self._position[0] < 1], np.int8)}


gymnasium.register("Wandering-v0", Drifting, max_episode_steps=17)
gymnasium.register("Fenced-v0", Fenced, max_episode_steps=17)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"network": "mlp_ff"}, id="ff"),
        pytest.param(
            {"env": "gymnasium:Fenced-v0", "algorithm": "one_step_sarsa"}, id="masked sarsa"
        ),
        pytest.param({"algorithm": "ppo", "num_passes": 3}, id="ppo"),
        pytest.param(
            {"algorithm": "vtrace", "network": "mlp_gru", "num_passes": 2},
            id="vtrace",
            marks=pytest.mark.slow,
        ),
        pytest.param({"network": "mlp_gru"}, id="gru", marks=pytest.mark.slow),
        pytest.param(
            {"network": "mlp_gru", "shared_statistics": False, "optimizer": "rmsprop"},
            id="own statistics",
            marks=pytest.mark.slow,
        ),
        # Two thirds of the way target parameters are older than the checkpoint.
        pytest.param(
            {"algorithm": "one_step_sarsa", "network": "mlp_gru", "target_period_frames": 700},
            id="sarsa",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_halves_equal_the_whole_where_environments_can_be_restored(tmp_path, settings):
    config = CONFIG.replace(
        num_actors=2,
        deterministic=True,
        anneal_learning_rate=False,
        total_frames=2000,
        exploration_frames=900,
        eval_episodes=0,
        **{"env": "gymnasium:Wandering-v0", **settings},
    )
    whole = train(config.replace(run_dir=str(tmp_path / "whole")))
    half = train(config.replace(run_dir=str(tmp_path / "half"), total_frames=1000))
    assert half.num_frames < whole.num_frames
    halves = resume(half.run_dir, total_frames=2000)
    assert halves.num_resumes == 1
    assert (halves.num_frames, halves.num_updates) == (whole.num_frames, whole.num_updates)
    for a, b in zip(read_params(whole.run_dir), read_params(half.run_dir), strict=True):
        np.testing.assert_array_equal(a, b)
    episodes = read_episodes(whole.run_dir)
    assert read_episodes(half.run_dir) == episodes
    lengths = {row["episode_length"] for row in episodes}
    assert "17" in lengths  # the time limit, and ends before it
    assert len(lengths) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "one_step_q", "env": "Catch"},
        {"algorithm": "n_step_q", "network": "mlp_gru"},
        {"algorithm": "one_step_sarsa", "env": "FrozenLake", "network": "tabular"},
        {"env": "Pendulum", "network": "mujoco_lstm"},
        {"env": "Pendulum", "network": "mujoco_ff", "variance": "each"},
        {"unroll_length": "episode", "shared_statistics": False, "num_actors": 2},
        {"unroll_length": "episode", "algorithm": "one_step_sarsa", "entropy_spread": 4.0},
        {"algorithm": "ppo", "env": "Pendulum", "network": "mujoco_lstm", "num_actors": 2},
        {"algorithm": "ppo", "unroll_length": "episode", "num_actors": 2},
        {"algorithm": "vtrace", "unroll_length": "episode", "num_passes": 2},
        {"algorithm": "vtrace", "num_actors": 5, "envs_per_actor": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_kind_of_run_learns_is_saved_and_goes_on(tmp_path, settings):
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), total_frames=800, **settings)
    summary = train(config)
    assert summary.num_frames >= 800
    assert summary.num_updates > 0
    assert load(summary.run_dir).evaluate().scores == summary.evaluation.scores
    rows = read_rows(summary.run_dir / "metrics.csv")
    assert all(np.isfinite(float(rows[-1][name])) for name in ("value_loss", "grad_norm"))
    methods = {"a3c", "ppo", "vtrace"}
    assert ("q_value" in rows[-1]) == (settings.get("algorithm", "a3c") not in methods)
    assert (summary.run_dir / "curves.png").exists()
    resumed = resume(summary.run_dir, total_frames=summary.num_frames + 300)
    assert resumed.num_frames >= summary.num_frames + 300
    assert resumed.num_updates > summary.num_updates


def test_run_may_be_made_shorter_than_its_exploration_was_to_be(finished, tmp_path):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    config = load_config(finished.run_dir)
    write_config(config.replace(total_frames=10**6, exploration_frames=10**6), tmp_path / "run")
    assert resume(tmp_path / "run", total_frames=1700).num_frames >= 1700
