"""Checkpoints in Orbax's format, each with the digests of its files.

Nothing of a checkpoint is executed when it is read: arrays are Zarr files, the rest is JSON.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from a3cjax.types import LearnerState, ObservationStatistics

FORMAT_VERSION = 2
DIGESTS = "digests.json"
"""Written last into the folder of a checkpoint: where it is missing, saving was cut short."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message is one line for the user."""


class Progress(NamedTuple):
    """Where a run stands.

    `actor_keys` holds the words of each actor's PRNG key; `best_score` the mean score of the
    best evaluation, None before the first.
    """

    num_frames: int = 0
    num_updates: int = 0
    wall_seconds: float = 0.0
    num_resumes: int = 0
    actor_keys: tuple[tuple[int, ...], ...] = ()
    best_score: float | None = None


class Checkpoint(NamedTuple):
    """All that a checkpoint holds."""

    state: LearnerState
    statistics: ObservationStatistics | None
    progress: Progress


class Checkpointer:
    """Saves to and restores from one folder, a subfolder for each number of frames."""

    def __init__(self, folder: Path, max_to_keep: int = 3):
        # Orbax wants an absolute path. Saving is synchronous: it takes a fraction of a second.
        # What is old is deleted here, not by Orbax, once the new one has its digests.
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
        self._max_to_keep = max_to_keep
        self._folder = folder.resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, checkpoint: Checkpoint) -> None:
        """Saves under the number of frames; saving the same frame again does nothing.

        Numbers of frames only grow: what is newer must be discarded first.

        Raises:
          CheckpointError: if it cannot be written; those before it are left as they are.
        """
        num_frames = checkpoint.progress.num_frames
        if num_frames in self._manager.all_steps():
            return
        arrays = {"state": checkpoint.state, "statistics": checkpoint.statistics}
        progress = {"format_version": FORMAT_VERSION, **checkpoint.progress._asdict()}
        try:
            is_saved = self._manager.save(
                num_frames,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress)
                ),
            )
            if not is_saved:
                raise ValueError(f"there is one of frame {self._manager.latest_step()}")
            _write_digests(self._folder / str(num_frames))
            for step in sorted(self._manager.all_steps())[: -self._max_to_keep]:
                self._manager.delete(step)
        except Exception as error:  # OSError, or what Orbax and TensorStore make of it
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint of frame {num_frames} cannot be written to {self._folder}: {reason}"
            ) from error

    def restore(
        self, template: Checkpoint, report: Callable[[str], None] = lambda message: None
    ) -> Checkpoint:
        """Restores the newest sound checkpoint into the structure and shapes of `template`.

        Args:
          template: of the same agent; its numbers are not looked at.
          report: is given a line for each newer checkpoint that is damaged.

        Raises:
          FileNotFoundError: if the folder holds none.
          CheckpointError: if all are damaged.
          ValueError: if it is of another format version, or of another agent.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        for num_frames in steps:
            damage = find_damage(self._folder / str(num_frames))
            if damage is None:
                return self._restore(num_frames, template)
            report(f"checkpoint {self._folder / str(num_frames)} is damaged: {damage}.")
        raise CheckpointError(f"every checkpoint in {self._folder} is damaged.")

    def read_progress(self) -> Progress | None:
        """Where the run stood at the newest sound checkpoint; None if there is none."""
        for num_frames in sorted(self._manager.all_steps(), reverse=True):
            if find_damage(self._folder / str(num_frames)) is None:
                return self._read_progress(num_frames)
        return None

    def discard_after(self, num_frames: int) -> None:
        """Deletes what is newer than this, and what was never finished.

        For a run that is resumed there, and comes to those frames again.
        """
        for unfinished in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for step in self._manager.all_steps():
            if step > num_frames:
                self._manager.delete(step)

    def _restore(self, num_frames: int, template: Checkpoint) -> Checkpoint:
        progress = self._read_progress(num_frames)
        arrays = {"state": template.state, "statistics": template.statistics}
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
        read_arrays = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
        restored = self._manager.restore(num_frames, args=read_arrays)["arrays"]
        return Checkpoint(restored["state"], restored["statistics"], progress)

    def _read_progress(self, num_frames: int) -> Progress:
        read_progress = ocp.args.Composite(progress=ocp.args.JsonRestore())
        progress = self._manager.restore(num_frames, args=read_progress)["progress"]
        version = progress.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"checkpoint must have format version {FORMAT_VERSION}, "
                f"got {version} in {self._folder}."
            )
        try:
            progress["actor_keys"] = tuple(tuple(words) for words in progress["actor_keys"])
            return Progress(**progress)
        except (KeyError, TypeError) as error:
            raise ValueError(f"checkpoint must hold {Progress._fields}: {error}") from error

    def close(self) -> None:
        """Frees what Orbax holds."""
        self._manager.close()


def find_damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written."""
    try:
        expected: Any = json.loads((folder / DIGESTS).read_text())
    except FileNotFoundError:
        return "saving it was cut short, or it is of format version 1"
    except (OSError, ValueError) as error:
        return f"{DIGESTS} cannot be read ({error})"
    try:
        found = _digest_files(folder)
    except OSError as error:
        return f"it cannot be read ({error})"
    if expected == found:
        return None
    if not isinstance(expected, dict):
        return f"{DIGESTS} holds no digests"
    differing = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    return f"{', '.join(differing[:3])} {'is' if len(differing) == 1 else 'are'} not as written"


def _digest_files(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


def _write_digests(folder: Path) -> None:
    unfinished = folder / (DIGESTS + ".part")
    digests = _digest_files(folder)
    with unfinished.open("w") as file:
        json.dump(digests, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / DIGESTS)
