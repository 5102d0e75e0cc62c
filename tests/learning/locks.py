"""Several choices at once, of which each has its own right answer, and masks of them."""

import gymnasium
import numpy as np

SIZES = (2, 3, 4, 5)


class Locks(gymnasium.Env):
    """Shows which choice of each number is right; half of those that are wrong are forbidden.

    The reward is the share of numbers that are right; random play earns 0.55 of an episode.
    """

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (sum(SIZES),), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete(SIZES, start=[-1, 0, 5, 1])

    def reset(self, *, seed=None, options=None):
        """Draws the right choices."""
        super().reset(seed=seed)
        self._step = 0
        return self._draw()

    def step(self, action):
        """Four times; forbidden choices end the program."""
        own = action - self.action_space.start
        assert all(mask[choice] for mask, choice in zip(self._masks, own, strict=True))
        reward = float(np.mean(own == self._right)) / 4
        self._step += 1
        observation, info = self._draw()
        return observation, reward, self._step == 4, False, info

    def _draw(self):
        self._right = self.np_random.integers(SIZES)
        shown = [np.eye(n)[right] for n, right in zip(SIZES, self._right, strict=True)]
        self._masks = tuple(
            ((one == 1) | (self.np_random.random(len(one)) < 0.5)).astype(np.int8) for one in shown
        )
        return np.concatenate(shown).astype(np.float32), {"action_mask": self._masks}


gymnasium.register("Locks-v0", entry_point=Locks)
