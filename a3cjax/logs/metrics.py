"""From the reports of many updates to one row of metrics a logging period."""

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from a3cjax.actors.actor_learner import UpdateReport
from a3cjax.runs.tables import RETURN_WINDOW, TIME_PARTS

ACTOR_RETURN_WINDOW = 10
"""Episodes over which that of one actor-learner is taken."""


class ActorRow(NamedTuple):
    """What one actor-learner came to in a period.

    `time_fractions` are those of `TIME_PARTS`, `episode_return_mean` is of its last 10 episodes.
    What cannot be told is NaN. `idle_seconds` are those of the periods since its last update.
    """

    actor: int
    steps_per_second: float
    time_fractions: tuple[float, ...]
    lock_wait_fraction: float
    staleness_mean: float
    episode_return_mean: float
    idle_seconds: float


class _ActorSums:
    """Of one actor-learner: sums of its reports, its last episodes, and how long it is idle."""

    def __init__(self):
        self.sums: dict[str, float] = collections.defaultdict(float)
        self.returns = collections.deque[float](maxlen=ACTOR_RETURN_WINDOW)
        self.num_updates = 0
        self.idle_seconds = 0.0


class MetricsWindow:
    """Sums up reports between two rows, and the last episodes beyond them."""

    def __init__(self, past_returns: Sequence[float] = (), memory: float = 0.0):
        """Starts a period.

        Args:
          past_returns: scores of all episodes before, where a run is resumed.
          memory: weight in [0, 1) of the period before in rates and means, and so on back; 0
            leaves each period by itself. For periods so short that few updates fall into one.
        """
        self._returns = collections.deque(past_returns, maxlen=RETURN_WINDOW)
        self._num_episodes = len(past_returns)
        self._memory = memory
        self._actors: dict[int, _ActorSums] = collections.defaultdict(_ActorSums)
        self._scalar_sums: dict[str, float] = collections.defaultdict(float)
        self._seconds = 0.0
        self.actor_rows: list[ActorRow] = []
        """Of the period before, one for each actor-learner that has ever reported."""
        self._start_period()

    def _start_period(self) -> None:
        self.num_updates = self._num_refused = 0
        self._staleness_max = 0
        self._scalar_sums = _fade(self._scalar_sums, self._memory)
        self._seconds *= self._memory
        for actor in self._actors.values():
            actor.sums = _fade(actor.sums, self._memory)
            actor.num_updates = 0

    def add(self, report: UpdateReport) -> None:
        """Takes in one update; nothing of it is kept but sums."""
        actor = self._actors[report.actor_index]
        returns = [episode.episode_return for episode in report.episodes]
        self._returns.extend(returns)
        actor.returns.extend(returns)
        self._num_episodes += len(returns)
        if report.bad_trajectory is not None:
            self._num_refused += 1
            return
        self.num_updates += 1
        actor.num_updates += 1
        actor.sums["num_updates"] += 1
        actor.sums["num_frames"] += report.num_frames
        actor.sums["num_steps"] += report.num_steps
        actor.sums["staleness"] += report.staleness
        for part, seconds in report.seconds._asdict().items():
            actor.sums[f"{part}_seconds"] += seconds
        for name, value in report.metrics.items():
            self._scalar_sums[name] += value
        self._staleness_max = max(self._staleness_max, report.staleness)

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 episodes; NaN before the first."""
        return _mean(self._returns)

    def pop_row(
        self, *, num_frames: int, num_updates: int, wall_seconds: float, seconds: float
    ) -> dict[str, float]:
        """One row over the `seconds` since the last, as name -> number; starts a new period.

        Those of the actors are then in `actor_rows`.
        """
        self._seconds += seconds
        sums: dict[str, float] = collections.defaultdict(float)
        for actor in self._actors.values():
            for name, value in actor.sums.items():
                sums[name] += value
        count, actor_seconds = _divisors(sums)
        row: dict[str, float] = {
            "num_frames": num_frames,
            "num_updates": num_updates,
            "wall_seconds": round(wall_seconds, 3),
            "frames_per_second": sums["num_frames"] / self._seconds,
            "steps_per_second": sums["num_steps"] / self._seconds,
            "num_episodes": self._num_episodes,
            "episode_return_mean": self.mean_return,
            **{name: total / count for name, total in self._scalar_sums.items()},
            "staleness_mean": sums["staleness"] / count,
            "staleness_max": self._staleness_max,
            "num_refused_updates": self._num_refused,
            "lock_wait_fraction": sums["wait_seconds"] / actor_seconds,
            "lock_hold_fraction": sums["hold_seconds"] / actor_seconds,
        }
        for part in TIME_PARTS:
            row[f"{part}_fraction"] = sums[f"{part}_seconds"] / actor_seconds
        self.actor_rows = [self._actor_row(index, seconds) for index in sorted(self._actors)]
        self._start_period()
        return row

    def _actor_row(self, index: int, seconds: float) -> ActorRow:
        actor = self._actors[index]
        actor.idle_seconds = 0.0 if actor.num_updates else actor.idle_seconds + seconds
        count, actor_seconds = _divisors(actor.sums)
        return ActorRow(
            actor=index,
            steps_per_second=actor.sums["num_steps"] / self._seconds,
            time_fractions=tuple(
                actor.sums[f"{part}_seconds"] / actor_seconds for part in TIME_PARTS
            ),
            lock_wait_fraction=actor.sums["wait_seconds"] / actor_seconds,
            staleness_mean=actor.sums["staleness"] / count,
            episode_return_mean=_mean(actor.returns),
            idle_seconds=actor.idle_seconds,
        )


def _fade(sums: dict[str, float], memory: float) -> dict[str, float]:
    """Sums with the weight that they have in the next period; what is not finite is forgotten."""
    faded: dict[str, float] = collections.defaultdict(float)
    if memory:
        faded |= {name: memory * value for name, value in sums.items() if math.isfinite(value)}
    return faded


def _divisors(sums: dict[str, float]) -> tuple[float, float]:
    """The updates and the actors' seconds to divide by; NaN where there are none."""
    seconds = sum(sums[f"{part}_seconds"] for part in TIME_PARTS)
    return sums["num_updates"] or math.nan, seconds or math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
