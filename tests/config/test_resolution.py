import jax
import numpy as np
import pytest

from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.errors import ConfigError
from a3cjax.networks import make_network
from a3cjax.torsos import LEAST_PIXELS
from tests.cases import for_each

ONE_ACTOR = Config(num_actors=1)


def images_of(height, width):
    """What is told of three-coloured images of that size, which come in blocks of 4×4 pixels."""
    shape = (-(-height // 4), -(-width // 4), 48)
    image = jax.ShapeDtypeStruct(shape, np.uint8)
    return EnvironmentSpec(
        image, ActionSpec("discrete", (2,)), 1, is_atari=False, reading="an image"
    )


@pytest.mark.parametrize("torso", ["atari", "nature"])  # minatar takes the smallest there is
def test_least_size_of_an_image_is_that_of_the_convolutions(torso):
    def init(side):
        observations = np.zeros((1, 1, *images_of(side, side).observation_shape), np.uint8)
        jax.eval_shape(make_network(f"{torso}_ff", 2).init, jax.random.key(0), observations)

    init(LEAST_PIXELS[torso])
    with pytest.raises(AssertionError):
        init(LEAST_PIXELS[torso] - 1)


@for_each(
    ("size", "network"),
    [
        ((7, 7), "minatar_ff"),
        ((16, 84), "minatar_ff"),
        ((84, 16), "minatar_ff"),
        ((17, 17), "atari_ff"),
    ],
)
def test_network_of_images_is_one_that_fits(size, network):
    assert resolve(ONE_ACTOR, images_of(*size)).network == network


@pytest.mark.parametrize(
    ("network", "size", "least"), [("atari_lstm", (7, 7), 17), ("nature_ff", (32, 84), 33)]
)
def test_network_that_does_not_fit_is_answered_with_the_least_size(network, size, least):
    config = ONE_ACTOR.replace(network=network, env="Small")
    fitting = r"(atari_\*, )?minatar_\*, mlp_\*, mujoco_\*"
    message = (
        rf"^network must be one of {fitting} for Small \(an image\), "
        f"got {network}, which takes {least} × {least} pixels or more.$"
    )
    with pytest.raises(ConfigError, match=message):
        resolve(config, images_of(*size))
    assert resolve(config, images_of(least, least)).network == network


def test_what_an_environment_warns_of_is_told_once_for_a_run(capsys):
    spec = images_of(84, 84)._replace(warnings=("one thing", "another"))
    resolve(ONE_ACTOR, spec)
    assert capsys.readouterr().err == "warning: one thing\nwarning: another\n"
