"""Records the games of a trained agent as a video."""

import contextlib
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from a3cjax.config.builders import make_keys
from a3cjax.envs.base import Environments, EnvironmentSpec
from a3cjax.errors import one_line
from a3cjax.runs.playing import TrainedAgent, closing_quietly
from a3cjax.runs.tables import PLAY
from a3cjax.system.output import tell, warn
from a3cjax.system.signals import on_leaving
from a3cjax.video.actions import action_names
from a3cjax.video.files import FILES, VideoFiles
from a3cjax.video.game import brighten, watch
from a3cjax.video.saliency import shown_image
from a3cjax.video.screen import Labels, Screen

FORMATS = tuple(FILES)

EMULATOR_RATE = 60.0  # frames a second of an Atari 2600
USUAL_RATE = 30.0
BOARD_RATE = 4.0  # steps of a piece on a board, as Gymnasium shows its FrozenLake
HOLD_SECONDS = 1.0  # for which the end of a game stands still

FILM_SECONDS = 30.0
"""Of a video of which nothing else is said: short games follow one another, a long one is cut."""
END_WORK_SECONDS = 30.0  # that the video at the end of a run may take to make


class Recording(NamedTuple):
    """The files, how many seconds they show, and the scores of the games in them.

    `cut`: which games were not over, so that their scores are those so far.
    """

    paths: list[Path]
    seconds: float
    scores: list[float]
    cut: list[bool]

    def describe(self) -> str:
        """Its length and its scores, for people."""
        scores = [
            f"{score:g}{' so far' * is_cut}"
            for score, is_cut in zip(self.scores, self.cut, strict=True)
        ]
        return f"{self.seconds:.0f} seconds of play, score {', '.join(scores)}"


class VideoOptions(NamedTuple):
    """What a video shows.

    `formats` are of `FORMATS`, a file for each. `num_episodes` games follow one another, None for
    as many as fill the time. `seed` is that of the games, None for the run's. `is_greedy`: takes
    the most probable action instead of sampling. `with_saliency`: lights up the parts of an image
    that policy and value depend on (`saliency.make_saliency`). The video ends wherever it is once
    it is `max_seconds` long, or after `max_work_seconds` of wall-clock time. None for `max_seconds`
    means `FILM_SECONDS` or, if `num_episodes` is given, until those games are over.
    """

    formats: Sequence[str] = FORMATS
    num_episodes: int | None = None
    seed: int | None = None
    is_greedy: bool | None = None
    with_saliency: bool = False
    max_seconds: float | None = None
    max_work_seconds: float = math.inf

    def length(self) -> float:
        """The most seconds that the video may have."""
        if self.max_seconds is not None:
            return self.max_seconds
        return FILM_SECONDS if self.num_episodes is None else math.inf


def record_video(
    agent: TrainedAgent,
    stem: Path,
    options: VideoOptions,
    should_stop: Callable[[], bool] = lambda: False,
) -> Recording | None:
    """Plays games and writes them as videos.

    Games and actions follow from the seed: a repetition shows the same. The first game begins as
    one of the run's evaluation, and goes on as there if the best actions are taken.

    Args:
      agent: plays.
      stem: the files' path without their ends; its folder is made.
      options: what to show.
      should_stop: asked at every step; if it is True, the video is given up.

    Returns:
      What was written, or None if it was given up.

    Raises:
      ConfigError: if there is no such environment, or the seed cannot be used.
      OutputError: if there is no room for the files; nothing is played then.
      Exception: whatever the environment or FFmpeg raise. No unfinished file is left.
    """
    began = time.monotonic()
    seed = agent.config.seed if options.seed is None else options.seed
    games = dataclasses.replace(agent, config=agent.config.replace(seed=seed))
    environments = games.make_environments(renders=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(closing_quietly(environments))
        rate = steps_per_second(environments)
        screen = Screen(environments.spec, make_labels(agent, environments.spec, options), rate)
        files = VideoFiles(stem, options.formats, rate)
        stack.callback(files.abandon)
        stack.enter_context(on_leaving(files.delete_parts))
        key = make_keys(seed).evaluation
        number = options.num_episodes
        games_to_play = itertools.count() if number is None else range(number)
        sees_image = shown_image(environments.spec)[1] is not None
        # Saliency lies over what the network reads, which only Atari's pictures show, too.
        hides_pictures = options.with_saliency and sees_image and not environments.spec.is_atari
        moments = watch(
            agent,
            environments,
            (jax.random.fold_in(key, index) for index in games_to_play),
            is_greedy=agent.choose_greedy(options.is_greedy),
            with_saliency=options.with_saliency,
            renders=has_pictures(environments) and not hides_pictures,
        )
        scores, cut = list[float](), list[bool]()
        num_frames, most_frames = 0, max(1, round(min(options.length() * rate, sys.maxsize)))
        moments = itertools.takewhile(lambda _: not should_stop(), moments)
        if options.with_saliency and not sees_image:
            tell("The agent sees no image: the film shows no saliency.")
        elif options.with_saliency:
            moments = brighten(moments, min(most_frames, round(FILM_SECONDS * rate)))
        for moment in moments:
            if moment.num_steps == 0:
                scores.append(0.0)
                cut.append(True)
            scores[-1] = moment.score
            is_last = moment.action is None
            cut[-1] = moment.is_cut or not is_last
            num_copies = max(1, round(HOLD_SECONDS * rate)) if is_last else 1
            num_copies = min(num_copies, most_frames - num_frames)
            files.write(screen.draw(moment), num_copies)
            num_frames += num_copies
            is_late = time.monotonic() - began > options.max_work_seconds
            if num_frames == most_frames or is_late:
                break
        if should_stop():
            return None
        return Recording(files.close(), num_frames / rate, scores, cut)


def make_labels(agent: TrainedAgent, spec: EnvironmentSpec, options: VideoOptions) -> Labels:
    """What a video says of the run and of itself."""
    config, num_frames = agent.config, agent.snapshot.num_frames
    frames = f"{num_frames / 1e6:.1f}M" if num_frames >= 1e6 else f"{num_frames:,}"
    return Labels(
        title=config.env.rpartition(":")[2],
        subtitle=f"{config.algorithm} · {config.network} · seed {config.seed} · {frames} frames",
        action_names=action_names(config.env, spec.actions, is_atari=spec.is_atari),
        num_games=options.num_episodes,
        is_greedy=agent.choose_greedy(options.is_greedy),
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
    # A matrix is shown as a board: a game of Catch, nine steps, would otherwise be over at once.
    is_board = spec.is_one_hot or any(len(p.shape) == 2 for p in jax.tree.leaves(spec.observation))
    return environments.render_fps or (BOARD_RATE if is_board else USUAL_RATE)


def record_at_end(agent: TrainedAgent, run_dir: Path, should_stop: Callable[[], bool]) -> None:
    """Leaves a short video in a run folder; says in one line if that fails, and why.

    The run is saved and its result written by then: a missing video must not fail it.
    """
    try:
        options = VideoOptions(max_work_seconds=END_WORK_SECONDS)
        recording = record_video(agent, (run_dir / PLAY).absolute(), options, should_stop)
    except Exception as error:
        warn(f"no video: {type(error).__name__}: {one_line(str(error)) or 'no reason given'}")
        return
    if recording is not None:
        names = " and ".join(path.name for path in recording.paths)
        tell(f"{names}: {recording.describe()}")
