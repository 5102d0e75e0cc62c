import dataclasses
import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from a3cjax.agents import ALGORITHMS
from a3cjax.commands.arguments import parse
from a3cjax.commands.evaluate import EvaluateSettings
from a3cjax.commands.play import PlaySettings
from a3cjax.commands.report import ReportSettings
from a3cjax.commands.sweep import SweepSettings
from a3cjax.config import defaults
from a3cjax.config.builders import build_agent, build_optimizer, init_state
from a3cjax.config.declaring import (
    describe,
    describe_kinds,
    kinds_and_words,
    plain_name,
    read_other_names,
    show,
)
from a3cjax.config.reading import (
    PRESETS,
    SETTLED,
    Preset,
    load_config,
    make_config,
    read_config,
    read_preset,
    resume_config,
)
from a3cjax.config.resolution import describe_network, resolve
from a3cjax.config.settings import AUTO, Config
from a3cjax.distributions import DiagonalGaussian, MultiCategorical, SquashedGaussian
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.envs.making import PROTOCOL_NAMES
from a3cjax.errors import ConfigError
from a3cjax.exploration import evaluation_exploration
from a3cjax.networks import make_network
from a3cjax.runs.loading import own_folder
from a3cjax.system.files import as_place
from a3cjax.torsos import VectorTorso
from a3cjax.types import Constants, TimeStep
from tests.cases import for_each

FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def kinds(name) -> tuple[type, ...]:
    return kinds_and_words(FIELDS[name])[0]


def refused(name, value):
    """The message with which a setting is refused."""
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} must be ")
    assert "\n" not in message
    assert message.endswith((f"got {value}.", f"got {value!r}."))
    return message


NAMES_BY_KIND = {
    kind: [name for name in FIELDS if kind in kinds(name)]
    for kind in (int, float, str, bool, type(None))
}


# Settings that are a number or one of these.
WORDS = {
    "unroll_length": ("auto", "episode"),
    "max_grad_norm": ("auto",),
    "target_entropy": ("auto",),
}


def test_every_setting_refuses_values_of_another_type():
    for name in FIELDS:
        wrong = [[1], b"x", *([] if dict in kinds(name) else [{"a": 1}])]
        if bool in kinds(name):
            wrong += [0, 1, "true"]
        else:
            wrong += [True, False]
        if str not in kinds(name):
            wrong += ["x", "", "1", "none"]
        if name in WORDS:  # or a number
            wrong += ["x", "", "1", "none"]
        elif str in kinds(name):
            wrong += [1]
        if float not in kinds(name):
            wrong += [1.5]
        if type(None) not in kinds(name):
            wrong += [None]
        for value in wrong:
            assert f"must be {describe_kinds(FIELDS[name])}, got" in refused(name, value)


def test_none_is_taken_where_it_means_something():
    for name in NAMES_BY_KIND[type(None)]:
        assert getattr(Config(**{name: None}), name) is None


def test_some_numbers_may_be_words():
    for name in WORDS:
        for word in WORDS[name]:
            assert getattr(Config(**{name: word}), name) == word
            assert getattr(Config(**{name: word.title()}), name) == word
        assert getattr(Config(**{name: 1}), name) == 1


def test_fractions_may_be_whole_but_not_nan():
    for name in NAMES_BY_KIND[float]:
        assert getattr(Config(**{name: 0 if name in BELOW_ONE else 1}), name) in (0, 1)
        refused(name, math.nan)


AT_LEAST_ONE = [
    "total_frames",
    "unroll_length",
    "num_actors",
    "envs_per_actor",
    "log_period_frames",
    "checkpoint_period_frames",
    "eval_period_frames",
    "max_episode_steps",
    "max_bad_updates",
    "target_period_frames",
    "exploration_frames",
    "epsilon_period_frames",
    "num_workers",
    "num_shards",
    "grads_per_push",
    "shard_save_period_updates",
    "num_passes",
]
BOUNDED_FROM_ZERO = ["warmup_steps", "eval_episodes", "max_restarts"]
AT_LEAST_ZERO = [*BOUNDED_FROM_ZERO, "max_staleness", "value_cost", "entropy_cost"]
FACTORS = ["entropy_spread"]
FRACTIONS = ["discount", "lambda_", "target_entropy"]
BELOW_ONE = ["decay", "momentum"]
POSITIVE = ["learning_rate", "max_grad_norm", "epsilon", "stall_timeout_seconds", "huber_delta"]
POSITIVE += ["outlier_deviations"]
POSITIVE += ["clip_ratio"]


@for_each(
    ("names", "rule", "wrong", "right"),
    [
        (AT_LEAST_ONE, ">= 1", (0, -5), (1,)),
        (AT_LEAST_ZERO, ">= 0", (-1,), (0,)),
        (FACTORS, ">= 1", (0, 0.999, -5), (1, 2.5)),
        (FRACTIONS, "between 0 and 1", (1.5, -0.01), (0, 1)),
        (BELOW_ONE, ">= 0 and < 1", (1, -0.01), (0, 0.9999)),  # averages forget
        (POSITIVE, "> 0", (0, -1e-3), (1e-3,)),
    ],
)
def test_numbers_have_bounds(names, rule, wrong, right):
    for name in names:
        messages = [refused(name, value) for value in wrong]
        assert messages[0] == f"{name} must be {rule}, got {wrong[0]}."
        configs = [Config(centre_observations=False, **{name: value}) for value in right]
        assert [getattr(config, name) for config in configs] == [*right]


def test_what_32_bits_cannot_tell_from_a_bound_is_refused():
    for name in BELOW_ONE:
        assert "32-bit" in refused(name, 1 - 1e-12)  # Adam would divide zero by zero
    for name in POSITIVE:
        assert "32-bit" in refused(name, 1e-300)
        assert "32-bit" in refused(name, 1e-40)


def test_counts_are_bounded():
    for name in [*AT_LEAST_ONE, *BOUNDED_FROM_ZERO]:
        high = {
            "num_actors": 1000,
            "envs_per_actor": 10**4,
            "eval_episodes": 10**4,
            "exploration_frames": Config.total_frames,
            "num_passes": 100,
            "num_workers": 1000,
            "num_shards": 256,
            "grads_per_push": 1000,
            "max_restarts": 10**6,
        }.get(name, 10**15)
        assert getattr(Config(**{name: high}), name) == high
        low = 0 if name in AT_LEAST_ZERO else 1
        for value in (high + 1, 10**30):
            assert refused(name, value) == f"{name} must be between {low} and {high}, got {value}."


def test_exploration_ends_within_the_budget():
    assert Config(exploration_frames=5, total_frames=5).exploration_frames == 5
    with pytest.raises(ConfigError) as caught:
        Config(exploration_frames=6, total_frames=5)
    assert str(caught.value) == "exploration_frames must be between 1 and 5, got 6."


def test_no_fraction_is_infinite():
    for name in ["value_cost", "entropy_cost", *FACTORS, *FRACTIONS, *BELOW_ONE, *POSITIVE]:
        for value in [math.inf, -math.inf, 1e300, 10**400]:
            refused(name, value)


def test_seed_is_bounded():
    assert refused("seed", -1) == "seed must be >= 0, got -1."
    assert refused("seed", 20_001) == "seed must be between 0 and 20000, got 20001."
    assert Config(seed=20_000).seed == 20_000


@for_each(
    ("name", "known"),
    [
        *(("algorithm", algorithm) for algorithm in ALGORITHMS),
        ("network", "nature_lstm"),
        ("network", "tabular"),
        ("network", "auto"),
        ("policy", "auto"),
        ("policy", "squashed_gaussian"),
        ("variance", "shared"),
        ("optimizer", "auto"),
        ("optimizer", "rmsprop"),
        ("protocol", "machado"),
        ("image_layout", "none"),
        ("cluster", "ray"),
        ("push_dtype", "bfloat16"),
    ],
)
def test_names_are_refused_with_those_there_are(name, known):
    message = refused(name, "unheard-of")
    assert message.startswith(f"{name} must be one of ")
    assert known in message
    assert getattr(Config(**{name: known}), name) == known


def test_devices_are_names():
    for devices in ["1,2", "cuda:", "cuda:0,", "cuda:0 cuda:1", "cuda:-1", ""]:
        assert refused("devices", devices).startswith("devices must be auto, or devices as cuda")
    for devices in ["auto", "cpu", "cuda:1", "tpu:0, tpu:12"]:
        assert Config(devices=devices).devices == devices


def test_every_protocol_of_the_environments_can_be_chosen():
    for protocol in PROTOCOL_NAMES:
        assert Config(protocol=protocol).protocol == protocol


def test_centring_needs_a_warmup():
    with pytest.raises(ConfigError, match=r"^warmup_steps must be >= 1 .*, got 0\.$"):
        Config(warmup_steps=0, centre_observations=True)
    # Whether they are centred may depend on the environment.
    config = Config(warmup_steps=0, num_actors=1)
    with pytest.raises(ConfigError, match=r"^warmup_steps must be >= 1 .*, got 0\.$"):
        resolve(config, VECTORS)
    assert resolve(config.replace(network="tabular"), STATES).warmup_steps == 0


def test_every_setting_is_checked_by_a_test():
    # A new setting belongs into one of the lists above.
    named = {"env", "env_kwargs", "run_dir", "resume", "seed", "algorithm", "network", "policy"}
    named |= {"optimizer", "protocol", "image_layout", "variance", "devices"}
    named |= {"cluster", "ray_address", "push_dtype"}
    numbers = {*AT_LEAST_ONE, *AT_LEAST_ZERO, *FACTORS, *FRACTIONS, *BELOW_ONE, *POSITIVE}
    assert set(FIELDS) == named | numbers | set(NAMES_BY_KIND[bool])


def test_config_cannot_be_changed_but_replaced():
    config = Config(seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2  # pyright: ignore[reportAttributeAccessIssue]
    assert config.replace(seed=2).seed == 2
    assert config.seed == 1
    with pytest.raises(ConfigError):
        config.replace(seed=-1)


# Unknown settings.


@for_each(
    ("name", "nearest"),
    [
        ("evn", "env"),
        ("learning_rte", "learning_rate"),
        ("lr_rate", "learning_rate"),
        ("num_actor", "num_actors"),
        ("lambda", "lambda_"),
        ("center_observations", "centre_observations"),
    ],
)
def test_unknown_settings_are_answered_with_the_nearest(name, nearest):
    for attempt in (lambda: make_config({name: 1}), lambda: read_config({name: "1"})):
        with pytest.raises(ConfigError, match=rf"no setting named {name}; .*\b{nearest}\b"):
            attempt()


@for_each(
    ("name", "ours"),
    [
        ("lr", "learning_rate"),
        ("gamma", "discount"),
        ("num_envs", "envs_per_actor"),
        ("total_timesteps", "total_frames"),
        ("num_steps", "unroll_length"),
        ("ent_coef", "entropy_cost"),
        ("vf_coef", "value_cost"),
        ("batch_size", "envs_per_actor"),
        ("Learning-Rate", "learning_rate"),
        ("GAE-lambda", "lambda_"),
    ],
)
def test_words_of_other_libraries_are_answered_with_ours(name, ours):
    with pytest.raises(ConfigError) as caught:
        make_config({name: 1})
    assert str(caught.value) == f"There is no setting named {name}; here it is {ours}."


def test_words_of_other_libraries_are_of_settings_that_there_are():
    commands = (SweepSettings, EvaluateSettings, PlaySettings, ReportSettings, Preset, Config)
    names = {field.name for kind in commands for field in dataclasses.fields(kind)}
    assert read_other_names().keys() <= names
    for own, words in read_other_names().items():
        assert own not in words.split()
        assert all(word == plain_name(word) for word in words.split())


def test_unlike_settings_have_no_nearest():
    with pytest.raises(ConfigError, match=r"^There is no setting named qqqq\.$"):
        make_config({"qqqq": 1})


# What stands on a command line.


@for_each(
    ("name", "text", "value"),
    [
        ("total_frames", "1e6", 1_000_000),
        ("total_frames", "10M", 10_000_000),
        ("total_frames", "2.5k", 2_500),
        ("total_frames", "1_000", 1_000),
        ("learning_rate", "7e-4", 7e-4),
        ("learning_rate", ".5", 0.5),
        ("learning_rate", "null", None),
        ("max_grad_norm", "None", None),
        ("max_grad_norm", "AUTO", "auto"),
        ("unroll_length", "episode", "episode"),
        ("deterministic", "True", True),
        ("video", "no", False),
        ("algorithm", "A3C", "a3c"),
        ("algorithm", "N-Step-Q", "n_step_q"),
        ("run_dir", "läufe/1", "läufe/1"),
        ("run_dir", "run(1) [2] {3}=#4, 5", "run(1) [2] {3}=#4, 5"),
        ("run_dir", "'my runs'", "my runs"),
        ("run_dir", "1", "1"),
        ("seed", "'3'", 3),
        ("env_kwargs", "'{a: 1, b: x}'", {"a": 1, "b": "x"}),
        ("run_dir", "~/runs", os.path.expanduser("~/runs")),
        ("env", "gymnasium:a.b:C-v0", "gymnasium:a.b:C-v0"),
    ],
)
def test_values_mean_what_they_say(name, text, value):
    read = getattr(read_config({name: text}), name)
    assert (read, type(read)) == (value, type(value))


@for_each(
    ("name", "text"),
    [
        *(
            ("total_frames", text)
            for text in ("", "1.5", "M", "1e", "1e9999999999", "1,000", "0x1")
        ),
        *(("discount", text) for text in ("", "nan", "1/2", "½", "0,5")),
        *(("video", text) for text in ("", "maybe", "2")),
        *((name, "") for name in ("run_dir", "resume")),
        *(("seed", text) for text in ("1,2", "range(1,3)", "null")),
    ],
)
def test_what_is_no_value_is_refused_with_what_it_can_be(name, text):
    with pytest.raises(ConfigError, match=rf"^{name} must be (a |true).*, got .*\.$"):
        read_config({name: text})


@for_each(
    ("name", "value", "expected"),
    [
        ("total_frames", 1e6, 1_000_000),
        ("total_frames", np.float32(1e6), 1_000_000),
        ("seed", np.arange(3)[1], 1),
        ("learning_rate", np.float64(0.01), 0.01),
        ("video", np.bool_(True), True),
        ("network", np.array(["A3C", "MLP_FF"])[1], "mlp_ff"),
        ("run_dir", Path("runs/1"), "runs/1"),
        ("resume", Path("~"), str(Path.home())),
    ],
)
def test_values_of_other_types_are_those_that_yaml_has(name, value, expected):
    settled = getattr(Config(**{name: value}), name)
    assert (settled, type(settled)) == (expected, type(expected))


def test_preset_is_not_given_with_a_run_to_resume(tmp_path):
    write_config(tmp_path, "env: Pong\nseed: 3")
    assert read_config({"resume": str(tmp_path)}).seed == 3
    with pytest.raises(ConfigError, match=r"^preset cannot be given with resume"):
        read_config({"resume": str(tmp_path), "preset": "paper"})


def test_the_env_of_a_run_may_be_given_again_in_other_letters(tmp_path):
    write_config(tmp_path, "env: Pong")
    assert read_config({"resume": str(tmp_path), "env": "pong"}).env == "Pong"
    with pytest.raises(ConfigError, match=r"^env must be Pong, as in the run to resume, got pongo"):
        read_config({"resume": str(tmp_path), "env": "pongo"})
    write_config(tmp_path, "env: python:mine:Pong")
    with pytest.raises(ConfigError, match=r"^env must be python:mine:Pong, .* got python:mine:pon"):
        read_config({"resume": str(tmp_path), "env": "python:mine:pong"})


def test_help_has_a_line_for_every_setting():
    lines = list(describe(Config))
    for name, field in FIELDS.items():
        (line,) = [line for line in lines if line.startswith(f"  {name}=")]
        assert line.startswith(f"  {name}={show(field.default)} ")
        assert field.metadata["text"][:20] in line
        assert field.metadata["group"]
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if line and not line.startswith(" ")] == [
        f"{group}:" for group in dict.fromkeys(f.metadata["group"] for f in FIELDS.values())
    ]


# Files.


def write_config(folder, text):
    (folder / "config.yaml").write_text(text)
    return folder


def test_config_comes_back_from_its_file(tmp_path):
    config = Config(env="gymnasium:CartPole-v1", epsilon=1e-10, num_actors=None, run_dir="runs/ü")
    write_config(tmp_path, yaml.safe_dump(dataclasses.asdict(config)))
    assert load_config(tmp_path) == config


def test_folder_without_config_is_no_run_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"config.yaml, got {tmp_path}"):
        load_config(tmp_path)


# Nine lines of nine aliases each: a billion values.
LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@for_each(
    ("text", "message"),
    [
        ("- 1", "settings by name, got list"),
        ("", "settings by name, got NoneType"),
        ("evn: Pong", "nearest: env"),
        ("seed: -1", "seed must be"),
        ("seed: &a [1, 1]\nenv: [*a, *a]", "got an alias in line 1"),
        ("seed: &a 1", "got an alias in line 1"),
        ("env: Pong\nseed: *a", "got an alias in line 2"),
        (LAUGHS, "got an alias in line 1"),
        ("seed: " + "[" * 9, "got lists in lists in line 1"),
        ("seed: " + "[" * 50_000, "got lists in lists in line 1"),
        ("- " * 50_000, "got lists in lists in line 1"),
        ("#" * 100_001, "got more than 100,000 bytes"),
        (f"env: {'x' * 99_000}", "env"),
        ("seed: 0x1" + "0" * 5000, "settings by name, got Exceeds"),
        ("seed: 1" + "0" * 5000, "settings by name, got Exceeds"),
        ("seed: [0x1" + "0" * 5000 + "]", "settings by name, got Exceeds"),
        ("seed: !!bool x", "settings by name, got"),
        ("seed: " + "9:" * 2000 + "9.5", "settings by name, got"),
        ("seed: !!python/object:os.system x", "settings by name, got could not"),
        ("seed: [[1, 2], {a: b}]", r"seed must be a whole number, got \[\[1, 2\], \{'a': 'b'\}\]"),
        (f"? {'k' * 5000}\n: 1", "There is no setting named kkk"),
        ("seed: \0", "settings by name, got"),
        ("seed: 3", "must name its env, got none"),
        ("env: Pong\nseed: 1\nseed: 2", "settings by name, got seed twice, in line 3"),
        ("env: Pong\nenv_kwargs: {a: 1, a: 2}", "got a twice, in line 2"),
    ],
)
def test_files_with_something_else_are_refused(tmp_path, text, message):
    write_config(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path).replace(env=["x"])
    assert len(str(caught.value)) <= 1000
    assert str(caught.value).isprintable()


def test_a_setting_that_nobody_gave_is_refused_with_its_file(tmp_path):
    write_config(tmp_path, "foo: 3")
    with pytest.raises(ConfigError, match=r"^.*config\.yaml: There is no setting named foo"):
        load_config(tmp_path)


def test_files_of_another_encoding_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"env: \xff\xfe")
    with pytest.raises(ConfigError, match="must hold settings by name, got"):
        load_config(tmp_path)


@pytest.mark.parametrize("value", ["x" * 10**7, ["x"] * 10**6, 10**3000, [10**5000], {1: {2: {}}}])
def test_messages_quote_a_part_of_what_they_got(value):
    with pytest.raises(ConfigError, match=r"^seed must be ") as caught:
        Config(seed=value)
    assert len(str(caught.value)) <= 1000


def test_what_is_no_budget_is_refused_also_for_a_run_to_resume(tmp_path):
    write_config(tmp_path, "env: Pong\nexploration_frames: 100")
    assert resume_config(str(tmp_path), {"total_frames": 50}).exploration_frames == 50
    for total_frames in ("many", None, float("inf"), 0):
        with pytest.raises(ConfigError, match=r"^total_frames must be"):
            resume_config(str(tmp_path), {"total_frames": total_frames})


# Presets.


def compose(*arguments):
    return read_config(dict(argument.split("=", 1) for argument in arguments))


def test_default_preset_has_the_defaults_of_config():
    assert compose() == compose("preset=laptop") == Config()


@for_each("name", PRESETS)
def test_presets_name_only_what_differs(name):
    settings = yaml.safe_load(PRESETS[name].read_text()) or {}
    base = read_preset(settings.pop("preset", "laptop"))
    before = make_config(base)
    assert settings == {k: v for k, v in settings.items() if getattr(before, k) != v}


def test_presets_are_read_whatever_the_locale():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = f"from a3cjax.config.reading import read_preset; [*map(read_preset, {[*PRESETS]})]"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | ascii_only)


@for_each("name", ["paper", "paper_mujoco"])
def test_a_preset_takes_any_budget(name):
    config = compose(f"preset={name}", "total_frames=1M")
    assert config.exploration_frames == config.total_frames == 10**6
    assert compose(f"preset={name}", "total_frames=50M").exploration_frames == 4_000_000
    with pytest.raises(ConfigError, match=r"^exploration_frames must be between 1 and 1000000"):
        compose(f"preset={name}", "total_frames=1M", "exploration_frames=2M")


def test_unknown_preset_is_answered_with_the_known():
    with pytest.raises(ConfigError, match=r"^preset must be one of laptop, paper, .*, got papr\.$"):
        compose("preset=papr")


def test_paper_preset_has_the_values_of_the_paper():
    assert compose("preset=paper") == Config(
        total_frames=320_000_000,  # a day on 16 cores
        algorithm="a3c",
        network="atari_ff",
        num_actors=16,
        envs_per_actor=1,
        unroll_length=5,  # t_max
        discount=0.99,
        lambda_=1.0,
        value_cost=0.5,
        entropy_cost=0.01,
        target_entropy=None,
        entropy_spread=1.0,
        centre_observations=False,
        normalize_rewards=False,
        normalize_advantages=False,
        greedy_evaluation=False,
        exploration_frames=4_000_000,
        epsilon_period_frames=40_000,
        target_period_frames=40_000,
        warmup_steps=0,
        optimizer="rmsprop",
        shared_statistics=True,
        learning_rate=7e-4,
        anneal_learning_rate=True,
        max_grad_norm=40.0,
        protocol="paper",
    )


def test_paper_mujoco_preset_differs_from_the_papers_by_section_9():
    paper = dataclasses.asdict(compose("preset=paper"))
    mujoco = dataclasses.asdict(compose("preset=paper_mujoco"))
    assert {name: value for name, value in mujoco.items() if paper[name] != value} == {
        "total_frames": 10_000_000,  # our choice
        "network": "mujoco_lstm",
        "unroll_length": "episode",
        "variance": "shared",
        "entropy_cost": 1e-4,
    }


def test_overrides_win_over_the_preset():
    config = compose("preset=paper", "unroll_length=20", "env=Breakout", "max_grad_norm=null")
    assert (config.unroll_length, config.env, config.max_grad_norm) == (20, "Breakout", None)


# What is left open until the environment is known.


def image(*shape):
    return jax.ShapeDtypeStruct(shape, np.uint8)


def vector(size):
    return jax.ShapeDtypeStruct((size,), np.float32)


def choose(number):
    return ActionSpec("discrete", (number,))


IMAGES = EnvironmentSpec(
    image(21, 21, 64), choose(6), 4, is_atari=True, image_layout="channels_first"
)
TINY = IMAGES._replace(observation=image(4, 4, 64), is_atari=False)
BESIDE_NUMBERS = IMAGES._replace(
    observation={"camera": image(21, 21, 48), "vector": vector(3)}, is_atari=False
)
VECTORS = EnvironmentSpec(vector(4), choose(2), 1, is_atari=False, image_layout="none")
CONTINUOUS = VECTORS._replace(observation=vector(17), actions=ActionSpec("continuous", (6,), True))
CHOICES = VECTORS._replace(actions=ActionSpec("multi_discrete", [3, 2]))
STATES = VECTORS._replace(observation=vector(16), actions=choose(4), is_one_hot=True)
ONE_ACTOR = Config(num_actors=1)

LAPTOP = {
    "optimizer": "adam",
    "unroll_length": 32,
    "max_grad_norm": 40.0,
    "learning_rate": 3e-3,
    "entropy_cost": 0.01,
    "centre_observations": True,
    "normalize_rewards": True,
    "normalize_advantages": True,
    "greedy_evaluation": True,
    "momentum": 0.0,
}
GAUSSIAN = {**LAPTOP, "learning_rate": 1e-3, "entropy_cost": 1e-4}
RECURRENT = {**LAPTOP, "learning_rate": 1e-3}
PIXELS = {
    **LAPTOP,
    "unroll_length": 40,
    "learning_rate": 1e-3,
    "decay": 0.99,
    "normalize_advantages": False,
    "greedy_evaluation": False,
}
OF_TINY = {**PIXELS, "unroll_length": 20, "learning_rate": 3e-3, "normalize_advantages": True}
ATARI = {
    **PIXELS,
    "unroll_length": 20,
    "normalize_rewards": False,  # they are clipped
    "target_entropy": 0.3,
    "normalize_advantages": True,
}
TABLE = {
    "optimizer": "sgd",
    "unroll_length": 1,
    "max_grad_norm": None,
    "learning_rate": 0.5,
    "entropy_cost": 0.01,
    "centre_observations": False,
    "normalize_rewards": False,
    "normalize_advantages": False,
    "greedy_evaluation": True,
    "momentum": 0.0,
}


@for_each(
    ("network", "spec", "expected"),
    [
        ("auto", IMAGES, {**ATARI, "network": "atari_ff"}),
        ("auto", IMAGES._replace(is_atari=False), {**PIXELS, "network": "atari_ff"}),
        ("auto", TINY, {**OF_TINY, "network": "small_ff"}),
        ("small_lstm", TINY, {**OF_TINY, "learning_rate": 1e-3}),
        ("minatar_ff", TINY, PIXELS),
        ("auto", BESIDE_NUMBERS, {**PIXELS, "network": "multi_ff"}),
        ("auto", VECTORS, {**LAPTOP, "network": "mlp_ff"}),
        ("auto", STATES, {**LAPTOP, "network": "mlp_ff"}),
        ("auto", CONTINUOUS, {**GAUSSIAN, "network": "mlp_ff"}),
        ("mujoco_lstm", CONTINUOUS, GAUSSIAN),
        *((f"mlp_{core}", VECTORS, RECURRENT) for core in ("gru", "lstm")),
        ("python:own:network_lstm", VECTORS, RECURRENT),
        ("atari_lstm", IMAGES, ATARI),
        ("tabular", STATES, TABLE),
    ],
)
def test_defaults_follow_actions_and_network(network, spec, expected):
    config = resolve(ONE_ACTOR.replace(network=network, env="Unheard"), spec)
    assert {name: getattr(config, name) for name in expected} == expected


@for_each(
    ("settings", "spec", "expected"),
    [
        ({"algorithm": "vtrace"}, IMAGES, 20),
        ({"algorithm": "vtrace", "num_passes": 2}, IMAGES, 40),
        ({"algorithm": "ppo"}, IMAGES, 40),
        ({"algorithm": "ppo", "num_passes": 1}, IMAGES, 20),
        ({"algorithm": "n_step_q"}, IMAGES, 40),
        ({"network": "atari_gru"}, IMAGES, 20),
        ({}, IMAGES._replace(is_atari=False), 40),
        ({"unroll_length": 40}, IMAGES, 40),
        # A budget of so many unrolls of 8 steps in 8 environments, or of two actors; then more.
        ({}, TINY, 20),
        ({"algorithm": "ppo"}, TINY, 40),
    ],
)
def test_unrolls_are_short_where_each_is_learned_from_once(settings, spec, expected):
    assert resolve(ONE_ACTOR.replace(**settings), spec).unroll_length == expected


@for_each(
    ("network", "spec", "is_told"),
    [("auto", STATES, True), ("tabular", STATES, False), ("auto", VECTORS, False)],
)
def test_numbered_states_may_have_a_table(network, spec, is_told):
    config = resolve(ONE_ACTOR.replace(network=network, env="Unheard"), spec)
    assert ("(network=tabular is a table of them)" in describe_network(config, spec)) == is_told


@for_each(
    ("settings", "spec", "expected"),
    [
        ({}, IMAGES, 0.3),
        ({"algorithm": "vtrace", "network": "atari_gru"}, IMAGES, 0.3),
        ({"algorithm": "ppo", "num_passes": 1}, IMAGES, 0.3),
        ({"target_entropy": 0.7, "entropy_cost": 0.02}, IMAGES, 0.7),
        ({"target_entropy": 0.7, "env": "Pong"}, IMAGES, 0.7),
        ({"target_entropy": 0.7, "entropy_cost": 0.02, "env": "Boxing"}, IMAGES, 0.7),
        ({"target_entropy": 0.7, "network": "python:own:network", "env": "Boxing"}, IMAGES, 0.7),
        ({"entropy_cost": 0.02, "env": "Boxing"}, IMAGES, None),
        ({"target_entropy": None}, IMAGES, None),
        ({"entropy_cost": 0.01}, IMAGES, None),  # a cost that is given is the one that counts
        ({"env": "Pong-v5"}, IMAGES, None),
        ({"algorithm": "ppo"}, IMAGES, None),  # not tried with more passes
        ({"algorithm": "n_step_q"}, IMAGES, None),
        ({"network": "python:own:network"}, IMAGES, None),  # its policy may be of any kind
        ({}, IMAGES._replace(is_atari=False), None),
        ({}, VECTORS, None),
        ({}, CONTINUOUS, None),
    ],
)
def test_entropy_is_steered_in_atari_games_where_nobody_chose_a_cost(settings, spec, expected):
    config = ONE_ACTOR.replace(**({"env": "Breakout"} | settings))
    resolved = resolve(config, spec)
    assert resolved.target_entropy == expected
    if config.env == "Boxing":  # advantages of one size go with it
        assert resolved.normalize_advantages == (expected is not None)


def test_a_run_that_began_with_a_constant_cost_goes_on_with_it(tmp_path):
    write_config(tmp_path, "env: Breakout")  # of a day when there was no such setting
    assert load_config(tmp_path).target_entropy is None
    write_config(tmp_path, "env: Breakout\ntarget_entropy: 0.3")
    assert load_config(tmp_path).target_entropy == 0.3


@for_each(
    ("spec", "settings", "whose"),
    [
        (CONTINUOUS, {}, "Pong, whose actions are numbers,"),
        *(
            (IMAGES, {"algorithm": name}, f"algorithm {name}, which does not know it,")
            for name in ("one_step_q", "one_step_sarsa", "n_step_q")
        ),
    ],
)
def test_only_a_policy_of_choices_has_a_target_entropy(spec, settings, whose):
    with pytest.raises(ConfigError, match=f"^target_entropy must be null for {whose} got 0.5.$"):
        resolve(ONE_ACTOR.replace(target_entropy=0.5, **settings), spec)
    for other in (VECTORS, CHOICES, IMAGES):
        config = resolve(ONE_ACTOR.replace(target_entropy=0.5), other)
        assert config.target_entropy == 0.5


OWN_VALUES = {
    "optimizer": "rmsprop",
    "unroll_length": 7,
    "max_grad_norm": 3.0,
    "learning_rate": 0.25,
    "entropy_cost": 0.125,
    "centre_observations": True,
    "normalize_rewards": True,
    "normalize_advantages": True,
    "greedy_evaluation": False,
    "warmup_steps": 3,
    "exploration_frames": 77,
    "log_period_frames": 99,
    "network": "mlp_gru",
}


@for_each(
    "name",
    [
        *("network", "optimizer", "learning_rate", "max_grad_norm"),
        *("algorithm", "discount", "lambda_"),
    ],
)
def test_no_agent_is_built_of_settings_that_are_left_open(name):
    config = resolve(ONE_ACTOR, VECTORS).replace(**{name: getattr(Config, name)})
    with pytest.raises(ConfigError, match=rf"^{name} must be settled .* run, got (null|auto)\.$"):
        build_agent(config, VECTORS)
    with pytest.raises(ConfigError, match=rf"^{name} must be settled .*, which resume_config\("):
        build_agent(config.replace(resume="runs/1"), VECTORS)


def test_equal_settings_give_the_functions_that_are_compiled_already():
    config = resolve(ONE_ACTOR, VECTORS)
    agent, optimizer = build_agent(config, VECTORS), build_optimizer(config)
    elsewhere = config.replace(seed=9, run_dir="elsewhere", resume=None)
    assert build_agent(elsewhere, VECTORS) == agent
    assert build_optimizer(elsewhere) == optimizer
    others = {"lambda_": 0.5, "network": "mlp_gru", "algorithm": "vtrace"}
    for name, value in others.items():
        assert build_agent(config.replace(**{name: value}), VECTORS).loss != agent.loss
    for name, value in {"learning_rate": 0.5, "decay": 0.5, "total_frames": 7_000_000}.items():
        changed = build_optimizer(config.replace(**{name: value}, anneal_learning_rate=True))
        assert changed.update != optimizer.update


def test_network_that_is_brought_is_initialised_by_its_code_of_today():
    size = 3

    @dataclasses.dataclass  # which has no hash
    class Init:
        bias: list

        def __call__(self, key, observations):
            return {"weights": jax.numpy.ones((size, *self.bias))}

    config = resolve(ONE_ACTOR, VECTORS)
    ours = make_network("mlp_ff", 2)
    for init in (Init([2]), functools.partial(Init([2]))):
        network = ours._replace(init=init)
        for size in (3, 5):
            agent = build_agent(config, VECTORS, network)
            assert init_state(config, agent, VECTORS).params["weights"].shape == (size, 2)


@for_each("part", ["algorithm", "torso"])
def test_what_is_brought_is_built_anew_since_its_code_may_have_changed(part, monkeypatch):
    config = resolve(ONE_ACTOR, VECTORS).replace(lambda_=0.5)
    ours = ALGORITHMS[config.algorithm]
    if part == "algorithm":
        own = ours._replace(make=lambda network, *, lambda_: ours.make(network, lambda_=lambda_))
        monkeypatch.setitem(ALGORITHMS, config.algorithm, own)
    torso = VectorTorso((3,)) if part == "torso" else None
    first, second = (build_agent(config, VECTORS, torso) for _ in range(2))
    assert first.loss != second.loss
    assert (first.init != second.init) == (part == "torso")


def test_settings_of_ones_own_are_kept():
    for name in OWN_VALUES:
        for spec in [STATES, CONTINUOUS]:
            assert getattr(Config(), name) in (None, AUTO)
            network = {} if spec.is_continuous or name == "network" else {"network": "tabular"}
            config = ONE_ACTOR.replace(**network, **{name: OWN_VALUES[name]})
            assert getattr(resolve(config, spec), name) == OWN_VALUES[name]


def test_no_clipping_and_whole_episodes_are_settings_of_ones_own():
    config = ONE_ACTOR.replace(max_grad_norm=None, unroll_length="episode")
    config = resolve(config, VECTORS)
    assert (config.max_grad_norm, config.unroll_length) == (None, "episode")


@for_each(("network", "spec"), [("auto", IMAGES), ("auto", CONTINUOUS), ("tabular", STATES)])
def test_resolved_settings_leave_nothing_open_and_stay_as_they_are(network, spec):
    config = resolve(ONE_ACTOR.replace(network=network), spec)
    settings = dataclasses.asdict(config)
    assert settings.pop("policy") == (
        "gaussian" if spec.is_continuous else AUTO
    )  # of choices: none
    assert settings.pop("devices") == AUTO  # of the machine, and a run may go on on another
    assert settings.pop("kernels") is None  # of the machine, too: see `choose_kernels`
    assert AUTO not in settings.values()
    none = {name for name, value in settings.items() if value is None}
    meaningful = {"env_kwargs", "run_dir", "resume", "eval_period_frames", "max_episode_steps"}
    meaningful |= {"epsilon_period_frames", "huber_delta", "max_staleness", "outlier_deviations"}
    meaningful |= {"num_passes", "cluster", "ray_address", "num_workers", "target_entropy"}
    if network == "tabular":  # neither clipping nor what only RMSProp and Adam have
        meaningful |= {"max_grad_norm", "decay", "epsilon"}
    assert none == meaningful
    assert resolve(config, spec) == config


@for_each(
    ("total_frames", "expected"), [(6_000_000, 1_200_000), (10**9, 4_000_000), (100, 20), (4, 1)]
)
def test_exploration_takes_a_fifth_of_the_budget_up_to_the_papers(total_frames, expected):
    config = Config(
        num_actors=1, envs_per_actor=1, unroll_length=1, warmup_steps=1, total_frames=total_frames
    )
    assert resolve(config, VECTORS).exploration_frames == expected


@for_each(
    ("spec", "what"), [(CONTINUOUS, "continuous actions"), (CHOICES, "several choices at once")]
)
@for_each("algorithm", [n for n, made in ALGORITHMS.items() if made.head == "action_values"])
def test_q_methods_refuse_all_but_one_choice(algorithm, spec, what):
    config = ONE_ACTOR.replace(algorithm=algorithm, env="Pendulum")
    with pytest.raises(ConfigError) as caught:
        resolve(config, spec)
    expected = f"algorithm must have a policy for the {what} of Pendulum"
    assert str(caught.value) == f"{expected}, got {algorithm}."
    assert resolve(config, VECTORS).algorithm == algorithm


UNBOUNDED = CONTINUOUS._replace(actions=ActionSpec("continuous", (6,), is_bounded=False))


@for_each(
    ("policy", "spec", "rule"),
    [
        ("gaussian", VECTORS, "auto for Some-v0, whose actions are choices"),
        ("squashed_gaussian", CHOICES, "auto for Some-v0, whose actions are choices"),
        ("squashed_gaussian", UNBOUNDED, r"gaussian .* bounds \(gymnasium.wrappers.RescaleAction"),
    ],
)
def test_policies_that_do_not_fit_the_actions_are_refused_in_one_line(policy, spec, rule):
    with pytest.raises(ConfigError, match=rf"^policy must be {rule}.*, got {policy}\.$") as caught:
        resolve(ONE_ACTOR.replace(env="Some-v0", policy=policy), spec)
    assert "\n" not in str(caught.value)


def test_policy_of_a_run_is_the_one_that_acts():
    def policy_of(config, spec):
        agent = build_agent(config, spec)
        observations = np.zeros((1, *spec.observation_shape), np.float32)
        params = agent.init(jax.random.key(0), observations[None])
        ones = np.ones(1, np.float32)
        now = TimeStep(observations, ones, ones, np.array([True]))
        constants = Constants(None, None, evaluation_exploration(1))
        return type(agent.look(params, constants, now, agent.initial_state(1))[0].policy)

    squashed = resolve(ONE_ACTOR.replace(policy="squashed_gaussian"), CONTINUOUS)
    plain = resolve(ONE_ACTOR, CONTINUOUS)
    assert policy_of(squashed, CONTINUOUS) is SquashedGaussian
    assert policy_of(plain, CONTINUOUS) is DiagonalGaussian
    # Runs of before have no such setting in their config.yaml.
    assert policy_of(plain.replace(policy=AUTO), CONTINUOUS) is DiagonalGaussian
    assert policy_of(resolve(ONE_ACTOR, CHOICES), CHOICES) is MultiCategorical


@for_each("spec", [VECTORS, IMAGES, CONTINUOUS])
def test_table_refuses_observations_that_are_no_numbered_states(spec):
    config = ONE_ACTOR.replace(network="tabular", env="CartPole")
    with pytest.raises(ConfigError, match=r"^network must not be tabular for CartPole: "):
        resolve(config, spec)
    numbered = STATES._replace(actions=CONTINUOUS.actions)
    with pytest.raises(
        ConfigError, match=r"^network must not be tabular .*: actions are numbers\."
    ):
        resolve(config, numbered)


@for_each("algorithm", ALGORITHMS)
def test_every_algorithm_takes_a_table(algorithm):
    config = resolve(ONE_ACTOR.replace(network="tabular", algorithm=algorithm), STATES)
    assert config.network == "tabular"


@for_each("network", ["atari_ff", "nature_gru"])
def test_image_networks_refuse_vectors(network):
    message = rf"^network must be one of mlp_\*, mujoco_\* for CartPole \(.*\), got {network}\.$"
    with pytest.raises(ConfigError, match=message):
        resolve(ONE_ACTOR.replace(network=network, env="CartPole"), VECTORS)


@for_each(("network", "least"), [("atari_ff", 5), ("nature_gru", 9)])
def test_image_networks_refuse_images_smaller_than_their_kernels(network, least):
    config = ONE_ACTOR.replace(network=network)
    message = rf"^network must be one of .*minatar_\*.* for Pong .*, got {network}, which takes "
    with pytest.raises(ConfigError, match=message):
        resolve(config, IMAGES._replace(observation=image(least - 1, 30, 64)))
    resolve(config, IMAGES._replace(observation=image(least, 30, 64)))


@for_each(
    ("settings", "spec", "expected"),
    [
        ({}, IMAGES, (0.99, 1e-5, 0.0)),
        ({"optimizer": "adam"}, IMAGES, (0.99, 1e-5, 0.0)),
        ({"algorithm": "n_step_q"}, IMAGES, (0.999, 1e-5, 0.0)),
        ({}, VECTORS, (0.999, 1e-5, 0.0)),
        ({"network": "mlp_ff"}, IMAGES, (0.99, 1e-5, 0.0)),
        ({"optimizer": "rmsprop"}, IMAGES, (0.99, 0.1, None)),
        ({"optimizer": "sgd"}, IMAGES, (None, None, 0.99)),
    ],
)
def test_optimizers_bring_their_own_constants(settings, spec, expected):
    config = resolve(ONE_ACTOR.replace(**settings), spec)
    assert (config.decay, config.epsilon, config.momentum) == expected
    config = resolve(ONE_ACTOR.replace(**settings, decay=0.5), spec)
    assert (config.decay, config.epsilon, config.momentum) == (0.5, *expected[1:])


def test_random_play_must_leave_something_of_the_budget():
    config = Config(
        num_actors=2, envs_per_actor=3, unroll_length=1, warmup_steps=5, total_frames=121
    )
    assert resolve(config, IMAGES).warmup_steps == 5  # 2 · 3 · 5 steps of 4 frames
    with pytest.raises(ConfigError, match=r"^total_frames must be more than the 120 .*, got 120"):
        resolve(config.replace(total_frames=120), IMAGES)


@for_each(
    ("num_actors", "total_frames", "expected"),
    [
        (2, 400_000, 512),
        (25, 400_000, 50),  # 25 · 8 · 512 steps of 4 frames would be more than the budget
        (100, 6_000_000, 187),
        (100, 40_000, 1),
    ],
)
def test_default_random_play_takes_at_most_a_tenth_of_the_budget(
    num_actors, total_frames, expected
):
    config = Config(num_actors=num_actors, envs_per_actor=8, total_frames=total_frames)
    assert resolve(config, IMAGES).warmup_steps == expected
    # A number of one's own is taken as it is, or refused.
    if num_actors > 2:
        with pytest.raises(ConfigError, match=rf"^total_frames .*\(warmup_steps={10**5} in"):
            resolve(config.replace(warmup_steps=10**5), IMAGES)


@for_each(
    ("cores", "counts", "expected"),
    [
        (1, {}, (1, 8)),
        (2, {}, (2, 8)),
        (15, {}, (15, 8)),
        (16, {}, (16, 32)),
        (64, {}, (64, 32)),
        (64, {"num_actors": 15}, (15, 8)),  # few share Python's lock
        (2, {"num_actors": 16}, (16, 8)),  # few run at once
        (64, {"num_actors": 16}, (16, 32)),
        (64, {"envs_per_actor": 8}, (64, 8)),
        (2, {"num_actors": 1, "envs_per_actor": 1}, (1, 1)),
        # Where the budget is small, all of them together are few, however many cores there are.
        (1, {"total_frames": 200_000}, (1, 8)),
        (2, {"total_frames": 200_000}, (2, 8)),
        (64, {"total_frames": 1_000_000}, (2, 8)),
        (4, {"total_frames": 6_000_000}, (4, 8)),
        (64, {"total_frames": 6_000_000}, (5, 8)),
        (64, {"total_frames": 24_000_000}, (20, 8)),
        (16, {"total_frames": 60_000_000}, (16, 25)),
        (2, {"total_frames": 1_000_000, "num_actors": 16}, (16, 1)),
        (2, {"total_frames": 1_000_000, "num_actors": 64}, (64, 1)),
        (64, {"total_frames": 1_000_000, "envs_per_actor": 1}, (2, 1)),
    ],
)
@for_each("spec", [IMAGES, VECTORS])
def test_actors_and_their_environments_are_as_many_as_cores_and_budget_bear(
    monkeypatch, spec, cores, counts, expected
):
    monkeypatch.setattr(defaults, "available_cores", lambda: cores)
    config = resolve(Config(**{"total_frames": 10**9, **counts}), spec)
    assert (config.num_actors, config.envs_per_actor) == expected


def test_budget_holds_one_update():
    config = Config(num_actors=2, envs_per_actor=3, unroll_length=10, warmup_steps=1)
    assert resolve(config.replace(total_frames=120), IMAGES).total_frames == 120
    with pytest.raises(ConfigError, match=r"^total_frames must be at least the 120 .*, got 119\.$"):
        resolve(config.replace(total_frames=119), IMAGES)


def test_memory_holds_one_update():
    config = ONE_ACTOR.replace(total_frames=10**15, unroll_length=10**11)
    with pytest.raises(ConfigError, match=r"^unroll_length must .* GiB, got 100000000000\.$"):
        resolve(config, IMAGES)


def test_whole_episodes_are_checked_against_no_budget():
    # How long they are nobody knows.
    config = ONE_ACTOR.replace(total_frames=40, warmup_steps=1, unroll_length="episode")
    assert resolve(config, VECTORS).unroll_length == "episode"


@for_each(("total_frames", "expected"), [(4_000_000, 20_000), (100, 1)])
def test_log_period_is_a_200th_of_the_budget(total_frames, expected):
    config = ONE_ACTOR.replace(total_frames=total_frames, envs_per_actor=1, warmup_steps=1)
    assert resolve(config, VECTORS).log_period_frames == expected


def test_a_resumed_run_has_its_own_folder():
    assert Config(resume="runs/1").run_dir is None
    assert Config(resume="runs/1", run_dir="runs/1").resume == "runs/1"
    with pytest.raises(ConfigError, match=r"^run_dir must be left alone with resume, got runs/2\."):
        Config(resume="runs/1", run_dir="runs/2")


def test_what_is_left_open_stays_as_it_is_in_a_resumed_run(tmp_path):
    own = OWN_VALUES | {"algorithm": "ppo", "discount": 0.5, "lambda_": 1.0, "max_grad_norm": None}
    settled = {name: own[name] for name in SETTLED}
    write_config(tmp_path, yaml.safe_dump({"env": "Pong", **settled}))
    given = {name: show(getattr(Config, name)).upper() for name in SETTLED}
    config = read_config({"resume": str(tmp_path), "eval_period_frames": "null", **given})
    assert {name: getattr(config, name) for name in SETTLED} == settled
    given = {"learning_rate": None, "max_grad_norm": 3.0}
    config = resume_config(tmp_path, given)
    assert (config.learning_rate, config.max_grad_norm) == (settled["learning_rate"], 3.0)
    assert config.run_dir == config.resume == str(tmp_path)


def test_folder_to_resume_is_not_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(write_config(tmp_path, "seed: 3"))
    with pytest.raises(ConfigError, match=r"^resume must be a path, got ''\."):
        read_config({"resume": ""})


def test_folder_to_resume_may_be_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config(tmp_path, "env: Pong\nseed: 3")
    config = read_config({"resume": "~"})
    assert (config.seed, config.run_dir) == (3, str(tmp_path))


@for_each("name", ["./~/x", "./~root/x", "~nobody-of-this-name/x"])
def test_a_folder_named_like_a_home_is_the_same_at_every_reading(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = read_config({"run_dir": name}).run_dir
    assert path == os.path.join(tmp_path, os.path.normpath(name))
    assert read_config({"run_dir": str(Path(path))}).run_dir == path
    os.makedirs(path)
    run_dir = write_config(Path(path), "env: Pong\nseed: 3")
    assert read_config({"resume": name}).resume == str(run_dir)
    assert resume_config(name, {}).seed == 3
    assert own_folder(name) == run_dir
    assert as_place(f"{name}/scores.json") == run_dir / "scores.json"
    assert parse([name], places="<run folder>") == ([str(run_dir)], {})


def test_run_with_statistics_of_each_actor_goes_on_with_as_many(tmp_path):
    settings = {"env": "Pong", "num_actors": 2, "shared_statistics": False}
    run_dir = str(write_config(tmp_path, yaml.safe_dump(settings)))
    for num_actors in (1, 3):
        with pytest.raises(ConfigError) as caught:
            resume_config(run_dir, {"num_actors": num_actors})
        expected = f"num_actors must be 2, as in the run to resume, got {num_actors}."
        assert str(caught.value) == expected
    assert resume_config(run_dir, {"num_actors": 2}).num_actors == 2
    write_config(tmp_path, yaml.safe_dump({"env": "Pong", "num_actors": 2}))
    assert resume_config(run_dir, {"num_actors": 3}).num_actors == 3


@for_each(
    ("name", "value"),
    [
        *(("network", "mlp_gru"), ("env", "Catch"), ("optimizer", "sgd"), ("seed", 9)),
        *(("algorithm", "n_step_q"), ("shared_statistics", False), ("variance", "each")),
        *(("num_actors", 3), ("envs_per_actor", 9), ("unroll_length", 5)),  # deterministic
    ],
)
def test_setting_that_contradicts_the_run_is_refused_by_name(tmp_path, name, value):
    settings = {"deterministic": True, "num_actors": 2, "envs_per_actor": 4, "unroll_length": 10}
    write_config(tmp_path, yaml.safe_dump({"env": "CartPole", "variance": "free", **settings}))
    with pytest.raises(
        ConfigError, match=rf"^{name} must be .*, as in the run .* got {show(value)}"
    ):
        resume_config(str(tmp_path), {name: value})


def test_evaluating_during_training_takes_games():
    with pytest.raises(ConfigError, match=r"^eval_episodes must be >= 1 .*, got 0\."):
        Config(eval_period_frames=100, eval_episodes=0)


@for_each(("old", "variance"), [(True, "each"), (False, "shared")])
def test_older_folders_name_the_variance_of_their_policy_otherwise(tmp_path, old, variance):
    (tmp_path / "config.yaml").write_text(
        f"env: Pong\nper_dimension_variance: {str(old).lower()}\n"
    )
    assert load_config(tmp_path).variance == variance
