import concurrent.futures
import os
import re
import threading
import time
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.actors import placement
from a3cjax.actors.placement import (
    Place,
    background_device,
    find_devices,
    place_actors,
    place_run,
    share_out,
)
from a3cjax.errors import ConfigError
from a3cjax.system.machine import cores_of_thread
from tests.cases import for_each

has_affinity = pytest.mark.skipif(not cores_of_thread(), reason="the system binds no threads")


@pytest.fixture
def cores(monkeypatch):
    """Makes placement believe in this number of cores, all of them really core 0's twins."""

    def pretend(count):
        monkeypatch.setattr(placement, "available_cores", lambda: count)
        monkeypatch.setattr(placement, "cores_of_thread", lambda: set(range(count)))
        monkeypatch.setattr(placement, "_single_threaded_cpu", lambda index, cores: index)

    return pretend


def devices(num_actors):
    return [place.device for place in place_actors(num_actors, jax.devices()[0])]


def test_every_actor_can_have_a_device_of_its_own():
    first, second = devices(2)
    assert {first.platform, second.platform} == {"cpu"}
    assert first is not second
    assert len({first.client, second.client, jax.devices()[0].client}) == 3


def test_places_are_the_same_at_every_call():
    assert place_run("auto", 2) == place_run("auto", 2)


def test_computations_follow_their_arguments_and_agree():
    x = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    multiply = jax.jit(jnp.matmul)
    expected = multiply(x, x)
    for device in devices(2):
        product = multiply(jax.device_put(x, device), x)
        assert product.devices() == {device}
        np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)


@for_each(
    ("num_actors", "bindings"), [(3, [0, 1, 2]), (6, [0, 1, 2, 0, 1, 2]), (2, None), (4, None)]
)
def test_actors_are_bound_to_cores_only_if_all_cores_get_as_many(cores, num_actors, bindings):
    cores(3)
    expected = [{core} for core in bindings] if bindings else [None] * num_actors
    assert [place.cores for place in place_actors(num_actors, jax.devices()[0])] == expected


def test_a_share_of_the_cores_is_left_to_the_scheduler(cores, monkeypatch):
    cores(4)
    monkeypatch.setattr(placement, "available_cores", lambda: 2)  # a container's share
    assert [place.cores for place in place_actors(2, jax.devices()[0])] == [None, None]


def test_other_platforms_keep_their_own_device():
    gpu = SimpleNamespace(platform="gpu")
    assert place_actors(2, gpu) == [Place(gpu)] * 2
    assert background_device(gpu) is gpu


def test_many_more_actors_than_cores_share_the_default_device(cores):
    cores(1)
    assert place_actors(3, jax.devices()[0]) == [Place(jax.devices()[0])] * 3
    assert jax.devices()[0] not in devices(2)


def test_without_a_way_to_make_clients_the_default_device_is_used(monkeypatch):
    make = placement._make_client.__wrapped__  # without those that are there already
    monkeypatch.setattr(placement, "_make_client", make)
    monkeypatch.delattr("jax._src.lib.xla_client.make_cpu_client")
    assert place_actors(2, jax.devices()[0]) == [Place(jax.devices()[0])] * 2
    assert background_device(jax.devices()[0]) == jax.devices()[0]


def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "7")
    placement._make_client.__wrapped__(0, None)
    assert os.environ["PJRT_NPROC"] == "7"
    monkeypatch.delenv("PJRT_NPROC")
    placement._make_client.__wrapped__(0, None)
    assert "PJRT_NPROC" not in os.environ


def test_clients_are_made_one_after_another(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "7")
    monkeypatch.setattr(placement, "_make_client", placement._make_client.__wrapped__)
    seen = []

    def make(**_):
        time.sleep(0.01)
        seen.append(os.environ["PJRT_NPROC"])
        return SimpleNamespace(devices=lambda: [None])

    monkeypatch.setattr("jax._src.lib.xla_client.make_cpu_client", make)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(placement._single_threaded_cpu, range(8), [None] * 8))
    assert seen == ["1"] * 8
    assert os.environ["PJRT_NPROC"] == "7"


@has_affinity
def test_threads_started_in_a_place_stay_on_its_cores():
    before, core = cores_of_thread(), min(cores_of_thread())
    seen = []
    with Place(None, frozenset({core})).entered():
        thread = threading.Thread(target=lambda: seen.append(cores_of_thread()))
        thread.start()
        thread.join()
    assert seen == [{core}]
    assert cores_of_thread() == before


@has_affinity
def test_threads_of_a_client_are_bound_to_its_cores():
    core = min(cores_of_thread())

    def threads():
        return set(os.listdir("/proc/self/task"))

    ones = jnp.ones((64, 64))
    jax.block_until_ready(jnp.matmul(ones, ones))  # the default client starts its threads late, too
    before = threads()
    device = placement._make_client.__wrapped__(0, frozenset({core}))
    jax.block_until_ready(jnp.matmul(*[jax.device_put(ones, device)] * 2))
    started = threads() - before
    assert started
    assert all(os.sched_getaffinity(int(thread)) == {core} for thread in started)


def test_who_enters_a_place_computes_there():
    for place in place_actors(2, jax.devices()[0]):
        with place.entered():
            assert jnp.zeros(()).devices() == {place.device}
    assert jnp.zeros(()).devices() == {jax.devices()[0]}


def test_unbound_places_change_nothing():
    before = cores_of_thread()
    with Place(None).entered():
        assert cores_of_thread() == before


def test_what_runs_beside_the_actors_has_a_device_of_its_own():
    device = background_device(jax.devices()[0])
    assert device.platform == "cpu"
    assert device not in devices(2)
    assert background_device(jax.devices()[0]) is device


# Devices that were chosen.


class FakeDevice(NamedTuple):
    platform: str
    id: int


GPUS = GPU_0, GPU_1, GPU_2, GPU_3 = [FakeDevice("gpu", index) for index in range(4)]
CPUS = [CPU_0] = [FakeDevice("cpu", 0)]


@pytest.fixture
def four_gpus(monkeypatch, cores):
    """JAX as on a machine with four GPUs."""
    names = {None: GPUS, "gpu": GPUS, "cuda": GPUS, "cpu": CPUS}

    def local_devices(backend=None):
        if backend not in names:
            raise RuntimeError(f"Unknown backend {backend}")
        return list(names[backend])

    monkeypatch.setattr(jax, "local_devices", local_devices)
    cores(3)


@pytest.mark.usefixtures("four_gpus")
@for_each(
    ("devices", "learner", "actors"),
    [
        ("auto", GPU_0, [GPU_0, GPU_0, GPU_0]),
        ("cuda", GPU_0, [GPU_1, GPU_2, GPU_3]),
        ("gpu:2", GPU_2, [GPU_2, GPU_2, GPU_2]),
        ("cuda:3,cuda:0", GPU_3, [GPU_0, GPU_0, GPU_0]),
        ("cpu:0, cuda:1, cuda:2", CPU_0, [GPU_1, GPU_2, GPU_1]),
        ("cpu:0", CPU_0, [CPU_0, CPU_0, CPU_0]),
        ("cpu", CPU_0, [0, 1, 2]),  # clients of their own
    ],
)
def test_learner_is_on_the_first_device_and_actors_take_turns_on_the_others(
    devices, learner, actors
):
    placed = place_run(devices, 3)
    assert placed.learner == learner
    assert [place.device for place in placed.actors] == actors


@pytest.mark.usefixtures("four_gpus")
def test_threads_share_actors_and_devices_memory_on_cpus_only():
    assert share_out(6, "cpu") == [1] * 6  # two for each core
    assert share_out(7, "cpu") == [3, 2, 2]
    for devices in ("cuda", "cpu:0,cuda:1", "cuda:1,cpu:0"):
        assert share_out(7, devices) == [1] * 7
        assert not place_run(devices, 2).is_one_memory
    assert place_run("cpu:0", 2).is_one_memory


@pytest.mark.usefixtures("four_gpus")
@for_each(
    ("devices", "message"),
    [
        ("cuda:4", "of those that JAX finds here (gpu:0, gpu:1, gpu:2, gpu:3, cpu:0), got cuda:4."),
        ("cuda:0,cpu:1", "gpu:3, cpu:0), got cpu:1."),
        ("tpu", "gpu:3, cpu:0), got tpu."),
        ("abacus:0", "gpu:3, cpu:0), got abacus:0."),
        ("cuda,gpu:1", "name each device once, got cuda,gpu:1."),
    ],
)
def test_devices_that_are_not_there_are_refused(devices, message):
    with pytest.raises(ConfigError, match=f"devices must .*{re.escape(message)}"):
        find_devices(devices)
