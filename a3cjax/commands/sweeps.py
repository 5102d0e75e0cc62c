"""Sweeps: many runs of the program, each in a folder of its own, one after another or at once.

A sweep that was stopped is started again by the same command: finished runs are left alone,
unfinished ones are resumed, the others begun.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from a3cjax.config.declaring import read_settings
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.tables import CONFIG_FILE, read_summary
from a3cjax.system.files import replace_file
from a3cjax.system.machine import available_cores, cores_of_thread

RECORD = "sweep.json"
"""In the folder of a sweep: the settings with which each of its runs began."""
LOCK = "sweep.lock"
"""In the folder of a sweep: held by it and its runs, to the last one."""


class Point(NamedTuple):
    """One run of a sweep: its settings as on the command line, and its folder."""

    settings: Mapping[str, str]
    run_dir: Path


def expand(values: Mapping[str, Sequence[str]], sweep_dir: Path) -> list[Point]:
    """Every combination of the settings' values, in the order in which they are given.

    Args:
      values: of each setting; one where it is the same in all runs.
      sweep_dir: gets a folder for each run, named by what differs: `Pong-seed1`.

    Raises:
      ConfigError: if a setting is not the sweep's to choose, or the same run is asked for twice.
    """
    for name in ("run_dir", "resume"):
        if name in values:
            raise ConfigError(f"{name} must be left to the sweep, got {','.join(values[name])}.")
    points: dict[str, Point] = {}
    for chosen in itertools.product(*values.values()):
        settings = dict(zip(values, chosen, strict=True))
        parts = [
            text if name == "env" else f"{name}{text}"
            for name, text in settings.items()
            if len(values[name]) > 1 or name in ("env", "seed")
        ]
        name = "-".join(parts).replace(":", "-").replace("/", "-") or "run"
        if name in points:
            raise ConfigError(f"A sweep must have each run once, got {name} twice.")
        points[name] = Point(settings, sweep_dir / name)
    return list(points.values())


def record(points: Sequence[Point], sweep_dir: Path) -> None:
    """Makes the sweep's folder and notes the settings of its runs.

    Raises:
      ConfigError: if one got a checkpoint with other settings; only `total_frames` may change.
    """
    path = sweep_dir / RECORD
    began = json.loads(path.read_text()) if path.is_file() else {}
    for point in points:
        name = point.run_dir.name
        settings = began.get(name) if has_checkpoint(point.run_dir) else None
        old, new = ({**s, "total_frames": ""} for s in (settings or point.settings, point.settings))
        for setting in {**old, **new}:
            if old.get(setting) != new.get(setting):
                raise ConfigError(
                    f"{setting} must be {old.get(setting, 'left alone')}, as when {name} began, "
                    f"got {new.get(setting, 'nothing')}."
                )
        began[name] = dict(point.settings)
    replace_file(path, json.dumps(began, indent=2) + "\n")


@contextlib.contextmanager
def occupied(sweep_dir: Path) -> Iterator[int]:
    """Makes the folder and keeps other sweeps out of it.

    Two of them would begin the same runs. A run that outlives its sweep, because that was
    killed, keeps the folder occupied if it was handed the file descriptor that this yields.

    Raises:
      ConfigError: if the folder is occupied, or is none and cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            sweep_dir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((sweep_dir / LOCK).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"sweep_dir must not be that of a sweep, or a run of one, that still goes on, "
                f"got {sweep_dir}."
            ) from None
        except OSError as error:
            raise ConfigError(f"sweep_dir must be writable, got {sweep_dir}: {error}") from error
        yield file.fileno()


def arguments_of(point: Point) -> list[str] | None:
    """What the program is to be called with for a run to go on; None if it is finished."""
    run_dir, given = point.run_dir, {n: t for n, t in point.settings.items() if n == "total_frames"}
    total_frames = read_settings(Config, given).get("total_frames")
    if has_checkpoint(run_dir):
        summary = read_summary(run_dir)
        is_over = summary.get("signal") is None and "num_frames" in summary
        if is_over and (total_frames is None or summary["num_frames"] >= total_frames):
            return None
        longer = [] if total_frames is None else [f"total_frames={total_frames}"]
        return [f"resume={run_dir}", *longer]
    if (run_dir / CONFIG_FILE).is_file():
        # It ended before its first checkpoint: there is nothing in it to go on with.
        shutil.rmtree(run_dir)
    return [*(f"{name}={text}" for name, text in point.settings.items()), f"run_dir={run_dir}"]


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run can be gone on with."""
    folder = run_dir / "checkpoints"
    return folder.is_dir() and any(path.stem.isdecimal() for path in folder.iterdir())


def share_cores(jobs: int) -> list[set[int]]:
    """The cores of each of several jobs at once: as many for each, the rest to the first ones.

    Empty sets, for no binding, where the system binds no threads.

    Raises:
      ConfigError: if there are more jobs than cores.
    """
    num_cores = available_cores()
    if not 1 <= jobs <= num_cores:
        raise ConfigError(f"jobs must be between 1 and {num_cores}, a core for each, got {jobs}.")
    cores = sorted(cores_of_thread())[:num_cores]  # a container may have a share of more
    return [set(cores[index::jobs]) for index in range(jobs)]


class Sweep:
    """Runs the points of a sweep as processes, `jobs` at once.

    `failed` are the folders of the runs that ended with an error.
    """

    def __init__(
        self,
        program: Sequence[str],
        points: Sequence[Point],
        jobs: int,
        tell: Callable[[str], None],
    ):
        """`program` is the command that takes settings; `tell` gets a line for each event.

        Raises:
          ConfigError: if there are more jobs than cores.
        """
        self._program, self._points, self._tell = list(program), points, tell
        self._cores = share_cores(jobs)
        self._waiting = enumerate(points, start=1)
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._kept_open: tuple[int, ...] = ()
        self._stop_signal: int | None = None
        self.failed: list[Path] = []

    def run(self, lock: int | None = None) -> int | None:
        """Runs until every run has ended or a signal comes.

        SIGINT and SIGTERM are passed on: the runs save and end, and no other one begins. So do
        they when the terminal is closed.

        Args:
          lock: file descriptor to be kept open by the runs, too; see `occupied`.

        Returns:
          The signal that ended the sweep, None if none did.
        """
        self._kept_open = () if lock is None else (lock,)
        with self._passing_signals_on(), ThreadPoolExecutor(len(self._cores)) as pool:
            list(pool.map(self._work, self._cores))
        return self._stop_signal

    def _work(self, cores: set[int]) -> None:
        if cores and len(self._cores) > 1:
            os.sched_setaffinity(0, cores)  # of this thread, and of the processes it starts
        for number, point in self._waiting:
            if self._stop_signal is not None:
                return
            title = f"{number}/{len(self._points)} {point.run_dir}"
            try:
                self._run_point(title, point)
            except Exception as error:  # of this run alone: the others are run all the same
                self.failed.append(point.run_dir)
                self._tell(f"{title}: failed, {error}")

    def _run_point(self, title: str, point: Point) -> None:
        arguments = arguments_of(point)
        if arguments is None:
            self._tell(f"{title}: finished before")
            return
        self._tell(f"{title}: {' '.join(arguments)}")
        with contextlib.ExitStack() as stack:
            output = None  # a single run at a time shows itself
            if len(self._cores) > 1:
                log = point.run_dir.with_name(f"{point.run_dir.name}.log")
                output = stack.enter_context(log.open("a"))
            with self._lock:
                if self._stop_signal is not None:
                    return
                # In a group of its own, or Ctrl-C would reach it twice, which ends it at once.
                process = subprocess.Popen(
                    [*self._program, *arguments],
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=self._kept_open,
                )
                self._processes.add(process)
                if self._stop_signal is not None:  # it came before there was a process to tell
                    process.terminate()  # Python that is still starting fails at an interrupt
            code = process.wait()
        with self._lock:
            self._processes.discard(process)
        # A signal ends a run by -number while it begins, later by 128 + number.
        stop_codes = [] if self._stop_signal is None else [signal.SIGINT, signal.SIGTERM]
        if code not in {0, *(-n for n in stop_codes), *(128 + n for n in stop_codes)}:
            raise RuntimeError(f"exit code {code}")

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.getsignal(number) for number in numbers}
        if previous[signal.SIGHUP] == signal.SIG_IGN:  # by nohup
            del previous[signal.SIGHUP]

        def pass_on(number: int, _frame) -> None:
            self._stop_signal = number
            for process in tuple(self._processes):
                with contextlib.suppress(ProcessLookupError):
                    # That of a closed terminal would end a run without saving.
                    process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

        for number in previous:
            signal.signal(number, pass_on)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
