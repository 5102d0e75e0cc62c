"""The configuration of a run: every setting, its check, and its message when wrong."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from a3cjax.agents import ALGORITHMS
from a3cjax.errors import ConfigError
from a3cjax.networks import NETWORK_NAMES
from a3cjax.optimizers import OPTIMIZER_NAMES

AUTO = "auto"
EPISODE = "episode"

# Centuries of play: what is beyond is a slip, and would not fit the integers of the programs below.
MAX_FRAMES = 10**15
# Every actor is a thread of Python; a batch or an evaluation holds all its environments at once.
MAX_ACTORS = 1_000
MAX_BATCH = 10_000
# Computation is in 32-bit floats: what is larger than their largest would become infinite.
MAX_FLOAT = float(np.finfo(np.float32).max)

CONFIG_FILE = "config.yaml"  # of a run folder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run. Frames are emulator frames: 4 a step in Atari games.

    Defaults are those of `preset=laptop`. None and `auto` are resolved by `train` and
    stand resolved in the run folder's config.yaml.
    """

    env: str = "Pong"
    seed: int = 1
    total_frames: int = 6_000_000
    # The agent.
    algorithm: str = "a3c"
    network: str = AUTO  # atari_ff for images, mlp_ff for anything else
    unroll_length: int | str = AUTO  # 40, 1 for a table; `episode`: whole episodes
    discount: float = 0.99
    lambda_: float = 0.95
    value_cost: float = 0.5
    entropy_cost: float | None = None  # 0.01, 1e-4 for continuous actions
    entropy_spread: float = 1.0  # actors' entropy costs go from cost / spread to cost · spread
    per_dimension_variance: bool = False  # of a Gaussian policy; the paper has one for all
    centre_observations: bool | None = None  # yes, but not for a table
    exploration_frames: int | None = None  # until ε is final: 4 million, at most a fifth of all
    target_period_frames: int = 40_000
    # The optimizer.
    optimizer: str = AUTO  # adam, sgd for a table
    shared_statistics: bool = True
    learning_rate: float | None = None  # 1e-3, more for a table
    anneal_learning_rate: bool = True
    decay: float | None = None  # these three: the optimizer's own
    epsilon: float | None = None
    momentum: float | None = None
    max_grad_norm: float | str | None = AUTO  # 40, none for a table
    # Actors and environments.
    num_actors: int | None = None  # one for each core
    envs_per_actor: int = 8
    protocol: str = "paper"
    warmup_steps: int | None = None  # 512, or less where that is more than a tenth of the budget
    # The program.
    run_dir: str | None = None
    resume: str | None = None  # the folder of the run to go on with
    deterministic: bool = False
    log_period_frames: int | None = None  # a 200th of the budget
    tensorboard: bool = True
    wandb: bool = False  # these two: `pip install a3cjax[wandb]`, `a3cjax[mlflow]`
    mlflow: bool = False
    checkpoint_period_frames: int = 1_000_000
    eval_episodes: int = 30
    eval_period_frames: int | None = None  # only at the end
    video: bool = True  # a short one at the end
    stall_timeout_seconds: float = 600.0  # compiling for an accelerator takes minutes
    max_bad_updates: int = 10

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_type(field.name, field.type, getattr(self, field.name))
        self._check("algorithm", tuple(ALGORITHMS))
        self._check("network", (AUTO, *NETWORK_NAMES))
        self._check("optimizer", (AUTO, *OPTIMIZER_NAMES))
        if self.unroll_length not in (AUTO, EPISODE):
            self._check_number("unroll_length", int)
            self._check_range("unroll_length", 1, MAX_FRAMES)
        if self.max_grad_norm not in (AUTO, None):
            self._check_number("max_grad_norm", float)
        self._check("protocol", ("paper", "machado"))
        for name in ("total_frames", "max_bad_updates", "target_period_frames"):
            self._check_range(name, 1, MAX_FRAMES)
        for name in ("log_period_frames", "checkpoint_period_frames", "eval_period_frames"):
            self._check_range(name, 1, MAX_FRAMES)
        if self.exploration_frames is not None:
            self._check_range("exploration_frames", 1, self.total_frames)
        self._check_range("entropy_spread", 1, math.inf)
        self._check_range("num_actors", 1, MAX_ACTORS)
        self._check_range("envs_per_actor", 1, MAX_BATCH)
        self._check_range("eval_episodes", 0, MAX_BATCH)
        self._check_range("warmup_steps", 0, MAX_FRAMES)
        for name in ("value_cost", "entropy_cost"):
            self._check_range(name, 0, math.inf)
        # Environment seeds are 32-bit integers, 100,000 of them for a run.
        self._check_range("seed", 0, 20_000)
        for name in ("discount", "lambda_"):
            self._check_range(name, 0, 1)
        for name in ("decay", "momentum"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and np.float32(value) < 1):
                suffix = " as a 32-bit float" if value < 1 else ""
                raise ConfigError(f"{name} must be >= 0 and < 1{suffix}, got {value}.")
        for name in ("learning_rate", "max_grad_norm", "epsilon", "stall_timeout_seconds"):
            value = getattr(self, name)
            if value not in (None, AUTO) and not np.float32(value) > 0:
                suffix = " as a 32-bit float" if value > 0 else ""
                raise ConfigError(f"{name} must be > 0{suffix}, got {value}.")
        if self.resume is not None and self.run_dir not in (None, self.resume):
            raise ConfigError(f"run_dir must be left alone with resume, got {self.run_dir}.")
        if self.eval_period_frames is not None and self.eval_episodes == 0:
            raise ConfigError("eval_episodes must be >= 1 to evaluate during training, got 0.")
        if self.centre_observations and self.warmup_steps == 0:
            raise ConfigError("warmup_steps must be >= 1 to centre observations, got 0.")

    def _check(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value}.")

    def _check_number(self, name: str, kind: type) -> None:
        """For a setting that is a number or a word, when it is none of the words."""
        _check_type(name, kind, getattr(self, name))

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            bound = f"between {low} and {high}" if value > high else f">= {low}"
            raise ConfigError(f"{name} must be {bound}, got {value}.")

    def replace(self, **changes: Any) -> "Config":
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


def make_config(settings: dict[str, Any]) -> Config:
    """Builds a Config from plain values.

    Raises:
      ConfigError: names the setting, the rule and what it got; for an unknown name, the
        nearest ones.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    for name in settings:
        if name not in names:
            raise ConfigError(unknown_setting(str(name)))  # YAML has other keys, too
    return Config(**settings)


def load_config(run_dir: Path) -> Config:
    """Reads the config.yaml of a run folder.

    Raises:
      FileNotFoundError: if there is none.
      ConfigError: if it holds something else than settings.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"run folder must hold {CONFIG_FILE}, got {run_dir}.")
    try:
        settings = yaml.safe_load(path.read_text())
    # PyYAML raises what it happens to stumble over: `!!bool x` is a KeyError, for instance.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} must hold settings by name: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(settings).__name__}.")
    return make_config(settings)


# What a checkpoint is made of, or what the numbers of one run must have in common.
FIXED_BY_A_RUN = (
    *("env", "protocol", "seed", "algorithm", "network", "optimizer", "centre_observations"),
    *("per_dimension_variance", "shared_statistics"),
)
FIXED_BY_A_DETERMINISTIC_RUN = ("deterministic", "num_actors", "envs_per_actor", "unroll_length")


def resume_config(run_dir: str, changes: dict[str, Any]) -> Config:
    """The settings of a run folder, changed where that is possible.

    Args:
      run_dir: of the run to go on with.
      changes: settings by name; the others stay as they were.

    Raises:
      ConfigError: if the folder is no run folder, or a change contradicts its checkpoints.
    """
    try:
        config = load_config(Path(run_dir))
    except (OSError, ConfigError) as error:
        raise ConfigError(f"resume must be a run folder, got {run_dir}: {error}") from error
    fixed = FIXED_BY_A_RUN + (FIXED_BY_A_DETERMINISTIC_RUN if config.deterministic else ())
    if not config.shared_statistics:  # a checkpoint holds those of each actor
        fixed = (*fixed, "num_actors")
    for name in fixed:
        old = getattr(config, name)
        if changes.get(name, old) != old:
            raise ConfigError(
                f"{name} must be {old}, as in the run to resume, got {changes[name]}."
            )
    settings = {**dataclasses.asdict(config), "resume": run_dir, "run_dir": run_dir}
    total_frames = changes.get("total_frames")
    if config.exploration_frames is not None and isinstance(total_frames, int):
        # A run may be made shorter than the line of ε was to be.
        settings["exploration_frames"] = max(1, min(config.exploration_frames, total_frames))
    return make_config(settings | changes)


def check_override(argument: str, presets: Collection[str]) -> None:
    """Checks the name in a command-line override `name=value`.

    Raises:
      ConfigError: if it is no override, or names no setting or preset.
    """
    name, equals, value = argument.lstrip("+~").partition("=")
    if not equals:
        raise ConfigError(f"Settings are given as name=value, got {argument}.")
    names = [field.name for field in dataclasses.fields(Config)]
    if name not in (*names, "preset") and not name.startswith(("hydra.", "hydra/")):
        raise ConfigError(unknown_setting(name))
    if name == "preset" and not set(value.split(",")) <= set(presets):
        raise ConfigError(f"preset must be one of {', '.join(sorted(presets))}, got {value}.")


def unknown_setting(name: str) -> str:
    """The line that answers an unknown setting."""
    names = [field.name for field in dataclasses.fields(Config)]
    nearest = difflib.get_close_matches(name, [*names, "preset"], n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"There is no setting named {name}{hint}."


def _check_type(name: str, annotation: Any, value: Any) -> None:
    allowed = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    # Not isinstance(): a bool is an int, and NumPy's float64 is a float, but not YAML's.
    matches = type(value) in allowed or (float in allowed and type(value) is int)
    if type(value) is int and value.bit_length() > 2000:
        # Python refuses to print it if it is much longer.
        raise ConfigError(f"{name} must be a number that can be printed, got one of 2000 bits.")
    if not matches or (isinstance(value, float) and math.isnan(value)):
        # NaN is "not a number", and said to be of the wrong type.
        wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
        raise ConfigError(f"{name} must be of type {wanted}, got {value!r}.")
    if float in allowed and isinstance(value, int | float) and abs(value) > MAX_FLOAT:
        raise ConfigError(f"{name} must be finite as a 32-bit float, got {value}.")
