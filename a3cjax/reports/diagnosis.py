"""Warnings, in words, about runs that seem to have gone wrong: what was seen, and what to try."""

import collections
import itertools
import math
from typing import NamedTuple

import numpy as np

from a3cjax.reports.published import PEERS, AtariScores, atari_scores
from a3cjax.reports.runs import Run, number
from a3cjax.reports.tables import format_frames, format_number, format_percent, format_score
from a3cjax.runs.tables import ENVIRONMENT_FILE, EpisodeRow, read_json

# A plateau: seeds of Pong that stay between −5 and 12 of 21 points for the rest of a budget.
FAR_BELOW = 0.8  # of the way from random play to the best published score: 12.5 points in Pong
STILL_RISING = 0.2  # of the mean rise in each third before; 0.14 in the bad seed of issue 19
AS_RANDOM = 0.02  # of the way from random play to a human: below, it is no better than random play
LEAST_PLATEAU = 500_000  # frames: good seeds have shorter ones, too
SMOOTHING = 0.05  # of the budget, over which a mean score is averaged again
# Repeated games: of 100 games in our sound runs at least 48 differ, at most 2 in a row are equal.
NUM_GAMES = 100
FEW_DISTINCT = 10
MANY_IN_A_ROW = 10
SHORT_GAME = 50  # steps: games such as Catch have few ways to go
# Entropy, as a fraction of a random policy's; sound runs of Pong end with 0.85 to 0.95.
COLLAPSED = 0.05
RANDOM = 0.98
NEARLY_RANDOM = 0.9  # where the score is that of random play, too
LEAST_SHARE = 1 / 3  # of the budget, before which a policy may still be random
# Staleness, as a multiple of the number of other actors: if all are equally fast, the mean is 1.0
# (as in our runs with 2 and with 16), and the largest in a period up to 3.
MOST_MEAN_STALENESS = 2.0
MOST_STALENESS = 10.0
# Share of the periods. By itself it means nothing: MuJoCo's gradients are clipped all the time.
OFTEN_CLIPPED = 0.5
OFTEN_DROPPED = 0.1  # of the gradients; outliers beyond 3 standard deviations are a hundredth


class Warned(NamedTuple):
    """One thing that looks wrong: a name for it, and a sentence with the number seen."""

    name: str
    sentence: str


def diagnose(run: Run) -> tuple[Warned, ...]:
    """What looks wrong in a run, the most telling first; nothing in a sound one."""
    atari = atari_scores(run.env)
    plateau, repeats = _plateau(run, atari), _repeats(run, atari)
    is_random = _is_no_better_than_random(run, atari)
    found = (
        plateau,
        repeats,
        _entropy(run, is_random=is_random),
        _staleness(run),
        _clipping(run) if plateau or is_random else None,
        _refused(run),
        _dropped(run),
    )
    return tuple(warned for warned in found if warned is not None)


def _plateau(run: Run, atari: AtariScores | None) -> Warned | None:
    """The score stands still in the last third of the budget, far below what others reached."""
    budget = number(run.settings, "total_frames")
    if atari is None or not run.num_frames >= (1 - SMOOTHING) * budget:
        return None
    best = max(score for score in (*map(atari.peer, PEERS), atari.human) if math.isfinite(score))
    reached = max(run.final_score.mean, run.last_training)
    before, after = (_mean_until(run, share * budget, budget) for share in (2 / 3, 1))
    rise, rise_before = after - before, (before - atari.random) / 2
    games = [game.episode_return for game in run.episodes[-NUM_GAMES:]]
    # The standard error of the difference between two means of this many games.
    noise = math.sqrt(2 / len(games)) * float(np.std(games)) if games else 0.0
    least = max(STILL_RISING * rise_before, noise)
    is_far = reached - atari.random < FAR_BELOW * (best - atari.random)
    if not (is_far and rise < least and budget / 3 >= LEAST_PLATEAU):
        return None
    return Warned(
        "plateau",
        f"the score stands still, from {format_score(before)} to {format_score(after)} in the "
        f"last {format_frames(budget / 3)} frames, where {format_score(best)} was published; "
        "try a larger value_cost, algorithm=ppo or other seeds",
    )


def _mean_until(run: Run, frames_now: float, budget: float) -> float:
    """The mean return at `frames_now`, averaged over the time just before; NaN if unknown."""
    frames, _, returns = run.training_curve
    recent = returns[(frames > frames_now - SMOOTHING * budget) & (frames <= frames_now)]
    return float(recent.mean()) if len(recent) else math.nan


def _repeats(run: Run, atari: AtariScores | None) -> Warned | None:
    """The last games are copies of each other, and not because nothing is left to be won."""
    episodes = run.episodes
    games = [(game.episode_return, game.episode_length) for game in episodes[-NUM_GAMES:]]
    if len(games) < NUM_GAMES or np.mean([length for _, length in games]) < SHORT_GAME:
        return None
    most_in_a_row = max(len([*copies]) for _, copies in itertools.groupby(games))
    num_distinct = len(set(games))
    ((score, length), _), *_ = collections.Counter(games).most_common(1)
    is_repeated = num_distinct <= FEW_DISTINCT or most_in_a_row >= MANY_IN_A_ROW
    if not is_repeated or _is_won(score, episodes, atari):
        return None
    return Warned(
        "repeats",
        f"games repeat each other: of the last {NUM_GAMES} only {num_distinct} differ, up to "
        f"{most_in_a_row} in a row are equal, most often {format_score(score)} after "
        f"{format_number(length)} steps; try another seed, or an environment with more chance "
        "in it (Atari games with protocol=machado)",
    )


def _is_won(score: float, episodes: list[EpisodeRow], atari: AtariScores | None) -> bool:
    """Whether a score is about as good as possible or, if nothing is published, the run's best."""
    if atari is None:
        return score >= max(game.episode_return for game in episodes)
    best = max(score for score in map(atari.peer, PEERS) if math.isfinite(score))
    return score - atari.random >= FAR_BELOW * (best - atari.random)


def _is_no_better_than_random(run: Run, atari: AtariScores | None) -> bool:
    """Compares with published scores or, where there are none, with the run's own first games.

    The score of a run that scores as it did at first may also be the best that there is.
    """
    returns = run.full_means[1]
    if not len(returns):
        return False
    if atari is None:
        episodes = run.episodes
        if len(returns) < 2 or not episodes or _is_won(returns[-1], episodes, atari):
            return False
        first = np.mean([game.episode_return for game in episodes[:NUM_GAMES]])
        return bool(returns[-1] <= first)
    return bool(returns[-1] - atari.random < AS_RANDOM * abs(atari.human - atari.random))


def _entropy(run: Run, *, is_random: bool) -> Warned | None:
    """The policy has collapsed before it learned anything, or has remained the random one."""
    random = _random_entropy(run)
    frames, values = run.column("num_frames"), run.column("entropy")
    frames, values = frames[np.isfinite(values)], values[np.isfinite(values)]
    if not len(values) or not random > 0:
        return None
    last = float(np.median(values[-max(1, len(values) // 10) :]))
    seen = f"entropy ended at {last:.2f} of {random:.2f} nats"
    if last < COLLAPSED * random and is_random:
        return Warned(
            "collapsed",
            f"the policy collapsed before it learned anything: {seen} "
            f"({format_percent(last / random)}), the score is that of random play; "
            "try a larger entropy_cost or a smaller learning_rate",
        )
    begun = frames[-1] >= LEAST_SHARE * number(run.settings, "total_frames")
    lowest, limit = (last, NEARLY_RANDOM) if is_random else (float(values.min()), RANDOM)
    if begun and lowest > limit * random:
        is_normal = run.settings.get("normalize_advantages") is True
        return Warned(
            "random",
            f"the policy hardly left that of random play: {seen}; try "
            f"{'' if is_normal else 'normalize_advantages=true, '}"
            "a smaller entropy_cost, a larger learning_rate, or more frames",
        )
    return None


def _random_entropy(run: Run) -> float:
    """The entropy, in nats, of choosing all actions alike; NaN for continuous actions."""
    space = (read_json(run.folder / ENVIRONMENT_FILE) or {}).get("action_space")
    space = space if isinstance(space, dict) else {}
    kind, sizes = space.get("type"), space.get("nvec", space.get("n"))
    counts = [number({"n": size}, "n") for size in np.array(sizes, dtype=object).ravel()]
    if kind not in ("Discrete", "MultiDiscrete", "MultiBinary") or not all(n >= 1 for n in counts):
        return math.nan
    return math.prod(counts) * math.log(2) if kind == "MultiBinary" else sum(map(math.log, counts))


def _staleness(run: Run) -> Warned | None:
    """Gradients are older than the number of actors explains."""
    num_others = max(1.0, number(run.settings, "num_actors", fallback=1) - 1)
    mean, largest = run.typical("staleness_mean"), run.typical("staleness_max")
    if not (mean > MOST_MEAN_STALENESS * num_others or largest > MOST_STALENESS * num_others):
        return None
    return Warned(
        "stale",
        f"gradients are applied late: {mean:.1f} updates in the mean and {largest:.0f} at the "
        f"most, with {num_others + 1:.0f} actors; try fewer actors than cores, and look whether "
        "something else uses the machine",
    )


def _clipping(run: Run) -> Warned | None:
    """Most gradients are cut to the bound: reported only for runs that do not learn."""
    bound, norms = number(run.settings, "max_grad_norm"), run.column("grad_norm")
    norms = norms[np.isfinite(norms)]
    if not len(norms) or not (share := float(np.mean(norms > bound))) > OFTEN_CLIPPED:
        return None
    return Warned(
        "clipped",
        f"the gradient is cut to max_grad_norm={bound:g} in {format_percent(share)} of the "
        f"periods, its norm is {format_number(float(np.median(norms)))}; try rewards of another "
        "scale (normalize_rewards), or a smaller learning_rate",
    )


def _refused(run: Run) -> Warned | None:
    """Updates were not finite: never so in a sound run."""
    num_refused = run.total("num_refused_updates")
    if not num_refused > 0:
        return None
    return Warned(
        "refused",
        f"{format_number(num_refused)} updates were refused, because they were not finite; look "
        "at bad-trajectory.npz, and try a smaller learning_rate",
    )


def _dropped(run: Run) -> Warned | None:
    """A good part of what was played is not learned from."""
    num_dropped, num_updates = run.total("num_dropped_updates"), run.largest("num_updates")
    if not num_dropped > 0:
        return None
    share = num_dropped / (num_dropped + num_updates)
    if not share > OFTEN_DROPPED:
        return None
    return Warned(
        "dropped",
        f"{format_percent(share)} of the gradients were dropped, and what was played for them is "
        "lost; try a larger max_staleness or outlier_deviations, or fewer actors",
    )
