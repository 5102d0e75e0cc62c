"""Stable-Baselines3 on CartPole with its own defaults: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds stable-baselines3. Network, steps of
an update (so that --unroll-length is taken and not used) and all else are what SB3 does if told
nothing. PPO learns for seconds after it has played for seconds, so that whole updates are counted.
"""

import time

from arguments import make_parser
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class Clock(BaseCallback):
    """Ends training when whole updates have taken so many seconds; the first one does not count."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.marks = []  # the time, and steps until then, before each update's play

    def _on_rollout_start(self):
        self.marks.append((time.perf_counter(), self.num_timesteps))

    def _on_step(self):
        return len(self.marks) < 3 or self.marks[-1][0] - self.marks[1][0] < self.seconds

    def rate(self):
        (began, first_steps), (ended, last_steps) = self.marks[1], self.marks[-1]
        return (last_steps - first_steps) / (ended - began)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--algorithm", choices=("A2C", "PPO"), required=True)
    arguments = parser.parse_args()
    algorithm = {"A2C": A2C, "PPO": PPO}[arguments.algorithm]
    envs = make_vec_env("CartPole-v1", n_envs=arguments.num_envs, seed=0)
    clock = Clock(arguments.seconds)
    algorithm("MlpPolicy", envs, device="cpu").learn(10**9, callback=clock)
    print(f"steps_per_second {clock.rate():.1f}")


if __name__ == "__main__":
    main()
