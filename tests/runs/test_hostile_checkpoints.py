"""Checkpoints that someone made up: their digests are right, what they hold is not.

The law: reading one is refused in one clear line, or falls back to the checkpoint before.
Nothing else is raised, nothing is executed, and nothing in the folder is changed.
"""

import contextlib
import gc
import json
import os
import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.errors import CheckpointError
from a3cjax.runs import checkpoints
from a3cjax.runs.checkpoints import DIGESTS, Checkpoint, Checkpointer, Progress
from a3cjax.types import LearnerState, ObservationStatistics

OLD, NEW = 100, 200
PROGRESS = "progress/metadata"
LIST_OF_CHECKPOINTS = "_CHECKPOINT_METADATA"  # read for each when the folder is opened
NESTED = b"[" * 100_000


def make_checkpoint(num_frames, **params):
    """A small one; its numbers are the number of frames."""
    number = jnp.float32(num_frames)
    params = {"kernel": jnp.full((3, 5), number), "bias": jnp.full(5, number), **params}
    statistics = ObservationStatistics(jnp.full((2, 2), number), number)
    keys = ((1, 2**32 - 1), (3, 4))
    progress = Progress(num_frames, num_frames // 20, 1.5, 2, keys, -0.5, 7)
    return Checkpoint(LearnerState(params, ()), statistics, progress)


SOUND = {num_frames: make_checkpoint(num_frames) for num_frames in (OLD, NEW)}
TEMPLATE = make_checkpoint(0)


# Orbax leaves coroutines behind where reading fails; they must not fail some later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def leftovers_end_here():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "checkpoints"
    with contextlib.closing(Checkpointer(folder)) as checkpointer:
        for checkpoint in SOUND.values():
            checkpointer.save(checkpoint)
    return folder


@pytest.fixture
def folder(sound_folder, tmp_path):
    """A copy of two sound checkpoints, to be tampered with."""
    return Path(shutil.copytree(sound_folder, tmp_path / "checkpoints"))


def forge_digests(folder):
    checkpoints._write_digests(folder / str(NEW))


def write_progress(folder, content):
    """Makes this the progress of the newest checkpoint, with digests that fit."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / str(NEW) / PROGRESS).write_bytes(data)
    forge_digests(folder)


def read_json(path):
    return json.loads(path.read_text())


def look(folder):
    """All that can be seen of a folder from outside."""
    picture = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        picture[path] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return picture


def read(folder, method):
    """What a method of Checkpointer answers, or the line with which it refuses."""
    before = look(folder)
    try:
        with contextlib.closing(Checkpointer(folder)) as checkpointer:
            answer = method(checkpointer)
    except (CheckpointError, ValueError, FileNotFoundError) as error:
        answer = str(error)
        assert answer
        assert answer.isprintable()  # so it is one line
        assert len(answer) < 2000
    assert look(folder) == before
    return answer


def refused(folder):
    """The line with which both ways to read the newest checkpoint are refused."""
    message = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    assert isinstance(message, str)
    assert read(folder, lambda checkpointer: checkpointer.read_progress()) == message
    return message


def assert_same(restored, checkpoint):
    assert restored.progress == checkpoint.progress
    jax.tree.map(np.testing.assert_array_equal, restored[:2], checkpoint[:2])


def fell_back(folder):
    """The line which says that the newest is damaged, after the one before was read."""
    messages = []
    restored = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE, messages.append))
    assert_same(restored, SOUND[OLD])
    progress = read(folder, lambda checkpointer: checkpointer.read_progress())
    assert progress == SOUND[OLD].progress
    (message,) = messages
    assert message.isprintable()
    assert len(message) < 2000
    start = f"checkpoint {folder / str(NEW)} is damaged: "
    assert message.startswith(start)
    return message.removeprefix(start)


def test_untouched_checkpoint_is_read(folder):
    # Otherwise everything below could be refused for another reason.
    forge_digests(folder)
    assert_same(read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE)), SOUND[NEW])
    content = read_json(folder / str(NEW) / PROGRESS)
    assert content.keys() == {"format_version", *Progress._fields}
    write_progress(folder, content)
    assert_same(read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE)), SOUND[NEW])


# The progress.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        NESTED,
        b'{"format_version":' * 100_000,
        b'{"num_frames": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "not-utf8", "nested-lists", "nested-objects", "5000-digits"],
)
def test_progress_that_is_no_json_is_refused(folder, content):
    write_progress(folder, content)
    assert refused(folder).startswith(f"checkpoint {folder / str(NEW)} cannot be read: ")


@pytest.mark.parametrize("content", [[], [1], None, "text", 5, {}, {"a": 1}])
def test_progress_that_is_no_object_has_no_format_version(folder, content):
    write_progress(folder, content)
    assert "must have format version 2, got None" in refused(folder)


@pytest.mark.parametrize(
    "version", [1, 3, -2, "2", True, None, 2.0, [2], {"2": 2}, 10**30, "a\nb\x1b[2J" * 1000]
)
def test_format_version_is_compared_by_type_too(folder, version):
    content = read_json(folder / str(NEW) / PROGRESS)
    write_progress(folder, {**content, "format_version": version})
    assert "must have format version 2, got " in refused(folder)


@pytest.mark.parametrize("name", ["format_version", *Progress._fields[:6]])
def test_progress_must_be_complete(folder, name):
    content = read_json(folder / str(NEW) / PROGRESS)
    del content[name]
    write_progress(folder, content)
    assert ("format version" if name == "format_version" else "must hold") in refused(folder)


@pytest.mark.parametrize("name", ["more", "", "a\nb", "\ud800", "_fields", "__class__"])
def test_progress_must_hold_nothing_else(folder, name):
    content = read_json(folder / str(NEW) / PROGRESS)
    write_progress(folder, {**content, name: 1})
    assert "must hold num_frames, num_updates" in refused(folder)


NO_COUNTS = ["5", -1, 0.5, 200.0, float("nan"), float("inf"), 10**30, None, True, [200], {}]
NO_SECONDS = ["5", -1, -0.5, float("nan"), float("inf"), 10**30, 10**400, None, True, [1.5], {}]
NO_KEYS = [
    *("5", 5, None, True, {}, {"a": 1}, [5], ["12"], [None], [[]], [{}]),
    *([[1]], [[1, 2, 3]], [["1", "2"]], [[1.5, 2]], [[1.0, 2.0]], [[True, False]]),
    *([[-1, 2]], [[2**32, 1]], [[10**30, 1]], [[[1, 2]]], [[1, 2], [1]], [[[], []]]),
]
NO_SCORES = ["5", True, [1.5], {}, ""]
NO_STANDINGS = ["5", 5, None, True, {}, {"a": 1}, [5], [[]], ["a"], [{}, None]]
WRONG = {
    **dict.fromkeys(("num_frames", "num_updates", "num_resumes", "num_seeds"), NO_COUNTS),
    "wall_seconds": NO_SECONDS,
    "actor_keys": NO_KEYS,
    "best_score": NO_SCORES,
    "standings": NO_STANDINGS,
}


@pytest.mark.parametrize("name", Progress._fields)
def test_progress_of_other_types_is_refused(folder, name):
    content = read_json(folder / str(NEW) / PROGRESS)
    for value in WRONG[name]:
        write_progress(folder, {**content, name: value})
        assert refused(folder).startswith(f"{name} of a checkpoint must be "), value


def test_checkpoint_is_of_the_frame_that_its_folder_says(folder):
    content = read_json(folder / str(NEW) / PROGRESS)
    for num_frames in (0, OLD, NEW - 1, NEW + 1):
        write_progress(folder, {**content, "num_frames": num_frames})
        assert f"must be that of its folder, got {num_frames} in" in refused(folder)


# Arrays and the files of Orbax.


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "params",
    [
        {"kernel": jnp.ones((5, 3))},
        {"kernel": jnp.ones((3, 5, 1))},
        {"bias": jnp.ones(())},
        {"more": jnp.ones(5)},
        {"bias": {"bias": jnp.ones(5)}},
    ],
    ids=["shape", "rank", "scalar", "more", "nested"],
)
def test_arrays_of_another_agent_are_refused(folder, params):
    shutil.rmtree(folder / str(NEW))
    with contextlib.closing(Checkpointer(folder)) as checkpointer:
        checkpointer.save(make_checkpoint(NEW, **params))
    message = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    assert message.startswith(f"checkpoint {folder / str(NEW)} cannot be read: ")
    # What Orbax was still reading ends here, with complaints that the mark above ignores.
    gc.collect()


@pytest.mark.parametrize("dtype", ["int32", "float16", "bool", "complex64"])
def test_arrays_of_another_dtype_are_refused_or_converted(folder, dtype):
    shutil.rmtree(folder / str(NEW))
    with contextlib.closing(Checkpointer(folder)) as checkpointer:
        checkpointer.save(make_checkpoint(NEW, bias=jnp.ones(5, dtype)))
    restored = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    if not isinstance(restored, str):
        bias = restored.state.params["bias"]
        assert (bias.dtype, bias.shape) == (jnp.float32, (5,))
        np.testing.assert_array_equal(bias, np.ones(5))


CONTENTS = {
    "garbage": b"\x80garbage\x00",
    "empty": b"",
    "list": b"[]",
    "object": b"{}",
    "nested": NESTED,
}


def assert_refused_or_right(folder):
    """A file that Orbax has no need for may be anything."""
    restored = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    if not isinstance(restored, str):
        assert_same(restored, SOUND[NEW])
    progress = read(folder, lambda checkpointer: checkpointer.read_progress())
    if not isinstance(progress, str):
        assert progress == SOUND[NEW].progress
    return isinstance(restored, str)


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)


def num_refused(folder, change):
    """How many files must be right: each in turn is changed, with digests that fit."""
    count = 0
    paths = all_files(folder / str(NEW))
    assert len(paths) > 5
    for path in paths:
        original = path.read_bytes()
        change(path)
        forge_digests(folder)
        count += assert_refused_or_right(folder)
        path.write_bytes(original)
    gc.collect()  # as above
    return count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", CONTENTS)
def test_files_of_orbax_may_hold_anything(folder, content):
    assert num_refused(folder, lambda path: path.write_bytes(CONTENTS[content])) >= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_files_of_orbax_may_be_missing(folder):
    assert num_refused(folder, Path.unlink) >= 3


@pytest.mark.parametrize("name", ["arrays", "progress"])
def test_missing_part_is_refused(folder, name):
    shutil.rmtree(folder / str(NEW) / name)
    forge_digests(folder)
    message = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    assert message.startswith(f"checkpoint {folder / str(NEW)} cannot be read: ")


@pytest.mark.parametrize(
    "content",
    [
        [],
        5,
        {"item_handlers": 5},
        {"metrics": [1]},
        {"init_timestamp_nsecs": "x"},
        {"commit_timestamp_nsecs": 10**400},
        {"commit_timestamp_nsecs": 10**30},
        {"custom_metadata": [1]},
    ],
)
def test_checkpoint_that_orbax_cannot_list_is_refused_in_one_line(folder, content):
    (folder / str(NEW) / LIST_OF_CHECKPOINTS).write_text(json.dumps(content))
    forge_digests(folder)
    assert str(folder) in refused(folder)


# Nothing is executed.


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


@pytest.fixture
def exploit(marker):
    data = pickle.dumps(Exploit(marker))
    pickle.loads(data)
    assert marker.exists()  # it works
    marker.unlink()
    return data


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_file_is_unpickled(folder, marker, exploit):
    num_refused(folder, lambda path: path.write_bytes(exploit))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["state.pkl", "arrays/checkpoint", "arrays/state.pickle", "progress/metadata.pkl", "_METADATA"],
)
def test_additional_files_are_not_unpickled(folder, marker, exploit, name):
    (folder / str(NEW) / name).write_bytes(exploit)
    assert "not as written" in fell_back(folder)
    forge_digests(folder)
    assert_refused_or_right(folder)
    assert not marker.exists()


def test_handlers_that_a_checkpoint_names_are_not_imported(folder, monkeypatch, tmp_path, marker):
    (tmp_path / "hostile_handler.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    path = folder / str(NEW) / LIST_OF_CHECKPOINTS
    handlers = dict.fromkeys(("arrays", "progress"), "hostile_handler.Handler")
    path.write_text(json.dumps({**read_json(path), "item_handlers": handlers}))
    forge_digests(folder)
    assert_refused_or_right(folder)
    assert not marker.exists()


# Links, pipes and what else a folder can hold.


@pytest.mark.parametrize("name", [PROGRESS, LIST_OF_CHECKPOINTS, "arrays/manifest.ocdbt", DIGESTS])
def test_link_out_of_the_folder_is_not_followed(folder, tmp_path, name):
    path = folder / str(NEW) / name
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)  # the digests are still right
    assert f"{name} is no file" in fell_back(folder)


def test_link_to_a_folder_is_not_followed(folder, tmp_path):
    path = folder / str(NEW) / "arrays"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside", target_is_directory=True)
    digests = read_json(folder / str(NEW) / DIGESTS)
    digests = {name: digest for name, digest in digests.items() if not name.startswith("arrays")}
    (folder / str(NEW) / DIGESTS).write_text(json.dumps(digests))
    assert "arrays is no file" in fell_back(folder)


@pytest.mark.parametrize("name", [PROGRESS, "arrays/_METADATA", DIGESTS])
def test_pipe_is_not_waited_for(folder, name):
    path = folder / str(NEW) / name
    path.unlink()
    os.mkfifo(path)
    assert f"{name} is no file" in fell_back(folder)


@pytest.mark.parametrize("name", ["more", "arrays/more", f"arrays/{DIGESTS}", "\x1b[2J\n", "a\nb"])
def test_file_without_a_digest_is_damage(folder, name):
    (folder / str(NEW) / name).write_text("x")
    assert "is not as written" in fell_back(folder)


NO_CHECKPOINTS = ["300", "3\u0660\u0660", "-5", "9" * 200, "0300", "metadata", "300.orbax"]


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_no_checkpoint_is_passed_over(folder, name, is_folder):
    if is_folder:
        (folder / name).mkdir()
    (folder / name / "file" if is_folder else folder / name).write_text("x")
    messages = []
    restored = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE, messages.append))
    assert_same(restored, SOUND[NEW])
    assert all(message.isprintable() for message in messages)


# The digests themselves.


@pytest.mark.parametrize(
    "content",
    [
        [],
        [["progress/metadata", "0" * 64]],
        None,
        5,
        "text",
        {},
        {"../../x": "0" * 64},
        {"/etc/passwd": "0" * 64},
        {"a\nb\x1b[2J": "0" * 64, "\ud800": []},
        {"x" * 100_000: None},
        {str(number): "0" * 64 for number in range(20_000)},
    ],
    ids=range(11),
)
def test_digests_of_something_else_are_damage(folder, content):
    (folder / str(NEW) / DIGESTS).write_text(json.dumps(content))
    assert fell_back(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", NESTED, b'{"a":' * 100_000, b"9" * 5000])
def test_digests_that_are_no_json_are_damage(folder, data):
    (folder / str(NEW) / DIGESTS).write_bytes(data)
    assert "cannot be read" in fell_back(folder)


def test_right_digests_must_be_nothing_but_digests(folder):
    path = folder / str(NEW) / DIGESTS
    path.write_text(json.dumps({**read_json(path), "../../x": "0" * 64}))
    assert "../../x is not as written" in fell_back(folder)


def test_digests_may_be_a_folder(folder):
    (folder / str(NEW) / DIGESTS).unlink()
    (folder / str(NEW) / DIGESTS).mkdir()
    assert "cannot be read" in fell_back(folder)


def test_if_there_is_nothing_to_fall_back_to_that_is_said(folder):
    for num_frames in SOUND:
        (folder / str(num_frames) / DIGESTS).write_bytes(NESTED)
    message = read(folder, lambda checkpointer: checkpointer.restore(TEMPLATE))
    assert message == f"every checkpoint in {folder} is damaged."
    assert read(folder, lambda checkpointer: checkpointer.read_progress()) is None


# Saving.


def test_slip_in_the_program_is_not_taken_for_a_full_disk(folder, monkeypatch):
    def slip(folder):
        raise KeyError("slip")

    monkeypatch.setattr(checkpoints, "_write_digests", slip)
    with (
        contextlib.closing(Checkpointer(folder)) as checkpointer,
        pytest.raises(KeyError, match="slip"),
    ):
        checkpointer.save(make_checkpoint(300))
