"""What a batch of environments is to an actor-learner, and what it tells of itself."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from a3cjax.types import TimeStep

GYMNASIUM_PREFIX = "gymnasium:"

# Seeds of training environments start at seed · SEEDS_PER_RUN; evaluation uses the upper half.
SEEDS_PER_RUN = 100_000
EVALUATION_SEED_OFFSET = SEEDS_PER_RUN // 2


class Episode(NamedTuple):
    """A finished game: where in the batch, the sum of its raw rewards, its agent steps."""

    environment_index: int
    episode_return: float
    episode_length: int


class EnvironmentSpec(NamedTuple):
    """What an agent must know of an environment to be built.

    `num_actions` is A for discrete actions, D for continuous ones. `is_one_hot`: the states
    are so few that each has a number, shown as a one-hot vector. `warnings`: lines for who is to
    train on it. `max_episode_steps`: after which games end by themselves, None if not known.
    `observation_space` and `action_space` are Gymnasium's, as the environment announces them.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    num_actions: int
    frames_per_step: int
    is_image: bool
    is_atari: bool
    is_continuous: bool = False
    is_one_hot: bool = False
    warnings: tuple[str, ...] = ()
    max_episode_steps: int | None = None
    observation_space: Any = None
    action_space: Any = None


class Environments(Protocol):
    """A batch of environments as an actor-learner drives it.

    All methods raise what an environment raises. `reset` and `step` raise AnswerError if one
    returns something else than finite numbers in the shape that it announced.
    """

    num_envs: int
    spec: EnvironmentSpec
    render_fps: float | None

    def reset(self) -> TimeStep:
        """Starts every environment anew: `is_first` everywhere, rewards 0."""
        ...

    def restart(self, indices: np.ndarray) -> None:
        """Starts the environments of these int indices anew; their next step goes on from there."""

    def step(self, actions: np.ndarray) -> TimeStep:
        """Takes int `[B]` actions, from 0, or float `[B, D]`, which are clipped to their bounds."""
        ...

    def sample_actions(self, generator: np.random.Generator) -> np.ndarray:
        """A uniformly random action for each environment: int32 `[B]` or float32 `[B, D]`."""
        ...

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call."""
        ...

    def get_state(self) -> Any | None:
        """Where all environments stand, in plain values for JSON; None if they cannot tell."""

    def set_state(self, state: Any) -> None:
        """Goes on from what `get_state` returned, in this process or another."""

    def render(self) -> np.ndarray | None:
        """The first environment as people see it, uint8 `[height, width, 3]`; None if it cannot."""

    def close(self) -> None:
        """Frees the environments."""
