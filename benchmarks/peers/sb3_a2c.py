"""Stable-Baselines3's A2C with the paper's network: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds stable-baselines3 and ale-py.
"""

import time

import ale_py
import gymnasium
import torch
from arguments import make_paper_layers, make_parser
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

gymnasium.register_envs(ale_py)


class PaperNetwork(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=256)
        self.layers = torch.nn.Sequential(*make_paper_layers(torch.nn))

    def forward(self, observations):
        return self.layers(observations)


class Clock(BaseCallback):
    """Stops training after so many seconds, the first `warmup` of them not counted."""

    def __init__(self, warmup, seconds):
        super().__init__()
        self.warmup, self.seconds = warmup, seconds
        self.began = self.started = None
        self.first_steps = 0

    def _on_step(self):
        now = time.perf_counter()
        if self.began is None:
            self.began = now
        if self.started is None and now - self.began >= self.warmup:
            self.started, self.first_steps = now, self.num_timesteps
        return self.started is None or now - self.started < self.seconds

    def rate(self):
        return (self.num_timesteps - self.first_steps) / (time.perf_counter() - self.started)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--processes", action="store_true", help="SubprocVecEnv")
    arguments = parser.parse_args()
    envs = make_atari_env(
        "PongNoFrameskip-v4",
        n_envs=arguments.num_envs,
        seed=0,
        vec_env_cls=SubprocVecEnv if arguments.processes else DummyVecEnv,
    )
    agent = A2C(
        "CnnPolicy",
        VecFrameStack(envs, n_stack=4),
        n_steps=arguments.unroll_length,
        policy_kwargs={"features_extractor_class": PaperNetwork, "net_arch": []},
        device="cpu",
    )
    clock = Clock(5.0, arguments.seconds)
    agent.learn(10**9, callback=clock)
    print(f"steps_per_second {clock.rate():.1f}")


if __name__ == "__main__":
    main()
