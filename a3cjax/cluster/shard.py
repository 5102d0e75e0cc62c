"""A shard: it holds a slice of what is learned, and applies the gradients that it is sent."""

import itertools
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from a3cjax.cluster.processes import Unreachable
from a3cjax.config.builders import build_optimizer
from a3cjax.config.settings import Config
from a3cjax.errors import CheckpointError
from a3cjax.parameters.shared import Counts, Receipt, SharedParameters, as_views
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.system.output import warn
from a3cjax.types import LearnerState, Params, Seen, Snapshot
from a3cjax.updates import make_apply_gradients

PARTS = ("params", "target_params", "statistics")
"""Of a snapshot, those that are sent to whoever does not have them yet."""
NOTHING_KNOWN = (-1, -1, -1)
COUNTS = struct.Struct("<qq")
NO_COUNTS = Counts(0, 0)


class Push(NamedTuple):
    """A gradient on its way; without `grads`, its frames alone. See `ParameterStore.push`."""

    grads: Params | None
    num_frames: int
    version: int
    actor_index: int = 0
    seen: Seen | None = None


class News(NamedTuple):
    """What a shard answers: where it stands, and the parts that the asker does not have.

    `numbers` identify the shard's `PARTS`, and are sent with the next question; `receipt` answers a
    push.
    """

    version: int
    num_frames: int
    reward_scale: Any
    numbers: tuple[int, ...]
    parts: dict[str, Any]
    receipt: Receipt | None = None


class Begun(NamedTuple):
    """How far a shard that begins had come, and how many updates its state still includes."""

    counts: Counts
    num_updates_kept: int


class Rules(NamedTuple):
    """How a shard treats gradients.

    One that is staler than `max_staleness` updates is dropped. Everything is saved every
    `save_period_updates`. With `num_in_turn`, new parameters are shown only every so many turns.
    """

    max_staleness: int | None = None
    save_period_updates: int = 100
    num_in_turn: int | None = None


class Shard:
    """Used by one thread. It answers nothing before `begin`, not even after a restart."""

    def __init__(
        self,
        make_store: Callable[[Checkpoint], SharedParameters],
        rules: Rules,
        folder: Path | None = None,
    ):
        """The shard keeps its state in `folder`, to restore it after a crash."""
        self._make_store, self._rules, self._folder = make_store, rules, folder
        self._store: SharedParameters | None = None
        self._num_turns = 0
        # No life uses the numbers of another one.
        self._next_number = itertools.count(time.time_ns())
        self._parts: dict[str, Any] = dict.fromkeys(PARTS, self)  # equals no part: all are new
        self._numbers: dict[str, int] = {}
        self._counts_file: int | None = None

    def begin(
        self, checkpoint: Checkpoint, is_new: bool, counts: Counts = NO_COUNTS
    ) -> Begun | None:
        """Begins with this slice or, unless the run `is_new`, with its own state if that is newer.

        The counts of frames and updates go on from where they were, whichever state is used: from
        `counts`, those of the slice or its own, whichever are highest. Returns None, and does
        nothing, if the shard has begun already.
        """
        if self._store is not None:
            return None
        known = [counts, Counts(checkpoint.progress.num_frames, checkpoint.progress.num_updates)]
        # What comes through a lane lies in memory of the caller, who uses it again.
        state, statistics = jax.tree.map(np.array, (checkpoint.state, checkpoint.statistics))
        checkpoint = checkpoint._replace(state=state, statistics=statistics)
        if self._folder is not None and not self._folder.parent.parent.is_dir():
            self._folder = None  # a machine without the disk of the run folder
        if self._folder is not None:
            if is_new:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            own = self._restore(checkpoint)
            if own is not None and own.progress.num_updates > checkpoint.progress.num_updates:
                checkpoint = own
            flags = os.O_RDWR | os.O_CREAT
            self._counts_file = os.open(self._folder / "counts", flags, 0o644)
            if len(data := os.pread(self._counts_file, COUNTS.size, 0)) == COUNTS.size:
                known.append(Counts(*COUNTS.unpack(data)))
        newest = Counts(*map(max, zip(*known, strict=True)))
        progress = Progress(*newest)
        self._store = self._make_store(checkpoint._replace(progress=progress))
        self._shown = self._store.read()
        self._note_counts()
        return Begun(newest, checkpoint.progress.num_updates)

    def pull(self, known: tuple[int, ...] = NOTHING_KNOWN) -> News:
        """The newest parameters."""
        self._begun()
        return self._tell(known)

    def push(self, push: Push, known: tuple[int, ...] = NOTHING_KNOWN) -> News:
        """Applies a gradient, or drops it and counts its frames."""
        store = self._begun()
        most, staleness = self._rules.max_staleness, store.counts().num_updates - push.version
        if push.grads is None or (most is not None and staleness > most):
            receipt = store.drop(push.num_frames, push.version)
        else:
            grads = jax.tree.map(lambda x: np.asarray(x, np.float32), push.grads)
            receipt = store.push(grads, push.num_frames, push.version, push.actor_index, push.seen)
        self._note_counts()
        if self._rules.num_in_turn is None:
            self._shown = store.read()
        period = self._rules.save_period_updates
        if receipt.version % period == 0 and not (receipt.is_dropped or receipt.is_refused):
            try:
                self.save()
            except CheckpointError as error:  # the gradient is applied all the same
                warn(f"a shard is not saved: {error}")
        return self._tell(known)._replace(receipt=receipt)

    def num_turns(self) -> int:
        """How many turns have ended."""
        self._begun()
        return self._num_turns

    def end_turn(self) -> None:
        """Ends a turn; the last one of a round shows everyone what has been learned in it."""
        self._num_turns += 1
        if self._num_turns % (self._rules.num_in_turn or 1) == 0:
            self._shown = self._begun().read()

    def counts(self) -> Counts:
        """How far it has come."""
        return self._begun().counts()

    def read(self) -> tuple[LearnerState, Snapshot]:
        """All that it has learned."""
        self._begun()
        return self._shown

    def save(self) -> None:
        """Writes its state into its folder."""
        if self._folder is not None:
            state, snapshot = self._begun().read()
            progress = Progress(snapshot.num_frames, snapshot.version)
            own = Checkpoint(state, snapshot.statistics, progress)
            Checkpointer(self._folder, max_to_keep=1).save(own)

    def _restore(self, template: Checkpoint) -> Checkpoint | None:
        assert self._folder is not None
        try:
            return Checkpointer(self._folder).restore(template, lambda line: None)
        except FileNotFoundError:
            return None

    def _begun(self) -> SharedParameters:
        if self._store is None:
            raise Unreachable("the shard has not been told what to begin with.")
        return self._store

    def _note_counts(self) -> None:
        """Saves the counts before anybody is told, so that a new life never counts backwards."""
        if self._counts_file is not None:
            os.pwrite(self._counts_file, COUNTS.pack(*self._begun().counts()), 0)

    def _tell(self, known: tuple[int, ...]) -> News:
        snapshot = self._shown[1]
        for name in PARTS:
            if (part := getattr(snapshot, name)) is not self._parts[name]:
                self._parts[name], self._numbers[name] = part, next(self._next_number)
        numbers = tuple(self._numbers[name] for name in PARTS)
        parts = {
            name: self._parts[name]
            for name, number, own in zip(PARTS, known, numbers, strict=True)
            if number != own
        }
        scale = snapshot.reward_scale
        return News(snapshot.version, snapshot.num_frames, scale, numbers, parts)


def make_shard(config: Config, is_whole: bool, folder: Path | None = None) -> Shard:
    """Makes a shard by a run's settings; one that `is_whole` clips gradients by itself."""
    if not is_whole:
        config = config.replace(max_grad_norm=None)
    apply_gradients = make_apply_gradients(build_optimizer(config))

    def make_store(checkpoint: Checkpoint) -> SharedParameters:
        return SharedParameters(
            checkpoint.state,
            apply_gradients,
            statistics=checkpoint.statistics,
            num_frames=checkpoint.progress.num_frames,
            num_updates=checkpoint.progress.num_updates,
            target_period_frames=config.target_period_frames,
            shares_statistics=config.shared_statistics,
            hand_over=as_views,
        )

    rules = Rules(
        config.max_staleness,
        config.shard_save_period_updates,
        config.num_actors if config.deterministic else None,
    )
    return Shard(make_store, rules, folder)
