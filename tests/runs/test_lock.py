"""The lock of a run folder: one writer, who is named; gone with its process, whatever ends it."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from a3cjax.errors import ConfigError
from a3cjax.runs import lock
from a3cjax.runs.lock import KEY, LOCK, claimed, is_own
from a3cjax.system.files import user_cache
from tests.cases import for_each
from tests.documents import ROOT
from tests.fakes import PATIENCE_SECONDS

ENV = "gymnasium:own.module:X-v0"
HOLDER = """
import os, sys
from pathlib import Path
from a3cjax.runs.lock import claimed

run_dir, child = sys.argv[1:]
with claimed(Path(run_dir)):
    number = None if child == "none" else os.fork()
    says_so = number == 0 if child == "stays" else number != 0  # it has let the locks go by then
    if child == "leaves" and number != 0:
        os.waitpid(number, 0)
    if says_so:
        print("claimed", flush=True)
    if says_so or number != 0:
        sys.stdin.read()
"""


@contextlib.contextmanager
def holder(run_dir, child="none"):
    """Another process that claims the folder; it and its child end with the block."""
    command = [sys.executable, "-c", HOLDER, run_dir, child]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=variables, text=True, **pipes) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


def refused(run_dir):
    with pytest.raises(ConfigError) as caught, claimed(run_dir):
        pass
    message = str(caught.value)
    assert str(run_dir) in message
    assert message.isprintable()
    return message


def content(run_dir):
    return json.loads((run_dir / LOCK).read_text())


def change(run_dir, **changes):
    """Writes what a process says of itself, changed, as one that has ended left it."""
    with claimed(run_dir):
        pass
    (run_dir / LOCK).write_text(json.dumps(content(run_dir) | changes))


@pytest.fixture
def without_locks(monkeypatch):
    """A filesystem that knows none."""

    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def other():
    """A living process, which is another one's."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def test_second_writer_is_refused_and_told_of_the_first(tmp_path):
    with holder(tmp_path) as process:
        told = f"it is process {process.pid} on {os.uname().nodename}."
        assert refused(tmp_path).endswith(told)
        assert refused(tmp_path).endswith(told)  # nor did the refusal change anything
    with claimed(tmp_path):
        assert content(tmp_path)["pid"] == os.getpid()


def test_second_writer_of_the_same_process_is_refused(tmp_path):
    with claimed(tmp_path):
        refusals = []
        thread = threading.Thread(target=lambda: refusals.append(refused(tmp_path)))
        thread.start()
        thread.join()
        assert f"process {os.getpid()} on" in refusals[0]
        assert f"process {os.getpid()} on" in refused(tmp_path)
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize("child", ["none", "stays"])
def test_lock_of_a_killed_process_is_taken_over(tmp_path, child):
    with holder(tmp_path, child) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)
        with claimed(tmp_path):  # while the child lives
            assert content(tmp_path)["pid"] == os.getpid()


def test_lock_ends_with_its_block_though_a_child_lives(tmp_path):
    with claimed(tmp_path):
        held = [os.dup(file) for file in lock._held]  # as one forked without Python holds them
    with claimed(tmp_path):
        pass
    for file in held:
        os.close(file)
    assert not lock._held


def test_lock_ends_with_a_run_that_fails(tmp_path):
    with pytest.raises(OSError, match="the run failed"), claimed(tmp_path):
        raise OSError("the run failed")
    with claimed(tmp_path):
        pass


def test_forked_child_that_leaves_the_block_frees_nothing(tmp_path):
    with holder(tmp_path, "leaves"):
        refused(tmp_path)


@for_each(
    "text",
    ["", "{", "[1]", "null", "[" * 4000, '{"host": "\x1b[2J\\n", "pid": 1}', '{"pid": true}', "\0"],
)
def test_damaged_lock_file_is_taken_over_and_told_of_in_a_line(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    assert not is_own(tmp_path, ENV)
    with (tmp_path / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refused(tmp_path).endswith("it is another process.")
    with claimed(tmp_path):
        assert content(tmp_path)["pid"] == os.getpid()


def test_where_files_cannot_be_locked_a_living_writer_is_refused(tmp_path, without_locks, other):
    change(tmp_path, pid=other.pid)
    assert f"process {other.pid} on {os.uname().nodename}" in refused(tmp_path)
    assert content(tmp_path)["pid"] == other.pid


@for_each(
    "changes",
    [
        *({"boot": "another"}, {"host": "another"}, {"boot": None}, {"host": 5}),
        *({"pid": pid} for pid in (0, -1, None, True, "1", 1.0, 10**30, 2**22 + 1)),
        {"pid": os.getpid()},
    ],
)
def test_where_files_cannot_be_locked_all_others_are_taken_over(
    tmp_path, without_locks, other, changes
):
    change(tmp_path, **{"pid": other.pid, **changes})
    with claimed(tmp_path):
        assert content(tmp_path)["pid"] == os.getpid()


@for_each("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ESTALE])
@for_each("call", ["open", "pwrite"])
def test_folder_that_cannot_be_written_is_refused_in_a_line(tmp_path, monkeypatch, number, call):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    assert refused(tmp_path).startswith("run folder must be writable, got ")
    monkeypatch.undo()
    with claimed(tmp_path):  # the lock was not kept
        pass


@for_each("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_file_is_no_lock(tmp_path, make):
    make(tmp_path / LOCK)
    assert refused(tmp_path).startswith("run folder must be writable, got ")
    assert not is_own(tmp_path, ENV)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


# Whose folder it is.


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where another user keeps his cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_mark_is_of_one_environment_and_of_a_run_that_begins(run_dir, home, tmp_path):
    with claimed(run_dir):  # as `resume=` does
        assert not is_own(run_dir, ENV)
    with claimed(run_dir, ENV):
        pass
    with claimed(run_dir):
        assert is_own(run_dir, ENV)
    assert not is_own(run_dir, "gymnasium:another.module:X-v0")


def test_folder_is_of_the_user_who_began_its_run(run_dir, home, monkeypatch):
    assert not is_own(run_dir, ENV)
    assert not home.exists()  # nor does the question make a key
    with claimed(run_dir, ENV):
        assert is_own(run_dir, ENV)
    assert is_own(run_dir, ENV)
    assert (user_cache() / KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in user_cache().iterdir()] == [KEY]
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "another"))
    assert not is_own(run_dir, ENV)
    with claimed(run_dir, ENV):
        assert is_own(run_dir, ENV)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert not is_own(run_dir, ENV)


def test_key_stays_the_same(run_dir, home):
    for _ in range(2):
        with claimed(run_dir, ENV):
            key = (user_cache() / KEY).read_bytes()
    assert len(key) == 32
    assert (user_cache() / KEY).read_bytes() == key
    assert lock._make_key() == key  # of two that make it at once, the first one's


@pytest.mark.parametrize("spoil", ["file", "empty key"])
def test_without_a_key_no_folder_is_the_users_own(run_dir, home, spoil):
    if spoil == "file":
        home.touch()
    else:
        user_cache().mkdir(parents=True)
        (user_cache() / KEY).touch()
    with claimed(run_dir, ENV):
        assert content(run_dir)["mark"] is None
    assert not is_own(run_dir, ENV)


@for_each("mark", [None, "", "0" * 64, "\ud800", 5, True, []])
def test_mark_cannot_be_guessed(run_dir, mark):
    change(run_dir, mark=mark)
    assert not is_own(run_dir, ENV)


def test_lock_holds_though_its_file_is_removed(run_dir):
    with claimed(run_dir):
        (run_dir / LOCK).unlink()
        with pytest.raises(ConfigError, match="must have one writer"), claimed(run_dir):
            pass
    with claimed(run_dir):
        pass
