"""Training speed beside what people would use instead, on the same game and network.

`python benchmarks/compare_peers.py` makes a virtual environment for each peer (some gigabytes),
then times ours and theirs in turn, in several rounds: Pong, conv 16 – conv 32 – dense 256, the same
number of environments and steps in an update. One row per figure goes to
benchmarks/results/peers.csv. A peer that does not install or run is listed with the reason.

`--env CartPole` compares programs as they come, each with its own defaults, in the same number of
environments; its rows go to benchmarks/results/peers-CartPole.csv.
"""

import argparse
import contextlib
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from results_table import Results

from a3cjax.config.settings import Config
from a3cjax.system import machine
from a3cjax.training.measuring import Training

FOLDER = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results"
OPENCV = "opencv-python-headless"


class Peer(NamedTuple):
    """What to install, and the script in peers/ that prints `steps_per_second <rate>`.

    Without requirements the script runs in our own environment. `options` are its own arguments.
    """

    requirements: tuple[str, ...]
    script: str
    options: tuple[str, ...] = ()


SB3 = ("stable-baselines3[extra]>=2.9", "ale-py>=0.11")
# PufferLib's own package does not install without GitHub; this is the same without its games.
PUFFERLIB = ("pufferlib-core>=3.0.23", "ale-py>=0.11", OPENCV)
PEERS = {
    "Pong": {
        "SB3 A2C": Peer(SB3, "sb3_a2c.py"),
        # PFRL imports packaging without asking for it.
        "PFRL A3C": Peer(
            ("pfrl>=0.4", "gymnasium", "ale-py>=0.11", OPENCV, "packaging"), "pfrl_a3c.py"
        ),
        "Tianshou A2C": Peer(
            ("tianshou>=2.0", "ale-py>=0.11", "envpool>=1.2", OPENCV), "tianshou_a2c.py"
        ),
        "Sample Factory": Peer(
            ("sample-factory>=2.1.1", "ale-py>=0.10", OPENCV), "sample_factory_appo.py"
        ),
        "PufferLib PPO": Peer(PUFFERLIB, "pufferlib_ppo.py", ("--serial",)),
        "PufferLib PPO, processes": Peer(PUFFERLIB, "pufferlib_ppo.py"),
        "plain Flax": Peer((), "plain_flax.py"),
    },
    "CartPole": {
        "SB3 A2C": Peer(SB3, "sb3_cartpole.py", ("--algorithm", "A2C")),
        "SB3 PPO": Peer(SB3, "sb3_cartpole.py", ("--algorithm", "PPO")),
    },
}
# What a3cjax trains with in each game.
NETWORKS = {"Pong": "atari_ff", "CartPole": "mlp_ff"}


class PeerError(Exception):
    """Why a peer cannot be timed, in one line."""


def run_command(command: Sequence[str | Path], timeout: float | None = None) -> str:
    """What a command prints.

    What it has started ends with it, and does not compute beside what is timed next.

    Raises:
      PeerError: if it fails or is stopped after `timeout` seconds; with its last line of errors.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise PeerError(f"stopped after {timeout:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of it is left
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        lines = errors.strip().splitlines()
        reason = lines[-1].strip() if lines else f"exit code {process.returncode}"
        # Folders of this machine have no place in a file of results.
        raise PeerError(re.sub(r"(/[^\s/'\"]+)+/", "", reason))
    return out


def prepare(peer: Peer) -> Path:
    """The Python of a virtual environment, made at the first call; ours if nothing is required.

    Raises:
      PeerError: if the requirements do not install.
    """
    if not peer.requirements:
        return Path(sys.executable)
    main_requirement = re.split(r"[\[<>=]", peer.requirements[0])[0]
    venv = FOLDER / ".venvs" / main_requirement
    python, mark = venv / "bin" / "python", venv / ".installed"
    if not mark.exists():
        print(f"Installing {main_requirement} ...", flush=True)
        run_command([sys.executable, "-m", "venv", venv])
        run_command([python, "-m", "pip", "install", "-qq", *peer.requirements])
        mark.touch()
    return python


def time_peer(python: Path, peer: Peer, num_envs: int, unroll_length: int, seconds: float) -> float:
    """Steps a second of one run of a peer's script.

    Raises:
      PeerError: if it crashes, prints no rate, or takes far longer than it should.
    """
    command = [
        *(python, FOLDER / peer.script, *peer.options, "--seconds", str(seconds)),
        *("--num-envs", str(num_envs), "--unroll-length", str(unroll_length)),
    ]
    output = run_command(command, timeout=10 * seconds + 900)
    found = re.search(r"^steps_per_second (\S+)$", output, re.MULTILINE)
    if found is None:
        raise PeerError(f"{peer.script} printed no rate")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", choices=PEERS, default="Pong")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--results", type=Path, help="CSV file; /dev/null: none")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    peers = PEERS[arguments.env]
    names = arguments.peers or list(peers)
    if unknown := set(names) - set(peers):
        parser.error(f"--peers must be some of {', '.join(peers)}, got {', '.join(unknown)}")

    pythons: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            pythons[name] = prepare(peers[name])
        except PeerError as error:
            reasons[name] = str(error)
    num_actors = machine.available_cores()
    config = Config(
        env=arguments.env,
        num_actors=num_actors,
        network=NETWORKS[arguments.env],
        warmup_steps=64,
    )
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in pythons}
    training = Training(config)
    num_envs = num_actors * training.config.envs_per_actor
    unroll_length = training.config.unroll_length
    for _ in range(arguments.rounds):
        ours.append(training.run(arguments.seconds)["steps_per_second"])
        for name, python in pythons.items():
            if name in reasons:
                continue
            try:
                rate = time_peer(
                    *(python, peers[name], num_envs),
                    *(unroll_length, arguments.seconds),
                )
            except PeerError as error:
                reasons[name] = str(error)
            else:
                theirs[name].append(rate)
    training.close()

    default = "peers.csv" if arguments.env == "Pong" else f"peers-{arguments.env}.csv"
    results = Results(arguments.results or RESULTS / default)
    results.add("a3cjax", ours, "steps/s")
    for name in names:
        if name in reasons:
            results.add(f"{name}: not available: {reasons[name]}", [math.nan], "")
            continue
        results.add(name, theirs[name], "steps/s")
        ratios = [a / b for a, b in zip(ours, theirs[name], strict=True)]
        results.add(f"a3cjax / {name}", ratios, "")
    results.write(f"{arguments.env}, {num_envs} environments × {unroll_length} steps")


if __name__ == "__main__":
    main()
