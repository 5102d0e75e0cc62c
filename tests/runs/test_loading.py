"""Published agents: `a3cjax.load`, the model card."""

import contextlib
import errno
import importlib
import json
import math
import re
import shlex
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import a3cjax
from a3cjax.commands import main
from a3cjax.commands.evaluate import EvaluateSettings, default_path
from a3cjax.commands.play import PlaySettings, choose_files
from a3cjax.config.reading import load_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.envs.lean_pool import LeanPool
from a3cjax.errors import ConfigError
from a3cjax.runs.loading import find_agent, load
from a3cjax.runs.lock import claimed
from a3cjax.runs.parameter_files import PARAMETER_FILE, write_parameters
from a3cjax.runs.publishing import make_model_card, publish
from a3cjax.runs.tables import read_summary
from a3cjax.runs.trust import check_trust
from a3cjax.system.life import show_life_by
from a3cjax.system.quoting import without_folders
from a3cjax.training.run import train
from a3cjax.types import Snapshot
from tests.cases import for_each
from tests.documents import ROOT


def test_folder_without_an_agent_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"config\.yaml, got {tmp_path}"):
        a3cjax.load(tmp_path)
    (tmp_path / "config.yaml").write_text("env: CartPole\nnetwork: mlp_ff\n")
    with pytest.raises(FileNotFoundError, match=f"checkpoints/, got {tmp_path}"):
        a3cjax.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    with pytest.raises(FileNotFoundError, match=r"^There is no run folder ''; agents"):
        a3cjax.load("")


# Code that settings name.


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A module `helper_of_others.envs`, in which importing anything leaves a file."""
    package = tmp_path / "modules" / "helper_of_others"
    package.mkdir(parents=True)
    for name in ("__init__.py", "envs.py", "a:b.py"):
        marker = str(tmp_path / "imported")
        (package / name).write_text(f"import pathlib\npathlib.Path({marker!r}).touch()\n")
    monkeypatch.syspath_prepend(package.parent)
    yield "helper_of_others"
    for name in [name for name in sys.modules if name.startswith("helper_of_others")]:
        del sys.modules[name]


def make_foreign(tmp_path, env):
    """A run folder of somebody else, with this in its settings."""
    folder = tmp_path / "foreign"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"env": env, "network": "mlp_ff"}))
    return folder


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("module", ["", ".envs", ".a:b", ".envs:X"])
def test_settings_of_others_import_no_code_unless_it_is_asked_for(tmp_path, helper, module):
    module = helper + module
    folder = make_foreign(tmp_path, f"gymnasium:{module}:X-v0")
    before = contents(folder)
    with pytest.raises(ConfigError) as caught:
        a3cjax.load(folder)
    for word in (f" {module} ", str(folder), "trust=true"):
        assert word in str(caught.value)
    assert not (tmp_path / "imported").exists()
    assert not any(name.startswith(helper) for name in sys.modules)
    with pytest.raises(ValueError):  # noqa: PT011 - it may not be there, but was looked for
        a3cjax.load(folder, trust=True)
    assert (tmp_path / "imported").exists()
    assert contents(folder) == before  # nor does it become the user's own


@pytest.mark.parametrize("verb", ["evaluate", "play", "publish", "report"])
def test_no_verb_imports_code_of_others(tmp_path, helper, monkeypatch, capsys, verb):
    folder = make_foreign(tmp_path, f"gymnasium:{helper}:X-v0")
    (folder / "summary.json").write_text('{"evaluation": {"mean": 1.0}, "num_frames": 5}')
    write_parameters(folder, Snapshot(1, 5, {}))
    before = contents(folder)
    monkeypatch.chdir(tmp_path / "modules")
    rest = {"publish": [str(tmp_path / "out")], "report": [f"output={tmp_path / 'report'}"]}
    with contextlib.suppress(SystemExit):
        main([verb, str(folder), *rest.get(verb, [])])
    if verb != "report":
        assert "trust=true" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()
    assert contents(folder) == before


def test_run_folder_of_ones_own_needs_no_trust(tmp_path, helper):
    folder = make_foreign(tmp_path, f"gymnasium:{helper}:X-v0")
    with claimed(folder):  # as `resume=` does: that makes it nobody's own
        pass
    with pytest.raises(ConfigError, match="trust=true"):
        a3cjax.load(folder)
    with claimed(folder, f"gymnasium:{helper}:X-v0"):
        pass
    with pytest.raises(ConfigError, match="must be known to Gymnasium"):
        a3cjax.load(folder)
    assert (tmp_path / "imported").exists()


def test_module_that_is_imported_already_needs_no_trust(tmp_path, helper):
    importlib.import_module(f"{helper}.envs")
    folder = make_foreign(tmp_path, f"gymnasium:{helper}.envs:X-v0")
    with pytest.raises(ConfigError, match="must be known to Gymnasium"):
        a3cjax.load(folder)


@for_each(
    "env", ["CartPole", "Pong-v5", "gymnasium:CartPole-v1", "gymnasium:ALE/Pong-v5", "ALE/Pong-v5"]
)
def test_names_without_a_module_need_no_trust(tmp_path, env):
    check_trust(Config(env=env), tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The summary of a short run with memory and centred observations."""
    config = Config(
        env="CartPole",
        network="mlp_gru",
        total_frames=700,
        num_actors=1,
        envs_per_actor=4,
        unroll_length=20,
        warmup_steps=16,
        eval_episodes=3,
        video=False,
        run_dir=str(tmp_path_factory.mktemp("runs") / "run"),
    )
    return train(config)


@for_each(
    "edited",
    [
        *({"network": name} for name in ("atari_ff", "minatar_lstm", "tabular", "multi_ff")),
        *({"dueling": True}, {"policy": "gaussian"}, {"algorithm": "ppo", "double_q": True}),
    ],
)
def test_settings_that_somebody_edited_are_refused_in_a_line(finished, tmp_path, edited):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    settings = yaml.safe_load((run_dir / "config.yaml").read_text()) | edited
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    (name, _) = list(edited.items())[-1]
    for use in (load, lambda path: train(resume_config(path, {"total_frames": 900}))):
        with pytest.raises(ConfigError, match=f"^{name} must "):
            use(run_dir)


@for_each("name", ["summary.json", "curves.png", "play.gif.part"])
def test_a_folder_where_a_run_will_write_is_found_before_it_learns(finished, tmp_path, name):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).mkdir()
    with pytest.raises(ConfigError, match=rf"^resume must be .*: {re.escape(name)} must be a file"):
        train(resume_config(tmp_path / "run", {"total_frames": 900}))


@for_each("flag", ["false", "no", 2, None, np.ones(2)])
def test_flags_of_python_are_true_or_false(finished, flag):
    agent = load(finished.run_dir, trust=np.True_)
    calls = {
        "best": lambda: load(finished.run_dir, best=flag),
        "trust": lambda: load(finished.run_dir, trust=flag),
        "deterministic": lambda: agent.predict(np.zeros(4, np.float32), deterministic=flag),
        "has_mask": lambda: agent.export("none", has_mask=flag),
        "is_greedy": lambda: agent.evaluate(1, is_greedy=flag),
    }
    for name, call in calls.items():
        if flag is not None or name != "is_greedy":  # for which None is what the run has
            with pytest.raises(ConfigError, match=f"^{name} must be true or false, got "):
                call()


def test_numbers_of_environments_and_sticky_actions_are_those_of_the_command_line(finished):
    agent = load(finished.run_dir)
    for number in (0, -1, 1.5, "2", None, 10**7):
        with pytest.raises(ConfigError, match=r"^num_envs must be a whole number between 1 and "):
            agent.make_environments(number)
    for share in (2, -1, float("nan"), "x"):
        with pytest.raises(ConfigError, match=r"^sticky_actions must be between 0 and 1, got "):
            load("pong").make_environments(1, sticky_actions=share)
    load("pong").make_environments(1, sticky_actions=np.float32(0.25)).close()


def test_what_is_no_config_is_refused_in_a_line(finished):
    for config in ({"env": "CartPole"}, "CartPole", None, Config):
        with pytest.raises(ConfigError, match=r"^config must be a Config, "):
            train(config)
    for changes in (None, ["a"], "total_frames=3"):
        with pytest.raises(ConfigError, match=r"^changes must be settings by name, "):
            resume_config(finished.run_dir, changes)


def test_settings_of_another_environment_are_not_published(finished, tmp_path):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings | {"env": "Acrobot"}))
    with pytest.raises(
        ConfigError, match=r"^run_dir must be of one run, .* of 'CartPole', .*robot"
    ):
        publish(str(tmp_path / "run"), str(tmp_path / "out"))


@pytest.fixture
def published(finished, tmp_path):
    return publish(finished.run_dir, tmp_path / "published")


def test_published_agent_is_small_and_complete(published):
    names = {path.name for path in published.iterdir()}
    assert names == {"config.yaml", "environment.json", "summary.json", PARAMETER_FILE, "README.md"}


def test_published_agent_does_not_say_where_others_are_reached(finished, tmp_path):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings |= {"cluster": "ray", "num_workers": 1, "ray_address": "10.0.0.5:6379"}
    path.write_text(yaml.safe_dump(settings))
    path = tmp_path / "run" / "summary.json"
    command = {"command": "a3cjax train ray_address=10.0.0.5:6379 env=Catch"}
    path.write_text(json.dumps(json.loads(path.read_text()) | command))
    folder = publish(tmp_path / "run", tmp_path / "published", trust=True)
    assert "10.0.0.5" not in "".join(file.read_text(errors="ignore") for file in folder.iterdir())
    assert a3cjax.load(folder).config.ray_address is None


@pytest.mark.parametrize("kind", ["run", "published"])
def test_loaded_agent_repeats_the_evaluation_of_its_run(finished, published, kind):
    agent = a3cjax.load(finished.run_dir if kind == "run" else str(published))
    assert agent.evaluate(num_episodes=3).scores == finished.evaluation.scores
    assert agent.snapshot.num_frames == finished.num_frames


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.default_prng_impl("rbg"),
        lambda: jax.enable_x64(True),
        lambda: jax.numpy_dtype_promotion("strict"),
    ],
    ids=["prng", "x64", "strict"],
)
def test_loaded_agent_plays_the_same_games_whatever_jax_is_set_to(finished, setting):
    with setting():
        agent = a3cjax.load(finished.run_dir)
        assert agent.evaluate(num_episodes=3).scores == finished.evaluation.scores
        environments = agent.make_environments(2)
        own_key = jax.random.key(0)  # of the default implementation
        actions, *_ = agent.act(environments.reset(), agent.initial_state(2), own_key)
        environments.close()
    assert (actions.shape, actions.dtype) == ((2,), np.int32)


def test_statistics_of_vectors_come_back_with_a_scale_for_each_entry(finished):
    statistics = a3cjax.load(finished.run_dir).snapshot.statistics
    assert statistics is not None
    assert statistics.scale.shape == statistics.mean.shape == (4,)
    assert len(np.unique(statistics.scale)) == 4


def test_loaded_agent_acts(published):
    agent = a3cjax.load(published)
    environments = agent.make_environments(2)
    timestep, core_state = environments.reset(), agent.initial_state(2)
    key = jax.random.key(0)
    taken = []
    for _ in range(10):
        actions, core_state, new_key = agent.act(timestep, core_state, key)
        assert actions.shape == (2,)
        assert not np.array_equal(jax.random.key_data(key), jax.random.key_data(new_key))
        timestep, key = environments.step(actions), new_key
        taken.append(actions)
    environments.close()
    # It plays the same, with the memory that it has, where it plays on its own.
    environments = agent.make_environments(2)
    steps = list(agent.play(environments, jax.random.key(0), is_greedy=False))
    environments.close()
    np.testing.assert_array_equal([step.actions for step in steps[:10]], taken)
    assert sum(len(step.episodes) for step in steps) == 2


def test_best_parameters_of_a_run_can_be_loaded(finished, published):
    assert a3cjax.load(finished.run_dir, best=True).snapshot.num_frames == finished.num_frames
    with pytest.raises(FileNotFoundError, match="best/"):
        a3cjax.load(published, best=True)


def test_model_card_tells_the_result_in_the_words_of_model_hubs(finished, published):
    head, body = (published / "README.md").read_text().split("---\n")[1:]
    metadata = yaml.safe_load(head)
    evaluation = json.loads((finished.run_dir / "summary.json").read_text())["evaluation"]
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["name"] == "CartPole"
    mean, deviation = result["metrics"][0]["value"].split(" +/- ")
    assert float(mean) == pytest.approx(evaluation["mean"], abs=0.005)
    assert float(deviation) == pytest.approx(evaluation["standard_deviation"], abs=0.005)
    assert metadata["library_name"] == "a3cjax"
    assert "| `network` | mlp_gru |" in body
    assert f"{finished.num_frames:,} frames" in body
    assert f"\n{evaluation['num_episodes']} full games on seeds" in body
    assert "play.gif" not in body
    for cores, told in ((1, "1 core ("), (2, "2 cores (")):
        summary = read_summary(published)
        summary["machine"]["cores"] = cores
        assert told in make_model_card(load_config(published), summary, published.name)
    summary["evaluation"] |= {"mean": 0.0016, "min": -1.25e-5, "num_episodes": 3, "num_cut": 1}
    card = make_model_card(load_config(published), summary, published.name)
    assert "value: 0.0016 +/-" in card
    assert "\n3 games, 1 cut on seeds" in card
    assert "| -1.25e-05 |" in card


def test_names_with_colons_are_text_in_the_head_of_a_model_card(published):
    config = load_config(published).replace(env="gymnasium:a/B-v1")
    card = make_model_card(config, read_summary(published), published.name)
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["tags"][-1] == "gymnasium:a/B-v1"
    (model,) = metadata["model-index"]
    assert model["name"] == "a3c gymnasium:a/B-v1"
    assert model["results"][0]["dataset"] == dict.fromkeys(("type", "name"), "gymnasium:a/B-v1")


def test_model_card_names_the_module_of_an_environment_that_it_has_to_be_trusted_with(published):
    config = load_config(published).replace(env="gymnasium:robots:Arm-v1")
    card = make_model_card(config, read_summary(published), "-arm")
    assert 'a3cjax.load("-arm", trust=True)' in card
    assert "or `a3cjax evaluate ./-arm trust=true`" in card


HOSTILE = "x` | <b>\n---\n# y: [z](u) {0} \x1b[3m"


def test_what_a_model_card_quotes_stays_text(published):
    render = pytest.importorskip("markdown").markdown
    config, summary = load_config(published), read_summary(published)
    plain = make_model_card(config, summary, published.name)
    hostile = {
        **summary,
        "commit": HOSTILE,
        "command": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "machine": {"processor": HOSTILE, "cores": 2},
        "evaluation": summary["evaluation"] | {"actions": HOSTILE},
    }
    card = make_model_card(config.replace(env=HOSTILE), hostile, HOSTILE)
    assert yaml.safe_load(card.split("---\n")[1])["tags"][-1].startswith("x` | <b>")
    assert "\x1b" not in card
    bodies = [text.split("---\n", 2)[2] for text in (plain, card)]
    pages = [render(body, extensions=["tables", "fenced_code"]) for body in bodies]
    tags = [re.findall(r"<[a-z]\w*", page) for page in pages]
    assert tags[0] == tags[1]


def test_published_folder_tells_nothing_of_where_it_was_made(finished, tmp_path, monkeypatch):
    path = finished.run_dir / "summary.json"
    before = path.read_text()
    command = f"a3cjax train run_dir={finished.run_dir} resume=a/secret/b '/secret dir/x' env=a:b/C"
    try:
        path.write_text(json.dumps({**json.loads(before), "command": command}))
        folder = publish(finished.run_dir, tmp_path / "secret" / "out")
    finally:
        path.write_text(before)
    for file in folder.iterdir():
        content = file.read_bytes()
        for word in (str(tmp_path), str(finished.run_dir.parent), "secret"):
            assert word.encode() not in content, file
    shortened = "a3cjax train run_dir=run resume=b x env=a:b/C"
    assert read_summary(folder)["command"] == shortened
    assert shortened in (folder / "README.md").read_text()
    assert load_config(folder).run_dir == "out"


@for_each(
    ("word", "shortened"),
    [
        ("run_dir=/home/me/my runs/x/", "run_dir=x"),
        ("run_dir='/home/me/x y'", "run_dir=x y"),
        ("resume=runs/me/x", "resume=x"),
        ("~me/x", "x"),
        ("../me/x.py", "x.py"),
        ("env=gymnasium:/me/m:X-v0", "env=m:X-v0"),
        ("env=gymnasium:ALE/Pong-v5", "env=gymnasium:ALE/Pong-v5"),
        ("experiments/run.py", "experiments/run.py"),
        ("discount=0.9", "discount=0.9"),
    ],
)
def test_of_a_path_in_a_command_the_last_part_is_left(word, shortened):
    assert shlex.split(without_folders(shlex.join(["a3cjax", word]))) == ["a3cjax", shortened]


BAD_NUMBERS = (None, "high", [1], {})
BAD_PARTS = (None, "x", [1], math.nan)
DAMAGED = [
    *({"num_frames": value} for value in BAD_NUMBERS),
    *({"evaluation": value} for value in ("x", [1], {"mean": 1})),
    *({"evaluation_mean": value} for value in BAD_NUMBERS),
    *({name: value} for name in ("machine", "versions") for value in BAD_PARTS),
    *({"training_seconds": value} for value in (*BAD_PARTS, math.inf)),
]


@for_each("damage", DAMAGED)
def test_no_model_card_is_made_of_a_damaged_summary(finished, tmp_path, damage):
    summary = read_summary(finished.run_dir)
    if "evaluation_mean" in damage:
        damage = {"evaluation": summary["evaluation"] | {"mean": damage["evaluation_mean"]}}
    with pytest.raises(ConfigError, match=r"^summary\.json must be as a run writes it, got "):
        make_model_card(Config(), summary | damage, "x")
    for name in summary.keys() & {"machine", "versions", "command", "commit", "evaluation"}:
        with pytest.raises(ConfigError, match=name):
            make_model_card(Config(), {n: v for n, v in summary.items() if n != name}, "x")


@for_each(
    "damage",
    [*("", "{", "[]", "[" * 100_000, "\0"), {"num_frames": "many"}, {"machine": None}],
)
def test_nothing_is_published_of_a_run_with_a_damaged_summary(finished, tmp_path, damage):
    path = finished.run_dir / "summary.json"
    before = path.read_text()
    text = damage if isinstance(damage, str) else json.dumps({**json.loads(before), **damage})
    try:
        path.write_text(text)
        with pytest.raises((ConfigError, FileNotFoundError), match=r"summary\.json"):
            publish(finished.run_dir, tmp_path / "out")
    finally:
        path.write_text(before)
    assert not (tmp_path / "out").exists()


def test_code_of_the_model_card_runs(published, capsys, finished, monkeypatch):
    monkeypatch.chdir(published.parent)
    code = (published / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert re.search(r"evaluate\(num_episodes=\d", code)
    exec(code, {})
    assert float(capsys.readouterr().out) == finished.evaluation.mean


def test_run_without_an_evaluation_is_not_published(finished, tmp_path):
    run_dir, output_dir = tmp_path / "run", tmp_path / "out"
    run_dir.mkdir()
    for name in ("config.yaml", "summary.json"):
        (run_dir / name).write_text((finished.run_dir / name).read_text())
    summary = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").write_text(json.dumps({**summary, "evaluation": None}))
    with pytest.raises(ConfigError, match="must be of a run with a final evaluation, got"):
        publish(run_dir, output_dir)
    (run_dir / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"summary\.json, got"):
        publish(run_dir, output_dir)
    with pytest.raises(FileNotFoundError, match=r"^There is no run folder pong\.$"):
        publish(Path("pong"), output_dir)
    assert not output_dir.exists()


def test_run_that_went_on_after_its_summary_is_not_published(finished, tmp_path):
    path = finished.run_dir / "summary.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "num_frames": 5}))
    try:
        with pytest.raises(ConfigError, match=r"of a run that has ended, got .* is of frame 5"):
            publish(finished.run_dir, tmp_path / "out")
    finally:
        path.write_text(before)


def test_published_agent_is_replaced_with_its_picture(finished, published):
    picture = finished.run_dir / "play.gif"
    picture.write_bytes(b"GIF89a")
    try:
        publish(finished.run_dir, published)
        assert "(play.gif)" in (published / "README.md").read_text()
    finally:
        picture.unlink()
    publish(finished.run_dir, published)
    assert not (published / "play.gif").exists()
    assert "play.gif" not in (published / "README.md").read_text()


def test_publication_that_failed_or_was_killed_can_be_repeated(finished, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EFBIG, "File too large")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="too large"):
            publish(finished.run_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{PARAMETER_FILE}.part").write_bytes(b"half")
    publish(finished.run_dir, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.part"))


def test_run_is_not_published_into_its_own_folder(finished, published):
    for folder in (finished.run_dir, published):
        before = sorted(folder.iterdir())
        with pytest.raises(ConfigError, match="output_dir must be another folder than run_dir"):
            publish(folder, folder / "." / ".." / folder.name)
        assert sorted(folder.iterdir()) == before


@for_each(
    "name", ["published/x/../../thesis", "other run", "file", "link", "run/best", "run/new/deep"]
)
def test_nothing_but_a_published_agent_is_written_over(finished, tmp_path, name):
    for folder in ("thesis", "published/x", "other run/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "thesis" / "config.yaml").touch()
    (tmp_path / "other run" / PARAMETER_FILE).touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "run").symlink_to(finished.run_dir)
    before = sorted(tmp_path.rglob("*")), sorted(finished.run_dir.rglob("*"))
    with pytest.raises(ConfigError, match=r"^output_dir must be .*, got .*\.$"):
        publish(finished.run_dir, tmp_path / name)
    assert (sorted(tmp_path.rglob("*")), sorted(finished.run_dir.rglob("*"))) == before


def test_folder_that_cannot_be_made_is_refused_in_one_line(finished, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    command = ["a3cjax", "publish", str(finished.run_dir), str(tmp_path / "file")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "file" in line


def test_scores_are_kept_with_what_they_depend_on(finished):
    main(["evaluate", str(finished.run_dir), "num_episodes=2", "max_episode_steps=3"])
    path = finished.run_dir / "evaluation-greedy-steps3-2.json"
    result = json.loads(path.read_text())
    assert result["num_frames"] == finished.num_frames
    assert result["sticky_actions"] is None
    assert (result["max_episode_steps"], result["num_cut"]) == (3, 2)


def test_every_step_of_an_evaluation_is_a_sign_of_life(finished):
    signs = []
    show_life_by(lambda: signs.append(True))
    try:
        evaluation = load(finished.run_dir).evaluate(1)
    finally:
        show_life_by(lambda: None)
    assert len(signs) >= evaluation.episodes[0].episode_length


@pytest.mark.parametrize("verb", ["evaluate", "play"])
@pytest.mark.parametrize("fault", [ValueError, OSError])
def test_fault_of_an_environment_is_no_wrong_setting(finished, monkeypatch, capsys, verb, fault):
    def fail(*_):
        raise fault("a fault of its own")

    monkeypatch.setattr(LeanPool, "step", fail)
    with pytest.raises(SystemExit, match="1"):
        main([verb, str(finished.run_dir)])
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert f"{fault.__name__}: a fault of its own\nin step() of CartPole-v1" in error


# What the repository ships, and what their final evaluations must at least come to.
SHIPPED = {
    "pong": 18.0,
    "breakout": 300.0,
    "qbert": 9000.0,
    "spaceinvaders": 550.0,
    "beamrider": 1100.0,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_agent_is_small_and_told_of_in_the_documents(name):
    folder = find_agent(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    evaluation = json.loads((folder / "summary.json").read_text())["evaluation"]
    results = (ROOT / "docs" / "results.md").read_text()
    mean, low, high = (evaluation[key] for key in ("mean", "min", "max"))
    rounded = round(mean, 1 if mean < 100 else None)
    assert f"{rounded:,} ({low:,g} to {high:,g})" in results
    for spelling in (name, name.title(), folder):
        assert a3cjax.load(spelling).snapshot.num_frames >= 6_000_000


def test_only_a_run_folder_of_ones_own_comes_before_an_agent_that_is_shipped(tmp_path, monkeypatch):
    def places():
        scores = default_path("pong", EvaluateSettings(), {"actions": "greedy", "num_episodes": 1})
        film, _ = choose_files("pong", PlaySettings(), ("mp4",))
        return find_agent("pong"), scores, film

    monkeypatch.chdir(tmp_path)
    shipped = Path(a3cjax.__file__).parent / "trained" / "pong"
    beside = (shipped, Path("pong-evaluation-greedy-1.json"), Path("pong"))
    assert places() == beside
    (tmp_path / "pong").mkdir()  # by `a3cjax report … output=pong`, say
    assert places() == beside
    (tmp_path / "pong" / "config.yaml").touch()
    assert places() == (Path("pong"), Path("pong/evaluation-greedy-1.json"), Path("pong/game"))


def test_unknown_agent_is_answered_with_those_that_there_are():
    expected = r"no run folder pnog; .*: beamrider, breakout, pong, qbert, spaceinvaders\.$"
    with pytest.raises(FileNotFoundError, match=expected):
        a3cjax.load("pnog")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_agent_plays_as_well_as_the_documents_say(name):
    assert a3cjax.load(name).evaluate(num_episodes=30).mean > SHIPPED[name]
