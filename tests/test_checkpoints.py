from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax import checkpoints
from a3cjax.checkpoints import Checkpoint, Checkpointer
from a3cjax.optimizers import make_optimizer
from a3cjax.types import LearnerState, ObservationStatistics
from a3cjax.updates import make_apply_gradients

STATISTICS = ObservationStatistics(jnp.asarray([[1.5, 2.0], [0.1, 3e-9]]), jnp.asarray(4.3))


def make_state(optimizer="adam", seed=0):
    """Parameters and optimizer state after an update: numbers that fill all bits."""
    generator = np.random.default_rng(seed)
    params = {
        "torso": {"kernel": generator.normal(size=(3, 5)), "bias": np.zeros(5)},
        "value": {"bias": np.pi},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    transformation = make_optimizer(optimizer, schedule=lambda _: 0.1, max_grad_norm=1.0)
    grads = jax.tree.map(lambda leaf: 0.3 * leaf + 0.1, params)
    state = LearnerState(params, transformation.init(params))
    return make_apply_gradients(transformation)(state, grads, np.float32(0))


def blank(checkpoint):
    """A template: the same structure with other numbers."""
    return Checkpoint(
        jax.tree.map(jnp.zeros_like, checkpoint.state),
        jax.tree.map(jnp.zeros_like, checkpoint.statistics),
        {},
    )


def assert_same(restored, checkpoint):
    assert jax.tree.structure(restored[:2]) == jax.tree.structure(checkpoint[:2])
    for one, other in zip(
        jax.tree.leaves(restored[:2]), jax.tree.leaves(checkpoint[:2]), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def open_checkpointer(tmp_path):
    """Opens the same folder as often as called."""
    opened = []

    def open_again(**kwargs):
        opened.append(Checkpointer(tmp_path / "checkpoints", **kwargs))
        return opened[-1]

    yield open_again
    for checkpointer in opened:
        checkpointer.close()


@pytest.mark.parametrize(
    ("optimizer", "statistics"), [("rmsprop", None), ("adam", STATISTICS), ("sgd", STATISTICS)]
)
def test_checkpoint_comes_back_bit_by_bit(open_checkpointer, optimizer, statistics):
    counters = {"num_frames": 320_000_004, "num_updates": 12, "wall_seconds": 0.1 + 0.2}
    checkpoint = Checkpoint(make_state(optimizer), statistics, counters)
    open_checkpointer().save(checkpoint)
    restored = open_checkpointer().restore(blank(checkpoint))
    assert_same(restored, checkpoint)
    assert type(restored.state.opt_state) is type(checkpoint.state.opt_state)
    assert restored.counters.items() >= counters.items()
    assert restored.counters["format_version"] == 1


def test_newest_checkpoint_is_restored_and_three_are_kept(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    for num_frames in (80, 1000, 2000, 10_000):
        state = make_state("sgd", seed=num_frames)
        newest = Checkpoint(state, None, {"num_frames": num_frames})
        checkpointer.save(newest)
    restored = open_checkpointer().restore(blank(newest))
    assert restored.counters["num_frames"] == 10_000
    assert_same(restored, newest)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()}
    assert folders == {"1000", "2000", "10000"}


def test_saving_the_same_frame_again_does_nothing(open_checkpointer):
    checkpointer = open_checkpointer()
    first = Checkpoint(make_state("sgd", seed=1), None, {"num_frames": 80})
    checkpointer.save(first)
    checkpointer.save(Checkpoint(make_state("sgd", seed=2), None, {"num_frames": 80}))
    assert_same(checkpointer.restore(blank(first)), first)


def test_empty_folder_has_no_checkpoint(open_checkpointer, tmp_path):
    template = Checkpoint(make_state("sgd"), None, {})
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in .*{tmp_path.name}"):
        open_checkpointer().restore(template)


def test_checkpoint_of_another_agent_is_refused(open_checkpointer):
    open_checkpointer().save(Checkpoint(make_state("sgd"), None, {"num_frames": 80}))
    with pytest.raises(ValueError, match="statistics"):
        open_checkpointer().restore(Checkpoint(make_state("sgd"), STATISTICS, {}))


def test_relative_folders_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpointer = Checkpointer(Path("runs") / "checkpoints")
    checkpointer.save(Checkpoint(make_state("sgd"), None, {"num_frames": 80}))
    checkpointer.close()
    assert (tmp_path / "runs" / "checkpoints" / "80").is_dir()


def test_checkpoint_of_another_format_is_refused(open_checkpointer, monkeypatch):
    checkpoint = Checkpoint(make_state(), STATISTICS, {"num_frames": 10})
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 99)
    open_checkpointer().save(checkpoint)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="must have format version 1, got 99"):
        open_checkpointer().restore(blank(checkpoint))
