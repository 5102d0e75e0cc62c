"""What a terminal shows of a run: lines of text that fit any window, in any alphabet."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.text import Text

from a3cjax.logs.metrics import ActorRow
from a3cjax.runs.tables import TIME_PARTS, EpisodeRow

# Of the algorithms' own metrics, in the order in which they are shown.
LEARNING_METRICS = ("policy_loss", "value_loss", "entropy", "q_value", "epsilon", "grad_norm")
STALL_SECONDS = 10.0
"""An actor-learner without an update for this long is marked; ordinary ones take a second."""
MAX_CURVE_ROWS = 6
MIN_CURVE_ROWS = 3
PART_STYLES = ("green", "cyan", "yellow", "magenta")
LABEL_WIDTH = 9  # of the highest and the lowest value beside the curve


class Glyphs(NamedTuple):
    """What to draw with: `levels` of a cell from empty to full, a letter or block for each part."""

    levels: str
    full: str
    rest: str
    parts: str


BLOCKS = Glyphs(" ▁▂▃▄▅▆▇█", "█", "░", "████")
COLOURLESS_BLOCKS = BLOCKS._replace(parts="ealp")  # the first letters of env, act, learn, push
ASCII = Glyphs(" .:#", "#", ".", "ealp")


class Curve:
    """Means of a quantity over a run, in at most `max_size` (even) intervals of frames."""

    def __init__(self, max_size: int = 512):
        self._span = self._length = 1
        self._sums_and_counts = np.zeros((2, max_size))

    def add(self, num_frames: int, value: float) -> None:
        """Takes in a value; intervals become twice as long when they would be too many."""
        intervals = self._sums_and_counts
        while (index := num_frames // self._span) >= intervals.shape[1]:
            half = intervals.shape[1] // 2
            intervals[:, :half] = intervals[:, ::2] + intervals[:, 1::2]
            intervals[:, half:] = 0
            self._length = (self._length + 1) // 2
            self._span *= 2
        intervals[:, index] += (value, 1)
        self._length = max(self._length, index + 1)

    def columns(self, size: int) -> list[float]:
        """The mean in each of `size` equal parts of the run so far.

        Where nothing was added, it is the one before; NaN before the first.
        """
        columns, last = [], math.nan
        for column in range(size):
            begin = column * self._length // size
            end = max(begin + 1, (column + 1) * self._length // size)
            total, count = self._sums_and_counts[:, begin:end].sum(axis=1).tolist()
            last = total / count if count else last
            columns.append(last)
        return columns


class Dashboard:
    """Remembers what rows do not hold, the returns over the run, and lays out everything."""

    def __init__(self, title: str, total_frames: int, num_actors: int):
        self._title = title
        self._total_frames = total_frames
        self._num_actors = num_actors
        self._curve = Curve()
        self._last = self._highest = math.nan

    def add_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Takes in finished games."""
        for episode in episodes:
            value = float(episode.episode_return)
            self._curve.add(episode.num_frames, value)
            self._highest = value if math.isnan(self._highest) else max(self._highest, value)
            self._last = value

    def lines(
        self,
        row: Mapping[str, float],
        actors: Sequence[ActorRow],
        width: int,
        height: int,
        glyphs: Glyphs,
    ) -> list[Text]:
        """At most `height` lines of at most `width` cells; what matters less is left out first."""
        head = [Text(self._title, style="bold"), self._progress(row, width, glyphs)]
        head += flow(speed_fields(row, self._total_frames), width)
        learning = flow(learning_fields(row), width)
        if not actors:
            learning = [Text("compiling, until the first update", style="dim")]
        room = height - len(head) - len(learning) - 1  # for the actors and the curve's rows
        curve_rows = min(MAX_CURVE_ROWS, max(MIN_CURVE_ROWS, room - 1 - self._num_actors))
        curve_rows = max(0, min(curve_rows, room - 2))  # a line of actors goes before the curve
        actor_lines = self._actor_lines(actors, room - curve_rows, width, glyphs)
        curve = draw_curve(self._curve.columns(max(1, width - LABEL_WIDTH)), curve_rows, glyphs)
        parts = [head, [self._return_line(row), *curve], learning, actor_lines]
        spare = height - sum(map(len, parts))
        lines = []
        for index, part in enumerate(parts):
            if 0 < index <= spare and part:
                lines.append(Text())
            lines += part
        for line in lines:
            line.truncate(width, overflow="crop" if glyphs is ASCII else "ellipsis")
        return lines[: max(0, height)]

    def _progress(self, row: Mapping[str, float], width: int, glyphs: Glyphs) -> Text:
        fraction = min(1.0, row["num_frames"] / self._total_frames)
        numbers = f" {fraction:4.0%}  {row['num_frames']:,.0f} / {self._total_frames:,} frames"
        size = max(0, width - len(numbers))
        full = math.floor(fraction * size)
        line = Text(glyphs.full * full, style="green")
        line.append(glyphs.rest * (size - full), style="dim")
        return line.append(numbers)

    def _return_line(self, row: Mapping[str, float]) -> Text:
        if math.isnan(row["episode_return_mean"]):
            return Text("no episode is finished yet", style="dim")
        line = Text("return ", style="dim")
        line.append(f"{row['episode_return_mean']:.2f}", style="bold")
        line.append(" (last 100 episodes)", style="dim")
        if not math.isnan(self._last):
            line.append(f"   last {self._last:.4g}   highest {self._highest:.4g}")
        return line

    def _actor_lines(
        self, actors: Sequence[ActorRow], room: int, width: int, glyphs: Glyphs
    ) -> list[Text]:
        """A header and a line for each actor-learner: all by index, or the slowest and the rest."""
        reported = {actor.actor: actor for actor in actors}
        rows = [reported.get(index, _silent_actor(index)) for index in range(self._num_actors)]
        rest: list[ActorRow] = []
        if room < 2:
            return []
        if len(rows) > room - 1:
            rows.sort(key=lambda actor: (-_stalled_seconds(actor), actor.steps_per_second))
            rows, rest = rows[: room - 2], rows[room - 2 :]
        lines = [_actor_header(width), *(_actor_line(actor, width, glyphs) for actor in rows)]
        if rest:
            speeds = [actor.steps_per_second for actor in rest]
            mean = sum(speeds) / len(speeds)
            text = f"{len(rest)} {'more' if rows else 'actors'}: {mean:,.0f} steps/s in the mean, "
            text += f"{min(speeds):,.0f} to {max(speeds):,.0f}"
            if num_stalled := sum(_stalled_seconds(actor) > 0 for actor in rest):
                text += f", {num_stalled} stalled"
            lines.append(Text(text, style="dim"))
        return lines


def _actor_header(width: int) -> Text:
    parts = [Text(name, style=style) for name, style in zip(TIME_PARTS, PART_STYLES, strict=True)]
    cells = ("actor", "steps/s", "lock", "stale", "return", "idle")
    line = _join_cells(cells, lambda _: Text(" ").join(parts), width)
    line.stylize("bold")
    return line


def _actor_line(actor: ActorRow, width: int, glyphs: Glyphs) -> Text:
    stalled = _stalled_seconds(actor) > 0
    cells = (
        str(actor.actor),
        f"{actor.steps_per_second:,.0f}",
        _shown(actor.lock_wait_fraction, ".1%"),
        _shown(actor.staleness_mean, ".1f"),
        _shown(actor.episode_return_mean, ".2f", ".3g"),
        ("!" if stalled else "") + _short_seconds(actor.idle_seconds),
    )
    line = _join_cells(cells, lambda size: draw_parts(actor.time_fractions, size, glyphs), width)
    if stalled:
        line.stylize("bold red")
    return line


def _join_cells(cells: Sequence[str], draw_bar: Callable[[int], Text], width: int) -> Text:
    """A line of the actors' table: two cells, a bar of what room there is, the other cells."""
    gap = "  " if width >= 72 else " "
    sizes = (5, 7, 5, 5, 8, 5)
    bar_size = max(4, width - sum(sizes) - len(sizes) * len(gap))
    bar = draw_bar(bar_size)
    bar.truncate(bar_size, overflow="crop", pad=True)
    texts = [Text(cell.rjust(size)) for cell, size in zip(cells, sizes, strict=True)]
    return Text(gap).join([*texts[:2], bar, *texts[2:]])


def draw_parts(fractions: Sequence[float], width: int, glyphs: Glyphs) -> Text:
    """A bar of `width` cells shared by the parts; empty where they are unknown."""
    line, begin, total = Text(), 0, 0.0
    if any(math.isnan(fraction) for fraction in fractions):
        return line
    for fraction, glyph, style in zip(fractions, glyphs.parts, PART_STYLES, strict=True):
        total += fraction
        end = round(total * width)
        line.append(glyph * (end - begin), style=style)
        begin = end
    return line


def draw_curve(values: Sequence[float], num_rows: int, glyphs: Glyphs) -> list[Text]:
    """Columns as high as their values, from the lowest (still visible) to the highest.

    The two stand at the left, in `LABEL_WIDTH` cells; NaN is an empty column.
    """
    is_known = np.isfinite(values)
    if not is_known.any() or num_rows < 1:
        return []
    levels = np.where(is_known, values, np.nan)
    low, high, steps = np.nanmin(levels), np.nanmax(levels), len(glyphs.levels) - 1
    heights = 1 + np.round((levels - low) / (high - low or 1.0) * (num_rows * steps - 1))
    heights = np.where(is_known, heights, 0).astype(int)
    ends = {0: low, num_rows - 1: high}
    lines = []
    for row in reversed(range(num_rows)):
        label = _shown(ends[row], ".2f", ".3g") if row in ends else ""
        cells = (glyphs.levels[min(steps, max(0, size - row * steps))] for size in heights)
        lines.append(Text(f"{label:>{LABEL_WIDTH - 1}} ", style="dim"))
        lines[-1].append("".join(cells), style="cyan")
    return lines


def flow(fields: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Names and values one after the other, broken into lines between them."""
    lines: list[Text] = []
    for name, value in fields:
        field = Text.assemble((f"{name} ", "dim"), value)
        if lines and len(lines[-1]) + 3 + len(field) <= width:
            lines[-1].append("   ").append_text(field)
        else:
            lines.append(field)
    return lines


def speed_fields(row: Mapping[str, float], total_frames: int) -> list[tuple[str, str]]:
    """How fast the run is and how far; the time left is that at the present rate."""
    rate, frames_left = row["frames_per_second"], max(0.0, total_frames - row["num_frames"])
    return [
        ("frames/s", f"{rate:,.0f}"),
        ("elapsed", format_seconds(row["wall_seconds"])),
        ("left", format_seconds(frames_left / rate if rate > 0 else math.nan)),
        ("updates", f"{row['num_updates']:,.0f}"),
        ("episodes", f"{row['num_episodes']:,.0f}"),
    ]


def learning_fields(row: Mapping[str, float]) -> list[tuple[str, str]]:
    """What the algorithm tells of itself, and how its threads get on with each other."""
    fields = [
        (name.replace("_", " "), f"{row[name]:.4g}") for name in LEARNING_METRICS if name in row
    ]
    fields += [
        ("staleness", f"{_shown(row['staleness_mean'], '.2f')} (max {row['staleness_max']:.0f})"),
        ("lock wait", _shown(row["lock_wait_fraction"], ".1%")),
    ]
    if row["num_refused_updates"]:
        fields.append(("refused updates", f"{row['num_refused_updates']:.0f}"))
    return fields


def _silent_actor(index: int) -> ActorRow:
    """One that has reported nothing yet."""
    unknown = math.nan
    return ActorRow(index, 0.0, (unknown,) * len(TIME_PARTS), unknown, unknown, unknown, unknown)


def _stalled_seconds(actor: ActorRow) -> float:
    """Seconds without an update if they are too many, otherwise 0."""
    return actor.idle_seconds if actor.idle_seconds >= STALL_SECONDS else 0.0


def _shown(value: float, form: str, long_form: str = "") -> str:
    """A number, in the second form if it is too long in the first; a dash for NaN."""
    if math.isnan(value):
        return "-"
    text = format(value, form)
    return format(value, long_form) if long_form and len(text) > 8 else text


def _short_seconds(seconds: float) -> str:
    """At most four characters; none below a second, where all is as it should be."""
    if math.isnan(seconds):
        return "-"
    if seconds < 1:
        return ""
    return f"{seconds:.0f}s" if seconds < 999.5 else f"{min(seconds / 60, 999):.0f}m"


def format_seconds(seconds: float) -> str:
    """Seconds as `1:02:03`, or `?` for NaN."""
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
