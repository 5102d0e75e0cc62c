"""Statistics over games and seeds: human-normalised scores, interquartile mean, bootstrap.

The interquartile mean over all runs of all games, with intervals from a bootstrap stratified
by game, is what Agarwal et al. 2021 (arXiv:2108.13264) recommend for a handful of seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def human_normalized(score: float, random: float, human: float) -> float:
    """(score − random) / (human − random): 0 is random play, 1 is human.

    Args:
      score: raw score of a game.
      random: raw score of random play.
      human: raw score of a human; it may be lower than `random` (Video Pinball).

    Returns:
      The fraction; NaN where any of the three is NaN.

    Raises:
      ValueError: if `human` equals `random`.
    """
    if human == random:
        raise ValueError(f"human must differ from random, got {human} for both.")
    return (score - random) / (human - random)


def interquartile_mean(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean of the middle half: a quarter of the scores, rounded down, is cut off at each end.

    Args:
      scores: `[..., N]`, N >= 1; fewer than four are not cut.

    Returns:
      `[...]`.

    Raises:
      ValueError: if there is no score.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=-1)
    num_scores = ordered.shape[-1]
    if num_scores == 0:
        raise ValueError("scores must hold at least one score, got none.")
    num_cut = num_scores // 4
    return ordered[..., num_cut : num_scores - num_cut].mean(axis=-1)


def stratified_bootstrap(
    scores_by_game: Sequence[npt.ArrayLike],
    statistic: Statistic = interquartile_mean,
    *,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval by the percentiles of a bootstrap stratified by game.

    Each resample draws, in every game, as many seeds as there are, with replacement. So the
    interval tells of the chance in the seeds, for these games; games are not drawn.

    Args:
      scores_by_game: one `[num_seeds]` a game, each at least one seed; the numbers may differ.
      statistic: `[num_resamples, N]` -> `[num_resamples]`, N the number of all runs.
      level: the probability that the interval is to cover, in (0, 1).
      num_resamples: how many resamples, >= 1.
      seed: of the random numbers; the same seed gives the same interval.

    Returns:
      Lower and upper end. Both are NaN where no game has two seeds: there is nothing to draw.

    Raises:
      ValueError: if there is no game, a game has no seed, or a number is out of its range.
    """
    games = [np.asarray(scores, np.float64) for scores in scores_by_game]
    if not games or any(scores.ndim != 1 or scores.size == 0 for scores in games):
        shapes = [scores.shape for scores in games]
        raise ValueError(f"scores_by_game must hold at least one seed a game, got {shapes}.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")
    if all(scores.size == 1 for scores in games):
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    resampled = [
        scores[generator.integers(scores.size, size=(num_resamples, scores.size))]
        for scores in games
    ]
    values = statistic(np.concatenate(resampled, axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
