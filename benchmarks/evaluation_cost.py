"""What evaluating during training costs.

`python benchmarks/evaluation_cost.py` trains once. Evaluations follow one another without a pause,
except that they stand still in every other phase. Neighbouring phases are compared, so that a drift
in the machine's speed does no harm. It prints frames per second of both and their ratio; one row
per figure goes to benchmarks/results/evaluation_cost.csv. Nothing else should run on the machine.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from results_table import Results

from a3cjax.config.settings import Config
from a3cjax.training import evaluator, learning, train

RESULTS = Path(__file__).parent / "results" / "evaluation_cost.csv"
# Until the programs are compiled and the first evaluation has begun.
NUM_SETTLING_FRAMES = 150_000
PHASE_SECONDS = 10.0
SWITCH_SECONDS = 1.0  # at the start of a phase, not measured

may_evaluate = threading.Event()
rates: dict[bool, list[float]] = {False: [], True: []}


class Pace(evaluator.Pace):
    """Stands still while evaluations must not go on."""

    def __call__(self) -> bool:
        """As the pace of a3cjax, but returns only once evaluations may go on."""
        is_stopped = super().__call__()
        while not is_stopped and not may_evaluate.wait(0.1):
            is_stopped = self._stop_event.is_set()
        self._resumed = time.monotonic()
        return is_stopped


class Evaluator(evaluator.Evaluator):
    """Lets evaluations go on in every other phase, and measures the speed of all phases."""

    def run(self, stop_event: threading.Event) -> None:
        """Evaluates and measures until it is asked to stop."""
        threading.Thread(target=self._measure, args=(stop_event,), name="measure").start()
        super().run(stop_event)

    def _measure(self, stop_event: threading.Event) -> None:
        may_evaluate.set()
        while self.store.pull().num_frames < NUM_SETTLING_FRAMES:
            if stop_event.wait(0.1):
                return
        is_on = True
        while True:
            (may_evaluate.set if is_on else may_evaluate.clear)()
            if stop_event.wait(SWITCH_SECONDS):
                return
            start, start_frames = time.monotonic(), self.store.pull().num_frames
            if stop_event.wait(PHASE_SECONDS):
                return
            seconds = time.monotonic() - start
            rates[is_on].append((self.store.pull().num_frames - start_frames) / seconds)
            is_on = not is_on


def main() -> None:
    """Parses the command line, trains, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--total-frames", type=int, default=2_500_000)
    arguments = parser.parse_args()
    evaluator.Pace, learning.Evaluator = Pace, Evaluator
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            env=arguments.game,
            total_frames=arguments.total_frames,
            eval_period_frames=1,
            video=False,
            run_dir=f"{folder}/run",
        )
        train(config)
    num_pairs = min(len(rates[True]), len(rates[False]))
    if not num_pairs:
        sys.exit(f"--total-frames must be enough for two phases, got {arguments.total_frames}.")
    on, off = rates[True][:num_pairs], rates[False][:num_pairs]
    results = Results(RESULTS)
    results.add("training, no evaluation", off, "frames/s")
    results.add("training, one evaluation after another", on, "frames/s")
    results.add("share of the speed", [a / b for a, b in zip(on, off, strict=True)], "")
    results.write(f"{arguments.game}, 30 games an evaluation")


if __name__ == "__main__":
    main()
