"""Tianshou's A2C with the paper's network: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds tianshou and envpool. Environments
are envpool's with the settings of Tianshou's own Atari factory. Its trainer does no more than turn
about `Collector.collect` and `A2C.update`; the loop here does the same and keeps the time.
"""

import time

import envpool
import torch
from arguments import make_paper_layers, make_parser
from tianshou.algorithm import A2C
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import RMSpropOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.utils.net.common import ModuleWithVectorOutput
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

WARMUP_SECONDS = 5.0


class PaperNetwork(ModuleWithVectorOutput):
    def __init__(self):
        super().__init__(output_dim=256)
        self.layers = torch.nn.Sequential(*make_paper_layers(torch.nn))

    def forward(self, obs, state=None, info=None):
        frames = torch.as_tensor(obs).to(torch.float32)
        return self.layers(frames / 255), state


def main():
    arguments = make_parser(__doc__).parse_args()
    envs = envpool.make_gymnasium(
        "Pong-v5",
        num_envs=arguments.num_envs,
        seed=0,
        reward_clip=True,
        episodic_life=True,
        stack_num=4,
    )
    trunk = PaperNetwork()
    actor = DiscreteActor(
        preprocess_net=trunk, action_shape=envs.action_space.n, softmax_output=False
    )
    algorithm = A2C(
        policy=DiscreteActorPolicy(actor=actor, action_space=envs.action_space),
        critic=DiscreteCritic(preprocess_net=trunk),
        optim=RMSpropOptimizerFactory(lr=7e-4, eps=1e-5, alpha=0.99),
        max_grad_norm=0.5,
    )
    num_steps = arguments.num_envs * arguments.unroll_length
    collector = Collector(algorithm, envs, VectorReplayBuffer(num_steps, arguments.num_envs))
    collector.reset()

    def train(seconds):
        """Whole updates until so many seconds are over; their steps a second."""
        num_updates, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds or num_updates == 0:
            with policy_within_training_step(algorithm.policy):
                collector.collect(n_step=num_steps)
                algorithm.update(collector.buffer, batch_size=None, repeat=1)
            collector.reset_buffer(keep_statistics=True)
            num_updates += 1
        return num_updates * num_steps / passed

    train(WARMUP_SECONDS)
    print(f"steps_per_second {train(arguments.seconds):.1f}")


if __name__ == "__main__":
    main()
