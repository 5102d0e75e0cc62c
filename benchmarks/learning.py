"""Wall-clock and frames from nothing to a score, by the command that users type, seed by seed.

`python benchmarks/learning.py` starts `experiments/run.py env=Pong` for ten seeds, one after the
other, and stops each once the mean of its last 100 training games reaches 18. The clock starts
with the process. A seed has its row in benchmarks/results/learning-seeds.csv as soon as it is done
and is not run again; a seed that Ctrl-C or SIGTERM interrupts leaves nothing, and begins anew the
next time. Nothing else should run on the machine; where something does (or under `nice`),
core-minutes say more: the CPU time of all threads until the score is reached.
"""

import argparse
import collections
import csv
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from a3cjax.runs.tables import RETURN_WINDOW, EpisodeRow
from a3cjax.system import machine, provenance
from a3cjax.system.files import replace_file

RUN = Path(__file__).parent.parent / "experiments" / "run.py"
RESULTS = Path(__file__).parent / "results" / "learning-seeds.csv"
QUIET = ("eval_episodes=0", "video=false")


class Row(NamedTuple):
    """What one seed took to reach the score; infinite if its budget ended below it."""

    settings: str
    score: float
    seed: int
    minutes: float
    core_minutes: float
    million_frames: float
    commit: str
    machine: str


class LearningError(Exception):
    """Why a seed could not be measured, in one line."""


def read_games(path: Path, process: subprocess.Popen) -> Iterator[EpisodeRow]:
    """The lines of a growing episodes.csv, until its program has ended."""
    while not path.exists():
        if process.poll() is not None:
            return
        time.sleep(0.1)
    with path.open(newline="") as file:
        rest = ""
        while True:
            is_over = process.poll() is not None
            *lines, rest = (rest + file.read()).split("\n")
            for frames, seconds, actor, score, length in csv.reader(lines):
                if frames != "num_frames":
                    yield EpisodeRow(
                        int(frames), float(seconds), int(actor), float(score), int(length)
                    )
            if is_over:
                return
            time.sleep(0.1)


def cpu_seconds(process: subprocess.Popen) -> float:
    """CPU time of all threads of a process that has not been waited for, so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]  # fields 14 and 15 of `man proc`: the first two are cut off
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def learn(arguments: Sequence[str], score: float, run_dir: Path) -> tuple[float, float, float]:
    """Trains until the mean of the last games reaches `score`.

    Returns:
      Seconds since the start of the program, its CPU time, and emulator frames; infinite if its
      budget ended below the score.

    Raises:
      LearningError: if the program ended for another reason.
    """
    began = time.monotonic()
    command = [sys.executable, str(RUN), *arguments, f"run_dir={run_dir}", *QUIET]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    returns: collections.deque[float] = collections.deque(maxlen=RETURN_WINDOW)
    try:
        for game in read_games(run_dir / "episodes.csv", process):
            returns.append(game.episode_return)
            if len(returns) == RETURN_WINDOW and statistics.fmean(returns) >= score:
                return time.monotonic() - began, cpu_seconds(process), game.num_frames
    finally:
        process.terminate()  # a program in a shell's background ignores SIGINT
        process.wait()
    if process.returncode != 0:
        raise LearningError(f"the program ended with {process.returncode}")
    if (stop := json.loads((run_dir / "summary.json").read_text())["signal"]) is not None:
        raise LearningError(f"the program was stopped by {stop}")
    return math.inf, math.inf, math.inf


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier call; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(
                *(line["settings"], float(line["score"]), int(line["seed"])),
                *(float(line["minutes"]), float(line["core_minutes"])),
                *(float(line["million_frames"]), line["commit"], line["machine"]),
            )
            for line in csv.DictReader(file)
        ]


def add_row(path: Path, row: Row) -> None:
    """Adds a row; whatever happens, the file is either as it was before or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *read_rows(path), row])
    replace_file(path, text.getvalue())


def show(figures: Sequence[float]) -> str:
    """Minutes, core-minutes and million frames as cells."""
    return " | ".join(
        f"{value:.{digits}f}" for value, digits in zip(figures, (1, 1, 2), strict=True)
    )


def make_table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each seed, and the medians."""
    lines = ["| seed | minutes | core-minutes | million frames | commit |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row.seed):
        lines.append(f"| {row.seed} | {show(row[3:6])} | {row.commit[:7]} |")
    medians = [statistics.median(values) for values in list(zip(*rows, strict=True))[3:6]]
    lines.append(f"| median | {show(medians)} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--score", type=float, default=18.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(71, 81)))
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV file")
    parser.add_argument("settings", nargs="*", default=["env=Pong"], help="as for run.py")
    arguments = parser.parse_args()
    # SIGTERM ends the program that is at work, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    settings = " ".join(arguments.settings)
    described = machine.describe_machine()

    def rows_done() -> list[Row]:
        what = settings, arguments.score
        rows = [row for row in read_rows(arguments.results) if (row.settings, row.score) == what]
        return [row for row in rows if row.seed in arguments.seeds]

    for seed in arguments.seeds:
        if seed in {row.seed for row in rows_done()}:
            continue
        commit = provenance.describe_commit()
        with tempfile.TemporaryDirectory() as folder:
            options = [*arguments.settings, f"seed={seed}"]
            try:
                seconds, cpu, frames = learn(options, arguments.score, Path(folder) / "run")
            except LearningError as error:
                raise SystemExit(f"seed {seed}: {error}.") from error
        row = Row(
            *(settings, arguments.score, seed),
            *(round(seconds / 60, 3), round(cpu / 60, 3), round(frames / 1e6, 3)),
            *(commit, f"{described['processor']}, {described['cores']} cores"),
        )
        add_row(arguments.results, row)
        print(f"seed {seed}: {row.minutes:.1f} min, {row.million_frames:.2f}M frames", flush=True)
    print(f"{settings}: to a mean of {arguments.score:g}\n\n{make_table(rows_done())}")


if __name__ == "__main__":
    main()
