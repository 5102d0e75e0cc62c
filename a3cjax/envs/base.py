"""What an actor-learner sees of a batch of environments, and what the batch tells of itself."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from a3cjax.types import TimeStep

GYMNASIUM_PREFIX = "gymnasium:"

# Seeds of training environments start at seed · SEEDS_PER_RUN; evaluation uses the upper half.
SEEDS_PER_RUN = 100_000
EVALUATION_SEED_OFFSET = SEEDS_PER_RUN // 2

MAX_EPISODE_STEPS = 27_000
"""A game without a limit of its own is cut after so many steps in an evaluation, half an hour of
an Atari game (Machado et al. 2018), or after those of the run's budget if they are fewer."""


class Episode(NamedTuple):
    """A finished game: where in the batch, the sum of its raw rewards, its agent steps."""

    environment_index: int
    episode_return: float
    episode_length: int


class ActionSpec(NamedTuple):
    """What an agent decides at each step, in plain values for JSON.

    `kind`: `discrete`, one choice, an int32; `multi_discrete`, K choices at once, int32 `[K]`;
    or `continuous`, float32 `[D]`. `sizes`: (A,); or, for each of K choices, among how many; or
    (D,). `is_bounded`: for continuous actions, whether -1 and 1 are the bounds of every number.
    """

    kind: str
    sizes: Sequence[int]
    is_bounded: bool = False

    @property
    def num_outputs(self) -> int | tuple[int, ...]:
        """As `make_network` takes it: A, D, or the size of each of several choices."""
        return tuple(self.sizes) if self.kind == "multi_discrete" else self.sizes[0]


class EnvironmentSpec(NamedTuple):
    """What an agent must know of an environment to be built.

    `observation` is a pytree of `jax.ShapeDtypeStruct`, one for each array of one observation, and
    `reading` tells people what is in it. `image_layout` is the layout by which it is read.
    `is_one_hot`: the states are so few that each has a number, shown as a one-hot vector.
    `warnings`: lines for whoever trains on it. `max_episode_steps`: steps after which games end by
    themselves, None if not known. `observation_space` and `action_space` are Gymnasium's, as the
    environment announces them.
    """

    observation: Any
    actions: ActionSpec
    frames_per_step: int
    is_atari: bool
    is_one_hot: bool = False
    warnings: tuple[str, ...] = ()
    max_episode_steps: int | None = None
    reading: str = ""
    image_layout: str = "auto"
    observation_space: Any = None
    action_space: Any = None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of an observation that is one array."""
        return self.observation.shape

    @property
    def observation_dtype(self) -> np.dtype:
        """The dtype of an observation that is one array."""
        return self.observation.dtype

    @property
    def is_image(self) -> bool:
        """Whether the whole observation is one image, in blocks of 4×4 pixels."""
        return not isinstance(self.observation, dict) and self.observation.dtype == np.uint8

    @property
    def num_actions(self) -> int:
        """A, D, or the sum of the sizes of several choices made at once."""
        return sum(self.actions.sizes)

    @property
    def is_continuous(self) -> bool:
        """Whether actions are floats."""
        return self.actions.kind == "continuous"


class Environments(Protocol):
    """A batch of environments as an actor-learner drives it.

    All methods raise what an environment raises. `reset` and `step` raise AnswerError if one
    returns anything but finite numbers in the shape that it announced.
    """

    num_envs: int
    spec: EnvironmentSpec
    render_fps: float | None

    def reset(self) -> TimeStep:
        """Start every environment anew: `is_first` everywhere, rewards 0."""
        ...

    def restart(self, indices: np.ndarray) -> None:
        """Start the environments of these int indices anew; their next step goes on from there."""

    def step(self, actions: np.ndarray) -> TimeStep:
        """Take actions as agents choose them: see `a3cjax.envs.actions.clip_actions`."""
        ...

    def sample_actions(self, generator: np.random.Generator) -> np.ndarray:
        """A uniformly random action for each environment, among those that it allows."""
        ...

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call."""
        ...

    def get_state(self) -> Any | None:
        """Where all environments stand, in plain values for JSON; None if they cannot tell."""

    def set_state(self, state: Any) -> None:
        """Go on from what `get_state` returned, in this process or another."""

    def render(self) -> np.ndarray | None:
        """The first environment as people see it, uint8 `[height, width, 3]`; None if it cannot."""

    def close(self) -> None:
        """Free the environments."""
