"""The containers that are passed between functions, and checks of arrays that are passed.

Letters in shapes, here and everywhere: T is the unroll length, B the number of
environments in a batch, A the number of discrete actions, K the number of choices made at once,
M the largest number of options of one choice, D the number of action dimensions, H the size of a
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

    Sums in 16 bits go wrong unnoticed: 1,000 rewards of 1 discounted by 0.99 come to 64 in bfloat16
    and not to 100. Besides, arrays of one dtype can be combined under every
    `jax_numpy_dtype_promotion`. A Python number gets the dtype of the arrays, whereas JAX would
    make it a 64-bit number under x64.
    """
    floats = [jnp.asarray(array) for array in arrays]
    is_double = any(x.dtype == jnp.float64 and not _is_pythons(x) for x in floats)
    return [array.astype(jnp.float64 if is_double else jnp.float32) for array in floats]


def _is_pythons(array: jax.Array) -> bool:
    return array.ndim == 0 and jax.typeof(array).weak_type


def cut(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Where a weight is 0, replace NaN and infinity by 0, so that weight · value is 0, not NaN."""
    return jnp.where((weights == 0) & ~jnp.isfinite(values), 0.0, values)


def taken(values: jax.Array, actions: Array) -> jax.Array:
    """The value of each action, `[...]` of `[..., A]`; NaN if the action is not in [0, A - 1]."""
    indices = jnp.asarray(actions)[..., None]
    if jnp.issubdtype(indices.dtype, jnp.signedinteger):  # JAX counts negative ones from the end
        if indices.dtype.itemsize < 4:
            indices = indices.astype(jnp.int32)
        indices = jnp.where(indices < 0, values.shape[-1], indices)
    return jnp.take_along_axis(values, indices, axis=-1)[..., 0]


# Checks of arrays. Shapes and dtypes are known when a program is traced, so that the compiled
# program contains none of these checks.


def check_arrays(**arrays: Any) -> None:
    """Raise an AssertionError that names what is neither an array nor a number."""
    for name, array in arrays.items():
        _dtype_of(name, array)


def check_floats(**arrays: Array | float) -> None:
    """Raise an AssertionError that names an array which is not floating point.

    A scalar integer may stand for a float.
    """
    for name, array in arrays.items():
        dtype, is_scalar = _dtype_of(name, array), np.ndim(array) == 0
        if not jnp.issubdtype(dtype, jnp.floating) and not (
            is_scalar and jnp.issubdtype(dtype, jnp.integer)
        ):
            raise AssertionError(f"{name} must be floating point, got {dtype}.")


def check_integers(**arrays: Array) -> None:
    """Raise an AssertionError that names an array which does not hold integers."""
    for name, array in arrays.items():
        dtype = _dtype_of(name, array)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise AssertionError(f"{name} must be integers, got {dtype}.")


def _dtype_of(name: str, array: Any) -> Any:
    try:
        return jnp.asarray(array).dtype
    except (TypeError, ValueError) as error:  # None, text, lists of unequal lengths
        raise AssertionError(f"{name} must be an array, got {type(array).__name__}.") from error


def as_setting(name: str, number: Any, dtype: Any) -> jax.Array:
    """A number, or an array of them, in this dtype; an AssertionError names what is neither."""
    _dtype_of(name, number)
    return jnp.asarray(number, dtype)


def check_shapes(shape: Sequence[int | str], beside: str, **arrays: Array | float) -> None:
    """Raise an AssertionError that names an array whose shape is not the required one.

    Args:
      shape: the required shape; a letter stands for any length but 0.
      beside: the name and shape of the array that requires it, as in "rewards (3, 2)".
      **arrays: the arrays, by the names under which the caller knows them.
    """
    for name, array in arrays.items():
        actual = np.shape(array)
        if len(actual) != len(shape) or any(
            size != length and not (isinstance(length, str) and size)
            for size, length in zip(actual, shape, strict=True)
        ):
            wanted = str(tuple(shape)).replace("'", "")
            raise AssertionError(f"{name} has shape {actual}, {beside}: it must be {wanted}.")


def scalar_or_alike(steps: jax.Array, beside: str, **numbers: Any) -> list[jax.Array]:
    """Settings in the dtype of `steps`, each checked to be a scalar or to have their shape."""
    arrays = {name: as_setting(name, number, steps.dtype) for name, number in numbers.items()}
    check_shapes(steps.shape, beside, **{name: x for name, x in arrays.items() if x.ndim})
    return list(arrays.values())


def check_unroll(**arrays: Array) -> None:
    """Raise an AssertionError that names an array which has no time axis, or an empty axis."""
    for name, array in arrays.items():
        shape = np.shape(array)
        if not shape or 0 in shape:
            raise AssertionError(
                f"{name} has shape {shape}: it must be [T] or [T, ...], and no axis may be empty."
            )


class TimeStep(NamedTuple):
    """What the environments show before one decision; every array is `[B, ...]`.

    `observation` is one array or a dict of several (`Observation`);
    `reward` and `discount` are float32 `[B]` and belong to the transition that led here:
    the raw reward and γ·(1 − terminated). `is_first` is bool `[B]`. Where it is True, a new
    episode starts at this observation: nothing led to it, so `reward` and `discount` mean
    nothing and the transition into it must not be learned from. `action_mask` is True where an
    action is allowed at this observation, bool `[B, A]`, or `[B, K, M]` for K choices at once;
    None if environments do not tell.

    `is_idle`, bool `[B]`, is None except for vector environments that wait a step whenever one of
    them is reset. Where it is True, nothing happened: the observation repeats the one before, the
    reward is 0 and the discount 1, and there is nothing to learn.
    """

    observation: Observation
    reward: Array
    discount: Array
    is_first: Array
    action_mask: Array | None = None
    is_idle: Array | None = None


def is_experienced(is_first: Array, is_idle: Array | None) -> Any:
    """Where a transition was experienced: not into a first observation, nor at an idle step."""
    return ~is_first if is_idle is None else ~(is_first | is_idle)


class Trajectory(NamedTuple):
    """One unroll of T transitions between T + 1 timesteps.

    `observations` `[T+1, B, ...]` and bool `is_first` `[T+1, B]` include the timestep that
    the last action led to; it starts the next trajectory. `actions` are int32 `[T, B]`, or
    `[T, B, K]` for K choices at once, or float32 `[T, B, D]`; an agent that acts ahead adds
    actions at the last observation, T + 1 in all. float32 `rewards` and `discounts` are `[T, B]`.
    `core_state` is the network's state before the first observation. `action_masks` and `is_idle`
    belong to the T + 1 timesteps, or are None. `layer_outputs` are the outputs of the network's
    layers at the T + 1 observations, with the same parameters that are differentiated: the loss
    recalls them instead of computing them again. If they are None it computes them.
    `behaviour_log_probs`, float `[T, B]`, are log μ(aₜ|sₜ) of the policy that acted; None if the
    parameters that acted are the same that are differentiated.
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

    `mean` has the structure and shape of one observation. `scale` is in the same units: a scalar
    for each image (in grey levels), otherwise a number for each entry. To an agent both are
    constants, which are never trained.
    """

    mean: Observation
    scale: Observation


class Moments(NamedTuple):
    """Count, mean and variance of the numbers seen so far, as float64 NumPy arrays.

    `mean` and `variance` have the same shape and hold one number for each entry.
    """

    num_seen: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Seen(NamedTuple):
    """What rewards and observations are normalised by, of one trajectory or of a whole run.

    `returns` are the moments of discounted sums of rewards, None if rewards are left alone.
    `observations` are the moments of observations, a pytree with the structure of one observation
    and None for images; None altogether if they are not centred, or only by random play.
    """

    returns: Moments | None = None
    observations: Any = None


class NetworkOutput(NamedTuple):
    """The output of an actor-critic network, with leading axes `[T, B]`.

    `policy` is a distribution over actions (distributions.py), `values` are the values of
    states, float `[T, B]`.
    """

    policy: Any
    values: jax.Array


class Snapshot(NamedTuple):
    """An immutable copy of the shared parameters: the θ′ of the paper.

    `version` counts the updates applied before it, `num_frames` the emulator frames
    of these updates and of the warm-up. `statistics` is None if observations are not
    centred, `target_params` (θ⁻) if the algorithm has none. Rewards are divided by
    `reward_scale`, and V(s) is then in units of it; None if rewards are left alone.
    """

    version: int
    num_frames: int
    params: Params
    statistics: ObservationStatistics | None = None
    target_params: Params | None = None
    reward_scale: Array | np.floating | None = None


class Exploration(NamedTuple):
    """How one actor-learner explores during one update.

    `epsilons`: float32 `[B]`, the probability of a random action in each environment; used
    by the Q methods. `entropy_factor`: float32 scalar, multiplies the entropy cost of an
    actor-critic. `target_entropy`: float32 scalar in [0, 1], the share of a random policy's
    entropy towards which the cost steers; None leaves the cost alone.
    """

    epsilons: Array
    entropy_factor: Array | np.floating
    target_entropy: Array | np.floating | None = None


class Constants(NamedTuple):
    """What an agent computes with besides the parameters that are differentiated."""

    statistics: ObservationStatistics | None
    target_params: Params | None
    exploration: Exploration | None
    reward_scale: Array | np.floating | None = None


class LearnerState(NamedTuple):
    """What learning changes.

    `opt_state` is optax's `OptState`, or a tuple with one for each actor-learner if they do not
    share the optimizer's statistics. `target_params` is None if the algorithm has none. `seen`
    holds the moments by which rewards and observations are normalised.
    """

    params: Params
    opt_state: Any
    target_params: Params | None = None
    seen: Seen = Seen()


class QMetrics(NamedTuple):
    """Metrics of the Q methods, each a scalar averaged over kept steps.

    `value_loss` is ½(y − Q(s, a))², `q_value` the value of the action taken, `epsilon` the
    probability of a random action.
    """

    value_loss: jax.Array
    q_value: jax.Array
    epsilon: jax.Array


class ActorCriticMetrics(NamedTuple):
    """Metrics of an actor-critic, each a scalar over kept steps.

    They are averages of the parts of its loss before multiplication by their costs, and
    `explained_variance`, the share of the returns' variance that the values explain:
    1 − Var(R − V) / Var(R), at least −1 (0 if all returns are equal).
    """

    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    explained_variance: jax.Array


Device = Any  # jax.Device, which type checkers take for a variable
