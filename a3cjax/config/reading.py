"""How settings are read: from a command line, from presets, and from the folder of a run."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from a3cjax.config.declaring import (
    Settings,
    SettingsLoader,
    one_of,
    read_settings,
    setting,
    show,
    unknown_name,
)
from a3cjax.config.settings import CLUSTER_DEFAULTS, Config
from a3cjax.errors import ConfigError, quote
from a3cjax.system.files import expand_home

PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}
CONFIG_FILE = "config.yaml"  # of a run folder
MAX_FILE_BYTES, MAX_NESTING = 100_000, 8  # of a file of settings; ours have 2 kB and one level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset(Settings):
    """The preset that a run's settings begin with; given with them, but not one of them."""

    preset: str = setting("laptop", "settings to begin with", one_of(lambda: tuple(PRESETS)))


def make_config(settings: Mapping[str, Any]) -> Config:
    """Build a Config from plain values.

    Raises:
      ConfigError: names the setting, the rule and what it got; for an unknown name, what may
        have been meant.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    for name in settings:
        if name not in names:
            raise ConfigError(unknown_name(str(name), names))  # a key of YAML need not be text
    return Config(**settings)


def read_config(texts: Mapping[str, str]) -> Config:
    """Build a Config from the `name=value` of a command line, `preset` and `resume` included.

    Raises:
      ConfigError: as `make_config`; for settings that contradict the run to resume.
    """
    texts = dict(texts)
    own = {"preset": texts.pop("preset")} if "preset" in texts else {}
    preset = Preset(**read_settings(Preset, own)).preset
    values = read_settings(Config, texts)
    run_dir = values.pop("resume", None)
    if run_dir is None:
        usual = read_preset(preset)
        if "total_frames" in values:  # a run may be made shorter than the preset's schedule of ε
            usual = _cut_exploration(usual, values["total_frames"])
        return make_config(usual | values)
    if preset != "laptop":
        raise ConfigError("preset cannot be given with resume: the run has its settings.")
    return resume_config(run_dir, values)


def read_preset(name: str) -> dict[str, Any]:
    """What a preset sets, by name: where it differs from the defaults.

    A preset may begin with another one, which it names as its own `preset`.

    Raises:
      ConfigError: for an unknown preset; names those that there are.
    """
    settings = yaml.safe_load(PRESETS[Preset(preset=name).preset].read_text(encoding="utf-8")) or {}
    base = settings.pop("preset", None)
    return settings if base is None else read_preset(base) | settings


def _cut_exploration(settings: Mapping[str, Any], total_frames: Any) -> dict[str, Any]:
    """Settings whose ε falls within this budget."""
    exploration_frames = settings.get("exploration_frames")
    if exploration_frames is None:
        return dict(settings)
    most = make_config({"total_frames": total_frames}).total_frames
    return {**settings, "exploration_frames": min(exploration_frames, most)}


def load_config(run_dir: Path) -> Config:
    """Read the config.yaml of a run folder.

    Raises:
      FileNotFoundError: if there is none.
      ConfigError: if it holds something else than settings.
    """
    settings = as_of_today(read_config_file(run_dir))
    try:
        config = make_config(settings)
    except ConfigError as error:  # which nobody has given on the command line
        raise ConfigError(f"{run_dir / CONFIG_FILE}: {error}") from error
    if "env" not in settings:  # its default is for those who type
        raise ConfigError(f"{run_dir / CONFIG_FILE} must name its env, got none.")
    return config


def as_of_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, of any age, as they are called today and with what they meant."""
    settings = dict(settings)
    # Once a setting of its own: the config.yaml of such a run says by it what its network has.
    each = settings.pop("per_dimension_variance", None)
    if each is not None and "variance" not in settings:
        settings["variance"] = "each" if each is True else "shared"
    # Runs from before this setting learn with a constant entropy cost, and go on so.
    settings.setdefault("target_entropy", None)
    return settings


def read_config_file(run_dir: Path) -> dict[str, Any]:
    """What the config.yaml of a run folder holds by name, whether or not such settings exist.

    The file may come from anywhere: it is refused unless it is small, hardly nested and without
    aliases (of which a few lines stand for billions of values).

    Raises:
      FileNotFoundError: if there is none.
      ConfigError: if it holds something else than values by name.
      OSError: if it cannot be opened.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"run folder must hold {CONFIG_FILE}, got {run_dir}.")
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES:,} bytes")
        nesting = 0
        for event in yaml.parse(data, yaml.SafeLoader):
            if getattr(event, "anchor", None) is not None:  # of an alias, too
                raise ValueError(f"an alias in line {event.start_mark.line + 1}")
            nesting += isinstance(event, yaml.CollectionStartEvent)
            nesting -= isinstance(event, yaml.CollectionEndEvent)
            if nesting > MAX_NESTING:
                raise ValueError(f"lists in lists in line {event.start_mark.line + 1}")
        settings = yaml.load(data, SettingsLoader)
        repr(settings)  # a ValueError for a number of more digits than Python prints
    # PyYAML raises what it happens to stumble over: `!!bool x` is a KeyError, for instance.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path} must hold settings by name, got {error}.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(settings).__name__}.")
    return settings


# What a config.yaml must settle for its agent to be the one that was trained.
SETTLED = (
    *("algorithm", "discount", "lambda_", "network"),
    *("optimizer", "learning_rate", "max_grad_norm"),
)
# What a checkpoint is made of, or what the numbers of one run must have in common.
FIXED_BY_A_RUN = (
    *("env", "env_kwargs", "protocol", "seed", "algorithm", "network", "optimizer"),
    *("centre_observations", "policy", "variance", "normalize_rewards", "shared_statistics"),
    *("image_layout", "dueling"),
)
FIXED_BY_A_DETERMINISTIC_RUN = (
    *("deterministic", "num_actors", "envs_per_actor", "unroll_length", "num_passes", "kernels"),
)


def resume_config(run_dir: str | os.PathLike[str], changes: Mapping[str, Any]) -> Config:
    """The settings of a run folder, changed where that is possible.

    Args:
      run_dir: of the run to go on with.
      changes: settings by name; the others stay as they were, and so do those of `SETTLED` that
        are left open (null, auto).

    Raises:
      ConfigError: if the folder is no run folder, or a change contradicts its checkpoints.
    """
    make_config({"resume": run_dir})  # it is a path
    if not isinstance(changes, Mapping):
        raise ConfigError(f"changes must be settings by name, got {quote(changes)}.")
    try:
        config = load_config(Path(expand_home(run_dir)))
    except (OSError, ConfigError) as error:
        raise ConfigError(f"resume must be a run folder, got {run_dir}: {error}") from error
    settings = dataclasses.asdict(config)
    if config.deterministic:
        settings["kernels"] = bool(config.kernels)  # null in a run from before there were any
    if changes.get("cluster", config.cluster) is None:  # it goes on in threads
        settings |= CLUSTER_DEFAULTS
    if "total_frames" in changes:  # a run may be made shorter than the schedule of ε was
        settings = _cut_exploration(settings, changes["total_frames"])
    changed = make_config({**settings, "resume": run_dir, "run_dir": run_dir, **changes})
    if changed.env.lower() == config.env.lower() and ":" not in config.env:
        changed = changed.replace(env=config.env)
    is_open = {name: getattr(changed, name) == getattr(Config, name) for name in SETTLED}
    changed = changed.replace(**{name: settings[name] for name in SETTLED if is_open[name]})
    fixed = FIXED_BY_A_RUN + (FIXED_BY_A_DETERMINISTIC_RUN if config.deterministic else ())
    if not config.shared_statistics:  # a checkpoint holds those of each actor
        fixed = (*fixed, "num_actors")
    for name in fixed:
        old, new = settings[name], getattr(changed, name)
        if new != old:
            raise ConfigError(
                f"{name} must be {show(old)}, as in the run to resume, got {show(new)}."
            )
    return changed
