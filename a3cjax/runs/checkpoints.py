"""Checkpoints in Orbax's format, each with the digests of its files.

Nothing of a checkpoint is executed when it is read: arrays are Zarr files, the rest is JSON.
Digests tell damage, not intent: whoever writes a checkpoint can write digests that fit. So what
is read is not believed, either.
"""

import hashlib
import json
import reprlib
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from a3cjax.errors import CheckpointError
from a3cjax.system.files import replace_file
from a3cjax.types import LearnerState, ObservationStatistics

FORMAT_VERSION = 2
DIGESTS = "digests.json"
"""Written last into the folder of a checkpoint: where it is missing, saving was cut short."""
MAX_COUNT = 2**53
"""Of what a checkpoint counts: floating-point numbers count no further."""


class Progress(NamedTuple):
    """Where a run stands.

    `actor_keys` holds the words of each actor's PRNG key; `best_score` the mean score of the
    best evaluation, None before the first; `num_seeds` counts the environment seeds used by
    now; `standings` are the actors' own (`ActorLearner.get_standing`), empty where
    environments start afresh.
    """

    num_frames: int = 0
    num_updates: int = 0
    wall_seconds: float = 0.0
    num_resumes: int = 0
    actor_keys: tuple[tuple[int, ...], ...] = ()
    best_score: float | None = None
    num_seeds: int = 0
    standings: tuple[Any, ...] = ()


class Checkpoint(NamedTuple):
    """All that a checkpoint holds."""

    state: LearnerState
    statistics: ObservationStatistics | None
    progress: Progress


class Checkpointer:
    """Saves to and restores from one folder, a subfolder for each number of frames."""

    def __init__(self, folder: Path, max_to_keep: int = 3):
        """Makes the folder if it is not there.

        Raises:
          CheckpointError: if there are checkpoints in it that Orbax cannot list.
        """
        # Orbax wants an absolute path. Saving is synchronous: it takes a fraction of a second.
        # What is old is deleted here, not by Orbax, once the new one has its digests.
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
        self._max_to_keep = max_to_keep
        self._folder = folder.resolve()
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except OSError:
            raise
        except Exception as error:  # it reads a file of every checkpoint: see `_read`
            raise CheckpointError(
                f"checkpoints in {self._folder} cannot be read: {_one_line(error)}"
            ) from error

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
        except (OSError, ValueError, RuntimeError) as error:  # the last two: of TensorStore
            raise CheckpointError(
                f"checkpoint of frame {num_frames} cannot be written to {self._folder}: "
                f"{_one_line(error)}"
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
          CheckpointError: if all are damaged, or it holds what Orbax cannot read.
          ValueError: if it is of another format version or of another agent, or its progress
            is none.
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
        """Where the run stood at the newest sound checkpoint; None if there is none.

        Raises:
          CheckpointError, ValueError: as `restore`.
        """
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
        restored = self._read(num_frames, "arrays", ocp.args.StandardRestore(abstract))
        return Checkpoint(restored["state"], restored["statistics"], progress)

    def _read_progress(self, num_frames: int) -> Progress:
        content = self._read(num_frames, "progress", ocp.args.JsonRestore())
        progress = _parse_progress(content, self._folder)
        if progress.num_frames != num_frames:
            raise ValueError(
                f"num_frames of a checkpoint must be that of its folder, "
                f"got {progress.num_frames} in {self._folder / str(num_frames)}."
            )
        return progress

    def _read(self, num_frames: int, item: str, args: ocp.args.CheckpointArgs) -> Any:
        where = f"checkpoint {self._folder / str(num_frames)} cannot be read"
        try:
            return self._manager.restore(num_frames, args=ocp.args.Composite(**{item: args}))[item]
        except ValueError as error:
            raise ValueError(f"{where}: {_one_line(error)}") from error
        # Orbax takes its files for what it wrote itself. If they are not, there is no end to
        # what it may raise: KeyError, AttributeError, RecursionError and more were seen.
        except Exception as error:
            raise CheckpointError(f"{where}: {_one_line(error)}") from error

    def close(self) -> None:
        """Frees what Orbax holds."""
        self._manager.close()


def _parse_progress(content: Any, folder: Path) -> Progress:
    """Makes Progress of the JSON in a checkpoint, which may be anything.

    Raises:
      ValueError: if it is not as `save` writes it; names what is wrong.
    """
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:  # a bool is no version
        raise ValueError(
            f"checkpoint must have format version {FORMAT_VERSION}, "
            f"got {reprlib.repr(version)} in {folder}."
        )
    parts = {name: value for name, value in content.items() if name != "format_version"}
    fields = set(Progress._fields)
    if not fields - _ADDED_LATER <= parts.keys() <= fields:
        raise ValueError(
            f"checkpoint must hold {', '.join(Progress._fields)}, "
            f"got {reprlib.repr(sorted(parts))} in {folder}."
        )
    for name, value in parts.items():
        rule, holds = _PROGRESS_RULES[name]
        if not holds(value):
            raise ValueError(
                f"{name} of a checkpoint must be {rule}, got {reprlib.repr(value)} in {folder}."
            )
    parts["actor_keys"] = tuple(tuple(words) for words in parts["actor_keys"])
    parts["standings"] = tuple(parts.get("standings", ()))
    return Progress(**parts)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _are_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_COUNT


def _are_keys(value: Any) -> bool:
    num_words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).size
    return isinstance(value, list) and all(
        isinstance(words, list)
        and len(words) == num_words
        and all(type(word) is int and 0 <= word < 2**32 for word in words)
        for words in value
    )


def _is_score(value: Any) -> bool:
    # NaN and infinity, too: a game may have such a score.
    return value is None or type(value) in (int, float)


def _are_standings(value: Any) -> bool:
    # What is in them, only the actors and their environments can judge.
    return isinstance(value, list) and all(isinstance(standing, dict) for standing in value)


_COUNT = (f"a whole number between 0 and {MAX_COUNT}", _is_count)
_PROGRESS_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_frames": _COUNT,
    "num_updates": _COUNT,
    "wall_seconds": (f"a number between 0 and {MAX_COUNT}", _are_seconds),
    "num_resumes": _COUNT,
    "actor_keys": ("a list of the words of each PRNG key", _are_keys),
    "best_score": ("a number or null", _is_score),
    "num_seeds": _COUNT,
    "standings": ("a list of objects", _are_standings),
}
# Checkpoints of this format version have been written without them.
_ADDED_LATER = {"num_seeds", "standings"}


def _one_line(text: object) -> str:
    """Printable and not long: it may quote a file that holds anything."""
    line = " ".join(str(text).split()) or type(text).__name__
    return "".join(character if character.isprintable() else "?" for character in line)[:1000]


def find_damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written."""
    try:
        found = _digest_files(folder)
        expected: Any = json.loads((folder / DIGESTS).read_text())
    except FileNotFoundError:
        return "saving it was cut short, or it is of format version 1"
    except (OSError, ValueError, RecursionError) as error:  # the last: nested without end
        return f"it cannot be read ({_one_line(error)})"
    if expected == found:
        return None
    if not isinstance(expected, dict):
        return f"{DIGESTS} holds no digests"
    differing = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    names = _one_line(", ".join(differing[:3]))
    return f"{names} {'is' if len(differing) == 1 else 'are'} not as written"


def _digest_files(folder: Path) -> dict[str, str]:
    """The digest of each file but `DIGESTS`, by its path in the folder.

    Raises:
      OSError: if there is anything else than files and folders. What a link leads to is not
        part of the checkpoint, and reading a pipe or a device may never end.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name, mode = str(path.relative_to(folder)), path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise OSError(f"{name} is no file")
        if name != DIGESTS:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _write_digests(folder: Path) -> None:
    replace_file(folder / DIGESTS, json.dumps(_digest_files(folder), indent=1))
