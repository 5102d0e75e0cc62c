"""What one update of an actor-learner leaves for the log: plain numbers."""

from typing import NamedTuple

from a3cjax.envs.base import Episode
from a3cjax.types import Trajectory


class Seconds(NamedTuple):
    """What an actor-learner's time for one update went into.

    The first four add up to all of it. Learning includes waiting for a slot, and pushing the
    pull before it; waiting for the lock and holding it are parts of pushing.
    """

    env: float
    act: float
    learn: float
    push: float
    wait: float
    hold: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.env + self.act + self.learn + self.push


class UpdateReport(NamedTuple):
    """What one update of one actor-learner leaves for the log.

    `num_frames` are those of this update, `run_frames` and `version` where the run stands
    after it; `staleness` counts the updates that others applied between this one's snapshot
    and itself. `bad_trajectory` is None unless the update was refused because of numbers that
    are not finite; then nothing was counted.
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
