"""A report as one HTML file that needs nothing else: style, script and pictures are in it."""

import base64
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from a3cjax.reports.content import Content
from a3cjax.reports.groups import Group
from a3cjax.reports.overview import GamePictures, draw_game, draw_normalized, draw_speed
from a3cjax.reports.published import PEERS
from a3cjax.reports.videos import Video, find_video
from a3cjax.runs.tables import TIME_PARTS

TEMPLATES = Path(__file__).parent / "templates"
GAMES_WITHOUT_CONTENTS = 3


class Game(NamedTuple):
    """A section of the page."""

    anchor: str
    name: str
    curves: GamePictures
    videos: tuple[Video, ...]


def render_page(content: Content) -> str:
    """The HTML of a report.

    Every text that comes from a file is escaped by the template; style, script and drawings
    are this package's own. The page's policy forbids it to load anything, and to run any
    script but this one.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    groups = [group for members in content.games for group in members]
    video_notes: list[str] = []
    games = []
    for number, members in enumerate(content.games, start=1):
        curves = draw_game(members, number, show_published=content.shows_published)
        videos = pick_videos(members, video_notes)
        games.append(Game(f"game-{number}", members[0].env, curves, videos))
    return environment.get_template("report.html.j2").render(
        content=content,
        games=games,
        missing=[*content.missing, *video_notes],
        normalized_pictures=draw_normalized(groups),
        speed=draw_speed(groups),
        time_parts=TIME_PARTS,
        peers=PEERS,
        has_contents=len(games) > GAMES_WITHOUT_CONTENTS,
        date=datetime.date.today().isoformat(),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def pick_videos(groups: Sequence[Group], notes: list[str]) -> tuple[Video, ...]:
    """A video for each group, of its best run that has one; what is left out goes to `notes`."""
    videos = []
    for group in groups:
        # NaN, which is not equal to itself, comes last.
        ranked = sorted(
            group.runs,
            key=lambda run: (run.final_score.mean == run.final_score.mean, run.final_score.mean),
            reverse=True,
        )
        for run in ranked:
            video, note = find_video(run)
            if note is not None:
                notes.append(f"{run.name}: {note}")
            if video is not None:
                videos.append(video)
                break
    return tuple(videos)
