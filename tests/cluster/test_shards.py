"""Shards and the store in front of them, with pushers that are counted."""

import functools
import threading
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.cluster.processes import Unreachable
from a3cjax.cluster.shard import NOTHING_KNOWN, PARTS, News, Push, Rules, Shard
from a3cjax.cluster.slices import Slicing
from a3cjax.cluster.store import Pool, RoundsAtShards, ShardedStore, _renew
from a3cjax.cluster.worker import OutsideSlot, Sieve
from a3cjax.errors import CheckpointError
from a3cjax.optimizers import make_optimizer
from a3cjax.parameters.moments import moments_of
from a3cjax.parameters.shared import SharedParameters
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.system.life import show_life_by
from a3cjax.types import LearnerState, ObservationStatistics, Seen
from a3cjax.updates import GradientMetrics, make_apply_gradients
from tests.cluster.local import LocalProcess
from tests.fakes import run_in_threads, wait_until

PARAMS = {"w": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float32)}
STATISTICS = ObservationStatistics(np.zeros(2, np.float32), np.ones(2, np.float32))


def optimizer(max_grad_norm=None):
    return make_optimizer("sgd", schedule=lambda _: 1.0, momentum=0.0, max_grad_norm=max_grad_norm)


def checkpoint(params=PARAMS, num_frames=0, num_updates=0, has_targets=False, **seen):
    opt_state = optimizer().init(params)
    state = LearnerState(params, opt_state, params if has_targets else None, Seen(**seen))
    return Checkpoint(state, STATISTICS, Progress(num_frames, num_updates))


def make_store(begun):
    return SharedParameters(
        begun.state,
        make_apply_gradients(optimizer()),
        statistics=begun.statistics,
        num_frames=begun.progress.num_frames,
        num_updates=begun.progress.num_updates,
        target_period_frames=100,
    )


def make_shard(rules=Rules(), folder=None, begun=None):  # noqa: B008
    shard = Shard(make_store, rules, folder)
    shard.begin(begun or checkpoint(), True)
    return shard


def ones(params=PARAMS, value=1.0):
    return jax.tree.map(lambda x: np.full_like(x, value), params)


def stores(num_shards=1, rules=Rules(), max_grad_norm=None, **options):  # noqa: B008
    """Shards in this process, and a view of them."""
    slicing = Slicing(PARAMS, num_shards) if num_shards > 1 else None
    whole = checkpoint()
    begun = [whole]
    if slicing is not None:
        begun = [Checkpoint(s, None, Progress()) for s in slicing.cut_state(whole.state)]
    shards = [LocalProcess(make_shard(rules, begun=own)) for own in begun]
    options |= {"slicing": slicing, "max_grad_norm": max_grad_norm}
    return shards, ShardedStore(shards, threading.Event(), **options)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_push_is_applied_counted_and_answered_with_the_newest(num_shards):
    shards, store = stores(num_shards)
    assert store.pull()[:2] == (0, 0)
    receipts = [store.push(ones(), 8, version) for version in (0, 0)]
    assert [(r.version, r.num_frames, r.staleness) for r in receipts] == [(1, 8, 0), (2, 16, 1)]
    snapshot = store.pull()
    assert snapshot[:2] == (2, 16)
    jax.tree.map(np.testing.assert_array_equal, snapshot.params, ones(value=-2.0))
    assert {shard.inside.counts() for shard in shards} == {(16, 2)}


@pytest.mark.parametrize("num_shards", [1, 3])
def test_what_is_dropped_changes_nothing_but_counts_its_frames(num_shards):
    shards, store = stores(num_shards)
    store.pull()
    receipt = store.drop(8, 0)
    assert (receipt[:2], receipt.is_dropped) == ((0, 8), True)
    assert {shard.inside.counts() for shard in shards} == {(8, 0)}
    jax.tree.map(np.testing.assert_array_equal, store.pull().params, PARAMS)


def test_frames_of_an_outlier_count_through_all_that_wraps_a_store():
    class Loss(NamedTuple):
        policy_loss: float

    def compute_gradients(*args):
        return ones(), GradientMetrics(Loss(1.0), np.float32(1))

    outliers = SimpleNamespace(is_outlier=lambda loss: loss == 1.0)
    for wrap in (
        lambda store: store,
        lambda store: OutsideSlot(store, threading.Semaphore(0)),
        lambda store: Pool(store, 2),
    ):
        shards, store = stores()
        store.pull()
        sieve = Sieve(wrap(store), outliers, compute_gradients)
        grads, _ = sieve.compute_gradients(None, None, None)
        receipt = sieve.push(grads, 8, 0)
        assert (receipt[:2], receipt.is_dropped) == ((0, 8), True)
        assert shards[0].inside.counts() == (8, 0)


def test_only_what_is_not_known_yet_is_sent():
    begun = checkpoint(has_targets=True)
    shard = make_shard(begun=begun)
    first = shard.pull(NOTHING_KNOWN)
    assert set(first.parts) == {"params", "target_params", "statistics"}
    assert shard.pull(first.numbers).parts == {}
    pushed = shard.push(Push(ones(), 8, 0), first.numbers)
    assert set(pushed.parts) == {"params"}
    renewed = shard.push(Push(ones(), 92, 1), pushed.numbers)  # 100 frames: new targets
    assert set(renewed.parts) == {"params", "target_params"}
    assert renewed.parts["target_params"] is renewed.parts["params"]


@pytest.mark.parametrize("num_shards", [1, 2])
def test_stale_gradients_are_dropped_exactly_and_all_frames_count(num_shards):
    _, store = stores(num_shards, Rules(max_staleness=2))
    store.pull()
    receipts = [store.push(ones(), 8, 0) for _ in range(8)]
    assert [r.is_dropped for r in receipts] == [False] * 3 + [True] * 5
    assert [r.num_frames for r in receipts] == [8 * (i + 1) for i in range(8)]
    assert [r.version for r in receipts] == [1, 2, 3] + [3] * 5
    assert store.pull().params["b"] == -3.0
    assert not store.push(ones(), 8, 3).is_dropped


def test_frames_played_are_frames_applied_and_dropped():
    shards, store = stores(rules=Rules(max_staleness=3))
    store.pull()
    outcomes, lock = [], threading.Lock()

    def push_often(index):
        snapshot = store.pull()
        for count in range(20):
            receipt = store.push(ones(), 1 + index, snapshot.version)
            with lock:
                outcomes.append((receipt.is_dropped, 1 + index))
            if count % (1 + index) == 0:
                snapshot = store.pull()

    run_in_threads([functools.partial(push_often, index) for index in range(8)])
    assert shards[0].inside.counts().num_frames == sum(frames for _, frames in outcomes)
    num_applied = sum(not is_dropped for is_dropped, _ in outcomes)
    assert shards[0].inside.counts().num_updates == num_applied
    assert 0 < num_applied < len(outcomes)


@pytest.mark.parametrize("num_shards", [1, 2])
def test_gradients_that_are_not_finite_change_nothing_anywhere(num_shards):
    shards, store = stores(num_shards, max_grad_norm=1.0)
    bad = ones()
    bad["b"] = np.array(np.nan, np.float32)  # in the first slice alone
    assert store.push(bad, 8, 0).is_refused
    assert {shard.inside.counts() for shard in shards} == {(0, 0)}


def test_the_whole_gradient_is_clipped_where_it_is_cut():
    _, store = stores(2, max_grad_norm=1.0)
    store.push(ones(), 8, 0)
    params = store.pull().params
    norm = np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(params)))
    assert norm == pytest.approx(1.0)


def test_half_of_the_bits_are_enough_for_gradients():
    _, store = stores(push_dtype="bfloat16")
    store.push(ones(value=1 / 3), 8, 0)
    value = float(store.pull().params["b"])
    assert value != pytest.approx(-1 / 3, rel=1e-5)
    assert value == pytest.approx(-1 / 3, rel=1e-2)
    assert store.pull().params["w"].dtype == np.float32


def test_a_pool_pushes_the_sum_of_so_many():
    shards, store = stores()
    pool = Pool(store, 3)
    seen = [Seen(moments_of([float(i)])) for i in range(3)]
    store.push(ones(), 0, 0)
    receipts = [pool.push(ones(value=i), 8, 1 - i % 2, i, None) for i in range(3)]
    assert [r.is_pooled for r in receipts] == [True, True, False]
    assert receipts[2][:3] == (2, 24, 1)  # as stale as the stalest
    assert store.pull().params["b"] == -1.0 - 3.0
    assert pool.push({**ones(), "b": np.array(np.inf, np.float32)}, 8, 2).is_refused
    assert pool.push(ones(), 8, 2, 0, seen[0]).is_pooled
    assert pool.flush()[:2] == (3, 32)
    assert pool.flush() is None
    assert shards[0].inside.counts() == (32, 3)


def test_what_is_seen_is_merged_in_a_sum():
    begun = checkpoint(returns=moments_of(()))
    shard = make_shard(begun=begun)
    pool = Pool(ShardedStore([LocalProcess(shard)], threading.Event()), 2)
    for value in (1.0, 5.0):
        pool.push(ones(), 8, 0, 0, Seen(moments_of([value])))
    returns = shard.read()[0].seen.returns
    assert (returns.num_seen, returns.mean) == (2, 3.0)


# Deaths.


def test_a_shard_comes_back_from_its_own_file_and_never_counts_backwards(tmp_path):
    rules, folder = Rules(save_period_updates=4), tmp_path / "0"
    shard = make_shard(rules, folder)
    for version in range(6):
        shard.push(Push(ones(), 8, version))
    shard.push(Push(None, 5, 6))
    again = Shard(make_store, rules, folder)
    with pytest.raises(Unreachable):
        again.pull()
    begun = again.begin(checkpoint(), False)
    assert begun == ((53, 6), 4)
    assert again.begin(checkpoint(), False) is None
    news = again.push(Push(ones(), 8, 6))
    assert news.receipt[:3] == (7, 61, 0)
    assert news.parts["params"]["b"] == -5.0


def test_a_new_run_takes_nothing_from_the_files_of_an_old_one(tmp_path):
    shard = make_shard(Rules(save_period_updates=1), tmp_path / "0")
    shard.push(Push(ones(), 8, 0))
    again = make_shard(Rules(save_period_updates=1), tmp_path / "0")
    assert again.counts() == (0, 0)
    assert again.pull().parts["params"]["b"] == 0


def test_a_shard_without_its_file_begins_with_what_it_is_given(tmp_path):
    shard = Shard(make_store, Rules(), tmp_path / "gone")
    assert shard.begin(checkpoint(num_frames=80, num_updates=9), False) == ((80, 9), 9)


def test_a_shard_that_lost_its_files_counts_on_from_what_others_know(tmp_path):
    shard = Shard(make_store, Rules(), tmp_path / "gone")
    assert shard.begin(checkpoint(num_frames=80, num_updates=9), False, (96, 11)) == ((96, 11), 9)
    assert shard.push(Push(ones(), 8, 11)).receipt[:3] == (12, 104, 0)


def test_a_shard_keeps_nothing_of_the_memory_that_it_was_sent():
    sent = checkpoint(params=jax.tree.map(np.array, PARAMS), has_targets=True)
    shard = make_shard(begun=sent)
    before = jax.tree.map(np.array, shard.read()[0]._replace(seen=None))
    for leaf in jax.tree.leaves((sent.state.params, sent.state.target_params)):
        leaf += 1.0
    after = shard.read()[0]._replace(seen=None)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_a_shard_without_room_for_its_files_goes_on(tmp_path, monkeypatch, capsys):
    def refuse(self, checkpoint):
        raise CheckpointError("no space left")

    shard = make_shard(Rules(save_period_updates=1), tmp_path / "shards" / "0")
    monkeypatch.setattr(Checkpointer, "save", refuse)
    assert shard.push(Push(ones(), 8, 0)).receipt[:2] == (1, 8)
    assert "a shard is not saved: no space left" in capsys.readouterr().err


def test_a_shard_on_a_machine_without_the_run_folder_makes_none(tmp_path):
    shard = make_shard(Rules(save_period_updates=1), tmp_path / "run" / "shards" / "0")
    shard.push(Push(ones(), 8, 0))
    assert list(tmp_path.iterdir()) == []


def test_a_push_without_answer_is_dropped_and_the_pusher_waits_for_the_shard(monkeypatch):
    shards, store = stores()
    store.pull()
    inside, shards[0].inside = shards[0].inside, Shard(make_store, Rules())
    asked, receipts = [], []
    submit = shards[0].submit
    monkeypatch.setattr(shards[0], "submit", lambda *call: asked.append(call) or submit(*call))
    thread = threading.Thread(target=lambda: receipts.append(store.push(ones(), 8, 0)))
    thread.start()
    wait_until(lambda: len(asked) > 2)
    assert not receipts
    shards[0].inside = inside
    wait_until(lambda: receipts)
    thread.join()
    assert receipts[0].is_dropped
    assert receipts[0][:2] == (0, 0)
    assert store.push(ones(), 8, 0)[:2] == (1, 8)


def test_news_that_overtake_each_other_leave_the_newest():
    shards, store = stores()
    store.pull()
    old = shards[0].inside.push(Push(ones(), 8, 0), NOTHING_KNOWN)
    new = shards[0].inside.push(Push(ones(), 8, 1), NOTHING_KNOWN)
    store._take_in([new])
    store._take_in([old])
    assert store.pull()[:2] == (2, 16)
    assert store.pull().params["b"] == -2.0
    assert isinstance(jnp.asarray(store.pull().params["b"]), jax.Array)


def test_who_waits_for_a_turn_at_the_shards_is_alive():
    signs, turns = [], iter([0, 0, 1])
    shard = LocalProcess(SimpleNamespace(num_turns=lambda: next(turns)))
    show_life_by(lambda: signs.append(True))
    try:
        assert RoundsAtShards(None, [shard], 2, threading.Event()).wait(1)
    finally:
        show_life_by(lambda: None)
    assert len(signs) == 3


def test_answer_that_was_overtaken_takes_nothing_back():
    parts = [{name: np.full(2, value) for name in PARTS} for value in (1.0, 2.0)]
    older = News(1, 10, 0.1, (1, 1, 1), parts[0])
    newer = News(2, 20, 0.2, (2, 1, 2), {name: parts[1][name] for name in ("params", "statistics")})
    nothing = News(-1, 0, None, NOTHING_KNOWN, dict.fromkeys(PARTS))
    whole = _renew(_renew(nothing, older), newer)
    assert (*whole[:4], whole.receipt) == (2, 20, 0.2, (2, 1, 2), None)
    for order in ((newer, older), (older, newer, older)):
        held = nothing
        for news in order:
            held = _renew(held, news)
        assert held[:4] == whole[:4]
        for name, value in zip(PARTS, (2.0, 1.0, 2.0), strict=True):
            np.testing.assert_array_equal(held.parts[name], np.full(2, value))
