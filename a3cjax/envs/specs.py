"""What an agent must know of an environment, found from its spaces alone."""

from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.spaces import read_observations


def make_spec(
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    frames_per_step: int = 1,
    is_atari: bool = False,
    max_episode_steps: int | None = None,
    warnings: Iterable[str] = (),
) -> EnvironmentSpec:
    """The spec of environments with these spaces, which `check_spaces` has let pass."""
    observations = read_observations(observation_space, _blank(observation_space), "make_spec")
    is_continuous = isinstance(action_space, Box)
    assert is_continuous or isinstance(action_space, Discrete)
    return EnvironmentSpec(
        observation_shape=observations.shape[1:],
        observation_dtype=observations.dtype,
        num_actions=action_space.shape[0] if is_continuous else int(action_space.n),
        frames_per_step=frames_per_step,
        is_image=observations.dtype == np.uint8 and observations.ndim == 4,
        is_atari=is_atari,
        is_continuous=is_continuous,
        is_one_hot=isinstance(observation_space, Discrete),
        warnings=tuple(warnings),
        max_episode_steps=max_episode_steps,
        observation_space=observation_space,
        action_space=action_space,
    )


def _blank(space: gymnasium.Space) -> Any:
    """A batch of one observation of nothing but zeros, or of the lowest states."""
    if isinstance(space, Dict):
        return {key: _blank(part) for key, part in space.items()}
    if isinstance(space, Tuple):
        return tuple(map(_blank, space))
    lowest = space.start if isinstance(space, Discrete | MultiDiscrete) else 0
    return np.full((1, *(space.shape or ())), lowest, space.dtype)
