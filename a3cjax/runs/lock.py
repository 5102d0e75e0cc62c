"""Locks: a run folder has one writer at a time; and marks that tell which are the user's own."""

import contextlib
import datetime
import errno
import fcntl
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a3cjax.errors import ConfigError
from a3cjax.system.files import user_cache

LOCK = "run.lock"
KEY = "run-folders.key"
"""In the user's cache: the secret behind the mark of his own run folders."""
MAX_BYTES = 4096  # of a lock file that is read; ours has 200

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
_held: set[int] = set()


@contextlib.contextmanager
def claimed(run_dir: Path, new_env: str | None = None) -> Iterator[None]:
    """Keep all others from writing into a run folder, until the block or the process ends.

    The kernel holds the locks, on the file and on the folder (the file may be removed), and drops
    them when the process ends, however it ends. On a filesystem without locks, what the last
    writer said of itself in the file decides. The file stays: it holds the mark that `is_own`
    checks, which is set when a run of `new_env` begins.

    Raises:
      ConfigError: if the folder cannot be written, or is claimed; names the holder's process
        and host.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as stack:
            for path, how in ((run_dir, os.O_RDONLY | os.O_CLOEXEC), (run_dir / LOCK, flags)):
                file = os.open(path, how, 0o666)
                _held.add(file)
                stack.callback(_release, file)
                _take(file, run_dir)
            _write_record(file, new_env)
            releasing = stack.pop_all()
    except OSError as error:
        raise ConfigError(f"run folder must be writable, got {run_dir}: {error}") from error
    with releasing:
        yield


def is_own(run_dir: Path, env: str) -> bool:
    """Whether this user began this run of this environment, according to its mark."""
    mark = _make_mark(_read_key(), env)
    return mark is not None and _read_path(run_dir / LOCK).get("mark") == mark


def _take(file: int, run_dir: Path) -> None:
    """Lock the file or the folder itself."""
    is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_claimed = False
    except BlockingIOError:
        is_claimed = True
    except OSError as error:
        if not is_folder and error.errno not in _NO_LOCKS:
            raise
        is_claimed = not is_folder and _is_at_work(_read(file))
    if is_claimed:
        holder = _read_path(run_dir / LOCK)
        host, pid = (holder.get(name) for name in ("host", "pid"))
        is_known = type(pid) is int and type(host) is str and host.isprintable()
        told = f"process {pid} on {host}" if is_known else "another process"
        raise ConfigError(f"run folder must have one writer, got {run_dir}: it is {told}.")


def _write_record(file: int, new_env: str | None) -> None:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    mark = _read(file).get("mark")
    if new_env is not None:
        mark = _make_mark(_read_key() or _make_key(), new_env)
    content = json.dumps({**_describe_process(), "time": now, "mark": mark}).encode() + b"\n"
    os.pwrite(file, content, 0)
    os.ftruncate(file, len(content))


def _release(file: int) -> None:
    if file in _held:  # or this is a process forked from the one that claimed
        _held.remove(file)
        # Closing is not enough: a child that was forked without Python may hold it, too.
        with contextlib.suppress(OSError):  # foreign code may have closed all that is open
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def _let_go() -> None:
    """Close what a forked child has inherited, or it would hold the locks of a dead parent."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _describe_process() -> dict[str, Any]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = None
    return {"host": os.uname().nodename, "pid": os.getpid(), "boot": boot}


def _is_at_work(holder: dict[str, Any]) -> bool:
    """Whether another living process of this machine wrote this, as far as it can be told."""
    own, pid = _describe_process(), holder.get("pid")
    is_here = all(holder.get(name) == own[name] for name in ("host", "boot"))
    if not is_here or type(pid) is not int or pid < 1 or pid == own["pid"]:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _read(file: int) -> dict[str, Any]:
    """What a lock file says; nothing if it is damaged."""
    try:
        content = json.loads(os.pread(file, MAX_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_path(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return _read(file)
        finally:
            os.close(file)
    return {}


def _make_mark(key: bytes | None, env: str) -> str | None:
    return hmac.digest(key, env.encode(), "sha256").hex() if key else None


def _read_key() -> bytes | None:
    try:
        return (user_cache() / KEY).read_bytes()
    except OSError:
        return None


def _make_key() -> bytes | None:
    """Make the user's key, readable by nobody else; None where it cannot be kept."""
    folder = user_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            # Written whole or not at all; if two make it at once, the first one's is kept.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, folder / KEY)
    except OSError:
        return None
    return _read_key()
