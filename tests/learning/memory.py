"""A task that only memory solves: recall, at the end, the cue shown at the start."""

import gymnasium
import numpy as np

NUM_BLANKS = 3


class RecallCue(gymnasium.Env):
    """Shows one of two cues, then blanks; the last action must name the cue.

    Reward is 1 for the right answer and -1 for the wrong one, so that without memory the
    best mean is 0. Observation: cue 0, cue 1, "answer now".
    """

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Draws a cue and shows it."""
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(2))
        self._step = 0
        observation = np.zeros(3, np.float32)
        observation[self._cue] = 1.0
        return observation, {}

    def step(self, action):
        """Blank steps, then the question; whatever was done before it does not matter."""
        self._step += 1
        observation = np.zeros(3, np.float32)
        if self._step <= NUM_BLANKS:
            observation[2] = float(self._step == NUM_BLANKS)
            return observation, 0.0, False, False, {}
        return observation, 1.0 if action == self._cue else -1.0, True, False, {}


gymnasium.register("RecallCue-v0", entry_point=RecallCue)
