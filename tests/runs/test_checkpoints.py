"""Checkpoints: bit by bit, one after another, damaged, unreadable, cut short by a kill."""

import errno
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from a3cjax.errors import CheckpointError
from a3cjax.optimizers import make_optimizer
from a3cjax.parameters.moments import moments_of
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress, is_sealed, seal
from a3cjax.types import LearnerState, ObservationStatistics, Seen
from a3cjax.updates import make_apply_gradients
from tests.cases import for_each

STATISTICS = ObservationStatistics(jnp.asarray([[1.5, 2.0], [0.1, 3e-9]]), jnp.asarray(4.3))


def make_params(seed):
    kernel = np.random.default_rng(seed).normal(size=(3, 5))
    params = {"torso": {"kernel": kernel, "bias": np.zeros(5)}, "value": {"bias": np.pi}}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


@functools.cache
def compile_optimizer(name):
    optimizer = make_optimizer(name, schedule=lambda _: 0.1, max_grad_norm=1.0)
    return optimizer, make_apply_gradients(optimizer)


def make_state(name="adam", seed=0):
    """Parameters and optimizer state after an update: numbers that fill all bits."""
    optimizer, apply_gradients = compile_optimizer(name)
    params = make_params(seed)
    grads = jax.tree.map(lambda leaf: 0.3 * leaf + 0.1, params)
    state = LearnerState(params, optimizer.init(params))
    return apply_gradients(state, grads, np.float32(0))[0]


def make_checkpoint(num_frames):
    return Checkpoint(make_state(seed=num_frames), STATISTICS, Progress(num_frames))


def blank(checkpoint):
    """A template: the same structure with other numbers."""
    state, statistics = jax.tree.map(jnp.zeros_like, checkpoint[:2])
    seen = jax.tree.map(np.zeros_like, checkpoint.state.seen)  # in 64 bits
    return Checkpoint(state._replace(seen=seen), statistics, Progress())


def assert_same(restored, checkpoint):
    assert restored.progress == checkpoint.progress
    assert jax.tree.structure(restored[:2]) == jax.tree.structure(checkpoint[:2])
    for one, other in zip(*map(jax.tree.leaves, (restored[:2], checkpoint[:2])), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def saved(folder):
    """Checkpoints of frames 100, 200 and 300, which are in the folder."""
    checkpoints = [make_checkpoint(num_frames) for num_frames in (100, 200, 300)]
    for checkpoint in checkpoints:
        Checkpointer(folder).save(checkpoint)
    return checkpoints


def restore(folder, template):
    """What is restored, and what is reported."""
    reports = []
    return Checkpointer(folder).restore(blank(template), reports.append), reports


def names(folder):
    return {path.name for path in folder.iterdir()}


def discard_after(folder, num_frames):
    checkpointer = Checkpointer(folder)
    checkpointer.discard(checkpointer.find_stale(num_frames))


def contents(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


def files_of(*frames):
    return {f"{num_frames}.safetensors" for num_frames in frames}


# Saving and restoring.

STATES = {
    **{name: make_state(name) for name in ("rmsprop", "adam", "sgd")},
    "target": make_state()._replace(target_params=make_params(1)),
    "seen": make_state()._replace(
        seen=Seen(
            moments_of([1.0, np.pi]), {"eye": None, "vector": moments_of([[1e9, 1 / 3]], (2,))}
        )
    ),
    # As with shared_statistics=False: one for each actor.
    "of each actor": LearnerState(
        make_params(0), tuple(make_state(seed=seed).opt_state for seed in range(3))
    ),
    "other types": LearnerState(
        (jnp.zeros((0, 4)), [jnp.asarray([True, False]), jnp.asarray(-5, jnp.int32)]),
        optax.ScaleByAdamState(
            jnp.asarray(2**31 - 1, jnp.int32),
            jnp.asarray([1e-40, 3e38], jnp.bfloat16),
            jnp.asarray([2**32 - 1], jnp.uint32),
        ),
    ),
}


@for_each("statistics", [None, STATISTICS])
@for_each("name", STATES)
def test_checkpoint_comes_back_bit_by_bit(tmp_path, name, statistics):
    folder = tmp_path / "checkpoints"
    progress = Progress(
        num_frames=320_000_004,
        num_updates=12,
        wall_seconds=0.1 + 0.2,
        num_resumes=3,
        actor_keys=((0, 2**32 - 1), (7, 8)),
        best_score=-1e-17,
        num_seeds=5,
        standings=({"leaves": [0.1, None, 'a "quoted" \u20ac']}, {"sha256": "0" * 64}),
    )
    checkpoint = Checkpoint(STATES[name], statistics, progress)
    Checkpointer(folder).save(checkpoint)
    restored, reports = restore(folder, checkpoint)
    assert_same(restored, checkpoint)
    assert reports == []
    assert Checkpointer(folder).read_progress() == progress
    assert names(folder) == files_of(320_000_004)


def test_arrays_of_another_order_in_memory_come_back(folder):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T
    checkpoint = Checkpoint(LearnerState({"kernel": kernel}, ()), None, Progress(1))
    Checkpointer(folder).save(checkpoint)
    assert_same(restore(folder, checkpoint)[0], checkpoint)


def test_other_programs_can_read_it(folder, saved):
    arrays = safetensors.numpy.load_file(folder / "300.safetensors")
    np.testing.assert_array_equal(
        arrays["params/torso/kernel"], saved[2].state.params["torso"]["kernel"]
    )
    assert {"opt_state/1/count", "opt_state/1/nu/value/bias", "statistics/mean"} < arrays.keys()


@for_each("bad", [jnp.inf, jnp.nan])
def test_optimizer_states_that_are_not_finite_are_refused(tmp_path, bad):
    folder = tmp_path / "checkpoints"
    state = make_state("rmsprop")
    state = state._replace(
        opt_state=jax.tree.map(lambda leaf: jnp.full_like(leaf, bad), state.opt_state)
    )
    checkpoint = Checkpoint(state, None, Progress(1))
    Checkpointer(folder).save(checkpoint)
    with pytest.raises(CheckpointError, match=r"opt_state/.* must be finite numbers, got others"):
        restore(folder, checkpoint)


def test_vectors_may_have_one_scale_for_all_entries_as_they_once_had(folder):
    scalar, each = (ObservationStatistics(jnp.ones(3), jnp.full(n, 2.0)) for n in ((), (3,)))
    state = make_state("rmsprop")
    Checkpointer(folder).save(Checkpoint(state, scalar, Progress(1)))
    restored, _ = restore(folder, Checkpoint(state, each, Progress(1)))
    assert_same(restored, Checkpoint(state, scalar, Progress(1)))


@pytest.mark.parametrize("max_to_keep", [1, 3])
def test_newest_checkpoint_is_restored_and_the_last_ones_are_kept(folder, max_to_keep):
    frames = (80, 1000, 2000, 10_000)
    for num_frames in frames:
        newest = make_checkpoint(num_frames)
        Checkpointer(folder, max_to_keep).save(newest)
    assert_same(restore(folder, newest)[0], newest)
    assert names(folder) == files_of(*frames[-max_to_keep:])


def test_updates_that_cost_no_frames_are_saved(folder):
    checkpointer = Checkpointer(folder, max_to_keep=1)
    for seed in (1, 2, 2):
        state = make_state(seed=seed)
        newest = Checkpoint(state, STATISTICS, Progress(300, num_updates=seed))
        checkpointer.save(newest)
        assert_same(restore(folder, newest)[0], newest)
    assert [path.name for path in folder.iterdir()] == ["300.safetensors"]


def test_a_save_that_failed_can_be_repeated(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left")

    checkpointer = Checkpointer(folder)
    first, second = (
        Checkpoint(make_state(seed=seed), STATISTICS, Progress(300, num_updates=seed))
        for seed in (1, 2)
    )
    checkpointer.save(first)
    with monkeypatch.context() as full:
        full.setattr("os.fsync", fail)
        with pytest.raises(CheckpointError, match="no space left"):
            checkpointer.save(second)
    assert_same(restore(folder, first)[0], first)
    checkpointer.save(second)
    assert_same(restore(folder, second)[0], second)


def test_saving_the_same_frame_again_does_nothing(folder, saved):
    before = contents(folder)
    Checkpointer(folder).save(make_checkpoint(0)._replace(progress=Progress(300)))
    assert contents(folder) == before


def test_frames_only_grow(folder, saved):
    with pytest.raises(CheckpointError, match=r"250\S* cannot be written: .* one of frame 300"):
        Checkpointer(folder).save(make_checkpoint(250))
    assert names(folder) == files_of(100, 200, 300)


def test_relative_folders_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpointer = Checkpointer(Path("runs") / "checkpoints")
    monkeypatch.chdir("/")
    checkpointer.save(make_checkpoint(80))
    assert names(tmp_path / "runs" / "checkpoints") == files_of(80)


@pytest.mark.parametrize("is_there", [True, False])
def test_empty_folder_has_no_checkpoint(folder, tmp_path, is_there):
    if is_there:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in .*{tmp_path.name}"):
        restore(folder, make_checkpoint(0))
    assert Checkpointer(folder).read_progress() is None
    discard_after(folder, 0)
    assert folder.exists() == is_there


def test_checkpoint_of_an_older_format_version_is_refused_by_name(folder):
    (folder / "300" / "arrays").mkdir(parents=True)  # as Orbax wrote it
    for method in (lambda: restore(folder, make_checkpoint(0)), Checkpointer(folder).read_progress):
        with pytest.raises(CheckpointError, match="are of an older format version"):
            method()


def test_checkpoint_of_the_format_before_is_refused_in_a_line(folder):
    checkpoint = make_checkpoint(300)
    Checkpointer(folder).save(checkpoint)
    path = folder / "300.safetensors"
    path.write_bytes(seal(path.read_bytes().replace(b"checkpoint-4", b"checkpoint-3")))
    with pytest.raises(CheckpointError, match="format must be a3cjax-checkpoint-4, got") as caught:
        restore(folder, checkpoint)
    assert len(str(caught.value).splitlines()) == 1


def test_slip_in_the_program_is_not_taken_for_a_full_disk(folder):
    with pytest.raises(TypeError, match="JSON"):
        Checkpointer(folder).save(make_checkpoint(0)._replace(progress=Progress(best_score=1j)))
    assert names(folder) == set()


def test_progress_can_be_read_as_it_was_at_an_earlier_frame(folder, saved):
    for num_frames, expected in [(99, None), (100, 100), (299, 200), (300, 300)]:
        progress = Checkpointer(folder).read_progress(num_frames)
        assert (progress and progress.num_frames) == expected


# Damage.


def test_any_flipped_bit_and_any_cut_is_noticed(folder):
    state = LearnerState({"bias": jnp.asarray([1.5, 0.0])}, ())
    Checkpointer(folder).save(Checkpoint(state, None, Progress(5, actor_keys=((1, 2),))))
    data = (folder / "5.safetensors").read_bytes()
    assert is_sealed(data)
    damaged = bytearray(data)
    for index in range(len(data)):
        for bit in range(8):
            damaged[index] ^= 1 << bit
            assert not is_sealed(bytes(damaged)), (index, bit)
            damaged[index] ^= 1 << bit
        assert not is_sealed(data[:index])
        assert not is_sealed(data[:index] + b"0" + data[index:])


def flip_a_bit(data):
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


DAMAGES = {
    "bit": flip_a_bit,
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "digest": lambda data: data.replace(b'"sha256":"', b'"sha256":"' + b"0"),
    "not sealed": lambda data: data.replace(b"sha256", b"sha255"),
}


def test_damaged_checkpoint_is_told_and_the_one_before_used(folder, saved, subtests):
    path = folder / "300.safetensors"
    sound = path.read_bytes()
    for name, damage in DAMAGES.items():
        with subtests.test(msg=name):
            path.write_bytes(damage(sound))
            before = contents(folder)
            restored, reports = restore(folder, saved[0])
            assert_same(restored, saved[1])
            assert reports == [f"checkpoint {path} is damaged: it is not as it was written."]
            assert Checkpointer(folder).read_progress() == Progress(200)
            assert contents(folder) == before


def test_if_all_are_damaged_that_is_said(folder, saved):
    for path in folder.iterdir():
        path.write_bytes(flip_a_bit(path.read_bytes()))
    reports = []
    with pytest.raises(CheckpointError, match=f"^every checkpoint in {folder} is damaged.$"):
        Checkpointer(folder).restore(saved[0], reports.append)
    assert [report.split()[1] for report in reports] == [
        str(folder / f"{num_frames}.safetensors") for num_frames in (300, 200, 100)
    ]
    assert Checkpointer(folder).read_progress() is None


def test_damaged_and_newer_ones_are_moved_aside_when_a_run_goes_on(folder, saved):
    Checkpointer(folder).save(make_checkpoint(400))  # 100 goes
    damaged = folder / "200.safetensors"
    damaged.write_bytes(flip_a_bit(damaged.read_bytes()))
    (folder / "500.safetensors.part").write_bytes(b"half")
    before = contents(folder)
    discard_after(folder, 300)
    discarded = {path.name: path.read_bytes() for path in folder.glob("discarded-*")}
    assert names(folder) - discarded.keys() == files_of(300)
    assert {name.rpartition("-")[2]: content for name, content in discarded.items()} == {
        name: before[folder / name] for name in files_of(200, 400)
    }
    # What the run comes to again can be saved again, and discarded again.
    Checkpointer(folder).save(make_checkpoint(400))
    assert_same(restore(folder, saved[0])[0], make_checkpoint(400))
    discard_after(folder, 300)
    assert len(list(folder.glob("discarded-*-400.safetensors"))) == 2


# Faults of the disk.


@for_each("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@for_each("what", ["newest", "folder"])
def test_unreadable_is_not_damaged(folder, saved, monkeypatch, number, what):
    owner, name = (Path, "read_bytes") if what == "newest" else (os, "listdir")
    function, before = getattr(owner, name), contents(folder)

    def fail(path):
        if Path(path) in (folder, folder / "300.safetensors"):
            raise OSError(number, os.strerror(number), str(path))
        return function(path)

    checkpointer = Checkpointer(folder)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        for method in (
            lambda: restore(folder, saved[0]),
            checkpointer.read_progress,
            lambda: checkpointer.find_stale(300),
        ):
            with pytest.raises(CheckpointError, match=os.strerror(number)) as caught:
                method()
            assert str(caught.value).isprintable()  # so it is one line
    assert contents(folder) == before


def test_full_disk_is_one_line_and_leaves_the_others(folder, saved, monkeypatch):
    def fill_the_disk(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill_the_disk)
    with pytest.raises(CheckpointError, match=r"400\S* cannot be written: .*No space left"):
        Checkpointer(folder).save(make_checkpoint(400))
    monkeypatch.undo()
    restored, reports = restore(folder, saved[0])
    assert_same(restored, saved[2])
    assert reports == []


@pytest.mark.parametrize(
    ("owner", "name", "survivor"),
    [(os, "fsync", 100), (Path, "replace", 100), (Path, "unlink", 200)],
    ids=["unwritten", "written", "renamed"],
)
def test_killed_at_any_step_there_is_one_to_go_on_from(folder, monkeypatch, owner, name, survivor):
    checkpointer = Checkpointer(folder, max_to_keep=1)
    checkpointer.save(make_checkpoint(100))

    def be_killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, be_killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save(make_checkpoint(200))
    monkeypatch.undo()
    restored, reports = restore(folder, make_checkpoint(0))
    assert_same(restored, make_checkpoint(survivor))
    assert reports == []
    discard_after(folder, survivor)
    checkpointer.save(make_checkpoint(300))
    assert names(folder) == files_of(300)
