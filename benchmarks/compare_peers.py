"""Training speed beside what people would use instead, on the same game and network.

`python benchmarks/compare_peers.py` makes a virtual environment for each peer (some gigabytes),
then times ours and theirs in turn, several rounds: Pong, conv 16 – conv 32 – dense 256, the same
number of environments and steps in an update. One row a figure goes to
benchmarks/results/peers.csv.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from results_table import Results

from a3cjax import provenance
from a3cjax.config import Config
from a3cjax.measuring import Training

FOLDER = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results" / "peers.csv"


class Peer(NamedTuple):
    """What to install, and the script in peers/ that prints `steps_per_second <rate>`."""

    requirements: tuple[str, ...]
    script: str


PEERS = {
    "SB3 A2C": Peer(("stable-baselines3[extra]>=2.9", "ale-py>=0.11"), "sb3_a2c.py"),
}


def prepare(name: str, peer: Peer) -> Path:
    """The Python of this peer's virtual environment, made at the first call."""
    venv = FOLDER / ".venvs" / name.lower().replace(" ", "-")
    python, mark = venv / "bin" / "python", venv / ".installed"
    if not mark.exists():
        print(f"Installing {name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *peer.requirements], check=True)
        mark.touch()
    return python


def time_peer(
    python: Path, script: str, num_envs: int, unroll_length: int, seconds: float
) -> float:
    """Steps a second of one run of a peer's script."""
    command = [
        *(python, FOLDER / script, "--seconds", str(seconds)),
        *("--num-envs", str(num_envs), "--unroll-length", str(unroll_length)),
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.rpartition("steps_per_second ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    arguments = parser.parse_args()

    pythons = {name: prepare(name, peer) for name, peer in PEERS.items()}
    num_actors = provenance.available_cores()
    config = Config(num_actors=num_actors, network="atari_ff", warmup_steps=64)
    num_envs = num_actors * config.envs_per_actor
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    training = Training(config)
    for _ in range(arguments.rounds):
        ours.append(training.run(arguments.seconds)["steps_per_second"])
        for name, peer in PEERS.items():
            rate = time_peer(
                pythons[name], peer.script, num_envs, config.unroll_length, arguments.seconds
            )
            theirs[name].append(rate)
    training.close()

    results = Results(RESULTS)
    results.add("a3cjax", ours, "steps/s")
    for name, rates in theirs.items():
        results.add(name, rates, "steps/s")
        ratios = [a / b for a, b in zip(ours, rates, strict=True)]
        results.add(f"a3cjax / {name}", ratios, "")
    results.write(f"Pong, {num_envs} environments × {config.unroll_length} steps")


if __name__ == "__main__":
    main()
