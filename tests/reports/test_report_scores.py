import itertools
import math

import numpy as np
import pytest
import scipy.stats

from a3cjax.reports.published import (
    DATA,
    PEERS,
    atari_scores,
    plain_game,
    published_curves,
)
from a3cjax.reports.scores import (
    NUM_RESAMPLES,
    aggregate,
    game_weights,
    human_normalized,
    interquartile_mean,
    stratified_bootstrap,
)
from a3cjax.runs.tables import read_rows
from tests.cases import for_each


def test_random_play_is_0_and_human_is_1():
    assert human_normalized(-20.7, random=-20.7, human=14.6) == 0
    assert human_normalized(14.6, random=-20.7, human=14.6) == 1
    # Half the way from -20 to 10.
    assert human_normalized(-5.0, random=-20.0, human=10.0) == pytest.approx(0.5)


def test_more_is_better_also_where_random_play_beats_the_human():
    # Video Pinball from human starts: 20452.0 at random, 15641.1 for the human.
    assert human_normalized(25262.9, random=20452.0, human=15641.1) == pytest.approx(1)
    assert human_normalized(331628.1, random=20452.0, human=15641.1) > 1


def test_normalised_scores_of_the_paper_have_the_median_that_it_tells():
    paper = next(peer for peer in PEERS if peer.from_human_starts)
    games = [row["game"] for row in read_rows(DATA / "atari_scores.csv")[0]]
    scores = [atari_scores(game).normalized_peer(paper) for game in games]
    assert len(scores) == 57
    assert np.median(scores) == pytest.approx(1.166, abs=1e-3)  # Mnih et al. 2016, table 1


def test_human_normalized_refuses_a_human_like_random_play():
    with pytest.raises(ValueError, match="human must differ from random"):
        human_normalized(1.0, random=2.0, human=2.0)


@for_each("num_scores", [1, 2, 3, 4, 5, 7, 8, 15, 24])
def test_interquartile_mean_agrees_with_scipy(num_scores):
    scores = np.random.default_rng(num_scores).normal(size=(6, num_scores))
    expected = scipy.stats.trim_mean(scores, 0.25, axis=1)
    np.testing.assert_allclose(interquartile_mean(scores), expected)


def test_weighted_interquartile_mean_is_that_of_repeated_scores():
    # Seeds a game: 3, 1, 2. Of 12 copies a game, 36 in all, a quarter can be cut off exactly.
    games = [[0.3, 5.0, -1.0], [2.0], [0.9, 7.0]]
    repeated = np.concatenate([np.repeat(game, 12 // len(game)) for game in games])
    expected = scipy.stats.trim_mean(repeated, 0.25)
    assert aggregate(games) == pytest.approx(expected)


def test_games_with_as_many_seeds_need_no_weights():
    assert game_weights([[1.0, 2.0], [3.0, 4.0]]) is None
    np.testing.assert_allclose(game_weights([[1.0, 2.0], [3.0]]), [0.5, 0.5, 1.0])


def test_interquartile_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one score"):
        interquartile_mean([])


def enumerate_resamples(games):
    """The interquartile means of all resamples that can be drawn, each as likely as the others."""
    draws = [itertools.product(game, repeat=len(game)) for game in games]
    return sorted(
        scipy.stats.trim_mean(np.concatenate(draw), 0.25) for draw in itertools.product(*draws)
    )


@for_each(
    "games",
    [
        [[0.1, 0.9], [2.0, 3.7]],
        [[0.1, 0.9, 1.4], [2.0, 3.7, -0.6]],
        [[1.0, 2.0, 4.0, 8.0, 16.0]],
        [[0.2, 0.3], [1.0, 1.7], [0.0, 5.0]],
    ],
)
def test_bootstrap_agrees_with_all_resamples_enumerated(games):
    every, tail = enumerate_resamples(games), 0.025
    # The ends of so many draws lie between quantiles a little to either side.
    slack = 4 * math.sqrt(tail * (1 - tail) / NUM_RESAMPLES)
    low, high = stratified_bootstrap(games)
    below, above = np.quantile(every, [tail - slack, tail + slack], method="inverted_cdf")
    assert below - 1e-9 <= low <= above + 1e-9
    below, above = np.quantile(every, [1 - tail - slack, 1 - tail + slack], method="inverted_cdf")
    assert below - 1e-9 <= high <= above + 1e-9


def test_bootstrap_never_mixes_games():
    # If games were mixed, a resample could hold four times the 10.
    assert stratified_bootstrap([[0.0, 0.0], [10.0, 10.0]]) == (5.0, 5.0)


def test_bootstrap_of_games_with_different_numbers_of_seeds_weighs_games_alike():
    games = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [10.0, 10.0]]
    assert stratified_bootstrap(games) == pytest.approx((5.0, 5.0))
    assert aggregate(games) == pytest.approx(5.0)


def test_bootstrap_is_repeatable_and_contains_its_estimate():
    games = [np.random.default_rng(seed).normal(size=5) for seed in range(5)]
    interval = stratified_bootstrap(games)
    assert interval == stratified_bootstrap(games)
    assert interval[0] < aggregate(games) < interval[1]


@for_each("env", ["Breakout", "Breakout-v5", "gymnasium:ALE/Breakout-v5", "BreakoutNoFrameskip-v4"])
def test_every_name_of_a_game_finds_its_published_scores(env):
    scores = atari_scores(env)
    assert scores is not None
    # dqn_zoo's atari_data.py.
    assert (scores.random, scores.human) == (1.7, 30.5)


@for_each(
    "env",
    [
        *("CartPole-v1", "gymnasium:my_module:Breakout-v0", "gymnasium:mine/Breakout-v0"),
        *("Breakou", "囲碁-v0"),
    ],
)
def test_other_environments_have_no_published_scores(env):
    assert atari_scores(env) is None


def test_environments_of_the_same_name_from_elsewhere_are_other_ones():
    names = ("gymnasium:mine/Maze-v0", "gymnasium:yours/Maze-v0", "囲碁-v0", "象棋-v0")
    assert len(set(map(plain_game, names))) == 4


def test_published_curves_have_their_place_in_all_games():
    places = {}
    for env in ("Pong", "Breakout", "Qbert"):
        for curve in published_curves(env, {"a3c", "n_step_q"}, "frames"):
            assert places.setdefault(curve.label, curve.place) == curve.place
    assert len(places) == len(set(places.values())) == 8


def test_the_papers_scores_are_normalised_by_human_starts():
    scores = atari_scores("Pong")
    paper = next(peer for peer in PEERS if peer.from_human_starts)
    # Table S3 of the A3C paper: 5.6; from human starts random play has -18.0, humans 15.5.
    assert scores.normalized_peer(paper) == pytest.approx((5.6 + 18.0) / (15.5 + 18.0))
    others = [peer for peer in PEERS if peer.column == "dqn"]
    assert scores.normalized_peer(others[0]) == pytest.approx((18.9 + 20.7) / (14.6 + 20.7))


@for_each("env", ["Pong", "Breakout", "BeamRider", "Qbert", "SpaceInvaders"])
def test_the_games_of_the_papers_figure_have_published_curves(env):
    over_frames = published_curves(env, {"a3c"}, "frames")
    over_hours = published_curves(env, {"a3c"}, "hours")
    assert "A3C, 16 threads (paper)" in [curve.label for curve in over_frames]
    assert [curve.label for curve in over_hours] == [
        "A3C, 16 threads (paper)",
        "DQN, one GPU (paper)",
    ]
    for curve in (*over_frames, *over_hours):
        assert len(curve.x) > 10
        assert (np.diff(curve.x) >= 0).all()
        assert np.isfinite(curve.y).all()
    labels = [curve.label for curve in over_frames]
    assert len(labels) == len(set(labels))
    assert not [label for label in labels if "step" in label]  # other algorithms than ours
    for x_kind, others in (("frames", 2), ("hours", 3)):  # where several algorithms are compared
        labels = [curve.label for curve in published_curves(env, {"a3c", "n_step_q"}, x_kind)]
        assert sum("step" in label for label in labels) == others
        assert "n-step Q, 16 threads (paper)" in labels
