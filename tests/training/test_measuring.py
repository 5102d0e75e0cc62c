import queue
import threading

import pytest

from a3cjax.actors.reports import Seconds, UpdateReport
from a3cjax.actors.supervisor import Supervisor
from a3cjax.commands import doctor, main
from a3cjax.config.settings import Config
from a3cjax.envs import actions
from a3cjax.errors import ConfigError
from a3cjax.system import compilation
from a3cjax.training import measuring
from a3cjax.training.measuring import Training, emulator_rate, run_threads
from tests.cases import for_each
from tests.fakes import FakeClock, wait_until

CONFIG = Config(env="CartPole", num_actors=2, envs_per_actor=2, unroll_length=5, warmup_steps=4)


@pytest.fixture
def supervisor():
    supervisor = Supervisor()
    yield supervisor
    supervisor.dismiss()


def wait_for_stop(job) -> None:
    wait_until(job.is_set)


def test_threads_run_until_the_time_is_over_and_that_is_enough_again_and_again(supervisor):
    ended = []

    def target(job) -> None:
        wait_for_stop(job)
        ended.append(threading.current_thread().name)

    for _ in range(2):
        asked = iter([False, False, True])
        run_threads(supervisor, [target, target], 0.05, lambda asked=asked: next(asked))
        assert list(asked) == []
    assert sorted(ended) == ["actor-learner-0"] * 2 + ["actor-learner-1"] * 2


@pytest.mark.parametrize(("seconds", "is_enough"), [(1e6, True), (0.0, False)])
def test_failure_of_a_thread_stops_the_others_and_is_raised(supervisor, seconds, is_enough):
    def fail(job) -> None:
        raise OSError("the emulator broke")

    with pytest.raises(OSError, match="the emulator broke"):
        run_threads(supervisor, [wait_for_stop, fail], seconds, lambda: is_enough)


def test_a_budget_that_is_used_up_is_told_and_waited_for_by_nobody():
    training = Training(CONFIG.replace(total_frames=2000))

    def run_on():
        while True:
            training.run(0.0)

    with pytest.raises(ConfigError, match=r"^total_frames must be more"):
        run_on()
    training.close()


@pytest.mark.parametrize("env", ["CartPole", "Pendulum"])  # discrete and continuous actions
def test_emulator_is_timed(monkeypatch, recwarn, env):
    clock = FakeClock()

    class StopEvent:
        """Set at the fifth look; a look takes a second."""

        num_looks = 0

        def is_set(self):
            clock.take(1.0)
            self.num_looks += 1
            return self.num_looks == 5

    def run_one_by_one(_, targets, seconds):
        for target in targets:
            target(StopEvent())

    def make_clip(space):
        clip = actions.make_clip(space)

        def count(chosen):
            num_clipped.append(len(chosen))
            return clip(chosen)

        return count

    num_clipped = []
    monkeypatch.setattr(measuring, "make_clip", make_clip)
    monkeypatch.setattr(measuring, "time", clock)
    monkeypatch.setattr(measuring, "run_threads", run_one_by_one)
    # In each of two pools 5 × 3 steps in 5 seconds.
    assert emulator_rate(env, num_actors=2, envs_per_actor=3, seconds=0.0) == 6.0
    assert num_clipped == [3] * 10
    assert not recwarn.list


@for_each("env", ["gymnasium:CartPole-v1", "python:somewhere:make"])
def test_emulator_that_is_not_envpool_is_refused(env):
    with pytest.raises(ConfigError, match=rf"^env must be an envpool id, got {env}"):
        emulator_rate(env, num_actors=1, envs_per_actor=1, seconds=0.0)


def test_training_is_timed_and_its_time_adds_up():
    training = Training(CONFIG)
    result = training.run(0.0)  # and until there is an update
    training.close()
    assert result["steps_per_second"] > 0
    assert sum(result[part] for part in ("env", "act", "learn", "push")) == pytest.approx(1.0)
    assert result["wait"] + result["hold"] <= result["push"]


def test_speed_is_that_of_whole_updates_in_all_threads_over_their_own_time(monkeypatch):
    def report(num_steps, *seconds):
        nothing = UpdateReport(0, 7, num_steps, 0, 0, 0, {}, [], Seconds(*seconds))
        training._reports.put(nothing)

    training = object.__new__(Training)  # without anything that trains
    training._targets, training._reports = [None, None], queue.SimpleQueue()
    report(1000, 1, 1, 1, 1, 1, 1)  # of before

    def train(seconds, is_enough):
        report(20, 4.0, 3.0, 2.0, 1.0, 0.5, 0.25)
        report(60, 8.0, 1.0, 0.5, 0.5, 0.5, 0.25)

    monkeypatch.setattr(training, "_run", train)
    result = training.run(1.0)
    # Two threads, which made 80 steps in 20 seconds of theirs.
    assert result.pop("steps_per_second") == pytest.approx(2 * 80 / 20)
    assert result == pytest.approx(
        {"env": 0.6, "act": 0.2, "learn": 0.125, "push": 0.075, "wait": 0.05, "hold": 0.025}
    )


def test_training_in_turns_cannot_be_timed():
    with pytest.raises(ConfigError, match=r"^deterministic must be false .* got true"):
        Training(CONFIG.replace(deterministic=True))


def test_training_that_cannot_be_assembled_leaves_nothing_open():
    with pytest.raises(ConfigError, match=r"^env must be"):
        Training(CONFIG.replace(env="gymnasium:NoSuch-v0"))
    assert compilation._standing.num_open == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("actor-learner")]


def test_training_with_defaults_that_follow_the_environment_is_timed(monkeypatch):
    closed, close = [], measuring.close_all
    monkeypatch.setattr(measuring, "close_all", lambda *args: closed.append(args) or close(*args))
    config = CONFIG.replace(env="FrozenLake", network="tabular", algorithm="one_step_sarsa")
    training = Training(config.replace(unroll_length="auto"))
    assert training.config.unroll_length == 1
    result = training.run(0.0)
    assert closed == []
    training.close()
    training.close()
    assert len(closed) == 1
    assert result["steps_per_second"] > 0
    assert result["act"] > 0  # it acts ahead, which takes its time, too


def test_training_measures_the_cores_number_of_actors_by_default():
    training = Training(CONFIG.replace(num_actors=None))
    assert training.config.num_actors is not None
    assert training.config.network == "mlp_ff"
    training.close()


@pytest.mark.slow
def test_doctor_names_the_settings_to_use(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    main(["doctor", "env=CartPole", "seconds=0.3"])
    out = capsys.readouterr().out
    assert "CartPole, agent steps a second" in out
    assert "Most of an actor's time goes to" in out
    assert "num_actors=" in out


FIGURES = {"env": 0.5, "act": 0.2, "learn": 0.3, "push": 0.0}


@for_each(
    ("fastest", "num_actors", "advice"),
    [
        ((2, 8), 2, "The default, num_actors=2 envs_per_actor=8, suits"),
        (
            (2, 8),
            1,
            "num_actors=2 envs_per_actor=8 suits this machine. By default a run of 6,000,000",
        ),
        ((3, 8), 2, "num_actors=3 envs_per_actor=8"),
    ],
)
def test_advice_is_the_fastest_setting(fastest, num_actors, advice):
    settings = [(1, 8), (2, 8), (3, 8)]
    rates = {setting: 100.0 + 50.0 * (setting == fastest) for setting in settings}
    results = {s: {**FIGURES, "steps_per_second": rate} for s, rate in rates.items()}
    filled = Config(num_actors=num_actors, envs_per_actor=8)
    part, growth, choice = doctor.advise(results, cores=2, filled=filled)
    assert "the emulator (50%)" in part
    assert f"{rates[2, 8] / rates[1, 8]:.2f} times" in growth
    assert advice in choice
