"""Reads run folders, also half-finished ones: what is missing becomes NaN and a note."""

import dataclasses
import functools
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from a3cjax.errors import ConfigError
from a3cjax.runs import tables
from a3cjax.runs.tables import EPISODES, Column, EpisodeRow, read_columns, read_episodes, read_json

MAX_NUMBER = 1e300  # what is beyond, such as an integer of many digits, is no result
EVALUATION_COLUMNS = ("num_frames", "wall_seconds", "mean")  # the others: words and lists
PROVENANCE = ("command", "commit", "machine", "versions")  # of summary.json


class RunFolderError(ConfigError):
    """A folder that is no run folder; the message is one line."""


class Score(NamedTuple):
    """A mean score and the games behind it: `evaluation`, `training`, or `none` with NaN."""

    mean: float
    kind: str
    games: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder holds. Columns of one file have one length, which may be 0."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Column]
    evaluations: Mapping[str, Column]
    summary: Mapping[str, Any]
    extra_evaluations: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def episodes(self) -> list[EpisodeRow]:
        """The training games, oldest first: see `read_episodes`."""
        return read_episodes(self.folder / EPISODES)

    @property
    def env(self) -> str:
        """The environment as it was named on the command line."""
        return str(self.settings.get("env", "unknown"))

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return str(self.settings.get("algorithm", "unknown"))

    @property
    def seed(self) -> str:
        """The seed, as text."""
        return str(self.settings.get("seed", "?"))

    def column(self, name: str) -> Column:
        """A column of metrics.csv, NaN where the file does not have it."""
        empty = np.full(len(self.metrics.get("num_frames", ())), math.nan)
        return self.metrics.get(name, empty)

    @property
    def num_frames(self) -> float:
        """Emulator frames so far."""
        frames = self.column("num_frames")
        return number(self.summary, "num_frames", fallback=frames[-1] if len(frames) else math.nan)

    @property
    def wall_seconds(self) -> float:
        """Seconds of training so far."""
        seconds = self.column("wall_seconds")
        last = seconds[-1] if len(seconds) else math.nan
        return number(self.summary, "training_seconds", fallback=last)

    @property
    def frames_per_second(self) -> float:
        """Over the whole run."""
        return self.num_frames / self.wall_seconds if self.wall_seconds > 0 else math.nan

    @functools.cached_property
    def training_curve(self) -> tuple[Column, Column, Column]:
        """Frames, seconds and mean return of the last 100 games, where there was a game."""
        returns = self.column("episode_return_mean")
        is_known = np.isfinite(returns)
        frames, seconds = self.column("num_frames"), self.column("wall_seconds")
        return frames[is_known], seconds[is_known], returns[is_known]

    @property
    def last_training(self) -> float:
        """Mean return of the last 100 training games, at the end."""
        returns = self.training_curve[2]
        return float(returns[-1]) if len(returns) else math.nan

    @functools.cached_property
    def full_means(self) -> tuple[Column, Column]:
        """Frames and mean return of 100 training games in a row, or of all if there were fewer.

        The mean of the first few games may be high by luck.
        """
        frames, _, returns = self.training_curve
        num_games = self.column("num_episodes")[np.isfinite(self.column("episode_return_mean"))]
        if np.isnan(num_games).all():
            return frames, returns
        is_full = num_games >= min(tables.RETURN_WINDOW, np.nanmax(num_games))
        return frames[is_full], returns[is_full]

    @property
    def best_training(self) -> float:
        """The highest mean of 100 training games in a row, or of all if there were fewer."""
        returns = self.full_means[1]
        return float(returns.max()) if len(returns) else math.nan

    @functools.cached_property
    def final_score(self) -> Score:
        """The score of the final evaluation, or of what comes closest to it."""
        result = self.summary.get("evaluation")
        if not isinstance(result, Mapping) and self.extra_evaluations:
            result = self.extra_evaluations[self.chosen_evaluation]
        mean = number(result, "mean")
        if not math.isnan(mean):
            return Score(mean, "evaluation", numbers(result, "scores"))
        if not math.isnan(self.last_training):
            return Score(self.last_training, "training")
        return Score(math.nan, "none")

    @property
    def chosen_evaluation(self) -> str:
        """Of the final evaluations of another call, the one that has the final score.

        That is one with actions as the run takes them in its own, and of those the longest.
        """
        own = "greedy" if self.settings.get("greedy_evaluation") else "sampled"

        def rank(name: str) -> tuple[bool, float, str]:
            result = self.extra_evaluations[name]
            return result.get("actions") == own, number(result, "num_episodes", fallback=0), name

        return max(self.extra_evaluations, key=rank)

    @property
    def best_evaluation(self) -> float:
        """The highest mean of all evaluations, the final one included; NaN without any."""
        means = [*self.evaluations.get("mean", ()), number(self.summary, "best_score")]
        if self.final_score.kind == "evaluation":
            means.append(self.final_score.mean)
        return max((float(mean) for mean in means if not math.isnan(mean)), default=math.nan)

    @property
    def best_score(self) -> float:
        """The best of evaluations and training: the highest known score."""
        scores = [self.best_evaluation, self.best_training]
        return max((score for score in scores if not math.isnan(score)), default=math.nan)

    def typical(self, name: str) -> float:
        """Median of a column over the logging periods: a pause of the machine weighs little."""
        values = self.column(name)
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else math.nan

    def largest(self, name: str) -> float:
        """The largest value of a column."""
        values = self.column(name)
        return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan

    def total(self, name: str) -> float:
        """The sum of a column that counts; NaN where the run does not count it."""
        values = self.column(name)
        return float(np.nansum(values)) if np.isfinite(values).any() else math.nan

    @property
    def time_fractions(self) -> dict[str, float]:
        """Part of the actors' time -> its typical fraction, scaled to a sum of 1."""
        medians = {part: self.typical(f"{part}_fraction") for part in tables.TIME_PARTS}
        total = sum(medians.values())
        return {part: value / total if total > 0 else math.nan for part, value in medians.items()}

    def frames_to(self, score: float) -> float:
        """Frames after which the mean of 100 training games first reaches `score`; or NaN."""
        frames, returns = self.full_means
        reached = frames[returns >= score]
        return float(reached[0]) if len(reached) else math.nan


def number(mapping: Any, name: str, *, fallback: float = math.nan) -> float:
    """A number out of a file that may hold anything."""
    value = mapping.get(name) if isinstance(mapping, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float(fallback)
    return float(value) if abs(value) < MAX_NUMBER else float(fallback)


def numbers(mapping: Any, name: str) -> tuple[float, ...]:
    """A list of numbers out of a file that may hold anything; empty if it is something else."""
    values = mapping.get(name) if isinstance(mapping, Mapping) else None
    if not isinstance(values, list) or not values:
        return ()
    row = tuple(number({"x": value}, "x") for value in values)
    return () if any(map(math.isnan, row)) else row


def read_run(folder: Path, name: str | None = None) -> Run:
    """Reads a run folder; `name` is what the report calls it, by default the folder's own name.

    Raises:
      RunFolderError: if the folder holds no settings in config.yaml.
    """
    settings = _read_settings(folder)
    notes: list[str] = []
    evaluations = {}
    metrics = _read_numbers(folder / tables.METRICS, notes)
    if (folder / tables.EVALUATIONS).is_file():
        evaluations = _read_numbers(folder / tables.EVALUATIONS, notes, EVALUATION_COLUMNS)
    summary = _read_json(folder / tables.SUMMARY, notes)
    frames = metrics.get("num_frames", np.zeros(0))
    is_stale = len(frames) > 0 and number(summary, "num_frames") < frames[-1]
    if is_stale:
        notes.append(f"{tables.SUMMARY} is left out: it is from before the run was resumed")
        summary = {name: summary[name] for name in PROVENANCE if name in summary}
    extra = {
        path.name: _read_json(path, notes)
        for path in sorted(folder.glob("evaluation-[!b]*.json"))  # not evaluation-best-…
    }
    name = name or os.path.basename(os.path.realpath(folder))
    run = Run(
        # A folder's name need not be text in any encoding.
        name=name.encode(errors="backslashreplace").decode(),
        folder=folder,
        settings=settings,
        metrics=metrics,
        evaluations=evaluations,
        summary=summary,
    )
    final = {name: x for name, x in extra.items() if _is_final(x, run, is_stale=is_stale)}
    run = dataclasses.replace(run, extra_evaluations=final)
    if run.final_score.kind == "training":
        notes.append("no final evaluation: its final score is that of the last training games")
    elif run.final_score.kind == "none":
        notes.append("no game was finished yet: it has no score")
    elif not isinstance(summary.get("evaluation"), Mapping):
        notes.append(f"its final score is that of {run.chosen_evaluation}")
    signal_number = number(summary, "signal")
    if not math.isnan(signal_number):
        notes.append(f"it was ended by signal {signal_number:.0f}")
    return dataclasses.replace(run, notes=tuple(notes))


def _is_final(result: Mapping[str, Any], run: Run, *, is_stale: bool) -> bool:
    """Whether an evaluation is of the last parameters of a run, by the run's own rules.

    Older ones do not tell their frames: they count unless the run has gone on since it ended.
    """
    num_frames = number(result, "num_frames")
    is_last = not is_stale if math.isnan(num_frames) else num_frames == run.num_frames
    is_whole = not number(result, "num_cut", fallback=0) > 0
    has_own_rules = all(
        result.get(name) is None for name in ("max_episode_steps", "sticky_actions")
    )
    return is_last and is_whole and has_own_rules and not math.isnan(number(result, "mean"))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads run folders, each once, under names that tell them apart.

    Copies of a run, with the same settings and the same log, are the first of them, with a note.

    Raises:
      RunFolderError: if there is none, or one is no run folder.
    """
    # Not `resolve`, which fails at links in a loop.
    unique = {Path(os.path.realpath(folder)): folder for folder in folders}
    if not unique:
        raise RunFolderError("run_dirs must name at least one run folder, got none.")
    names = distinct_names([*unique])
    runs: dict[Any, Run] = {}
    for folder, name in zip(unique.values(), names, strict=True):
        run = read_run(folder, name)
        log = {column: tuple(numbers) for column, numbers in run.metrics.items()}
        key = (str(run.settings), str(log)) if log else folder
        if key in runs:
            copied = f"{run.name} is a copy of it, and is left out"
            run = dataclasses.replace(runs[key], notes=(*runs[key].notes, copied))
        runs[key] = run
    return [*runs.values()]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of different absolute paths, as many as it takes to tell them apart."""
    for num_parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-num_parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"paths must differ, got {[str(path) for path in paths]}.")


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        settings = tables.read_config_file(folder)
    except (ConfigError, OSError) as error:
        raise RunFolderError(str(error)) from error
    return {str(name): value for name, value in tables.as_of_today(settings).items()}


def _read_numbers(path: Path, notes: list[str], wanted: Collection[str] = ()) -> dict[str, Column]:
    """The columns of numbers; lines that were cut short or damaged are left out, with a note."""
    if not path.exists():
        notes.append(f"{path.name} is missing")
        return {}
    try:
        table, num_damaged = read_columns(path, wanted)
    except ConfigError as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    frames, seconds = table.get("num_frames"), table.get("wall_seconds")
    if num_damaged:
        num_lines = num_damaged + len(next(iter(table.values()), ()))
        notes.append(f"{path.name} cannot be read in {num_damaged} of its {num_lines} lines")
    if table and (frames is None or seconds is None):
        notes.append(f"{path.name} has no column num_frames or wall_seconds")
        return {}
    if frames is None or seconds is None or not len(frames):
        notes.append(f"{path.name} holds no rows yet")
        return {}
    is_whole = (frames >= 0) & (frames <= tables.MAX_COUNT) & (seconds >= 0)
    is_whole &= seconds <= tables.MAX_COUNT
    return {
        name: np.where(np.abs(column) < MAX_NUMBER, column, math.nan)[is_whole]
        for name, column in table.items()
    }


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    content = read_json(path)
    if content is None:
        is_there = path.is_file()
        state = "cannot be read" if is_there else "is missing: the run has not ended, or was killed"
        notes.append(f"{path.name} {state}")
    return content or {}
