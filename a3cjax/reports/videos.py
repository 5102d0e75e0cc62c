"""The short video that a run leaves in its folder, ready to be embedded."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from a3cjax.reports.runs import Run
from a3cjax.runs.tables import PLAY

MAX_BYTES = 8 * 2**20


class Video(NamedTuple):
    """A video or a moving picture, as data URIs.

    `kind` is `mp4` or `gif`; `still` is its first picture, None if that is unknown.
    """

    run_name: str
    kind: str
    source: str
    still: str | None


def find_video(run: Run) -> tuple[Video | None, str | None]:
    """play.mp4 of a run folder, or else play.gif, and a note on what was left out.

    Returns:
      (video or None, note or None): a file that is too large or damaged is left out.
    """
    still, damage = _first_picture(run.folder / f"{PLAY}.gif")
    note = None
    for kind in ("mp4", "gif"):
        path = run.folder / f"{PLAY}.{kind}"
        if not path.is_file():
            continue
        size = path.stat().st_size
        if size > MAX_BYTES:
            limit = MAX_BYTES / 2**20
            note = f"{path.name} is left out: {size / 2**20:.1f} MiB, the limit is {limit:g}"
            continue
        content = path.read_bytes()
        if (kind == "gif" and damage) or (kind == "mp4" and content[4:8] != b"ftyp"):
            note = f"{path.name} is left out: it is no {kind.upper()}"
            continue
        mime_type = {"mp4": "video/mp4", "gif": "image/gif"}[kind]
        return Video(run.name, kind, _data_uri(mime_type, content), still), note
    return None, note


def _first_picture(path: Path) -> tuple[str | None, bool]:
    """The first picture of a GIF as a data URI, and whether the file is damaged."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None, False
    try:
        with Image.open(path, formats=["GIF"]) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, format="PNG")
    # Pillow raises what it happens to stumble over in a damaged file.
    except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError):
        return None, True
    return _data_uri("image/png", buffer.getvalue()), False


def _data_uri(mime_type: str, content: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"
