"""Arrays in one file: what checkpoints and the parameters of published agents have in common.

The format is safetensors: names, types, shapes and numbers. Reading a file executes nothing, and
takes nothing in it on trust.
"""

import contextlib
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, deserialize

from a3cjax.errors import CheckpointError
from a3cjax.system.files import replace_file
from a3cjax.types import Snapshot

PARAMETER_FILE = "params.safetensors"
PARAMETER_FORMAT = "a3cjax-1"
MAX_COUNT = 2**53  # of frames or updates in a file: beyond it, floats skip whole numbers

# Never negative: counts of steps and means of squared gradients in optax's states, and counts and
# variances in moments.
_COUNTS_AND_SQUARES = re.compile(r"opt_state(/[0-9]+)*/(count|nu)(/|$)|seen/.*(num_seen|variance)$")

Arrays = dict[str, dict[str, Any]]  # by name: `dtype`, `shape` and `data`, as safetensors says


def write_parameters(folder: Path, snapshot: Snapshot) -> Path:
    """Write parameters and what goes with them to PARAMETER_FILE in a folder.

    Target parameters are left out: they are only for learning. Returns the file's path.
    """
    path = folder / PARAMETER_FILE
    counts = {"num_frames": str(snapshot.num_frames), "num_updates": str(snapshot.version)}
    replace_file(path, pack(_arrays_of(snapshot), {"format": PARAMETER_FORMAT, **counts}))
    return path


def _arrays_of(snapshot: Snapshot) -> dict[str, Any]:
    names = ("params", "statistics", "reward_scale")
    return {name: getattr(snapshot, name) for name in names}


def read_parameters(folder: Path, template: Snapshot) -> Snapshot:
    """Read what `write_parameters` wrote, in the structure and shapes of a template.

    Raises:
      CheckpointError: if the file is damaged, of another format, or of another network.
    """
    path = folder / PARAMETER_FILE
    with told_in_a_line(f"{path} cannot be read"):
        metadata, arrays = unpack(read_file(path), PARAMETER_FORMAT)
        texts = [metadata.get(name, "") for name in ("num_updates", "num_frames")]
        counts = [int(text) if re.fullmatch("[0-9]{1,16}", text) else -1 for text in texts]
        if not all(map(is_amount, counts)):
            raise ValueError(f"counts must be whole numbers up to {MAX_COUNT}, got {texts}.")
        tree = restore(arrays, _arrays_of(template))
    return Snapshot(version=counts[0], num_frames=counts[1], **tree)


def pack(tree: Any, metadata: dict[str, str]) -> bytes:
    """The file of a pytree: arrays are named by their paths, as `params/params/torso/kernel`."""
    # In C order: safetensors takes the bytes as they lie in memory.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _name_leaves(tree).items()}
    return safetensors.numpy.save(arrays, metadata)


def unpack(data: bytes, expected_format: str) -> tuple[dict[str, str], Arrays]:
    """The metadata and arrays of a file; a SafetensorError or ValueError if the format is wrong."""
    arrays = dict(deserialize(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != expected_format:
        raise ValueError(f"format must be {expected_format}, got {metadata.get('format')!r}.")
    return metadata, arrays


def restore(arrays: Arrays, template: Any) -> Any:
    """A pytree like `template` with the numbers of a file; a ValueError if they do not fit.

    `template` holds arrays or `jax.ShapeDtypeStruct`.
    """
    if arrays.get("statistics/scale", {}).get("shape") == [] and template["statistics"]:
        # Vectors once had one scale for all entries; networks can centre by that, too.
        scalar = template["statistics"]._replace(scale=np.float32(1.0))
        template = {**template, "statistics": scalar}
    expected = {name: _describe(leaf) for name, leaf in _name_leaves(template).items()}
    for name in sorted(expected.keys() | arrays.keys()):
        rule, array = expected.get(name, "absent"), arrays.get(name)
        held = f"{array['dtype']}{array['shape']}" if array else "absent"
        if rule != held:
            raise ValueError(f"{name} must be {rule}, got {held}.")
    leaves = []
    for name, leaf in _name_leaves(template).items():
        array = np.ndarray(leaf.shape, leaf.dtype, arrays[name]["data"])
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite numbers, got others.")
        if (
            name.startswith(("statistics/scale", "reward_scale"))
            and (array < np.finfo(np.float32).tiny).any()
        ):
            raise ValueError(f"{name} must be > 0, got {array.min()}.")
        if _COUNTS_AND_SQUARES.match(name) and (array < 0).any():
            raise ValueError(f"{name} must be >= 0, got {array.min()}.")
        leaves.append(array.copy() if leaf.dtype == np.float64 else jnp.asarray(array))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _describe(leaf: Any) -> str:
    """The type and shape of an array as safetensors writes them.

    Only its dtype and shape are read: a template may hold shapes alone, and nothing is allocated
    for what a file only claims to need.
    """
    (array,) = dict(deserialize(pack(np.zeros(0, leaf.dtype), {}))).values()
    return f"{array['dtype']}{list(leaf.shape)}"


def _name_leaves(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(named) == len(leaves), "two arrays have one name"
    return named


def is_amount(value: Any, kind: type = int) -> bool:
    """Whether a value is of this type, and can be a number of frames, updates or seconds."""
    return type(value) is kind and 0 <= value <= MAX_COUNT  # a bool is no int


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """All bytes of a regular file; anything else is refused, since a pipe may never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise ValueError(f"it must have at most {max_bytes:,} bytes, got {status.st_size:,}")
    return path.read_bytes()


@contextlib.contextmanager
def told_in_a_line(what: str) -> Iterator[None]:
    """Turn whatever files and their contents raise into a CheckpointError."""
    try:
        yield
    except (OSError, MemoryError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{what}: {str(error) or type(error).__name__}") from error
