import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a3cjax.actors.placement import place_actors
from a3cjax.optimizers import make_optimizer
from a3cjax.parameters.moments import moments_of
from a3cjax.parameters.shared import ParametersOnDevice, SharedParameters, as_views
from a3cjax.types import LearnerState, ObservationStatistics, Seen
from a3cjax.updates import make_apply_gradients
from tests.cases import for_each
from tests.fakes import PATIENCE_SECONDS, FakeStore, run_in_threads

N = 6


def sgd_store(**kwargs):
    """w ← w − gradient, whatever the number of frames; starts at 0."""
    optimizer = make_optimizer("sgd", schedule=lambda _: 1.0, momentum=0.0)
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    return SharedParameters(
        LearnerState(params, optimizer.init(params)), make_apply_gradients(optimizer), **kwargs
    )


def gradients(value):
    return {"w": jnp.full(3, value), "b": jnp.full((), value)}


def plain_store(apply_gradients, params=0, opt_state="opt_state", target_params=None, **kwargs):
    """A store of any Python value."""
    state = LearnerState(params, opt_state, target_params)
    return SharedParameters(state, apply_gradients, **kwargs)


def add(state, grads, num_frames):
    return state._replace(params=state.params + grads), True


@pytest.fixture
def hectic_threads():
    """Lets threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_first_snapshot_is_what_was_given_and_statistics_are_handed_on():
    statistics = ObservationStatistics(jnp.zeros(2), jnp.ones(()))
    store = plain_store(add, "params", statistics=statistics, num_frames=64, num_updates=5)
    snapshot = store.pull()
    assert (snapshot.version, snapshot.num_frames, snapshot.params) == (5, 64, "params")
    store.push(" and more", 8, 0)
    assert store.pull().statistics is snapshot.statistics is statistics


def test_push_applies_to_the_newest_parameters_and_old_snapshots_stay_valid():
    store = sgd_store()
    before = store.pull()  # two actors pull the same snapshot
    store.pull()
    store.push(gradients(1.0), 8, 0)
    store.push(gradients(10.0), 8, 0)
    np.testing.assert_array_equal(store.pull().params["w"], [-11, -11, -11])
    np.testing.assert_array_equal(before.params["w"], [0, 0, 0])
    assert (before.version, before.num_frames) == (0, 0)


def test_push_counts_versions_and_frames():
    store = plain_store(add, num_frames=100, num_updates=3)
    assert [store.push(1, frames, 0)[:2] for frames in (8, 6)] == [(4, 108), (5, 114)]
    assert store.pull()[:3] == (5, 114, 2)


def test_what_is_dropped_changes_nothing_but_counts_its_frames_and_renews_targets():
    state = LearnerState(1, "opt_state", target_params=0)
    store = SharedParameters(state, add, num_frames=5, num_updates=3, target_period_frames=10)
    receipt = store.drop(4, version=1)
    assert receipt[:3] == (3, 9, 2)
    assert receipt.is_dropped
    assert store.pull()._replace(statistics=None, reward_scale=None) == (3, 9, 1, None, 0, None)
    store.drop(1, version=3)
    assert store.pull().target_params == 1
    assert store.counts() == (10, 3)


@for_each("num_actors", [None, 2])
@for_each("bad", [np.nan, np.inf])
def test_gradient_that_is_not_finite_is_refused_and_changes_nothing(bad, num_actors):
    store = rmsprop_store(num_actors)
    store.push(gradients(1.0), 8, 0)
    before = store.read()
    receipt = store.push({"w": jnp.full(3, 1.0), "b": jnp.full((), bad)}, 8, 1)
    assert receipt.is_refused
    assert receipt[:2] == (1, 8)
    assert store.read() is before
    receipt = store.push(gradients(1.0), 8, 1)
    assert not receipt.is_refused
    assert receipt[:2] == (2, 16)


def test_what_was_seen_counts_with_accepted_gradients_alone_and_scales_follow_it():
    statistics = ObservationStatistics(
        {"eye": jnp.full(4, 9.0), "vector": jnp.zeros(1)},
        {"eye": jnp.asarray(3.0), "vector": jnp.ones(1)},
    )

    def see(*values):
        vector = moments_of(values, (1,))
        return Seen(moments_of([10 * v for v in values]), {"eye": None, "vector": vector})

    def accept(state, grads, num_frames):
        return state._replace(params=state.params + 1), grads == "good"

    state = LearnerState(0, "opt_state", seen=see())
    store = SharedParameters(state, accept, statistics=statistics)
    first = store.pull()
    assert first.reward_scale == 1  # of nothing
    store.push("good", 8, 0, seen=see(1.0, 3.0))
    assert store.push("bad", 8, 1, seen=see(1e9, -1e9)).is_refused
    store.push("good", 8, 1, seen=see(5.0, 7.0))
    learned, last = store.read()
    assert learned.seen.returns.num_seen == 4
    # 1, 3, 5, 7 have the mean 4 and the variance 5; a tenth of the mean is added to it.
    assert last.reward_scale == pytest.approx(np.hypot(np.sqrt(500), 4), rel=1e-6)
    np.testing.assert_allclose(last.statistics.mean["vector"], [4.0])
    np.testing.assert_allclose(last.statistics.scale["vector"], [np.sqrt(5)], rtol=1e-6)
    assert last.statistics.mean["eye"] is statistics.mean["eye"]
    assert last.statistics.scale["eye"] is statistics.scale["eye"]
    np.testing.assert_array_equal(first.statistics.mean["vector"], [0.0])  # who reads it keeps it


def test_nothing_is_scaled_where_nothing_is_to_be_looked_at():
    store = plain_store(add)
    store.push(1, 8, 0, seen=Seen())
    assert store.pull().reward_scale is None


def test_schedule_sees_the_frames_before_the_update():
    seen = []

    def spy(state, grads, num_frames):
        seen.append(float(num_frames))
        return state, True

    store = plain_store(spy, num_frames=64)
    store.push(None, 80, 0)
    store.push(None, 72, 0)
    assert seen == [64.0, 144.0]


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
    times = iter([10.0, 12.0, 17.0] * 2)
    store = plain_store(add, clock=lambda: next(times))
    for receipt in (store.push(1, 8, 0), store.drop(8, 0)):
        assert (receipt.wait_seconds, receipt.hold_seconds) == (2.0, 5.0)


def test_receipt_tells_how_stale_the_gradient_was():
    store = plain_store(add)
    assert store.push(1, 8, version=0).staleness == 0
    assert store.push(1, 8, version=0).staleness == 1
    assert store.push(1, 8, version=2).staleness == 0


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
        assert release.wait(PATIENCE_SECONDS)
        return add(state, grads, num_frames)

    store = plain_store(wait)

    def pull():
        assert entered.wait(PATIENCE_SECONDS)
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
    run_in_threads([lambda: store.push(1, 8, 0)])
    assert store.pull()[:3] == (1, 8, 1)


# Target parameters.

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, period=st.integers(1, 50), start=st.integers(0, 200))
def test_target_parameters_are_those_of_the_last_update_that_passed_a_multiple(seed, period, start):
    rng = np.random.default_rng(seed)
    # Lists: equal ones are not the same.
    first = [0]
    store = plain_store(
        lambda state, grads, _: (state._replace(params=[grads]), True),
        first,
        target_params=first,
        num_frames=start,
        target_period_frames=period,
    )
    expected, frames = first, start
    for index in range(1, 30):
        num_frames = int(rng.integers(0, 30))
        store.push(index, num_frames, 0)
        state, snapshot = store.read()
        assert snapshot.params == [index]
        if any(n % period == 0 for n in range(frames + 1, frames + num_frames + 1)):
            expected = snapshot.params
        frames += num_frames
        assert snapshot.target_params is state.target_params is expected


def target_store(**kwargs):
    """As `sgd_store`, with target parameters that are renewed every 100 frames."""
    optimizer = make_optimizer("sgd", schedule=lambda _: 1.0, momentum=0.0)
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    state = LearnerState(params, optimizer.init(params), params)
    return SharedParameters(
        state, make_apply_gradients(optimizer), target_period_frames=100, **kwargs
    )


def test_target_parameters_are_the_very_same_until_they_change():
    # Compiled programs make new dictionaries and arrays of what they hand through.
    store = target_store()
    first = store.pull().target_params
    for _ in range(3):
        store.push(gradients(1.0), 30, 0)
        assert store.pull().target_params is first
    store.push(gradients(1.0), 30, 0)
    snapshot = store.pull()
    assert snapshot.target_params is snapshot.params is not first
    np.testing.assert_array_equal(snapshot.target_params["w"], [-4, -4, -4])
    np.testing.assert_array_equal(first["w"], [0, 0, 0])


def test_refused_gradient_renews_no_target_parameters():
    store = target_store()
    before = store.pull()
    assert store.push(gradients(np.nan), 500, 0).is_refused
    assert store.pull() is before
    store.push(gradients(1.0), 99, 0)
    assert store.pull().target_params is before.target_params


def test_algorithm_without_target_parameters_gets_none():
    store = sgd_store(target_period_frames=1)
    store.push(gradients(1.0), 30, 0)
    assert store.pull().target_params is None
    assert store.read()[0].target_params is None


# Statistics of the optimizer, shared or not.


def rmsprop_store(num_actors=None):
    """RMSProp; with a number of actors each has its own statistics."""
    optimizer = make_optimizer("rmsprop", schedule=lambda _: 0.1)
    params = {"w": jnp.ones(3), "b": jnp.ones(())}
    opt_state = optimizer.init(params)
    if num_actors is not None:
        opt_state = (opt_state,) * num_actors
    return SharedParameters(
        LearnerState(params, opt_state),
        make_apply_gradients(optimizer),
        shares_statistics=num_actors is None,
    )


PUSHES = [(0, 1.0), (2, -3.0), (2, 0.5), (0, 7.0), (1, -2.0), (2, 4.0), (1, 0.25)]


def test_own_statistics_change_by_own_pushes_only():
    store, alone = rmsprop_store(3), [rmsprop_store() for _ in range(3)]
    for actor_index, value in PUSHES:
        before = store.read()[0].opt_state
        store.push(gradients(value), 8, 0, actor_index)
        alone[actor_index].push(gradients(value), 8, 0)
        after = store.read()[0].opt_state
        assert len(after) == 3
        for index in range(3):
            assert (after[index] is before[index]) == (index != actor_index)
            # RMSProp's statistics know nothing of the parameters.
            expected = alone[index].read()[0].opt_state
            jax.tree.map(np.testing.assert_array_equal, after[index], expected)


def test_own_statistics_move_the_parameters_of_all():
    store, alone = rmsprop_store(2), [rmsprop_store(), rmsprop_store()]
    for actor_index, value in ((0, 1.0), (1, -3.0), (0, 2.0)):
        store.push(gradients(value), 8, 0, actor_index)
        alone[actor_index].push(gradients(value), 8, 0)
    # θ − 1 is the sum of the steps, and each follows from the actor's own gradients.
    expected = sum(own.pull().params["w"] - 1.0 for own in alone)
    np.testing.assert_allclose(store.pull().params["w"] - 1.0, expected, rtol=1e-5)


def test_shared_statistics_are_everyones():
    # Otherwise the tests above could not tell them apart.
    own, shared = rmsprop_store(3), rmsprop_store()
    for actor_index, value in PUSHES:
        own.push(gradients(value), 8, 0, actor_index)
        shared.push(gradients(value), 8, 0, actor_index)
    assert np.all(np.abs(own.pull().params["w"] - shared.pull().params["w"]) > 0.01)


@pytest.mark.usefixtures("hectic_threads")
def test_no_push_is_lost_from_anyones_own_statistics():
    def count(state, grads, num_frames):
        for _ in range(50):
            pass  # long enough for other threads to come in between
        return LearnerState(state.params + grads, state.opt_state + 1), True

    store = plain_store(count, opt_state=(0,) * N, shares_statistics=False)
    run_in_threads(
        [lambda i=i: [store.push(1, 1, 0, i) for _ in range(100 * (i + 1))] for i in range(N)]
    )
    assert store.read()[0].opt_state == tuple(100 * (i + 1) for i in range(N))
    assert store.pull().params == 100 * N * (N + 1) // 2


# The store of an actor on another device.


def test_another_device_sees_the_same_parameters_and_pushes_to_them():
    statistics = ObservationStatistics(jnp.zeros(2), jnp.ones(()))
    store = sgd_store(statistics=statistics, num_updates=4, num_frames=16)
    home = jax.devices()[0]
    device = place_actors(1, home)[0].device
    remote = ParametersOnDevice(store, device, home)
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


def test_another_device_sees_the_target_parameters_and_copies_them_only_when_they_change():
    store, home = target_store(), jax.devices()[0]
    device = place_actors(1, home)[0].device
    remote = ParametersOnDevice(store, device, home)
    first = remote.pull()
    for leaf in jax.tree.leaves(first.target_params):
        assert leaf.devices() == {device}
    remote.push(gradients(1.0), 99, 0)
    second = remote.pull()
    assert second.version == 1
    assert second.params is not first.params
    assert second.target_params is first.target_params
    np.testing.assert_array_equal(second.target_params["w"], [0, 0, 0])
    remote.push(gradients(1.0), 1, 1)
    third = remote.pull()
    assert third.target_params is not first.target_params
    np.testing.assert_array_equal(third.target_params["w"], [-2, -2, -2])
    for leaf in jax.tree.leaves(third.target_params):
        assert leaf.devices() == {device}
    assert remote.pull().target_params is third.target_params


def test_pushes_from_another_device_carry_what_was_seen_and_the_actors_index():
    store, home = FakeStore(), jax.devices()[0]
    remote = ParametersOnDevice(store, place_actors(1, home)[0].device, home)
    for actor_index in (2, 0):
        remote.push(np.ones(2), 8, 0, actor_index, seen := Seen())
        assert store.seen[-1] is seen
    assert store.pushed_by == [2, 0]


# Parameters of no device.


def test_views_are_the_same_memory():
    array = jnp.arange(1000.0)
    (view,) = as_views((array,))
    assert isinstance(view, np.ndarray)
    assert view.ctypes.data == array.unsafe_buffer_pointer()


def test_views_are_pulled_to_each_device_and_updated_on_that_of_whoever_pushes():
    computed_on = []
    optimizer = make_optimizer("sgd", schedule=lambda _: 1.0, momentum=0.0)
    apply_gradients = make_apply_gradients(optimizer)

    def look_and_apply(state, grads, num_frames):
        state, is_finite = apply_gradients(state, grads, num_frames)
        computed_on.append(state.params["w"].devices())
        return state, is_finite

    params = {"w": np.zeros(3, np.float32)}
    opt_state = as_views(optimizer.init(params))
    statistics = ObservationStatistics(np.zeros(2), np.ones(()))
    store = plain_store(
        look_and_apply, params, opt_state, params, statistics=statistics, hand_over=as_views
    )
    devices = [place.device for place in place_actors(2, jax.devices()[0])]
    assert devices[0] != devices[1]
    for device in devices:
        remote = ParametersOnDevice(store, device, None)
        snapshot = remote.pull()
        for leaf in jax.tree.leaves((snapshot.params, snapshot.statistics, snapshot.target_params)):
            assert leaf.devices() == {device}
        with jax.default_device(device):
            remote.push({"w": jnp.ones(3)}, 8, snapshot.version)
        state, newest = store.read()
        assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves((state, newest.params)))
    assert computed_on == [{device} for device in devices]
    np.testing.assert_array_equal(store.pull().params["w"], [-2, -2, -2])
