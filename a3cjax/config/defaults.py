"""The settings that depend on the environment and on each other, where they are left open."""

import functools
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from a3cjax.agents import ALGORITHMS
from a3cjax.config.declaring import show
from a3cjax.config.settings import AUTO, Config
from a3cjax.envs.base import GYMNASIUM_PREFIX, EnvironmentSpec
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.networks import TABULAR, core_of
from a3cjax.optimizers import fill_constants
from a3cjax.system.machine import available_cores
from a3cjax.torsos import LARGE_PIXELS, SMALL, torsos_for

# Steps of random play in each environment; our choice.
WARMUP_STEPS = 512
# ε is final after this many emulator frames (Mnih et al. 2016, section 8), but a budget of a
# few million is not to be spent on random actions alone: a fifth of it at most, our choice.
EXPLORATION_FRAMES = 4_000_000

# Environments of an actor. Python's lock limits how many calls a second one process can make, on
# however many cores: where many actors share it, each call is to bring more steps.
ENVS_PER_ACTOR, ENVS_PER_ACTOR_OF_MANY, MANY_ACTORS = 8, 32, 16
# Each acts by parameters that the others have meanwhile changed. Within a small budget a few of
# them learn, and many do not, on however many cores: docs/decisions.md.
LEAST_ENVS, FRAMES_OF_ENV = 16, 150_000

# The actor-learners of eight cores keep one interpreter busy: docs/distributed.md.
CORES_PER_WORKER = 8

# What was found best on a few cores, for images and for all else: docs/decisions.md.
IMAGES: dict[str, Any] = {
    "optimizer": "adam",
    "unroll_length": 40,
    "max_grad_norm": 40.0,
    "learning_rate": 1e-3,
    "entropy_cost": 0.01,
    "centre_observations": True,
    "normalize_rewards": True,
    "normalize_advantages": False,
    "greedy_evaluation": False,
    "target_entropy": None,
}
VECTORS = IMAGES | {
    "unroll_length": 32,
    "learning_rate": 3e-3,
    "normalize_advantages": True,
    "greedy_evaluation": True,
}
# Adam's own 0.999 remembers a thousand updates, and a game is learned in that many.
ADAM_OF_IMAGES: dict[str, Any] = {"decay": 0.99}  # of an actor-critic; not tried with Q methods
# Where each step is learned from once, updates are few: docs/decisions.md. Tried with two Atari
# games and small images; Q methods, more passes and other images keep the unroll above.
SHORT_UNROLL = 20
# With an entropy cost of 0.01, policies of some games stay nearly random to the end. Beside this
# target, advantages of one size help most games, too. Games that do not bear one of the two are
# excepted by name: docs/decisions.md.
ENTROPY_OF_ATARI = 0.3
# A matrix and plain stochastic gradients: every update is that of Q-learning in its textbook
# form, Q(s, a) <- Q(s, a) + η (y - Q(s, a)), averaged over the environments of the actor.
TABLE = IMAGES | {
    "optimizer": "sgd",
    "unroll_length": 1,
    "max_grad_norm": None,
    "learning_rate": 0.5,
    "momentum": 0.0,
    "centre_observations": False,
    "normalize_rewards": False,
    "greedy_evaluation": True,
}
# As the deviation of a Gaussian becomes small, means that move by as much lose what was learned.
CONTINUOUS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "entropy_cost": 1e-4,  # Mnih et al. 2016, section 9
}
MANY_FRAMES = 1_000_000  # with fewer, eight passes of PPO did better: docs/decisions.md
# Of an actor-critic, which learns from small images as it does from numbers: docs/decisions.md.
SMALL_IMAGES: dict[str, Any] = {"learning_rate": 3e-3, "normalize_advantages": True}

# With the rate of other vectors, recurrent cores stand still in some runs: docs/decisions.md.
RECURRENT: dict[str, Any] = {"learning_rate": 1e-3}

# Defaults that are the same for all environments, unless `tuned/` has something else for one.
USUAL: dict[str, Any] = {"algorithm": "a3c", "discount": 0.99, "lambda_": 0.95}
TUNED = sorted((Path(__file__).parent / "tuned").glob("*.yaml"))
LEAST_UNROLLS = 32  # of each actor in a run; tuned unrolls are cut for it

# What `auto` takes a torso for: see `torsos.torsos_for`.
REASONS = {
    "atari": f"images of {LARGE_PIXELS}×{LARGE_PIXELS} pixels or more",
    SMALL: f"images of less than {LARGE_PIXELS}×{LARGE_PIXELS} pixels",
    "multi": "several images, or some beside numbers",
    "mlp": "numbers",
}


@functools.cache
def read_tuned() -> dict[str, dict[str, Any]]:
    """What the files in `tuned/` say of environments, by name."""
    settings: dict[str, dict[str, Any]] = {}
    for path in TUNED:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            for env in entry.pop("environments"):
                settings[env] = settings.get(env, {}) | entry
    return settings


def tuned_for(config: Config) -> dict[str, Any]:
    """The settings that are tuned for an environment, by name; none if another algorithm is chosen.

    An environment has one name, whatever its version is, in envpool and in Gymnasium itself. What
    a function or another package makes is another environment, even if it has the same name.
    """
    name = re.sub(r"-v\d+$", "", config.env.removeprefix(GYMNASIUM_PREFIX))
    settings = read_tuned().get(name, {})
    is_chosen = config.algorithm not in (AUTO, settings.get("algorithm", config.algorithm))
    return {} if is_chosen else dict(settings)


def describe_tuned(given: Config, filled: Config, spec: EnvironmentSpec) -> str:
    """The line that says which settings of a run are tuned for its environment; none: ""."""
    usual = fill_defaults(given.replace(env="unknown"), spec)
    names = [name for name in tuned_for(given) if getattr(usual, name) != getattr(filled, name)]
    settings = [f"{name}={show(getattr(filled, name))}" for name in names]
    return f"as tuned for {given.env}: {' '.join(settings)}" if settings else ""


def describe_alternative(given: Config, filled: Config, spec: EnvironmentSpec) -> str:
    """The line that names an algorithm which learned more, where nobody chose one; none: ""."""
    is_chosen = given.algorithm != AUTO or filled.algorithm != USUAL["algorithm"]
    if is_chosen or not spec.is_continuous or filled.total_frames >= MANY_FRAMES:
        return ""
    return (
        "with continuous actions and so few frames, algorithm=ppo num_passes=8 learned more than "
        f"{filled.algorithm} in seven of eight tasks"
    )


def fill_ahead(config: Config, cores: int | None = None) -> Config:
    """Fill in what can be known before there are environments.

    That is an actor for each core, as far as the budget allows, and a number of environments that
    suits how many actors work at once; and what is the same for all environments, or tuned for this
    one. `cores`: those of all machines of a cluster; None for this machine's.
    """
    tuned, cores = tuned_for(config), cores or available_cores()
    most = max(LEAST_ENVS, config.total_frames // FRAMES_OF_ENV)  # of all actors
    usual = USUAL | {"num_actors": min(cores, most // ENVS_PER_ACTOR)}
    usual = {name: tuned.get(name, value) for name, value in usual.items()}
    # Workers that somebody asks for are to have something to do: see `fill_cluster`.
    asked_for = (config.num_workers or 1) * config.grads_per_push
    usual["num_actors"] = max(usual["num_actors"], min(cores, asked_for))
    config = _fill(config, usual)
    assert config.num_actors is not None
    is_many = min(config.num_actors, cores) >= MANY_ACTORS
    usual_envs = ENVS_PER_ACTOR_OF_MANY if is_many else ENVS_PER_ACTOR
    usual_envs = max(1, min(usual_envs, most // config.num_actors))
    return _fill(config, {"envs_per_actor": usual_envs})


def share_equally(num_actors: int, num_workers: int) -> list[int]:
    """How many actor-learners each worker has."""
    least, num_larger = divmod(num_actors, num_workers)
    return [least + (index < num_larger) for index in range(num_workers)]


def _fits(sizes: Sequence[int], machines: Sequence[int]) -> bool:
    """Whether workers find a core on one machine for each of their actor-learners."""
    free = list(machines)
    for size in sorted(sizes, reverse=True):
        index = max(range(len(free)), key=free.__getitem__)
        free[index] -= size
        if free[index] < 0:
            return False
    return True


def fill_cluster(config: Config, machines: Sequence[int] | None) -> Config:
    """Fill in the number of workers, and check what depends on it.

    Args:
      config: with its counts filled in.
      machines: the cores of each machine of a Ray that runs already, at least one; None for one on
        this machine alone.

    Raises:
      ConfigError: if a setting does not fit the number of workers, or nothing would be learned.
    """
    num_actors = config.num_actors
    assert num_actors is not None
    num_workers = config.num_workers
    if machines is not None and num_actors > sum(machines):
        raise ConfigError(
            f"num_actors must be <= {sum(machines)}, the cores of the cluster, got {num_actors}."
        )
    if num_workers is None:  # one on each machine, or more where machines differ in size
        usual = max(1, available_cores() // CORES_PER_WORKER) if machines is None else len(machines)
        num_workers = max(1, min(num_actors // config.grads_per_push, usual))
        while machines and not _fits(share_equally(num_actors, num_workers), machines):
            num_workers += 1
    if num_workers > num_actors:
        raise ConfigError(
            f"num_workers must be <= num_actors={num_actors}: each has an actor-learner or more, "
            f"got {num_workers}."
        )
    sizes = share_equally(num_actors, num_workers)
    if machines is not None and not _fits(sizes, machines):
        raise ConfigError(
            f"num_workers must be so many that each surely finds {max(sizes)} cores on a machine, "
            f"for its actor-learners, got {num_workers} with num_actors={num_actors} and machines "
            f"of {', '.join(map(str, machines))} cores."
        )
    fewest = min(sizes)
    if config.grads_per_push > fewest:
        raise ConfigError(
            f"grads_per_push must be <= the {fewest} actor-learners of a worker "
            f"(num_actors={num_actors}, num_workers={num_workers}), got {config.grads_per_push}."
        )
    # Between an actor's snapshot and its push all others push once. The first gradient of a sum
    # waits as long again for the last one.
    num_pushers = -(-num_actors // config.grads_per_push)
    least = num_pushers - 1 if config.grads_per_push == 1 else 2 * num_pushers
    if config.max_staleness is not None and config.max_staleness < least:
        raise ConfigError(
            f"max_staleness must be >= {least}, what {num_pushers} that push one after another "
            f"come to by themselves: all would be dropped, got {config.max_staleness}."
        )
    return config.replace(num_workers=num_workers)


def _fill(config: Config, defaults: dict[str, Any]) -> Config:
    """A config with these defaults where a setting still has the default of Config."""
    chosen = {n: v for n in defaults if (v := getattr(config, n)) != getattr(Config, n)}
    return config.replace(**(defaults | chosen))


def passes_of(algorithm: str) -> int | None:
    """The default of `num_passes`, 1 if it is required; None if an algorithm does not take it."""
    parameter = inspect.signature(ALGORITHMS[algorithm].make).parameters.get("num_passes")
    if parameter is None:
        return None
    return 1 if parameter.default is inspect.Parameter.empty else parameter.default


def fill_defaults(config: Config, spec: EnvironmentSpec) -> Config:
    """Replace None and `auto` by what they come to: see `resolve`."""
    config = fill_ahead(config)
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    num_envs = config.num_actors * config.envs_per_actor
    steps_of_env = config.total_frames // (num_envs * spec.frames_per_step)
    has_images = any(part.dtype == np.uint8 for part in jax.tree.leaves(spec.observation))
    defaults = TABLE if config.network == TABULAR else IMAGES if has_images else VECTORS
    is_actor_critic = ALGORITHMS[config.algorithm].head == "actor_critic"
    num_passes = passes_of(config.algorithm)
    learns_once = is_actor_critic and (config.num_passes or num_passes or 1) == 1
    if has_images and is_actor_critic and config.optimizer in (AUTO, "adam"):
        defaults = ADAM_OF_IMAGES | defaults
    if spec.is_atari:  # whose rewards are clipped
        defaults = defaults | {"normalize_rewards": False}
        if learns_once:
            defaults = defaults | {"unroll_length": SHORT_UNROLL}
            is_known = not config.network.startswith(PYTHON_PREFIX)
            is_open = config.entropy_cost is None and is_known
            target = config.target_entropy
            target = (ENTROPY_OF_ATARI if is_open else None) if target == AUTO else target
            steered = {"target_entropy": target, "normalize_advantages": target is not None}
            defaults = defaults | steered
    network = config.network
    if network == AUTO:
        network = f"{torsos_for(spec.observation)[0]}_ff"
    if is_actor_critic and network.startswith(f"{SMALL}_"):
        defaults = defaults | SMALL_IMAGES
        if learns_once:
            defaults["unroll_length"] = SHORT_UNROLL
    if spec.is_continuous:
        defaults = defaults | CONTINUOUS
    if core_of(config.network) != "ff":
        defaults = defaults | RECURRENT
    # With a fixed number of steps, the share of random play would grow with the number of cores,
    # up to all of a small budget.
    tenth = steps_of_env // 10
    fifth = config.total_frames // 5
    defaults = defaults | {
        "network": network,
        "image_layout": spec.image_layout,
        "num_passes": num_passes,
        "policy": "gaussian" if spec.is_continuous else AUTO,
        "warmup_steps": min(WARMUP_STEPS, max(1, tenth)),
        "exploration_frames": max(1, min(EXPLORATION_FRAMES, fifth)),
        "log_period_frames": max(1, config.total_frames // 200),
    }
    tuned = tuned_for(config)
    if "unroll_length" in tuned:
        # Each actor is to learn often, however small the budget and however many actors.
        most = max(steps_of_env // LEAST_UNROLLS, defaults["unroll_length"])
        tuned = tuned | {"unroll_length": min(tuned["unroll_length"], most)}
    filled = _fill(config, defaults | tuned)
    constants = fill_constants(filled.optimizer, filled.decay, filled.epsilon, filled.momentum)
    return filled.replace(**constants._asdict())
