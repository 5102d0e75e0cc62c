"""The pictures of a report: SVG for the page and one PNG of everything."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from a3cjax.reports import figures, tables
from a3cjax.reports.content import Content
from a3cjax.reports.curves import Panel, return_panels, speed_panels
from a3cjax.reports.groups import Group
from a3cjax.reports.published import PEERS

PANEL_SIZE = (4.6, 2.95)  # inches
ROW_HEIGHT, KEY_HEIGHT = 3.5, 0.36  # of the overview, and of a line of its legend: two of text


class Picture(NamedTuple):
    """An SVG element, its caption, and a description for those who do not see it."""

    svg: str
    caption: str
    description: str


class Key(NamedTuple):
    """An entry of a legend: the CSS variable of its colour, and its dashes or marker, if any."""

    label: str
    role: str
    dashes: tuple[float, ...] = ()
    marker: str = ""


class GamePictures(NamedTuple):
    """The learning curves of one game and their legend."""

    pictures: tuple[Picture, ...]
    legend: tuple[Key, ...]


def draw_game(groups: Sequence[Group], number: int, *, show_published: bool) -> GamePictures:
    """Learning curves over frames and over time; `number` keeps ids of a page apart."""
    panels = return_panels(groups, show_published=show_published)
    captions = (
        "Mean return of the last 100 training games, over frames",
        "The same, over wall-clock time",
    )
    pictures = []
    for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        figure = figures.new_figure(*PANEL_SIZE)
        figures.draw_panel(figure.subplots(), panel, figures.ROLES)
        svg = figures.svg(figure, f"game{number}-{place}")
        pictures.append(Picture(svg, caption, _describe(groups, panel)))
    return GamePictures(tuple(pictures), _legend(panels))


def draw_speed(groups: Sequence[Group]) -> GamePictures:
    """Frames a second and staleness of all runs."""
    panels = speed_panels(groups)
    captions = ("Frames a second, each logging period", "Mean staleness, in updates")
    pictures = []
    for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        figure = figures.new_figure(PANEL_SIZE[0], 2.4)
        figures.draw_speed(figure.subplots(), panel, figures.ROLES)
        svg = figures.svg(figure, f"speed-{place}")
        pictures.append(Picture(svg, caption, f"{caption}, of all runs over frames."))
    return GamePictures(tuple(pictures), _legend(panels))


def draw_normalized(groups: Sequence[Group]) -> GamePictures | None:
    """Final scores in percent of human; None where there is no Atari game."""
    shown = [group for group in groups if group.atari is not None]
    labels = list(dict.fromkeys(group.label for group in shown))
    if not shown:
        return None
    num_games = len({group.game for group in shown})
    figure = figures.new_figure(PANEL_SIZE[0], 1.3 + 0.36 * num_games)
    figures.draw_normalized(figure.subplots(), shown, figures.ROLES)
    caption = "Final scores in percent of human, a dot a seed; logarithmic beyond 100"
    picture = Picture(figures.svg(figure, "normalized"), caption, f"{caption}: see the table.")
    ours = (
        Key(
            "a3cjax" if len(labels) == 1 else "a3cjax, method by method",
            figures.series_role(0),
            marker="\N{BLACK CIRCLE}",
        ),
    )
    theirs = (
        Key(peer.label, figures.peer_role(index), marker=figures.PEER_MARKERS[index][1])
        for index, peer in enumerate(PEERS)
    )
    return GamePictures((picture,), (*ours, *theirs))


def write_overview(content: Content, path: Path) -> None:
    """Writes one PNG: a row of learning curves for each game, then normalised scores and speed."""
    groups = [group for members in content.games for group in members]
    atari = [group for group in groups if group.atari is not None]
    figure, axes = _new_rows(content, num_more=1)
    title = figures.short(content.title, 90)
    figure.suptitle(title, color=figures.LIGHT["ink"], parse_math=False)
    for row, members in zip(axes, content.games, strict=False):
        _draw_row(row, members, content)
    left, right = axes[-1]
    if atari:
        figures.draw_normalized(left, atari, figures.LIGHT)
        left.set_title("human-normalised final score", color=figures.LIGHT["ink"])
    else:
        left.set_axis_off()
    figures.draw_speed(right, speed_panels(groups)[0], figures.LIGHT)
    right.set_title("frames a second", color=figures.LIGHT["ink"])
    figures.png(figure, path)


def write_curves(content: Content, path: Path) -> None:
    """Writes one PNG of nothing but learning curves."""
    figure, axes = _new_rows(content)
    for row, members in zip(axes, content.games, strict=True):
        _draw_row(row, members, content)
    figures.png(figure, path)


def _new_rows(content: Content, num_more: int = 0) -> tuple[Figure, np.ndarray]:
    """A figure with a row of two axes for each game, and more; each with room for its legend."""
    heights = [max(ROW_HEIGHT, KEY_HEIGHT * (len(members) + 1)) for members in content.games]
    heights += num_more * [ROW_HEIGHT]
    figure = figures.new_figure(12.5, 0.3 + sum(heights))
    return figure, figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)


def _draw_row(row: Sequence[Axes], members: Sequence[Group], content: Content) -> None:
    """Draws the learning curves of a game over frames and over time, with their legend."""
    panels = return_panels(members, show_published=content.shows_published)
    for axis, panel in zip(row, panels, strict=True):
        figures.draw_panel(axis, panel, figures.LIGHT)
        axis.set_title(figures.short(members[0].env), color=figures.LIGHT["ink"], parse_math=False)
    row[0].set_ylabel("mean return of 100 games", color=figures.LIGHT["muted"])
    _draw_legend(row[1], _legend(panels))


def _draw_legend(axis: Axes, legend: Sequence[Key]) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=figures.LIGHT[key.role],
            linewidth=figures.PEER_WIDTH if key.dashes else 2.2,
            linestyle=(0, key.dashes) if key.dashes else "-",
        )
        for key in legend
    ]
    drawn = axis.legend(
        handles,
        [""] * len(handles),
        loc="upper left",
        bbox_to_anchor=(1.1, 1.0),  # beside the curves, beyond the names of levels
        fontsize=figures.FONT_SIZE,
        frameon=False,
        handlelength=3.5,
    )
    for text, key in zip(drawn.get_texts(), legend, strict=True):
        text.set_parse_math(False)  # before it holds what a user wrote
        text.set_text(
            textwrap.fill(figures.short(key.label, 2 * figures.MAX_NAME), figures.MAX_NAME)
        )


def _legend(panels: Sequence[Panel]) -> tuple[Key, ...]:
    ours = [
        Key(
            line.label + (f", {len(line.seeds)} seeds" if len(line.seeds) > 1 else ""),
            figures.series_role(index),
        )
        for index, line in enumerate(panels[0].lines)
    ]
    shown = {(curve.place, curve.label) for panel in panels for curve in panel.published}
    theirs = [
        Key(label, figures.peer_role(place), figures.DASHES[place % len(figures.DASHES)])
        for place, label in sorted(shown)
    ]
    return (*ours, *theirs)


def _describe(groups: Sequence[Group], panel: Panel) -> str:
    sentences = [f"Learning curve of {groups[0].env} over {panel.x_label}."]
    for line in panel.lines:
        if line.band is None:
            what = "seeds without a common range" if line.seeds else "no games yet"
            sentences.append(f"{line.label}: {what}.")
            continue
        start, end = line.band.median[0], line.band.median[-1]
        many = f", median of {len(line.seeds)} seeds" if len(line.seeds) > 1 else ""
        sentences.append(
            f"{line.label}{many}: from {tables.format_score(start)} to {tables.format_score(end)} "
            f"at {tables.format_number(line.band.x[-1], 1)} {panel.x_label}."
        )
    if panel.published:
        names = ", ".join(curve.label for curve in panel.published)
        sentences.append(f"Published curves beside it: {names}.")
    return " ".join(sentences)
