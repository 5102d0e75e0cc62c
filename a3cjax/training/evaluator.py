"""Evaluation while training goes on, in a thread that rests most of the time."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax

from a3cjax.actors.placement import background_device
from a3cjax.actors.supervisor import Job
from a3cjax.parameters.shared import RunStore
from a3cjax.runs.evaluation import Evaluation
from a3cjax.system.machine import available_cores
from a3cjax.types import Device, LearnerState, Snapshot

EVALUATION_SHARE = 0.04
"""Of all cores' time, for evaluations during training. They keep about one core busy; so with 25
cores and more they need no rest. benchmarks/evaluation_cost.py measures what it comes to."""

# A process that was suspended for an hour has not worked for an hour.
MAX_REST_SECONDS = 60.0


class Pace:
    """Rests between the steps of an evaluation, to work for a `share`, in (0, 1], of the time."""

    def __init__(self, share: float, stop_event: threading.Event | Job):
        self._rest_per_second = 1 / share - 1
        self._stop_event = stop_event
        self._resumed = time.monotonic()

    def __call__(self) -> bool:
        """Rest as long as the work since the last call demands; True once a stop is asked for."""
        worked = time.monotonic() - self._resumed
        is_stopped = self._stop_event.wait(min(worked * self._rest_per_second, MAX_REST_SECONDS))
        self._resumed = time.monotonic()
        return is_stopped


@dataclass
class Evaluator:
    """Evaluates the newest parameters every `period_frames`, in a thread of its own.

    The thread rests most of the time, at the price of long evaluations: while one goes on, the
    next does not begin. Results are put into `results`, for the thread of the run, each with the
    state and the snapshot that it is of.
    """

    evaluate: Callable[[Snapshot, Callable[[], bool]], Evaluation | None]  # asked whether to stop
    store: RunStore
    num_frames: int  # of the last evaluation
    period_frames: int
    learner: Device  # beside which it computes

    def __post_init__(self):
        self.results = queue.SimpleQueue[tuple[LearnerState, Snapshot, Evaluation]]()

    def run(self, stop_event: threading.Event | Job) -> None:
        """Evaluate whenever it is due, until it is asked to stop."""
        device = background_device(self.learner)
        share = min(1.0, EVALUATION_SHARE * available_cores())
        while not stop_event.wait(0.1):
            if self.store.counts().num_frames - self.num_frames < self.period_frames:
                continue
            state, snapshot = self.store.read()
            self.num_frames = snapshot.num_frames
            seen = jax.device_put((snapshot.params, snapshot.statistics), device)
            evaluated = snapshot._replace(params=seen[0], statistics=seen[1])
            evaluation = self.evaluate(evaluated, Pace(share, stop_event))
            if evaluation is not None:
                self.results.put((state, snapshot, evaluation))
