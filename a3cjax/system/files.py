"""Files in one piece, paths as places, turns between processes, the working folder, caches."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# A disk, not a path or a setting, is why something cannot be written.
WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file so that, whatever happens, it is either as it was before or complete."""
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # what went wrong before tells more
            unfinished.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # writing to a full disk names no file
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Makes a folder, if it is not there; it goes again if the block fails before it fills it."""
    is_there = path.is_dir()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not is_there:
            with contextlib.suppress(OSError):  # something is in it
                path.rmdir()
        raise


def expand_home(path: str | os.PathLike[str]) -> str:
    """A path with `~` expanded, as text that whoever expands it once more leaves alone.

    `./~/x` is in a folder named `~`: a `Path` would forget the `./`.
    """
    expanded = os.path.expanduser(os.fspath(path))
    is_misleading = os.path.normpath(expanded).startswith("~")
    return os.path.abspath(expanded) if is_misleading else expanded


def as_place(path: str | os.PathLike[str]) -> Path:
    """Where a file that somebody names is to be written: links are followed.

    Raises:
      OSError: if it is something else than a file, or its folder is missing.
    """
    named = expand_home(path)
    place = Path(os.path.realpath(named))
    is_there = os.path.exists(named) or os.path.lexists(place)  # or a link in a loop
    if is_there and not os.path.isfile(named):  # a pipe behind /dev/stdout has no real path
        raise OSError(f"the place of a result must be a file, got {path}, which is none.")
    if not place.parent.is_dir():
        raise OSError(f"the place of a result must be in a folder that exists, got {path}.")
    return place


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time into the block; the others wait. `path` is the lock file."""
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """Leaves the working folder as it is, whatever foreign code in the block makes of it."""
    folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))  # even if it has been deleted
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)


def user_cache() -> Path:
    """The user's folder for what a3cjax keeps from run to run; it may not be there yet."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "a3cjax"
