"""Where actor-learners compute.

On a CPU, XLA splits every larger operation over all cores. That suits one program with one
thread; between actor-learners that all keep a core busy it only makes them wait for each
other. Here each gets an XLA client of its own with a single thread.
"""

import functools
import os
from typing import Any

import jax

Device = Any  # jax.Device, which type checkers take for a variable


def actor_devices(num_devices: int) -> list[Device]:
    """The devices to share out among actor-learners.

    Returns:
      So many CPU devices, each of a client with one thread, the same ones at every call;
      the default device alone where the default platform is no CPU, or where this JAX
      has no way to make further clients.
    """
    if jax.default_backend() != "cpu":
        return jax.devices()[:1]
    try:
        return [_single_threaded_cpu(index) for index in range(num_devices)]
    except (ImportError, AttributeError, TypeError):
        # JAX has no public function for this; without it training is right, but slower.
        return jax.devices()[:1]


@functools.cache
def _single_threaded_cpu(index: int) -> Device:
    """The device of the client with this index; a client lives as long as the process."""
    from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

    del index
    before = os.environ.get("PJRT_NPROC")
    os.environ["PJRT_NPROC"] = "1"  # the client reads it once, when it is made
    try:
        client = xla_client.make_cpu_client(asynchronous=False)
    finally:
        if before is None:
            del os.environ["PJRT_NPROC"]
        else:
            os.environ["PJRT_NPROC"] = before
    return client.devices()[0]
