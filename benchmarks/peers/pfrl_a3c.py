"""PFRL's A3C with the paper's network: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds pfrl, gymnasium and ale-py. As PFRL
recommends, one process with one environment for each core, each with one thread: --num-envs is
taken and not used. PFRL speaks Gym's old interface; `OldInterface` translates.
"""

import os
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"  # as in PFRL's own example; read when torch is imported

import ale_py
import gymnasium
import numpy as np
import torch
from arguments import make_paper_layers, make_parser
from pfrl import experiments
from pfrl.agents import a3c
from pfrl.nn import Branched
from pfrl.optimizers import SharedRMSpropEpsInsideSqrt
from pfrl.policies import SoftmaxCategoricalHead

gymnasium.register_envs(ale_py)
WARMUP_SECONDS = 5.0


class OldInterface:
    """Gym's former `reset` and `step`, rewards clipped to ±1."""

    def __init__(self, env, seed):
        self._env, self._seed = env, seed
        self.action_space = env.action_space

    def reset(self):
        observation, _ = self._env.reset(seed=self._seed)
        self._seed = None
        return observation

    def step(self, action):
        observation, reward, terminated, truncated, info = self._env.step(int(action))
        info["needs_reset"] = truncated
        return observation, float(np.sign(reward)), terminated, info

    def close(self):
        self._env.close()


def make_env(process_idx, test):
    env = gymnasium.make("PongNoFrameskip-v4")
    env = gymnasium.wrappers.AtariPreprocessing(env, terminal_on_life_loss=True)
    return OldInterface(gymnasium.wrappers.FrameStackObservation(env, 4), process_idx)


def scale(frames):
    return np.asarray(frames, dtype=np.float32) / 255


class Clock:
    """Called at every step of every process; the first one keeps the time and ends training."""

    def __init__(self, seconds, stop_event):
        self._seconds, self._stop_event = seconds, stop_event
        self._began = self._started = None
        self._first_steps = 0
        self.rate = torch.multiprocessing.Value("d", 0.0)

    def __call__(self, env, agent, num_steps):
        if agent.process_idx != 0 or self._stop_event.is_set():
            return
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        if self._started is None:
            if now - self._began >= WARMUP_SECONDS:
                self._started, self._first_steps = now, num_steps
        elif now - self._started >= self._seconds:
            self.rate.value = (num_steps - self._first_steps) / (now - self._started)
            self._stop_event.set()


def main():
    arguments = make_parser(__doc__).parse_args()
    env = make_env(0, test=False)
    num_actions = int(env.action_space.n)
    env.close()
    model = torch.nn.Sequential(
        *make_paper_layers(torch.nn),
        Branched(
            torch.nn.Sequential(torch.nn.Linear(256, num_actions), SoftmaxCategoricalHead()),
            torch.nn.Linear(256, 1),
        ),
    )
    optimizer = SharedRMSpropEpsInsideSqrt(model.parameters(), lr=7e-4, eps=0.1, alpha=0.99)
    agent = a3c.A3C(
        model, optimizer, t_max=arguments.unroll_length, gamma=0.99, phi=scale, max_grad_norm=40.0
    )
    num_processes = len(os.sched_getaffinity(0))
    stop_event = torch.multiprocessing.Event()
    clock = Clock(arguments.seconds, stop_event)
    with tempfile.TemporaryDirectory() as folder:
        experiments.train_agent_async(
            outdir=folder,
            processes=num_processes,
            make_env=make_env,
            steps=10**9,
            eval_interval=None,
            agent=agent,
            global_step_hooks=[clock],
            # PFRL's default is the same range in NumPy's integers, which `random.seed` refuses.
            random_seeds=list(range(num_processes)),
            stop_event=stop_event,
        )
    if clock.rate.value == 0.0:
        raise SystemExit("A process ended before the time was over.")
    print(f"steps_per_second {clock.rate.value:.1f}")


if __name__ == "__main__":
    main()
