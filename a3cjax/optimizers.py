"""The paper's optimizers, Adam, and schedules over frames, as optax transformations.

The learning rate follows the number of emulator frames, not of updates: asynchronous
actors do not know how many updates a budget of frames will hold.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer


class OptimizerConstants(NamedTuple):
    """Floats that optimizers have in common by name; None where an optimizer has no such float."""

    decay: Any
    epsilon: Any
    momentum: Any


DEFAULT_CONSTANTS = {
    # Mnih et al. 2016, section 8: 0.99; 0.1 by e-mail, muupan/async-rl wiki.
    "rmsprop": OptimizerConstants(decay=0.99, epsilon=0.1, momentum=None),
    # Stale updates act as momentum, which is enough: docs/decisions.md.
    "adam": OptimizerConstants(decay=0.999, epsilon=1e-5, momentum=0.0),
    "sgd": OptimizerConstants(decay=None, epsilon=None, momentum=0.99),  # our choice
}
OPTIMIZER_NAMES = tuple(DEFAULT_CONSTANTS)


def fill_constants(
    name: str, decay: float | None, epsilon: float | None, momentum: float | None
) -> OptimizerConstants:
    """The constants given, with the optimizer's defaults where None is given."""
    given = OptimizerConstants(decay, epsilon, momentum)
    pairs = zip(given, DEFAULT_CONSTANTS[name], strict=True)
    return OptimizerConstants(*(own if value is None else value for value, own in pairs))


def linear_annealing(learning_rate: float, total_frames: int) -> optax.Schedule:
    """A line from `learning_rate` at frame 0 to 0 at `total_frames`.

    Mnih et al. 2016, section 8, anneal to 0; that this is linear is known by e-mail,
    muupan/async-rl wiki.

    Raises:
      ValueError: unless `total_frames` is > 0 and finite, and `learning_rate` >= 0 and finite.
    """
    _check_learning_rate(learning_rate)
    if not 0 < total_frames < math.inf:
        raise ValueError(f"total_frames must be > 0 and finite, got {total_frames}.")
    # A float, since JAX would not take integers beyond 2³¹.
    return optax.linear_schedule(learning_rate, 0.0, float(total_frames))  # pyright: ignore


def _check_learning_rate(learning_rate: Any) -> None:
    is_known = not isinstance(learning_rate, Tracer)
    if is_known and not 0 <= learning_rate < math.inf:
        raise ValueError(f"learning_rate must be >= 0 and finite, got {learning_rate}.")


def scale_by_frames(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by −schedule(num_frames).

    `update` takes the keyword argument `num_frames`: the emulator frames of all updates before
    this one.
    """

    def update(updates, state, params=None, **extra_args):
        del params
        if "num_frames" not in extra_args:
            raise TypeError("update must be given num_frames=..., which the learning rate follows.")
        num_frames = jnp.asarray(extra_args["num_frames"], jnp.float32)
        scale = -jnp.asarray(schedule(num_frames))
        return jax.tree.map(lambda update: scale.astype(update.dtype) * update, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def make_optimizer(
    name: str,
    *,
    schedule: optax.Schedule,
    decay: float | None = None,
    epsilon: float | None = None,
    momentum: float | None = None,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Build the transformation that turns accumulated gradients into updates.

    Args:
      name: `rmsprop` (g ← αg + (1 − α)Δ², θ ← θ − ηΔ/√(g + ε), Mnih et al. 2016, section 4),
        `adam` (Kingma & Ba 2015) or `sgd` (m ← αm + (1 − α)Δ, θ ← θ − ηm, Mnih et al. 2016,
        section 7; there every thread has its own m, here it is shared by default).
      schedule: learning rate η by number of frames, a finite number >= 0.
      decay: α of RMSProp and β₂ of Adam, in [0, 1). For this and the next two, None means the
        optimizer's default in `DEFAULT_CONSTANTS`; a constant that it does not have is ignored.
      epsilon: > 0 and finite in 32 bits, added inside the root by RMSProp and outside by Adam.
        Choose it relative to the size of the gradient, which is a sum over the unroll.
      momentum: α of SGD and β₁ of Adam, in [0, 1).
      max_grad_norm: > 0; gradients with a larger global norm are scaled down to it. None for no
        limit.

    Returns:
      A transformation whose `update` takes the keyword argument `num_frames`.

    Raises:
      ValueError: if there is no optimizer of that name, or a constant, the norm or the learning
        rate at frame 0 is out of range.
    """
    if name not in DEFAULT_CONSTANTS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZER_NAMES)}, got {name}.")
    limits = jnp.finfo(jnp.float32)
    tiny, largest = float(limits.tiny), float(limits.max)
    constants = fill_constants(name, decay, epsilon, momentum)
    # Beyond these the first update divides zero by zero.
    for label, value in (("decay", constants.decay), ("momentum", constants.momentum)):
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{label} must be in [0, 1), got {value}.")
    # NaN fails both comparisons; anything below the least float would be 0 where it is used.
    if name != "sgd" and not tiny <= constants.epsilon <= largest:
        raise ValueError(f"epsilon must be > 0 and finite in 32 bits, got {constants.epsilon}.")
    if max_grad_norm is not None and not max_grad_norm >= tiny:  # a negative one reverses
        raise ValueError(f"max_grad_norm must be > 0 in 32 bits, got {max_grad_norm}.")
    if not callable(schedule):
        rule = "schedule must be a function of frames, as optax.constant_schedule(0.001)"
        raise ValueError(f"{rule}, got {schedule}.")
    _check_learning_rate(schedule(0.0))

    if name == "rmsprop":
        scaling = optax.scale_by_rms(decay=constants.decay, eps=constants.epsilon, eps_in_sqrt=True)
    elif name == "adam":
        scaling = optax.scale_by_adam(
            b1=constants.momentum, b2=constants.decay, eps=constants.epsilon
        )
    else:
        scaling = optax.ema(constants.momentum, debias=False)
    clip = optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm)
    chain = optax.chain(clip, scaling, scale_by_frames(schedule))
    # Optax's Adam raises a float to an integer power, which strict promotion refuses.
    return chain._replace(update=jax.numpy_dtype_promotion("standard")(chain.update))
