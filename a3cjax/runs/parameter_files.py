"""Parameters in one small file, for agents that are shown or passed on without their run.

The format is safetensors: names, shapes and numbers. Nothing is executed when it is read.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from a3cjax.errors import CheckpointError
from a3cjax.system.files import replace_file
from a3cjax.types import ObservationStatistics, Params, Snapshot

PARAMETER_FILE = "params.safetensors"
FORMAT_VERSION = "1"


def write_parameters(folder: Path, snapshot: Snapshot) -> Path:
    """Writes parameters and observation statistics as they are, in 32-bit floats.

    Args:
      folder: where PARAMETER_FILE goes.
      snapshot: its target parameters are left out; they are for learning.

    Returns:
      The file.
    """
    arrays = {name: np.asarray(value) for name, value in _flatten(snapshot).items()}
    metadata = {
        "format": f"a3cjax-{FORMAT_VERSION}",
        "num_frames": str(snapshot.num_frames),
        "num_updates": str(snapshot.version),
    }
    path = folder / PARAMETER_FILE
    replace_file(path, safetensors.numpy.save(arrays, metadata))
    return path


def read_parameters(
    folder: Path, params: Params, statistics: ObservationStatistics | None
) -> Snapshot:
    """Reads what `write_parameters` wrote.

    Args:
      folder: with PARAMETER_FILE in it.
      params: a pytree of what the shapes must be.
      statistics: likewise, None where observations are not centred.

    Returns:
      A snapshot with the numbers of the file.

    Raises:
      CheckpointError: if the file is damaged, of another format, or of another network.
    """
    path = folder / PARAMETER_FILE
    template = _flatten(Snapshot(0, 0, params, statistics))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != f"a3cjax-{FORMAT_VERSION}":
                raise CheckpointError(
                    f"{path} must be of format a3cjax-{FORMAT_VERSION}, "
                    f"got {metadata.get('format')!r}."
                )
            num_updates, num_frames = int(metadata["num_updates"]), int(metadata["num_frames"])
            names: list[str] = file.keys()
            slices = {name: file.get_slice(name) for name in names}
            # Asked for before they are read: NumPy has no name for some types of the format.
            held = {name: (a.get_dtype(), tuple(a.get_shape())) for name, a in slices.items()}
            expected = {name: ("F32", tuple(array.shape)) for name, array in template.items()}
            if held != expected:
                raise CheckpointError(f"{path} must hold {expected}, got {held}.")
            arrays = {name: _check(path, name, file.get_tensor(name)) for name in expected}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    centre = tree.get("statistics")
    return Snapshot(
        num_updates,
        num_frames,
        tree["params"],
        ObservationStatistics(**centre) if centre is not None else None,
    )


def _flatten(snapshot: Snapshot) -> dict[str, Any]:
    """Arrays by their path, such as `params/params/torso/kernel`."""
    tree: dict[str, Any] = {"params": snapshot.params}
    if snapshot.statistics is not None:
        tree["statistics"] = snapshot.statistics._asdict()
    return traverse_util.flatten_dict(tree, sep="/")


def _check(path: Path, name: str, array: np.ndarray) -> jax.Array:
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path} must hold finite numbers, got others in {name}.")
    return jax.numpy.asarray(array)
