"""Checkpoints that someone made up: their digests are right, what they hold is not.

The law: reading one is refused in one clear line, or falls back to the checkpoint before.
Nothing else is raised, nothing is executed, and nothing in the folder is changed.
"""

import json
import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.errors import CheckpointError
from a3cjax.runs.checkpoints import FORMAT, Checkpoint, Checkpointer, Progress, seal
from a3cjax.runs.parameter_files import pack
from a3cjax.types import LearnerState, ObservationStatistics
from tests.cases import for_each

OLD, NEW = 100, 200
NESTED = "[" * 100_000


def make_checkpoint(num_frames):
    """A small one; its numbers are the number of frames."""
    number = jnp.float32(num_frames)
    state = LearnerState(
        {"kernel": jnp.full((3, 5), number), "bias": jnp.full(5, number)},
        {"count": jnp.int32(num_frames), "nu": number},
        {"bias": number},
    )
    keys = ((1, 2**32 - 1), (3, 4))
    progress = Progress(num_frames, num_frames // 20, 1.5, 2, keys, -0.5, 7, ({"a": [1]},))
    statistics = ObservationStatistics(jnp.full((2, 2), number), number)
    return Checkpoint(state, statistics, progress)


SOUND = make_checkpoint(NEW)
TREE = {**SOUND.state._asdict(), "statistics": SOUND.statistics}
CONTENT = json.loads(json.dumps(SOUND.progress._asdict()))


@pytest.fixture
def folder(tmp_path):
    """With two sound checkpoints, the newer one to be written over."""
    for num_frames in (OLD, NEW):
        Checkpointer(tmp_path / "checkpoints").save(make_checkpoint(num_frames))
    return tmp_path / "checkpoints"


def newest(folder):
    return folder / f"{NEW}.safetensors"


def forge(folder, tree=TREE, **metadata):
    """Makes this the newest checkpoint, with a digest that fits."""
    default = {"format": FORMAT, "progress": json.dumps(CONTENT), "sha256": "0" * 64}
    newest(folder).write_bytes(seal(pack(tree, default | metadata)))


def forge_progress(folder, content):
    forge(folder, progress=content if isinstance(content, str) else json.dumps(content))


def look(folder):
    """All that can be seen of a folder from outside."""
    picture = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        picture[path] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return picture


def read(folder, method):
    """What a method of Checkpointer answers, or the line with which it refuses."""
    before = look(folder)
    try:
        answer = method(Checkpointer(folder))
    except CheckpointError as error:
        answer = str(error)
        assert answer.isprintable()  # so it is one line
        assert 0 < len(answer) <= 1000
    assert look(folder) == before
    return answer


def restore(checkpointer):
    """As the program does, but damaged ones are not reported."""
    return checkpointer.restore(make_checkpoint(0), lambda message: None)


def refused_restore(folder):
    """The line with which the newest checkpoint is refused, without where it lies."""
    message = read(folder, restore)
    assert isinstance(message, str)
    start = f"checkpoint {newest(folder)} cannot be read: "
    assert message.startswith(start)
    return message.removeprefix(start)


def refused(folder):
    """As `refused_restore`, where reading the progress is refused, too."""
    message = refused_restore(folder)
    assert read(folder, Checkpointer.read_progress).endswith(message)
    return message


def test_what_is_forged_without_a_fault_is_read(folder):
    # Otherwise everything below could be refused for another reason.
    forge(folder)
    restored = read(folder, restore)
    assert restored.progress == SOUND.progress
    jax.tree.map(np.testing.assert_array_equal, restored[:2], SOUND[:2])


# The progress.


@for_each(
    "content",
    ["", "{", "\x00", NESTED, '{"num_frames":' * 100_000, '{"num_frames": ' + "9" * 5000 + "}"],
)
def test_progress_that_is_no_json_is_refused(folder, content):
    forge_progress(folder, content)
    assert refused(folder)


@for_each(
    "content",
    [
        *([], [1], None, "text", 5, {}, {"a": 1}, list(CONTENT), list(CONTENT.items())),
        *({key: value for key, value in CONTENT.items() if key != name} for name in CONTENT),
        *({**CONTENT, name: 1} for name in ("more", "", "a\nb", "\ud800", "_fields", "__class__")),
    ],
)
def test_progress_must_hold_all_its_parts_and_nothing_else(folder, content):
    forge_progress(folder, json.dumps(content))
    assert refused(folder).startswith("progress must be num_frames, ")


@for_each("version", ["", "3", "a3cjax-1", "a3cjax-checkpoint-3", "a\n\x1b" * 5000])
def test_checkpoint_of_another_format_is_refused(folder, version):
    forge(folder, format=version)
    assert refused(folder).startswith(f"format must be {FORMAT}, got ")


NO_COUNTS = [
    "5",
    -1,
    -(10**3999),
    0.5,
    200.0,
    float("nan"),
    float("inf"),
    10**30,
    None,
    True,
    [200],
    {},
]
NO_SECONDS = ["5", -1, 5, -0.5, float("nan"), float("inf"), 10**30, 10**400, None, True, [1.5], {}]
NO_KEYS = [
    *("5", 5, None, True, {}, {"a": 1}, [5], ["12"], [None], [[]], [{}]),
    *(
        [[1]],
        [[1, 2, 3]],
        [[1] * 5],
        [[1, 2]] * 100_000 + [[1]],
        [["1", "2"]],
        [[1.5, 2]],
        [[1.0, 2.0]],
        [[True, False]],
    ),
    *([[-1, 2]], [[2**32, 1]], [[10**30, 1]], [[[1, 2]]], [[1, 2], [1]], [[[], []]]),
]
WRONG = {
    **dict.fromkeys(("num_frames", "num_updates", "num_resumes", "num_seeds"), NO_COUNTS),
    "wall_seconds": NO_SECONDS,
    "actor_keys": NO_KEYS,
    "best_score": ["5", 5, 10**400, True, [1.5], {}, ""],
    "standings": ["5", 5, None, True, {}, {"a": 1}, [5], [[]], ["a"], [{}, None]],
}


@for_each("name", Progress._fields)
def test_progress_of_other_types_is_refused(folder, name):
    for value in WRONG[name]:
        forge_progress(folder, {**CONTENT, name: value})
        assert refused(folder).startswith(f"{name} must be "), value


@for_each("num_frames", [0, OLD, NEW - 1, NEW + 1])
def test_checkpoint_is_of_the_frame_that_its_name_says(folder, num_frames):
    forge_progress(folder, {**CONTENT, "num_frames": num_frames})
    assert refused(folder) == f"num_frames must be {NEW}, got {num_frames}."


# Arrays.

HOSTILE_TREES = {
    "other shape": ({"bias": jnp.ones((5, 1))}, "params/bias must be F32[5], got F32[5, 1]."),
    "scalar": ({"bias": jnp.ones(())}, "params/bias must be F32[5], got F32[]."),
    "more": ({"more": jnp.ones(5)}, "params/more must be absent, got F32[5]."),
    "nested": ({"bias": {"a": jnp.ones(5)}}, "params/bias must be F32[5], got absent."),
    "int": ({"bias": jnp.ones(5, jnp.int32)}, "params/bias must be F32[5], got I32[5]."),
    "half": ({"bias": jnp.ones(5, jnp.float16)}, "params/bias must be F32[5], got F16[5]."),
    "double": ({"bias": np.ones(5)}, "params/bias must be F32[5], got F64[5]."),
    "NaN": ({"bias": jnp.full(5, jnp.nan)}, "params/bias must be finite numbers, got others."),
    "infinity": ({"bias": jnp.ones(5).at[3].set(-jnp.inf)}, "params/bias must be finite numbers"),
}


@for_each("name", HOSTILE_TREES)
def test_arrays_of_another_agent_are_refused_by_name(folder, name):
    params, message = HOSTILE_TREES[name]
    forge(folder, {**TREE, "params": TREE["params"] | params})
    assert refused_restore(folder).startswith(message)


@for_each(
    ("part", "value", "message"),
    [
        ("statistics", None, "statistics/mean must be F32[2, 2], got absent."),
        ("target_params", None, "target_params/bias must be F32[], got absent."),
        ("target_params", {"bias": np.float32("nan")}, "target_params/bias must be finite"),
        ("statistics", SOUND.statistics._replace(scale=np.float32("inf")), "statistics/scale must"),
        ("opt_state", {"count": jnp.int32(1)}, "opt_state/nu must be F32[], got absent."),
        ("opt_state", {"count": jnp.int32(1), "nu": np.float32("nan")}, "opt_state/nu must be fin"),
        ("opt_state", {"count": jnp.int32(1), "nu": np.float32("inf")}, "opt_state/nu must be fin"),
        ("opt_state", {"count": jnp.int32(1), "nu": np.float32(-1)}, "opt_state/nu must be >= 0"),
        ("opt_state", {"count": jnp.int32(-1), "nu": np.float32(1)}, "opt_state/count must be >="),
    ],
)
def test_every_part_of_a_checkpoint_is_checked(folder, part, value, message):
    forge(folder, {**TREE, part: value})
    assert refused_restore(folder).startswith(message)


@for_each("name", ["a\nb\x1b[2J", "x" * 100_000, "", "../../etc/passwd"])
def test_names_of_arrays_may_be_anything(folder, name):
    forge(folder, {**TREE, name: jnp.ones(1)})
    assert refused_restore(folder)


# Files.


def headed(header, data=b""):
    """A file of this header and data, sealed by a digest within."""
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + data


DIGEST = f'"sha256":"{"0" * 64}"'
FILES = {
    "only a digest": f"{{{DIGEST}}}".encode(),
    "long header": b"\xff" * 8 + DIGEST.encode(),
    "list": headed(f"[{{{DIGEST}}}]"),
    "nested": headed(f'{{"__metadata__":{{{DIGEST}}},"a":{NESTED}}}'),
    "no metadata": headed(f'{{"__metadata__":null,"a":{{{DIGEST}}}}}'),
    "metadata that are no text": headed(f'{{"__metadata__":{{{DIGEST},"format":5}}}}'),
    "no UTF-8": headed(f'{{"__metadata__":{{{DIGEST}}}}}') + b"\xff",
    "data outside": headed(
        f'{{"__metadata__":{{{DIGEST}}},"a":{{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}}}'
    ),
    "huge shape": headed(
        f'{{"__metadata__":{{{DIGEST},"format":"{FORMAT}"}},'
        f'"a":{{"dtype":"F32","shape":[{2**64 - 1},0],"data_offsets":[0,0]}}}}'
    ),
}


@for_each("name", FILES)
def test_sealed_file_of_something_else_is_refused(folder, name):
    newest(folder).write_bytes(seal(FILES[name]))
    assert refused(folder)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(folder, make):
    newest(folder).unlink()
    make(newest(folder))
    assert refused(folder) == "it is no file"


@pytest.mark.parametrize("target", ["nowhere", f"{NEW}.safetensors"])
def test_link_that_leads_nowhere_is_refused(folder, target):
    newest(folder).unlink()
    newest(folder).symlink_to(target)
    assert "[Errno " in refused(folder)


def test_other_names_are_no_checkpoints(folder):
    names = [
        "0300",
        "+300",
        "-300",
        "3_00",
        "300 ",
        "1e9",
        "\u0663",
        "9" * 200,
        "3.safetensors",
        "3\n",
    ]
    paths = [folder / f"{name}.safetensors" for name in names]
    for path in paths:
        path.write_bytes(b"anything")
    assert read(folder, Checkpointer.read_progress) == SOUND.progress
    Checkpointer(folder).discard(Checkpointer(folder).find_stale(NEW))
    Checkpointer(folder, max_to_keep=1).save(make_checkpoint(NEW + 1))
    assert all(path.exists() for path in paths)


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


def test_nothing_is_unpickled(folder, tmp_path):
    marker = tmp_path / "executed"
    data = pickle.dumps(Exploit(marker))
    pickle.loads(data)
    assert marker.exists()  # it works
    marker.unlink()
    newest(folder).write_bytes(data)
    assert read(folder, Checkpointer.read_progress) == make_checkpoint(OLD).progress
    newest(folder).write_bytes(seal(data + DIGEST.encode()))
    assert refused(folder)
    assert not marker.exists()
