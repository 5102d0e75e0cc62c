"""Films games of a trained agent: `a3cjax play <run folder>`."""

import argparse
import math
import os
import sys
from pathlib import Path

from a3cjax.errors import CheckpointError
from a3cjax.runs.loading import load
from a3cjax.system.compilation import configure_jax
from a3cjax.video import FORMATS, VideoOptions, record_video


def main() -> None:
    """Plays full games and writes them as MP4 and GIF into the run folder, or elsewhere."""
    parser = argparse.ArgumentParser(description="Films full games of a trained agent.")
    parser.add_argument("run_dir", type=Path, help="a run folder with checkpoints/ in it")
    parser.add_argument("--episodes", type=positive_int, default=1, help="how many games")
    parser.add_argument("--greedy", action="store_true", help="most probable actions, not sampled")
    parser.add_argument("--best", action="store_true", help="the best parameters, not the last")
    parser.add_argument("--seed", type=int, help="of the games; default: the run's")
    parser.add_argument(
        "--saliency", action="store_true", help="colour what the value depends on most"
    )
    parser.add_argument("--max-seconds", type=positive_float, help="of play; default: full games")
    parser.add_argument("--format", type=formats, help=f"default: {','.join(FORMATS)}")
    parser.add_argument(
        "--output",
        type=Path,
        help="a folder that is there, or a path with or without the end of its format; "
        "default: <run folder>/game",
    )
    arguments = parser.parse_args()
    configure_jax()
    sys.path.append(os.getcwd())  # one's own Gymnasium environments
    stem, formats_asked_for = arguments.output or arguments.run_dir, arguments.format
    if stem.is_dir():
        stem /= "game"
    elif stem.suffix[1:] in FORMATS:
        formats_asked_for = formats_asked_for or [stem.suffix[1:]]
        stem = stem.with_suffix("")
    try:
        options = VideoOptions(
            formats=formats_asked_for or FORMATS,
            num_episodes=arguments.episodes,
            seed=arguments.seed,
            is_greedy=arguments.greedy,
            with_saliency=arguments.saliency,
            max_play_seconds=arguments.max_seconds or math.inf,
        )
        agent = load(arguments.run_dir, best=arguments.best)
        recording = record_video(agent, stem, options)
        assert recording is not None  # nothing stops it
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    scores = ", ".join(f"{score:g}" for score in recording.scores)
    print(f"{recording.play_seconds:.0f} seconds of play, score {scores}")
    for path in recording.paths:
        print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def positive_int(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


def positive_float(text: str) -> float:
    """A number above 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {number}")
    return number


def formats(text: str) -> list[str]:
    """Formats with commas between, for argparse."""
    names = list(dict.fromkeys(text.split(",")))
    unknown = set(names) - set(FORMATS)
    if unknown:
        raise argparse.ArgumentTypeError(f"must be of {','.join(FORMATS)}, got {text}")
    return names
