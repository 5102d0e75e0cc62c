"""A configuration made ready for its environment.

What was left open is filled in, and what does not fit is refused before anything is started.
"""

import math
import os

from a3cjax.agents import ALGORITHMS
from a3cjax.config.defaults import LEAST_PIXELS, fill_defaults, has_pixels
from a3cjax.config.settings import AUTO, EPISODE, Config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.errors import ConfigError
from a3cjax.networks import IMAGE_TORSOS, TABULAR
from a3cjax.system.output import warn


def resolve(config: Config, spec: EnvironmentSpec) -> Config:
    """Replaces None and `auto` by what they come to for this environment.

    Args:
      config: settings, `num_actors` among them.
      spec: of the training environments.

    Returns:
      A config in which only what means something as None is None.

    Raises:
      ConfigError: if the network cannot read the observations, one update would not fit the
        budget or the memory, or random play would use up the budget.
    """
    config = fill_defaults(config, spec)
    assert config.num_actors is not None
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
    kind = spec.actions.kind
    if kind != "discrete" and ALGORITHMS[config.algorithm].head == "action_values":
        what = "continuous actions" if spec.is_continuous else "several choices at once"
        raise ConfigError(
            f"algorithm must have a policy for the {what} of {config.env}, got {config.algorithm}."
        )
    if config.policy != AUTO and not spec.is_continuous:
        raise ConfigError(
            f"policy must be {AUTO} for {config.env}, whose actions are choices, "
            f"got {config.policy}."
        )
    if config.policy == "squashed_gaussian" and not spec.actions.is_bounded:
        raise ConfigError(
            f"policy must be gaussian for {config.env}, as not all its actions have bounds "
            f"(gymnasium.wrappers.RescaleAction gives them some), got {config.policy}."
        )
    if config.network == TABULAR and not spec.is_one_hot:
        raise ConfigError(f"network must not be {TABULAR} for {config.env}: its states are many.")
    if config.network.startswith(IMAGE_TORSOS) and not spec.is_image:
        raise ConfigError(
            f"network must be mlp_* or mujoco_* for {config.env}, got {config.network}."
        )
    torso = config.network.partition("_")[0]
    if torso in IMAGE_TORSOS and not has_pixels(torso, spec):
        least = LEAST_PIXELS[torso]
        raise ConfigError(
            f"network must fit {config.env}, got {config.network}: image must have at least "
            f"{least} × {least} pixels for {torso}_* (network=mlp_ff takes any)."
        )
    for line in spec.warnings:
        warn(line)
    return config


def _check_update_size(config: Config, spec: EnvironmentSpec) -> None:
    if config.unroll_length == EPISODE:
        return
    assert isinstance(config.unroll_length, int)
    num_steps = config.unroll_length * config.envs_per_actor
    if num_steps * spec.frames_per_step > config.total_frames:
        raise ConfigError(
            f"total_frames must be at least the {num_steps * spec.frames_per_step} of one update "
            f"(unroll_length={config.unroll_length} in {config.envs_per_actor} environments), "
            f"got {config.total_frames}."
        )
    assert config.num_actors is not None
    bytes_per_step = math.prod(spec.observation_shape) * spec.observation_dtype.itemsize
    # Each actor holds what it saw in this unroll, and stacked; the gradient needs far more.
    num_bytes = 2 * config.num_actors * num_steps * bytes_per_step
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > memory:
        raise ConfigError(
            f"unroll_length must leave the observations of one update ({num_bytes / 2**30:.0f} "
            f"GiB) in the memory of {memory / 2**30:.0f} GiB, got {config.unroll_length}."
        )
