import fcntl
import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import ClassVar

import pytest
from tensorboardX.proto.event_pb2 import Event

from a3cjax.config.reading import resume_config
from a3cjax.config.settings import Config
from a3cjax.envs.batches import VectorEnvironments
from a3cjax.errors import ConfigError, OutputError
from a3cjax.logs import tracking
from a3cjax.logs.tracking import (
    Q_TAGS,
    TAGS,
    MlflowLogger,
    TensorBoardLogger,
    WandbLogger,
    is_installed,
    tag_row,
)
from a3cjax.runs.loading import load
from a3cjax.runs.tables import EpisodeRow
from a3cjax.training.run import train
from a3cjax.types import ActorCriticMetrics, QMetrics
from tests.cases import for_each
from tests.fakes import make_row, wait_until

EPISODES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, -0.125, 7)]
SETTINGS = {"env": "Pong", "seed": 3, "decay": None}
CONFIG = Config(
    env="CartPole",
    total_frames=1500,
    num_actors=1,
    envs_per_actor=4,
    unroll_length=10,
    warmup_steps=16,
    log_period_frames=400,
    eval_episodes=0,
    video=False,
)
ENDLESS = CONFIG.replace(total_frames=10**9)


def half(num_frames):
    """A learning rate that tells its frames."""
    return 0.5 * num_frames


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)


# Names.


def test_metrics_have_the_names_that_cleanrl_gives_them():
    values = tag_row(make_row(400, policy_loss=0.25, entropy=1.5), half)
    assert values["losses/policy_loss"] == 0.25
    assert values["losses/value_loss"] == 2.0
    assert values["losses/entropy"] == 1.5
    assert values["charts/SPS"] == 40.0  # agent steps: 20 in half a second
    assert values["charts/learning_rate"] == 200.0
    assert values["charts/avg_episodic_return"] == 12.5
    assert values["train/grad_norm"] == 3.0
    assert values["train/frames_per_second"] == 160.0


def test_q_methods_have_the_names_of_cleanrls_dqn():
    row = {**make_row(), "q_value": 1.5, "epsilon": 0.1}
    values = tag_row(row, half)
    assert values["losses/td_loss"] == 2.0
    assert values["losses/q_values"] == 1.5
    assert values["charts/epsilon"] == 0.1
    assert "losses/value_loss" not in values


def test_no_metric_is_lost_or_named_twice():
    row = make_row()
    values = tag_row(row, half)
    assert len(values) == len(row)  # without num_frames, with the learning rate
    assert all(tag.startswith(("charts/", "losses/", "train/")) for tag in values)
    every = {*make_row(), *ActorCriticMetrics._fields, *QMetrics._fields, "learning_rate"}
    assert set(TAGS) == set(Q_TAGS) <= every


def test_what_is_unknown_is_left_out():
    assert "charts/avg_episodic_return" not in tag_row(make_row(episode_return_mean=math.nan), half)


# TensorBoard.


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
    logger = TensorBoardLogger(tmp_path, half)
    rows = [make_row(400, episode_return_mean=math.nan), make_row(800, value_loss=7.0)]
    for row in rows:
        logger.write_metrics(row)
    logger.close()
    scalars = {(tag, step): value for tag, step, value in read_events(tmp_path)}
    assert {tag for tag, step in scalars if step == 800} == set(tag_row(rows[1], half))
    assert scalars["losses/value_loss", 400] == 2.0
    assert scalars["losses/value_loss", 800] == 7.0
    assert scalars["charts/learning_rate", 800] == 400.0
    assert ("charts/avg_episodic_return", 400) not in scalars


def test_tensorboard_gets_every_episode_and_evaluation(tmp_path):
    logger = TensorBoardLogger(tmp_path, half)
    logger.write_episodes(EPISODES)
    logger.write_evaluation(800, -20.25)
    logger.close()
    assert read_events(tmp_path) == [
        ("charts/episodic_return", 400, 21.0),
        ("charts/episodic_length", 400, 900.0),
        ("charts/episodic_return", 480, -0.125),
        ("charts/episodic_length", 480, 7.0),
        ("eval/episodic_return", 800, -20.25),
    ]


# W&B, in place of which stands a recorder of its calls, and then itself.


class FakeWandbRun:
    def __init__(self, tape, mode):
        self.tape, self.url = tape, "https://wandb.example/run"
        self.settings = types.SimpleNamespace(mode=mode or "online")
        self.config = types.SimpleNamespace(update=lambda *_, **__: None)

    def define_metric(self, name, step_metric):
        self.tape.append(("define_metric", name, step_metric))

    def log(self, values):
        self.tape.append(("log", values))

    def finish(self, exit_code):
        self.tape.append(("finish", exit_code))


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module in W&B's place; `tape` is what was asked of it."""
    module = types.ModuleType("wandb")
    module.tape, module.has_key = [], True
    module.Settings = dict
    module.login = lambda **_: module.has_key

    def init(**settings):
        module.tape.append(("init", settings))
        return FakeWandbRun(module.tape, settings["mode"])

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def settings_of_init(fake_wandb):
    return [arguments for name, *arguments in fake_wandb.tape if name == "init"][-1][0]


def test_wandb_run_is_named_after_its_folder(tmp_path, fake_wandb):
    lines = []
    run_dir = tmp_path / "pong-seed3"
    run_dir.mkdir()
    WandbLogger(run_dir, half, SETTINGS, lines.append)
    settings = settings_of_init(fake_wandb)
    assert (settings["name"], settings["group"]) == ("pong-seed3", "Pong")
    assert (settings["project"], settings["dir"]) == ("a3cjax", str(run_dir))
    assert settings["config"] == SETTINGS
    assert settings["mode"] is None  # W&B's own choice where there is a key
    assert lines == ["Weights & Biases: https://wandb.example/run"]


def test_wandb_without_a_key_stays_offline_and_asks_nobody(tmp_path, fake_wandb):
    lines = []
    fake_wandb.has_key = False
    WandbLogger(tmp_path, half, SETTINGS, lines.append)
    assert settings_of_init(fake_wandb)["mode"] == "offline"
    assert "offline" in lines[0]


@for_each("mode", ["offline", "online", "disabled"])
def test_wandb_mode_of_the_environment_is_kept(tmp_path, fake_wandb, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    fake_wandb.has_key = False
    WandbLogger(tmp_path, half, SETTINGS, print)
    settings = settings_of_init(fake_wandb)
    assert (settings["mode"], settings["project"]) == (mode, "theirs")


def test_wandb_run_goes_on_when_resumed(tmp_path, fake_wandb):
    for _ in range(2):
        WandbLogger(tmp_path, half, SETTINGS, lambda _: None)
    first, second = (call[1] for call in fake_wandb.tape if call[0] == "init")
    assert (
        first["id"] == second["id"] == json.loads((tmp_path / "tracking.json").read_text())["wandb"]
    )
    assert second["resume"] == "allow"


@for_each("text", ["", "{", "[]", '{"wandb": 3}', '{"wandb": [1]}', "\0"])
def test_damaged_ids_of_trackers_are_refused_in_a_line_and_kept(tmp_path, fake_wandb, text):
    (tmp_path / "tracking.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tracking\.json must hold the ids of trackers"):
        WandbLogger(tmp_path, half, SETTINGS, lambda _: None)
    assert (tmp_path / "tracking.json").read_text() == text


def test_wandb_gets_rows_with_the_means_of_their_episodes_and_evaluations(tmp_path, fake_wandb):
    logger = WandbLogger(tmp_path, half, SETTINGS, lambda _: None)
    logger.write_episodes(EPISODES[:1])
    logger.write_episodes(EPISODES[1:])
    logger.write_metrics(make_row(400))
    logger.write_metrics(make_row(800))
    logger.write_evaluation(800, 20.5)
    first, second, third = (call[1] for call in fake_wandb.tape if call[0] == "log")
    assert third == {"num_frames": 800, "eval/episodic_return": 20.5}
    assert ("define_metric", "*", "num_frames") in fake_wandb.tape
    assert first["num_frames"] == 400
    assert first["charts/episodic_return"] == 10.4375
    assert first["charts/episodic_length"] == 453.5
    assert "charts/episodic_return" not in second  # no episode since
    assert second["losses/entropy"] == 1.5


@for_each("has_failed", [False, True])
def test_wandb_hears_how_the_run_ended(tmp_path, fake_wandb, has_failed):
    logger = WandbLogger(tmp_path, half, SETTINGS, lambda _: None)
    logger.close(has_failed=has_failed)
    assert fake_wandb.tape[-1] == ("finish", has_failed)


def test_wandb_run_of_the_caller_is_left_alone(tmp_path, fake_wandb):
    WandbLogger(tmp_path, half, SETTINGS, lambda _: None)
    assert settings_of_init(fake_wandb)["reinit"] == "create_new"


@pytest.fixture
def end_service():
    """Ends W&B's service and threads, as the end of a process does."""
    import wandb

    yield wandb.teardown
    wandb.teardown()


def test_wandb_itself_takes_rows_offline_while_another_run_ends(
    tmp_path, monkeypatch, capfd, end_service
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "250")  # a busy machine starts it slowly
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    logger = WandbLogger(folder, half, SETTINGS, lambda _: None)
    logger.write_episodes(EPISODES)
    WandbLogger(other, half, SETTINGS, lambda _: None).close()
    logger.write_metrics(make_row(400))
    logger.close()
    end_service()
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    assert path.stem == "run-" + json.loads((folder / "tracking.json").read_text())["wandb"]
    data = path.read_bytes()
    for text in (b"charts/SPS", b"charts/episodic_return", b"losses/entropy", b"num_frames"):
        assert text in data
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


# MLflow, in a folder of files: its databases take long to be made.


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())


def mlflow_runs():
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("a3cjax")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


def open_mlflow(tmp_path):
    run_dir = tmp_path / "pong-seed3"
    run_dir.mkdir(exist_ok=True)
    return MlflowLogger(run_dir, half, SETTINGS, lambda _: None)


@pytest.mark.usefixtures("mlflow_store")
def test_mlflow_gets_settings_rows_and_the_means_of_episodes(tmp_path):
    logger = open_mlflow(tmp_path)
    logger.write_episodes(EPISODES)
    logger.write_metrics(make_row(400, episode_return_mean=math.nan))
    logger.write_metrics(make_row(800, entropy=0.25))
    logger.write_evaluation(800, 20.5)
    logger.close()
    client, (found,) = mlflow_runs()
    assert found.info.run_name == "pong-seed3"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"env": "Pong", "seed": "3", "decay": "None"}
    history = client.get_metric_history(found.info.run_id, "losses/entropy")
    assert [(metric.step, metric.value) for metric in history] == [(400, 1.5), (800, 0.25)]
    assert found.data.metrics["charts/episodic_return"] == 10.4375
    assert found.data.metrics["eval/episodic_return"] == 20.5
    assert found.data.metrics["charts/learning_rate"] == 400.0


@pytest.mark.usefixtures("mlflow_store")
def test_mlflow_run_goes_on_when_resumed_and_hears_of_a_failure(tmp_path):
    for num_frames in (400, 800):
        logger = open_mlflow(tmp_path)
        logger.write_metrics(make_row(num_frames))
        logger.close(has_failed=num_frames == 800)
    client, (found,) = mlflow_runs()
    assert found.info.status == "FAILED"
    history = client.get_metric_history(found.info.run_id, "losses/entropy")
    assert [metric.step for metric in history] == [400, 800]


@pytest.mark.usefixtures("mlflow_store")
def test_a_store_without_the_run_gets_a_new_one(tmp_path, monkeypatch):
    open_mlflow(tmp_path).close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "other").as_uri())
    for _ in range(2):  # and then goes on with that one
        open_mlflow(tmp_path).close()
    _, (found,) = mlflow_runs()
    assert found.info.run_name == "pong-seed3"


@pytest.mark.usefixtures("mlflow_store")
def test_only_one_process_at_a_time_begins_an_mlflow_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    def check_and_do(name):
        method = getattr(mlflow.MlflowClient, name)

        def do(*arguments, **named):
            (lock,) = tmp_path.glob("*.lock")
            with lock.open("a") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(name)
            return method(*arguments, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, do)

    for name in ("__init__", "create_experiment", "create_run"):  # the first one makes tables
        check_and_do(name)
    open_mlflow(tmp_path).close()
    assert seen == ["__init__", "create_experiment", "create_run"]
    (lock,) = tmp_path.glob("*.lock")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# In a run.


class FakeTracker:
    """In the place of a tracker: notes what it gets, or does what a test wants instead."""

    instances: ClassVar[list] = []

    def __init__(self, run_dir, schedule, settings, announce):
        self.schedule, self.settings, self.rows, self.ends = schedule, settings, [], []
        self.evaluations = []
        announce("the tracker is there")
        FakeTracker.instances.append(self)

    def write_metrics(self, row):
        self.rows.append(row)

    def write_episodes(self, episodes):
        pass

    def write_evaluation(self, num_frames, score):
        self.evaluations.append((num_frames, score))

    def close(self, *, has_failed=False):
        self.ends.append(has_failed)


@pytest.fixture
def fake_tracker(monkeypatch):
    monkeypatch.setattr(FakeTracker, "instances", [])
    monkeypatch.setattr(tracking, "is_installed", lambda _: True)
    for name in ("WandbLogger", "MlflowLogger"):
        monkeypatch.setattr(tracking, name, FakeTracker)
    return FakeTracker


@pytest.mark.parametrize("tracker", tracking.TRACKERS)
def test_tracker_that_is_asked_for_gets_the_run(tmp_path, fake_tracker, capsys, tracker):
    config = CONFIG.replace(run_dir=str(tmp_path / "run"), eval_episodes=2, **{tracker: True})
    summary = train(config)
    (logger,) = fake_tracker.instances
    assert summary.evaluation is not None
    assert logger.evaluations == [(summary.num_frames, summary.evaluation.mean)]
    assert logger.settings["env"] == "CartPole"
    assert logger.settings["network"] == "mlp_ff"  # resolved
    assert logger.schedule(0.0) == pytest.approx(3e-3)
    assert logger.schedule(1500.0) == pytest.approx(0.0)
    assert [row["num_frames"] for row in logger.rows][-1] >= 1500
    assert logger.ends == [False]
    assert "the tracker is there" in capsys.readouterr().out


def test_loggers_that_are_not_asked_for_write_nothing(tmp_path, fake_tracker):
    summary = train(CONFIG.replace(run_dir=str(tmp_path / "run"), tensorboard=False))
    assert fake_tracker.instances == []
    names = {path.name for path in summary.run_dir.iterdir()}
    assert "metrics.csv" in names
    assert not any(name.startswith(("events", "tracking", "wandb", "mlruns")) for name in names)


@for_each("tracker", tracking.TRACKERS)
def test_tracker_that_is_not_installed_is_refused_before_anything_starts(
    tmp_path, monkeypatch, tracker
):
    monkeypatch.setattr(tracking, "is_installed", lambda name: name != tracker)
    run_dir = tmp_path / "run"
    with pytest.raises(ConfigError, match=rf"pip install '\.\[{tracker}\]'\.$"):
        train(CONFIG.replace(run_dir=str(run_dir), wandb=True, mlflow=True))
    assert not run_dir.exists()


def test_folder_of_a_trackers_name_is_no_tracker(tmp_path, monkeypatch):
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("no_such_tracker")
    assert is_installed("rich")


@pytest.mark.parametrize("method", ["write_episodes", "close"])  # see test_training.py, too
def test_failing_tracker_ends_the_run_loudly_and_loses_nothing(
    tmp_path, monkeypatch, fake_tracker, method
):
    def fail(*_, **__):
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(fake_tracker, method, fail)
    config = CONFIG if method == "close" else ENDLESS
    with pytest.raises((ConnectionError, BaseExceptionGroup)) as caught:
        train(config.replace(run_dir=str(tmp_path / "run"), wandb=True))
    assert "the server is gone" in "".join(traceback.format_exception(caught.value))
    assert load(tmp_path / "run").snapshot.version >= 1
    if method != "close":
        assert fake_tracker.instances[0].ends == [True]


def test_tracker_that_cannot_start_ends_the_run_and_frees_the_others(
    tmp_path, monkeypatch, fake_tracker
):
    def fail(*_):
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(tracking, "MlflowLogger", fail)
    with pytest.raises(OutputError, match=r"^mlflow cannot begin .* 'resume=.*my run' mlf"):
        train(CONFIG.replace(run_dir=str(tmp_path / "my run"), wandb=True, mlflow=True))
    assert fake_tracker.instances[0].ends == [True]
    monkeypatch.setattr(tracking, "WandbLogger", fail)
    with pytest.raises(OutputError, match=r"^wandb cannot begin .* wandb=false\. ConnectionError"):
        train(resume_config(str(tmp_path / "my run"), {}))
    train(
        resume_config(str(tmp_path / "my run"), {"mlflow": False, "wandb": False})
    )  # as the message says


def test_actors_go_on_while_a_tracker_is_slow(tmp_path, monkeypatch, fake_tracker):
    step, steps, waits = VectorEnvironments.step, [], []

    def counted_step(self, actions):
        steps.append(1)
        return step(self, actions)

    def wait_for_steps(self, row):
        begun = len(steps)
        if not waits:  # a last row comes when no actor works any more
            wait_until(lambda: len(steps) >= begun + 200)
        waits.append(len(steps) - begun)
        raise ConnectionError("waited long enough")  # and so the run ends

    monkeypatch.setattr(VectorEnvironments, "step", counted_step)
    monkeypatch.setattr(fake_tracker, "write_metrics", wait_for_steps)
    with pytest.raises((ConnectionError, BaseExceptionGroup)):
        train(ENDLESS.replace(run_dir=str(tmp_path / "run"), wandb=True))
    assert waits[0] >= 200


def test_resumed_run_goes_on_with_its_trackers(tmp_path, fake_tracker):
    run_dir = str(tmp_path / "run")
    train(CONFIG.replace(run_dir=run_dir, wandb=True))
    train(resume_config(run_dir, {"total_frames": 2500}))
    first, second = fake_tracker.instances
    assert second.settings["total_frames"] == 2500
    assert second.rows[0]["num_frames"] > first.rows[-1]["num_frames"]


# The whole program.


def start_program(tmp_path, *arguments):
    root = Path(__file__).parents[2]
    small = ("env=CartPole", "num_actors=1", "envs_per_actor=2", "unroll_length=10")
    small = (*small, "warmup_steps=16", "eval_episodes=0", "run_dir=run")
    return subprocess.Popen(
        [sys.executable, "-m", "a3cjax", "train", *small, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wandb_processes(run_dir):
    """Processes of W&B's service that belong to a folder, by what they have open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:  # it has ended, or is another user's
            continue
        if any(name.startswith(f"{run_dir}/wandb/") for name in names):
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_program_runs_with_all_loggers_and_leaves_no_process(tmp_path):
    process = start_program(
        tmp_path, "total_frames=2000", "log_period_frames=400", "wandb=true", "mlflow=true"
    )
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert err == ""
    assert "Weights & Biases, offline" in out  # in an empty home there is no key
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    assert set(json.loads((tmp_path / "run" / "tracking.json").read_text())) == {"wandb", "mlflow"}
    assert list((tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb"))
    assert wandb_processes(tmp_path / "run") == []


@pytest.mark.slow
def test_death_of_wandbs_service_ends_the_run_with_a_traceback(tmp_path):
    process = start_program(
        tmp_path, "total_frames=1000000000", "log_period_frames=400", "wandb=true"
    )
    metrics, services = tmp_path / "run" / "metrics.csv", []
    while not (services and metrics.read_text().count("\n") >= 2):  # it learns
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
        services = [pid for pid in wandb_processes(tmp_path / "run") if pid != process.pid]
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 1
    assert "Traceback" in err
    assert "wandb" in err
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
