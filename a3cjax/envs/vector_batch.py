"""Vector environments that people bring: however they reset, they behave as a GymnasiumBatch.

See https://farama.org/Vector-Autoreset-Mode. A batch is stepped as a whole. Where the mode shows
the last observation of one game and the first of the next at the same step, or leaves resets to the
caller, the batch must therefore wait a step, which shows the first observations of the games that
begin, and nothing new of the others. `info["is_idle"]` marks these others.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from a3cjax.envs.actions import ActionMasks
from a3cjax.envs.gymnasium_batch import (
    RESET,
    STEP,
    check_count,
    check_leaves,
    check_space,
    claim,
    nest,
    release,
)
from a3cjax.envs.spaces import AnswerError, describe
from a3cjax.errors import ConfigError, quote

# In SAME_STEP's info: the last observations and infos of games that ended.
FINAL, FINAL_INFO = "final_obs", "final_info"


class VectorBatch:
    """A `gymnasium.vector.VectorEnv` with the interface of a GymnasiumBatch.

    All methods raise what the environments raise, and AnswerError for what they must not return.
    """

    def __init__(self, env: str, envs: VectorEnv, *, is_own: bool):
        """`env` is for messages; `is_own`: whether `close` is to close `envs`.

        Raises:
          ConfigError: if it lacks its spaces, does not say how it resets, or is in use.
        """
        self._env, self._envs, self._is_own = env, envs, is_own
        for name in ("single_observation_space", "single_action_space"):
            check_space(name, envs, envs, env)
        self.single_observation_space: gymnasium.Space = envs.single_observation_space
        self.single_action_space: gymnasium.Space = envs.single_action_space
        self.metadata, self.render_mode = envs.metadata, envs.render_mode
        try:
            self._mode = AutoresetMode(envs.metadata.get("autoreset_mode"))
        except ValueError as error:
            names = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
            got = quote(envs.metadata.get("autoreset_mode"))
            raise ConfigError(
                f'env must say in metadata["autoreset_mode"] how it resets, as one of {names} of '
                f"gymnasium.vector, got {env} with {got}."
            ) from error
        self.has_pauses = self._mode is not AutoresetMode.NEXT_STEP
        claim(envs, env)
        # Others may reset all, whatever the mask says.
        self.can_restart = self._mode is AutoresetMode.DISABLED or isinstance(
            envs.unwrapped, SyncVectorEnv | AsyncVectorEnv
        )
        self._ended = np.zeros(envs.num_envs, bool)
        self._masks = ActionMasks(self.single_action_space, envs.num_envs)
        self._leaves: list[np.ndarray] = []  # what is shown next where nothing new happens

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Start all anew, environment i with `seed + i`; or those of `options["reset_mask"]`."""
        mask = np.ones(len(self._ended), bool) if options is None else options["reset_mask"]
        options = None if options is None else {"reset_mask": mask.copy()}
        where = f"reset() of {self._env}"
        answer = check_count("reset()", self._envs.reset(seed=seed, options=options), RESET, where)
        leaves = self._read(answer[0], where)
        for old, new in zip(self._leaves, leaves, strict=bool(self._leaves)):
            new[~mask] = old[~mask]
        self._leaves, self._ended = leaves, self._ended & ~mask
        self._masks.read_batch(answer[1], where, np.flatnonzero(mask))
        return self._nest(), self._masks.stack()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action for each: observations, rewards, terminated, truncated, and an info.

        The info holds masks of actions (`actions.ActionMasks`), and says who is idle.
        """
        num_envs, ended = len(self._ended), self._ended
        if self.has_pauses and ended.any():
            if self._mode is AutoresetMode.DISABLED:
                self.reset(options={"reset_mask": ended})
            self._ended = nobody = np.zeros(num_envs, bool)
            info = {"is_idle": ~ended, **self._masks.stack()}
            return self._nest(), np.zeros(num_envs), nobody, nobody, info
        where = f"step() of {self._env}"
        answer = check_count("step()", self._envs.step(actions), STEP, where)
        rewards = np.array(answer[1])
        if rewards.dtype.kind not in "fiub":
            raise AnswerError(f"rewards must be numbers, got {describe(answer[1])} in {where}.")
        terminated, truncated = (
            self._check_truths(name, value, where)
            for name, value in zip(STEP[2:4], answer[2:4], strict=True)
        )
        self._leaves, self._ended = self._read(answer[0], where), terminated | truncated
        shown, info, last_info = self._leaves, answer[4], answer[4]
        # There, observations and info already belong to the next game where one ended.
        has_next = self._mode is AutoresetMode.SAME_STEP and bool(self._ended.any())
        if has_next:
            shown = self._put_last(info, where)
            last_info = info.get(FINAL_INFO)
        over = np.flatnonzero(self._ended)
        self._masks.read_batch(info, where, np.flatnonzero(~self._ended))
        self._masks.read_batch(last_info, where, over, self._ended)
        shown_info = self._masks.stack()
        if has_next:  # shown when the pause is over
            self._masks.read_batch(info, where, over)
        if self.has_pauses:
            shown_info["is_idle"] = np.zeros(num_envs, bool)
        return self._nest(shown), rewards, terminated, truncated, shown_info

    def render(self) -> Any:
        """The pictures of all environments."""
        return self._envs.render()

    def close(self) -> None:
        """Close them, unless they are somebody else's."""
        release(self._envs)
        if self._is_own:
            self._envs.close()

    def _put_last(self, info: Any, where: str) -> list[np.ndarray]:
        """The leaves with the last observations of the games that ended."""
        if not isinstance(info, dict) or FINAL not in info:
            rule = f'must hold "{FINAL}" where a game ends (AutoresetMode.SAME_STEP)'
            raise AnswerError(f"info {rule}, got {describe(info)} in {where}.")
        shown, last = [leaf.copy() for leaf in self._leaves], info[FINAL]
        if not (isinstance(last, np.ndarray) and last.dtype == object):  # a batch of them
            final = self._read(last, where)
            for leaf, new in zip(shown, final, strict=True):
                leaf[self._ended] = new[self._ended]
            return shown
        for index in np.flatnonzero(self._ended):
            place = f"{where} (environment {index} of the batch, {FINAL})"
            final = check_leaves(self.single_observation_space, last[index], place)
            for leaf, new in zip(shown, final, strict=True):
                leaf[index] = new
        return shown

    def _read(self, observations: Any, where: str) -> list[np.ndarray]:
        batch = (len(self._ended),)
        return check_leaves(self.single_observation_space, observations, where, batch)

    def _nest(self, leaves: list[np.ndarray] | None = None) -> Any:
        """What is shown, as fresh arrays: its leaves nested as the space is."""
        copies = (leaf.copy() for leaf in leaves or self._leaves)
        return nest(self.single_observation_space, copies)

    def _check_truths(self, name: str, values: Any, where: str) -> np.ndarray:
        array = np.array(values)
        if array.shape != self._ended.shape or not np.isin(array, (0, 1)).all():
            rule = f"True or False for each of {len(self._ended)}"
            raise AnswerError(f"{name} must be {rule}, got {describe(array)} in {where}.")
        return array.astype(bool)
