"""Environments that cost nothing: what is left of a step's time is the program's own."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

NAME = "python:free_environments:FreeEnvironments"


class FreeEnvironments(VectorEnv):
    """CartPole's spaces; the same arrays at every step, and nothing ever ends."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self._observations = np.full((num_envs, 4), 0.5, np.float32)
        self._rewards, self._nobody = np.ones(num_envs), np.zeros(num_envs, bool)

    def reset(self, *, seed=None, options=None):
        return self._observations, {}

    def step(self, actions):
        return self._observations, self._rewards, self._nobody, self._nobody, {}

    def close(self):
        pass
