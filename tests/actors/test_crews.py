"""Actor-learners that share a thread do what they would do alone, only in turn."""

import threading

import chex
import jax
import numpy as np
import pytest

from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.crews import Crew, SharedBatch
from a3cjax.actors.programs import Programs
from a3cjax.actors.trajectories import fill_up
from a3cjax.agents import make_a3c
from a3cjax.envs.base import Episode
from a3cjax.exploration import evaluation_exploration
from a3cjax.types import Constants, QMetrics, is_experienced
from a3cjax.updates import GradientMetrics
from tests.fakes import FakeClock, FakeEnvironments, FakeStore
from tests.tabular import make_tabular_network, random_tables, random_trajectory

T, B, N = 4, 2, 3
FRAMES_PER_STEP = 4


class Bench:
    """A crew among fakes; what each of its actor-learners did stays readable."""

    def __init__(
        self, *, num_updates, is_staggered=True, total_frames=10**9, programs=None, **environments
    ):
        self.programs = programs or {}  # with what they differ
        self.tape, self.clock, self.stop_event = [], FakeClock(), threading.Event()
        self.reports, self.trajectories = [], [[] for _ in range(N)]
        self.num_updates = num_updates  # of all together, then they stop
        first = {3: [1], 5: [4]}  # environments of actor 0 and 2
        self.environments = FakeEnvironments(
            num_envs=N * B, first=first, on_step=lambda t: self.clock.take(6.0), **environments
        )
        self.batch = SharedBatch(self.environments, B)
        self.store = FakeStore(self.tape)
        timesteps = self.batch.split(self.environments.timestep(0))
        actors = [self.make_actor(i, timesteps[i], total_frames) for i in range(N)]
        self.crew = Crew(actors, self.batch)
        if not is_staggered:
            for actor in actors:
                actor.first_length = None

    def make_actor(self, index, timestep, total_frames):
        def act(snapshot, exploration, timestep, core_state, key):
            self.tape.append(("act", index, snapshot.version, int(timestep.observation[0, 0])))
            self.clock.take(1.0)
            actions = np.array([10 * index, 10 * index + 1], np.int32)
            return actions, core_state + 1, key + 1, None

        def compute_gradients(snapshot, exploration, trajectory):
            self.trajectories[index].append(trajectory)
            self.clock.take(100.0)
            return f"grads {index}", GradientMetrics(QMetrics(0, 0, 0), 0)

        actor = ActorLearner(
            index,
            Programs(act, compute_gradients, lambda num_envs: 0)._replace(**self.programs),
            self.batch.parts[index],
            self.store,
            Standing(timestep, 100 * index, None, 1000 * index, np.zeros(B)),
            explore=lambda num_frames: None,
            unroll_length=T,
            total_frames=total_frames,
            report=self.report,
        )
        actor.clock = self.clock
        return actor

    def report(self, report):
        self.reports.append(report)
        assert len(self.reports) <= self.num_updates, "it did not stop"
        if len(self.reports) == self.num_updates:
            self.stop_event.set()

    def run(self):
        self.crew.run(self.stop_event)
        return self


def test_each_acts_with_its_own_snapshot_and_the_batch_is_stepped_once():
    bench = Bench(num_updates=N, is_staggered=False).run()
    assert bench.tape[: 2 * N] == [
        *(entry for i in range(N) for entry in (("pull", 0), ("act", i, 0, 0))),
    ]
    acts = [entry for entry in bench.tape if entry[0] == "act"]
    # The first to push goes on with its own update, the next with both.
    assert acts[N * T :] == [("act", 0, 1, T), ("act", 1, 2, T)]
    assert [actions.tolist() for actions in bench.environments.actions] == [
        [0, 1, 10, 11, 20, 21]
    ] * T


def test_each_learns_from_its_own_environments_and_states():
    bench = Bench(num_updates=2 * N, is_staggered=False).run()
    for index, trajectories in enumerate(bench.trajectories):
        one, other = trajectories
        assert (one.core_state, other.core_state) == (100 * index, 100 * index + T)
        observations = np.concatenate([one.observations[:-1], other.observations])
        np.testing.assert_array_equal(observations[:, 0, 0], range(2 * T + 1))
        np.testing.assert_array_equal(one.actions, [[10 * index, 10 * index + 1]] * T)
        is_first = np.concatenate([one.is_first[:-1], other.is_first])
        places = {0: [[3, 1]], 1: [], 2: [[5, 0]]}[index]
        assert np.argwhere(is_first).tolist() == places
    assert sorted(bench.store.pushed_by) == [0, 0, 1, 1, 2, 2]
    for actor in bench.crew.actors:
        assert actor.standing.key >= 1000 * actor.index + 2 * T


def test_they_push_one_after_another():
    bench = Bench(num_updates=3 * N).run()
    acts = [entry[1] for entry in bench.tape if entry[0] == "act"]
    assert set(acts[: 2 * N]) == {0, 1, 2}
    assert [actor.first_length for actor in Bench(num_updates=1).crew.actors] == [4, 3, 2]
    # At which step of the environments each pushes: T apart, and never two at once.
    steps, step = [], 0
    for entry in bench.tape:
        step += entry[0] == "act" and entry[1] == N - 1
        if entry[0] == "push":
            steps.append((entry[1], step))
    at = {f"grads {i}": [s for name, s in steps if name == f"grads {i}"] for i in range(N)}
    assert all(np.diff(own).tolist() == [T, T] for own in at.values())
    assert len({own[0] for own in at.values()}) == N


def test_passes_of_each_are_made_before_the_next_ones():
    programs = {"behave": lambda snapshot, *_: f"log μ of {snapshot.version}", "num_passes": 2}
    bench = Bench(num_updates=2 * N, is_staggered=False, programs=programs).run()
    frames = FRAMES_PER_STEP * T * B
    pushes = [(entry[1], entry[2]) for entry in bench.tape if entry[0] == "push"]
    assert [actor for actor, _ in pushes] == [f"grads {i}" for i in range(N) for _ in range(2)]
    first = frames - FRAMES_PER_STEP  # it has a reset
    assert [num_frames for _, num_frames in pushes] == [first, 0, frames, 0, frames, 0]
    corrections = [[x.behaviour_log_probs for x in own] for own in bench.trajectories]
    stale = "log μ of 0"  # all acted with that; the first one has nobody before it
    assert corrections == [[None, stale], [stale, stale], [stale, stale]]


def test_first_unrolls_count_the_frames_that_were_played():
    bench = Bench(num_updates=2 * N).run()
    by_actor = [[r.num_frames for r in bench.reports if r.actor_index == i] for i in range(N)]
    experienced = [
        [
            FRAMES_PER_STEP * np.count_nonzero(is_experienced(t.is_first[1:], None))
            for t in trajectories
        ]
        for trajectories in bench.trajectories
    ]
    assert by_actor == experienced
    assert all(len(t.rewards) == T for own in bench.trajectories for t in own)  # one program
    assert by_actor[1][0] == FRAMES_PER_STEP * 3 * B


def test_filled_up_trajectory_teaches_what_the_short_one_does():
    agent = make_a3c(make_tabular_network(), lambda_=0.8)
    short = random_trajectory(0, T, B, num_actions=3)
    longer = fill_up(short, T + 3)
    constants = Constants(None, None, evaluation_exploration(B))
    differentiate = jax.jit(jax.value_and_grad(agent.loss, has_aux=True))
    params = random_tables(0, (T + 1) * B, 3)
    assert len(longer.rewards) == T + 3
    assert fill_up(short, T) is short
    chex.assert_trees_all_close(
        differentiate(params, constants, longer),
        differentiate(params, constants, short),
        rtol=1e-5,
    )


def test_games_are_told_by_those_who_played_them():
    ended = {2: [Episode(0, 1.0, 2), Episode(5, 2.0, 2)], 3: [Episode(3, 3.0, 3)]}
    bench = Bench(num_updates=N, is_staggered=False, episodes=ended).run()
    assert [report.episodes for report in bench.reports] == [
        [Episode(0, 1.0, 2)],
        [Episode(1, 3.0, 3)],
        [Episode(1, 2.0, 2)],
    ]


def test_their_seconds_add_up_to_those_of_the_thread():
    bench = Bench(num_updates=2 * N, is_staggered=False).run()
    for report in bench.reports[N:]:
        assert report.seconds.env == T * 6.0 / N
        assert report.seconds.act == T * 1.0
        assert report.seconds.learn == 100.0


@pytest.mark.parametrize("num_frames", [1, N * T * B * FRAMES_PER_STEP + 1])
def test_budget_ends_all(num_frames):
    bench = Bench(num_updates=10**6, total_frames=num_frames).run()
    assert not bench.stop_event.is_set()
    assert sum(report.num_frames for report in bench.reports) >= num_frames


def test_what_one_raises_ends_all():
    bench = Bench(num_updates=10**6)

    def fail(t):
        if t == 5:
            raise FloatingPointError("no step")

    bench.environments._on_step = fail
    with pytest.raises(FloatingPointError):
        bench.run()
