"""Saliency by perturbation: an agent looks where blurring what it sees changes what it thinks.

Greydanus et al. 2018, "Visualizing and understanding Atari agents", section 3; its agents, too,
were trained by A3C.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from a3cjax.agents import Agent
from a3cjax.convolutions import BLOCK_SIZE, blocks_to_frames, frames_to_blocks
from a3cjax.distributions import DiagonalGaussian, EpsilonGreedy, SquashedGaussian
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.exploration import evaluation_exploration
from a3cjax.types import VECTOR, Array, Constants, CoreState, Params, TimeStep

# In pixels of an image whose longer side has 84: σ of the blur and of the spot that is blurred
# (Greydanus et al. 2018, equations 1 and 2), and how far the spots lie apart (section 3.1).
PAPER_SIDE = 84.0
BLUR_DEVIATION, SPOT_DEVIATION, SPOT_DISTANCE = 3.0, 5.0, 5.0
MIN_PIXELS = 1.0  # of blur and distance: a board's pieces are one pixel large


class Saliency(NamedTuple):
    """How much policy and value depend on each place of an image.

    float32 `[rows, columns]`, for a grid that is laid over the whole image.
    """

    actor: Array
    critic: Array


class Spots(NamedTuple):
    """Where and how an image is blurred.

    `rows` and `columns` are those of the grid; `masks`, float32 `[rows · columns, height/4,
    width/4, 1, 16]`, are the Gaussians in blocks, 1 in their middle; `blur_y`, `[height, height]`,
    and `blur_x`, `[width, width]`, blur frames when multiplied from the left and the right.
    """

    rows: int
    columns: int
    masks: npt.NDArray[np.float32]
    blur_y: npt.NDArray[np.float32]
    blur_x: npt.NDArray[np.float32]


def make_spots(height: int, width: int) -> Spots:
    """The spots for images of this size in pixels: about 17 along the longer side."""
    scale = max(height, width) / PAPER_SIDE
    distance = max(scale * SPOT_DISTANCE, MIN_PIXELS)
    blur = max(scale * BLUR_DEVIATION, MIN_PIXELS)
    rows, columns = (_middles(n, max(1, round(n / distance))) for n in (height, width))
    bells_y = _bells(height, rows, scale * SPOT_DEVIATION)
    bells_x = _bells(width, columns, scale * SPOT_DEVIATION)
    masks = (bells_y[:, None, :, None] * bells_x[None, :, None, :]).reshape(-1, 1, height, width)
    blocks = frames_to_blocks(masks)[:, :, :, None]
    blurs = (_bells(n, np.arange(n), blur) for n in (height, width))
    blur_y, blur_x = (blur / blur.sum(axis=1, keepdims=True) for blur in blurs)
    return Spots(len(rows), len(columns), blocks, blur_y, blur_x)


def _middles(size: int, number: int) -> np.ndarray:
    """The middles, in pixels, of the equal parts into which a side is cut."""
    return (np.arange(number) + 0.5) * size / number - 0.5


def _bells(size: int, places: np.ndarray, deviation: float) -> npt.NDArray[np.float32]:
    """exp(−½ (x − place)² / σ²) for each place, `[places, size]`."""
    distances = np.arange(size) - places[:, None]
    return np.exp(-0.5 * np.square(distances / deviation)).astype(np.float32)


def perturb(blocks: Array, mean: Array, spots: Spots) -> jax.Array:
    """Φ(I, i, j) = I ⊙ (1 − M(i, j)) + A ⊙ M(i, j), A being I blurred (equation 1 of the paper).

    It is the difference of I from the mean that is blurred: what never changes, such as a wall,
    stays sharp. All channels of an image are blurred at the same spot.

    Args:
      blocks: an image, uint8 `[1, height/4, width/4, C·16]`.
      mean: that of such images, by which the network centres them; float, of the same shape.
      spots: those for images of this size.

    Returns:
      uint8 `[1 + N, ...]`: the image itself, then as it looks with each of N spots blurred.
    """
    image = jnp.asarray(blocks, jnp.float32)
    frames = blocks_to_frames(image - mean)
    blur = frames_to_blocks(spots.blur_y @ frames @ spots.blur_x.T - frames)  # pyright: ignore[reportArgumentType]
    image, blur = (x.reshape(*x.shape[:3], -1, BLOCK_SIZE**2) for x in (image, blur))
    perturbed = jnp.concatenate([image, image + spots.masks * blur])
    perturbed = jnp.clip(jnp.round(perturbed), 0, 255)
    return perturbed.astype(jnp.uint8).reshape(-1, *blocks.shape[1:])


def policy_numbers(policy: Any) -> jax.Array:
    """What a policy is made of, float `[B, ...]`: logits, action values or means."""
    if isinstance(policy, EpsilonGreedy):
        return policy.q_values
    if isinstance(policy, DiagonalGaussian | SquashedGaussian):
        return policy.mean
    return policy.logits


def shown_image(spec: EnvironmentSpec) -> tuple[str | None, jax.ShapeDtypeStruct | None]:
    """The name and the spec of the image that an agent sees; of several images, the first.

    The name is None for an image without one; (None, None) if the agent sees no image.
    """
    key = None
    image = spec.observation
    if isinstance(image, dict):
        key = next((name for name in image if name != VECTOR), None)
        image = image.get(key)
    is_image = image is not None and image.dtype == jnp.uint8
    return (key, image) if is_image else (None, None)


def make_saliency(
    agent: Agent, spec: EnvironmentSpec
) -> Callable[[Params, Constants, TimeStep, CoreState], Saliency] | None:
    """The saliency of an agent's policy and value, as a function of what it sees.

    S_π(i, j) = ½ ‖π_u(I) − π_u(I′(i, j))‖² and S_V(i, j) = ½ (V(I) − V(I′(i, j)))², where I′ is
    `perturb`'s (equations 2 and 3 of the paper). π_u are logits. With Q methods, the values of all
    actions take their place, and the largest that of V; with Gaussian policies, the means do.

    Returns:
      `salience(params, constants, timestep, core_state) -> Saliency` for the first of `[B, ...]`
      timesteps; the core state is the one before it, the same for all perturbed images. None if
      there is no image in what the agent sees.
    """
    key, image = shown_image(spec)
    if image is None:
        return None
    spots = make_spots(*(BLOCK_SIZE * side for side in image.shape[:2]))
    num_seen = 1 + len(spots.masks)

    @jax.jit
    def salience(arrays, params, constants, timestep, core_state):
        timestep, core_state = jax.tree.map(
            lambda x: jnp.broadcast_to(x[:1], (num_seen, *x.shape[1:])), (timestep, core_state)
        )
        seen, statistics = timestep.observation, constants.statistics
        mean = jnp.zeros(image.shape) if statistics is None else _part(statistics.mean, key)
        perturbed = perturb(_part(seen, key)[:1], mean[None], Spots(*spots[:2], *arrays))
        seen = perturbed if key is None else seen | {key: perturbed}
        constants = constants._replace(exploration=evaluation_exploration(num_seen))
        output, _ = agent.look(params, constants, timestep._replace(observation=seen), core_state)
        numbers = policy_numbers(output.policy), output.values
        return Saliency(*(_half_square(x).reshape(spots[:2]) for x in numbers))

    return functools.partial(salience, spots[2:])


def _part(arrays: Any, key: str | None) -> Any:
    """The array of this name, or the only one."""
    return arrays if key is None else arrays[key]


def _half_square(numbers: jax.Array) -> jax.Array:
    """½ ‖x₀ − xₙ‖² of `[1 + N, ...]` numbers, `[N]`; forbidden actions, −inf, count nothing."""
    differences = jnp.where(jnp.isfinite(numbers[:1]), numbers[1:] - numbers[:1], 0.0)
    return 0.5 * jnp.sum(jnp.square(differences).reshape(len(differences), -1), axis=-1)
