"""Human-normalised scores of each game, and of methods over all their games."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from a3cjax.reports import tables
from a3cjax.reports.groups import Group
from a3cjax.reports.published import PEERS
from a3cjax.reports.scores import aggregate, stratified_bootstrap
from a3cjax.reports.tables import Table, make_table, text_cell


class Aggregate(NamedTuple):
    """One method over all its Atari games: interquartile mean and its 95 % interval."""

    label: str
    games: tuple[str, ...]
    num_runs: int
    final: float
    final_interval: tuple[float, float]
    best: float
    best_interval: tuple[float, float]


def known(values: Sequence[float]) -> list[float]:
    """The values that are neither NaN nor infinite."""
    return [value for value in values if math.isfinite(value)]


def median(values: Sequence[float]) -> float:
    """The median of the known values; NaN if there is none."""
    numbers = known(values)
    return statistics.median(numbers) if numbers else math.nan


def normalized_table(groups: Sequence[Group]) -> Table | None:
    """A row for each group of an Atari game; None if there is none."""
    rows = []
    for group in groups:
        if group.atari is None:
            continue
        finals = [group.atari.normalize(run.final_score.mean) for run in group.runs]
        bests = [group.atari.normalize(run.best_score) for run in group.runs]
        rows.append(
            (
                text_cell(group.env),
                text_cell(group.label),
                tables.number_cell(len(group.runs)),
                tables.percent_cell(median(finals)),
                tables.percent_cell(median(bests)),
                *(tables.percent_cell(group.atari.normalized_peer(peer)) for peer in PEERS),
                tables.score_cell(group.atari.random),
                tables.score_cell(group.atari.human),
            )
        )
    columns = (
        *("game", "method", "seeds", "final", "best", *(peer.label for peer in PEERS)),
        *("random, raw", "human, raw"),
    )
    return make_table("Human-normalised scores", columns, rows) if rows else None


def aggregate_methods(groups: Sequence[Group]) -> list[Aggregate]:
    """The interquartile means of every method that has scores in Atari games."""
    aggregates = []
    for method in dict.fromkeys(group.method for group in groups):
        finals, bests, members = [], [], []
        for group in groups:
            if group.atari is None or group.method != method:
                continue
            normalize = group.atari.normalize
            final = known([normalize(run.final_score.mean) for run in group.runs])
            if final:
                finals.append(final)
                bests.append(known([normalize(run.best_score) for run in group.runs]))
                members.append(group)
        if members:
            aggregates.append(
                Aggregate(
                    members[0].method_label,
                    tuple(group.env for group in members),
                    sum(map(len, finals)),
                    aggregate(finals),
                    _interval_of(finals),
                    aggregate(bests),
                    _interval_of(bests),
                )
            )
    return aggregates


def _interval_of(scores_by_game: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The interval; NaN if a game has only one seed, as it would leave out that game's chance."""
    if min(map(len, scores_by_game)) < 2:
        return math.nan, math.nan
    return stratified_bootstrap(scores_by_game)


def aggregate_table(aggregates: Sequence[Aggregate], groups: Sequence[Group]) -> Table | None:
    """Our methods with intervals; for each peer, the interquartile mean over the same games."""
    rows = []
    by_env = {group.env: group.atari for group in groups}
    for row in aggregates:
        peers = []
        for peer in PEERS:
            ataris = [by_env[game] for game in row.games]
            scores = [atari.normalized_peer(peer) for atari in ataris if atari is not None]
            is_complete = len(known(scores)) == len(row.games)
            peers.append(aggregate([[score] for score in scores]) if is_complete else math.nan)
        rows.append(
            (
                text_cell(row.label),
                tables.number_cell(len(row.games)),
                tables.number_cell(row.num_runs),
                tables.percent_cell(row.final),
                text_cell(interval_text(row.final_interval)),
                tables.percent_cell(row.best),
                text_cell(interval_text(row.best_interval)),
                *(tables.percent_cell(score) for score in peers),
            )
        )
    columns = (
        *("method", "games", "runs", "final, IQM", "95 % interval", "best, IQM", "95 % interval"),
        *(peer.label for peer in PEERS),
    )
    return make_table("Interquartile mean over games and seeds", columns, rows) if rows else None


def interval_text(ends: tuple[float, float]) -> str:
    """`112 % to 115 %`."""
    if not all(map(math.isfinite, ends)):
        return "needs two seeds a game"
    return f"{tables.format_percent(ends[0])} to {tables.format_percent(ends[1])}"
