"""The settings of a run: all of them, declared once, and how they are read."""

import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from a3cjax.config.declaring import (
    BELOW_ONE,
    POSITIVE,
    Rule,
    Settings,
    at_least,
    between,
    brought_or,
    one_of,
    read_settings,
    setting,
    show,
    unknown_name,
)
from a3cjax.errors import ConfigError

AUTO = "auto"
EPISODE = "episode"
PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}

# Centuries of play: what is beyond is a slip, and would not fit the integers of the programs below.
FRAMES = between(1, 10**15)
# A batch or an evaluation holds all its environments at once.
MAX_BATCH = 10_000

CONFIG_FILE = "config.yaml"  # of a run folder
MAX_FILE_BYTES, MAX_NESTING = 100_000, 8  # of a file of settings; ours have 2 kB and one level


def _names(module: str, attribute: str, *also: str):
    """Names that another file has, looked up when they are needed."""
    return one_of(lambda: (*also, *getattr(importlib.import_module(f"a3cjax.{module}"), attribute)))


def _explain_devices(names: str) -> str | None:
    is_right = names == AUTO or re.fullmatch(r"[a-z]+(:\d{1,4})?(, *[a-z]+(:\d{1,4})?)*", names)
    return None if is_right else "auto, or devices as cuda, cuda:1 or cuda:0,cuda:1"


_problem = functools.partial(setting, group="The problem")
_agent = functools.partial(setting, group="The agent")
_optimizer = functools.partial(setting, group="The optimizer")
_actors = functools.partial(setting, group="Actor-learners")
_cluster = functools.partial(setting, group="Past one process")
_judging = functools.partial(setting, group="Evaluation and film")
_program = functools.partial(setting, group="The run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of one run. Frames are emulator frames: 4 a step in Atari games.

    None and `auto` stand for what suits the environment (config/defaults.py); `train` fills
    them in, and they stand so in the run folder's config.yaml; `devices` alone stays `auto`.
    """

    env: str = _problem(
        "Pong",
        "an envpool id (Pong is the newest Pong), gymnasium:<id> or python:<module>:<function>",
    )
    env_kwargs: dict | None = _problem(  # noqa: RUF009  (frozen by its copy)
        None, "arguments with which it is made, as {difficulty: 3}; null: none"
    )
    total_frames: int = _problem(
        6_000_000, "budget in emulator frames, random play included", FRAMES
    )
    # Environment seeds are 32-bit integers, 100,000 of them for a run.
    seed: int = _problem(
        1, "of the environments, the first parameters and the actions", between(0, 20_000)
    )
    protocol: str = _problem(
        "paper",
        "of Atari games; machado has sticky actions, whole games and all actions",
        one_of(lambda: ("paper", "machado")),
    )
    image_layout: str = _problem(
        AUTO,
        "which axis of an image counts its channels; auto: what the space suggests; none: all "
        "observations are numbers",
        _names("envs.observations", "IMAGE_LAYOUTS"),
    )

    algorithm: str = _agent(
        AUTO,
        "what is learned; auto: a3c, or as tuned for the environment",
        _names("agents", "ALGORITHMS", AUTO),
    )
    network: str = _agent(
        AUTO,
        "auto: atari_ff for images, minatar_ff for small ones, multi_ff for images beside other "
        "parts, mlp_ff for others",
        brought_or(_names("networks", "NETWORK_NAMES", AUTO)),
    )
    unroll_length: int | Literal["auto", "episode"] = _agent(
        AUTO,
        "steps of an update; auto is 32, 40 for images, 1 for a table; episode: a whole one",
        FRAMES,
    )
    discount: float | None = _agent(
        None, "γ; null: 0.99, or as tuned for the environment", between(0, 1)
    )
    lambda_: float | None = _agent(
        None, "λ of the returns; 1: n-step returns; null: 0.95, or as tuned", between(0, 1)
    )
    value_cost: float = _agent(0.5, "weight of the value loss", at_least(0))
    entropy_cost: float | None = _agent(
        None, "β; null: 0.01, 1e-4 for continuous actions", at_least(0)
    )
    entropy_spread: float = _agent(
        1.0, "actors' entropy costs go from cost / spread to cost x spread", at_least(1)
    )
    num_passes: int | None = _agent(
        None, "updates from each unroll (ppo, vtrace); null: 2 (ppo), 1 (vtrace)", between(1, 100)
    )
    clip_ratio: float = _agent(
        0.2, "ε, how far a pass may move an action's probability (ppo)", POSITIVE
    )
    policy: str = _agent(
        AUTO,
        "for continuous actions; auto: gaussian; squashed_gaussian: by tanh into their bounds",
        _names("networks", "POLICY_NAMES", AUTO),
    )
    variance: str = _agent(
        "free",
        "of a Gaussian policy: free parameters, or the network's, for each action or one shared",
        _names("networks", "VARIANCES"),
    )
    normalize_rewards: bool | None = _agent(
        None,
        "divide by the deviation of discounted returns so far; null: yes, but not clipped ones of "
        "Atari games or for a table",
    )
    normalize_advantages: bool | None = _agent(
        None, "divide by their size in the update; null: yes, but not for images or a table"
    )
    centre_observations: bool | None = _agent(
        None,
        "subtract the mean and divide by the scale, of images those of random play; null: yes, but "
        "not for a table",
    )
    exploration_frames: int | None = _agent(
        None, "until ε is final (Q methods); null: 4M, at most a fifth of the budget", at_least(1)
    )
    epsilon_period_frames: int | None = _agent(
        None, "final ε are drawn anew this often (Q methods); null: never", FRAMES
    )
    target_period_frames: int = _agent(
        40_000, "target parameters are renewed this often (Q methods)", FRAMES
    )
    double_q: bool = _agent(
        False, "θ chooses the action that the target parameters value (one_step_q, n_step_q)"
    )
    dueling: bool = _agent(False, "action values are a value and advantages (Q methods)")
    huber_delta: float | None = _agent(
        None, "error beyond which the loss is linear (Q methods); null: squared", POSITIVE
    )

    optimizer: str = _optimizer(
        AUTO, "auto: adam, sgd for a table", _names("optimizers", "OPTIMIZER_NAMES", AUTO)
    )
    shared_statistics: bool = _optimizer(True, "one set for all actors, not one for each")
    learning_rate: float | None = _optimizer(
        None, "null: 0.003, 0.001 for images or continuous actions, 0.5 for a table", POSITIVE
    )
    anneal_learning_rate: bool = _optimizer(True, "in a line to 0 over the budget")
    decay: float | None = _optimizer(
        None,
        "of squared gradients; null: 0.99 for images (but Q methods) and rmsprop, else 0.999",
        BELOW_ONE,
    )
    epsilon: float | None = _optimizer(
        None, "beside the root; null: 1e-5 (adam), 0.1 inside the root (rmsprop)", POSITIVE
    )
    momentum: float | None = _optimizer(None, "null: 0 (adam), 0.99 (sgd)", BELOW_ONE)
    max_grad_norm: float | Literal["auto"] | None = _optimizer(
        AUTO, "gradients are clipped to it; auto: 40, none for a table", POSITIVE
    )

    # Every actor is a thread of Python.
    num_actors: int | None = _actors(
        None,
        "actor-learners; null: one for each core, but fewer where the budget is small: they "
        "have at most one environment for each 0.15M frames, or 16",
        between(1, 1_000),
    )
    envs_per_actor: int | None = _actors(
        None,
        "environments of each; null: 8, from 16 actors on as many cores on 32; fewer where the "
        "budget is small",
        between(1, MAX_BATCH),
    )
    warmup_steps: int | None = _actors(
        None,
        "of random play in each environment; null: 512, at most a tenth of the budget",
        between(0, 10**15),
    )
    devices: str = _actors(
        AUTO,
        "where to compute: cpu, cuda, tpu, or cuda:0,cuda:1; the learner on the first, "
        "actor-learners in turn on the others; auto: JAX's first device",
        Rule("auto or names of devices", _explain_devices),
    )
    kernels: bool | None = _actors(
        None,
        "convolutions in C++, compiled at the first run; null: where the machine has a compiler",
    )
    deterministic: bool = _actors(False, "actors take turns: two runs are equal to the last bit")

    cluster: str | None = _cluster(
        None,
        "ray: actor-learners in several processes; null: in threads of one",
        one_of(lambda: ("ray",)),
    )
    ray_address: str | None = _cluster(
        None,
        "of a Ray that runs already: auto, ray://..., or host:port; null: one of its own, here",
    )
    num_workers: int | None = _cluster(
        None,
        "processes that the actor-learners are shared out over; null: one for 8 cores, or for each "
        "machine of a Ray that runs already",
        between(1, 1_000),
    )
    num_shards: int = _cluster(
        1, "processes that the parameters are shared out over", between(1, 256)
    )
    grads_per_push: int = _cluster(
        1, "gradients of a worker that are summed to one update", between(1, 1_000)
    )
    max_staleness: int | None = _cluster(
        None, "gradients behind by more updates are dropped; null: none is", at_least(0)
    )
    outlier_deviations: float | None = _cluster(
        None,
        "gradients are dropped whose loss lies so many standard deviations over the mean; null: "
        "none is",
        POSITIVE,
    )
    push_dtype: str = _cluster(
        "float32", "of gradients on their way", one_of(lambda: ("float32", "bfloat16"))
    )
    shard_save_period_updates: int = _cluster(
        100, "between the files that a shard comes back with", FRAMES
    )
    max_restarts: int = _cluster(
        10, "of processes that have died, before the run ends", between(0, 10**6)
    )

    eval_episodes: int = _judging(
        30, "full games at the end, and in each evaluation before", between(0, MAX_BATCH)
    )
    eval_period_frames: int | None = _judging(None, "null: evaluate only at the end", FRAMES)
    max_episode_steps: int | None = _judging(
        None,
        "games of evaluations are cut after these steps; null: their own limit, or 27,000, at most "
        "the budget",
        FRAMES,
    )
    greedy_evaluation: bool | None = _judging(
        None, "the most probable actions, not sampled ones; null: sampled for images alone"
    )
    video: bool = _judging(True, "half a minute of play at the end: play.mp4 and play.gif")

    run_dir: str | None = _program(
        None, "folder of the run; null: runs/<env>/<date-time>-seed<seed>", is_path=True
    )
    resume: str | None = _program(
        None, "folder of a run to go on with; its settings stay as they are", is_path=True
    )
    checkpoint_period_frames: int = _program(1_000_000, "between checkpoints", FRAMES)
    log_period_frames: int | None = _program(
        None, "between rows of metrics.csv; null: a 200th of the budget", FRAMES
    )
    tensorboard: bool = _program(True, "write TensorBoard events beside the CSV files")
    wandb: bool = _program(False, "log to Weights & Biases, too; without an account offline")
    mlflow: bool = _program(False, "log to MLflow, too: mlflow.db or MLFLOW_TRACKING_URI")
    # Compiling for an accelerator takes minutes.
    stall_timeout_seconds: float = _program(
        600.0, "without progress of an actor, after which the run ends", POSITIVE
    )
    max_bad_updates: int = _program(
        10, "refused in a row, because they are not finite, before the run ends", FRAMES
    )

    def __post_init__(self):
        super().__post_init__()
        frames = self.exploration_frames
        if frames is not None and frames > self.total_frames:
            raise ConfigError(
                f"exploration_frames must be between 1 and {self.total_frames}, got {frames}."
            )
        if self.resume is not None and self.run_dir not in (None, self.resume):
            raise ConfigError(f"run_dir must be left alone with resume, got {self.run_dir}.")
        if self.eval_period_frames is not None and self.eval_episodes == 0:
            raise ConfigError("eval_episodes must be >= 1 to evaluate during training, got 0.")
        if self.centre_observations and self.warmup_steps == 0:
            raise ConfigError("warmup_steps must be >= 1 to centre observations, got 0.")
        self._check_cluster()

    def _check_cluster(self) -> None:
        """Refuses what contradicts itself."""
        if self.cluster is None:
            return
        if self.devices not in (AUTO, "cpu"):
            raise ConfigError(f"devices must be auto or cpu with cluster, got {self.devices}.")
        alone = {"grads_per_push": 1, "max_staleness": None, "outlier_deviations": None}
        for name, default in alone.items():
            if self.deterministic and (value := getattr(self, name)) != default:
                rule = f"{name} must be {show(default)} where actors take turns (deterministic)"
                raise ConfigError(f"{rule}, got {show(value)}.")
        if self.grads_per_push > 1 and not self.shared_statistics:
            raise ConfigError(
                "grads_per_push must be 1 where each actor has its own statistics "
                f"(shared_statistics), got {self.grads_per_push}."
            )


CLUSTER_DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(Config)
    if field.metadata["group"] == "Past one process" and field.name != "cluster"
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset(Settings):
    """What a run's settings begin with; given with them, but no setting of the run itself."""

    preset: str = setting("laptop", "settings to begin with", one_of(lambda: tuple(PRESETS)))


def make_config(settings: Mapping[str, Any]) -> Config:
    """Builds a Config from plain values.

    Raises:
      ConfigError: names the setting, the rule and what it got; for an unknown name, what may
        have been meant.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    for name in settings:
        if name not in names:
            raise ConfigError(unknown_name(str(name), names))  # YAML has other keys, too
    return Config(**settings)


def read_config(texts: Mapping[str, str]) -> Config:
    """Builds a Config from the `name=value` of a command line, `preset` and `resume` included.

    Raises:
      ConfigError: as `make_config`; for settings that contradict the run to resume.
    """
    texts = dict(texts)
    preset = texts.pop("preset", "laptop")
    values = read_settings(Config, texts)
    run_dir = values.pop("resume", None)
    if run_dir is None:
        return make_config(read_preset(preset) | values)
    if preset != "laptop":
        raise ConfigError("preset cannot be given with resume: the run has its settings.")
    return resume_config(run_dir, values)


def read_preset(name: str) -> dict[str, Any]:
    """What a preset sets, by name: where it differs from the defaults.

    A preset may begin with another one, which it names as its own `preset`.

    Raises:
      ConfigError: names those that there are.
    """
    settings = yaml.safe_load(PRESETS[Preset(preset=name).preset].read_text()) or {}
    base = settings.pop("preset", None)
    return settings if base is None else read_preset(base) | settings


def load_config(run_dir: Path) -> Config:
    """Reads the config.yaml of a run folder.

    Raises:
      FileNotFoundError: if there is none.
      ConfigError: if it holds something else than settings.
    """
    settings = read_config_file(run_dir)
    # Once a setting of its own; `config.yaml` of such a run holds what its network has.
    each = settings.pop("per_dimension_variance", None)
    if each is not None and "variance" not in settings:
        settings["variance"] = "each" if each is True else "shared"
    return make_config(settings)


def read_config_file(run_dir: Path) -> dict[str, Any]:
    """What stands in the config.yaml of a run folder, by name, whether there are such settings.

    The file may come from anywhere: it is small, without aliases (of which a few lines stand for
    billions of values) and hardly nested, or it is refused.

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
        settings = yaml.safe_load(data)
        repr(settings)  # a ValueError for a number of more digits than Python prints
    # PyYAML raises what it happens to stumble over: `!!bool x` is a KeyError, for instance.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path} must hold settings by name, got {error}.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(settings).__name__}.")
    return settings


# What a checkpoint is made of, or what the numbers of one run must have in common.
FIXED_BY_A_RUN = (
    *("env", "env_kwargs", "protocol", "seed", "algorithm", "network", "optimizer"),
    *("centre_observations", "policy", "variance", "normalize_rewards", "shared_statistics"),
    *("image_layout", "dueling"),
)
FIXED_BY_A_DETERMINISTIC_RUN = (
    *("deterministic", "num_actors", "envs_per_actor", "unroll_length", "num_passes", "kernels"),
)


def resume_config(run_dir: str, changes: Mapping[str, Any]) -> Config:
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
    settings = dataclasses.asdict(config)
    if config.deterministic:
        settings["kernels"] = bool(config.kernels)  # null in a run from before there were any
    if changes.get("cluster", config.cluster) is None:  # it goes on in threads
        settings |= CLUSTER_DEFAULTS
    if config.exploration_frames is not None and "total_frames" in changes:
        # A run may be made shorter than the line of ε was to be.
        most = make_config({"total_frames": changes["total_frames"]}).total_frames
        settings["exploration_frames"] = min(config.exploration_frames, most)
    changed = make_config({**settings, "resume": run_dir, "run_dir": run_dir, **changes})
    fixed = FIXED_BY_A_RUN + (FIXED_BY_A_DETERMINISTIC_RUN if config.deterministic else ())
    if not config.shared_statistics:  # a checkpoint holds those of each actor
        fixed = (*fixed, "num_actors")
    for name in fixed:
        old, new = settings[name], getattr(changed, name)
        if new != old:
            raise ConfigError(f"{name} must be {old}, as in the run to resume, got {new}.")
    return changed
