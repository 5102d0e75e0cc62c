"""What a folder keeps of its environment: read again, verified, and believed in nothing."""

import json
import os

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from a3cjax.config.reading import resume_config
from a3cjax.config.settings import Config
from a3cjax.envs.specs import make_spec
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.runs import environment_files
from a3cjax.runs.checkpoints import Progress
from a3cjax.runs.environment_files import (
    ENVIRONMENT_FILE,
    check_environment,
    read_environment,
    write_environment,
)
from a3cjax.runs.folder import NEWEST
from a3cjax.training.saver import open_run_dir
from tests.cases import for_each

SPEC = make_spec(
    Dict({"b": Box(-1, 1, (2,)), "a": MultiBinary(3)}),
    Discrete(4, start=1),
    frames_per_step=4,
    is_atari=True,
    max_episode_steps=9,
    warnings=["it rains"],
)


@pytest.mark.parametrize(
    "spec", [SPEC, make_spec(Box(0, 255, (8, 8, 3), np.uint8), Box(-2, 2, (3,)))], ids=["", "image"]
)
def test_what_was_written_is_read_again(tmp_path, spec):
    write_environment(tmp_path, spec)
    assert read_environment(tmp_path) == spec._replace(warnings=())
    check_environment(tmp_path, spec)


def test_folder_without_the_file_tells_nothing(tmp_path):
    assert read_environment(tmp_path) is None
    check_environment(tmp_path, SPEC)
    write_environment(tmp_path, make_spec(Dict({b"x": Discrete(2)}), Discrete(2)))
    assert list(tmp_path.iterdir()) == []


def test_fields_that_are_not_there_have_their_defaults(tmp_path):
    change(tmp_path, lambda content: content.pop("frames_per_step"))
    spec = read_environment(tmp_path)
    assert spec is not None
    assert spec.frames_per_step == 1


def change(folder, edit):
    """Writes the file, changed in this way."""
    write_environment(folder, SPEC)
    path = folder / ENVIRONMENT_FILE
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


FAULTS = {
    "format": (None, "a3cjax-environment-2", 1),
    "observation_space": (None, [], {"type": "Box"}),
    "action_space": (
        {"type": "Text"},
        {"type": "Discrete", "n": 10**9, "start": 0, "dtype": "int64"},
    ),
    "frames_per_step": (0, -1, 1.0, True, None, "4", 2**80),
    "is_atari": (1, None, "yes"),
    "max_episode_steps": (0, 2.5, False),
    "a_field_of_later": (1,),
}


@for_each(("name", "value"), [(name, value) for name, values in FAULTS.items() for value in values])
def test_field_that_is_not_as_it_is_written_is_refused(tmp_path, name, value):
    change(tmp_path, lambda content: content.update({name: value}))
    assert_refused(tmp_path)


def assert_refused(folder):
    message = rf"^{folder}/{ENVIRONMENT_FILE} cannot be read: "
    with pytest.raises(CheckpointError, match=message) as caught:
        read_environment(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 1000


@for_each(
    "text",
    [
        *("", "{", "[]", "{}", "null", "\xff", "[" * 10**5, '{"format": 1' + "0" * 5000 + "}"),
        '{"format": "a3cjax-environment-1", "frames_per_step": NaN}',
        '{"format": "a3cjax-environment-1"}',
        '{"format": "' + "x\\n\\u001b" * 10**4 + '"}',
    ],
)
def test_damaged_file_is_refused_in_a_line(tmp_path, text):
    (tmp_path / ENVIRONMENT_FILE).write_text(text, encoding="latin-1")
    assert_refused(tmp_path)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / ENVIRONMENT_FILE
    os.mkfifo(path)
    assert_refused(tmp_path)
    path.unlink()
    path.symlink_to(path)
    assert_refused(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10**12)  # which takes no place on the disk
    assert_refused(tmp_path)
    path.unlink()
    monkeypatch.setattr(environment_files, "MAX_BYTES", 100)
    write_environment(tmp_path, SPEC)
    assert not path.exists()


# Resuming.


@pytest.fixture
def run(tmp_path):
    """The settings of a run to go on with, whose folder knows its environment."""
    config = Config(run_dir=str(tmp_path / "run"))
    with open_run_dir(config, Progress(), SPEC) as run_dir:
        assert read_environment(run_dir) == SPEC._replace(warnings=())
    (tmp_path / "run" / NEWEST).mkdir()
    return resume_config(str(run_dir), {})


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}


OTHERS = [
    SPEC._replace(action_space=Discrete(4, start=2)),
    SPEC._replace(observation_space=Dict({"b": Box(-1, 2, (2,)), "a": MultiBinary(3)})),
]


@pytest.mark.parametrize("other", OTHERS, ids=["action_space", "observation_space"])
def test_run_goes_on_in_its_own_environment_only(run, tmp_path, request, other):
    before = contents(tmp_path / "run")
    name = request.node.callspec.id
    with (
        pytest.raises(ConfigError, match=f"^env must have the {name} with which the run in .*/run"),
        open_run_dir(run, Progress(), other),
    ):
        pass
    assert contents(tmp_path / "run") == before


def test_run_of_before_has_the_file_once_it_goes_on(run, tmp_path):
    (tmp_path / "run" / ENVIRONMENT_FILE).unlink()
    with open_run_dir(run, Progress(), SPEC) as run_dir:
        assert read_environment(run_dir) == SPEC._replace(warnings=())
