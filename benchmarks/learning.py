"""Wall-clock and frames from nothing to a score, by the command that users type.

`python benchmarks/learning.py` starts `experiments/run.py env=Pong` for three seeds, one after the
other, and stops each once the mean of its last 100 training games reaches 18. The clock starts
with the process. One row a figure goes to benchmarks/results/learning.csv. Nothing else should
run on the machine.
"""

import argparse
import collections
import csv
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from results_table import Results

from a3cjax.runs.tables import RETURN_WINDOW, EpisodeRow

RUN = Path(__file__).parent.parent / "experiments" / "run.py"
RESULTS = Path(__file__).parent / "results" / "learning.csv"


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


def learn(arguments: list[str], score: float, run_dir: Path) -> tuple[float, float]:
    """Trains until the mean of the last games reaches `score`.

    Returns:
      Seconds since the start of the program, and emulator frames; infinite if it ended below.
    """
    began = time.monotonic()
    quiet = ("eval_episodes=0", "video=false")
    command = [sys.executable, str(RUN), *arguments, f"run_dir={run_dir}", *quiet]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    returns: collections.deque[float] = collections.deque(maxlen=RETURN_WINDOW)
    try:
        for game in read_games(run_dir / "episodes.csv", process):
            returns.append(game.episode_return)
            if len(returns) == RETURN_WINDOW and statistics.fmean(returns) >= score:
                return time.monotonic() - began, game.num_frames
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    return math.inf, math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--score", type=float, default=18.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("settings", nargs="*", default=["env=Pong"], help="as for run.py")
    arguments = parser.parse_args()

    seconds: list[float] = []
    frames: list[float] = []
    title = f"{' '.join(arguments.settings)}: to a mean of {arguments.score:g}"
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings = [*arguments.settings, f"seed={seed}"]
            time_needed, frames_needed = learn(settings, arguments.score, Path(folder) / "run")
        seconds.append(time_needed)
        frames.append(frames_needed)
        print(f"seed {seed}: {time_needed:.0f} s, {frames_needed:,.0f} frames", flush=True)
    results = Results(RESULTS)
    results.add(f"{title}: minutes", [value / 60 for value in seconds], "min")
    results.add(f"{title}: million frames", [value / 1e6 for value in frames], "M")
    results.write(f"{title}, seeds {arguments.seeds}")


if __name__ == "__main__":
    main()
