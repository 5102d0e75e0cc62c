"""A configuration made ready for its environment.

What was left open is filled in, and what does not fit is refused before anything is started.
"""

import dataclasses
import inspect
import math
import os
from typing import Any

import jax

from a3cjax.agents import ALGORITHMS
from a3cjax.config.declaring import show
from a3cjax.config.defaults import REASONS, fill_defaults
from a3cjax.config.reading import PRESETS, read_preset
from a3cjax.config.settings import AUTO, CLUSTER_DEFAULTS, EPISODE, Config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.networks import TABULAR
from a3cjax.optimizers import DEFAULT_CONSTANTS
from a3cjax.torsos import LEAST_PIXELS, torsos_for


def resolve(config: Config, spec: EnvironmentSpec) -> Config:
    """Replace None and `auto` by what they come to for this environment.

    Args:
      config: settings.
      spec: of the training environments.

    Returns:
      A config in which None is left only where it means something.

    Raises:
      ConfigError: if the network cannot read the observations, one update would not fit the
        budget or the memory, or random play would use up the budget.
    """
    config = fill_defaults(config, spec)
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    assert config.warmup_steps is not None
    _check_update_size(config, spec)
    num_envs = config.num_actors * config.envs_per_actor
    warmup_frames = config.warmup_steps * num_envs * spec.frames_per_step
    if warmup_frames >= config.total_frames:
        raise ConfigError(
            f"total_frames must be more than the {warmup_frames} of random play "
            f"(warmup_steps={config.warmup_steps} in {num_envs} environments), "
            f"got {config.total_frames}."
        )
    check_agent(config, spec)
    _check_settings_of_clusters(config)
    return config


def check_agent(config: Config, spec: EnvironmentSpec) -> None:
    """Refuse settings of an agent that do not fit its environment, or each other.

    Raises:
      ConfigError: names the setting, what it must be and what it is.
    """
    kind = spec.actions.kind
    if kind != "discrete" and ALGORITHMS[config.algorithm].head == "action_values":
        what = "continuous actions" if spec.is_continuous else "several choices at once"
        raise ConfigError(
            f"algorithm must have a policy for the {what} of {config.env}, got {config.algorithm}."
        )
    _check_settings_of_algorithms(config)
    if config.policy != AUTO and not spec.is_continuous:
        raise ConfigError(
            f"policy must be {AUTO} for {config.env}, whose actions are choices, "
            f"got {config.policy}."
        )
    if config.target_entropy is not None and spec.is_continuous:
        raise ConfigError(
            f"target_entropy must be null for {config.env}, whose actions are numbers, "
            f"got {config.target_entropy}."
        )
    if config.policy == "squashed_gaussian" and not spec.actions.is_bounded:
        raise ConfigError(
            f"policy must be gaussian for {config.env}, as not all its actions have bounds "
            f"(gymnasium.wrappers.RescaleAction gives them some), got {config.policy}."
        )
    if config.network == TABULAR and spec.is_continuous:
        raise ConfigError(f"network must not be {TABULAR} for {config.env}: actions are numbers.")
    if config.network == TABULAR and not spec.is_one_hot:
        raise ConfigError(f"network must not be {TABULAR} for {config.env}: its states are many.")
    torso, fitting = config.network.partition("_")[0], torsos_for(spec.observation)
    is_brought = config.network.startswith(PYTHON_PREFIX)
    if not is_brought and config.network != TABULAR and torso not in fitting:
        names = ", ".join(f"{name}_*" for name in fitting)
        least = LEAST_PIXELS.get(torso) if spec.is_image else None
        hint = f", which takes {least} × {least} pixels or more" if least else ""
        preset = _preset_of(config)
        is_own = preset.get("network") == config.network
        of_preset = f" of preset={preset['preset']}" if is_own else ""
        raise ConfigError(
            f"network must be one of {names} for {config.env} ({spec.reading}), "
            f"got {config.network}{of_preset}{hint}."
        )


def describe_network(config: Config, spec: EnvironmentSpec) -> str:
    """The line that says which network a resolved config has, why, and what it reads."""
    torso = torsos_for(spec.observation)[0]
    is_auto = config.network == f"{torso}_ff"
    why = f", as auto takes for {REASONS[torso]}" if is_auto else ""
    by = ", with convolutions in C++" if config.kernels else ""
    hint = f" (network={TABULAR} is a table of them)" if is_auto and spec.is_one_hot else ""
    return f"network {config.network}{why}; it reads {spec.reading}{hint}{by}"


def describe_idle(given: Config, filled: Config, spec: EnvironmentSpec) -> str:
    """The line that says which settings are given, but without effect in this run; none: "".

    What a preset or the run to resume has is not told of, nor is what would be filled in anyway.
    """
    if given.resume is not None:
        return ""
    idle = _idle(filled, spec)
    names = {name: getattr(Config, name) for those in idle.values() for name in those}
    usual = fill_defaults(given.replace(**names), spec)
    preset = _preset_of(given)
    parts = []
    for reason, those in idle.items():
        told = [n for n in those if getattr(filled, n) != getattr(usual, n) and n not in preset]
        parts += [f"with {reason}: {', '.join(told)}"] if told else []
    return f"without effect {'; '.join(parts)}" if parts else ""


def _idle(config: Config, spec: EnvironmentSpec) -> dict[str, list[str]]:
    """The settings that a resolved config leaves without effect, by what does so.

    Those that are refused are not among them.
    """
    algorithm = ALGORITHMS[config.algorithm]
    settings = [field.name for field in dataclasses.fields(Config)]
    # Keywords of a brought algorithm may be settings that do more than feed the loss; and what it
    # makes of its actor's exploration, nobody knows.
    ours = [a.make for a in ALGORITHMS.values() if a.make.__module__.startswith("a3cjax.")]
    fed = {name for make in ours for name in inspect.signature(make).parameters}
    signature = inspect.signature(algorithm.make)
    fed -= set(signature.parameters)
    if not algorithm.has_target_params:
        fed.add("target_period_frames")
    if algorithm.make in ours:
        is_q = algorithm.head == "action_values"
        fed |= {"entropy_spread"} if is_q else {"exploration_frames", "epsilon_period_frames"}
    # Returns of whole episodes are sums of rewards.
    is_whole = config.unroll_length == EPISODE and "bootstraps" in signature.parameters
    of_episodes = ["lambda_", "double_q", "target_period_frames"] if is_whole else []
    constants = DEFAULT_CONSTANTS[config.optimizer]._asdict()
    return {
        f"algorithm={config.algorithm}": [name for name in settings if name in fed],
        f"unroll_length={EPISODE}": [name for name in of_episodes if name not in fed],
        f"optimizer={config.optimizer}": [n for n, value in constants.items() if value is None],
        f"env={config.env}": [
            *([] if spec.is_continuous else ["variance"]),
            *([] if spec.is_atari else ["protocol"]),
        ],
    }


def _preset_of(config: Config) -> dict[str, Any]:
    """What the preset sets that a config began with: one of which it has more than half.

    Its name is that of `preset`.
    """

    def share(preset: dict[str, Any]) -> float:
        return sum(getattr(config, n) == value for n, value in preset.items()) / len(preset)

    shares = {name: share(preset) for name in PRESETS if (preset := read_preset(name))}
    name = max(shares, key=shares.__getitem__)
    return {"preset": name} | read_preset(name) if shares[name] > 0.5 else {}


def _check_settings_of_algorithms(config: Config) -> None:
    """Refuse settings that the algorithm does not know, which would be left without effect."""
    algorithm = ALGORITHMS[config.algorithm]
    known = set(inspect.signature(algorithm.make).parameters)
    known |= {"dueling"} if algorithm.head == "action_values" else {"target_entropy"}
    names = ("double_q", "dueling", "huber_delta", "num_passes", "clip_ratio", "target_entropy")
    for name in names:
        value, without = getattr(config, name), getattr(Config, name)
        without = None if without == AUTO else without
        if value != without and name not in known:
            raise ConfigError(
                f"{name} must be {show(without)} for algorithm {config.algorithm}, "
                f"which does not know it, got {show(value)}."
            )
    if config.dueling and config.network == TABULAR:
        raise ConfigError(f"dueling must be false for the network {TABULAR}, got true.")


def _check_settings_of_clusters(config: Config) -> None:
    """Refuse settings of a cluster where there is none: they would be left without effect."""
    if config.cluster is not None:
        return
    for name, default in CLUSTER_DEFAULTS.items():
        if (value := getattr(config, name)) != default:
            raise ConfigError(
                f"{name} must be {show(default)} without cluster=ray, got {show(value)}."
            )


def _check_update_size(config: Config, spec: EnvironmentSpec) -> None:
    if config.unroll_length == EPISODE:
        return
    assert isinstance(config.unroll_length, int)
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    num_steps = config.unroll_length * config.envs_per_actor
    if num_steps * spec.frames_per_step > config.total_frames:
        raise ConfigError(
            f"total_frames must be at least the {num_steps * spec.frames_per_step} of one update "
            f"(unroll_length={config.unroll_length} in {config.envs_per_actor} environments), "
            f"got {config.total_frames}."
        )
    parts = jax.tree.leaves(spec.observation)
    bytes_per_step = sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)
    # Each actor holds what it saw in this unroll twice: step by step, and stacked. The gradient
    # needs far more.
    num_bytes = 2 * config.num_actors * num_steps * bytes_per_step
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > memory:
        raise ConfigError(
            f"unroll_length must leave the observations of one update ({num_bytes / 2**30:.0f} "
            f"GiB) in the memory of {memory / 2**30:.0f} GiB, got {config.unroll_length}."
        )
