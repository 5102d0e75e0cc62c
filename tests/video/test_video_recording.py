"""Video files: what is in them, what is left when making one fails, and the command line."""

import dataclasses
import itertools
import json
import os
import signal
import sys
import types

import av
import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image

from a3cjax.commands import main
from a3cjax.config.builders import build_agent, init_state
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs import making as envs
from a3cjax.envs.making import make_environments
from a3cjax.runs.playing import TrainedAgent
from a3cjax.system.signals import leave
from a3cjax.training.run import train
from a3cjax.types import Snapshot
from a3cjax.video import game, recording
from a3cjax.video.files import MAX_GIF_RATE, GifFile, Mp4File, VideoFiles
from a3cjax.video.recording import (
    BOARD_RATE,
    FILM_SECONDS,
    HOLD_SECONDS,
    VideoOptions,
    record_at_end,
    record_video,
    steps_per_second,
)
from a3cjax.video.screen import MARGIN, PANEL_WIDTH, Screen
from tests.cases import for_each

SMALL = {"total_frames": 200, "num_actors": 1, "envs_per_actor": 2, "unroll_length": 10}
CATCH_STEPS = 9  # of every game
GAME_SECONDS = CATCH_STEPS / BOARD_RATE + HOLD_SECONDS
MP4 = VideoOptions(formats=["mp4"], num_episodes=1)


def make_player(**settings):
    """An agent with untrained parameters."""
    config = Config(**SMALL, **settings)
    environments = make_environments(config.env, num_envs=1, seed=0, discount=0.99)
    spec = environments.spec
    environments.close()
    config = resolve(config, spec)
    agent = build_agent(config, spec)
    snapshot = Snapshot(0, 0, init_state(config, agent, spec).params)
    return TrainedAgent(config, agent, snapshot, spec)


@pytest.fixture(scope="module")
def catcher():
    return make_player(env="Catch")


def read_video(path):
    """Codec, pixel format and frames a second of a file, and all its frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        kind = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate)
        return kind, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def test_files_hold_every_step_and_the_end_for_a_while(catcher, tmp_path):
    result = record_video(catcher, tmp_path / "new" / "catch", VideoOptions(num_episodes=2))
    assert [path.name for path in result.paths] == ["catch.mp4", "catch.gif"]
    folder = tmp_path / "new"
    assert sorted(path.name for path in folder.iterdir()) == ["catch.gif", "catch.mp4"]
    kind, frames = read_video(folder / "catch.mp4")
    assert kind == ("h264", "yuv420p", BOARD_RATE)
    assert len(frames) / BOARD_RATE == 2 * GAME_SECONDS
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    assert np.abs(frames[0].astype(int) - frames[CATCH_STEPS]).max() > 50  # something moved
    assert set(result.scores) <= {-1.0, 1.0}
    with Image.open(folder / "catch.gif") as gif:
        assert gif.size == frames[0].shape[1::-1]
        assert gif.info["loop"] == 0
        seconds = gif.n_frames * gif.info["duration"] / 1000
    assert seconds == pytest.approx(2 * GAME_SECONDS, abs=0.6)


def test_greedy_game_is_the_one_that_an_evaluation_plays(tmp_path):
    agent = make_player(env="CartPole")
    evaluation = agent.evaluate(1, is_greedy=True)
    options = VideoOptions(formats=["mp4"], num_episodes=1, is_greedy=True)
    result = record_video(agent, tmp_path / "game", options)
    assert result.scores == evaluation.scores
    _, frames = read_video(tmp_path / "game.mp4")
    assert len(frames) == evaluation.episodes[0].episode_length + 30 * HOLD_SECONDS
    assert frames[0].mean() > 60  # envpool draws its own picture, on white


@pytest.mark.parametrize(
    "settings",
    [
        {"env": "FrozenLake", "algorithm": "one_step_q", "network": "tabular"},
        {"env": "gymnasium:Pendulum-v1"},
        {"env": "Catch", "network": "mlp_gru"},
    ],
)
def test_every_kind_of_agent_can_be_filmed_with_saliency(settings, tmp_path):
    options = VideoOptions(formats=["mp4"], with_saliency=True, max_seconds=0.25)
    result = record_video(make_player(**settings), tmp_path / "game", options)
    _, frames = read_video(result.paths[0])
    assert frames[0].std() > 5


@pytest.mark.parametrize(
    ("num_episodes", "max_seconds", "seconds", "num_games", "is_cut"),
    [
        (None, None, FILM_SECONDS, 10, True),  # as many games as fill half a minute
        (None, 5.0, 5.0, 2, True),
        (None, 6.0, 6.0, 2, False),  # the second game stands still for a shorter time
        (None, 2 * GAME_SECONDS, 2 * GAME_SECONDS, 2, False),  # ends with a game
        (3, None, 3 * GAME_SECONDS, 3, False),
        (3, 1.25, 1.25, 1, True),  # a long game is cut
        (12, None, 12 * GAME_SECONDS, 12, False),  # games that were asked for are all shown
    ],
)
def test_games_follow_one_another_until_the_time_is_filled(
    catcher, tmp_path, num_episodes, max_seconds, seconds, num_games, is_cut
):
    options = VideoOptions(["mp4"], num_episodes, max_seconds=max_seconds)
    result = record_video(catcher, tmp_path / "a", options)
    (_, _, rate), frames = read_video(result.paths[0])
    assert len(frames) / rate == seconds == result.seconds
    assert len(result.scores) == num_games
    assert result.cut == [False] * (num_games - is_cut) + [True] * is_cut
    finished = result.scores[: num_games - is_cut]
    assert set(finished) <= {-1.0, 1.0}
    if is_cut:
        assert result.scores[-1] == 0.0
    assert result.describe().endswith(f"{result.scores[-1]:g}{' so far' * is_cut}")


def test_each_game_begins_with_score_and_memory_of_its_own(tmp_path, monkeypatch):
    moments = []
    draw = Screen.draw

    def spy(self, moment):
        moments.append(moment)
        return draw(self, moment)

    monkeypatch.setattr(Screen, "draw", spy)
    agent = make_player(env="Catch", network="mlp_gru")
    states = []
    act = type(agent).act

    def remember(self, timestep, core_state, *arguments):
        if timestep.is_first[0]:
            states.append(jax.tree.map(np.asarray, core_state))
        return act(self, timestep, core_state, *arguments)

    monkeypatch.setattr(type(agent), "act", remember)
    record_video(agent, tmp_path / "a", VideoOptions(["gif"], max_seconds=7.0))
    first = [moment for moment in moments if moment.num_steps == 0]
    assert len(first) == len(states) == 3
    assert {moment.score for moment in first} == {0.0}
    for state in states:
        jax.tree.map(np.testing.assert_array_equal, state, agent.initial_state(1))


def test_work_is_limited(catcher, tmp_path):
    result = record_video(catcher, tmp_path / "b", VideoOptions(max_work_seconds=0.0))
    assert len(read_video(result.paths[0])[1]) == 1


def test_games_and_their_actions_follow_the_seed(catcher, tmp_path, monkeypatch):
    keys = []

    def watch(agent, environments, keys_of_games, **options):
        keys.extend(keys_of_games)
        return game.watch(agent, environments, keys[-3:], **options)

    monkeypatch.setattr(recording, "watch", watch)

    def film(name, seed):
        options = VideoOptions(formats=["gif"], num_episodes=3, seed=seed)
        return record_video(catcher, tmp_path / name, options).paths[0]

    first = film("a", None).read_bytes()
    assert film("b", catcher.config.seed).read_bytes() == first
    assert film("c", catcher.config.seed + 1).read_bytes() != first
    numbers = [tuple(jax.random.key_data(key).tolist()) for key in keys]
    assert numbers[:3] == numbers[3:6]
    assert len(set(numbers[3:])) == 6


def test_video_that_is_given_up_leaves_nothing(catcher, tmp_path):
    asked = itertools.chain([False] * 4, itertools.repeat(True))
    assert record_video(catcher, tmp_path / "game", VideoOptions(), lambda: next(asked)) is None
    assert list(tmp_path.iterdir()) == []


def test_process_that_is_ended_leaves_no_unfinished_film(catcher, tmp_path, monkeypatch):
    def leave_now():
        assert [path.suffix for path in tmp_path.iterdir()] == [".part", ".part"]
        leave(signal.SIGTERM)

    def end(exit_code):
        left.extend(tmp_path.iterdir())
        raise KeyboardInterrupt(exit_code)

    left = []
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(KeyboardInterrupt, match="143"):
        record_video(catcher, tmp_path / "game", VideoOptions(), leave_now)
    assert left == []


def test_failure_leaves_nothing_and_an_older_video_as_it_was(catcher, tmp_path, monkeypatch):
    (tmp_path / "game.mp4").write_bytes(b"older")

    def fail(self, frame):
        raise OSError("no space left")

    def fail_again(self):
        Mp4File.abandon(self)
        raise OSError("no space left, still")

    monkeypatch.setattr(GifFile, "write", fail)
    monkeypatch.setattr(GifFile, "abandon", fail_again)
    with pytest.raises(OSError, match=r"no space left$"):
        record_video(catcher, tmp_path / "game", VideoOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["game.mp4"]
    assert (tmp_path / "game.mp4").read_bytes() == b"older"


def test_two_films_of_one_name_at_a_time_do_not_disturb_each_other(tmp_path):
    (one, first), (other, second) = (
        (VideoFiles(tmp_path / "game", ["mp4"], 10.0), np.full((64, 64, 3), level, np.uint8))
        for level in (50, 200)
    )
    one.write(first, 100)  # more than the encoder holds back
    other.write(second, 100)
    assert all(path.suffix == ".part" for path in tmp_path.iterdir())
    assert one.close() == other.close() == [tmp_path / "game.mp4"]
    assert list(tmp_path.iterdir()) == [tmp_path / "game.mp4"]
    assert np.mean(read_video(tmp_path / "game.mp4")[1]) > 150  # the later one


def test_gif_leaves_frames_out_and_keeps_the_time(tmp_path):
    file = GifFile(tmp_path / "a.gif", 20, 10, rate=50.0)
    for index in range(100):
        file.write(np.full((10, 20, 3), 2 * index, np.uint8))
    file.close()
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames <= 2 * MAX_GIF_RATE
        assert gif.n_frames * gif.info["duration"] == pytest.approx(2000, abs=300)


def test_colours_stay_what_they_are(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:32] = (240, 180, 70)
    for kind, name in ((Mp4File, "a.mp4"), (GifFile, "a.gif")):
        file = kind(tmp_path / name, 64, 64, 10.0)
        for _ in range(3):
            file.write(frame)
        file.close()
        shown = read_video(tmp_path / name)[1][0].astype(int)
        assert np.abs(shown[8, 8] - (240, 180, 70)).max() < 12
        assert np.abs(shown[56, 56]).max() < 12


# Pictures of environments.


class Painter(gymnasium.Env):
    """Three steps a game; shows itself as one colour, or fails to."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    picture = np.full((30, 40, 3), (200, 30, 90), np.uint8)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        self.num_steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        return np.zeros(2, np.float32), 1.0, self.num_steps == 3, False, {}

    def render(self):
        if isinstance(self.picture, Exception):
            raise self.picture
        return self.picture


@pytest.fixture
def painter(monkeypatch):
    gymnasium.register("Painter-v0", Painter)
    yield make_player(env="gymnasium:Painter-v0")
    gymnasium.registry.pop("Painter-v0")


def test_environments_of_gymnasium_are_shown_as_they_show_themselves(painter, tmp_path):
    result = record_video(painter, tmp_path / "game", MP4)
    kind, frames = read_video(result.paths[0])
    assert kind[2] == 5
    assert len(frames) == 3 + 5 * HOLD_SECONDS
    assert np.abs(frames[0][200, 100].astype(int) - (200, 30, 90)).max() < 12
    assert result.scores == [3.0]


def test_observations_are_shown_where_rendering_fails(painter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Painter, "picture", RuntimeError("no display\nat all"))
    assert record_video(painter, tmp_path / "game", MP4) is not None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("The environment cannot be rendered")
    assert line.endswith("no display")


def test_observations_are_shown_where_only_the_constructor_for_pictures_fails(
    painter, tmp_path, monkeypatch, capsys
):
    def init(self, render_mode=None):
        if render_mode is not None:
            raise RuntimeError("no display")
        self.render_mode = None

    monkeypatch.setattr(Painter, "__init__", init)
    result = record_video(painter, tmp_path / "game", MP4)
    assert result.scores == [3.0]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: gymnasium:Painter-v0 cannot be made with pictures: ")
    assert "no display" in line


class Growing(Painter):
    """Its pictures have other sizes in each game; the one that is asked for as an image grows."""

    num_games = num_pictures = 0

    def reset(self, *, seed=None, options=None):
        Growing.num_games += 1
        return super().reset(seed=seed)

    def render(self):
        Growing.num_pictures += 1
        shape = [(160, 160, 3), (224, 224, 3), (30, 200, 3), (90, 30, 3)][self.num_games % 4]
        return np.full(shape, (200, 30, 90), np.uint8)


def test_a_film_has_one_size_whatever_sizes_its_pictures_have(tmp_path):
    gymnasium.register("Growing-v0", Growing)
    agent = make_player(env="gymnasium:Growing-v0")
    options = VideoOptions(num_episodes=8)
    result = record_video(agent, tmp_path / "game", options)
    for path in result.paths:
        _, frames = read_video(path)
        assert len({frame.shape for frame in frames}) == 1
    _, frames = read_video(result.paths[0])
    for index in range(8):  # the picture is in the middle of its place
        frame = frames[index * round(3 + 5 * HOLD_SECONDS)]
        left = frame.shape[1] - PANEL_WIDTH - 3 * MARGIN
        colour = frame[frame.shape[0] // 2, MARGIN + left // 2].astype(int)
        assert np.abs(colour - (200, 30, 90)).max() < 20, index
    gymnasium.registry.pop("Growing-v0")


class Seen(Growing):
    """What it shows to people is not what it shows to the agent."""

    observation_space = gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((36, 36, 3), np.uint8), {}

    def step(self, action):
        _, *rest = super().step(action)
        return np.zeros((36, 36, 3), np.uint8), *rest


@pytest.mark.parametrize("with_saliency", [False, True])
def test_pictures_that_saliency_hides_are_not_asked_for(tmp_path, with_saliency):
    gymnasium.register("Seen-v0", Seen)
    agent = make_player(env="gymnasium:Seen-v0", centre_observations=False)
    Growing.num_pictures = 0
    record_video(agent, tmp_path / "game", MP4._replace(with_saliency=with_saliency))
    # One to see whether there are any, and one for each of four moments.
    assert Growing.num_pictures == (1 if with_saliency else 5)
    gymnasium.registry.pop("Seen-v0")


def test_a_game_that_a_limit_cuts_is_not_shown_as_over(painter, tmp_path):
    limited = dataclasses.replace(painter, config=painter.config.replace(max_episode_steps=2))
    result = record_video(limited, tmp_path / "game", MP4._replace(num_episodes=2))
    assert (result.scores, result.cut) == ([2.0, 2.0], [True, True])
    assert result.describe().endswith("score 2 so far, 2 so far")


@pytest.mark.filterwarnings("ignore:.*RGB-array rendering:UserWarning")  # Gymnasium's own check
@for_each("picture", [np.zeros((30, 40)), np.zeros((0, 0, 3), np.uint8)])
def test_pictures_of_another_kind_are_refused(painter, monkeypatch, picture):
    monkeypatch.setattr(Painter, "picture", picture)
    environments = make_environments(
        "gymnasium:Painter-v0", num_envs=1, seed=0, discount=0.9, renders=True
    )
    with pytest.raises(RuntimeError, match=r"pictures must be uint8 of shape \(height, width, 3\)"):
        environments.render()
    environments.close()


@for_each("returncode", [1, -6])
def test_mujoco_is_not_asked_for_pictures_where_that_would_end_the_process(returncode, monkeypatch):
    tried = []

    def run(command, **options):
        tried.append(command[-1])
        return types.SimpleNamespace(returncode=returncode)

    monkeypatch.setattr(envs.subprocess, "run", run)
    environments = make_environments(
        "InvertedPendulum", num_envs=1, seed=0, discount=0.9, renders=True
    )
    assert environments.render() is None
    environments.close()
    (env_id,) = tried
    assert env_id.startswith("InvertedPendulum-v")


def test_atari_games_are_shown_in_colour_at_the_speed_of_the_console():
    environments = make_environments(
        "Pong", num_envs=1, seed=0, discount=0.9, has_whole_games=True, renders=True
    )
    picture = environments.render()
    assert picture.shape == (210, 160, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    assert steps_per_second(environments) == 15.0
    environments.close()


# The end of a run, and the command line.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that left a video."""
    run_dir = tmp_path_factory.mktemp("runs") / "catch"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "END_WORK_SECONDS", 1000.0)  # of a busy machine
        train(Config(env="Catch", run_dir=str(run_dir), eval_episodes=0, **SMALL))
    return run_dir


def test_run_leaves_a_short_video_after_everything_else(finished):
    assert json.loads((finished / "summary.json").read_text())["num_frames"] >= 200
    assert (finished / "curves.png").exists()
    (_, _, rate), frames = read_video(finished / "play.mp4")
    assert len(frames) / rate == FILM_SECONDS
    with Image.open(finished / "play.gif") as gif:
        assert gif.n_frames > 1


def test_failing_video_costs_a_run_nothing_but_a_line(catcher, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError("libx264\nis gone")

    monkeypatch.setattr(recording, "watch", fail)
    record_at_end(catcher, tmp_path, lambda: False)
    assert capsys.readouterr().err == "warning: no video: OSError: libx264 is gone\n"
    assert list(tmp_path.iterdir()) == []


def test_video_of_a_slow_game_ends_where_it_is(catcher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recording, "END_WORK_SECONDS", 0.0)
    record_at_end(catcher, tmp_path, lambda: False)
    assert len(read_video(tmp_path / "play.mp4")[1]) == 1
    assert "play.mp4 and play.gif" in capsys.readouterr().out


def test_stopped_video_says_nothing(catcher, tmp_path, capsys):
    record_at_end(catcher, tmp_path, lambda: True)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "play" not in captured.out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs play.py in this process as if from the command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["a3cjax", "play", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_command_writes_into_the_run_folder(command, finished):
    code, out, err = command(finished, "num_episodes=2", "format=GIF, gif", "saliency=true")
    assert (code, err) == (0, "")
    assert f"written to {finished / 'game.gif'}" in out
    assert "score " in out
    assert (finished / "game.gif").exists()
    assert not (finished / "game.mp4").exists()


def test_command_writes_elsewhere_for_another_seed(command, finished, tmp_path):
    arguments = ("best=true", "greedy=true", "seed=5", "max_seconds=0.2", "output=new/a.b")
    code, _, err = command(finished, *arguments)
    assert code == 2  # the run was not evaluated: nothing is its best
    assert "must hold best/, got" in err
    code, _, err = command(finished, *arguments[1:])
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.b.gif", "a.b.mp4"]


@pytest.mark.parametrize(
    ("output", "names"),
    [("there", ["there/game.gif", "there/game.mp4"]), ("there/x.GIF", ["there/x.gif"])],
)
def test_output_may_be_a_folder_or_name_its_format(command, finished, tmp_path, output, names):
    (tmp_path / "there").mkdir()
    code, _, err = command(finished, "max_seconds=0.2", f"output={output}")
    assert (code, err) == (0, "")
    found = [path for path in tmp_path.rglob("*") if path.suffix in {".gif", ".mp4"}]
    assert sorted(str(path.relative_to(tmp_path)) for path in found) == names


def test_place_that_cannot_be_written_is_named_before_a_game_is_played(
    command, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(VideoFiles, "write", None)
    (tmp_path / "file").touch()
    code, _, err = command(finished, "output=file/film")
    assert (code, err) == (1, "error: the film cannot be kept: [Errno 17] File exists: 'file'\n")
    (tmp_path / "there").mkdir()
    code, _, err = command(finished, f"output=there/{'x' * 255}")
    assert code == 1
    (line,) = err.splitlines()
    assert "File name too long: 'there/xxx" in line
    assert list((tmp_path / "there").iterdir()) == []


@for_each(
    ("arguments", "words"),
    [
        (["nothing"], "There is no run folder nothing"),
        (["."], "config.yaml, got ."),
        (["{run}", "seed=-1"], "seed must be >= 0, got -1."),
    ],
)
def test_what_cannot_be_filmed_is_refused_in_one_line(command, finished, arguments, words):
    code, _, err = command(*(word.format(run=finished) for word in arguments))
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_folder_without_a_checkpoint_is_refused(command, finished, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((finished / "config.yaml").read_text())
    code, _, err = command("run")
    assert code == 2
    assert err == "error: run folder must hold checkpoints/, got run.\n"


@for_each("argument", ["num_episodes=0", "format=avi", "max_seconds=0", "--episodes=2", "fps=30"])
def test_wrong_options_are_refused(command, argument):
    code, _, err = command(".", argument)
    assert code == 2
    (line,) = err.splitlines()
    assert argument.partition("=")[0] in line
