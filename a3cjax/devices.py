"""Where actor-learners compute.

On a CPU, XLA splits every larger operation over all cores. That suits one program with one
thread; between actor-learners that all keep a core busy it only makes them wait for each
other. Here each gets an XLA client of its own with a single thread.
"""

import functools
import os
from typing import Any

import jax

from a3cjax.provenance import available_cores

Device = Any  # jax.Device, which type checkers take for a variable

# Measured on two cores: three actors with a client each gain, sixteen with two clients lose a
# quarter of their speed.
MAX_ACTORS_PER_CORE = 2


def actor_devices(num_actors: int) -> list[Device]:
    """A device for each actor-learner.

    Returns:
      CPU devices, each of a client with one thread, the same ones at every call. The
      default device for all where there are many more actors than cores (copying parameters
      then costs more than it saves), where the default platform is no CPU, or where this
      JAX has no way to make further clients.
    """
    shared = jax.devices()[:1] * num_actors
    if jax.default_backend() != "cpu" or num_actors > MAX_ACTORS_PER_CORE * available_cores():
        return shared
    try:
        return [_single_threaded_cpu(index) for index in range(num_actors)]
    except (ImportError, AttributeError, TypeError):
        # JAX has no public function for this; without it training is right, but slower.
        return shared


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
