"""Batches of environments as TimeSteps: what a batch must do, and Gymnasium's vector interface.

The traps of automatic resets, life losses and time limits end in this file; past it
there are only `discount` and `is_first`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from a3cjax.convolutions import frames_to_blocks
from a3cjax.types import TimeStep

# What is larger becomes infinite as a 32-bit float.
MAX_FLOAT = np.finfo(np.float32).max


class Episode(NamedTuple):
    """A finished game: where in the batch, the sum of its raw rewards, its agent steps."""

    environment_index: int
    episode_return: float
    episode_length: int


class EnvironmentSpec(NamedTuple):
    """What an agent must know of an environment to be built."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    num_actions: int
    frames_per_step: int
    is_image: bool
    is_atari: bool


class AnswerError(RuntimeError):
    """An environment returned what nothing can be learned from; the message is one line."""


class Environments(Protocol):
    """A batch of environments as an actor-learner drives it."""

    num_envs: int
    spec: EnvironmentSpec

    def reset(self) -> TimeStep:
        """Starts every environment anew: `is_first` everywhere, rewards 0."""
        ...

    def restart(self, indices: np.ndarray) -> None:
        """Starts the environments of these int indices anew; their next step goes on from there."""
        ...

    def step(self, actions: np.ndarray) -> TimeStep:
        """Takes int `[B]` actions.

        Raises:
          AnswerError: if an environment returns something else than finite numbers in the
            shape that it announced.
          Exception: whatever an environment raises.
        """
        ...

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call."""
        ...

    def get_state(self) -> Any | None:
        """Where all environments stand, in plain values for JSON; None if they cannot tell."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes on from what `get_state` returned, in this process or another."""
        ...

    def close(self) -> None:
        """Frees the environments."""
        ...


class VectorEnvironments:
    """A batch behind Gymnasium's vector interface, envpool's or Gymnasium's own.

    Both reset automatically one step late: the step that ends an episode returns its
    true last observation; the next one ignores the action and returns the first
    observation of the new episode. That next one is what `is_first` marks.

    What environments return is checked before it can reach the parameters, and what they
    raise is passed on with a note; both name `env` and the call.
    """

    def __init__(
        self, env: str, envs: Any, *, discount: float, frames_per_step: int, is_atari: bool
    ):
        self._env = env
        self._envs = envs
        self._discount = discount
        space = envs.single_observation_space
        self._observation_shape: tuple[int, ...] = space.shape
        self._num_observations = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0
        self._was_done: np.ndarray = np.zeros(0, bool)
        self._returns: np.ndarray = np.zeros(0)
        self._lengths: np.ndarray = np.zeros(0, int)
        self._episodes: list[Episode] = []
        timestep = self.reset()
        self.num_envs = len(timestep.is_first)
        self.spec = EnvironmentSpec(
            observation_shape=timestep.observation.shape[1:],
            observation_dtype=timestep.observation.dtype,
            num_actions=int(envs.single_action_space.n),
            frames_per_step=frames_per_step,
            is_image=timestep.observation.dtype == np.uint8 and timestep.observation.ndim == 4,
            is_atari=is_atari,
        )

    def reset(self) -> TimeStep:
        """Starts every environment anew; running games are dropped."""
        with noting(self._env, "reset()"):
            observations, _ = self._envs.reset()
        num_envs = len(observations)
        self._check_observations(observations, (num_envs,), "reset()")
        self._was_done = np.zeros(num_envs, bool)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, int)
        return TimeStep(
            observation=self._convert(observations),
            reward=np.zeros(num_envs, np.float32),
            discount=np.full(num_envs, self._discount, np.float32),
            is_first=np.ones(num_envs, bool),
        )

    def restart(self, indices: np.ndarray) -> None:
        """Starts some environments anew and drops their games; the next step goes on from there."""
        if len(indices) == 0:
            return
        mask = np.zeros(self.num_envs, bool)
        mask[indices] = True
        with noting(self._env, "reset()"):
            self._envs.reset(options={"reset_mask": mask})
        self._was_done[indices] = False
        self._returns[indices] = 0
        self._lengths[indices] = 0

    def step(self, actions: np.ndarray) -> TimeStep:
        """Takes int `[B]` actions; where an episode just ended they are ignored."""
        with noting(self._env, "step()"):
            observations, rewards, terminated, truncated, info = self._envs.step(actions)
        self._check_observations(observations, self._was_done.shape, "step()")
        self._check("rewards", rewards, self._was_done.shape, "step()")
        is_first = self._was_done
        terminated = terminated & ~is_first
        truncated = truncated & ~is_first
        self._was_done = terminated | truncated

        self._returns += np.where(is_first, 0.0, rewards)
        self._lengths += ~is_first
        # In envpool's Atari, `terminated` includes lost lives and info["terminated"] does not.
        is_over = info["terminated"].astype(bool) if self._counts_lives(info) else terminated
        for i in np.flatnonzero((is_over | truncated) & ~is_first):
            self._episodes.append(Episode(int(i), float(self._returns[i]), int(self._lengths[i])))
            self._returns[i] = self._lengths[i] = 0

        return TimeStep(
            observation=self._convert(observations),
            reward=rewards.astype(np.float32),
            discount=np.where(terminated, 0.0, self._discount).astype(np.float32),
            is_first=is_first,
        )

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call: raw rewards, closed at the real game over."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def get_state(self) -> Any | None:
        """Where all stand, if each is Gymnasium's and has `get_state` and `set_state` itself."""
        envs = getattr(self._envs, "envs", ())
        if not envs or not all(hasattr(env.unwrapped, "get_state") for env in envs):
            return None
        with noting(self._env, "get_state()"):
            states = [env.unwrapped.get_state() for env in envs]
        return {
            "states": states,
            "elapsed_steps": [[limit._elapsed_steps for limit in _time_limits(e)] for e in envs],
            "was_done": self._was_done.tolist(),
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
        }

    def set_state(self, state: Any) -> None:
        """Goes on from what `get_state` returned, in this process or another."""
        for env, own, elapsed_steps in zip(
            self._envs.envs, state["states"], state["elapsed_steps"], strict=True
        ):
            with noting(self._env, "set_state()"):
                env.unwrapped.set_state(own)
            for limit, num_steps in zip(_time_limits(env), elapsed_steps, strict=True):
                limit._elapsed_steps = num_steps
        self._was_done = np.array(state["was_done"], bool)
        self._returns = np.array(state["returns"], float)
        self._lengths = np.array(state["lengths"], int)
        self._envs._autoreset_envs = self._was_done.copy()

    def close(self) -> None:
        """Frees the environments."""
        with noting(self._env, "close()"):
            self._envs.close()

    def _check_observations(
        self, observations: np.ndarray, batch_shape: tuple[int, ...], call: str
    ) -> None:
        shape = (*batch_shape, *self._observation_shape)
        self._check("observations", observations, shape, call)
        if self._num_observations:
            largest = self._num_observations - 1
            is_right = (observations >= 0) & (observations <= largest)
            self._check_all("observations", observations, is_right, f"in [0, {largest}]", call)

    def _check(self, name: str, values: np.ndarray, shape: tuple[int, ...], call: str) -> None:
        if values.shape != shape:
            raise AnswerError(
                f"{name} must be of shape {shape}, got {values.shape} in {call} of {self._env}."
            )
        if values.dtype.kind not in "biu":  # bytes and whole numbers are always finite
            # False for NaN, too.
            self._check_all(name, values, np.abs(values) <= MAX_FLOAT, "finite", call)

    def _check_all(
        self, name: str, values: np.ndarray, is_right: np.ndarray, rule: str, call: str
    ) -> None:
        if is_right.all():
            return
        where = tuple(np.argwhere(~is_right)[0])
        raise AnswerError(
            f"{name} must be {rule}, got {values[where]} in {call} of {self._env} "
            f"(environment {where[0]} of the batch)."
        )

    @staticmethod
    def _counts_lives(info: dict[str, Any]) -> bool:
        return "lives" in info and "terminated" in info

    def _convert(self, observations: np.ndarray) -> np.ndarray:
        """A fresh array in the layout that the networks read; the pool may reuse its own."""
        if self._num_observations:
            return np.eye(self._num_observations, dtype=np.float32)[observations.astype(int)]
        if observations.dtype == np.uint8 and observations.ndim == 4:
            if observations.shape[-1] in (1, 3, 4):  # channels last, as Gymnasium has them
                observations = np.moveaxis(observations, -1, 1)
            return frames_to_blocks(observations)
        return np.array(observations, np.float32)


def _time_limits(env: gymnasium.Env) -> Iterator[Any]:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            yield env
        env = env.env


@contextlib.contextmanager
def noting(env: str, call: str) -> Iterator[None]:
    """Adds to what is raised inside which environment raised it, and in which call."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {call} of {env}")
        raise
