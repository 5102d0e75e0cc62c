"""How fast a fleet of processes is beside threads: whole runs, in turn, on a machine left alone.

`python benchmarks/fleets.py` trains Pong with two threads and with two workers of one thread each
(`--shapes 2 2x1`), round by round, and prints steps/s and the CPU time of a step. That is the time
of all processes of the machine, since Ray's own count, too. Ratios to the first shape are taken
within each round.

`--env free` takes environments that cost nothing, so that Python's interpreter limits a process.
`--settings grads_per_push=8` and the like apply to the shapes with workers.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import free_environments
from results_table import Results

RESULTS = Path(__file__).parent / "results" / "fleets.csv"
POLL_SECONDS = 0.05
# So chosen that a row of metrics comes every other second.
LOG_PERIOD_FRAMES = {"Pong": 20_000, free_environments.NAME: 40_000}


class Moment(NamedTuple):
    """A moment at which a new row of metrics was there."""

    frames: int
    steps: float
    seconds: float
    core_seconds: float


def settings_of(shape: str, env: str, more: Sequence[str]) -> list[str]:
    """The settings of a run: `3` is three threads, `2x4` is two workers with four each."""
    workers, _, threads = shape.rpartition("x")
    num_actors = int(threads) * int(workers or 1)
    settings = [f"env={env}", f"num_actors={num_actors}", "envs_per_actor=8"]
    settings += ["eval_episodes=0", "video=false"]
    settings += [f"log_period_frames={LOG_PERIOD_FRAMES[env]}"] if env in LOG_PERIOD_FRAMES else []
    return settings + ([f"num_workers={workers}", "cluster=ray", *more] if workers else [])


def measure(
    settings: Sequence[str], settle: float, seconds: float, cores: Collection[int] | None = None
) -> tuple[float, float]:
    """Steps/s and core-seconds a step of a run, after it has settled for `settle` seconds.

    The run has these `cores`, or all if None.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "a3cjax", "train", *settings, f"run_dir={run_dir}"]
        paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
        with (Path(folder) / "output").open("w+") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                preexec_fn=cores and partial(os.sched_setaffinity, 0, cores),
            )
            moments: list[Moment] = []
            try:
                while process.poll() is None:
                    moments += _new_moments(run_dir / "metrics.csv", moments)
                    if moments and moments[-1].seconds - moments[0].seconds >= settle + seconds:
                        break
                    time.sleep(POLL_SECONDS)
            finally:
                process.terminate()  # it saves, and ends
                process.wait()
            output.seek(0)
            said = output.read()
    return rates_of(moments, settle, said)


def rates_of(moments: Sequence[Moment], settle: float, said: str = "") -> tuple[float, float]:
    """Steps/s and core-seconds a step, from the first settled moment to the last.

    Raises:
      SystemExit: if there are not two such moments, with what the run has `said`.
    """
    settled = [m for m in moments if m.seconds >= moments[0].seconds + settle]
    if len(settled) < 2:
        raise SystemExit(f"A run must last longer to be timed; it said:\n{said}")
    first, last = settled[0], settled[-1]
    steps = last.steps - first.steps
    return (
        steps / (last.seconds - first.seconds),
        (last.core_seconds - first.core_seconds) / steps,
    )


def _new_moments(path: Path, known: Sequence[Moment]) -> list[Moment]:
    """A moment for the last of the new rows, if there are any."""
    try:
        text = path.read_text()
    except OSError:
        return []
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))  # whole lines
    if not rows or (known and int(rows[-1]["num_frames"]) <= known[-1].frames):
        return []
    row, now = rows[-1], time.perf_counter()
    frames = int(row["num_frames"])
    per_step = float(row["frames_per_second"]) / float(row["steps_per_second"])
    return [Moment(frames, frames / round(per_step), now, machine_core_seconds())]


def machine_core_seconds() -> float:
    """CPU time of all processes since the machine began, in seconds of one core."""
    # user, nice, system, idle, iowait, irq, softirq; guests are in user already.
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:7])) / os.sysconf("SC_CLK_TCK")


def measure_in_turn(
    shapes: Sequence[str], env: str, more: Sequence[str], rounds: int, settle: float, seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """Measures every shape in every round; each round begins with another shape."""
    measured: dict[str, list[tuple[float, float]]] = {shape: [] for shape in shapes}
    for number in range(rounds):
        begin = number % len(shapes)
        for shape in (*shapes[begin:], *shapes[:begin]):
            figures = measure(settings_of(shape, env, more), settle, seconds)
            measured[shape].append(figures)
            print(f"{shape}: {figures[0]:,.0f} steps/s, {1e3 * figures[1]:.3f} core-ms", flush=True)
    return measured


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="Pong", help="free: one that costs nothing")
    parser.add_argument("--shapes", nargs="+", default=["2", "2x1"], metavar="[WORKERSx]THREADS")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settle", type=float, default=6.0, help="seconds that are not counted")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds that are")
    arguments = parser.parse_args()
    env = free_environments.NAME if arguments.env == "free" else arguments.env
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    shapes = list(dict.fromkeys(arguments.shapes))
    measured = measure_in_turn(
        shapes,
        env,
        arguments.settings,
        arguments.rounds,
        arguments.settle,
        arguments.seconds,
    )
    results = Results(RESULTS)
    first = measured[shapes[0]]
    for shape, figures in measured.items():
        name = " ".join(
            [f"{arguments.env}, {shape}", *(arguments.settings if "x" in shape else [])]
        )
        results.add(f"{name}: training", [rate for rate, _ in figures], "steps/s")
        results.add(
            f"{name}: CPU time", [1e3 * seconds for _, seconds in figures], "core-ms a step"
        )
        if figures is not first:
            pairs = list(zip(figures, first, strict=True))
            results.add(f"{name}: training / first", [a[0] / b[0] for a, b in pairs], "")
            results.add(f"{name}: CPU time / first", [a[1] / b[1] for a, b in pairs], "")
    results.write("Fleets beside threads")


if __name__ == "__main__":
    main()
