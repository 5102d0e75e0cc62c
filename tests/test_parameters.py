import itertools
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.optimizers import make_optimizer
from a3cjax.parameters import ParametersOnDevice, SharedParameters
from a3cjax.placement import place_actors
from a3cjax.types import LearnerState, ObservationStatistics
from a3cjax.updates import make_apply_gradients
from tests.fakes import run_in_threads

N, K = 6, 40


def sgd_store(**kwargs):
    """w ← w − gradient, whatever the number of frames; starts at 0."""
    optimizer = make_optimizer("sgd", schedule=lambda _: 1.0, momentum=0.0)
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    return SharedParameters(
        LearnerState(params, optimizer.init(params)), make_apply_gradients(optimizer), **kwargs
    )


def gradients(value):
    return {"w": jnp.full(3, value), "b": jnp.full((), value)}


def plain_store(apply_gradients, params=0, **kwargs):
    """A store of any Python value."""
    return SharedParameters(LearnerState(params, "opt_state"), apply_gradients, **kwargs)


def add(state, grads, num_frames):
    return LearnerState(state.params + grads, state.opt_state), True


@pytest.fixture
def hectic_threads():
    """Lets threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_first_snapshot_is_what_was_given():
    statistics = ObservationStatistics(jnp.zeros(2), jnp.ones(()))
    store = plain_store(add, "params", statistics=statistics, num_frames=64, num_updates=5)
    snapshot = store.pull()
    assert (snapshot.version, snapshot.num_frames, snapshot.params) == (5, 64, "params")
    assert snapshot.statistics is statistics


def test_push_applies_to_the_newest_parameters():
    store = sgd_store()
    store.pull()  # two actors pull the same snapshot
    store.pull()
    store.push(gradients(1.0), 8, 0)
    store.push(gradients(10.0), 8, 0)
    np.testing.assert_array_equal(store.pull().params["w"], [-11, -11, -11])


def test_push_counts_versions_and_frames():
    store = plain_store(add, num_frames=100, num_updates=3)
    assert [store.push(1, frames, 0).version for frames in (8, 6)] == [4, 5]
    assert store.pull()[:3] == (5, 114, 2)


def test_push_tells_the_frames_of_the_run():
    store = plain_store(add, num_frames=100)
    assert [store.push(1, frames, 0).num_frames for frames in (8, 6)] == [108, 114]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradient_that_is_not_finite_is_refused_and_changes_nothing(bad):
    store = sgd_store()
    store.push(gradients(1.0), 8, 0)
    before = store.read()
    receipt = store.push({"w": jnp.full(3, 1.0), "b": jnp.full((), bad)}, 8, 1)
    assert receipt.is_refused
    assert receipt[:2] == (1, 8)
    assert store.read() is before
    receipt = store.push(gradients(1.0), 8, 1)
    assert not receipt.is_refused
    assert receipt[:2] == (2, 16)


def test_old_snapshots_stay_valid():
    store = sgd_store()
    before = store.pull()
    store.push(gradients(1.0), 8, 0)
    np.testing.assert_array_equal(before.params["w"], [0, 0, 0])
    assert (before.version, before.num_frames) == (0, 0)


def test_statistics_are_handed_on():
    statistics = ObservationStatistics(jnp.zeros(2), jnp.ones(()))
    store = plain_store(add, statistics=statistics)
    store.push(1, 8, 0)
    assert store.pull().statistics is statistics


def test_schedule_sees_the_frames_before_the_update():
    seen = []

    def spy(state, grads, num_frames):
        seen.append(float(num_frames))
        return state, True

    store = plain_store(spy, num_frames=64)
    store.push(None, 80, 0)
    store.push(None, 72, 0)
    assert seen == [64.0, 144.0]


def test_learning_rate_follows_the_frames():
    optimizer = make_optimizer("sgd", schedule=lambda frames: 1.0 - frames / 100, momentum=0.0)
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    store = SharedParameters(
        LearnerState(params, optimizer.init(params)), make_apply_gradients(optimizer), num_frames=50
    )
    store.push(gradients(1.0), 25, 0)
    np.testing.assert_allclose(store.pull().params["w"], -0.5)
    store.push(gradients(1.0), 25, 0)
    np.testing.assert_allclose(store.pull().params["w"], -0.75)


def test_read_gives_the_state_of_the_snapshot():
    optimizer = make_optimizer("rmsprop", schedule=lambda _: 0.1)
    params = {"w": jnp.ones(3), "b": jnp.ones(())}
    apply_gradients = make_apply_gradients(optimizer)
    state = LearnerState(params, optimizer.init(params))
    store = SharedParameters(state, apply_gradients)
    store.push(gradients(2.0), 8, 0)
    read, snapshot = store.read()
    assert read.params is snapshot.params
    assert snapshot is store.pull()
    expected, _ = apply_gradients(state, gradients(2.0), np.float32(0))
    jax.tree.map(np.testing.assert_array_equal, read, expected)


def test_receipt_tells_the_time_at_the_lock():
    times = iter([10.0, 12.0, 17.0])
    receipt = plain_store(add, clock=lambda: next(times)).push(1, 8, 0)
    assert (receipt.wait_seconds, receipt.hold_seconds) == (2.0, 5.0)


def test_receipt_tells_how_stale_the_gradient_was():
    store = plain_store(add)
    assert store.push(1, 8, version=0).staleness == 0
    assert store.push(1, 8, version=0).staleness == 1
    assert store.push(1, 8, version=2).staleness == 0


def test_n_threads_of_k_pushes_make_n_times_k_versions():
    store = sgd_store()
    versions = [[] for _ in range(N)]
    grads = [gradients(float(index + 1)) for index in range(N)]

    def push(index):
        for _ in range(K):
            store.pull()
            versions[index].append(store.push(grads[index], 4, 0).version)

    run_in_threads([lambda index=index: push(index) for index in range(N)])
    snapshot = store.pull()
    assert sorted(itertools.chain(*versions)) == list(range(1, N * K + 1))
    assert all(own == sorted(own) for own in versions)
    assert (snapshot.version, snapshot.num_frames) == (N * K, 4 * N * K)
    # Whole numbers below 2²⁴: the sum is exact in whatever order.
    total = K * sum(range(1, N + 1))
    np.testing.assert_array_equal(snapshot.params["w"], np.full(3, -total))
    np.testing.assert_array_equal(snapshot.params["b"], -total)


@pytest.mark.usefixtures("hectic_threads")
def test_no_push_is_lost_while_another_computes():
    def add_slowly(state, grads, num_frames):
        for _ in range(50):
            pass  # long enough for other threads to come in between
        return add(state, grads, num_frames)

    store = plain_store(add_slowly)
    run_in_threads([lambda: [store.push(1, 1, 0) for _ in range(1000)]] * N)
    assert store.pull()[:3] == (1000 * N, 1000 * N, 1000 * N)


@pytest.mark.usefixtures("hectic_threads")
def test_readers_see_versions_with_their_parameters():
    num_pushes = 3000
    # Parameters and optimizer state of version v are v.
    store = SharedParameters(
        LearnerState(0, 0),
        lambda state, grads, _: (LearnerState(state.params + 1, state.opt_state + 1), True),
    )

    def write():
        for _ in range(num_pushes):
            store.push(None, 4, 0)

    def read():
        version = 0
        while version < 2 * num_pushes:
            snapshot = store.pull()
            assert snapshot.params == snapshot.version
            assert snapshot.num_frames == 4 * snapshot.version
            assert snapshot.version >= version
            version = snapshot.version
            state, snapshot = store.read()
            assert state.params == state.opt_state == snapshot.version

    run_in_threads([write, write, read, read, read])


def test_pull_never_waits_for_a_push():
    entered, release = threading.Event(), threading.Event()

    def wait(state, grads, num_frames):
        entered.set()
        assert release.wait(30)
        return add(state, grads, num_frames)

    store = plain_store(wait)

    def pull():
        assert entered.wait(30)
        try:
            assert store.pull().version == store.read()[1].version == 0
        finally:
            release.set()

    run_in_threads([lambda: store.push(1, 8, 0), pull])
    assert store.pull().version == 1


def test_failed_push_changes_nothing_and_frees_the_lock():
    def fail_once(state, grads, num_frames):
        if grads == "bad":
            raise FloatingPointError("NaN")
        return add(state, grads, num_frames)

    store = plain_store(fail_once)
    with pytest.raises(FloatingPointError):
        store.push("bad", 8, 0)
    assert store.pull()[:3] == (0, 0, 0)
    run_in_threads([lambda: store.push(1, 8, 0)], seconds=10)
    assert store.pull()[:3] == (1, 8, 1)


# The store of an actor on another device.


def test_another_device_sees_the_same_parameters_and_pushes_to_them():
    statistics = ObservationStatistics(jnp.zeros(2), jnp.ones(()))
    store = sgd_store(statistics=statistics, num_updates=4, num_frames=16)
    device = place_actors(1)[0].device
    remote = ParametersOnDevice(store, device)
    snapshot = remote.pull()
    assert snapshot[:2] == store.pull()[:2] == (4, 16)
    for leaf in jax.tree.leaves((snapshot.params, snapshot.statistics)):
        assert leaf.devices() == {device}

    receipt = remote.push(jax.device_put(gradients(1.0), device), 8, snapshot.version)
    assert (receipt.version, receipt.staleness) == (5, 0)
    for pulled, where in ((store.pull(), jax.devices()[0]), (remote.pull(), device)):
        assert (pulled.version, pulled.num_frames) == (5, 24)
        assert pulled.params["w"].devices() == {where}
        np.testing.assert_array_equal(pulled.params["w"], [-1, -1, -1])
