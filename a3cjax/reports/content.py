"""What a report says, as plain data: key numbers, tables and notes of a list of runs."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from a3cjax.errors import one_line
from a3cjax.reports import tables
from a3cjax.reports.aggregates import (
    Aggregate,
    aggregate_methods,
    aggregate_table,
    interval_text,
    known,
    median,
    normalized_table,
)
from a3cjax.reports.diagnosis import diagnose
from a3cjax.reports.groups import Group, differing_settings, group_runs
from a3cjax.reports.published import PEERS
from a3cjax.reports.runs import Run
from a3cjax.reports.tables import Table, make_table, text_cell
from a3cjax.runs.tables import TIME_PARTS
from a3cjax.system.provenance import PACKAGES as OWN_PACKAGES

SCORE_KINDS = {"evaluation": "final evaluation", "training": "last training games"}
PACKAGES = ("python", *OWN_PACKAGES)
MAX_SEED_DIGITS = 15  # a longer one is text: Python makes no number of thousands of digits
# Columns of metrics.csv, as far as an algorithm has them.
COURSE = {
    "episode_return_mean": "score in training",
    "entropy": "entropy, nats",
    "q_value": "Q of the actions taken",
    "explained_variance": "explained variance",
    "value_loss": "value loss",
    "staleness_mean": "staleness",
    "grad_norm": "gradient norm",
}
# Shown if a run has any.
COUNTED = {
    "num_refused_updates": "updates refused",
    "num_dropped_updates": "updates dropped",
    "num_restarts": "restarts",
}


class Card(NamedTuple):
    """Key numbers of a group or a method: a large one with its caption, and facts (name, value).

    `published` holds the raw scores of others.
    """

    heading: str
    value: str
    caption: str
    facts: tuple[tuple[str, str], ...]
    published: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """Everything a report shows except pictures; `games` has the groups of each game."""

    title: str
    subtitle: str
    runs: tuple[Run, ...]
    games: tuple[tuple[Group, ...], ...]
    cards: tuple[Card, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    course: Table
    scores: Table
    normalized: Table | None
    aggregate_table: Table | None
    speed: Table
    settings: Table | None
    shared_settings: tuple[str, ...]
    origin: Table
    shows_published: bool


def make_content(runs: Sequence[Run], title: str | None, *, show_published: bool) -> Content:
    """Gathers what a report says.

    Args:
      runs: at least one.
      title: of the report; None for one made of the games' names.
      show_published: whether published curves are to be laid under ours.
    """
    groups = group_runs(runs)
    by_game: dict[str, list[Group]] = {}
    for group in groups:
        by_game.setdefault(group.game, []).append(group)
    games = tuple(tuple(members) for members in by_game.values())
    missing = [f"{run.name}: {note}" for run in runs for note in run.notes]
    names = [members[0].env for members in games]
    aggregates = tuple(aggregate_methods(groups))
    differing, shared = differing_settings(groups)
    return Content(
        title=one_line(title or f"a3cjax: {_join(names)}"),
        subtitle=_subtitle(runs, len(games)),
        runs=tuple(runs),
        games=games,
        cards=(
            *(_card(group, len(members)) for members in games for group in members),
            *(_aggregate_card(row) for row in aggregates if len(row.games) > 1),
        ),
        missing=tuple(missing),
        warnings=tuple(
            f"{run.name}: {warned.sentence}" for run in runs for warned in diagnose(run)
        ),
        course=_course_table(runs),
        scores=_scores_table(groups),
        normalized=normalized_table(groups),
        aggregate_table=aggregate_table(aggregates, groups),
        speed=_speed_table(runs),
        settings=_settings_table(groups, differing),
        shared_settings=tuple(shared),
        origin=_origin_table(runs),
        shows_published=show_published,
    )


def group_name(group: Group, num_rivals: int) -> str:
    """The game, with the group's label if the report has other groups of the same game."""
    return group.env if num_rivals == 1 else f"{group.env}, {group.label}"


def peer_note() -> str:
    """Whose scores the columns of published scores are."""
    return "; ".join(f"{peer.label}: {peer.note}" for peer in PEERS)


def _join(names: Sequence[str]) -> str:
    if len(names) > 4:
        return f"{len(names)} games"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _subtitle(runs: Sequence[Run], num_games: int) -> str:
    frames = sum(run.num_frames for run in runs if math.isfinite(run.num_frames))
    seconds = sum(run.wall_seconds for run in runs if math.isfinite(run.wall_seconds))
    return (
        f"{len(runs)} run{'s' * (len(runs) != 1)} of {num_games} game{'s' * (num_games != 1)}, "
        f"{tables.format_frames(frames)} frames in {tables.format_duration(seconds)} of training"
    )


def _card(group: Group, num_rivals: int) -> Card:
    finals = known([run.final_score.mean for run in group.runs])
    final = median(finals)
    kinds = {run.final_score.kind for run in group.runs}
    caption = " or ".join(name for kind, name in SCORE_KINDS.items() if kind in kinds)
    caption = caption or "no game was finished yet"
    if len(finals) > 1:
        spread = tables.format_range(min(finals), max(finals))
        caption += f", median of {len(finals)} seeds: {spread}"
    frames = median([run.num_frames for run in group.runs])
    seconds = median([run.wall_seconds for run in group.runs])
    facts = [
        ("best score", tables.format_score(median([run.best_score for run in group.runs]))),
        ("frames", tables.format_frames(frames)),
        ("time", tables.format_duration(seconds)),
    ]
    published = []
    if group.atari is not None:
        atari = group.atari
        facts.insert(1, ("of human", tables.format_percent(atari.normalize(final))))
        scores = [(peer.label, atari.peer(peer)) for peer in PEERS]
        scores += [("human", atari.human), ("random", atari.random)]
        published = [
            (label, tables.format_score(score)) for label, score in scores if math.isfinite(score)
        ]
    return Card(
        group_name(group, num_rivals),
        tables.format_score(final),
        caption,
        tuple(facts),
        tuple(published),
    )


def _aggregate_card(row: Aggregate) -> Card:
    facts = [("best score", tables.format_percent(row.best)), ("runs", str(row.num_runs))]
    if math.isfinite(row.final_interval[0]):
        facts.insert(0, ("95 % interval", interval_text(row.final_interval)))
    caption = "of human: interquartile mean of the final scores"
    heading = f"{len(row.games)} Atari games, {row.label}"
    return Card(heading, tables.format_percent(row.final), caption, tuple(facts), ())


def _scores_table(groups: Sequence[Group]) -> Table:
    rows = []
    has_methods = len({group.label for group in groups}) > 1
    for group in groups:
        for run in group.runs:
            final, games = run.final_score, run.final_score.games
            spread = tables.format_range(min(games), max(games)) if games else tables.DASH
            if final.kind == "training":
                spread = "training games"
            to_human = run.frames_to(group.atari.human) if group.atari else math.nan
            rows.append(
                (
                    text_cell(run.name),
                    text_cell(run.env),
                    *((text_cell(group.label),) if has_methods else ()),
                    _seed_cell(run),
                    tables.frames_cell(run.num_frames),
                    tables.seconds_cell(run.wall_seconds),
                    tables.score_cell(final.mean),
                    text_cell(spread),
                    tables.score_cell(run.best_evaluation),
                    tables.score_cell(run.best_training),
                    tables.frames_cell(to_human),
                )
            )
    columns = (
        *("run", "game", *(("method",) if has_methods else ()), "seed", "frames", "time"),
        *("final score", "its games", "best evaluation", "best in training", "human level at"),
    )
    return make_table("Scores of all runs", columns, rows)


def _seed_cell(run: Run) -> tables.Cell:
    is_number = run.seed.isdecimal() and len(run.seed) <= MAX_SEED_DIGITS
    return tables.Cell(run.seed, int(run.seed)) if is_number else text_cell(run.seed)


def _course_table(runs: Sequence[Run]) -> Table:
    """How the numbers that describe learning developed in each run."""
    shown = {
        name: label for name, label in COURSE.items() if any(name in run.metrics for run in runs)
    }
    rows = [
        (text_cell(run.name), *(tables.curve_cell(run.column(name)) for name in shown))
        for run in runs
    ]
    return make_table("How training went", ("run", *shown.values()), rows)


def _speed_table(runs: Sequence[Run]) -> Table:
    counted = [name for name in COUNTED if any(run.total(name) > 0 for run in runs)]
    rows = [
        (
            text_cell(run.name),
            tables.number_cell(run.frames_per_second),
            tables.number_cell(run.typical("frames_per_second")),
            tables.number_cell(run.typical("staleness_mean"), 2),
            tables.number_cell(run.largest("staleness_max")),
            tables.percent_cell(run.typical("lock_wait_fraction"), 1),
            *(tables.percent_cell(run.time_fractions[part]) for part in TIME_PARTS),
            *(tables.number_cell(run.total(name)) for name in counted),
        )
        for run in runs
    ]
    columns = (
        *("run", "frames/s, whole run", "frames/s, typical", "staleness, typical"),
        *("staleness, largest", "waiting for the lock", *TIME_PARTS),
        *(COUNTED[name] for name in counted),
    )
    return make_table("Speed and staleness", columns, rows)


def _settings_table(
    groups: Sequence[Group], differing: Sequence[tuple[str, list[str]]]
) -> Table | None:
    if not differing:
        return None
    rivals = {group.game: sum(other.game == group.game for other in groups) for group in groups}
    columns = ["setting", *(group_name(group, rivals[group.game]) for group in groups)]
    rows = [
        (text_cell(name, is_code=True), *(text_cell(value) for value in values))
        for name, values in differing
    ]
    return make_table("Settings that differ", columns, rows)


def _origin_table(runs: Sequence[Run]) -> Table:
    """Where each run comes from; versions are those of its summary.json."""
    versions = [_mapping(run.summary.get("versions")) for run in runs]
    recorded = {name for row in versions for name in row}
    packages = [name for name in PACKAGES if name in recorded]
    packages += sorted(recorded.difference(packages))
    rows = []
    for run, row in zip(runs, versions, strict=True):
        machine = _mapping(run.summary.get("machine"))
        rows.append(
            (
                text_cell(run.name),
                text_cell(str(run.summary.get("commit", ""))[:12], is_code=True),
                text_cell(machine.get("processor", "")),
                text_cell(machine.get("cores", "")),
                *(text_cell(row.get(name, "")) for name in packages),
                text_cell(run.summary.get("command", ""), is_code=True),
            )
        )
    columns = ("run", "commit", "processor", "cores", *packages, "command")
    return make_table("Where the runs come from", columns, rows)


def _mapping(value: object) -> dict[str, object]:
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}
