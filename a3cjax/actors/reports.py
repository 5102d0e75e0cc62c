"""What actor-learners report for the log, and what is reported for them when they cannot."""

import queue
from typing import NamedTuple

from a3cjax.envs.base import Episode
from a3cjax.types import Trajectory


class Seconds(NamedTuple):
    """How an actor-learner's time for one update was spent.

    The first four add up to the total. Learning includes waiting for a slot, and pushing includes
    the pull before; waiting for the lock and holding it are parts of pushing.
    """

    env: float
    act: float
    learn: float
    push: float
    wait: float
    hold: float

    @property
    def total(self) -> float:
        """The total time."""
        return self.env + self.act + self.learn + self.push


class UpdateReport(NamedTuple):
    """What one update of one actor-learner reports for the log.

    `num_frames` are the frames of this update; `run_frames` and `version` tell where the run
    stands after it. `staleness` counts the updates that others applied between this update's
    snapshot and the update itself. `bad_trajectory` is None unless the update was refused because
    of numbers that are not finite; then nothing was counted. An update that was dropped, or pooled
    with others' gradients, has no version of its own: `version` is the one after which it came. See
    `Receipt`.
    """

    actor_index: int
    num_frames: int
    num_steps: int
    run_frames: int
    version: int
    staleness: int
    metrics: dict[str, float]
    episodes: list[Episode]
    seconds: Seconds
    bad_trajectory: Trajectory | None = None
    is_dropped: bool = False
    is_pooled: bool = False

    @property
    def is_applied(self) -> bool:
        """Whether `version` is this update's own."""
        return self.bad_trajectory is None and not self.is_dropped and not self.is_pooled


class Lost(NamedTuple):
    """Updates that nobody will report any more: their maker has ended, or never had an answer.

    Versions that have been reported do not count. `run_frames` is where the run stands after these
    updates, as far as that is known; at the run's end also after random play that no update
    followed.
    """

    versions: tuple[int, ...]
    run_frames: int = 0


class Restarted(NamedTuple):
    """A process of the run has died, and another takes its place.

    `line` is the line of the process in the terminal, None if it has no line.
    """

    line: int | None = None


Report = UpdateReport | Lost | Restarted
Reports = queue.SimpleQueue[Report]
