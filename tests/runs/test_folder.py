"""The run folder: where a new one may be, how it comes about, and what is left of nothing."""

import os
import re
import threading
from pathlib import Path

import pytest

from a3cjax.config.reading import load_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs import folder
from a3cjax.runs.folder import BEST, NEWEST, check_run_dir, has_results, make_run_dir
from a3cjax.runs.lock import LOCK, claimed
from a3cjax.runs.tables import EPISODES, EVALUATIONS, METRICS, SUMMARY
from tests.cases import for_each
from tests.fakes import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def look(place=Path()):
    """All that lies here, links as what they are."""
    return {path: os.readlink(path) if path.is_symlink() else "" for path in place.rglob("*")}


def config_at(run_dir):
    return Config(run_dir=str(run_dir))


def made(config):
    with make_run_dir(config) as run_dir:
        return run_dir


def test_run_folders_are_named_by_environment_time_and_seed():
    for env, name in [("Pong", "Pong"), ("gymnasium:a/B-v0", "gymnasium-a-B-v0")]:
        run_dir = made(Config(env=env, seed=3))
        assert re.fullmatch(
            rf"runs/{name}/\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d-seed3", run_dir.as_posix()
        )
        assert load_config(run_dir) == Config(env=env, seed=3, run_dir=str(run_dir))


def test_runs_of_the_same_second_do_not_share_a_folder():
    run_dirs = [made(Config()) for _ in range(20)]
    assert len(set(run_dirs)) == 20
    assert any(run_dir.name.endswith("seed1-2") for run_dir in run_dirs)


def test_new_folder_is_claimed_and_holds_its_settings_only():
    with make_run_dir(config_at("new/run")) as run_dir:
        assert look() == dict.fromkeys(
            [Path("new"), run_dir, run_dir / "config.yaml", run_dir / LOCK], ""
        )
        with pytest.raises(ConfigError, match="must have one writer"), claimed(run_dir):
            pass
    with claimed(run_dir):
        pass


def test_folder_is_there_with_its_settings_or_not_at_all(monkeypatch):
    rename = Path.rename

    def end(*_):
        raise KeyboardInterrupt

    def look_and_rename(path, target):
        seen.append((sorted(os.listdir(path)), os.path.lexists(target)))
        return rename(path, target)

    for name in ("claimed", "write_config"):
        with monkeypatch.context() as patch:
            patch.setattr(folder, name, end)
            with pytest.raises(KeyboardInterrupt):
                made(config_at("run"))
        assert look() == {}
    seen = []
    monkeypatch.setattr(Path, "rename", look_and_rename)
    made(config_at("run"))
    assert seen == [(["config.yaml", LOCK], False)]


def test_of_two_that_make_the_same_folder_one_wins():
    barrier, ends, answers = threading.Barrier(4), threading.Event(), []

    def tell(answer):
        answers.append(answer)
        if len(answers) == 4:
            ends.set()

    def make():
        barrier.wait()
        try:
            with make_run_dir(config_at("run")):
                tell("")
                assert ends.wait(PATIENCE_SECONDS)
        except ConfigError as error:
            tell(str(error))

    for place in (lambda: None, lambda: Path("run").mkdir()):
        place()
        answers.clear()
        ends.clear()
        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(bool, answers)) == [False, True, True, True], answers
        assert set(look()) == {Path("run"), Path("run/config.yaml"), Path("run") / LOCK}
        for path in Path("run").iterdir():
            path.unlink()
        Path("run").rmdir()


@for_each("names", [(), (LOCK,), ("config.yaml.part", LOCK)])
@for_each("is_link", [False, True])
def test_empty_folder_and_what_a_killed_start_left_become_a_run(
    tmp_path, monkeypatch, names, is_link
):
    monkeypatch.chdir(tmp_path)
    place = Path("elsewhere" if is_link else "run")
    place.mkdir()
    if is_link:
        Path("run").symlink_to(place)
    for name in names:
        (place / name).touch()
    number = place.stat().st_ino
    with make_run_dir(config_at("run")) as run_dir:
        assert run_dir == Path("run")
        with pytest.raises(ConfigError, match="must have one writer"), claimed(place):
            pass
    assert load_config(place) == config_at("run")
    assert place.stat().st_ino == number  # it may be what is mounted here
    assert Path("run").is_symlink() == is_link


def test_folder_in_which_a_run_has_just_begun_is_left_alone(monkeypatch):
    def claim_too_late(run_dir, env):
        lay_file("run/config.yaml")
        return claimed(run_dir, env)

    Path("run").mkdir()
    monkeypatch.setattr(folder, "claimed", claim_too_late)
    with pytest.raises(ConfigError, match=r"^run_dir must be new or empty, got run\.$"):
        made(config_at("run"))
    assert Path("run/config.yaml").read_text() == "precious"


def lay_link(target):
    Path("run").symlink_to(target)
    return "run"


def lay_file(name):
    Path(name).write_text("precious")


PLACES = {
    "results": lambda: (Path("run").mkdir(), lay_file("run/results.csv"), "run")[-1],
    "settings": lambda: (Path("run").mkdir(), lay_file("run/config.yaml"), "run")[-1],
    "file": lambda: lay_file("run") or "run",
    "below a file": lambda: lay_file("file") or "file/run",
    "far below a file": lambda: lay_file("file") or "file/a/b/run",
    "link to nothing": lambda: lay_link("nowhere"),
    "link to itself": lambda: lay_link("run"),
    "link to a file": lambda: lay_file("file") or lay_link("file"),
    "link to results": lambda: (Path("a").mkdir(), lay_file("a/b"), lay_link("a"))[-1],
    "below a link to nothing": lambda: lay_link("nowhere") + "/run",
    "far below a link to nothing": lambda: lay_link("nowhere") + "/a/b",
    "below a link to a file": lambda: lay_file("file") or lay_link("file") + "/run",
    "long name": lambda: "new/" + "x" * 300,
    "long name below": lambda: "x" * 300 + "/new",
    "long path": lambda: "x/" * 3000,
    "zero": lambda: "new/a\0b",
    "this folder": lambda: lay_file("file") or ".",
}


@for_each("name", PLACES)
def test_what_is_no_place_for_a_run_is_refused_in_a_line_and_left_alone(
    tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    config = config_at(PLACES[name]())
    before = look()
    for refuse in (check_run_dir, made):
        with pytest.raises(ConfigError, match=r"^run_dir must ") as caught:
            refuse(config)
        assert "\n" not in str(caught.value)
    assert look() == before


@for_each("lay", [lay_file, lambda name: Path(name).symlink_to("nowhere")])
def test_folder_of_runs_that_is_none_is_refused(tmp_path, monkeypatch, lay):
    monkeypatch.chdir(tmp_path)
    lay("runs")
    before = look()
    with pytest.raises(ConfigError, match=r"^run_dir must be writable, got runs/"):
        made(Config())
    assert look() == before


# What is left of a run that has learned nothing.


@for_each(
    "names",
    [
        (),
        (LOCK, METRICS, "events.out.tfevents.1", "tracking.json"),
        (f"{NEWEST}/0.safetensors.part", f"{BEST}/"),
    ],
)
def test_run_ended_in_random_play_has_no_results(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    made(config_at("run"))
    for name in names:
        path = Path("run") / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    Path("run", EPISODES).write_text("num_frames,wall_seconds\n")
    Path("run", SUMMARY).write_text('{"num_updates": 0, "signal": 15}')
    assert not has_results(Path("run"))


@for_each(
    ("name", "text"),
    [
        (f"{NEWEST}/0.safetensors", ""),
        (f"{NEWEST}/discarded-1-0.safetensors", ""),
        (f"{NEWEST}/300/arrays", ""),
        (f"{BEST}/0.safetensors", ""),
        (f"{BEST}/discarded-1-0.safetensors", ""),
        (SUMMARY, '{"num_updates": 5}'),
        (SUMMARY, "{"),
        *((log, "num_frames\n5\n") for log in (METRICS, EPISODES, EVALUATIONS)),
        (EPISODES, "num_frames,a\n5,"),
    ],
)
def test_anything_learned_is_a_result(tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    made(config_at("run"))
    path = Path("run") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert has_results(Path("run"))
