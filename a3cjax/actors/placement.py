"""Where a run computes: its learner, and each actor-learner on a device and a core of its own.

On a CPU, XLA splits every larger operation over all cores. That suits one program with one
thread; between actor-learners that all keep a core busy it only makes them wait for each
other. Here each gets an XLA client of its own with a single thread. That thread, the
actor's own thread and its emulator's take turns, so they share a core; left to the scheduler,
one of them often waits behind another actor's thread while its own core idles.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import jax

from a3cjax.errors import ConfigError
from a3cjax.system.machine import available_cores, cores_of_thread
from a3cjax.types import Device

# Measured on two cores: three actors with a client each gain, sixteen with two clients lose a
# quarter of their speed.
MAX_ACTORS_PER_CORE = 2
AUTO, CPU = "auto", "cpu"
_making = threading.Lock()  # of clients: the environment that they read is that of all threads


class Place(NamedTuple):
    """A device to compute on, and the cores to run on: None leaves them to the scheduler."""

    device: Device
    cores: frozenset[int] | None = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let the calling thread compute here, and run it and threads it starts on these cores."""
        with jax.default_device(self.device), self._bound():
            yield

    @contextlib.contextmanager
    def _bound(self) -> Iterator[None]:
        if self.cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def share_out(num_actors: int, devices: str) -> list[int]:
    """How many actor-learners each thread is to drive: one, or several if there are many.

    On CPUs, if there are more than two for each core, they are shared out over a thread per core.
    """
    cores = available_cores()
    are_cpus = all(device.platform == CPU for device in find_devices(devices))
    if num_actors <= MAX_ACTORS_PER_CORE * cores or not are_cpus:
        return [1] * num_actors
    least, num_larger = divmod(num_actors, cores)
    return [least + (index < num_larger) for index in range(cores)]


class Placement(NamedTuple):
    """Where the shared parameters and the optimizer are, and a place for each actor-learner."""

    learner: Device
    actors: list[Place]

    @property
    def is_one_memory(self) -> bool:
        """Whether all are devices of one CPU, which read each other's arrays in place."""
        devices = [self.learner, *(place.device for place in self.actors)]
        return all(device.platform == CPU for device in devices)


def place_run(devices: str, num_actors: int) -> Placement:
    """Where a run computes; the same places at every call.

    Args:
      devices: as for `find_devices`. The learner gets the first of them, and the others are dealt
        to actor-learners in turn; a single device is shared by all. With `auto` all are on JAX's
        first device; if that is a CPU, and with `cpu`, `place_actors` chooses the actor-learners'
        devices.
      num_actors: the number of actor-learners; devices in excess of it stay idle.

    Raises:
      ConfigError: as `find_devices`.
    """
    learner, *others = find_devices(devices)
    if devices in (AUTO, CPU):
        return Placement(learner, place_actors(num_actors, learner))
    others = others or [learner]
    return Placement(learner, [Place(others[i % len(others)]) for i in range(num_actors)])


def find_devices(names: str) -> list[Device]:
    """The devices of these names: `cuda` for all of a platform, `cuda:1` for one, or several.

    Several names are separated by commas. `auto` is the device that JAX takes by default. Platforms
    have the names that JAX gives them.

    Raises:
      ConfigError: if JAX does not find one of them, or one is named twice.
    """
    if names == AUTO:
        return jax.local_devices()[:1]
    found: list[Device] = []
    for name in names.replace(" ", "").split(","):
        platform, _, index = name.partition(":")
        there = _devices_of(platform)
        named = there[int(index) :][:1] if index else there
        if not named:
            all_there = dict.fromkeys([*jax.local_devices(), *_devices_of(CPU)])
            rule = f"of those that JAX finds here ({', '.join(map(_name_of, all_there))})"
            raise ConfigError(f"devices must be {rule}, got {name}.")
        found += named
    if len(set(found)) < len(found):
        raise ConfigError(f"devices must name each device once, got {names}.")
    return found


def _devices_of(platform: str) -> list[Device]:
    try:
        return jax.local_devices(backend=platform)
    except RuntimeError:  # there is no such platform, or none of its devices
        return []


def _name_of(device: Device) -> str:
    return f"{device.platform}:{_devices_of(device.platform).index(device)}"


def place_actors(num_actors: int, learner: Device) -> list[Place]:
    """A place for each actor-learner beside a learner on this device, the same at every call.

    These are CPU devices, each of a client with one thread, and each bound to a core if that uses
    every core of this process equally. All share the learner's device if there are many more actors
    than cores (copying parameters then costs more than it saves), if it is not a CPU, or if this
    version of JAX has no way to make further clients.
    """
    shared = [Place(learner)] * num_actors
    if learner.platform != CPU or num_actors > MAX_ACTORS_PER_CORE * available_cores():
        return shared
    cores = sorted(cores_of_thread())
    # Fewer actors than cores are not bound: another run may be bound to the very same cores.
    is_even = bool(cores) and num_actors % len(cores) == 0
    bindings = [frozenset({cores[i % len(cores)]}) if is_even else None for i in range(num_actors)]
    devices = list(map(_single_threaded_cpu, range(num_actors), bindings))
    # Without a device for each, training is correct, but slower.
    return shared if None in devices else list(map(Place, devices, bindings))


def background_device(learner: Device) -> Device:
    """A CPU device that no actor-learner uses; the learner's own device if that is not a CPU."""
    device = _single_threaded_cpu(-1, None) if learner.platform == CPU else None
    return device or learner


def _single_threaded_cpu(index: int, cores: frozenset[int] | None) -> Device | None:
    """The device of the client with this index, which lives as long as the process.

    None if it cannot be made: JAX has no public function for this.
    """
    with _making:
        return _make_client(index, cores)


@functools.cache
def _make_client(index: int, cores: frozenset[int] | None) -> Device | None:
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
