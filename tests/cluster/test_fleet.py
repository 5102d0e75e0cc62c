"""Whole runs of a fleet, whose processes are objects of this one."""

import contextlib
import functools
import itertools
import os
import shutil
import sys
import threading

import gymnasium
import jax
import numpy as np
import pytest
import safetensors.numpy

from a3cjax.actors.reports import Restarted
from a3cjax.actors.supervisor import StallError, Stopped, Supervisor
from a3cjax.cluster import environment, fleet, processes
from a3cjax.cluster.environment import environment_of_ray
from a3cjax.cluster.fleet import ShardsOfRun
from a3cjax.cluster.processes import Unreachable
from a3cjax.cluster.store import ShardedStore
from a3cjax.cluster.worker import Worker
from a3cjax.config.reading import load_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.folder import NEWEST
from a3cjax.runs.tables import EPISODES, METRICS, read_columns
from a3cjax.training import assembly, cluster_muster, train
from a3cjax.training import run as run_module
from tests.cluster.local import Done, MortalProcess, local_engine

CATCH = Config(
    env="Catch",
    num_actors=2,
    envs_per_actor=2,
    total_frames=2_000,
    warmup_steps=10,
    unroll_length=10,
    log_period_frames=500,
    eval_episodes=0,
    video=False,
    tensorboard=False,
    seed=7,
)


@pytest.fixture
def engine(monkeypatch):
    with local_engine(monkeypatch) as engine:
        yield engine


@pytest.fixture
def run(tmp_path, engine):
    """Trains, in a cluster unless told otherwise; the summary."""
    numbers = iter(range(100))

    def train_once(config=CATCH, callbacks=(), **changes):
        settings = {
            "cluster": "ray",
            "num_workers": 2,
            "run_dir": str(tmp_path / str(next(numbers))),
        }
        if changes.get("cluster", "ray") is None:
            settings.pop("num_workers")
        return train(config.replace(**(settings | changes)), callbacks=callbacks)

    return train_once


def arrays_of(summary):
    """What the newest checkpoint of a run holds."""
    path = summary.run_dir / NEWEST / f"{summary.num_frames}.safetensors"
    return safetensors.numpy.load_file(path)


def assert_same_bits(one, other):
    assert one[1:3] == other[1:3]
    one, other = arrays_of(one), arrays_of(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], name)


def assert_logs_tell_all(summary):
    """No row goes back, and the last tells where the run stands."""
    columns, num_damaged = read_columns(summary.run_dir / METRICS)
    assert num_damaged == 0
    for name in ("num_frames", "num_updates", "num_episodes"):
        assert np.all(np.diff(columns[name]) >= 0), name
    assert (columns["num_frames"][-1], columns["num_updates"][-1]) == summary[1:3]
    episodes, _ = read_columns(summary.run_dir / EPISODES)
    assert np.all(np.diff(episodes["num_frames"]) >= 0)
    assert len(episodes["num_frames"]) == columns["num_episodes"][-1]
    return columns


@pytest.mark.parametrize(("num_workers", "algorithm"), [(1, "n_step_q"), (2, "ppo")])
def test_a_deterministic_fleet_learns_what_one_process_learns_to_the_last_bit(
    run, num_workers, algorithm
):
    turns = CATCH.replace(
        deterministic=True, algorithm=algorithm, target_period_frames=300, max_grad_norm=1.0
    )
    alone = run(turns, cluster=None)
    assert alone.num_updates > 50
    assert_same_bits(alone, run(turns, num_workers=num_workers))


def test_shards_of_a_deterministic_fleet_repeat_themselves_and_stay_close_to_the_whole(run):
    turns = CATCH.replace(deterministic=True, total_frames=700, max_grad_norm=1.0)
    alone = run(turns, cluster=None)
    one, other = run(turns, num_shards=3), run(turns, num_shards=3)
    assert_same_bits(one, other)
    assert one[1:3] == alone[1:3]
    whole, joined = arrays_of(alone), arrays_of(one)
    assert whole.keys() == joined.keys()
    for name, array in whole.items():
        if not name.startswith("statistics"):
            np.testing.assert_allclose(joined[name], array, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "one_step_q", "num_shards": 2},
        {"algorithm": "vtrace", "num_workers": 1, "grads_per_push": 2},
        {"network": "mlp_gru", "num_shards": 2, "grads_per_push": 2, "num_workers": 1},
        {"shared_statistics": False, "num_shards": 2},
        {"push_dtype": "bfloat16", "max_staleness": 20, "outlier_deviations": 6.0},
        {"eval_episodes": 2, "eval_period_frames": 500, "unroll_length": "episode"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_every_kind_of_run_comes_to_its_end(run, changes):
    summary = run(**changes)
    assert summary.num_frames >= CATCH.total_frames
    assert_logs_tell_all(summary)
    assert all(np.isfinite(array).all() for array in arrays_of(summary).values())


def test_a_cluster_has_actors_for_its_own_cores(run, engine, monkeypatch, capfd):
    monkeypatch.setattr(engine, "is_local", False)
    engine.node_cores = [1]
    settings = {"num_actors": None, "num_workers": None}
    summary = run(**settings, ray_address="auto", total_frames=300)
    assert (len(engine.workers), load_config(summary.run_dir).num_actors) == (1, 1)
    assert "making 1 × 2 environments" in capfd.readouterr().out


def test_what_shards_kept_goes_with_a_run_that_goes_on_in_threads(run):
    folder = run().run_dir
    (folder / cluster_muster.SHARDS).mkdir()
    train(resume_config(folder, {"cluster": None, "total_frames": 2 * CATCH.total_frames}))
    assert not (folder / cluster_muster.SHARDS).exists()


def test_machines_that_join_late_are_waited_for(run, engine, monkeypatch, capfd):
    monkeypatch.setattr(engine, "is_local", False)
    looks = itertools.chain([[1]] * 3, itertools.repeat([1, 1]))
    monkeypatch.setattr(type(engine), "node_cores", property(lambda _: next(looks)), raising=False)
    run(num_actors=2, ray_address="auto", total_frames=300)
    assert len(engine.workers) == 2
    told = "waiting up to 60 seconds for num_actors=2 cores, the cluster has 1"
    assert capfd.readouterr().err.count(told) == 1
    monkeypatch.setattr(cluster_muster, "JOIN_SECONDS", 0.2)
    with pytest.raises(ConfigError, match="num_actors must be <= 2, the cores of the cluster"):
        run(num_actors=3, ray_address="auto")


def test_no_slot_of_a_core_is_held_while_a_gradient_is_on_its_way(run, monkeypatch):
    slot, were_free = threading.Semaphore(1), []
    make_programs, push = cluster_muster.make_run_programs, ShardedStore.push

    def make_with_slot(*args):
        return make_programs(*args)._replace(learning_slot=slot)

    def push_and_look(*args):
        were_free.append(slot.acquire(blocking=False))
        if were_free[-1]:
            slot.release()
        return push(*args)

    monkeypatch.setattr(cluster_muster, "make_run_programs", make_with_slot)
    monkeypatch.setattr(ShardedStore, "push", push_and_look)
    run(num_actors=1, num_workers=1)
    assert were_free
    assert all(were_free)
    assert slot.acquire(blocking=False)  # nothing is kept, and nothing given back twice
    assert not slot.acquire(blocking=False)


def test_frames_of_what_is_dropped_count(run):
    # A deviation that none is below: all but the first few are outliers.
    columns = assert_logs_tell_all(run(outlier_deviations=1e-9))
    assert columns["num_dropped_updates"].sum() > 0
    assert columns["num_refused_updates"].sum() == 0
    applied = columns["num_updates"][-1]
    frames_each = 10 * CATCH.envs_per_actor  # at most: steps into first observations do not count
    dropped = columns["num_dropped_updates"].sum()
    assert columns["num_frames"][-1] <= 80 + frames_each * (applied + dropped)


@pytest.fixture
def seeds_of_runs(monkeypatch):
    """The seeds of environments, a list for each run that the test begins by appending one."""
    seeds, make = [], assembly.make_environments

    def note(*args, seed, num_envs, **options):
        seeds[-1] += range(seed, seed + num_envs)
        return make(*args, seed=seed, num_envs=num_envs, **options)

    monkeypatch.setattr(assembly, "make_environments", note)
    return seeds


def test_a_run_goes_on_in_threads_and_back_in_a_fleet_with_other_games(run, seeds_of_runs):
    seeds_of_runs.append([])
    first = run(num_shards=3)
    seeds_of_runs.append([])
    longer = {"total_frames": 2_500, "cluster": None}
    threads = run(
        resume_config(str(first.run_dir), longer), run_dir=str(first.run_dir), cluster=None
    )
    assert threads.num_resumes == 1
    assert threads.num_updates > first.num_updates
    again = {"total_frames": 3_000, "cluster": "ray", "num_workers": 1, "num_shards": 2}
    seeds_of_runs.append([])
    back = run(resume_config(str(first.run_dir), again), run_dir=str(first.run_dir), **again)
    assert back.num_updates > threads.num_updates
    assert_logs_tell_all(back)
    assert not (first.run_dir / "shards").exists()
    assert [len(seeds) for seeds in seeds_of_runs] == [4, 4, 4]
    assert len(set(itertools.chain(*seeds_of_runs))) == 12


def test_random_play_of_a_resumed_run_renews_targets_that_are_due(run, monkeypatch):
    # Some 40 frames are played: with them a multiple of 1,000 is passed, or not.
    settings = {"algorithm": "n_step_q", "target_period_frames": 1_000}
    first = run(**settings)
    begun = []
    monkeypatch.setattr(
        cluster_muster, "ShardsOfRun", lambda *args: begun.append(args[2]) or ShardsOfRun(*args)
    )
    longer = {"total_frames": 4_000}
    find = run_module.find_checkpoint
    for num_frames, is_due in ((2_900, False), (2_990, True)):

        def found(*args, num_frames=num_frames):
            checkpoint = find(*args)
            zeros = jax.tree.map(np.zeros_like, checkpoint.state.params)
            progress = checkpoint.progress._replace(num_frames=num_frames)
            state = checkpoint.state._replace(target_params=zeros)
            return checkpoint._replace(state=state, progress=progress)

        monkeypatch.setattr(run_module, "find_checkpoint", found)
        folder = shutil.copytree(first.run_dir, first.run_dir.parent / f"at {num_frames}")
        run(resume_config(str(folder), longer), run_dir=str(folder))
        state = begun[-1].state
        expected = state.params if is_due else jax.tree.map(np.zeros_like, state.params)
        jax.tree.map(np.testing.assert_array_equal, state.target_params, expected)


def test_a_checkpoint_is_the_same_whatever_shards_it_went_through(run):
    first = run(num_shards=3)
    for own in ({"cluster": None}, {"cluster": "ray", "num_workers": 2, "num_shards": 2}):
        # The budget is used up: nothing is learned.
        again = run(resume_config(str(first.run_dir), own), run_dir=str(first.run_dir), **own)
        assert_same_bits(first, again)


class Once:
    """A callback that does something at the first update from a number on."""

    def __init__(self, num_updates, act):
        self.num_updates, self.act, self.is_done = num_updates, act, False

    def on_update(self, event):
        if event.num_updates >= self.num_updates and not self.is_done:
            self.is_done = True
            self.act()


LONG = CATCH.replace(total_frames=3_000)


@pytest.mark.parametrize(
    ("num_shards", "which"), [(1, "worker"), (1, "first shard"), (2, "last shard")]
)
def test_whoever_dies_is_started_again_and_the_run_goes_on(
    run, engine, monkeypatch, which, num_shards, capsys, seeds_of_runs
):
    seeds_of_runs.append([])
    monkeypatch.setattr(fleet, "STRAGGLER_SECONDS", 0.5)

    lines = []
    monkeypatch.setattr(fleet, "Restarted", lambda line: lines.append(line) or Restarted(line))

    def kill():
        {"worker": engine.workers[1], "first shard": engine.shards[0]}.get(
            which, engine.shards[-1]
        ).die()

    options = {"num_shards": num_shards, "shard_save_period_updates": 10}
    summary = run(LONG, [Once(30, kill)], **options)
    assert summary.num_frames >= LONG.total_frames
    assert assert_logs_tell_all(summary)["num_restarts"].sum() == 1
    assert len(engine.workers) == (3 if which == "worker" else 2)
    assert lines == [1 if which == "worker" else None]
    assert "has died and is started again: 1 of 10" in capsys.readouterr().out
    if which == "worker":  # all play games of their own: both lives, and who goes on
        seeds_of_runs.append([])
        longer = {"total_frames": summary.num_frames + 200}
        run(resume_config(summary.run_dir, longer), run_dir=str(summary.run_dir))
        assert [len(seeds) for seeds in seeds_of_runs] == [6, 4]
        assert len(set(itertools.chain(*seeds_of_runs))) == 10


@pytest.mark.parametrize(("num_shards", "index"), [(1, 0), (2, 0), (2, 1)])
def test_an_answer_that_never_comes_holds_up_no_log(run, engine, monkeypatch, num_shards, index):
    monkeypatch.setattr(fleet, "STRAGGLER_SECONDS", 0.3)

    def lose_one():
        shard = engine.shards[index]

        def submit(name, *args):
            answer = MortalProcess.submit(shard, name, *args)
            if name != "push" or vars(shard).pop("submit", None) is None:  # only one is lost
                return answer
            lost.append(shard)
            return Done(failure=Unreachable("it was applied, but who knows?"))

        shard.submit = submit

    class Enough:
        last = None

        def on_update(self, event):
            if lost and self.last is None:
                self.last = event.num_updates + 40
            # The update that is lost has no event, and may be the very one.
            return "stop" if self.last is not None and event.num_updates >= self.last else None

    endless, lost = CATCH.replace(total_frames=100_000), []
    summary = run(endless, [Once(20, lose_one), Enough()], num_shards=num_shards)
    assert summary.stopped_by == "Enough"
    columns = assert_logs_tell_all(summary)
    assert columns["num_dropped_updates"].sum() == 1
    assert columns["num_restarts"].sum() == 0


def test_the_log_ends_where_the_run_does_though_the_last_answers_are_lost(run, engine):
    def lose_all():
        shard = engine.shards[1]

        def submit(name, *args):
            answer = MortalProcess.submit(shard, name, *args)
            return Done(failure=Unreachable("who knows?")) if name == "push" else answer

        shard.submit = submit

    longer = CATCH.replace(total_frames=10_000)  # the callback may hear of updates late
    summary = run(longer, [Once(20, lose_all)], num_shards=2)
    assert summary.num_frames >= longer.total_frames
    assert assert_logs_tell_all(summary)["num_dropped_updates"].sum() >= 10


def kill_at(engine, is_now):
    """The first shard dies at the first call to it that is one of these."""
    shard = engine.shards[0]

    def submit(name, *args):
        if is_now(name, args):
            del shard.submit
            shard.die()
        return MortalProcess.submit(shard, name, *args)

    shard.submit = submit


def is_of_frames_alone(name, args):
    return name == "push" and args[0].grads is None


# Only whoever looks after the fleet tells a shard what to begin with: it must not wait for one.
@pytest.mark.parametrize("num_shards", [1, 2])
def test_a_shard_may_die_as_frames_of_random_play_are_counted(run, engine, num_shards):
    def kill():
        engine.workers[1].die()
        kill_at(engine, is_of_frames_alone)

    summary = run(LONG, [Once(30, kill)], num_shards=num_shards)
    assert summary.num_frames >= LONG.total_frames
    assert assert_logs_tell_all(summary)["num_restarts"].sum() == 2


def test_a_shard_may_die_as_the_run_reads_for_the_last_time(run, engine):
    class EndIt:
        def on_update(self, event):
            if event.num_updates < 30:
                return None
            kill_at(engine, lambda name, args: name == "read")
            return "stop"

    summary = run(LONG, [EndIt()], shard_save_period_updates=1)
    assert summary.stopped_by == "EndIt"
    assert_logs_tell_all(summary)


def test_frames_of_random_play_count_once_when_the_shards_are_back(run, engine, monkeypatch):
    tries, arrived, refusals = [], [], iter(range(5))
    count = ShardedStore.count

    def note(store, num_frames):
        tries.append(num_frames)
        count(store, num_frames)

    monkeypatch.setattr(ShardedStore, "count", note)

    def kill():
        shard = engine.shards[0]

        def submit(name, *args):
            if name == "begin" and next(refusals, None) is not None:  # away for a while
                return Done(failure=Unreachable("not yet"))
            if name == "push" and is_of_frames_alone(name, args):
                arrived.append((args[0].num_frames, next(refusals, None)))
            return MortalProcess.submit(shard, name, *args)

        shard.submit = submit
        shard.die()
        engine.workers[1].die()

    run(LONG, [Once(30, kill)])
    num_frames = CATCH.warmup_steps * CATCH.envs_per_actor
    assert tries == [num_frames]
    assert arrived == [(num_frames, None)]  # after the last refusal


def test_deaths_have_an_end(run, engine):
    with pytest.raises(RuntimeError, match="worker 1 has died: max_restarts must be more than 0"):
        run(LONG, [Once(30, lambda: engine.workers[1].die())], max_restarts=0)


class Broken(gymnasium.Env):
    """An environment that raises when it has played for a while."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        if self.num_steps > 200:
            raise ValueError("the game broke")
        return np.zeros(2, np.float32), 0.0, self.num_steps % 9 == 0, False, {}


def test_what_an_environment_raises_ends_the_run_with_its_traceback(tmp_path, engine):
    config = CATCH.replace(cluster="ray", num_workers=2, run_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="the game broke") as caught:
        train(config, env=Broken)
    notes = "".join(caught.value.__notes__)
    assert 'raise ValueError("the game broke")' in notes
    assert "in thread actor-learner-" in notes


def test_a_stop_is_followed_and_all_is_saved(run):
    class Enough:
        def on_update(self, event):
            return "stop" if event.num_updates == 20 else None

    summary = run(LONG, [Enough()])
    assert 20 <= summary.num_updates < 120
    assert summary.stopped_by == "Enough"
    assert_logs_tell_all(summary)


class NoAnswer:
    """The result of a call over a connection that a network has lost."""

    def is_ready(self):
        return False

    def result(self):
        raise AssertionError("this would take for ever")


RESET = Done(failure=Unreachable("the connection was reset"))


@pytest.mark.parametrize("lost", [RESET, NoAnswer()], ids=["reset", "no answer"])
def test_a_stop_that_got_lost_is_asked_for_again(run, engine, monkeypatch, lost):
    monkeypatch.setattr(processes, "CALL_SECONDS", 0.0)

    def lose_the_next_question(process, question):
        def submit(name, *args):
            if name != question or vars(process).pop("submit", None) is None:
                return MortalProcess.submit(process, name, *args)
            return lost

        process.submit = submit

    class Enough:
        def on_update(self, event):
            if event.num_updates < 20:
                return None
            lose_the_next_question(engine.workers[1], "poll")
            lose_the_next_question(engine.shards[0], "counts")
            return "stop"

    endless = CATCH.replace(total_frames=200_000)
    summary = run(endless, [Enough()])
    assert summary.stopped_by == "Enough"
    assert summary.num_frames < endless.total_frames
    assert_logs_tell_all(summary)


def answer_of_the_next_worker(engine, question, answer):
    """The next worker that is started gives this answer to a question."""
    spawn = engine.spawn

    def submit(process, name, *args):
        own = MortalProcess.submit(process, name, *args)
        return answer if name == question else own

    def spawn_and_change(*args, **options):
        process = spawn(*args, **options)
        process.submit = functools.partial(submit, process)
        del engine.spawn
        return process

    engine.spawn = spawn_and_change


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_worker_that_waits_for_a_place_holds_up_no_end(run, engine, monkeypatch, is_stopped):
    monkeypatch.setattr(fleet, "STRAGGLER_SECONDS", 0.5)

    def kill():
        answer_of_the_next_worker(engine, "play", NoAnswer())
        engine.workers[1].die()

    class Enough:
        def on_update(self, event):
            is_enough = event.num_updates >= 60 and len(engine.workers) == 3
            return "stop" if is_stopped and is_enough else None

    config = CATCH.replace(total_frames=100_000) if is_stopped else LONG
    summary = run(config, [Once(30, kill), Enough()])
    assert len(engine.workers) == 3
    assert (summary.stopped_by is not None) == is_stopped
    assert is_stopped or summary.num_frames >= LONG.total_frames
    assert_logs_tell_all(summary)


@pytest.mark.parametrize("question", ["make", "play", "start"])
def test_what_a_new_worker_raises_ends_the_run(run, engine, question):
    def kill():
        answer_of_the_next_worker(engine, question, Done(failure=OSError("the port is taken")))
        engine.workers[1].die()

    with pytest.raises(OSError, match="the port is taken"):
        run(LONG, [Once(30, kill)])


@pytest.mark.parametrize("question", ["make", "play", "start"])
def test_a_new_worker_with_a_call_that_got_lost_is_replaced(run, engine, monkeypatch, question):
    monkeypatch.setattr(fleet, "STRAGGLER_SECONDS", 0.5)

    def kill():
        answer_of_the_next_worker(engine, question, RESET)
        engine.workers[1].die()

    endless = CATCH.replace(total_frames=100_000)

    class Enough:
        def on_update(self, event):
            return "stop" if len(engine.workers) == 4 and event.num_updates >= 60 else None

    summary = run(endless, [Once(30, kill), Enough()])
    assert assert_logs_tell_all(summary)["num_restarts"].sum() == 2


def test_a_death_in_turns_says_that_nobody_can_go_on(run, engine):
    turns = LONG.replace(deterministic=True)
    with pytest.raises(RuntimeError, match=r"worker 1 has died: a deterministic run ends by that"):
        run(turns, [Once(30, lambda: engine.workers[1].die())])


class Closing(gymnasium.Env):
    """Takes down how many are open."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    num_open = 0

    def __init__(self):
        Closing.num_open += 1
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        return np.zeros(2, np.float32), 0.0, self.num_steps % 9 == 0, False, {}

    def close(self):
        Closing.num_open -= 1


def test_environments_are_closed_before_processes_are_killed(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(MortalProcess, "kill", lambda process: None)
    config = CATCH.replace(cluster="ray", num_workers=2, run_dir=str(tmp_path / "run"))
    train(config, env=Closing)
    assert Closing.num_open == 0


def test_whoever_waits_for_processes_is_told_so(monkeypatch):
    monkeypatch.setattr(fleet, "WAIT_SECONDS", 0.0)
    answers, lines = iter([False] * 4 + [True] * 9), []

    class Late(NoAnswer):
        def is_ready(self):
            return next(answers)

        def result(self):
            return "here"

    supervisor = Supervisor()
    supervisor.announce = lines.append
    assert fleet.gather([Late(), Done("here")], supervisor) == ["here", "here"]
    assert lines == ["waiting for 1 of 2 processes"]


@pytest.mark.parametrize("call", ["make", "warm_up"])
def test_a_worker_tells_what_failed_and_not_that_it_stopped(call):
    failure = StallError("no progress for 9 s: reset()")

    class Staff:
        def make(self, supervisor):
            supervisor.add_failure(failure)
            raise Stopped

        def warm_up(self, config, supervisor):
            self.make(supervisor)

    with pytest.raises(StallError, match="no progress"):
        getattr(Worker(Staff(), 9.0), call)(*["config"] * (call == "warm_up"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": 3}, r"^num_workers must be <= num_actors=2"),
        ({"grads_per_push": 2}, r"^grads_per_push must be <= the 1 actor-learners of a worker"),
        ({"max_staleness": 0}, r"^max_staleness must be >= 1, .* got 0\.$"),
    ],
)
def test_what_would_learn_nothing_is_refused(run, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_a_vector_that_is_made_already_cannot_be_sent(tmp_path, engine):
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with contextlib.closing(vector), pytest.raises(ConfigError, match=r"^cluster must be null"):
        train(CATCH.replace(cluster="ray", num_actors=1), env=vector)


def test_a_second_ray_beside_another_or_after_one_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(environment, "_token", functools.cache(lambda: "secret"))
    again = environment_of_ray(is_private=False)
    with environment_of_ray(is_private=False), pytest.raises(ConfigError, match="Ray already"):
        again.__enter__()
    monkeypatch.setitem(sys.modules, "ray", None)
    for _ in range(2):
        with environment_of_ray(is_private=True):
            assert os.environ["RAY_AUTH_TOKEN"] == "secret"
            monkeypatch.setitem(sys.modules, "ray", sys)
    assert "RAY_AUTH_TOKEN" not in os.environ
    with pytest.raises(ConfigError, match=r"^ray_address must be null where .* token it keeps"):
        environment_of_ray(is_private=False).__enter__()
