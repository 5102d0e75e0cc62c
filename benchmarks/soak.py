"""Whether a long run keeps its memory, threads and open files to itself.

`python benchmarks/soak.py` trains for half an hour with everything on (logging, checkpoints,
evaluation), looks at the process every five seconds, prints what it saw, and writes
benchmarks/results/soak.csv and soak.png. Growth is counted from the first 200,000 frames on.
"""

import argparse
import csv
import itertools
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
SETTLED_FRAMES = 200_000
SETTINGS = (
    *("env=Pong", "total_frames=1000000000", "log_period_frames=10000"),
    *("checkpoint_period_frames=100000", "eval_period_frames=500000", "eval_episodes=4"),
    "video=false",
)


class Sample(NamedTuple):
    """What the system says of the process at one moment."""

    seconds: float
    num_frames: int
    resident_mb: float
    num_threads: int
    num_files: int


def look(pid: int, seconds: float, metrics: Path) -> Sample:
    """One sample; the number of frames is that of the log's last row."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    rows = metrics.read_text().splitlines()[1:] if metrics.exists() else []
    return Sample(
        round(seconds, 1),
        int(rows[-1].partition(",")[0]) if rows else 0,
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["Threads"]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
    )


def growth(samples: list[Sample]) -> float:
    """Relative growth of resident memory from the median of the first tenth to that of the last.

    The first 200,000 frames are left out.
    """
    settled = [sample.resident_mb for sample in samples if sample.num_frames >= SETTLED_FRAMES]
    tenth = max(1, len(settled) // 10)
    return statistics.median(settled[-tenth:]) / statistics.median(settled[:tenth]) - 1


def plot(samples: list[Sample], path: Path) -> None:
    """Memory, threads and open files over the number of frames."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    frames = [sample.num_frames / 1e6 for sample in samples]
    labels = {
        "resident_mb": "resident memory (MB)",
        "num_threads": "threads",
        "num_files": "open files",
    }
    for axis, (name, label) in zip(figure.subplots(3, sharex=True), labels.items(), strict=True):
        axis.plot(frames, [getattr(sample, name) for sample in samples])
        axis.axvline(SETTLED_FRAMES / 1e6, linestyle=":", color="grey")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axis.set_xlabel("million emulator frames")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "experiments" / "run.py"), *SETTINGS]
        process = subprocess.Popen([*command, f"run_dir={run_dir}"], stdout=subprocess.DEVNULL)
        began = time.monotonic()
        try:
            for number in itertools.count():
                time.sleep(5.0)
                seconds = time.monotonic() - began
                if process.poll() is not None:
                    sys.exit(f"the run ended by itself with exit code {process.returncode}")
                samples.append(look(process.pid, seconds, run_dir / "metrics.csv"))
                if number % 12 == 0:
                    sample = samples[-1]
                    print(
                        f"{sample.seconds / 60:5.1f} min  {sample.num_frames:>10,} frames  "
                        f"{sample.resident_mb:,.0f} MB  {sample.num_threads} threads  "
                        f"{sample.num_files} files",
                        flush=True,
                    )
                if seconds >= 60 * arguments.minutes:
                    break
        finally:
            process.terminate()  # a program in the background of a shell ignores SIGINT
            process.wait()
    if samples[-1].num_frames < SETTLED_FRAMES:
        sys.exit(
            f"--minutes must be enough for {SETTLED_FRAMES:,} frames, got {arguments.minutes}."
        )
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "soak.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Sample._fields)
        writer.writerows(samples)
    plot(samples, RESULTS / "soak.png")
    print(f"growth of memory after {SETTLED_FRAMES:,} frames: {growth(samples):+.1%}")


if __name__ == "__main__":
    main()
