import itertools
import threading

import jax
import numpy as np
import pytest

from a3cjax.actors import supervisor as supervisor_module
from a3cjax.actors import warmup
from a3cjax.actors.supervisor import StallError, Supervisor
from a3cjax.actors.warmup import play_randomly, warm_up
from a3cjax.envs.base import Episode
from tests.fakes import PATIENCE_SECONDS, FakeClock, FakeEnvironments, wait_until


def test_random_play_takes_the_steps_asked_for():
    tape = []
    environments = FakeEnvironments(tape=tape)
    timestep, _, _ = play_randomly(environments, 5, np.random.default_rng(0))
    assert tape[0] == ("reset",)
    assert [event[0] for event in tape if event[0] != "restart"] == ["reset"] + ["step"] * 5
    jax.tree.map(np.testing.assert_array_equal, timestep, environments.timestep(5))


def test_every_game_is_restarted_once_at_a_step_of_its_own():
    tape = []
    play_randomly(FakeEnvironments(num_envs=50, tape=tape), 40, np.random.default_rng(0))
    restarts = [event[1] for event in tape if event[0] == "restart"]
    assert sorted(itertools.chain(*restarts)) == list(range(50))
    assert len(restarts) > 20
    # The last thing is a step: where the environments stand is what the pool shows.
    assert tape[-1][0] == "step"


def test_no_random_play_still_resets():
    tape = []
    timestep, _, _ = play_randomly(FakeEnvironments(tape=tape), 0, np.random.default_rng(0))
    assert timestep.is_first.all()
    assert tape == [("reset",)]


def test_random_play_is_uniform_over_actions():
    environments = FakeEnvironments(num_envs=100, num_actions=4)
    play_randomly(environments, 60, np.random.default_rng(0))
    actions = np.stack(environments.actions)
    assert actions.shape == (60, 100)
    assert actions.dtype == np.int32
    counts = np.bincount(actions.ravel(), minlength=4)
    np.testing.assert_allclose(counts / 6000, 0.25, atol=0.03)
    assert len({tuple(row) for row in actions}) == 60
    assert len({tuple(row) for row in actions.T}) == 100


def test_random_play_draws_restarts_and_then_an_action_a_step():
    environments = FakeEnvironments(num_envs=3, num_actions=4)
    play_randomly(environments, 5, np.random.default_rng(7))
    generator = np.random.default_rng(7)
    generator.integers(5, size=3)
    expected = [generator.integers(4, size=3, dtype=np.int32) for _ in range(5)]
    np.testing.assert_array_equal(environments.actions, expected)


def test_random_play_takes_continuous_actions():
    environments = FakeEnvironments(num_envs=3, num_actions=2, is_continuous=True)
    play_randomly(environments, 5, np.random.default_rng(0))
    actions = np.stack(environments.actions)
    assert (actions.shape, actions.dtype) == ((5, 3, 2), np.float32)
    assert len(np.unique(actions)) == 30


def test_random_play_leaves_no_episodes_behind():
    environments = FakeEnvironments(episodes={2: [Episode(0, 1.0, 2)]})
    play_randomly(environments, 3, np.random.default_rng(0))
    assert environments.pop_episodes() == []


def test_warm_up_gathers_over_all_batches():
    # FakeEnvironments show the number of the step: 1, 2, 3, 4, in one twice as fast.
    fast = FakeEnvironments(num_envs=1)
    show = fast.timestep
    fast.timestep = lambda t: show(2 * t)
    timesteps, statistics, _ = warm_up([fast, FakeEnvironments(num_envs=3)], 4, seed=0)
    assert statistics is not None
    seen = [2, 4, 6, 8] + 3 * [1, 2, 3, 4]
    np.testing.assert_allclose(statistics.mean, [np.mean(seen)])
    np.testing.assert_allclose(statistics.scale, np.std(seen), rtol=1e-6)
    assert [timestep.observation.tolist() for timestep in timesteps] == [[[8]], [[4], [4], [4]]]


def actions_of_warm_up(seed):
    batches = [FakeEnvironments(), FakeEnvironments()]
    warm_up(batches, 20, seed=seed)
    return [np.stack(batch.actions).tolist() for batch in batches]


def test_warm_up_follows_the_seed():
    assert actions_of_warm_up(1) == actions_of_warm_up(1)
    assert actions_of_warm_up(1) != actions_of_warm_up(2)


def test_warm_up_plays_differently_for_every_actor():
    one, other = actions_of_warm_up(1)
    assert one != other


def test_warm_up_plays_all_batches_at_the_same_time():
    together = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    batches = [FakeEnvironments(on_step=lambda _: together.wait()) for _ in range(3)]
    warm_up(batches, 2, seed=0)


def test_failure_in_one_batch_comes_through_and_ends_the_play_of_the_others(monkeypatch):
    def fail(t):
        raise OSError("the environment broke")

    monkeypatch.setattr(warmup, "JOIN_SECONDS", PATIENCE_SECONDS)
    supervisor = Supervisor(threading.Event())
    other = FakeEnvironments(on_step=lambda _: supervisor.stop_event.wait(PATIENCE_SECONDS))
    batches = [other, FakeEnvironments(on_step=fail)]
    with pytest.raises(OSError, match="the environment broke"):
        warm_up(batches, 10**6, seed=0, supervisor=supervisor)
    assert len(other.actions) <= 1


def test_random_play_ends_when_asked():
    environments = FakeEnvironments()
    _, _, num_taken = play_randomly(
        environments,
        10**6,
        np.random.default_rng(0),
        should_stop=lambda: len(environments.actions) == 7,
    )
    assert num_taken == 7 * environments.num_envs


def test_stopped_before_the_first_step_there_are_no_statistics():
    supervisor = Supervisor(should_stop=lambda: True)
    _, statistics, num_taken = warm_up([FakeEnvironments()], 5, seed=0, supervisor=supervisor)
    assert num_taken == 0
    assert statistics is None


def test_stalled_random_play_is_named_with_its_stack(monkeypatch):
    clock, release = FakeClock(), threading.Event()
    supervisor = Supervisor(threading.Event())

    def get_stuck(_):
        wait_until(lambda: "warm-up-0" not in {thread.name for thread in threading.enumerate()})
        while not release.wait(0.001):
            clock.take(1.0)

    monkeypatch.setattr(supervisor_module, "time", clock)
    monkeypatch.setattr(warmup, "JOIN_SECONDS", 0.1)
    batches = [FakeEnvironments(), FakeEnvironments(on_step=get_stuck)]
    with pytest.raises(ExceptionGroup) as caught:
        warm_up(batches, 4, seed=0, supervisor=supervisor, stall_seconds=60.0)
    stall = caught.value.exceptions[0]
    assert isinstance(stall, StallError)
    assert "warm-up-1" in str(stall)
    assert "warm-up-0" not in str(stall)
    assert "in get_stuck" in str(stall)
    assert supervisor.has_stuck_threads
    release.set()
    supervisor.join(PATIENCE_SECONDS)
