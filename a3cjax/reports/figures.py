"""Draws panels: as SVG that takes its colours from the page, and as one PNG.

In the SVG every role (text, grid, a series) is drawn in a colour that nothing else has, which
is then replaced by the page's CSS variable of that role: one picture serves light and dark.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from a3cjax.reports.curves import Panel
from a3cjax.reports.groups import Group
from a3cjax.reports.published import PEERS

NUM_SERIES = NUM_PEERS = 6
# The page's light colours, for the PNG; report.css has both.
LIGHT = {
    "ink": "#1c2127",
    "muted": "#5b6671",
    "grid": "#e2e5e9",
    "series-0": "#1f66b0",
    "series-1": "#c2541b",
    "series-2": "#2e7d4f",
    "series-3": "#8a3fa0",
    "series-4": "#96690f",
    "series-5": "#b0305c",
    "peer-0": "#59626e",
    "peer-1": "#8a7650",
    "peer-2": "#557d73",
    "peer-3": "#8f6a80",
    "peer-4": "#6a74a0",
    "peer-5": "#7d7d3f",
}
ROLES = {role: f"#0000{index:02x}" for index, role in enumerate(LIGHT, start=1)}
# Dashes of published curves, on and off, in line widths; with six colours they make 30 kinds.
DASHES = ((5, 2), (2, 1.6), (7, 2, 1.5, 2), (1, 1.4), (4, 1.5, 1, 1.5, 1, 1.5))
PEER_WIDTH = 1.3
# Published scores: as Matplotlib draws them, and as a sign in a legend.
PEER_MARKERS = (
    ("D", "\N{WHITE DIAMOND}"),
    ("s", "\N{WHITE SQUARE}"),
    ("^", "\N{WHITE UP-POINTING TRIANGLE}"),
    ("v", "\N{WHITE DOWN-POINTING TRIANGLE}"),
)
PEER_OFFSET = -0.2  # of a row: above our own
FONT_SIZE = 9.0
MAX_NAME = 36  # characters


def short(name: str, limit: int = MAX_NAME) -> str:
    """Cuts a name to `limit` characters, so that it leaves room for the picture."""
    return name if len(name) <= limit else f"{name[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def series_role(index: int) -> str:
    """The colour of the n-th group; after the last colour, they repeat."""
    return f"series-{index % NUM_SERIES}"


def peer_role(index: int) -> str:
    """The colour of the n-th published curve."""
    return f"peer-{index % NUM_PEERS}"


def draw_panel(axis: Axes, panel: Panel, colors: dict[str, str]) -> None:
    """Draws curves of returns."""
    style_axis(axis, colors)
    for curve in panel.published:
        axis.plot(
            curve.x,
            curve.y,
            color=colors[peer_role(curve.place)],
            linewidth=PEER_WIDTH,
            linestyle=(0, DASHES[curve.place % len(DASHES)]),
        )
    for index, line in enumerate(panel.lines):
        color = colors[series_role(index)]
        for x, y in line.seeds if len(line.seeds) > 1 or line.band is None else ():
            axis.plot(x, y, color=color, linewidth=0.7, alpha=0.45)
        if line.band is not None:
            x, median, low, high = line.band
            if len(line.seeds) > 1:
                axis.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
            marker = "o" if len(x) == 1 else None
            axis.plot(x, median, color=color, linewidth=2.2, marker=marker)
    for index, x, y in panel.evaluations:
        color = colors[series_role(index)]
        axis.plot(x, y, "o", color=color, markersize=4.5, markerfacecolor="none")
    if panel.x_max > 0:
        axis.set_xlim(0, panel.x_max)
    low, high = axis.get_ylim()
    last = math.inf
    for name, level in panel.levels.items():
        # Only if its name would not lie over the last one.
        if low <= level <= high and panel.lines and abs(level - last) > 0.07 * (high - low):
            last = level
            axis.axhline(level, color=colors["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
            axis.annotate(
                name,
                (1, level),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=FONT_SIZE - 1,
                color=colors["muted"],
            )
    label_x(axis, panel.x_label, colors)


def draw_speed(axis: Axes, panel: Panel, colors: dict[str, str]) -> None:
    """Draws a quantity of the machine: a line for each run, from 0 up."""
    style_axis(axis, colors)
    for index, line in enumerate(panel.lines):
        for x, y in line.seeds:
            axis.plot(x, y, color=colors[series_role(index)], linewidth=1.1, alpha=0.85)
    axis.set_ylim(bottom=0)
    if panel.x_max > 0:
        axis.set_xlim(0, panel.x_max)
    label_x(axis, panel.x_label, colors)


def draw_normalized(axis: Axes, groups: Sequence[Group], colors: dict[str, str]) -> None:
    """Draws final scores in percent of human, with a row for each game and a dot for each seed."""
    style_axis(axis, colors)
    games = list(dict.fromkeys(group.game for group in groups))
    of_game: dict[str, int] = {}
    most = max(sum(group.game == game for group in groups) for game in games)
    step = min(0.16, 0.44 / max(most - 1, 1))  # all within the game's own row
    for group in groups:
        assert group.atari is not None
        place = of_game[group.game] = of_game.get(group.game, -1) + 1
        row = games.index(group.game) + step * place
        scores = [100 * group.atari.normalize(run.final_score.mean) for run in group.runs]
        color = colors[series_role(place)]
        axis.plot(scores, [row] * len(scores), "o", color=color, markersize=7, alpha=0.8)
    axis.set_xscale("symlog", linthresh=100)
    axis.set_ylim(len(games) - 0.5, -0.5)
    names = {group.game: group.env for group in groups}
    axis.set_yticks(range(len(games)), [short(names[game]) for game in games], parse_math=False)
    axis.axvline(0, color=colors["muted"], linewidth=0.9)
    axis.axvline(100, color=colors["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
    for index, peer in enumerate(PEERS):
        rows_by_game = {group.game: group.atari for group in groups}
        scores = [100 * atari.normalized_peer(peer) for atari in rows_by_game.values() if atari]
        axis.plot(
            scores,
            [row + PEER_OFFSET for row in range(len(games))],
            PEER_MARKERS[index][0],
            color=colors[peer_role(index)],
            markersize=5.5,
            markerfacecolor="none",
        )
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, -20), max(high, 200))
    low, high = axis.get_xlim()
    ticks = (-100, 0, 50, 100, 200, 500, 1000, 2000, 5000)
    if low < -200 or high > 6000:  # too wide for that many
        ticks = (-10_000, -1000, -100, 0, 100, 1000, 10_000, 100_000)
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:,}".replace("-", "\N{MINUS SIGN}") for tick in shown])
    axis.set_xticks([], minor=True)
    label_x(axis, "percent: 0 is random play, 100 is human", colors)


def style_axis(axis: Axes, colors: dict[str, str]) -> None:
    """A quiet frame: two spines, horizontal grid, small ticks."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(colors["muted"])
    axis.spines[["left", "bottom"]].set_linewidth(0.8)
    axis.grid(axis="y", color=colors["grid"], linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(
        length=3, color=colors["muted"], labelcolor=colors["muted"], labelsize=FONT_SIZE
    )


def label_x(axis: Axes, label: str, colors: dict[str, str]) -> None:
    """Says what the horizontal axis is."""
    axis.set_xlabel(label, color=colors["muted"], fontsize=FONT_SIZE)


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches, which belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, prefix: str) -> str:
    """A figure as an SVG element to embed in HTML; ids begin with `prefix`.

    Colours that `ROLES` names become CSS variables, and text stays text.
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # for the whole page
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for role, color in ROLES.items():
        text = text.replace(color, f"var(--{role})")
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def png(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG on white."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # its font has no letters of some languages
        figure.savefig(path, dpi=120, facecolor="white")
