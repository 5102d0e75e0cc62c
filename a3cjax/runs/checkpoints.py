"""Checkpoints: one file of arrays each, with its progress and its own SHA-256 in the header.

The digest reveals damage, not intent: whoever makes up a checkpoint can make up a digest that fits.
So what is read is checked as well.
"""

import hashlib
import json
import os
import re
import reprlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from a3cjax.errors import CheckpointError
from a3cjax.runs import parameter_files as files
from a3cjax.system.files import replace_file
from a3cjax.types import LearnerState, ObservationStatistics

FORMAT = "a3cjax-checkpoint-4"
_FILE_NAME = re.compile(r"(0|[1-9][0-9]{0,15})\.safetensors")
_DIGEST = re.compile(rb'(?<="sha256":")[0-9a-f]{64}(?=")')


class Progress(NamedTuple):
    """Where a run stands.

    `actor_keys` holds the words of each actor's PRNG key; `best_score` the mean score of the
    best evaluation, None before the first; `num_seeds` counts the environment seeds used by
    now; `standings` says where each actor stands (`ActorLearner.get_standing`), and is empty
    if environments start afresh.
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
    """Saves to one folder and restores from it: `<number of frames>.safetensors`."""

    def __init__(self, folder: Path, max_to_keep: int = 3):
        self._folder, self._max_to_keep = folder.absolute(), max_to_keep
        self._num_updates: int | None = None  # of what was saved last, or found saved

    def save(self, checkpoint: Checkpoint) -> None:
        """Write `<num_frames>.safetensors`, once; again only if updates were made since.

        Makes the folder. Numbers of frames only grow: newer checkpoints must be discarded first.

        Raises:
          CheckpointError: if it cannot be written; earlier checkpoints are left as they are.
        """
        num_frames = checkpoint.progress.num_frames
        path = self._path(num_frames)
        with files.told_in_a_line(f"checkpoint {path} cannot be written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            saved = self._list()
            num_updates = checkpoint.progress.num_updates
            if num_frames in saved:
                if self._num_updates in (None, num_updates):
                    self._num_updates = num_updates
                    return
                saved.remove(num_frames)  # updates that cost no frames were made since
            if saved and saved[0] > num_frames:
                raise ValueError(f"there is one of frame {saved[0]}")
            progress = json.dumps(checkpoint.progress._asdict())
            metadata = {"format": FORMAT, "progress": progress, "sha256": "0" * 64}
            replace_file(path, seal(files.pack(_arrays_of(checkpoint), metadata)))
            self._num_updates = num_updates
            for old in saved[self._max_to_keep - 1 :]:
                self._path(old).unlink(missing_ok=True)

    def restore(self, template: Checkpoint, report: Callable[[str], None]) -> Checkpoint:
        """Restore the newest sound checkpoint into the structure and shapes of `template`.

        `report` is given a line for each newer one that is damaged.

        Raises:
          FileNotFoundError: if the folder holds none.
          CheckpointError: if one cannot be read, all are damaged, or the newest sound one is of
            another format version or agent, or was made up.
        """
        newest = self._read_newest(report)
        if newest is None and self._list():
            raise CheckpointError(f"every checkpoint in {self._folder} is damaged.")
        if newest is None:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        progress, arrays = newest
        with files.told_in_a_line(f"checkpoint {self._path(progress.num_frames)} cannot be read"):
            tree = files.restore(arrays, _arrays_of(template))
        statistics = tree.pop("statistics")
        return Checkpoint(LearnerState(**tree), statistics, progress)

    def read_progress(
        self, last: int = files.MAX_COUNT, report: Callable[[str], None] = lambda _: None
    ) -> Progress | None:
        """Where the run stood at the newest sound checkpoint up to frame `last`; None without one.

        `report` and errors are as for `restore`.
        """
        newest = self._read_newest(report, last)
        return newest[0] if newest else None

    def find_stale(self, num_frames: int) -> list[Path]:
        """The damaged checkpoints, and those after this frame: a run that goes on makes them again.

        Raises:
          CheckpointError: if a checkpoint cannot be read.
        """
        with files.told_in_a_line(f"{self._folder} cannot be read"):
            return [
                path
                for path in map(self._path, self._list())
                if int(path.stem) > num_frames or not is_sealed(files.read_file(path))
            ]

    def discard(self, stale: Iterable[Path]) -> None:
        """Move these checkpoints aside, and delete files that were never finished.

        Raises:
          CheckpointError: if they cannot be moved.
        """
        with files.told_in_a_line(f"{self._folder} cannot be tidied"):
            for unfinished in self._folder.glob("*.safetensors.part"):
                unfinished.unlink()
            for path in stale:
                path.rename(self._folder / f"discarded-{time.time_ns()}-{path.name}")

    def _path(self, num_frames: int) -> Path:
        return self._folder / f"{num_frames}.safetensors"

    def _list(self) -> list[int]:
        """The numbers of frames of all checkpoints, the newest first."""
        matches = [_FILE_NAME.fullmatch(name) for name in self._names()]
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def _names(self) -> list[str]:
        with files.told_in_a_line(f"{self._folder} cannot be read"):
            return os.listdir(self._folder) if os.path.lexists(self._folder) else []

    def _read_newest(
        self, report: Callable[[str], None], last: int = files.MAX_COUNT
    ) -> tuple[Progress, files.Arrays] | None:
        """The newest sound checkpoint up to this frame; None if there is none."""
        saved = [num_frames for num_frames in self._list() if num_frames <= last]
        for num_frames in saved:
            path = self._path(num_frames)
            with files.told_in_a_line(f"checkpoint {path} cannot be read"):
                data = files.read_file(path)
                if is_sealed(data):
                    metadata, arrays = files.unpack(data, FORMAT)
                    return _parse_progress(metadata.get("progress", ""), num_frames), arrays
            report(f"checkpoint {path} is damaged: it is not as it was written.")
        if not saved and any(name.isdecimal() for name in self._names()):
            raise CheckpointError(
                f"checkpoints in {self._folder} are of an older format version, no longer readable."
            )
        return None


def seal(data: bytes) -> bytes:
    """Put the SHA-256 of a file, taken without its own 64 digits, into the file's header."""
    assert _DIGEST.search(data), "safetensors writes its metadata in another way"
    before, after = _DIGEST.split(data, maxsplit=1)
    digest = hashlib.sha256(before + after).hexdigest()
    return before + digest.encode() + after


def is_sealed(data: bytes) -> bool:
    """Whether a file is as it was sealed, to the last bit."""
    return _DIGEST.search(data) is not None and seal(data) == data


def _arrays_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return {**checkpoint.state._asdict(), "statistics": checkpoint.statistics}


def _parse_progress(text: str, num_frames: int) -> Progress:
    """Make a Progress from JSON that may hold anything; a ValueError says what is wrong."""
    content, names = json.loads(text), Progress._fields
    if not isinstance(content, dict) or content.keys() != set(names):
        raise ValueError(f"progress must be {', '.join(names)}, got {reprlib.repr(content)}.")
    for name, value in content.items():
        rule, holds = _judge(name, value)
        if not holds:
            raise ValueError(f"{name} must be {rule}, got {reprlib.repr(value)}.")
    if content["num_frames"] != num_frames:
        raise ValueError(f"num_frames must be {num_frames}, got {content['num_frames']}.")
    content["actor_keys"] = tuple(map(tuple, content["actor_keys"]))
    content["standings"] = tuple(content["standings"])
    return Progress(**content)


def _judge(name: str, value: Any) -> tuple[str, bool]:
    """The rule for a part of the progress, and whether its value keeps it."""
    if name == "wall_seconds":
        return f"a float between 0 and {files.MAX_COUNT}", files.is_amount(value, float)
    if name == "best_score":  # NaN and infinity, too: a game may have such a score
        return "a float or null", value is None or type(value) is float
    if name == "actor_keys":
        return "a list of the words of each PRNG key", _is_list(value, _is_key)
    if name == "standings":  # only actors and environments can judge what is in them
        return "a list of objects", _is_list(value, lambda item: type(item) is dict)
    return f"a whole number between 0 and {files.MAX_COUNT}", files.is_amount(value)


def _is_key(value: Any) -> bool:
    is_words = _is_list(value, lambda word: files.is_amount(word) and word < 2**32)
    return is_words and len(value) == 2  # as Threefry has them, which every run uses


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return type(value) is list and all(map(holds, value))
