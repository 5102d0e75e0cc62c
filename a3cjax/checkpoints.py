"""Checkpoints in Orbax's format: parameters, optimizer state, statistics and counters."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from a3cjax.types import LearnerState, ObservationStatistics

FORMAT_VERSION = 1


class Checkpoint(NamedTuple):
    """All that a checkpoint holds. `counters` are plain numbers for JSON."""

    state: LearnerState
    statistics: ObservationStatistics | None
    counters: dict[str, Any]


class Checkpointer:
    """Saves to and restores from one folder, a subfolder for each number of frames."""

    def __init__(self, folder: Path, max_to_keep: int = 3):
        # Orbax wants an absolute path. Saving is synchronous: it takes a fraction of a second.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep, create=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, checkpoint: Checkpoint) -> None:
        """Saves under `counters["num_frames"]`; saving the same frame again does nothing."""
        num_frames = checkpoint.counters["num_frames"]
        if num_frames in self._manager.all_steps():
            return
        arrays = {"state": checkpoint.state, "statistics": checkpoint.statistics}
        counters = {"format_version": FORMAT_VERSION, **checkpoint.counters}
        self._manager.save(
            num_frames,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), counters=ocp.args.JsonSave(counters)
            ),
        )

    def restore(self, template: Checkpoint) -> Checkpoint:
        """Restores the newest checkpoint into the structure and shapes of `template`.

        Raises:
          FileNotFoundError: if the folder holds none.
          ValueError: if it is of another format version.
        """
        num_frames = self._manager.latest_step()
        if num_frames is None:
            raise FileNotFoundError(f"no checkpoint in {self._manager.directory}")
        arrays = {"state": template.state, "statistics": template.statistics}
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
        restored = self._manager.restore(
            num_frames,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(abstract), counters=ocp.args.JsonRestore()
            ),
        )
        counters = restored["counters"]
        if counters["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"checkpoint must have format version {FORMAT_VERSION}, "
                f"got {counters['format_version']} in {self._manager.directory}."
            )
        return Checkpoint(restored["arrays"]["state"], restored["arrays"]["statistics"], counters)

    def close(self) -> None:
        """Frees what Orbax holds."""
        self._manager.close()
