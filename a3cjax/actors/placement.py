"""Where actor-learners compute: each on a device, and on a core, of its own.

On a CPU, XLA splits every larger operation over all cores. That suits one program with one
thread; between actor-learners that all keep a core busy it only makes them wait for each
other. Here each gets an XLA client of its own with a single thread. That thread, the
actor's own and its emulator's take turns, so they share a core; left to the scheduler, one
often waits behind another actor's while its own core idles.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax

from a3cjax.system.machine import available_cores, cores_of_thread
from a3cjax.types import Device

# Measured on two cores: three actors with a client each gain, sixteen with two clients lose a
# quarter of their speed.
MAX_ACTORS_PER_CORE = 2


class Place(NamedTuple):
    """A device to compute on, and the cores to run on: None leaves them to the scheduler."""

    device: Device
    cores: frozenset[int] | None = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and threads that it starts inside the block, run on these cores."""
        if self.cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def place_actors(num_actors: int) -> list[Place]:
    """A place for each actor-learner, the same ones at every call.

    CPU devices, each of a client with one thread, bound to a core each where that uses every
    core of this process equally. The default device for all where there are many more actors
    than cores (copying parameters then costs more than it saves), where the default platform
    is no CPU, or where this JAX has no way to make further clients.
    """
    shared = [Place(jax.devices()[0])] * num_actors
    if jax.default_backend() != "cpu" or num_actors > MAX_ACTORS_PER_CORE * available_cores():
        return shared
    cores = sorted(cores_of_thread())
    # Fewer actors than cores stay free: another run may be bound to the very same cores.
    is_even = bool(cores) and num_actors % len(cores) == 0
    bindings = [frozenset({cores[i % len(cores)]}) if is_even else None for i in range(num_actors)]
    devices = list(map(_single_threaded_cpu, range(num_actors), bindings))
    # Without a device for each, training is right, but slower.
    return shared if None in devices else list(map(Place, devices, bindings))


def background_device() -> Device:
    """A CPU device that no actor-learner uses; the default one where there can be none."""
    device = _single_threaded_cpu(-1, None) if jax.default_backend() == "cpu" else None
    return device or jax.devices()[0]


@functools.cache
def _single_threaded_cpu(index: int, cores: frozenset[int] | None) -> Device | None:
    """The device of the client with this index, which lives as long as the process.

    None if it cannot be made: JAX has no public function for this.
    """
    del index
    before = os.environ.get("PJRT_NPROC")
    os.environ["PJRT_NPROC"] = "1"  # the client reads it once, when it is made
    try:
        from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

        with Place(None, cores).entered():
            return xla_client.make_cpu_client(asynchronous=False).devices()[0]
    except (ImportError, AttributeError, TypeError):
        return None
    finally:
        del os.environ["PJRT_NPROC"]
        if before is not None:
            os.environ["PJRT_NPROC"] = before
