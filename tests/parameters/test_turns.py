import collections
import random
import threading
import time
import types

import numpy as np
import pytest

from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.programs import Programs
from a3cjax.actors.supervisor import Supervisor
from a3cjax.parameters import turns
from a3cjax.parameters.shared import SharedParameters
from a3cjax.parameters.turns import take_turns
from a3cjax.types import LearnerState
from a3cjax.updates import GradientMetrics
from tests.cases import for_each
from tests.fakes import (
    PATIENCE_SECONDS,
    FakeClock,
    FakeEnvironments,
    FakeStore,
    run_in_threads,
    wait_until,
)

N, ROUNDS = 4, 6
T, B, FRAMES_PER_STEP = 3, 2, 4
FRAMES = T * B * FRAMES_PER_STEP  # of one update


def decay_and_add(state, grads, num_frames):
    """Gives other parameters for each order of the gradients; refuses NaN."""
    new_params = state.params * np.float32(0.9) + grads
    return LearnerState(new_params, state.opt_state), bool(np.all(np.isfinite(new_params)))


def shared_parameters(**kwargs):
    params = np.array([0.1, -0.7, 3.0], np.float32)
    return SharedParameters(LearnerState(params, "opt_state"), decay_and_add, **kwargs)


def gradient(index, params):
    """An actor's own, and different at other parameters."""
    return np.sin(params + np.float32(index + 1) / 3)


def learn_in_order(num_rounds, order=range(N)):
    """What the rounds come to, written as one loop."""
    state = shared_parameters().read()[0]
    for _ in range(num_rounds):
        grads = [gradient(index, state.params) for index in range(N)]
        for index in order:
            state, _ = decay_and_add(state, grads[index], 0)
    return state.params


def random_delay(seed):
    """A function that takes up to 3 ms, and sometimes 20 ms."""
    rng = random.Random(seed)
    return lambda: time.sleep(0.02 if rng.random() < 0.05 else rng.uniform(0, 0.003))


def run_rounds(stores, seed=0, num_rounds=ROUNDS):
    """Pulls and pushes in a thread for each actor, with delays between.

    Returns:
      For each actor the snapshots that it pulled and the receipts of its pushes.
    """
    snapshots, receipts = [[] for _ in stores], [[] for _ in stores]

    def learn(index):
        delay = random_delay(100 * seed + index)
        for _ in range(num_rounds):
            delay()
            snapshot = stores[index].pull()
            snapshots[index].append(snapshot)
            grads = gradient(index, snapshot.params)
            delay()
            receipts[index].append(stores[index].push(grads, FRAMES, snapshot.version))

    run_in_threads([lambda i=i: learn(i) for i in range(len(stores))])
    return snapshots, receipts


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    """How often each thread, by its name, looked whether to go on while it waited for others."""
    counts = collections.Counter()

    class Condition(threading.Condition):
        def wait(self, timeout=None):
            counts[threading.current_thread().name] += 1
            return super().wait(timeout)

    monkeypatch.setattr(turns, "threading", types.SimpleNamespace(Condition=Condition))
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.001)
    return counts


class Call:
    """A function that runs in a thread of its own until it returns."""

    def __init__(self, function):
        self.answer = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self.answer = self._function()

    def waits(self, looks):
        """Whether it waits for others, and still does so when it has looked a few times."""
        wait_until(lambda: looks[self._thread.name] >= 5 or not self._thread.is_alive())
        return self._thread.is_alive()

    def returns(self, seconds=PATIENCE_SECONDS):
        self._thread.join(seconds)
        return not self._thread.is_alive()


# The law.


@for_each("seed", range(3))
def test_pushes_come_in_the_order_of_the_actors(seed):
    order = []

    class Spy(FakeStore):
        def push(self, grads, num_frames, version, actor_index=0, seen=None):
            order.append(grads)
            return super().push(grads, num_frames, version, actor_index)

    def learn(index, store):
        delay = random_delay(100 * seed + index)
        for _ in range(ROUNDS):
            delay()
            store.push(index, FRAMES, store.pull().version, 10 + index)

    spy = Spy()
    stores = take_turns(spy, N, threading.Event())
    run_in_threads([lambda i=i: learn(i, stores[i]) for i in range(N)])
    assert order == list(range(N)) * ROUNDS
    assert spy.pushed_by == [10 + index for index in range(N)] * ROUNDS


def test_snapshot_stays_until_the_actor_has_pushed():
    store = shared_parameters()
    first, second = take_turns(store, 2, threading.Event())
    before = store.pull()
    assert first.pull() is first.pull() is before
    first.push(np.float32(1), FRAMES, 0)
    assert store.pull().version == 1
    assert second.pull() is second.pull() is before
    second.push(np.float32(1), FRAMES, 0)
    assert first.pull() is second.pull() is store.pull()
    assert first.pull().version == 2


def test_in_a_round_all_see_the_same_snapshot_with_the_same_stalenesses_every_time():
    store = shared_parameters(num_updates=5, num_frames=100)
    snapshots, receipts = run_rounds(take_turns(store, N, threading.Event()))
    for in_round in zip(*snapshots, strict=True):
        assert all(snapshot is in_round[0] for snapshot in in_round)
    for index in range(N):
        assert [receipt.version for receipt in receipts[index]] == [
            5 + N * r + index + 1 for r in range(ROUNDS)
        ]
        assert [receipt.staleness for receipt in receipts[index]] == [index] * ROUNDS
        assert [snapshot[:2] for snapshot in snapshots[index]] == [
            (5 + N * r, 100 + FRAMES * N * r) for r in range(ROUNDS)
        ]


def test_next_round_waits_for_the_last_push(looks):
    store = shared_parameters()
    first, second = take_turns(store, 2, threading.Event())
    first.push(np.float32(1), FRAMES, 0)
    pull = Call(first.pull)
    assert pull.waits(looks)
    second.push(np.float32(1), FRAMES, 0)
    assert pull.returns()
    assert pull.answer is store.pull()


def test_whoever_waits_shows_life_and_nobody_else_does():
    waiting = []
    stores = take_turns(
        shared_parameters(), 2, threading.Event(), at_wait=lambda: waiting.append(1)
    )
    stores[0].push(np.float32(1), FRAMES, 0)
    assert waiting == []
    pull = threading.Thread(target=stores[0].pull)
    pull.start()
    wait_until(lambda: len(waiting) >= 3)
    stores[1].push(np.float32(1), FRAMES, 0)
    pull.join()


def test_push_waits_for_those_before_it(looks):
    store = shared_parameters()
    first, second = take_turns(store, 2, threading.Event())
    push = Call(lambda: second.push(np.float32(1), FRAMES, 0))
    assert push.waits(looks)
    assert store.pull().version == 0
    first.push(np.float32(1), FRAMES, 0)
    assert push.returns()
    assert push.answer.version == 2


def test_one_actor_never_waits():
    (store,) = take_turns(shared_parameters(), 1, threading.Event())
    for version in range(3):
        assert store.pull().version == version
        receipt = store.push(np.float32(1), FRAMES, version)
        assert (receipt.version, receipt.staleness) == (version + 1, 0)


def test_refused_gradient_takes_its_turn_too():
    store = shared_parameters()
    first, second = take_turns(store, 2, threading.Event())
    assert first.push(np.float32(np.nan), FRAMES, 0).is_refused
    receipt = second.push(np.float32(1), FRAMES, 0)
    assert (receipt.version, receipt.staleness) == (1, 0)
    assert first.pull() is second.pull() is store.pull()
    assert first.pull()[:2] == (1, FRAMES)


# Between rounds.


@for_each("seed", range(3))
def test_round_end_is_told_once_between_rounds_while_no_actor_works(seed):
    store, works, lock = shared_parameters(), [0], threading.Lock()
    ends = []

    def note():
        with lock:
            ends.append((works[0], store.pull().version))

    stores = take_turns(store, N, threading.Event(), at_round_end=note)

    def learn(index):
        delay = random_delay(100 * seed + index)
        for _ in range(ROUNDS):
            snapshot = stores[index].pull()
            with lock:
                works[0] += 1
            delay()
            with lock:
                works[0] -= 1
            stores[index].push(gradient(index, snapshot.params), FRAMES, snapshot.version)
            delay()

    run_in_threads([lambda i=i: learn(i) for i in range(N)])
    # All have pushed their gradients, and none has begun the next round.
    assert ends == [(0, N * r) for r in range(1, ROUNDS + 1)]


def test_no_actor_begins_the_next_round_before_the_end_of_the_last_is_told(looks):
    entered, release = threading.Event(), threading.Event()

    def wait():
        entered.set()
        assert release.wait(PATIENCE_SECONDS)

    store = shared_parameters()
    first, second = take_turns(store, 2, threading.Event(), at_round_end=wait)
    first.push(np.float32(1), FRAMES, 0)
    assert not entered.is_set()
    pull = Call(first.pull)
    assert pull.waits(looks)
    push = Call(lambda: second.push(np.float32(1), FRAMES, 0))
    assert entered.wait(PATIENCE_SECONDS)
    assert not pull.returns(0.1)
    release.set()
    assert pull.returns()
    assert push.returns()
    assert pull.answer.version == 2


def test_pushes_out_of_turn_end_no_round():
    ends, stop_event = [], threading.Event()
    stores = take_turns(
        shared_parameters(), 2, stop_event, at_round_end=lambda: ends.append("round")
    )
    stop_event.set()
    for version, index in enumerate((1, 0, 0, 1)):
        stores[index].push(np.float32(1), FRAMES, version)
    assert ends == []


# What it is for: the same parameters to the last bit.


def test_order_of_the_gradients_matters_here():
    # Otherwise the tests below could not fail.
    in_order, reversed_order = learn_in_order(ROUNDS), learn_in_order(ROUNDS, range(N)[::-1])
    assert np.all(in_order != reversed_order)


@for_each("seed", range(3))
def test_parameters_do_not_depend_on_delays(seed):
    store = shared_parameters()
    run_rounds(take_turns(store, N, threading.Event()), seed)
    np.testing.assert_array_equal(store.pull().params, learn_in_order(ROUNDS))


def test_gradients_are_computed_at_the_same_time():
    # All must have pulled before the first one pushes.
    barrier = threading.Barrier(N)
    store = shared_parameters()

    def learn(index, view):
        for _ in range(ROUNDS):
            snapshot = view.pull()
            barrier.wait(PATIENCE_SECONDS)
            view.push(gradient(index, snapshot.params), FRAMES, snapshot.version)

    views = take_turns(store, N, threading.Event())
    run_in_threads([lambda i=i: learn(i, views[i]) for i in range(N)])
    np.testing.assert_array_equal(store.pull().params, learn_in_order(ROUNDS))


# With actor-learners.


class Bench:
    """N actor-learners that take turns, each among fakes with delays of its own."""

    def __init__(self, *, total_frames=10**9, seed=0, on_step=lambda index, t: None):
        self.store = shared_parameters()
        self.stop_event = threading.Event()
        self.reports = [[] for _ in range(N)]
        self.on_step = on_step
        views = take_turns(self.store, N, self.stop_event)
        self.actor_learners = [
            self.make(index, views[index], total_frames, random_delay(100 * seed + index))
            for index in range(N)
        ]

    def make(self, index, store, total_frames, delay):
        def step(t):
            delay()
            self.on_step(index, t)

        def act(snapshot, exploration, timestep, core_state, key):
            return np.zeros(B, np.int32), core_state, key, None

        def compute_gradients(snapshot, exploration, trajectory):
            delay()
            scale = np.float32(trajectory.rewards.sum() / 10)
            metrics = GradientMetrics(types.SimpleNamespace(_asdict=dict), np.float32(0))
            return scale * gradient(index, snapshot.params), metrics

        environments = FakeEnvironments(num_envs=B, frames_per_step=FRAMES_PER_STEP, on_step=step)
        return ActorLearner(
            index,
            Programs(act, compute_gradients, lambda num_envs: 0),
            environments,
            store,
            Standing(environments.timestep(0), 0, None, 0, np.zeros(B)),
            explore=lambda num_frames: None,
            unroll_length=T,
            total_frames=total_frames,
            report=self.reports[index].append,
        )

    def run(self):
        run_in_threads(
            [lambda actor=actor: actor.run(self.stop_event) for actor in self.actor_learners]
        )
        return self


@for_each(
    ("total_frames", "num_rounds"),
    [(1, 1), (N * FRAMES, 1), (N * FRAMES + 1, 2), (2 * N * FRAMES, 2), (3 * N * FRAMES - 1, 3)],
)
def test_frame_budget_ends_all_actors_after_the_same_round(total_frames, num_rounds):
    bench = Bench(total_frames=total_frames).run()
    assert not bench.stop_event.is_set()
    assert [len(reports) for reports in bench.reports] == [num_rounds] * N
    assert bench.store.pull()[:2] == (N * num_rounds, N * num_rounds * FRAMES)


def test_runs_of_actor_learners_are_repeatable():
    one, other = (Bench(total_frames=ROUNDS * N * FRAMES, seed=seed).run() for seed in (1, 2))
    assert one.store.pull().version == other.store.pull().version == ROUNDS * N
    np.testing.assert_array_equal(one.store.pull().params, other.store.pull().params)
    for index in range(N):
        for report, again in zip(one.reports[index], other.reports[index], strict=True):
            assert (report.version, report.staleness) == (again.version, again.staleness)
            assert report.staleness == index


@pytest.mark.parametrize("failing", [0, N - 1])
def test_failure_of_one_actor_ends_all(looks, failing):
    def fail(index, t):
        if index == failing and t == 2 * T:
            before = looks.copy()
            others = [f"actor-learner-{other}" for other in range(N) if other != failing]
            wait_until(lambda: all(looks[other] > before[other] for other in others))
            raise OSError("the environment broke")

    bench = Bench(on_step=fail)
    supervisor = Supervisor()
    supervisor.stop_event = bench.stop_event
    supervisor.start([actor.run for actor in bench.actor_learners], "actor-learner")
    assert bench.stop_event.wait(PATIENCE_SECONDS)
    supervisor.wait(PATIENCE_SECONDS)
    supervisor.dismiss()
    with pytest.raises(OSError, match="the environment broke"):
        supervisor.raise_failures()  # would be a group if one of them hung
    assert len(bench.reports[failing]) == 1


# The end of waiting.


def test_stop_event_ends_the_wait_for_the_next_round(looks):
    store, stop_event = shared_parameters(), threading.Event()
    first, _ = take_turns(store, 2, stop_event)
    first.push(np.float32(1), FRAMES, 0)
    pull = Call(first.pull)
    assert pull.waits(looks)
    stop_event.set()
    assert pull.returns()
    assert pull.answer is store.pull()
    assert pull.answer.version == 1


def test_stop_event_ends_the_wait_for_a_turn(looks):
    store, stop_event = shared_parameters(), threading.Event()
    _, second = take_turns(store, 2, stop_event)
    push = Call(lambda: second.push(np.float32(1), FRAMES, 0))
    assert push.waits(looks)
    stop_event.set()
    assert push.returns()
    assert (push.answer.version, push.answer.staleness) == (1, 0)
    assert store.pull().version == 1


def test_nobody_waits_after_the_stop_event():
    store, stop_event = shared_parameters(), threading.Event()
    stores = take_turns(store, N, stop_event)
    stop_event.set()
    for version, index in enumerate((2, 2, 0, 3, 1)):
        assert stores[index].pull() is store.pull()
        assert stores[index].push(np.float32(1), FRAMES, version).version == version + 1


def test_push_in_turn_that_takes_long_does_not_keep_others_from_stopping(looks):
    entered, release = threading.Event(), threading.Event()

    def wait():
        entered.set()
        assert release.wait(PATIENCE_SECONDS)

    stop_event = threading.Event()
    store = FakeStore(on_push=wait)
    first, second = take_turns(store, 2, stop_event)
    second_pull = Call(lambda: (second.push("grads", FRAMES, 0), second.pull())[1])
    assert second_pull.waits(looks)
    first_push = Call(lambda: first.push("grads", FRAMES, 0))
    assert entered.wait(PATIENCE_SECONDS)
    store._on_push = lambda: None
    stop_event.set()
    try:
        assert second_pull.returns()
    finally:
        release.set()
    assert first_push.returns()


def test_push_that_raises_keeps_its_turn(looks):
    def fail():
        raise FloatingPointError("NaN")

    stop_event = threading.Event()
    store = FakeStore(on_push=fail)
    first, second = take_turns(store, 2, stop_event)
    with pytest.raises(FloatingPointError):
        first.push("grads", FRAMES, 0)
    store._on_push = lambda: None
    push = Call(lambda: second.push("grads", FRAMES, 0))
    assert push.waits(looks)
    stop_event.set()
    assert push.returns()


# The receipt.


def test_receipt_adds_the_wait_for_the_turn():
    times = iter([10.0, 13.0])
    (store,) = take_turns(FakeStore(), 1, threading.Event(), clock=lambda: next(times))
    receipt = store.push("grads", FRAMES, 0)
    assert (receipt.wait_seconds, receipt.hold_seconds) == (3.25, 0.5)  # FakeStore: 0.25, 0.5


def test_turn_is_waited_for_as_long_as_others_take():
    clock, asked = FakeClock(), threading.Event()

    def tell():
        now = clock()
        asked.set()
        return now

    first, second = take_turns(FakeStore(), 2, threading.Event(), clock=tell)
    push = Call(lambda: second.push("grads", FRAMES, 0))
    assert asked.wait(PATIENCE_SECONDS)
    clock.take(7.0)
    assert first.push("grads", FRAMES, 0).wait_seconds == 0.25
    assert push.returns()
    assert push.answer.wait_seconds == 7.25
