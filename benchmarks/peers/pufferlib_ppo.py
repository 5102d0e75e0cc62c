"""PufferLib's PPO with the paper's network: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds pufferlib-core and ale-py. Its own
vectors of environments and trainer, but one pass over one batch of --num-envs × --unroll-length
steps for each update, as in A3C, and Adam, which it takes besides Muon. A worker process for each
core; --batches 2 lets half of the environments step while the other half is acted for.
"""

import os
import tempfile
import time

import ale_py
import gymnasium
import pufferlib.emulation
import pufferlib.vector
import torch
from arguments import make_paper_layers, make_parser
from pufferlib import pufferl

gymnasium.register_envs(ale_py)
WARMUP_SECONDS = 5.0


class PaperNetwork(torch.nn.Module):
    def __init__(self, num_actions):
        super().__init__()
        self.torso = torch.nn.Sequential(*make_paper_layers(torch.nn))
        self.actor, self.critic = torch.nn.Linear(256, num_actions), torch.nn.Linear(256, 1)

    def forward(self, observations, state=None):
        hidden = self.torso(observations.float() / 255)
        return self.actor(hidden), self.critic(hidden)

    forward_eval = forward


def make_game():
    env = gymnasium.make("PongNoFrameskip-v4")
    env = gymnasium.wrappers.AtariPreprocessing(env, terminal_on_life_loss=True)
    return gymnasium.wrappers.FrameStackObservation(env, 4)


def make_env(buf=None, seed=0):
    return pufferlib.emulation.GymnasiumPufferEnv(env_creator=make_game, buf=buf, seed=seed)


def make_settings(num_steps, unroll_length, folder):
    """All that the trainer asks for."""
    return {
        **{
            "env": "Pong",
            "device": "cpu",
            "seed": 0,
            "torch_deterministic": True,
            "precision": "float32",
        },
        **{"cpu_offload": False, "use_rnn": False, "compile": False, "data_dir": folder},
        **{"batch_size": num_steps, "bptt_horizon": unroll_length, "update_epochs": 1},
        **{"minibatch_size": num_steps, "max_minibatch_size": num_steps},
        **{"total_timesteps": 10**9, "checkpoint_interval": 10**9, "anneal_lr": True},
        **{"optimizer": "adam", "learning_rate": 7e-4, "max_grad_norm": 0.5},
        **{"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_eps": 1e-5},
        **{"gamma": 0.99, "gae_lambda": 0.95, "vtrace_rho_clip": 1.0, "vtrace_c_clip": 1.0},
        **{"clip_coef": 0.2, "vf_clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01},
        **{"prio_alpha": 0.0, "prio_beta0": 1.0},
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--serial", action="store_true", help="everything in one process")
    parser.add_argument("--batches", type=int, default=2)
    arguments = parser.parse_args()
    num_steps = arguments.num_envs * arguments.unroll_length
    options = {"backend": pufferlib.vector.Serial}
    if not arguments.serial:
        options = {
            "backend": pufferlib.vector.Multiprocessing,
            "num_workers": len(os.sched_getaffinity(0)),
            "batch_size": arguments.num_envs // arguments.batches,
            "overwork": True,  # it counts cores without their second threads
        }
    envs = pufferlib.vector.make(make_env, num_envs=arguments.num_envs, **options)
    network = PaperNetwork(int(envs.single_action_space.n))
    with tempfile.TemporaryDirectory() as folder:
        settings = make_settings(num_steps, arguments.unroll_length, folder)
        trainer = pufferl.PuffeRL(settings, envs, network)
        trainer.print_dashboard = lambda **_: None

        def train(seconds):
            """Whole updates until so many seconds are over; their steps a second."""
            first, began = trainer.global_step, time.perf_counter()
            while time.perf_counter() - began < seconds or trainer.global_step == first:
                trainer.evaluate()
                trainer.train()
            return (trainer.global_step - first) / (time.perf_counter() - began)

        train(WARMUP_SECONDS)
        rate = train(arguments.seconds)
        trainer.close()
    print(f"\nsteps_per_second {rate:.1f}")


if __name__ == "__main__":
    main()
