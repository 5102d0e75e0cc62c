import os

import jax
import jax.numpy as jnp
import numpy as np

from a3cjax import devices
from a3cjax.devices import actor_devices


def test_every_actor_can_have_a_device_of_its_own():
    first, second = actor_devices(2)
    assert {first.platform, second.platform} == {"cpu"}
    assert first is not second
    assert len({first.client, second.client, jax.devices()[0].client}) == 3


def test_devices_are_made_once():
    assert all(a is b for a, b in zip(actor_devices(1), actor_devices(2), strict=False))


def test_computations_follow_their_arguments_and_agree():
    x = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    multiply = jax.jit(jnp.matmul)
    expected = multiply(x, x)
    for device in actor_devices(2):
        product = multiply(jax.device_put(x, device), x)
        assert product.devices() == {device}
        np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)


def test_other_platforms_keep_their_own_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert actor_devices(2) == jax.devices()[:1] * 2


def test_many_more_actors_than_cores_share_the_default_device(monkeypatch):
    monkeypatch.setattr(devices, "available_cores", lambda: 1)
    assert actor_devices(3) == jax.devices()[:1] * 3
    assert jax.devices()[0] not in actor_devices(2)


def test_without_a_way_to_make_clients_the_default_device_is_used(monkeypatch):
    def refuse(index):
        raise AttributeError("no such function")

    monkeypatch.setattr(devices, "_single_threaded_cpu", refuse)
    assert actor_devices(2) == jax.devices()[:1] * 2


def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "7")
    devices._single_threaded_cpu.__wrapped__(0)
    assert os.environ["PJRT_NPROC"] == "7"
    monkeypatch.delenv("PJRT_NPROC")
    devices._single_threaded_cpu.__wrapped__(0)
    assert "PJRT_NPROC" not in os.environ
