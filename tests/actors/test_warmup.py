import itertools
import threading

import jax
import numpy as np
import pytest

from a3cjax.actors import warmup
from a3cjax.actors.statistics import statistics_of
from a3cjax.actors.supervisor import StallError, Stopped, Supervisor
from a3cjax.actors.warmup import play_in_each, play_randomly, warm_up
from a3cjax.envs.base import Episode
from tests.fakes import DISCOUNT, PATIENCE_SECONDS, FakeEnvironments


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


def test_returns_of_random_play_end_where_games_are_restarted():
    _, seen, _ = play_randomly(FakeEnvironments(num_envs=3), 5, np.random.default_rng(7))
    restarts, sums = np.random.default_rng(7).integers(5, size=3), []
    assert restarts.max() > 0
    for restart in restarts:
        carried = 0.0
        for t in range(5):  # its reward is t + 1
            carried = (0.0 if t == restart else DISCOUNT * carried) + t + 1
            sums.append(carried)
    assert seen.returns.num_seen == 15
    np.testing.assert_allclose(
        (seen.returns.mean, seen.returns.variance), (np.mean(sums), np.var(sums)), rtol=1e-6
    )


def test_random_play_leaves_no_episodes_behind():
    environments = FakeEnvironments(episodes={2: [Episode(0, 1.0, 2)]})
    play_randomly(environments, 3, np.random.default_rng(0))
    assert environments.pop_episodes() == []


@pytest.fixture
def supervisor():
    supervisor = Supervisor(stall_seconds=PATIENCE_SECONDS)
    yield supervisor
    supervisor.dismiss()


def test_warm_up_gathers_over_all_batches(supervisor):
    # FakeEnvironments show the number of the step: 1, 2, 3, 4, in one twice as fast.
    fast = FakeEnvironments(num_envs=1)
    show = fast.timestep
    fast.timestep = lambda t: show(2 * t)
    timesteps, in_all, _ = warm_up([fast, FakeEnvironments(num_envs=3)], 4, 0, supervisor)
    statistics = statistics_of(in_all.observations, fast.spec.observation)
    seen = [2, 4, 6, 8] + 3 * [1, 2, 3, 4]
    np.testing.assert_allclose(statistics.mean, [np.mean(seen)])
    np.testing.assert_allclose(statistics.scale, np.std(seen), rtol=1e-6)
    assert [timestep.observation.tolist() for timestep in timesteps] == [[[8]], [[4], [4], [4]]]


def test_warm_up_follows_the_seed_and_plays_differently_for_every_actor(supervisor):
    def actions_of(seed):
        batches = [FakeEnvironments(), FakeEnvironments()]
        warm_up(batches, 20, seed, supervisor)
        return [np.stack(batch.actions).tolist() for batch in batches]

    one, other = actions_of(1)
    assert one != other
    assert actions_of(1) == [one, other]
    assert actions_of(2) != [one, other]


def test_a_part_of_the_batches_plays_as_it_does_in_the_whole(supervisor):
    whole, part = [FakeEnvironments() for _ in range(3)], [FakeEnvironments() for _ in range(2)]
    play_in_each(whole, 20, 1, supervisor)
    play_in_each(part, 20, 1, supervisor, first_index=1)
    actions = [np.stack(batch.actions).tolist() for batch in [*whole, *part]]
    assert actions[1:3] == actions[3:]


def test_warm_up_plays_all_batches_at_the_same_time_in_their_own_threads(supervisor):
    together, threads = threading.Barrier(3, timeout=PATIENCE_SECONDS), {}

    def note(index):
        together.wait()
        threads.setdefault(index, set()).add(threading.get_ident())

    batches = [FakeEnvironments(on_step=lambda _, i=i: note(i)) for i in range(3)]
    warm_up(batches, 2, 0, supervisor)
    owners = [supervisor.ask(threading.get_ident, f"actor-learner-{i}", "") for i in range(3)]
    assert threads == {index: {owner} for index, owner in enumerate(owners)}


def test_failure_in_one_batch_comes_through_and_ends_the_play_of_the_others(
    monkeypatch, supervisor
):
    def fail(t):
        raise OSError("the environment broke")

    monkeypatch.setattr(warmup, "JOIN_SECONDS", PATIENCE_SECONDS)
    other = FakeEnvironments(on_step=lambda _: supervisor.stop_event.wait(PATIENCE_SECONDS))
    batches = [other, FakeEnvironments(on_step=fail)]
    with pytest.raises(OSError, match="the environment broke"):
        warm_up(batches, 10**6, 0, supervisor)
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


@pytest.mark.parametrize("num_steps", [0, 3])
def test_play_that_was_cut_short_has_no_statistics(num_steps):
    # They would be taken for those of the whole: mean 0 and scale 1e-6 for ever.
    environments = FakeEnvironments()
    supervisor = Supervisor(should_stop=lambda: len(environments.actions) >= num_steps)
    with pytest.raises(Stopped):
        warm_up([environments], 5, 0, supervisor)
    supervisor.dismiss()


def test_stalled_random_play_is_named_with_its_stack(monkeypatch):
    release, supervisor = threading.Event(), Supervisor(stall_seconds=0.05)

    def get_stuck(_):
        assert release.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(warmup, "JOIN_SECONDS", PATIENCE_SECONDS)
    batches = [FakeEnvironments(), FakeEnvironments(on_step=get_stuck)]
    with pytest.raises(StallError) as caught:
        warm_up(batches, 4, 0, supervisor)
    assert "actor-learner-1 (random play)" in str(caught.value)
    assert "actor-learner-0" not in str(caught.value)
    assert "in get_stuck" in str(caught.value)
    release.set()
    supervisor.dismiss()
