"""Films games of a trained agent, with its values and probabilities beside the picture.

    a3cjax play pong
    a3cjax play breakout num_episodes=1 output=breakout.mp4

The first is half a minute long: short games follow one another, a long one is cut. The second
shows one full game.
The agent is a run folder, a published folder, or the name of an agent that comes with a3cjax.
"""

import dataclasses
import importlib
from pathlib import Path

from a3cjax.actors.supervisor import Supervisor
from a3cjax.commands.arguments import read, refusing
from a3cjax.commands.beginning import importing
from a3cjax.commands.ending import conclude, watched
from a3cjax.config.declaring import POSITIVE, Settings, at_least, between, setting
from a3cjax.errors import CheckpointError, ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaySettings(Settings):
    """Settings of `a3cjax play`."""

    num_episodes: int | None = setting(
        None, "full games, one after the other; null: as many as fill the time", at_least(1)
    )
    greedy: bool | None = setting(
        None, "most probable actions, not sampled ones; null: as in the run's evaluations"
    )
    best: bool = setting(False, "the best parameters by evaluation, not the last")
    trust: bool = setting(False, "the run folder of somebody else may name a module to import")
    seed: int | None = setting(None, "of the games; null: the run's", between(0, 20_000))
    saliency: bool = setting(False, "light up what policy and value look at in an image")
    max_seconds: float | None = setting(
        None, "of film; null: 30, or all of num_episodes games", POSITIVE
    )
    format: str | None = setting(None, "mp4, gif or mp4,gif; null: as output ends, else both")
    stall_timeout_seconds: float = setting(
        600.0, "without a step, after which the film ends", POSITIVE
    )
    output: str | None = setting(
        None,
        "a folder, or a path with or without the end of its format; null: game in the run folder",
        is_path=True,
    )


SETTINGS, PLACES = (PlaySettings,), "<run folder or name>"


def main(words: list[str], texts: dict[str, str]) -> None:
    """Play games and write them as MP4 and GIF into the run folder, or elsewhere."""
    (name,), settings = words, read(PlaySettings, texts)
    with importing():
        importlib.import_module("av")  # where it is missing, no game is played
        from a3cjax.runs.loading import load
        from a3cjax.system.compilation import jax_settings
        from a3cjax.video import FORMATS, Recording, VideoOptions, record_video

    stem, formats = choose_files(name, settings, tuple(FORMATS))
    options = VideoOptions(
        formats=formats,
        num_episodes=settings.num_episodes,
        seed=settings.seed,
        is_greedy=settings.greedy,
        with_saliency=settings.saliency,
        max_seconds=settings.max_seconds,
    )

    def film(supervisor: Supervisor) -> Recording | None:
        with jax_settings():
            with refusing(ValueError, OSError, CheckpointError):
                agent = load(name, best=settings.best, trust=settings.trust)
            return record_video(agent, stem, options, supervisor.is_told)

    def film_and_tell() -> None:
        recording = watched(film, settings.stall_timeout_seconds)
        print(recording.describe())
        for path in recording.paths:
            print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")

    conclude(film_and_tell)


def choose_files(
    name: str, settings: PlaySettings, known: tuple[str, ...]
) -> tuple[Path, tuple[str, ...]]:
    """The path of the films without their ends, and their formats.

    Raises:
      ConfigError: for a format that is not known.
    """
    from a3cjax.runs.loading import own_folder

    words = (settings.format or "").lower().replace(" ", "").split(",")
    formats = tuple(dict.fromkeys(words)) if settings.format else ()
    if not set(formats) <= set(known):
        raise ConfigError(f"format must be of {','.join(known)}, got {settings.format}.")
    folder = own_folder(name)
    stem = Path(settings.output or folder or ".")
    if stem.is_dir():
        stem /= "game" if folder else name.rpartition("/")[2]
    elif (ending := stem.suffix[1:].lower()) in known:
        formats = formats or (ending,)
        stem = stem.with_suffix("")
    return stem, formats or known
