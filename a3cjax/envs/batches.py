"""Batches of environments as TimeSteps: what a batch must do, and Gymnasium's vector interface.

The pitfalls of automatic resets, life losses and time limits end in this file; past it
there are only `discount` and `is_first`.
"""

import functools
import inspect
import json
import threading
from collections.abc import Iterator
from typing import Any

import gymnasium
import jax
import numpy as np

from a3cjax.envs.actions import ACTION_MASK, make_check, make_clip, sample_actions
from a3cjax.envs.base import Episode
from a3cjax.envs.gymnasium_batch import check_wrappers
from a3cjax.envs.observations import AUTO, plan_reading, read_observations
from a3cjax.envs.spaces import AnswerError as AnswerError
from a3cjax.envs.spaces import check_numbers
from a3cjax.envs.specs import make_spec
from a3cjax.envs.supported import check_layout, doubts
from a3cjax.errors import ConfigError
from a3cjax.system.output import warn
from a3cjax.types import TimeStep, is_experienced

# By words of Python's errors: what they mean where environments live in a thread of their own.
_HINTS = {
    "main thread": "and signals need the main thread",
    "current event loop": "which has no event loop until one is made (asyncio.new_event_loop)",
}


class VectorEnvironments:
    """A batch behind Gymnasium's vector interface: envpool's, a GymnasiumBatch or a VectorBatch.

    All reset automatically one step late: the step that ends an episode returns its
    true last observation; the next one ignores the action and returns the first
    observation of the new episode. `is_first` marks that next step.

    What environments return is checked before it can reach the parameters, and what they
    raise is passed on with a note; both name `env` and the call.
    """

    def __init__(
        self,
        env: str,
        envs: Any,
        *,
        discount: float,
        frames_per_step: int,
        is_atari: bool,
        max_episode_steps: int | None = None,
        image_layout: str = AUTO,
    ):
        """Reset `envs`, which are closed by the caller if this raises.

        Raises:
          ConfigError: if no observation is an image of the layout that is asked for.
        """
        space = envs.single_observation_space
        plan = plan_reading(space, image_layout)
        check_layout(env, space, plan, image_layout)
        self._env = env
        self._envs = envs
        self._discount = discount
        self._read = functools.partial(read_observations, space, plan=plan)
        self._action_space = envs.single_action_space
        self._clip = make_clip(self._action_space)
        self._noting_step = Noting(env, "step()")
        self._episodes: list[Episode] = []
        self._can_be_restored = True
        self._has_pauses = getattr(envs, "has_pauses", False)
        self.num_envs = len(self.reset().is_first)
        self._check = make_check(self._action_space, self.num_envs)
        self.spec = make_spec(
            space,
            self._action_space,
            frames_per_step=frames_per_step,
            is_atari=is_atari,
            max_episode_steps=max_episode_steps,
            warnings=doubts(env, space, image_layout),
            image_layout=image_layout,
        )
        # Steps a second at which to show it to people, if the environment says so.
        self.render_fps: float | None = getattr(envs, "metadata", {}).get("render_fps")

    def reset(self) -> TimeStep:
        """Start every environment anew; running games are dropped."""
        with Noting(self._env, "reset()") as where:
            observations, info = self._envs.reset()
        observation = self._read(observations, where)
        num_envs = len(jax.tree.leaves(observation)[0])
        self._was_done = np.zeros(num_envs, bool)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, int)
        self._action_mask = info.get(ACTION_MASK)
        return TimeStep(
            observation=observation,
            reward=np.zeros(num_envs, np.float32),
            discount=np.full(num_envs, self._discount, np.float32),
            is_first=np.ones(num_envs, bool),
            action_mask=self._action_mask,
            is_idle=np.zeros(num_envs, bool) if self._has_pauses else None,
        )

    def restart(self, indices: np.ndarray) -> None:
        """Start some environments anew and drop their games; the next step goes on from there.

        Does nothing if a vector environment can only start all of them.
        """
        if len(indices) == 0 or not getattr(self._envs, "can_restart", True):
            return
        mask = np.zeros(self.num_envs, bool)
        mask[indices] = True
        with Noting(self._env, "reset()"):
            _, info = self._envs.reset(options={"reset_mask": mask})
        self._action_mask = info.get(ACTION_MASK)
        self._was_done[indices] = False
        self._returns[indices] = 0
        self._lengths[indices] = 0

    def step(self, actions: np.ndarray) -> TimeStep:
        """Take actions as agents choose them; ignore them where an episode just ended.

        Raises:
          ValueError: if they are not as `actions.clip_actions` says; nothing is stepped then.
        """
        actions = self._clip(self._check(actions))
        with self._noting_step as where:
            observations, rewards, terminated, truncated, info = self._envs.step(actions)
        observation = self._read(observations, where, self.num_envs)
        check_numbers("rewards", rewards, (self.num_envs,), where)
        self._action_mask = info.get(ACTION_MASK)
        is_first, is_idle = self._was_done, info.get("is_idle") if self._has_pauses else None
        counted = rewards
        if True in is_first.tolist():
            counted = np.where(is_first, 0.0, rewards)
            terminated, truncated = terminated & ~is_first, truncated & ~is_first
        self._was_done = terminated | truncated
        self._returns += counted
        self._lengths += is_experienced(is_first, is_idle)

        discount = np.full(self.num_envs, self._discount, np.float32)
        if True in self._was_done.tolist():
            discount[terminated] = 0.0
            # In envpool's Atari, `terminated` includes lost lives and info["terminated"] does not.
            counts_lives = self.spec.is_atari and "lives" in info and "terminated" in info
            is_over = (info["terminated"] != 0) & ~is_first if counts_lives else terminated
            self._close_episodes(is_over | truncated)
        if is_idle is not None:
            discount[is_idle] = 1.0
        return TimeStep(
            observation=observation,
            reward=rewards.astype(np.float32),
            discount=discount,
            is_first=is_first,
            action_mask=self._action_mask,
            is_idle=is_idle,
        )

    def _close_episodes(self, is_over: np.ndarray) -> None:
        for i in np.flatnonzero(is_over).tolist():
            self._episodes.append(Episode(i, float(self._returns[i]), int(self._lengths[i])))
            self._returns[i] = self._lengths[i] = 0

    def sample_actions(self, generator: np.random.Generator) -> np.ndarray:
        """A uniformly random action for each environment, among those that it allows."""
        return sample_actions(self._action_space, self.num_envs, generator, self._action_mask)

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call: raw rewards, closed at the real game over."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def get_state(self) -> Any | None:
        """Where all stand, if each is Gymnasium's and has `get_state` and `set_state` itself.

        None if it has them for something else: they take other arguments, or the state is not one
        of plain values, as JSON holds them.
        """
        envs = getattr(self._envs, "envs", ())
        if not self._can_be_restored or not envs or not all(map(_tells_its_state, envs)):
            return None
        with Noting(self._env, "get_state()"):
            states = [env.unwrapped.get_state() for env in envs]
        try:
            if json.loads(json.dumps(states)) != states:
                raise ValueError("what it returns is not the same after JSON")
            for env in envs:
                check_wrappers(env)
        except (TypeError, ValueError) as error:
            self._can_be_restored = False
            warn(f"{self._env} begins new games where a run is resumed: {error}")
            return None
        return {
            "states": states,
            "elapsed_steps": [[limit._elapsed_steps for limit in _time_limits(e)] for e in envs],
            "was_done": self._was_done.tolist(),
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "action_mask": None if self._action_mask is None else self._action_mask.tolist(),
        }

    def set_state(self, state: Any) -> None:
        """Go on from what `get_state` returned, in this process or another."""
        for env, own, elapsed_steps in zip(
            self._envs.envs, state["states"], state["elapsed_steps"], strict=True
        ):
            with Noting(self._env, "set_state()"):
                env.unwrapped.set_state(own)
            for limit, num_steps in zip(_time_limits(env), elapsed_steps, strict=True):
                limit._elapsed_steps = num_steps
        self._was_done = np.array(state["was_done"], bool)
        self._returns = np.array(state["returns"], float)
        self._lengths = np.array(state["lengths"], int)
        if (mask := state.get("action_mask")) is not None:  # older states have none
            self._action_mask = np.array(mask, bool)
        self._envs.resets_next = self._was_done.copy()

    def render(self) -> np.ndarray | None:
        """The first environment as people see it, uint8 `[height, width, 3]`; None if it cannot."""
        if getattr(self._envs, "render_mode", None) != "rgb_array":
            return None
        with Noting(self._env, "render()") as where:
            picture = np.asarray(self._envs.render()[0])
        is_picture = picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
        if picture.dtype != np.uint8 or not is_picture:
            rule = "pictures must be uint8 of shape (height, width, 3), and not empty"
            got = f"{picture.dtype} of shape {picture.shape}"
            raise AnswerError(f"{rule}, got {got} in {where}.")
        return picture

    def close(self) -> None:
        """Free the environments."""
        with Noting(self._env, "close()"):
            self._envs.close()


def _tells_its_state(env: gymnasium.Env) -> bool:
    """Whether it has `get_state()` and `set_state(state)`."""
    own = env.unwrapped
    try:
        inspect.signature(own.get_state).bind()  # pyright: ignore[reportAttributeAccessIssue]
        inspect.signature(own.set_state).bind({})  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _time_limits(env: gymnasium.Env) -> Iterator[Any]:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            yield env
        env = env.env


class Noting:
    """Adds a note to whatever is raised inside: in which call of which environment it was."""

    def __init__(self, env: str, call: str):
        self._where = f"{call} of {env}"

    def __enter__(self) -> str:
        return self._where

    def __exit__(self, _: Any, failure: BaseException | None, __: Any) -> None:
        if failure is None or isinstance(failure, AnswerError | ConfigError):  # say so themselves
            return
        is_main = threading.current_thread() is threading.main_thread()
        # To the run, a mere fault of this environment; generators take a StopIteration for their
        # own end.
        if isinstance(failure, SystemExit | StopIteration) or (
            isinstance(failure, KeyboardInterrupt) and not is_main
        ):
            raise RuntimeError(f"{self._where} ended by {failure!r}") from failure
        hints = [hint for words, hint in _HINTS.items() if words in str(failure)]
        told = f": environments live in a thread of their own, {hints[0]}" if hints else ""
        failure.add_note(f"in {self._where}{told}")
