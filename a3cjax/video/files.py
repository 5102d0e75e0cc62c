"""Video files: MP4 that browsers play, and GIF, written frame by frame as a game goes on."""

import abc
import contextlib
import math
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from a3cjax.errors import OutputError

# PyAV, the bindings to FFmpeg's libraries, is imported where it is used: a machine for which
# there is no wheel of it can train, too.

MAX_GIF_RATE = 8.0
"""Frames a second of a GIF, at most: with each one the file grows."""

_PALETTE_FRAMES = 24  # the first ones, from which a GIF's colours are chosen


class VideoFile(abc.ABC):
    """A file that takes frames of one size, uint8 `[height, width, 3]`."""

    _container: Any
    _stream: Any

    @abc.abstractmethod
    def write(self, frame: np.ndarray) -> None:
        """Appends a frame."""

    def close(self) -> None:
        """Completes the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Frees what is open; does nothing after `close`."""
        self._container.close()


class Mp4File(VideoFile):
    """H.264 with colour at half the resolution (yuv420p), which every browser plays."""

    def __init__(self, path: Path, width: int, height: int, rate: float):
        """Opens the file for frames of an even size, `rate` of them a second."""
        import av

        # The index comes first in the file: a browser starts before it has all of it.
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(
            "libx264",
            rate=Fraction(rate).limit_denominator(1000),
            options={"crf": "23", "preset": "veryfast"},
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._new_frame = av.VideoFrame.from_ndarray

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame."""
        self._container.mux(self._stream.encode(self._new_frame(frame, format="rgb24")))


class GifFile(VideoFile):
    """A GIF that repeats for ever, of at most `MAX_GIF_RATE` frames a second.

    One palette serves all frames, so that what stands still costs nothing: FFmpeg writes only
    what differs from the frame before.
    """

    def __init__(self, path: Path, width: int, height: int, rate: float):
        """Opens the file for frames that come `rate` times a second; some are left out."""
        import av

        self._period = max(1, math.ceil(rate / MAX_GIF_RATE))
        self._num_frames = 0
        self._waiting: list[Image.Image] = []
        self._palette: Image.Image | None = None
        self._colours: np.ndarray = np.zeros((256, 4), np.uint8)
        self._container = av.open(str(path), "w", format="gif", options={"loop": "0"})
        gif_rate = Fraction(rate).limit_denominator(1000) / self._period
        self._stream = self._container.add_stream("gif", rate=gif_rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "pal8"
        self._new_frame: Callable[..., Any] = av.VideoFrame.from_ndarray

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, or leaves it out."""
        is_kept = self._num_frames % self._period == 0
        self._num_frames += 1
        if not is_kept:
            return
        if self._palette is not None:
            self._encode(Image.fromarray(frame))
            return
        self._waiting.append(Image.fromarray(frame))
        if len(self._waiting) == _PALETTE_FRAMES:
            self._choose_palette()

    def close(self) -> None:
        """Completes the file."""
        if self._waiting:
            self._choose_palette()
        super().close()

    def _choose_palette(self) -> None:
        colours = choose_colours(self._waiting)
        self._palette = Image.new("P", (1, 1))
        self._palette.putpalette(colours.tobytes())
        self._colours = np.insert(colours, 0, 255, axis=1)  # ARGB
        for image in self._waiting:
            self._encode(image)
        self._waiting.clear()

    def _encode(self, image: Image.Image) -> None:
        indices = image.quantize(palette=self._palette, dither=Image.Dither.NONE)
        frame = self._new_frame((np.asarray(indices), self._colours), format="pal8")
        self._container.mux(self._stream.encode(frame))


def choose_colours(images: Sequence[Image.Image]) -> np.ndarray:
    """A palette for these images and whatever comes after them, uint8 `[256, 3]`.

    Half of the palette keeps the most frequent colours exactly. A quarter serves the shades in
    between, and a quarter is spread over all colours, for those that were not seen yet.
    """
    counts: Counter[Any] = Counter()
    for image in images:
        for count, colour in image.getcolors(image.width * image.height) or ():
            counts[colour] += count
    frequent = np.array([colour for colour, _ in counts.most_common(128)])
    sample = Image.fromarray(np.concatenate([np.asarray(image)[::3, ::3] for image in images]))
    shades = sample.quantize(64, method=Image.Quantize.FASTOCTREE).getpalette() or []
    levels = (0, 85, 170, 255)
    spread = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    colours = np.zeros((256, 3), np.uint8)
    chosen = np.concatenate([frequent, np.reshape(shades, (-1, 3)), spread.reshape(-1, 3)])
    colours[: len(chosen)] = chosen
    return colours


FILES: dict[str, Callable[[Path, int, int, float], VideoFile]] = {"mp4": Mp4File, "gif": GifFile}
"""By format, and the end of the file's name."""


class VideoFiles:
    """The same video in several formats; its files appear once all of them are complete."""

    def __init__(self, stem: Path, formats: Sequence[str], rate: float):
        """Makes the folder and the unfinished files, so that nothing is played in vain.

        Args:
          stem: the path without endings.
          formats: of `FILES`.
          rate: frames a second.

        Raises:
          OutputError: if they cannot be made; names the path.
        """
        mark = secrets.token_hex(4)  # another process may film into the same folder
        self._formats = formats
        self._paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
        self._parts = [path.with_name(f"{path.name}.{mark}.part") for path in self._paths]
        self._rate = rate
        self._files: list[VideoFile] = []
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            for part in self._parts:
                part.touch()
        except OSError as error:
            self.abandon()
            raise OutputError(f"the film cannot be kept: {error}") from error

    def write(self, frame: np.ndarray, num_copies: int = 1) -> None:
        """Appends a frame `num_copies` times; the first one says how large all are."""
        if not self._files:
            height, width = frame.shape[:2]
            for part, name in zip(self._parts, self._formats, strict=True):
                self._files.append(FILES[name](part, width, height, self._rate))
        for file in self._files:
            for _ in range(num_copies):
                file.write(frame)

    def close(self) -> list[Path]:
        """Completes the files and gives them their names, replacing older ones."""
        for file in self._files:
            file.close()
        return [part.replace(path) for part, path in zip(self._parts, self._paths, strict=True)]

    def abandon(self) -> None:
        """Deletes what is not complete; does nothing after `close`."""
        for file in self._files:
            with contextlib.suppress(Exception):  # a full disk fails once more
                file.abandon()
        self.delete_parts()

    def delete_parts(self) -> None:
        """Deletes the files that have no name yet."""
        for part in self._parts:
            with contextlib.suppress(OSError):  # what went wrong before tells more
                part.unlink()
