"""Records the games of a trained agent as a video."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.envs.base import Environments, EnvironmentSpec
from a3cjax.errors import one_line
from a3cjax.runs.playing import TrainedAgent, closing_quietly
from a3cjax.runs.tables import PLAY
from a3cjax.system.output import tell, warn
from a3cjax.video.actions import action_names
from a3cjax.video.files import FILES, VideoFiles
from a3cjax.video.game import watch
from a3cjax.video.screen import Labels, Screen

FORMATS = tuple(FILES)

EMULATOR_RATE = 60.0  # frames a second of an Atari 2600
USUAL_RATE = 30.0
BOARD_RATE = 4.0  # steps of a piece on a board, as Gymnasium shows its FrozenLake
HOLD_SECONDS = 1.0  # for which the end of a game stands still

# What a run leaves at its end, and how long it may take to make.
END_PLAY_SECONDS, END_WORK_SECONDS = 30.0, 10.0


class Recording(NamedTuple):
    """The files, seconds of play in them, and the scores, of an unfinished game as far as shown."""

    paths: list[Path]
    play_seconds: float
    scores: list[float]


class VideoOptions(NamedTuple):
    """What a video shows.

    `formats` are of `FORMATS`, a file for each; `num_episodes` games follow one another. `seed` is
    that of the games, None for the run's. `is_greedy`: takes the most probable action instead of
    sampling. `with_saliency`: colours what the value depends on (`game.value_saliency`).
    The video ends where it is after `max_play_seconds` of games or `max_work_seconds` of
    wall-clock.
    """

    formats: Sequence[str] = FORMATS
    num_episodes: int = 1
    seed: int | None = None
    is_greedy: bool = False
    with_saliency: bool = False
    max_play_seconds: float = math.inf
    max_work_seconds: float = math.inf


def record_video(
    agent: TrainedAgent,
    stem: Path,
    options: VideoOptions,
    should_stop: Callable[[], bool] = lambda: False,
) -> Recording | None:
    """Plays games and writes them as videos.

    Games and actions follow from the seed: a repetition shows the same. The first game is one
    that the evaluation of the run plays, too.

    Args:
      agent: plays.
      stem: the files' path without their ends; its folder is made.
      options: what to show.
      should_stop: asked at every step; True gives the video up.

    Returns:
      What was written, or None if it was given up.

    Raises:
      ConfigError: if there is no such environment, or the seed cannot be used.
      Exception: whatever the environment or FFmpeg raise. No unfinished file is left.
    """
    began = time.monotonic()
    seed = agent.config.seed if options.seed is None else options.seed
    games = agent.config.replace(seed=seed)
    environments = build_evaluation_environments(games, 1, parts=agent.parts, renders=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(closing_quietly(environments))
        rate = steps_per_second(environments)
        screen = Screen(environments.spec, make_labels(agent, environments.spec, options), rate)
        files = VideoFiles(stem, options.formats, rate)
        stack.callback(files.abandon)
        key = make_keys(seed).evaluation
        moments = watch(
            agent,
            environments,
            (jax.random.fold_in(key, index) for index in range(options.num_episodes)),
            is_greedy=options.is_greedy,
            with_saliency=options.with_saliency,
            renders=has_pictures(environments),
        )
        scores: list[float] = []
        num_shown = 0
        for moment in moments:
            if should_stop():
                return None
            if moment.num_steps == 0:
                scores.append(0.0)
            scores[-1] = moment.score
            num_copies = 1 if moment.action is not None else round(HOLD_SECONDS * rate)
            files.write(screen.draw(moment), max(1, num_copies))
            num_shown += 1
            is_long = num_shown >= options.max_play_seconds * rate
            if is_long or time.monotonic() - began > options.max_work_seconds:
                break
        return Recording(files.close(), num_shown / rate, scores)


def make_labels(agent: TrainedAgent, spec: EnvironmentSpec, options: VideoOptions) -> Labels:
    """What a video says of the run and of itself."""
    config, num_frames = agent.config, agent.snapshot.num_frames
    frames = f"{num_frames / 1e6:.1f}M" if num_frames >= 1e6 else f"{num_frames:,}"
    subtitle = f"{config.algorithm} · {config.network} · seed {config.seed} · {frames} frames"
    return Labels(
        title=config.env.rpartition(":")[2],
        subtitle=subtitle + (" · red: |∂V/∂s|" if options.with_saliency else ""),
        action_names=action_names(config.env, spec.num_actions, is_atari=spec.is_atari),
        num_games=options.num_episodes,
        is_greedy=options.is_greedy,
    )


def has_pictures(environments: Environments) -> bool:
    """Whether an environment can show itself; if it promised and cannot, a line says why."""
    try:
        return environments.render() is not None
    # It may lack a library, a display, or the function: only the environment knows.
    except Exception as error:
        reason = one_line(str(error).partition("\n")[0]) or type(error).__name__
        tell(f"The environment cannot be rendered, its observations are shown: {reason}")
        return False


def steps_per_second(environments: Environments) -> float:
    """The speed at which a game is shown: an Atari game as it is played, at 60 frames a second."""
    spec = environments.spec
    if spec.is_atari:
        return EMULATOR_RATE / spec.frames_per_step
    return environments.render_fps or (BOARD_RATE if spec.is_one_hot else USUAL_RATE)


def record_at_end(agent: TrainedAgent, run_dir: Path, should_stop: Callable[[], bool]) -> None:
    """Leaves a short video in a run folder; says in one line if that fails, and why.

    The run is saved and its result written by then: a missing video must not fail it.
    """
    try:
        options = VideoOptions(max_play_seconds=END_PLAY_SECONDS, max_work_seconds=END_WORK_SECONDS)
        recording = record_video(agent, (run_dir / PLAY).absolute(), options, should_stop)
    except Exception as error:
        warn(f"no video: {type(error).__name__}: {one_line(str(error)) or 'no reason given'}")
        return
    if recording is not None:
        names = " and ".join(path.name for path in recording.paths)
        tell(f"{names}: {recording.play_seconds:.0f} seconds of play")
