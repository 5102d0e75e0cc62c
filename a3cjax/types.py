"""The containers that cross function borders, and what arrays have to be to cross them.

Letters in shapes, here and everywhere: T is the unroll length, B the number of
environments in a batch, A the number of discrete actions, K how many are chosen at once, M the
most that one of them has to choose from, D the number of action dimensions, H the size of a
recurrent core's state.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
"""What pure functions take: JAX's arrays or NumPy's. They return JAX's."""

Params = Any
"""A pytree of trainable arrays."""

Observation = Any
"""A pytree of arrays: one, uint8 (images as 4×4 blocks, see convolutions.py) or float32; or a
dict of several images by their names, and of all other numbers, joined under `VECTOR`."""

VECTOR = "vector"

LayerOutputs = Any
"""What the layers of a network's torso answered to observations, a pytree of `[T, B, ...]` floats;
without any leaf for a network that keeps nothing."""

CoreState = Any
"""A pytree of `[B, ...]` arrays carried from step to step; `()` for feed-forward networks."""


def as_floats(*arrays: Array | float) -> list[jax.Array]:
    """The arrays in one dtype: float64 if one of them is float64, otherwise float32.

    Sums in 16 bits go wrong unseen: 1,000 rewards of 1 discounted by 0.99 come to 64 in bfloat16
    and not to 100. And arrays of one dtype meet under every `jax_numpy_dtype_promotion`. A number
    of Python's follows the arrays: under x64 JAX would make 64 bits of it.
    """
    floats = [jnp.asarray(array) for array in arrays]
    is_double = any(x.dtype == jnp.float64 and not _is_pythons(x) for x in floats)
    return [array.astype(jnp.float64 if is_double else jnp.float32) for array in floats]


def _is_pythons(array: jax.Array) -> bool:
    return array.ndim == 0 and jax.typeof(array).weak_type


def cut(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Zeros for values of weight 0 that are no numbers: 0 · NaN and 0 · inf are NaN."""
    return jnp.where((weights == 0) & ~jnp.isfinite(values), 0.0, values)


# What arrays have to be. Shapes and dtypes are known when a program is traced: nothing of this is
# in the compiled one.


def check_floats(**arrays: Array | float) -> None:
    """Raises an AssertionError that names the array which is not floating point.

    A single whole number may stand for a float.
    """
    for name, array in arrays.items():
        dtype, is_scalar = _dtype_of(name, array), np.ndim(array) == 0
        if not jnp.issubdtype(dtype, jnp.floating) and not (
            is_scalar and jnp.issubdtype(dtype, jnp.integer)
        ):
            raise AssertionError(f"{name} must be floating point, got {dtype}.")


def check_integers(**arrays: Array) -> None:
    """Raises an AssertionError that names the array which does not hold whole numbers."""
    for name, array in arrays.items():
        dtype = _dtype_of(name, array)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise AssertionError(f"{name} must be integers, got {dtype}.")


def _dtype_of(name: str, array: Any) -> Any:
    try:
        return jnp.asarray(array).dtype
    except (TypeError, ValueError) as error:  # None, text, lists of unequal lengths
        raise AssertionError(f"{name} must be an array, got {type(array).__name__}.") from error


def check_shapes(shape: Sequence[int | str], beside: str, **arrays: Array | float) -> None:
    """Raises an AssertionError that names the array whose shape is another.

    Args:
      shape: what it must be; a letter stands for any length.
      beside: the name and shape of what asks for it, as in "rewards (3, 2)".
      **arrays: by the names under which the caller knows them.
    """
    for name, array in arrays.items():
        actual = np.shape(array)
        if len(actual) != len(shape) or any(
            size != length and not isinstance(length, str)
            for size, length in zip(actual, shape, strict=True)
        ):
            wanted = str(tuple(shape)).replace("'", "")
            raise AssertionError(f"{name} has shape {actual}, {beside}: it must be {wanted}.")


def check_unroll(**arrays: Array) -> None:
    """Raises an AssertionError that names the array which has no time axis, or an empty axis."""
    for name, array in arrays.items():
        shape = np.shape(array)
        if not shape or 0 in shape:
            raise AssertionError(
                f"{name} has shape {shape}: it must be [T] or [T, ...], with one step at least."
            )


class TimeStep(NamedTuple):
    """What the environments show before one decision; every array is `[B, ...]`.

    `observation` is one array or a dict of several (`Observation`);
    `reward` and `discount` are float32 `[B]` and belong to the transition that led here:
    the raw reward and γ·(1 − terminated). `is_first` is bool `[B]`. Where it holds, a new
    episode starts at this observation: nothing led to it, so `reward` and `discount` mean
    nothing and the transition into it must not be learned from. `action_mask` is True where an
    action is allowed at this observation, bool `[B, A]`, or `[B, K, M]` of K choices at once;
    None where environments do not tell.

    `is_idle`, bool `[B]`, is None but for vector environments that wait a step whenever one of
    them is reset: where it holds, nothing happened. The observation is that of the timestep
    before, the reward is 0 and the discount 1, and there is nothing to learn.
    """

    observation: Observation
    reward: Array
    discount: Array
    is_first: Array
    action_mask: Array | None = None
    is_idle: Array | None = None


def is_experienced(is_first: Array, is_idle: Array | None) -> Any:
    """Where a transition was experienced: none was into a first observation, or an idle step."""
    return ~is_first if is_idle is None else ~(is_first | is_idle)


class Trajectory(NamedTuple):
    """One unroll of T transitions between T + 1 timesteps.

    `observations` of `[T+1, B, ...]` and bool `is_first` `[T+1, B]` include the timestep that
    the last action led to; it starts the next trajectory. `actions` are int32 `[T, B]`, or
    `[T, B, K]` of K choices at once, or float32 `[T, B, D]`; of an agent that acts ahead there
    are T + 1, the last one chosen at the last observation. float32 `rewards` and `discounts` are
    `[T, B]`. `core_state` is the network's state before the first observation. `action_masks` and
    `is_idle` are those of the T + 1 timesteps, or None. `layer_outputs` are what the network's
    layers answered to the T + 1 observations with the very parameters that are differentiated:
    the loss recalls them in place of computing them again. With None it computes them.
    `behaviour_log_probs`, float `[T, B]`, are log μ(aₜ|sₜ) of the policy that acted; None where the
    parameters that acted are the very ones that are differentiated.
    """

    observations: Observation
    actions: Array
    rewards: Array
    discounts: Array
    is_first: Array
    core_state: CoreState
    action_masks: Array | None = None
    is_idle: Array | None = None
    layer_outputs: LayerOutputs | None = None
    behaviour_log_probs: Array | None = None


class ObservationStatistics(NamedTuple):
    """The mean and the scale by which observations are centred.

    `mean` has the structure and shape of one observation, `scale` is in the same units: of each
    image a scalar (grey levels), otherwise of the same shape, a number for each entry. Constants of
    an agent: gathered once, never trained.
    """

    mean: Observation
    scale: Observation


class Moments(NamedTuple):
    """Of numbers seen so far: how many, their mean and their variance; float64, NumPy's.

    `mean` and `variance` are of one shape, entry by entry.
    """

    num_seen: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Seen(NamedTuple):
    """What rewards and observations are normalised by, of one trajectory or of a whole run.

    `returns` are the moments of discounted sums of rewards, None where rewards are left alone;
    `observations` those of observations, a pytree as one of them is, with None for images; None
    where they are not centred, or by random play alone.
    """

    returns: Moments | None = None
    observations: Any = None


class NetworkOutput(NamedTuple):
    """What an actor-critic network answers, for leading axes `[T, B]`.

    `policy` is a distribution over actions (distributions.py), `values` are those of the
    states, float `[T, B]`.
    """

    policy: Any
    values: jax.Array


class Snapshot(NamedTuple):
    """An immutable copy of the shared parameters: the θ′ of the paper.

    `version` counts the updates applied before it, `num_frames` the emulator frames
    that they and the warm-up were learned from. `statistics` is None where
    observations are not centred, `target_params` (θ⁻) where the algorithm has none. Rewards are
    divided by `reward_scale`, None where they are left alone; then V(s) is in units of it.
    """

    version: int
    num_frames: int
    params: Params
    statistics: ObservationStatistics | None = None
    target_params: Params | None = None
    reward_scale: Array | np.floating | None = None


class Exploration(NamedTuple):
    """How one actor-learner explores during one update.

    `epsilons`: float32 `[B]`, in each environment the probability of a random action; used
    by the Q methods. `entropy_factor`: float32 scalar, multiplies the entropy cost of an
    actor-critic. `target_entropy`: float32 scalar in [0, 1], the share of a random policy's
    entropy towards which the cost steers; None leaves the cost alone.
    """

    epsilons: Array
    entropy_factor: Array | np.floating
    target_entropy: Array | np.floating | None = None


class Constants(NamedTuple):
    """What an agent computes with beside the parameters that are differentiated."""

    statistics: ObservationStatistics | None
    target_params: Params | None
    exploration: Exploration | None
    reward_scale: Array | np.floating | None = None


class LearnerState(NamedTuple):
    """What learning changes.

    `opt_state` is optax's `OptState`, or a tuple with one for each actor-learner where they
    do not share statistics. `target_params` is None where the algorithm has none. `seen` is what
    rewards and observations are normalised by.
    """

    params: Params
    opt_state: Any
    target_params: Params | None = None
    seen: Seen = Seen()


class QMetrics(NamedTuple):
    """Of the Q methods, each a scalar averaged over kept steps.

    `value_loss` is ½(y − Q(s, a))², `q_value` the value of the action taken, `epsilon` the
    probability of a random action.
    """

    value_loss: jax.Array
    q_value: jax.Array
    epsilon: jax.Array


class ActorCriticMetrics(NamedTuple):
    """Of an actor-critic, each a scalar over kept steps.

    Averages of the parts of its loss before their costs, and `explained_variance`, how much of the
    returns the values tell: 1 − Var(R − V) / Var(R), at least −1 (0 where the returns are alike).
    """

    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    explained_variance: jax.Array


Device = Any  # jax.Device, which type checkers take for a variable
