"""A small process that clears away a private Ray once its run is gone, however that ended.

Ray's processes end with the run, except for agents that stay for a minute or two after a SIGKILL.
They are recognised by the files that they hold open in the run's own folder and by the program
that they run, since other processes may read there, too. Run as a script, without the package:
python guard.py <folder> <Ray's package>, with a pipe from the run as its standard input.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# How long to wait for processes that end by themselves, then to search for those that do not.
GRACE_SECONDS, SEARCH_SECONDS = 5.0, 10.0


def start_guard(folder: Path, package: Path) -> subprocess.Popen[bytes]:
    """Starts a guard, which goes to work when its standard input is closed."""
    command = [sys.executable, "-I", str(Path(__file__)), str(folder), str(package)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def holders(folder: str, package: str) -> set[int]:
    """Ids of Ray's processes with an open file in `folder`; Ray's programs lie in `package`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = [os.readlink(link) for link in (process / "fd").iterdir()]
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended, or is somebody else's
            continue
        is_of_ray = command.startswith("ray::") or f"{package}/" in command
        if is_of_ray and any(name.startswith(f"{folder}/") for name in names):
            found.add(int(process.name))
    return found


def main(folder: str, package: str) -> None:
    """Waits for the end of the run, then kills what is left of its Ray and removes its folder."""
    sys.stdin.read()
    deadline = time.monotonic() + GRACE_SECONDS
    while holders(folder, package) and time.monotonic() < deadline:
        time.sleep(0.2)
    deadline = time.monotonic() + SEARCH_SECONDS
    while (left := holders(folder, package)) and time.monotonic() < deadline:
        for number in left:
            try:
                os.kill(number, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
