"""Which runs are seeds of one another, and what sets the others apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from a3cjax.reports.published import AtariScores, atari_scores, plain_game
from a3cjax.reports.runs import Run

# Settings in which two seeds of one experiment may differ: they do not define what is learned.
NOT_LEARNED_FROM = (
    *("seed", "run_dir", "resume", "log_period_frames", "checkpoint_period_frames"),
    *("eval_episodes", "eval_period_frames", "stall_timeout_seconds", "max_bad_updates"),
    *("video", "tensorboard", "wandb", "mlflow"),
    *("ray_address", "max_restarts", "shard_save_period_updates"),
)
# Filled in from `total_frames` where nobody has chosen them.
FROM_BUDGET = ("exploration_frames", "warmup_steps")
# Settings that one method may choose anew for each game; the last two are tuned by name.
CHOSEN_BY_GAME = ("total_frames", *FROM_BUDGET, "target_entropy", "normalize_advantages")
MISSING = "not recorded"
NUM_NAMED_SETTINGS = 3


class Group(NamedTuple):
    """Seeds of one experiment: runs of one game with the same settings.

    `label` tells the groups of one game apart; it is the algorithm's name where that will do.
    `method` is equal for groups of different games with the same settings, and
    `method_label` tells the methods of Atari games, or of all others, apart.
    """

    env: str
    label: str
    method: int
    method_label: str
    runs: tuple[Run, ...]

    @property
    def game(self) -> str:
        """The game: of Atari, without the version that the environment's name gives."""
        return plain_game(self.env)

    @property
    def atari(self) -> AtariScores | None:
        """Published scores of the game, if it is an Atari game."""
        return atari_scores(self.env)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by game and settings, in the order in which they first appear."""
    settings = fill_in([run.settings for run in runs])
    by_key: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for index, run in enumerate(runs):
        key = (plain_game(run.env), _values(settings[index], (*NOT_LEARNED_FROM, "env")))
        by_key.setdefault(key, []).append(index)
    games = [game for game, _ in by_key]
    members = list(by_key.values())
    rows = [settings[indices[0]] for indices in members]
    methods = _number_methods(rows, games)
    labels = _label_within(rows, games, [str(index) for index in range(len(rows))])
    kinds = ["atari" if atari_scores(game) else "other" for game in games]
    method_labels = _label_within(rows, kinds, [str(method) for method in methods])
    return [
        Group(runs[indices[0]].env, label, method, method_label, tuple(runs[i] for i in indices))
        for indices, label, method, method_label in zip(
            members, labels, methods, method_labels, strict=True
        )
    ]


def fill_in(all_settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Settings as text, with the same names in all.

    A setting that an older run does not record gets the value of all the others if they agree,
    so that it does not set the run apart; if they do not, it is `MISSING`.
    """
    names = list(dict.fromkeys(name for settings in all_settings for name in settings))
    filled: list[dict[str, str]] = [{} for _ in all_settings]
    for name in names:
        recorded = {str(settings[name]) for settings in all_settings if name in settings}
        default = recorded.pop() if len(recorded) == 1 else MISSING
        for row, settings in zip(filled, all_settings, strict=True):
            row[name] = str(settings[name]) if name in settings else default
    return filled


def differing_settings(groups: Sequence[Group]) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """What differs between runs, and what all share.

    Returns:
      (name, one value a group) for each setting that differs, and `name: value` for each
      other one. Seeds and folders are left out: they always differ.
    """
    runs = [run for group in groups for run in group.runs]
    filled = fill_in([run.settings for run in runs])
    differing, shared = [], []
    for name in filled[0]:
        if name in ("seed", "run_dir", "resume"):
            continue
        values, start = [], 0
        for group in groups:
            rows = filled[start : start + len(group.runs)]
            values.append(", ".join(dict.fromkeys(row[name] for row in rows)))
            start += len(group.runs)
        if len({row[name] for row in filled}) > 1:
            differing.append((name, values))
        else:
            shared.append(f"{name}: {filled[0][name]}")
    return differing, shared


def _values(settings: Mapping[str, str], without: Sequence[str]) -> tuple[str, ...]:
    return tuple(value for name, value in settings.items() if name not in without)


def _number_methods(rows: Sequence[Mapping[str, str]], games: Sequence[str]) -> list[int]:
    """The number of each group's method, from 0.

    A budget belongs to the game unless one game appears with several of them: then budgets
    are what is compared.
    """
    without = (*NOT_LEARNED_FROM, "env")
    keys = [_values(row, (*without, *CHOSEN_BY_GAME)) for row in rows]
    pairs = list(zip(games, keys, strict=True))
    if len(set(pairs)) < len(pairs):
        keys = [_values(row, without) for row in rows]
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _label_within(
    rows: Sequence[Mapping[str, str]], scopes: Sequence[str], identities: Sequence[str]
) -> list[str]:
    """A label for each row: within a scope, rows of different identity have different labels."""
    labels = [""] * len(rows)
    for scope in dict.fromkeys(scopes):
        members = [index for index, other in enumerate(scopes) if other == scope]
        firsts: dict[str, Mapping[str, str]] = {}
        for index in members:
            firsts.setdefault(identities[index], rows[index])
        by_identity = dict(zip(firsts, _label_rows(list(firsts.values())), strict=True))
        for index in members:
            labels[index] = by_identity[identities[index]]
    return labels


def _follows_from_budget(name: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a setting is one of `FROM_BUDGET`, and has one value for each budget."""
    if name not in FROM_BUDGET:
        return False
    pairs = {(row.get("total_frames", MISSING), row[name]) for row in rows}
    return len(dict(pairs)) == len(pairs)


def _label_rows(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The algorithm, and the first few of the settings that tell its rows apart."""
    labels = []
    for row in rows:
        algorithm = row.get("algorithm", "unknown")
        rivals = [other for other in rows if other.get("algorithm") == row.get("algorithm")]
        differing = [
            name
            for name in row
            if name not in (*NOT_LEARNED_FROM, "env")
            and len({r[name] for r in rivals}) > 1
            and not _follows_from_budget(name, rivals)
        ]
        differing.sort(key=lambda name: name in CHOSEN_BY_GAME)  # these last
        named = ", ".join(f"{name}={row[name]}" for name in differing[:NUM_NAMED_SETTINGS])
        labels.append(f"{algorithm} ({named})" if named else algorithm)
    if len(set(labels)) < len(labels):  # the few that are named do not suffice
        labels = [f"{label} #{number}" for number, label in enumerate(labels, 1)]
    return labels
