"""From the reports of many updates to one row of metrics a logging period."""

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from a3cjax.actor_learner import UpdateReport

RETURN_WINDOW = 100
"""Episodes over which the mean training return is taken."""


class EpisodeRow(NamedTuple):
    """A line of episodes.csv."""

    num_frames: int
    wall_seconds: float
    actor: int
    episode_return: float
    episode_length: int


class MetricsWindow:
    """Sums up reports between two logging periods, and the last episodes beyond them."""

    def __init__(self):
        self._returns: collections.deque[float] = collections.deque(maxlen=RETURN_WINDOW)
        self._reports: list[UpdateReport] = []
        self._num_episodes = 0

    def add(self, report: UpdateReport) -> None:
        """Takes in one update."""
        self._reports.append(report)
        self._returns.extend(episode.episode_return for episode in report.episodes)
        self._num_episodes += len(report.episodes)

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last 100 episodes; NaN before the first."""
        return float(np.mean(self._returns)) if self._returns else math.nan

    def pop_row(self, *, num_frames: int, num_updates: int, wall_seconds: float, seconds: float):
        """One row over the `seconds` since the last, as name -> number; starts a new period."""
        reports, self._reports = self._reports, []
        frames = sum(report.num_frames for report in reports)
        steps = sum(report.num_steps for report in reports)
        times = {
            part: sum(getattr(report, f"{part}_seconds") for report in reports)
            for part in ("env", "act", "learn", "push", "wait", "hold")
        }
        actor_seconds = sum(times[part] for part in ("env", "act", "learn", "push")) or math.nan
        row: dict[str, float] = {
            "num_frames": num_frames,
            "num_updates": num_updates,
            "wall_seconds": round(wall_seconds, 3),
            "frames_per_second": frames / seconds,
            "steps_per_second": steps / seconds,
            "num_episodes": self._num_episodes,
            "episode_return_mean": self.mean_return,
            **_mean_scalars(reports),
            "staleness_mean": _mean([report.staleness for report in reports]),
            "staleness_max": max((report.staleness for report in reports), default=0),
            "lock_wait_fraction": times["wait"] / actor_seconds,
            "lock_hold_fraction": times["hold"] / actor_seconds,
        }
        for part in ("env", "act", "learn", "push"):
            row[f"{part}_fraction"] = times[part] / actor_seconds
        return row


def _mean_scalars(reports: Sequence[UpdateReport]) -> dict[str, float]:
    """Means of the scalars that the compiled gradient returned."""
    if not reports:
        return {}
    names = reports[0].metrics.loss._fields
    means = {
        name: _mean([float(getattr(report.metrics.loss, name)) for report in reports])
        for name in names
    }
    means["grad_norm"] = _mean([float(report.metrics.grad_norm) for report in reports])
    return means


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
