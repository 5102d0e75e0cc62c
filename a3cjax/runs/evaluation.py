"""The result of an evaluation: whole games with fixed parameters, every score kept."""

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from a3cjax.envs.base import Episode


def describe_games(result: Mapping[str, Any]) -> str:
    """`30 full games`, or `3 games, 1 cut`, of what `Evaluation.as_dict` gives."""
    num_games, num_cut = result["num_episodes"], result.get("num_cut", 0)
    games = f"{'' if num_cut else 'full '}game{'' if num_games == 1 else 's'}"
    return f"{num_games:d} {games}" + (f", {num_cut:d} cut" if num_cut else "")


class Evaluation(NamedTuple):
    """Scores of all games, in order of their environment, and how they were played.

    `num_cut` games were cut before they ended; their scores count up to there.
    """

    episodes: list[Episode]
    is_greedy: bool
    num_cut: int = 0

    @property
    def mean(self) -> float:
        """Mean score."""
        return statistics.fmean(self.scores)

    @property
    def scores(self) -> list[float]:
        """Raw, unclipped scores."""
        return [episode.episode_return for episode in self.episodes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for summary.json."""
        scores = self.scores
        return {
            "actions": "greedy" if self.is_greedy else "sampled",
            "num_episodes": len(scores),
            "num_cut": self.num_cut,
            "mean": self.mean,
            "median": statistics.median(scores),
            "standard_deviation": statistics.pstdev(scores),
            "min": min(scores),
            "max": max(scores),
            "scores": scores,
            "lengths": [episode.episode_length for episode in self.episodes],
        }
