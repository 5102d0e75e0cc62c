"""Saliency by perturbation: it lights up where an agent looks, and nowhere else."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax import load
from a3cjax.agents import Agent, make_a3c, make_one_step_q
from a3cjax.convolutions import blocks_to_frames, frames_to_blocks
from a3cjax.distributions import Categorical, DiagonalGaussian, EpsilonGreedy
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.exploration import evaluation_exploration
from a3cjax.networks import make_network
from a3cjax.runs.playing import closing_quietly
from a3cjax.types import VECTOR, Constants, NetworkOutput, ObservationStatistics, TimeStep
from a3cjax.video.saliency import make_saliency, make_spots, perturb, shown_image
from tests.cases import for_each

SIZES = [(84, 84), (12, 12), (64, 96), (20, 8)]


def make_spec(observation):
    return EnvironmentSpec(observation, ActionSpec("discrete", (3,)), 4, is_atari=False)


def image_shape(channels, height, width):
    return jax.ShapeDtypeStruct((height // 4, width // 4, 16 * channels), np.uint8)


def make_image(channels, height, width, seed=0):
    frames = np.random.default_rng(seed).integers(0, 256, (1, channels, height, width), np.uint8)
    return frames, frames_to_blocks(frames)


def make_timestep(observation, num_envs=1, action_mask=None):
    ones = np.ones(num_envs, np.float32)
    return TimeStep(observation, ones, ones, ones.astype(bool), action_mask)


def constants(statistics=None, reward_scale=None):
    return Constants(statistics, None, evaluation_exploration(1), reward_scale)


def unused(*_):
    raise AssertionError("a video neither starts from scratch nor learns")


def looking(numbers_of):
    """An agent whose logits and value are made of a number for each frame `[B, C, H, W]`."""

    def look(params, constants, timestep, core_state):
        frames = blocks_to_frames(timestep.observation).astype(jnp.float32)
        numbers = numbers_of(frames, params, core_state)
        logits = jnp.stack([numbers, jnp.zeros_like(numbers), -numbers], axis=-1)
        return NetworkOutput(Categorical(logits), 3 * numbers), core_state + 1

    return Agent(unused, lambda batch_size: jnp.zeros((batch_size, 1)), look, unused)


def peak_of(grid, height, width):
    """Where the largest number of a grid over an image lies, in pixels."""
    row, column = np.unravel_index(np.argmax(grid), grid.shape)
    return (row + 0.5) * height / len(grid) - 0.5, (column + 0.5) * width / len(grid[0]) - 0.5


# What is shown to the agent.


def test_paper_s_numbers_hold_for_images_of_84_pixels():
    spots = make_spots(84, 84)
    assert (spots.rows, spots.columns) == (17, 17)
    frames = blocks_to_frames(spots.masks.reshape(-1, 21, 21, 16))[:, 0]
    middle = frames[8 * 17 + 8]
    assert middle[41, 41] == pytest.approx(np.exp(-0.5 * (0.5**2 + 0.5**2) / 5**2))
    assert middle[41, 46] / middle[41, 41] == pytest.approx(np.exp(-0.5 * (4.5**2 - 0.5**2) / 5**2))
    ratio = spots.blur_y[40, 43] / spots.blur_y[40, 40]
    assert ratio == pytest.approx(np.exp(-0.5), rel=1e-4)  # σ = 3
    np.testing.assert_allclose(spots.blur_x.sum(axis=1), 1.0, rtol=1e-5)


@for_each("size", SIZES)
def test_spots_lie_evenly_on_images_of_any_size(size):
    spots = make_spots(*size)
    assert 12 <= max(spots.rows, spots.columns) <= 17
    frames = blocks_to_frames(spots.masks.reshape(-1, size[0] // 4, size[1] // 4, 16))[:, 0]
    assert len(frames) == spots.rows * spots.columns
    for index in (0, len(frames) // 2, len(frames) - 1):
        grid = np.arange(len(frames)).reshape(spots.rows, spots.columns) == index
        expected = peak_of(grid, *size)
        np.testing.assert_allclose(peak_of(frames[index], *size), expected, atol=0.51)


def naive_perturbed(frame, mean, place, blur, spot):
    """Equation 1 for one frame `[H, W]`, pixel by pixel."""
    height, width = frame.shape
    y, x = np.mgrid[:height, :width]
    image = frame - mean
    blurred = np.zeros(frame.shape)
    for i, j in np.ndindex(height, width):
        weights = np.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * blur**2))
        blurred[i, j] = (weights * image).sum() / weights.sum()
    mask = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * spot**2))
    return np.clip(np.round(mean + image * (1 - mask) + blurred * mask), 0, 255)


def test_perturbed_images_are_those_of_the_equation():
    frames, blocks = make_image(2, 12, 20)
    mean = np.random.default_rng(1).uniform(0, 255, (1, 2, 12, 20)).astype(np.float32)
    spots = make_spots(12, 20)
    perturbed = np.asarray(perturb(blocks, frames_to_blocks(mean), spots))
    assert perturbed.dtype == np.uint8
    np.testing.assert_array_equal(perturbed[:1], blocks)
    assert (spots.rows, spots.columns) == (10, 17)
    seen = blocks_to_frames(perturbed[1:]).reshape(10, 17, 2, 12, 20)
    for row, column, channel in ((0, 0, 0), (4, 9, 1), (9, 16, 0)):
        place = (row + 0.5) * 12 / 10 - 0.5, (column + 0.5) * 20 / 17 - 0.5
        deviations = max(1.0, 3 * 20 / 84), 5 * 20 / 84
        frame = frames[0, channel], mean[0, channel]
        expected = naive_perturbed(*frame, place, *deviations)
        assert np.abs(seen[row, column, channel] - expected).max() <= 1  # of a rounded half


def test_what_is_as_ever_stays_sharp():
    _, blocks = make_image(4, 84, 84)
    perturbed = np.asarray(perturb(blocks, blocks.astype(np.float32), make_spots(84, 84)))
    np.testing.assert_array_equal(perturbed, np.broadcast_to(blocks, perturbed.shape))


# Where it lights up.


@for_each("size", SIZES)
@for_each("channels", [1, 3, 4])
def test_one_place_lights_up_if_one_place_is_looked_at(size, channels):
    height, width = size
    y, x = height // 4, width - 3
    agent = looking(lambda frames, params, core_state: params * frames[:, 0, y, x])
    _, blocks = make_image(channels, height, width)
    salience = make_saliency(agent, make_spec(image_shape(channels, height, width)))
    saliency = salience(0.125, constants(), make_timestep(blocks), jnp.zeros((1, 1)))
    spots = make_spots(height, width)
    reach = 5 * max(size) / 84 * np.sqrt(2 * np.log(2 * 255))  # where the mask is below ½ of 255
    for grid in map(np.asarray, saliency):
        assert grid.shape == (spots.rows, spots.columns)
        assert np.abs(np.subtract(peak_of(grid, *size), (y, x))).max() <= max(size) / 17
        for row, column in np.argwhere(grid):
            place = (row + 0.5) * height / len(grid), (column + 0.5) * width / len(grid[0])
            assert np.hypot(place[0] - y, place[1] - x) <= reach + 1
    # ½ (Δ² + Δ²) of the logits, ½ (3Δ)² of the value.
    np.testing.assert_allclose(saliency.critic, 4.5 * np.asarray(saliency.actor), rtol=1e-4)


def test_saliency_is_half_the_squared_distance():
    _, blocks = make_image(1, 12, 12)
    agent = looking(lambda frames, params, core_state: frames[:, 0, 5, 7])
    salience = make_saliency(agent, make_spec(image_shape(1, 12, 12)))
    saliency = salience(None, constants(), make_timestep(blocks), jnp.zeros((1, 1)))
    pixels = blocks_to_frames(
        np.asarray(perturb(blocks, np.zeros((1, 3, 3, 16), np.float32), make_spots(12, 12)))
    )[:, 0, 5, 7].astype(float)
    differences = (pixels[1:] - pixels[0]).reshape(12, 12)
    assert np.abs(differences).max() > 3
    np.testing.assert_allclose(saliency.actor, differences**2)
    np.testing.assert_allclose(saliency.critic, 4.5 * differences**2)


def test_constant_wall_is_dark_if_the_network_is_centred():
    frames = np.zeros((1, 1, 84, 84), np.uint8)
    frames[..., :20, :] = 236
    wall = frames_to_blocks(frames)
    frames[..., 50:54, 60:64] = 236
    blocks = frames_to_blocks(frames)
    agent = looking(lambda frames, params, core_state: frames[:, 0, 15:25].mean((1, 2)))
    salience = make_saliency(agent, make_spec(image_shape(1, 84, 84)))
    inputs = make_timestep(blocks), jnp.zeros((1, 1))
    assert np.max(salience(None, constants(), *inputs).critic) > 1
    statistics = ObservationStatistics(jnp.asarray(wall[0], jnp.float32), jnp.float32(9.0))
    assert np.max(salience(None, constants(statistics), *inputs).critic) < 1e-6


def test_memory_before_the_image_is_that_of_all_and_the_first_game_is_shown():
    agent = looking(lambda frames, params, core_state: frames[:, 0, 5, 7] * core_state[:, 0])
    salience = make_saliency(agent, make_spec(image_shape(1, 12, 12)))
    blocks = np.concatenate([make_image(1, 12, 12, seed)[1] for seed in (0, 1)])
    timestep = make_timestep(blocks, num_envs=2)
    one, two, other = (
        salience(None, constants(), timestep, jnp.array([[memory], [rest]]))
        for memory, rest in ((1.0, 5.0), (2.0, 5.0), (1.0, 9.0))
    )
    assert np.max(one.actor) > 0
    jax.tree.map(lambda x, y: np.testing.assert_allclose(y, 4 * x), one, two)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("name", "head"), [("minatar_lstm", "actor_critic"), ("atari_ff", "action_values")]
)
def test_networks_are_asked_as_when_they_act(name, head):
    """The saliency is that of `look` for each perturbed image by itself."""
    network = make_network(name, 3, head)
    agent = make_a3c(network) if head == "actor_critic" else make_one_step_q(network)
    side = 12 if name == "minatar_lstm" else 28
    _, blocks = make_image(2, side, side)
    params = network.init(jax.random.key(0), blocks[None])
    constants_ = constants(reward_scale=np.float32(8))
    core_state = jax.tree.map(lambda x: x + 0.3, network.initial_state(1))
    timestep = make_timestep(blocks)._replace(is_first=np.zeros(1, bool))
    salience = make_saliency(agent, make_spec(image_shape(2, side, side)))
    saliency = jax.tree.map(np.asarray, salience(params, constants_, timestep, core_state))

    perturbed = np.asarray(perturb(blocks, np.zeros(blocks.shape), make_spots(side, side)))
    looked = jax.jit(lambda x: agent.look(params, constants_, x, core_state)[0])
    outputs = [looked(timestep._replace(observation=perturbed[n : n + 1])) for n in (0, 1, 50, 144)]
    numbers = [o.policy[0] for o in outputs]  # logits or action values
    for n, output, its_numbers in zip((1, 50, 144), outputs[1:], numbers[1:], strict=True):
        place = np.unravel_index(n - 1, saliency.actor.shape)
        expected = 0.5 * np.sum(np.square(its_numbers - numbers[0]))
        assert saliency.actor[place] == pytest.approx(expected, rel=1e-2, abs=1e-8)
        expected = 0.5 * np.square(output.values - outputs[0].values)[0]
        assert saliency.critic[place] == pytest.approx(expected, rel=1e-2, abs=1e-8)
    assert saliency.actor.max() > 0


@pytest.mark.parametrize(
    "policy",
    [
        lambda n: EpsilonGreedy(jnp.stack([n, -n], axis=-1), np.float32(0.05)),
        lambda n: DiagonalGaussian(jnp.stack([n, -n], axis=-1), jnp.ones((len(n), 1))),
        lambda n: Categorical(jnp.stack([n, jnp.full_like(n, -jnp.inf), -n], axis=-1)),
    ],
)
def test_every_kind_of_policy_has_a_saliency(policy):
    def look(params, constants, timestep, core_state):
        numbers = blocks_to_frames(timestep.observation).astype(jnp.float32)[:, 0, 5, 7]
        return NetworkOutput(policy(numbers), numbers), core_state

    agent = Agent(unused, lambda batch_size: (), look, unused)
    _, blocks = make_image(1, 12, 12)
    salience = make_saliency(agent, make_spec(image_shape(1, 12, 12)))
    saliency = salience(None, constants(), make_timestep(blocks), ())
    assert np.max(saliency.actor) > 1
    np.testing.assert_allclose(saliency.actor, 2 * saliency.critic)


def test_the_image_among_several_things_that_are_seen_is_blurred():
    spec = make_spec(
        {
            "camera": image_shape(1, 12, 12),
            "map": image_shape(3, 8, 8),
            VECTOR: jax.ShapeDtypeStruct((2,), np.float32),
        }
    )
    assert shown_image(spec) == ("camera", spec.observation["camera"])

    def look(params, constants, timestep, core_state):
        seen = timestep.observation
        chex_shapes = [x.shape[0] for x in jax.tree.leaves(seen)]
        assert set(chex_shapes) == {145}
        numbers = seen["camera"].astype(jnp.float32)[:, 1, 1, 0] * seen[VECTOR][:, 1]
        return NetworkOutput(Categorical(numbers[:, None]), numbers), core_state

    observation = {
        "camera": make_image(1, 12, 12)[1],
        "map": make_image(3, 8, 8)[1],
        VECTOR: np.array([[0.0, 2.0]], np.float32),
    }
    statistics = ObservationStatistics(
        {name: jnp.zeros(x.shape[1:]) for name, x in observation.items()},
        {name: jnp.float32(1.0) for name in observation},
    )
    agent = Agent(unused, lambda batch_size: (), look, unused)
    salience = make_saliency(agent, spec)
    saliency = salience(None, constants(statistics), make_timestep(observation), ())
    assert np.max(saliency.critic) > 1


@for_each(
    "observation",
    [
        jax.ShapeDtypeStruct((3,), np.float32),
        jax.ShapeDtypeStruct((10, 5), np.float32),
        {VECTOR: jax.ShapeDtypeStruct((2,), np.float32)},
    ],
)
def test_agents_that_see_no_image_have_none(observation):
    assert make_saliency(make_a3c(make_network("mlp_ff", 3)), make_spec(observation)) is None


# The agent that comes with a3cjax.


BALL, OWN_PADDLE = (236, 236, 236), (92, 186, 92)
FIELD = slice(34, 194)  # rows of the picture, between the walls


def middle_of(picture, colour):
    """Of what has this colour in the field, as shares of height and width; none, an empty list."""
    places = np.argwhere((picture[FIELD] == colour).all(axis=-1))
    if not len(places):
        return []
    middle = (places.mean(axis=0) + np.array([FIELD.start, 0])) / picture.shape[:2]
    return [middle]


def test_ball_and_paddle_are_what_the_agent_of_pong_looks_at():
    agent = load("pong")
    snapshot = agent.snapshot
    known = Constants(snapshot.statistics, None, evaluation_exploration(1), snapshot.reward_scale)
    is_near, contrasts, balls = [], [], []
    with closing_quietly(agent.make_environments(renders=True)) as environments:
        salience = make_saliency(agent.agent, environments.spec)
        games = agent.play(environments, jax.random.key(0), is_greedy=True, num_games=1)
        for num_steps, step in zip(range(160), games, strict=False):
            picture = environments.render()
            balls.append(middle_of(picture, BALL))
            paddle = middle_of(picture, OWN_PADDLE)
            if num_steps % 5 or not (balls[-1] and paddle):
                continue
            saliency = salience(snapshot.params, known, step.timestep, step.core_state)
            # The network sees four frames: the ball is where it was, too.
            things = np.array([*itertools.chain(*balls[-4:]), *paddle])
            for grid in map(np.asarray, saliency):
                places = np.stack(np.meshgrid(*[(np.arange(17) + 0.5) / 17] * 2, indexing="ij"))
                distances = np.abs(places[:, None] - things.T[:, :, None, None]).max(axis=0)
                distances = distances.min(axis=0)
                is_near.append(distances.flat[np.argmax(grid)] < 10 / 84)
                is_empty = (distances > 20 / 84) & (np.abs(places - 0.5) < 0.3).all(axis=0)
                contrasts.append(grid.max() / grid[is_empty].max())
    assert len(is_near) >= 20
    assert np.mean(is_near) > 0.8
    assert np.median(contrasts) > 30
    assert min(contrasts) > 5
