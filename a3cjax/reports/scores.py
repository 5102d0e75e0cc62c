"""Statistics over games and seeds: human-normalised scores, interquartile mean, bootstrap.

The interquartile mean over all runs of all games, with intervals from a bootstrap stratified
by game, is what Agarwal et al. 2021 (arXiv:2108.13264) recommend for a handful of seeds.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NUM_RESAMPLES = 10_000  # of a bootstrap


def human_normalized(score: float, random: float, human: float) -> float:
    """(score − random) / |human − random|: 0 is random play, 1 is human.

    The absolute value matters where random play beats the human, as in Video Pinball from
    human starts: more must remain better. Only with it do the scores of the A3C paper's table
    S3 have the medians of its table 1, to 0.1: 68.2, 116.6 and 112.6 %.

    Args:
      score: raw score of a game.
      random: raw score of random play.
      human: raw score of a human; where it is lower than `random`, a human has −1.

    Returns:
      The fraction; NaN where any of the three is NaN.

    Raises:
      ValueError: if `human` equals `random`.
    """
    if human == random:
        raise ValueError(f"human must differ from random, got {human} for both.")
    return (score - random) / abs(human - random)


def interquartile_mean(scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """Mean of the middle half of the scores.

    Without weights, a quarter of the scores, rounded down, is cut off at each end. With
    weights, exactly a quarter of their sum is: a score at the edge counts in part.

    Args:
      scores: `[..., N]`, N >= 1.
      weights: `[N]`, each > 0; None for equal ones.

    Returns:
      `[...]`.

    Raises:
      ValueError: if there is no score.
    """
    scores = np.asarray(scores, np.float64)
    num_scores = scores.shape[-1]
    if num_scores == 0:
        raise ValueError("scores must hold at least one score, got none.")
    if weights is None:
        num_cut = num_scores // 4
        return np.sort(scores, axis=-1)[..., num_cut : num_scores - num_cut].mean(axis=-1)
    order = np.argsort(scores, axis=-1)
    shares = np.asarray(weights, np.float64)[order] / np.sum(weights)
    ends = np.cumsum(shares, axis=-1)
    # How much of each score lies between the first quarter and the last.
    inside = np.clip(ends, 0.25, 0.75) - np.clip(ends - shares, 0.25, 0.75)
    ordered = np.take_along_axis(scores, order, axis=-1)
    return (inside * ordered).sum(axis=-1) / inside.sum(axis=-1)


def game_weights(scores_by_game: Sequence[npt.ArrayLike]) -> Array | None:
    """The weights `[N]` with which all games count the same, whatever their number of seeds.

    None if all games have the same number of seeds.
    """
    sizes = [np.size(scores) for scores in scores_by_game]
    if len(set(sizes)) == 1:
        return None
    return np.concatenate([np.full(size, 1 / size) for size in sizes])


def aggregate(scores_by_game: Sequence[npt.ArrayLike]) -> float:
    """Interquartile mean over all runs of all games, in which all games count the same.

    Args:
      scores_by_game: one `[num_seeds]` a game.
    """
    return float(
        interquartile_mean(
            np.concatenate([np.asarray(scores, np.float64) for scores in scores_by_game]),
            game_weights(scores_by_game),
        )
    )


def stratified_bootstrap(scores_by_game: Sequence[npt.ArrayLike]) -> tuple[float, float]:
    """95 % interval of `aggregate`, by the percentiles of a bootstrap stratified by game.

    Each resample draws, in every game, as many seeds as there are, with replacement. So the
    interval reflects the chance in the seeds, for these games; games are not drawn.

    Args:
      scores_by_game: one `[num_seeds]` a game, each at least one seed; the numbers may differ.

    Returns:
      Lower and upper end; the same scores give the same ones.
    """
    games = [np.asarray(scores, np.float64) for scores in scores_by_game]
    generator = np.random.default_rng(0)
    resampled = [
        scores[generator.integers(scores.size, size=(NUM_RESAMPLES, scores.size))]
        for scores in games
    ]
    values = interquartile_mean(np.concatenate(resampled, axis=1), game_weights(games))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
