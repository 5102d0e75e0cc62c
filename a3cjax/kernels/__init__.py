"""C++ convolutions for CPUs, compiled where they run; without a compiler, JAX's own take over."""

from a3cjax.kernels.building import load_kernels

NETWORKS = ("atari_", "nature_")
"""What the names of networks begin with that have them."""

__all__ = ["NETWORKS", "load_kernels"]
