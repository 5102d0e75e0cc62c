"""Published agents: the file of parameters, `a3cjax.load`, the model card."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import a3cjax
from a3cjax.checkpoints import CheckpointError
from a3cjax.parameter_files import PARAMETER_FILE, read_parameters, write_parameters
from a3cjax.types import ObservationStatistics, Snapshot

PARAMS = {"params": {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}}}
STATISTICS = ObservationStatistics(jnp.full((4, 4), 0.5), jnp.asarray(2.0))
SNAPSHOT = Snapshot(version=7, num_frames=400, params=PARAMS, statistics=STATISTICS)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("statistics", [STATISTICS, None])
def test_what_is_written_is_read(tmp_path, statistics):
    snapshot = SNAPSHOT._replace(statistics=statistics)
    write_parameters(tmp_path, snapshot)
    blank = jax.tree.map(jnp.zeros_like, snapshot)
    read = read_parameters(tmp_path, blank.params, blank.statistics)
    assert_equal(read, snapshot)
    assert jax.tree.structure(read) == jax.tree.structure(snapshot)


def test_target_parameters_are_left_out(tmp_path):
    size = write_parameters(tmp_path, SNAPSHOT).stat().st_size
    path = write_parameters(tmp_path, SNAPSHOT._replace(target_params=PARAMS))
    assert path.stat().st_size == size


def test_any_flipped_byte_of_the_header_or_cut_is_noticed_or_changes_numbers_only(tmp_path):
    path = write_parameters(tmp_path, SNAPSHOT)
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=PARAMETER_FILE):
            read_parameters(tmp_path, PARAMS, STATISTICS)
    for index in range(len(good)):
        path.write_bytes(good[:index] + bytes([good[index] ^ 0x20]) + good[index + 1 :])
        try:
            read = read_parameters(tmp_path, PARAMS, STATISTICS)
        except CheckpointError:
            continue
        assert jax.tree.map(jnp.shape, read) == jax.tree.map(jnp.shape, SNAPSHOT)


@pytest.mark.parametrize(
    ("params", "statistics"),
    [
        ({"params": {"dense": {"kernel": jnp.zeros((2, 3))}}}, STATISTICS),
        ({"params": {"dense": {"kernel": jnp.zeros((3, 2)), "bias": jnp.ones(3)}}}, STATISTICS),
        (PARAMS, None),
    ],
    ids=["a name too many", "another shape", "statistics too many"],
)
def test_parameters_of_another_network_are_refused(tmp_path, params, statistics):
    write_parameters(tmp_path, SNAPSHOT)
    with pytest.raises(CheckpointError, match=r"must hold .*, got .*kernel"):
        read_parameters(tmp_path, params, statistics)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_parameters_that_are_not_finite_are_refused(tmp_path, bad):
    statistics = STATISTICS._replace(scale=jnp.asarray(bad))
    write_parameters(tmp_path, SNAPSHOT._replace(statistics=statistics))
    with pytest.raises(CheckpointError, match="finite 32-bit floats, got others in statistics"):
        read_parameters(tmp_path, PARAMS, STATISTICS)


def test_files_of_other_programs_are_refused(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / PARAMETER_FILE)
    with pytest.raises(CheckpointError, match="must be of format a3cjax-1, got None"):
        read_parameters(tmp_path, PARAMS, STATISTICS)


def test_folder_without_an_agent_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        a3cjax.load(tmp_path)
    (tmp_path / "config.yaml").write_text("env: CartPole\nnetwork: mlp_ff\n")
    with pytest.raises(FileNotFoundError, match="checkpoints/"):
        a3cjax.load(tmp_path)
