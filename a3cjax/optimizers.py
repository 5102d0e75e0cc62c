"""Optimizers of the paper and schedules over frames, as optax transformations.

The learning rate follows the number of emulator frames, not of updates: asynchronous
actors do not know how many updates a budget of frames will hold.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

OPTIMIZER_NAMES = ("rmsprop", "adam", "sgd")

Schedule = Callable[[Any], Any]
"""Maps the number of frames so far to a learning rate."""


def linear_annealing(learning_rate: float, total_frames: int) -> Schedule:
    """A line from `learning_rate` at frame 0 to 0 at `total_frames` (Mnih et al. 2016, sec. 8)."""
    return optax.linear_schedule(learning_rate, 0.0, total_frames)


def scale_by_frames(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by −schedule(num_frames); `update` takes `num_frames` by name."""

    def update(updates, state, params=None, **extra_args):
        del params
        scale = -schedule(extra_args["num_frames"])
        return jax.tree.map(
            lambda update: jnp.asarray(scale, update.dtype) * update, updates
        ), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def make_optimizer(
    name: str,
    *,
    schedule: Schedule,
    decay: float = 0.99,
    epsilon: float = 0.1,
    momentum: float = 0.9,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Builds the transformation that turns accumulated gradients into updates.

    Args:
      name: `rmsprop` (g ← αg + (1 − α)Δ², θ ← θ − ηΔ/√(g + ε), Mnih et al. 2016, eq. 8),
        `adam` (Kingma & Ba 2015) or `sgd` (with momentum, Mnih et al. 2016, section 4.5).
      schedule: learning rate η by number of frames.
      decay: α of RMSProp and β₂ of Adam.
      epsilon: added inside the root by RMSProp and outside by Adam. To be read against the
        size of the gradient, which sums over the unroll.
      momentum: of SGD, and β₁ of Adam.
      max_grad_norm: gradients with a larger global norm are scaled down to it; None never.

    Returns:
      A transformation whose `update` takes `num_frames` by name.

    Raises:
      ValueError: if there is no optimizer of that name.
    """
    if name == "rmsprop":
        scaling = optax.scale_by_rms(decay=decay, eps=epsilon, eps_in_sqrt=True)
    elif name == "adam":
        scaling = optax.scale_by_adam(b1=momentum, b2=decay, eps=epsilon)
    elif name == "sgd":
        scaling = optax.trace(decay=momentum)
    else:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZER_NAMES)}, got {name}.")
    clipping = (
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm)
    )
    return optax.chain(clipping, scaling, scale_by_frames(schedule))
