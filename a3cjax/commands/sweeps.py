"""Sweeps: many runs of the program, each in a folder of its own, one after another or at once.

A sweep that was stopped is started again by the same command: finished runs are left alone,
unfinished ones are resumed, the others begun. Nothing is ever deleted.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from a3cjax.config.declaring import normalise, read_settings, read_value
from a3cjax.config.reading import Preset
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError, one_line, quote
from a3cjax.runs.tables import (
    CONFIG_FILE,
    SUMMARY,
    check_budget,
    check_no_run,
    read_config_file,
    read_json,
)
from a3cjax.system.files import replace_file
from a3cjax.system.machine import available_cores, cores_of_thread
from a3cjax.system.signals import ALWAYS, BY_DEFAULT, SAME_SIGNAL_SECONDS

RECORD = "sweep.json"
"""In the folder of a sweep: the settings with which each of its runs began."""
LOCK = "sweep.lock"
"""In the folder of a sweep: held by it and its runs, to the last one."""
SIGNALS = ALWAYS + BY_DEFAULT
"""Those at which runs save and end."""
MAX_RUNS = 10_000  # of a sweep: our choice
MAX_NAME_BYTES = 200  # of a run's folder; file systems take 255, and its log's name is longer


class Point(NamedTuple):
    """One run of a sweep: its settings as on the command line, and its folder."""

    settings: Mapping[str, str]
    run_dir: Path


def expand(values: Mapping[str, Sequence[str]], sweep_dir: Path) -> list[Point]:
    """Every combination of the settings' values, in the order in which they are given.

    Args:
      values: of each setting; one where it is the same in all runs.
      sweep_dir: gets a folder for each run, named after what differs: `Pong-seed1`.

    Raises:
      ConfigError: if a setting is not the sweep's to choose, or the same run is asked for twice.
    """
    for name in ("run_dir", "resume"):
        if name in values:
            raise ConfigError(f"{name} must be left to the sweep, got {','.join(values[name])}.")
    if math.prod(map(len, values.values())) > MAX_RUNS:
        raise ConfigError(f"A sweep must have at most {MAX_RUNS:,} runs.")
    points: dict[str, Point] = {}
    names: dict[str, str] = {}  # by values
    for chosen in itertools.product(*values.values()):
        settings = dict(zip(values, chosen, strict=True))
        parts = [
            text if name == "env" else f"{name}{text}"
            for name, text in settings.items()
            if len(values[name]) > 1 or name in ("env", "seed")
        ]
        name = "-".join(parts).replace(":", "-").replace("/", "-") or "run"
        if len(name.encode()) > MAX_NAME_BYTES:
            begin = name.encode()[: MAX_NAME_BYTES - 20].decode(errors="ignore")
            name = f"{begin}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        key = json.dumps(_values_of(settings), sort_keys=True, default=str)
        same = name if name in points else names.setdefault(key, name)
        if same in points:
            raise ConfigError(f"A sweep must have each run once, got {same} twice.")
        points[name] = Point(settings, sweep_dir / name)
    return list(points.values())


def find_begun(points: Sequence[Point], sweep_dir: Path) -> list[Point]:
    """The points in the folders that the sweep's note has for them, however they are written.

    Only `total_frames` may have changed since then, unless the runs differ in it.

    Raises:
      ConfigError: if the note is damaged.
    """
    note = read_sound(sweep_dir / RECORD)
    noted = {name: _values_of(s) for name, s in note.items() if isinstance(s, dict)}
    is_free = len({point.settings.get("total_frames") for point in points}) == 1
    frames = {"total_frames": [None]} if is_free else {}

    def folder_of(point: Point) -> str:
        own, values = point.run_dir.name, _values_of(point.settings)
        same = [name for name in noted if noted[name] == values]
        if own in noted and (own in same or not same):
            return own
        alike = [name for name in noted if noted[name] | frames == values | frames]
        # Several are of a sweep over budgets, and none of them is this one.
        return same[0] if same else alike[0] if len(alike) == 1 else own

    return [point._replace(run_dir=sweep_dir / folder_of(point)) for point in points]


def _values_of(settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The value of each setting, by which it is compared (1e-3 is 0.001), in a list."""
    fields = {f.name: f for kind in (Preset, Config) for f in dataclasses.fields(kind)}

    def value_of(name: str, text: Any) -> Any:
        field = fields.get(name)
        if field is None or type(text) is not str:
            return text
        return normalise(field, read_value(field, text))

    return {name: [value_of(name, text)] for name, text in settings.items()}


def record(points: Sequence[Point], sweep_dir: Path) -> None:
    """Make the sweep's folder and note the settings of its runs.

    Raises:
      ConfigError: if a run began with other settings (only `total_frames` may change, but not to
        less than what is used up), or the note or a summary is damaged.
    """
    path = sweep_dir / RECORD
    began = read_sound(path)
    for point in points:
        name = point.run_dir.name
        settings = began.get(name) if is_begun(point.run_dir) else None
        if name not in began and (point.run_dir / CONFIG_FILE).is_file():
            settings = _as_begun(point)
        if not isinstance(settings, dict | None):
            raise ConfigError(f"{path} must hold the settings of each run, got {quote(settings)}.")
        old, new = ({**s, "total_frames": ""} for s in (settings or point.settings, point.settings))
        began_with, values = _values_of(old), _values_of(new)
        for setting in {**old, **new}:
            if began_with.get(setting) != values.get(setting):
                raise ConfigError(
                    f"{setting} must be {old.get(setting, 'left alone')}, as when {name} began, "
                    f"got {new.get(setting, 'nothing')}."
                )
        (total_frames,) = _values_of(point.settings).get("total_frames", [None])
        if total_frames is not None and (point.run_dir / CONFIG_FILE).is_file():
            num_frames = read_sound(point.run_dir / SUMMARY).get("num_frames")
            check_budget(point.run_dir, total_frames, num_frames)
        began[name] = dict(point.settings)
    replace_file(path, json.dumps(began, indent=2) + "\n")


def _as_begun(point: Point) -> dict[str, str]:
    """The settings of a point, but with the value in its run's config.yaml where that is another.

    Settings that were left open are filled in there, and names of games may be spelt in another
    way: these do not count.
    """
    held, settings = read_config_file(point.run_dir), dict(point.settings)
    for name, value in read_settings(Config, point.settings).items():
        begun = held.get(name, value)
        is_same = begun == value or str(begun).lower() == str(value).lower()
        if value not in (None, "auto") and not is_same:
            settings[name] = str(begun)
    return settings


def read_sound(path: Path) -> dict[str, Any]:
    """What a JSON file holds by name; nothing if it is not there.

    Raises:
      ConfigError: if it is damaged: nothing else says what a run came to, or began with.
    """
    content = read_json(path)
    if content is None and os.path.lexists(path):
        raise ConfigError(f"{path} must be sound, but is damaged: repair it or move it away.")
    return content or {}


@contextlib.contextmanager
def occupied(sweep_dir: Path) -> Iterator[int]:
    """Make the folder and keep other sweeps out of it.

    Two of them would begin the same runs. If a sweep is killed, a run that outlives it keeps the
    folder occupied, provided it was handed the file descriptor that this yields.

    Raises:
      ConfigError: if the folder is occupied or a run's, or is none and cannot be made.
    """
    check_no_run("sweep_dir", sweep_dir)
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
    """The arguments with which a run is to be begun or resumed; None if it is finished.

    Raises:
      ConfigError: if its settings or its summary are damaged.
    """
    if is_finished(point):
        return None
    if not is_begun(point.run_dir):
        settings = (f"{name}={text}" for name, text in point.settings.items())
        return [*settings, f"run_dir={point.run_dir}"]
    total_frames = point.settings.get("total_frames")
    longer = [] if total_frames is None else [f"total_frames={total_frames}"]
    return [f"resume={point.run_dir}", *longer]


def is_finished(point: Point) -> bool:
    """Whether a run has come to the end of its budget, by its summary; it may lack checkpoints.

    If it has them, it must have been evaluated, too, unless no games were asked for.

    Raises:
      ConfigError: if its settings or its summary are damaged.
    """
    summary = read_sound(point.run_dir / SUMMARY)
    if not summary or summary.get("signal") is not None:
        return False
    given = {name: text for name, text in point.settings.items() if name == "total_frames"}
    settings = read_settings(Config, given) or read_config_file(point.run_dir)
    counts = (summary.get("num_frames"), settings.get("total_frames", 0))
    if not all(type(count) in (int, float) for count in counts):
        path = point.run_dir / SUMMARY
        raise ConfigError(f"{path} must hold numbers of frames, got {quote(counts)}.")
    is_judged = summary.get("evaluation") is not None
    can_be_judged = _has_checkpoint(point.run_dir) and (point.run_dir / CONFIG_FILE).is_file()
    if not is_judged and can_be_judged and read_config_file(point.run_dir).get("eval_episodes"):
        return False
    return counts[0] >= counts[1]


def _has_checkpoint(run_dir: Path) -> bool:
    checkpoints = run_dir / "checkpoints"
    return checkpoints.is_dir() and any(p.stem.isdecimal() for p in checkpoints.iterdir())


def is_begun(run_dir: Path) -> bool:
    """Whether a folder holds a run that has begun, and so can only be resumed."""
    return _has_checkpoint(run_dir) or (run_dir / CONFIG_FILE).exists()


def share_cores(jobs: int) -> list[set[int]]:
    """The cores of each of several jobs at once: equally many, with the rest to the first jobs.

    The sets are empty, for no binding, where the system binds no threads.

    Raises:
      ConfigError: if there are more jobs than cores.
    """
    num_cores = available_cores()
    if not 1 <= jobs <= num_cores:
        raise ConfigError(f"jobs must be between 1 and {num_cores}, a core for each, got {jobs}.")
    cores = sorted(cores_of_thread())[:num_cores]  # a container may use fewer than it sees
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
        """Run until every run has ended or a signal comes.

        `SIGNALS` are passed on: the runs save and end, and no other one begins. Signals that are
        ignored, as by nohup, stay ignored.

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
                self._tell(f"{title}: failed, {one_line(str(error))}")

    def _run_point(self, title: str, point: Point) -> None:
        arguments = arguments_of(point)
        if arguments is None:
            self._tell(f"{title}: finished before")
            return
        self._tell(f"{title}: {' '.join(arguments)}")
        where = ""
        with contextlib.ExitStack() as stack:
            output = None  # a single run at a time shows itself
            if len(self._cores) > 1:
                log = point.run_dir.with_name(f"{point.run_dir.name}.log")
                output = stack.enter_context(log.open("a"))
                where = f", see {log}"
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
        # A signal ends a run with code -number while it starts, later with 128 + number.
        stop_codes = () if self._stop_signal is None else SIGNALS
        if code in {*(-n for n in stop_codes), *(128 + n for n in stop_codes)}:
            return
        if code != 0:
            raise RuntimeError(f"exit code {code}{where}")
        if not is_finished(point):  # an environment may have called os._exit(0)
            raise RuntimeError(f"exit code 0, but no {SUMMARY} of its end")

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        previous = {number: signal.getsignal(number) for number in SIGNALS}
        # None: a handler of some library, which Python could not put back.
        previous = {n: old for n, old in previous.items() if old not in (signal.SIG_IGN, None)}
        passed_on: dict[int, float] = {}

        def pass_on(number: int, _frame) -> None:
            self._stop_signal = self._stop_signal or number
            now = time.monotonic()
            if now - passed_on.get(number, -math.inf) < SAME_SIGNAL_SECONDS:
                return
            passed_on[number] = now
            for process in tuple(self._processes):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

        for number in previous:
            signal.signal(number, pass_on)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
