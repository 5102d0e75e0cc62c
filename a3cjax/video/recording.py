"""From a run folder to a video of its agent's games."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from a3cjax.agents import Agent
from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.config.settings import Config, load_config
from a3cjax.envs.base import Environments
from a3cjax.runs.folder import NEWEST
from a3cjax.runs.loading import load_agent
from a3cjax.runs.tables import PLAY
from a3cjax.types import Snapshot
from a3cjax.video.actions import action_names
from a3cjax.video.files import FILES, VideoFile
from a3cjax.video.game import Moment, make_decide, play
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


def record_video(
    config: Config,
    agent: Agent,
    snapshot: Snapshot,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    num_episodes: int = 1,
    seed: int | None = None,
    is_greedy: bool = False,
    with_saliency: bool = False,
    max_play_seconds: float | None = None,
    max_work_seconds: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Recording | None:
    """Plays games and writes them as videos.

    Games and actions follow from the seed: a repetition shows the same. The first game is one
    that the evaluation of the run plays, too.

    Args:
      config: of the run.
      agent: plays.
      snapshot: with these parameters.
      stem: the files' path without their ends.
      formats: of `FORMATS`, a file for each.
      num_episodes: how many games, one after the other.
      seed: of the games; None for the run's.
      is_greedy: takes the most probable action instead of sampling.
      with_saliency: colours what the value depends on (`game.value_saliency`).
      max_play_seconds: of the games together; None for all of them.
      max_work_seconds: wall-clock, after which the video ends where it is.
      should_stop: asked at every step; True gives the video up.

    Returns:
      What was written, or None if it was given up.

    Raises:
      ConfigError: if there is no such environment, or the seed cannot be used.
      Exception: whatever the environment or FFmpeg raise. No unfinished file is left.
    """
    began = time.monotonic()
    parts = {stem.with_name(f"{stem.name}.{name}.part"): FILES[name] for name in formats}
    games = config if seed is None else config.replace(seed=seed)
    environments = build_evaluation_environments(games, 1, renders=True)
    with contextlib.ExitStack() as stack:
        stack.callback(environments.close)
        stack.callback(lambda: [part.unlink(missing_ok=True) for part in parts])
        rate = steps_per_second(environments)
        labels = Labels(
            title=config.env.rpartition(":")[2],
            subtitle=_describe(config, snapshot) + (" · red: |∂V/∂s|" if with_saliency else ""),
            action_names=action_names(
                config.env, environments.spec.num_actions, is_atari=environments.spec.is_atari
            ),
            num_games=num_episodes,
            is_greedy=is_greedy,
        )
        screen = Screen(environments.spec, labels, rate)
        decide = make_decide(agent, is_greedy=is_greedy, with_saliency=with_saliency)
        renders = has_pictures(environments)
        files: list[VideoFile] = []
        scores: list[float] = []
        num_shown = 0

        def moments() -> Iterator[Moment]:
            for index in range(num_episodes):
                key = jax.random.fold_in(make_keys(games.seed).evaluation, index)
                scores.append(0.0)
                yield from play(decide, agent, snapshot, environments, key, renders=renders)

        for moment in moments():
            if should_stop():
                return None
            frame = screen.draw(moment)
            if not files:
                height, width = frame.shape[:2]
                for part, open_file in parts.items():
                    files.append(open_file(part, width, height, rate))
                    stack.callback(files[-1].abandon)
            scores[-1] = moment.score
            num_copies = 1 if moment.action is not None else round(HOLD_SECONDS * rate)
            for _ in range(max(1, num_copies)):
                for file in files:
                    file.write(frame)
            num_shown += 1
            if max_play_seconds is not None and num_shown >= max_play_seconds * rate:
                break
            if max_work_seconds is not None and time.monotonic() - began > max_work_seconds:
                break
        for file in files:
            file.close()
        paths = [part.replace(part.with_suffix("")) for part in parts]
    return Recording(paths, num_shown / rate, scores)


def has_pictures(environments: Environments) -> bool:
    """Whether an environment can show itself; if it promised and cannot, a line says why."""
    try:
        return environments.render() is not None
    # It may lack a library, a display, or the function: only the environment knows.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"The environment cannot be rendered, its observations are shown: {reason}")
        return False


def steps_per_second(environments: Environments) -> float:
    """The speed at which a game is shown: an Atari game as it is played, at 60 frames a second."""
    spec = environments.spec
    if spec.is_atari:
        return EMULATOR_RATE / spec.frames_per_step
    return environments.render_fps or (BOARD_RATE if spec.is_one_hot else USUAL_RATE)


def _describe(config: Config, snapshot: Snapshot) -> str:
    millions = snapshot.num_frames / 1e6
    frames = f"{millions:.1f}M" if millions >= 1 else f"{snapshot.num_frames:,}"
    return f"{config.algorithm} · {config.network} · seed {config.seed} · {frames} frames"


def record_run(run_dir: Path, stem: Path, *, folder: str = NEWEST, **options: Any) -> Recording:
    """Records games of a checkpoint.

    Args:
      run_dir: the run folder.
      stem: the files' path without their ends; its folder is made.
      folder: `NEWEST` or `BEST`.
      options: of `record_video`.

    Raises:
      FileNotFoundError: if the folder is no run folder or holds no checkpoint.
      ValueError: if the checkpoint is of another format.
      CheckpointError: if all checkpoints are damaged.
      Exception: what `record_video` raises.
    """
    config = load_config(run_dir)
    agent, snapshot = load_agent(config, run_dir, folder)
    stem.parent.mkdir(parents=True, exist_ok=True)
    recording = record_video(config, agent, snapshot, stem, **options)
    assert recording is not None  # nothing stops it
    return recording


def record_at_end(
    config: Config,
    agent: Agent,
    snapshot: Snapshot,
    run_dir: Path,
    should_stop: Callable[[], bool],
) -> None:
    """Leaves a short video in a run folder; says in one line if that fails, and why.

    The run is saved and its result written by then: a missing video must not fail it.
    """
    try:
        recording = record_video(
            config,
            agent,
            snapshot,
            run_dir / PLAY,
            max_play_seconds=END_PLAY_SECONDS,
            max_work_seconds=END_WORK_SECONDS,
            should_stop=should_stop,
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        print(f"warning: no video: {type(error).__name__}: {reason}", file=sys.stderr)
        return
    if recording is not None:
        names = " and ".join(path.name for path in recording.paths)
        print(f"{names}: {recording.play_seconds:.0f} seconds of play")
