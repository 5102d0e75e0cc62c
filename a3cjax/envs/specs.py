"""What an agent must know of an environment, found from its spaces alone."""

from collections.abc import Iterable

import gymnasium
from gymnasium.spaces import Discrete

from a3cjax.envs.actions import make_action_spec
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.observations import (
    AUTO,
    describe_reading,
    plan_reading,
    settle_layout,
    structure_of,
)


def make_spec(
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    frames_per_step: int = 1,
    is_atari: bool = False,
    max_episode_steps: int | None = None,
    warnings: Iterable[str] = (),
    image_layout: str = AUTO,
) -> EnvironmentSpec:
    """The spec of environments with these spaces, which `check_spaces` has let pass.

    `image_layout` is taken from the settings.
    """
    plan = plan_reading(observation_space, image_layout)
    return EnvironmentSpec(
        observation=structure_of(observation_space, plan),
        actions=make_action_spec(action_space),
        frames_per_step=frames_per_step,
        is_atari=is_atari,
        is_one_hot=isinstance(observation_space, Discrete),
        warnings=tuple(warnings),
        max_episode_steps=max_episode_steps,
        reading=describe_reading(plan),
        image_layout=settle_layout(observation_space, image_layout),
        observation_space=observation_space,
        action_space=action_space,
    )
