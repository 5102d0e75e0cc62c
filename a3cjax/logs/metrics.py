"""Turns the reports of many updates into one row of metrics per logging period."""

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np

from a3cjax.actors.reports import UpdateReport
from a3cjax.runs.tables import COLUMNS, METRICS, RETURN_WINDOW, TIME_PARTS


class MetricsWindow:
    """Sums up reports of the run, or of one actor-learner, between two rows."""

    def __init__(
        self,
        past_returns: Sequence[float] = (),
        memory: float = 0.0,
        num_episodes: int = RETURN_WINDOW,
    ):
        """Starts a period.

        Args:
          past_returns: scores of all episodes before, where a run is resumed.
          memory: weight in [0, 1) of the previous period in rates and means, squared for the one
            before that, and so on; 0 leaves each period by itself. For periods so short that few
            updates fall into one.
          num_episodes: how many of the last episodes, whenever they were, the mean return covers.
        """
        self._returns = collections.deque(past_returns, maxlen=num_episodes)
        self._num_episodes = len(past_returns)
        self._memory = memory
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._metric_sums: dict[str, float] = collections.defaultdict(float)
        self._seconds = 0.0
        self.idle_seconds = 0.0
        """Those of the periods since the last update."""
        self.dropped_in_all = self.restarts_in_all = 0
        """Of all periods together: in a line that is drawn anew each second one would be missed."""
        self.num_updates = self._num_refused = self._num_dropped = self._num_restarts = 0
        self._staleness_max = 0

    def add_restart(self) -> None:
        """Takes in that a process of the run was started again."""
        self._num_restarts += 1
        self.restarts_in_all += 1

    def add(self, report: UpdateReport) -> None:
        """Takes in one update, of which only sums are kept."""
        self._returns.extend(episode.episode_return for episode in report.episodes)
        self._num_episodes += len(report.episodes)
        for name in report.metrics:  # known from the first row on, which decides the columns
            self._metric_sums[name] += 0.0
        if report.bad_trajectory is not None:
            self._num_refused += 1
            return
        self._sums["num_frames"] += report.num_frames
        self._sums["num_steps"] += report.num_steps
        if report.is_dropped:
            self._num_dropped += 1
            self.dropped_in_all += 1
            return
        self.num_updates += 1
        self._sums["num_updates"] += 1
        self._sums["staleness"] += report.staleness
        for part, seconds in report.seconds._asdict().items():
            self._sums[f"{part}_seconds"] += seconds
        for name, value in report.metrics.items():
            self._metric_sums[name] += value
        self._staleness_max = max(self._staleness_max, report.staleness)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been counted in this period."""
        counts = (self.num_updates, self._num_refused, self._num_dropped, self._num_restarts)
        return not any(counts)

    @property
    def mean_return(self) -> float:
        """Mean raw return of the last episodes; NaN before the first."""
        return float(np.mean(self._returns)) if self._returns else math.nan

    def pop_row(self, seconds: float) -> dict[str, float]:
        """One row over the `seconds` since the last; starts a new period.

        Returns:
          Name -> number, NaN where it is unknown. An algorithm's metric that has the name of one
          of the run's own is `loss_<name>`.
        """
        self._seconds += seconds
        self.idle_seconds = 0.0 if self.num_updates else self.idle_seconds + seconds
        sums = self._sums
        count = sums["num_updates"] or math.nan
        actor_seconds = sum(sums[f"{part}_seconds"] for part in TIME_PARTS) or math.nan
        progress: dict[str, float] = {
            "frames_per_second": sums["num_frames"] / self._seconds,
            "steps_per_second": sums["num_steps"] / self._seconds,
            "num_episodes": self._num_episodes,
            "episode_return_mean": self.mean_return,
        }
        actors = {
            "staleness_mean": sums["staleness"] / count,
            "staleness_max": self._staleness_max,
            "num_refused_updates": self._num_refused,
            "num_dropped_updates": self._num_dropped,
            "num_restarts": self._num_restarts,
            "lock_wait_fraction": sums["wait_seconds"] / actor_seconds,
            "lock_hold_fraction": sums["hold_seconds"] / actor_seconds,
            **{f"{part}_fraction": sums[f"{part}_seconds"] / actor_seconds for part in TIME_PARTS},
        }
        taken = {*COLUMNS[METRICS], *actors}
        means = {
            f"loss_{name}" if name in taken else name: total / count
            for name, total in self._metric_sums.items()
        }
        self._sums = _fade(sums, self._memory)
        self._metric_sums = _fade(self._metric_sums, self._memory)
        self._seconds *= self._memory
        self.num_updates = self._num_refused = self._num_dropped = self._num_restarts = 0
        self._staleness_max = 0
        return {**progress, **means, **actors}


def _fade(sums: Mapping[str, float], memory: float) -> dict[str, float]:
    """Sums weighted for the next period; those that are not finite are forgotten."""
    faded: dict[str, float] = collections.defaultdict(float)
    if memory:
        faded |= {name: memory * value for name, value in sums.items() if math.isfinite(value)}
    return faded
