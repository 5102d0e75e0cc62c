"""Times the a3cjax that it finds, for another process: one line of JSON asked, one answered.

Started by checkouts.py, with a checkout's folder in PYTHONPATH; run by hand it does nothing. A
request `{"settings": {name: text}, "seconds": s}` trains for so long, `{"emulator": [env, actors,
environments], "seconds": s}` steps envpool alone.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import a3cjax
from a3cjax.system import provenance
from a3cjax.training.measuring import Training, emulator_rate

try:
    from a3cjax.config.reading import read_config
except ImportError:  # an older checkout, in which it had no file of its own
    from a3cjax.config.settings import read_config


class TimedTraining(Training):
    """Training that keeps the reports of its last run, which older commits do not hand out."""

    def _pop_reports(self):
        self.last_reports = super()._pop_reports()
        return self.last_reports

    def measure(self, seconds: float) -> dict[str, Any]:
        """Trains for so many seconds.

        Returns:
          What `run` returns, with `core_ms`, the CPU time of all threads of the process for a step,
          the `staleness` of each update, and the `shape` that was resolved.
        """
        cpu_began, began = time.process_time(), time.perf_counter()
        result = self.run(seconds)
        busy_cores = (time.process_time() - cpu_began) / (passed := time.perf_counter() - began)
        rate = result["steps_per_second"]
        # What the stop cut off is in neither rate; it is less than an update of each actor.
        counted = sum(report.num_steps for report in self.last_reports)
        cut_off = self.config.num_actors * max(report.num_steps for report in self.last_reports)
        if not -cut_off <= rate * passed - counted <= 2 * cut_off:
            line = f"{rate:.0f} steps/s by the actors' clocks, {counted / passed:.0f} by ours"
            print(f"The clocks disagree: {line}.", file=sys.stderr)
        config = self.config
        return {
            **result,
            "core_ms": 1000 * busy_cores / rate,
            "staleness": [report.staleness for report in self.last_reports],
            "shape": [config.num_actors, config.envs_per_actor, config.unroll_length],
        }


def main() -> None:
    # Lines of libraries have no place among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    package = str(Path(a3cjax.__file__).parent)
    print(json.dumps({"package": package, "commit": provenance.describe_commit()}), file=answers)
    runs: dict[str, TimedTraining] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "emulator" in request:
            rate = emulator_rate(*request["emulator"], request["seconds"])
            answer = {"steps_per_second": rate}
        else:
            name = json.dumps(request["settings"])
            if name not in runs:
                runs[name] = TimedTraining(read_config(request["settings"]))
            answer = runs[name].measure(request["seconds"])
        print(json.dumps(answer), file=answers)
    for run in runs.values():
        run.close()


if __name__ == "__main__":
    main()
