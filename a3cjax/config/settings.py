"""The settings of a run: all of them, declared once."""

import dataclasses
import functools
import importlib
import re
from typing import Any, Literal

from a3cjax.config.declaring import (
    BELOW_ONE,
    POSITIVE,
    Rule,
    Settings,
    at_least,
    between,
    brought_or,
    one_of,
    setting,
    show,
)
from a3cjax.errors import ConfigError

AUTO = "auto"
EPISODE = "episode"

# Centuries of play: more is a slip, and would not fit the integers of the programs below.
FRAMES = between(1, 10**15)
# A batch or an evaluation holds all its environments at once.
MAX_BATCH = 10_000
REGISTER = ", or be registered first, in a3cjax.agents.ALGORITHMS"


def _names(module: str, attribute: str, *also: str, hint: str = ""):
    """Names that another file has, looked up when they are needed; `hint` as for `one_of`."""

    def names() -> tuple[str, ...]:
        return (*also, *getattr(importlib.import_module(f"a3cjax.{module}"), attribute))

    return one_of(names, hint)


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
    them in, also in the run folder's config.yaml; only `devices`, `image_layout` and the `policy`
    of discrete actions may stay `auto`.
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
        _names("agents", "ALGORITHMS", AUTO, hint=REGISTER),
    )
    network: str = _agent(
        AUTO,
        "auto: atari_ff for images, small_ff for small ones, multi_ff for images beside other "
        "parts, mlp_ff for others",
        brought_or(_names("networks", "NETWORK_NAMES", AUTO)),
    )
    unroll_length: int | Literal["auto", "episode"] = _agent(
        AUTO,
        "steps of an update; auto is 32, 40 for images, 20 for Atari and small ones where each is "
        "learned from once, by a3c or vtrace, 1 for a table, or as tuned (less where the budget is "
        "small); episode: a whole one",
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
        None, "β; null: 0.01, 1e-4 for continuous actions, or as tuned", at_least(0)
    )
    target_entropy: float | Literal["auto"] | None = _agent(
        AUTO,
        "share of a random policy's entropy to come to at the end, in a line from 1, by steering "
        "the entropy cost; null: the cost stays; auto: 0.3 for a3c and vtrace in Atari games whose "
        "cost is not given, with a network that is named; or as tuned",
        between(0, 1),
    )
    entropy_spread: float = _agent(
        1.0, "actors' entropy costs go from cost / spread to cost x spread", at_least(1)
    )
    num_passes: int | None = _agent(
        None,
        "updates from each unroll (ppo, vtrace); null: 2 (ppo), 1 (vtrace), or as tuned",
        between(1, 100),
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
        None,
        "divide by their size in the update; null: for numbers, small_* networks, and Atari games "
        "where a3c or vtrace steers the entropy, or as tuned",
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
        None,
        "null: 0.003, 0.001 for continuous actions, gru and lstm, and images (but not an "
        "actor-critic's with small_*), 0.5 for a table",
        POSITIVE,
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
    momentum: float | None = _optimizer(None, "null: 0 (adam, or a table), 0.99 (sgd)", BELOW_ONE)
    max_grad_norm: float | Literal["auto"] | None = _optimizer(
        AUTO, "gradients are clipped to it; auto: 40, none for a table", POSITIVE
    )

    # Every actor is a thread of Python.
    num_actors: int | None = _actors(
        None,
        "actor-learners; null: one for each core, of all machines with ray_address, but fewer "
        "where the budget is small: they have at most one environment for each 0.15M frames, or "
        "16; or as tuned",
        between(1, 1_000),
    )
    envs_per_actor: int | None = _actors(
        None,
        "environments of each; null: 8, but 32 for 16 actors or more with a core each, and fewer "
        "where the budget is small",
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
        "of a Ray that runs already: auto or host:port; null: one of its own, here",
    )
    num_workers: int | None = _cluster(
        None,
        "processes that the actor-learners are shared out over; null: one for 8 cores, or for each "
        "machine of a Ray that runs already, or more where machines differ in size",
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
        "the budget, but 1,000 at least",
        FRAMES,
    )
    greedy_evaluation: bool | None = _judging(
        None, "the most probable actions, not sampled ones; null: sampled where there are images"
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
        None, "between rows of metrics.csv, at least; null: a 200th of the budget", FRAMES
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
        """Refuse settings that do not go with a cluster."""
        if self.cluster is None:
            return
        address = self.ray_address
        if address not in (None, "auto") and not re.fullmatch(r"[^/\s]+:\d+", address):
            raise ConfigError(f"ray_address must be auto or host:port, got {show(address)}.")
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
