import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.errors import CheckpointError
from a3cjax.optimizers import make_optimizer
from a3cjax.runs import checkpoints
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
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
    return make_apply_gradients(transformation)(state, grads, np.float32(0))[0]


def blank(checkpoint):
    """A template: the same structure with other numbers."""
    return Checkpoint(
        jax.tree.map(jnp.zeros_like, checkpoint.state),
        jax.tree.map(jnp.zeros_like, checkpoint.statistics),
        Progress(),
    )


def assert_same(restored, checkpoint):
    assert jax.tree.structure(restored[:2]) == jax.tree.structure(checkpoint[:2])
    for one, other in zip(
        jax.tree.leaves(restored[:2]), jax.tree.leaves(checkpoint[:2]), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# Orbax leaves coroutines behind where reading fails; they must not fail some later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def leftovers_end_here():
    yield
    gc.collect()


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
    progress = Progress(
        num_frames=320_000_004,
        num_updates=12,
        wall_seconds=0.1 + 0.2,
        num_resumes=3,
        actor_keys=((0, 2**32 - 1), (7, 8)),
        best_score=-1e-17,
    )
    checkpoint = Checkpoint(make_state(optimizer), statistics, progress)
    open_checkpointer().save(checkpoint)
    restored = open_checkpointer().restore(blank(checkpoint))
    assert_same(restored, checkpoint)
    assert type(restored.state.opt_state) is type(checkpoint.state.opt_state)
    assert restored.progress == progress


def test_newest_checkpoint_is_restored_and_three_are_kept(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    for num_frames in (80, 1000, 2000, 10_000):
        state = make_state("sgd", seed=num_frames)
        newest = Checkpoint(state, None, Progress(num_frames))
        checkpointer.save(newest)
    restored = open_checkpointer().restore(blank(newest))
    assert restored.progress.num_frames == 10_000
    assert_same(restored, newest)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()}
    assert folders == {"1000", "2000", "10000"}


def test_saving_the_same_frame_again_does_nothing(open_checkpointer):
    checkpointer = open_checkpointer()
    first = Checkpoint(make_state("sgd", seed=1), None, Progress(80))
    checkpointer.save(first)
    checkpointer.save(Checkpoint(make_state("sgd", seed=2), None, Progress(80)))
    assert_same(checkpointer.restore(blank(first)), first)


def test_empty_folder_has_no_checkpoint(open_checkpointer, tmp_path):
    template = Checkpoint(make_state("sgd"), None, Progress())
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in .*{tmp_path.name}"):
        open_checkpointer().restore(template)


def test_checkpoint_of_another_agent_is_refused(open_checkpointer):
    open_checkpointer().save(Checkpoint(make_state("sgd"), None, Progress(80)))
    with pytest.raises(ValueError, match="statistics"):
        open_checkpointer().restore(Checkpoint(make_state("sgd"), STATISTICS, Progress()))


def test_relative_folders_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpointer = Checkpointer(Path("runs") / "checkpoints")
    checkpointer.save(Checkpoint(make_state("sgd"), None, Progress(80)))
    checkpointer.close()
    assert (tmp_path / "runs" / "checkpoints" / "80").is_dir()


def test_checkpoint_of_another_format_is_refused(open_checkpointer, monkeypatch):
    checkpoint = Checkpoint(make_state(), STATISTICS, Progress(10))
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 99)
    open_checkpointer().save(checkpoint)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="must have format version 2, got 99"):
        open_checkpointer().restore(blank(checkpoint))


# Damage.


def save_three(checkpointer):
    """Checkpoints of frames 100, 200 and 300; returns them."""
    saved = [
        Checkpoint(make_state(seed=frames), STATISTICS, Progress(frames))
        for frames in (100, 200, 300)
    ]
    for checkpoint in saved:
        checkpointer.save(checkpoint)
    return saved


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


DAMAGES = {"bit": flip_a_bit, "cut": cut_short, "missing": lambda path: path.unlink()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damaged_file_is_noticed_and_the_checkpoint_before_used(tmp_path, damage):
    folder = tmp_path / "checkpoints"
    checkpointer = Checkpointer(folder)
    saved = save_three(checkpointer)
    num_files = len(all_files(folder / "300"))
    assert num_files > 5
    for index in range(num_files):
        path = all_files(folder / "300")[index]
        original = path.read_bytes()
        DAMAGES[damage](path)
        messages = []
        restored = checkpointer.restore(blank(saved[0]), messages.append)
        assert_same(restored, saved[1])
        assert restored.progress.num_frames == 200
        (message,) = messages
        assert str(folder / "300") in message
        assert "damaged" in message
        path.write_bytes(original)
    assert_same(checkpointer.restore(blank(saved[0])), saved[2])
    checkpointer.close()


def test_additional_file_is_damage(open_checkpointer, tmp_path):
    saved = save_three(open_checkpointer())
    (tmp_path / "checkpoints" / "300" / "more").write_text("x")
    messages = []
    assert_same(open_checkpointer().restore(blank(saved[0]), messages.append), saved[1])
    assert "more is not as written" in messages[0]


def test_if_all_are_damaged_that_is_said(open_checkpointer, tmp_path):
    saved = save_three(open_checkpointer())
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / checkpoints.DIGESTS).write_text("[]")
    messages = []
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        open_checkpointer().restore(blank(saved[0]), messages.append)
    assert len(messages) == 3


def test_progress_can_be_read_without_a_template(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    assert checkpointer.read_progress() is None
    save_three(checkpointer)
    assert checkpointer.read_progress() == Progress(300)
    (tmp_path / "checkpoints" / "300" / checkpoints.DIGESTS).unlink()
    assert checkpointer.read_progress() == Progress(200)


def test_what_a_resumed_run_has_not_reached_yet_is_discarded(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    save_three(checkpointer)
    (tmp_path / "checkpoints" / "300" / checkpoints.DIGESTS).unlink()
    unfinished = tmp_path / "checkpoints" / "400.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "half").write_text("x")
    checkpointer.discard_after(200)
    assert not unfinished.exists()
    again = Checkpoint(make_state(seed=7), STATISTICS, Progress(300))
    checkpointer.save(again)
    assert_same(open_checkpointer().restore(blank(again)), again)


def test_failed_save_is_one_line_and_leaves_the_others(open_checkpointer, monkeypatch):
    checkpointer = open_checkpointer()
    first = Checkpoint(make_state(seed=1), STATISTICS, Progress(100))
    checkpointer.save(first)

    def fill_the_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write_digests", fill_the_disk)
    with pytest.raises(CheckpointError, match=r"frame 200 cannot be written .*No space left") as e:
        checkpointer.save(Checkpoint(make_state(seed=2), STATISTICS, Progress(200)))
    assert "\n" not in str(e.value)
    messages = []
    assert_same(open_checkpointer().restore(blank(first), messages.append), first)
    assert "cut short" in messages[0]


def test_frames_only_grow(open_checkpointer):
    checkpointer = open_checkpointer()
    saved = save_three(checkpointer)
    with pytest.raises(CheckpointError, match=r"frame 250 cannot .* there is one of frame 300"):
        checkpointer.save(Checkpoint(make_state(), STATISTICS, Progress(250)))
    assert_same(checkpointer.restore(blank(saved[0])), saved[2])


def test_the_old_is_kept_until_the_new_is_complete(open_checkpointer, monkeypatch):
    checkpointer = open_checkpointer(max_to_keep=1)
    old = Checkpoint(make_state(seed=1), STATISTICS, Progress(100))
    checkpointer.save(old)

    def be_killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_write_digests", be_killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save(Checkpoint(make_state(seed=2), STATISTICS, Progress(200)))
    assert_same(open_checkpointer().restore(blank(old)), old)
