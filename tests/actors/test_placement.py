import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.actors import placement
from a3cjax.actors.placement import Place, background_device, place_actors
from a3cjax.system.machine import cores_of_thread

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
    return [place.device for place in place_actors(num_actors)]


def test_every_actor_can_have_a_device_of_its_own():
    first, second = devices(2)
    assert {first.platform, second.platform} == {"cpu"}
    assert first is not second
    assert len({first.client, second.client, jax.devices()[0].client}) == 3


def test_places_are_the_same_at_every_call():
    assert place_actors(2) == place_actors(2)


def test_computations_follow_their_arguments_and_agree():
    x = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    multiply = jax.jit(jnp.matmul)
    expected = multiply(x, x)
    for device in devices(2):
        product = multiply(jax.device_put(x, device), x)
        assert product.devices() == {device}
        np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("num_actors", "bindings"), [(3, [0, 1, 2]), (6, [0, 1, 2, 0, 1, 2]), (2, None), (4, None)]
)
def test_actors_are_bound_to_cores_only_if_all_cores_get_as_many(cores, num_actors, bindings):
    cores(3)
    expected = [{core} for core in bindings] if bindings else [None] * num_actors
    assert [place.cores for place in place_actors(num_actors)] == expected


def test_a_share_of_the_cores_is_left_to_the_scheduler(cores, monkeypatch):
    cores(4)
    monkeypatch.setattr(placement, "available_cores", lambda: 2)  # a container's share
    assert [place.cores for place in place_actors(2)] == [None, None]


def test_other_platforms_keep_their_own_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert place_actors(2) == [Place(jax.devices()[0])] * 2


def test_many_more_actors_than_cores_share_the_default_device(cores):
    cores(1)
    assert place_actors(3) == [Place(jax.devices()[0])] * 3
    assert jax.devices()[0] not in devices(2)


def test_without_a_way_to_make_clients_the_default_device_is_used(monkeypatch):
    make = placement._single_threaded_cpu.__wrapped__  # without those that are there already
    monkeypatch.setattr(placement, "_single_threaded_cpu", make)
    monkeypatch.delattr("jax._src.lib.xla_client.make_cpu_client")
    assert place_actors(2) == [Place(jax.devices()[0])] * 2
    assert background_device() == jax.devices()[0]


def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "7")
    placement._single_threaded_cpu.__wrapped__(0, None)
    assert os.environ["PJRT_NPROC"] == "7"
    monkeypatch.delenv("PJRT_NPROC")
    placement._single_threaded_cpu.__wrapped__(0, None)
    assert "PJRT_NPROC" not in os.environ


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

    before = threads()
    device = placement._single_threaded_cpu.__wrapped__(0, frozenset({core}))
    jax.block_until_ready(jnp.matmul(*[jax.device_put(jnp.ones((64, 64)), device)] * 2))
    started = threads() - before
    assert started
    assert all(os.sched_getaffinity(int(thread)) == {core} for thread in started)


def test_unbound_places_change_nothing():
    before = cores_of_thread()
    with Place(None).entered():
        assert cores_of_thread() == before


def test_what_runs_beside_the_actors_has_a_device_of_its_own():
    device = background_device()
    assert device.platform == "cpu"
    assert device not in devices(2)
    assert background_device() is device
