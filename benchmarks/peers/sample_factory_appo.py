"""Sample Factory's APPO with the paper's network: steps a second of training, one line.

Started by compare_peers.py in a virtual environment that holds sample-factory and ale-py. Its own
Atari environments and defaults, but one pass over one batch of --num-envs × --unroll-length steps
for each update, as in A3C, instead of four passes over four batches. Asynchronous, with a worker
for each core and double-buffered sampling, as its documents recommend: on two cores this was
quicker than --serial.
"""

import os
import tempfile
import time

from ale_py.registration import register_v0_v4_envs
from arguments import make_parser
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.train import make_runner
from sf_examples.atari.train_atari import parse_atari_args, register_atari_components

WARMUP_SECONDS = 5.0

# ale_py registers nothing by itself beside the Gymnasium 0.29 that Sample Factory asks for. Its
# processes import this file anew.
register_v0_v4_envs()


class Clock(AlgoObserver):
    """Ends training after so many seconds, the first few after the first update not counted."""

    def __init__(self, seconds):
        self._seconds = seconds
        self._began = self._started = None
        self._first_update = 0
        self.updates_per_second = None

    def on_training_step(self, runner, training_iteration_since_resume):
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        if self._started is None:
            if now - self._began >= WARMUP_SECONDS:
                self._started, self._first_update = now, training_iteration_since_resume
        elif now - self._started >= self._seconds and self.updates_per_second is None:
            num_updates = training_iteration_since_resume - self._first_update
            self.updates_per_second = num_updates / (now - self._started)
            runner.cfg.train_for_env_steps = 0  # reached: ends training


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--serial", action="store_true", help="everything in one process")
    arguments = parser.parse_args()
    num_workers = 1 if arguments.serial else len(os.sched_getaffinity(0))
    num_steps = arguments.num_envs * arguments.unroll_length
    register_atari_components()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "env": "atari_pong",
            "device": "cpu",
            "seed": 0,
            "train_dir": folder,
            "train_for_env_steps": 10**9,
            "encoder_conv_architecture": "convnet_impala",  # conv 16 8×8/4, conv 32 4×4/2
            "serial_mode": arguments.serial,
            "async_rl": not arguments.serial,
            "num_workers": num_workers,
            "num_envs_per_worker": arguments.num_envs // num_workers,
            "worker_num_splits": 1 if arguments.serial else 2,
            "rollout": arguments.unroll_length,
            "batch_size": num_steps,
            "num_batches_per_epoch": 1,
            "num_epochs": 1,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        _, runner = make_runner(parse_atari_args([*options, "--encoder_conv_mlp_layers", "256"]))
        clock = Clock(arguments.seconds)
        runner.register_observer(clock)
        runner.init()
        runner.run()
    if clock.updates_per_second is None:
        raise SystemExit("Training ended before the time was over.")
    print(f"steps_per_second {clock.updates_per_second * num_steps:.1f}")


if __name__ == "__main__":
    main()
