"""The file of parameters: what is written is read, and nothing else."""

import errno
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.errors import CheckpointError
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters, write_parameters
from a3cjax.types import ObservationStatistics, Snapshot
from tests.cases import for_each

PARAMS = {"params": {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}}}
STATISTICS = ObservationStatistics(jnp.full((4, 4), 0.5), jnp.asarray(2.0))
SNAPSHOT = Snapshot(version=7, num_frames=400, params=PARAMS, statistics=STATISTICS)


def template(params=PARAMS, statistics=STATISTICS):
    """What a network expects to be read."""
    return Snapshot(0, 0, params, statistics)


def refused(folder, params=PARAMS, statistics=STATISTICS):
    """The line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_parameters(folder, template(params, statistics))
    message = str(caught.value)
    assert message.startswith(f"{folder / PARAMETER_FILE} cannot be read: ")
    assert message.isprintable()  # so it is one line
    return message


def write_by_hand(folder, metadata, array, data):
    """A file of one array, as the format's description says."""
    header = json.dumps({"__metadata__": metadata, "params/kernel": array}).encode()
    content = len(header).to_bytes(8, "little") + header + data
    (folder / PARAMETER_FILE).write_bytes(content)


@for_each("reward_scale", [jnp.asarray(3.0), None])
@for_each("statistics", [STATISTICS, None])
def test_what_is_written_is_read(tmp_path, statistics, reward_scale):
    snapshot = SNAPSHOT._replace(statistics=statistics, reward_scale=reward_scale)
    write_parameters(tmp_path, snapshot)
    read = read_parameters(tmp_path, jax.tree.map(jnp.zeros_like, snapshot))
    jax.tree.map(np.testing.assert_array_equal, read, snapshot)
    assert jax.tree.structure(read) == jax.tree.structure(snapshot)


METADATA = {"format": "a3cjax-1", "num_frames": "400", "num_updates": "7"}
KERNEL = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ONE_AND_TWO = bytes.fromhex("0000803f00000040")


def test_files_of_the_first_version_stay_readable(tmp_path):
    write_by_hand(tmp_path, METADATA, KERNEL, ONE_AND_TWO)
    read = read_parameters(tmp_path, template({"kernel": jnp.zeros(2)}, None))
    assert (read.version, read.num_frames, read.statistics, read.target_params) == (
        7,
        400,
        None,
        None,
    )
    np.testing.assert_array_equal(read.params["kernel"], [1.0, 2.0])


def test_file_may_be_a_link(tmp_path):
    # Programs that download models keep them elsewhere.
    path = write_parameters(tmp_path, SNAPSHOT)
    path.rename(tmp_path / "blob")
    path.symlink_to("blob")
    assert read_parameters(tmp_path, template()).num_frames == 400


def test_target_parameters_are_left_out(tmp_path):
    size = write_parameters(tmp_path, SNAPSHOT).stat().st_size
    path = write_parameters(tmp_path, SNAPSHOT._replace(target_params=PARAMS))
    assert path.stat().st_size == size


def test_any_flipped_byte_of_the_header_or_cut_is_noticed_or_changes_numbers_only(tmp_path):
    path = write_parameters(tmp_path, SNAPSHOT)
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        refused(tmp_path)
    for index in range(len(good)):
        path.write_bytes(good[:index] + bytes([good[index] ^ 0x20]) + good[index + 1 :])
        try:
            read = read_parameters(tmp_path, template())
        except CheckpointError:
            continue
        assert jax.tree.map(jnp.shape, read) == jax.tree.map(jnp.shape, SNAPSHOT)


@for_each(
    ("params", "statistics", "message"),
    [
        (
            {"params": {"dense": {"bias": jnp.ones(3)}}},
            STATISTICS,
            "kernel must be absent, got F32",
        ),
        (
            {"params": {"dense": {"kernel": jnp.zeros((3, 2)), "bias": jnp.ones(3)}}},
            STATISTICS,
            "params/params/dense/kernel must be F32[3, 2], got F32[2, 3].",
        ),
        (PARAMS, None, "statistics/mean must be absent, got F32[4, 4]."),
    ],
)
def test_parameters_of_another_network_are_refused(tmp_path, params, statistics, message):
    write_parameters(tmp_path, SNAPSHOT)
    assert message in refused(tmp_path, params, statistics)


@for_each(
    ("bad", "rule"),
    [(np.inf, "finite"), (np.nan, "finite"), (0.0, "> 0"), (-2.0, "> 0"), (1e-40, "> 0")],
)
def test_scales_that_cannot_be_are_refused(tmp_path, bad, rule):
    statistics = STATISTICS._replace(scale=jnp.asarray(bad))
    write_parameters(tmp_path, SNAPSHOT._replace(statistics=statistics))
    assert f"statistics/scale must be {rule}" in refused(tmp_path)
    rewards = SNAPSHOT._replace(reward_scale=jnp.asarray(1.0))
    write_parameters(tmp_path, rewards._replace(reward_scale=jnp.asarray(bad)))
    with pytest.raises(CheckpointError, match=f"reward_scale must be {rule}"):
        read_parameters(tmp_path, rewards)


@for_each(("dtype", "size"), [("F8_E5M2", 1), ("BF16", 2), ("I32", 4), ("F64", 8)])
def test_numbers_of_another_type_are_refused(tmp_path, dtype, size):
    kernel = {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}
    write_by_hand(tmp_path, METADATA, kernel, bytes(2 * size))
    message = refused(tmp_path, {"kernel": jnp.ones(2)}, None)
    assert message.endswith(f"params/kernel must be F32[2], got {dtype}[2].")


@for_each(
    "text",
    [
        "-5",
        " 5",
        "1_0",
        "\u0665",
        "9" * 4000,
        "9" * 5000,
        str(2**53 + 1),
        "",
        "1.5",
        "True",
        "1\x1b",
    ],
)
@for_each("name", ["num_frames", "num_updates"])
def test_counts_are_whole_numbers(tmp_path, name, text):
    write_by_hand(tmp_path, {**METADATA, name: text}, KERNEL, ONE_AND_TWO)
    assert refused(tmp_path, {"kernel": jnp.ones(2)}, None)


@for_each("metadata", [{}, {"format": "pt"}, {**METADATA, "format": "a3cjax-2"}])
def test_files_of_other_programs_are_refused(tmp_path, metadata):
    write_by_hand(tmp_path, metadata, KERNEL, ONE_AND_TWO)
    got = metadata.get("format")
    assert f"format must be a3cjax-1, got {got!r}." in refused(
        tmp_path, {"kernel": jnp.ones(2)}, None
    )


@for_each("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(tmp_path, make):
    make(tmp_path / PARAMETER_FILE)
    assert refused(tmp_path).endswith("it is no file")


@for_each("error", [OSError(errno.EACCES, "Permission denied"), MemoryError()])
def test_what_cannot_be_read_is_refused_in_a_line(tmp_path, monkeypatch, error):
    def fail(path):
        raise error

    write_parameters(tmp_path, SNAPSHOT)
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert refused(tmp_path).endswith(str(error) or "MemoryError")
