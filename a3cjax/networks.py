"""Networks: torso, core and heads in flax.linen, and the pure functions around them.

The torso (torsos.py) maps one observation to features; the core is feed-forward, or a GRU or LSTM
over time (cores.py); the heads are policy and state value, or action values. The same `apply`
serves acting (T = 1) and learning (T steps).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError

from a3cjax.cores import GRU, LSTM, RecurrentCore
from a3cjax.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
    mask_logits,
)
from a3cjax.torsos import LAYERS, TORSOS, ImageKernels, ImageTorso, OwnTorso, VectorTorso
from a3cjax.types import (
    Array,
    CoreState,
    LayerOutputs,
    NetworkOutput,
    Observation,
    ObservationStatistics,
    Params,
)

# Initial means are near zero: an action far beyond its bounds teaches nothing about its size.
MEAN_INIT = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
# Of `free` variances: less noise at first keeps HalfCheetah off its back, see docs/decisions.md.
FIRST_LOG_DEVIATION = -0.5
MIN_VARIANCE = 1e-6  # keeps the density of an action finite


class Network(NamedTuple):
    """A network as pure functions.

    `init(key, observations) -> params` with observations `[1, 1, ...]`; here and below,
    observations are one array or a dict of several.
    `apply(params, statistics, observations, is_first, core_state)` with `[T, B, ...]`
    observations and `[T, B]` is_first -> `(output, core_state)`. The output is a
    NetworkOutput, or Q(s, ·) as float32 `[T, B, A]`.
    `initial_state(batch_size) -> core_state` with `[B, H]` arrays.
    `observe(params, statistics, observations) -> layer_outputs`: the outputs of its layers, which
    `apply` recalls if they are passed as its last argument; None for a network that cannot do so.
    """

    init: Callable[[chex.PRNGKey, Observation], Params]
    apply: Callable[..., tuple[Any, CoreState]]
    initial_state: Callable[[int], CoreState]
    observe: Callable[[Params, ObservationStatistics | None, Observation], LayerOutputs] | None = (
        None
    )


class Body(nn.Module):
    """Torso and optional recurrent cell: a network without its heads."""

    torso: nn.Module
    cell: RecurrentCore | None

    @nn.compact
    def __call__(
        self,
        observations: Observation,
        is_first: Array,
        core_state: CoreState,
        statistics: ObservationStatistics | None,
    ) -> tuple[jax.Array, CoreState]:
        """Map `[T, B, ...]` observations to `[T, B, H]` features and the core state after them."""
        chex.assert_equal_shape_prefix([*jax.tree.leaves(observations), is_first], 2)
        num_steps, batch_size = is_first.shape
        # The torso sees all steps at once; only the core goes through time.
        observations = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), observations)
        features = self.torso(observations, statistics)
        features = features.reshape(num_steps, batch_size, -1)
        if self.cell is not None:
            core_state, features = self.cell(core_state, features, is_first)
        return features, core_state


class ActorCritic(nn.Module):
    """A policy over discrete actions and a value function that share all but their heads.

    `num_actions`: A, or, for several choices at once, how many options each of them has.
    """

    body: Body
    num_actions: int | tuple[int, ...]
    use_bias: bool = True

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Map the inputs of a body to a NetworkOutput and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        logits = nn.Dense(int(np.sum(self.num_actions)), self.use_bias, name="policy")(features)
        values = nn.Dense(1, self.use_bias, name="value")(features)[..., 0]
        if isinstance(self.num_actions, int):
            return NetworkOutput(Categorical(logits), values), core_state
        policy = MultiCategorical(_pad_logits(logits, self.num_actions))
        return NetworkOutput(policy, values), core_state


class GaussianActorCritic(nn.Module):
    """A Gaussian policy and a value function that share nothing (Mnih et al. 2016, section 9).

    The mean is linear in the features. `variance` tells how the variance is made: as the softplus
    of a linear output, `shared` by all dimensions (as in the paper) or one for `each`; or `free`,
    from a parameter for each dimension, the same in all states (Schulman et al. 2015, appendix D).
    `distribution` is made of mean and variance.
    """

    policy_body: Body
    value_body: Body
    num_actions: int
    variance: str
    distribution: type[DiagonalGaussian] | type[SquashedGaussian] = DiagonalGaussian

    @nn.compact
    def __call__(self, observations, is_first, core_states, statistics):
        """Map the inputs of a body to a NetworkOutput and both core states."""
        policy_state, value_state = core_states
        features, policy_state = self.policy_body(observations, is_first, policy_state, statistics)
        mean = nn.Dense(self.num_actions, kernel_init=MEAN_INIT, name="mean")(features)
        if self.variance == "free":
            init = nn.initializers.constant(FIRST_LOG_DEVIATION)
            log_deviations = self.param("log_deviations", init, mean.shape[-1:], jnp.float32)
            variance = jnp.broadcast_to(jnp.exp(2 * log_deviations), mean.shape)
        else:
            num_variances = self.num_actions if self.variance == "each" else 1
            variance = nn.softplus(nn.Dense(num_variances, name="variance")(features))
        features, value_state = self.value_body(observations, is_first, value_state, statistics)
        values = nn.Dense(1, name="value")(features)[..., 0]
        policy = self.distribution(mean, variance + MIN_VARIANCE)
        return NetworkOutput(policy, values), (policy_state, value_state)


class ActionValues(nn.Module):
    """Q(s, ·): one value for each discrete action.

    `dueling`: whether they are the sum of a state value and the actions' advantages over their
    mean, V(s) + A(s, ·) − 1/|A| Σₐ A(s, a) (Wang et al. 2016, equation 9), both linear in the
    body's features.
    """

    body: Body
    num_actions: int
    use_bias: bool = True
    dueling: bool = False

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Map the inputs of a body to float32 `[T, B, A]` and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        if not self.dueling:
            return nn.Dense(self.num_actions, self.use_bias, name="q")(features), core_state
        values = nn.Dense(1, self.use_bias, name="value")(features)
        advantages = nn.Dense(self.num_actions, self.use_bias, name="advantage")(features)
        return values + advantages - jnp.mean(advantages, axis=-1, keepdims=True), core_state


def _pad_logits(logits: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Logits `[..., sum(sizes)]` as `[..., K, M]`, -inf where a choice has no such option."""
    numbers = np.arange(max(sizes))
    is_choice = numbers < np.array(sizes)[:, None]
    columns = np.where(is_choice, (np.cumsum(sizes) - sizes)[:, None] + numbers, 0)
    mask = jnp.broadcast_to(is_choice, (*logits.shape[:-1], *is_choice.shape))
    return mask_logits(logits[..., columns], mask)


_CELLS = {"ff": None, "gru": GRU, "lstm": LSTM}
OWN_CORE_SIZE = 256  # behind a custom torso, as in Atari games
TABULAR = "tabular"
NETWORK_NAMES = (*(f"{torso}_{core}" for torso in TORSOS for core in _CELLS), TABULAR)
_GAUSSIANS: dict[str, type[DiagonalGaussian] | type[SquashedGaussian]] = {
    "gaussian": DiagonalGaussian,
    "squashed_gaussian": SquashedGaussian,
}
POLICY_NAMES = tuple(_GAUSSIANS)  # for continuous actions
VARIANCES = ("free", "each", "shared")
HEADS = ("actor_critic", *(f"{name}_actor_critic" for name in POLICY_NAMES), "action_values")


def make_network(
    name: str,
    num_actions: int | tuple[int, ...],
    head: str = "actor_critic",
    *,
    variance: str = "free",
    dueling: bool = False,
    torso: nn.Module | None = None,
    kernels: ImageKernels | None = None,
) -> Network:
    """Build a network of the zoo, or around a custom torso, as pure functions.

    Args:
      name: `<torso>_<core>`, such as `atari_ff`, `nature_lstm` or `mlp_gru`. The torso is one of
        atari, nature, small, minatar (images as 4×4 blocks, see
        `convolutions.frames_to_blocks`), multi (a dict of images and a vector), mujoco and mlp
        (anything, flattened); the core is one of ff, gru, lstm. Or `tabular`, a matrix of values
        or logits (a Gaussian has no table) with a row for each state; states must be one-hot
        vectors.
      num_actions: A, the number of discrete actions, or D, the number of continuous dimensions,
        >= 1; for several choices at once (`actor_critic` only), how many options each of them has.
      head: `actor_critic`, `gaussian_actor_critic` or `squashed_gaussian_actor_critic`
        (continuous actions; policy and values then share nothing) or `action_values`.
      variance: of the Gaussian, `free`, `each` or `shared`: see `GaussianActorCritic`.
      dueling: whether action values are a state value plus advantages: see `ActionValues`.
      torso: a custom torso, see `OwnTorso`; then only the last part of the name, the core, matters.
      kernels: functions that compute the layers of an `ImageTorso` in place of JAX.

    Raises:
      ValueError: if an argument is not one of these, or does not fit the others.
    """
    _check_arguments(name, head, variance, dueling, torso)
    num_actions = _read_sizes(num_actions)
    use_bias = name != TABULAR
    make_body = functools.partial(_make_body, name, torso, kernels)
    body = make_body()
    gaussian = _GAUSSIANS.get(head.removesuffix("_actor_critic"))
    if head == "actor_critic":
        module = ActorCritic(body, num_actions, use_bias)
    elif not isinstance(num_actions, int):
        raise ValueError(f"head must be actor_critic for several choices at once, got {head}.")
    elif gaussian is not None:
        module = GaussianActorCritic(body, make_body(), num_actions, variance, gaussian)
    else:
        module = ActionValues(body, num_actions, use_bias, dueling)

    def initial_state(batch_size: int) -> CoreState:
        state = () if body.cell is None else body.cell.initial_state(batch_size)
        return state if gaussian is None else (state, state)

    def begin(observations: Observation) -> tuple[Observation, jax.Array, CoreState]:
        is_first = jnp.ones(jax.tree.leaves(observations)[0].shape[:2], bool)
        return observations, is_first, initial_state(is_first.shape[1])

    def init(key: chex.PRNGKey, observations: Observation) -> Params:
        inputs = begin(observations)
        params = module.init(key, *inputs, None)["params"]
        if torso is not None:
            _check_own(lambda: module.apply({"params": params}, *inputs, None), params)
        return params

    def apply(params, statistics, observations, is_first, core_state, layer_outputs=None):
        # The torso sees all steps at once.
        layers = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), layer_outputs or {})
        variables = {"params": params, LAYERS: layers}
        return module.apply(variables, observations, is_first, core_state, statistics)

    def observe(params, statistics, observations):
        inputs = observations, is_first, _ = begin(observations)
        variables = {"params": params}
        _, kept = module.apply(variables, *inputs, statistics, mutable=[LAYERS])
        layers = kept.get(LAYERS, {})
        return jax.tree.map(lambda x: x.reshape(*is_first.shape, *x.shape[1:]), layers)

    return Network(init, apply, initial_state, observe)


def _check_arguments(name, head, variance, dueling, torso) -> None:
    """Refuse, in a message of one line, what `make_network` cannot build."""
    # A class is not a module, either: only its instances are.
    if torso is not None and not isinstance(torso, nn.Module):
        raise ValueError(f"torso must be a flax.linen Module, got {torso}.")
    choices = [("head", head, HEADS), ("variance", variance, VARIANCES)]
    if torso is None:
        choices.insert(0, ("network", name, NETWORK_NAMES))
    for argument, value, names in choices:
        if value not in names:
            raise ValueError(f"{argument} must be one of {', '.join(names)}, got {value}.")
    is_table = torso is None and name == TABULAR
    if is_table and head not in ("actor_critic", "action_values"):
        raise ValueError(f"head must be actor_critic or action_values for a table, got {head}.")
    if dueling and (is_table or head != "action_values"):
        what = "a table" if is_table else f"head {head}"
        raise ValueError(f"dueling must be False for {what}, got {dueling}.")


def _check_own(apply: Callable[[], Any], params: Params) -> None:
    """Refuse, in a message of one line, a custom torso that has more than parameters to learn."""
    rule = "network must have parameters alone, floats, without batch statistics and dropout"
    if wrong := [
        x.dtype for x in jax.tree.leaves(params) if not jnp.issubdtype(x.dtype, jnp.inexact)
    ]:
        raise ValueError(f"{rule}, got one of {wrong[0]}.")
    try:
        apply()
    except FlaxError as error:
        reason = str(error).partition(" (https://")[0]
        raise ValueError(f"{rule}, got one that cannot be applied with them: {reason}") from error


def _read_sizes(num_actions: Any) -> int | tuple[int, ...]:
    """The number of actions, or of each choice's options; NumPy integers are accepted, too."""
    sizes = num_actions if isinstance(num_actions, tuple) else (num_actions,)
    are_numbers = all(isinstance(size, int | np.integer) and size is not True for size in sizes)
    if not sizes or not are_numbers or min(sizes) < 1:
        raise ValueError(
            f"num_actions must be a whole number >= 1, or a tuple of some, got {num_actions}."
        )
    return tuple(map(int, sizes)) if isinstance(num_actions, tuple) else int(num_actions)


def core_of(name: str) -> str:
    """The core that a name ends with, or `ff` if it ends with none."""
    core = name.rpartition("_")[2]
    return core if core in _CELLS else "ff"


def _make_body(name: str, own_torso: nn.Module | None, kernels: ImageKernels | None) -> Body:
    def make_core(size: int) -> RecurrentCore | None:
        cell = _CELLS[core_of(name)]
        return cell and RecurrentCore(cell, size)

    if own_torso is not None:
        # A copy, down to its submodules: two bodies with one module would share its parameters.
        copy = own_torso.copy(parent=None, name=own_torso.name)
        return Body(OwnTorso(copy), make_core(OWN_CORE_SIZE))
    if name == TABULAR:
        return Body(VectorTorso(hidden_sizes=()), None)
    make_torso, core_size = TORSOS[name.partition("_")[0]]
    module = make_torso()
    if isinstance(module, ImageTorso):
        module = module.clone(kernels=kernels)
    return Body(module, make_core(core_size))
