"""From the reports of many updates to one row of metrics a logging period."""

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from a3cjax.actor_learner import UpdateReport

RETURN_WINDOW = 100
"""Episodes over which the mean training return is taken."""


_PARTS = ("env", "act", "learn", "push")
_SUMMED = (
    "num_frames",
    "num_steps",
    "staleness",
    *(f"{part}_seconds" for part in (*_PARTS, "wait", "hold")),
)


class EpisodeRow(NamedTuple):
    """A line of episodes.csv."""

    num_frames: int
    wall_seconds: float
    actor: int
    episode_return: float
    episode_length: int


class MetricsWindow:
    """Sums up reports between two rows, and the last episodes beyond them."""

    def __init__(self, past_returns: Sequence[float] = ()):
        """`past_returns` are the scores of all episodes before, where a run is resumed."""
        self._returns = collections.deque(past_returns, maxlen=RETURN_WINDOW)
        self._num_episodes = len(past_returns)
        self._start_period()

    def _start_period(self) -> None:
        self.num_updates = self._num_refused = 0
        self._staleness_max = 0
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._scalar_sums: dict[str, float] = collections.defaultdict(float)

    def add(self, report: UpdateReport) -> None:
        """Takes in one update; nothing of it is kept but sums."""
        self._returns.extend(episode.episode_return for episode in report.episodes)
        self._num_episodes += len(report.episodes)
        if report.bad_trajectory is not None:
            self._num_refused += 1
            return
        self.num_updates += 1
        for name in _SUMMED:
            self._sums[name] += getattr(report, name)
        for name, value in report.metrics.parts._asdict().items():
            self._scalar_sums[name] += float(value)
        self._scalar_sums["grad_norm"] += float(report.metrics.grad_norm)
        self._staleness_max = max(self._staleness_max, report.staleness)

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 episodes; NaN before the first."""
        return float(np.mean(self._returns)) if self._returns else math.nan

    def pop_row(
        self, *, num_frames: int, num_updates: int, wall_seconds: float, seconds: float
    ) -> dict[str, float]:
        """One row over the `seconds` since the last, as name -> number; starts a new period."""
        sums, count = self._sums, self.num_updates or math.nan
        actor_seconds = sum(sums[f"{part}_seconds"] for part in _PARTS) or math.nan
        row: dict[str, float] = {
            "num_frames": num_frames,
            "num_updates": num_updates,
            "wall_seconds": round(wall_seconds, 3),
            "frames_per_second": sums["num_frames"] / seconds,
            "steps_per_second": sums["num_steps"] / seconds,
            "num_episodes": self._num_episodes,
            "episode_return_mean": self.mean_return,
            **{name: total / count for name, total in self._scalar_sums.items()},
            "staleness_mean": sums["staleness"] / count,
            "staleness_max": self._staleness_max,
            "num_refused_updates": self._num_refused,
            "lock_wait_fraction": sums["wait_seconds"] / actor_seconds,
            "lock_hold_fraction": sums["hold_seconds"] / actor_seconds,
        }
        for part in _PARTS:
            row[f"{part}_fraction"] = sums[f"{part}_seconds"] / actor_seconds
        self._start_period()
        return row
