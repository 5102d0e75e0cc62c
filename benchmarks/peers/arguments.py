"""What the scripts of this folder share: their arguments, and the paper's network in PyTorch.

Each runs in a virtual environment of its own, so this imports the standard library alone.
"""

import argparse
from types import ModuleType
from typing import Any


def make_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The arguments that compare_peers.py passes, described by the docstring's first line."""
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--unroll-length", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    return parser


def make_paper_layers(nn: ModuleType) -> list[Any]:
    """Layers of `torch.nn`: conv 16 8×8/4, conv 32 4×4/2, dense 256 (Mnih et al. 2016)."""
    return [
        *(nn.Conv2d(4, 16, 8, stride=4), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2592, 256), nn.ReLU()),
    ]
