"""The parameters of a run as a worker's actor-learners see them: they lie in shards elsewhere."""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from a3cjax.cluster.processes import Process, Unreachable
from a3cjax.cluster.shard import NOTHING_KNOWN, PARTS, News, Push
from a3cjax.cluster.slices import Slicing
from a3cjax.parameters.moments import merge_seen
from a3cjax.parameters.shared import ParameterStore, Receipt, as_views
from a3cjax.system.life import show_life
from a3cjax.types import Params, Seen, Snapshot

# Pauses between two questions: to a shard that is being started again, and about whose turn it is.
RETRY_SECONDS, TURN_SECONDS = 0.5, 0.002
# How many versions are remembered, because gradients may still be computed at them.
NUM_VERSIONS = 10_000


class ShardedStore:
    """A worker's store: what any of its threads receives, all of them have.

    Every push is answered with the newest parameters, so that a pull costs nothing. If a shard does
    not answer, the gradient is lost, and whoever pushed waits until the shard is back.
    """

    def __init__(
        self,
        shards: Sequence[Process],
        stop_event: threading.Event,
        *,
        slicing: Slicing | None = None,
        max_grad_norm: float | None = None,
        push_dtype: str = "float32",
        clock: Callable[[], float] = time.perf_counter,
    ):
        """With more than one shard, `slicing` must be given, and gradients are clipped here."""
        self._shards, self._slicing = shards, slicing
        self._stop_event, self._clock = stop_event, clock
        self._dtype = jnp.dtype(push_dtype)
        self._clip = jax.jit(_make_clip(max_grad_norm))
        self._lock = threading.Lock()
        nothing = News(-1, 0, None, NOTHING_KNOWN, dict.fromkeys(PARTS))
        self._held = [nothing] * len(shards)
        self._versions: dict[int, tuple[int, ...]] = {}
        self._snapshot: Snapshot | None = None

    def pull(self) -> Snapshot:
        """The newest parameters that have arrived here."""
        return self._snapshot or self.fetch()

    def fetch(self) -> Snapshot:
        """The newest parameters that there are."""
        self._ask("pull", [()] * len(self._shards))
        assert self._snapshot is not None
        return self._snapshot

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """As `SharedParameters.push`, but the receipt's waiting time is that on the way."""
        if self._slicing is None:
            grads = jax.tree.map(self._pack, grads)
            push = Push(grads, num_frames, version, actor_index, seen)
            return self._send([push])
        grads, is_finite = self._clip(grads)
        if not is_finite:
            # Either all shards apply it or none does: nothing is sent.
            snapshot = self.pull()
            return Receipt(snapshot.version, snapshot.num_frames, 0, 0.0, 0.0, is_refused=True)
        pushes = [
            Push(self._pack(own), num_frames, own_version, actor_index)
            for own, own_version in zip(
                self._slicing.cut(grads), self._versions_at(version), strict=True
            )
        ]
        return self._send([pushes[0]._replace(seen=seen), *pushes[1:]])

    def drop(self, num_frames: int, version: int) -> Receipt:
        """Counts frames without a gradient."""
        versions = self._versions_at(version)
        return self._send([Push(None, num_frames, own) for own in versions])

    def count(self, num_frames: int) -> None:
        """Counts frames without a gradient, once and without waiting for a shard to come back.

        It is not known whether a shard that does not answer has counted them.
        """
        self._gather("push", [(Push(None, num_frames, held.version),) for held in self._held])

    def _pack(self, array: Any) -> np.ndarray:
        return np.asarray(array).astype(self._dtype, copy=False)

    def _versions_at(self, version: int) -> tuple[int, ...]:
        """Each shard's own version at a version of the run, which is that of the first shard."""
        if len(self._shards) == 1:
            return (version,)
        with self._lock:
            return self._versions.get(version) or tuple(held.version for held in self._held)

    def _send(self, pushes: Sequence[Push]) -> Receipt:
        began, last = self._clock(), self.pull()
        news = self._ask("push", [(push,) for push in pushes])
        if news is None:
            seconds = self._clock() - began
            counts = last.version, last.num_frames
            return Receipt(*counts, last.version - pushes[0].version, seconds, 0.0, is_dropped=True)
        receipts = [each.receipt for each in news]
        receipt = receipts[0]
        assert receipt is not None
        if any(other is None or other.is_refused != receipt.is_refused for other in receipts):
            raise FloatingPointError("a shard refused its slice of a gradient that others applied.")
        wait_seconds = self._clock() - began - receipt.hold_seconds
        return receipt._replace(wait_seconds=max(0.0, wait_seconds))

    def _ask(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[News] | None:
        """Asks all shards at once; None if it is not known whether all of them were asked."""
        news = self._gather(name, arguments)
        if news is not None:
            self._take_in(news)
            return news
        while not self._stop_event.is_set():  # which their restart may set, too
            if (newest := self._gather("pull", [()] * len(self._shards))) is not None:
                self._take_in(newest)
                return newest if name == "pull" else None
            self._stop_event.wait(RETRY_SECONDS)
        if self._snapshot is None:
            raise Unreachable("the run was stopped before a shard answered.")
        return None

    def _gather(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[News] | None:
        pending = [
            shard.submit(name, *own, held.numbers)
            for shard, own, held in zip(self._shards, arguments, self._held, strict=True)
        ]
        try:
            return [each.result() for each in pending]
        except Unreachable:
            return None

    def _take_in(self, news: Sequence[News]) -> None:
        with self._lock:
            self._held = list(map(_renew, self._held, news))
            first = self._held[0]
            self._versions[first.version] = tuple(held.version for held in self._held)
            if len(self._versions) > NUM_VERSIONS:
                del self._versions[next(iter(self._versions))]
            self._snapshot = Snapshot(
                first.version,
                first.num_frames,
                self._join("params"),
                first.parts["statistics"],
                self._join("target_params"),
                first.reward_scale,
            )

    def _join(self, name: str) -> Any:
        parts = [held.parts[name] for held in self._held]
        if self._slicing is None or parts[0] is None:
            return parts[0]
        return self._slicing.join(parts)


def _renew(held: News, news: News) -> News:
    """The newer parts of what was here and what has arrived: answers may overtake each other."""
    parts, numbers = dict(held.parts), list(held.numbers)
    for index, name in enumerate(PARTS):
        if name in news.parts and news.numbers[index] > numbers[index]:
            # A copy, because what has arrived lies in memory that others will use again.
            parts[name] = as_views(jax.tree.map(jnp.array, news.parts[name]))
            numbers[index] = news.numbers[index]
    newest = news if news.num_frames >= held.num_frames else held
    return newest._replace(numbers=tuple(numbers), parts=parts)


def _make_clip(max_grad_norm: float | None) -> Callable[[Params], tuple[Params, jax.Array]]:
    clip = optax.identity()
    if max_grad_norm is not None:
        clip = optax.clip_by_global_norm(max_grad_norm)

    def clipped(grads: Params) -> tuple[Params, jax.Array]:
        updates, _ = clip.update(grads, clip.init(grads))
        return updates, jnp.isfinite(optax.tree.norm(grads))

    return clipped


class Pool:
    """Sums the gradients of a worker's threads, and pushes every `size` of them as one.

    A gradient that is not finite is refused by itself: the whole sum would be refused with it.
    """

    def __init__(self, store: ShardedStore, size: int):
        self._store, self._size = store, size
        self._lock = threading.Lock()
        self._pooled: list[tuple[Params, int, int, Seen | None]] = []

    def pull(self) -> Snapshot:
        """The newest parameters."""
        return self._store.pull()

    def drop(self, num_frames: int, version: int) -> Receipt:
        """Counts frames without a gradient."""
        return self._store.drop(num_frames, version)

    def push(
        self,
        grads: Params,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        """Adds one gradient; the last one of a sum pushes the sum."""
        snapshot = self._store.pull()
        here = Receipt(snapshot.version, snapshot.num_frames, snapshot.version - version, 0.0, 0.0)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)):
            return here._replace(is_refused=True)
        with self._lock:
            self._pooled.append((grads, num_frames, version, seen))
            if len(self._pooled) < self._size:
                return here._replace(is_pooled=True)
            pooled, self._pooled = self._pooled, []
        return self._push_sum(pooled, actor_index)

    def flush(self) -> Receipt | None:
        """Pushes what is left, once no thread works any more."""
        pooled, self._pooled = self._pooled, []
        return self._push_sum(pooled, 0) if pooled else None

    def _push_sum(
        self, pooled: Sequence[tuple[Params, int, int, Seen | None]], actor_index: int
    ) -> Receipt:
        grads, num_frames, versions, seen = zip(*pooled, strict=True)
        total = jax.tree.map(lambda *each: functools.reduce(np.add, map(np.asarray, each)), *grads)
        looks = [each for each in seen if each is not None]
        in_all = functools.reduce(merge_seen, looks) if looks else None
        return self._store.push(total, sum(num_frames), min(versions), actor_index, in_all)


class RoundsAtShards:
    """Turns that the shards count, for the actor-learners of all workers: see `take_turns`."""

    def __init__(
        self,
        store: ShardedStore,
        shards: Sequence[Process],
        num_actors: int,
        stop_event: threading.Event,
    ):
        self.store: ParameterStore = store
        self.num_actors = num_actors
        self._sharded, self._shards, self._stop_event = store, shards, stop_event

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the current round."""
        return self._sharded.fetch()

    def wait(self, num_pushes: int) -> bool:
        """Waits until `num_pushes` pushes were made; False if the run is being stopped."""
        while not self._stop_event.is_set():
            show_life()  # the one that is waited for is watched itself
            if self._shards[0].submit("num_turns").result() >= num_pushes:
                return not self._stop_event.is_set()
            self._stop_event.wait(TURN_SECONDS)
        return False

    def count_push(self) -> None:
        """Ends a turn at every shard, and at the first one last: those who wait look at that."""
        for pending in [shard.submit("end_turn") for shard in self._shards[1:]]:
            pending.result()
        self._shards[0].submit("end_turn").result()
