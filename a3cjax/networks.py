"""Networks: torso, core and heads in flax.linen, and the pure functions around them.

torso: one observation -> features; core: feed-forward, GRU or LSTM over time; heads:
policy and state value, or action values. The same `apply` acts (T = 1) and learns (T steps).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from a3cjax.convolutions import (
    BLOCK_SIZE,
    blocks_to_frames,
    conv_of_blocks,
    conv_valid,
    map_chunks,
    stored_relu,
)
from a3cjax.distributions import Categorical, DiagonalGaussian
from a3cjax.types import Array, CoreState, NetworkOutput, ObservationStatistics, Params

# Flax's default for Dense, used for the convolutions, too.
# docs/decisions.md compares it with orthogonal matrices.
KERNEL_INIT = nn.initializers.lecun_normal()
# Means near zero at first: an action far beyond its bounds teaches nothing about its size.
MEAN_INIT = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
MIN_VARIANCE = 1e-6  # the density of an action stays finite
# Of centred vectors: what hardly varied in random play may go far beyond it later. `clip_obs` of
# Stable-Baselines3's VecNormalize (stable_baselines3/common/vec_env/vec_normalize.py).
MAX_CENTRED = 10.0


class Network(NamedTuple):
    """A network as pure functions.

    `init(key, observations) -> params`, observations `[1, 1, ...]`.
    `apply(params, statistics, observations, is_first, core_state)` with `[T, B, ...]`
    observations and `[T, B]` is_first -> `(output, core_state)`. The output is a
    NetworkOutput, or Q(s, ·) as float32 `[T, B, A]`.
    `initial_state(batch_size) -> core_state` with `[B, H]` arrays.
    """

    init: Callable[[chex.PRNGKey, Array], Params]
    apply: Callable[
        [Params, ObservationStatistics | None, Array, Array, CoreState], tuple[Any, CoreState]
    ]
    initial_state: Callable[[int], CoreState]


class ImageTorso(nn.Module):
    """Convolutions and one dense layer over frames given as 4×4 blocks.

    `layers`: (channels, kernel size, stride) of each convolution; the first stride is 4,
    that of the blocks.
    """

    layers: tuple[tuple[int, int, int], ...]
    hidden_size: int

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Maps uint8 `[N, rows, columns, C·16]` to float32 `[N, hidden_size]`."""
        scale = 255.0 if statistics is None else statistics.scale
        num_in = observations.shape[-1] // BLOCK_SIZE**2
        kernels, biases = [], []
        for i, (channels, size, _) in enumerate(self.layers):
            shape = (size, size, num_in, channels)
            kernels.append(self.param(f"conv_{i}_kernel", KERNEL_INIT, shape, jnp.float32))
            zeros = nn.initializers.zeros_init()
            bias = self.param(f"conv_{i}_bias", zeros, (channels,), jnp.float32)
            biases.append(bias[None, None, None])
            num_in = channels
        # conv((x − mean) / scale) = conv(x) / scale − conv(mean) / scale: the bytes enter the
        # first layer as they are, and centring costs nothing.
        kernels[0] /= scale
        if statistics is not None:
            chex.assert_shape(statistics.mean, observations.shape[1:])
            biases[0] -= conv_of_blocks(statistics.mean[None], kernels[0])

        def convolve(blocks: Array) -> jax.Array:
            x = stored_relu(conv_of_blocks(blocks, kernels[0]) + biases[0])
            for kernel, bias, layer in zip(kernels[1:], biases[1:], self.layers[1:], strict=True):
                x = stored_relu(conv_valid(x, kernel, stride=layer[2]) + bias)
            return x

        x = map_chunks(convolve, observations)
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.hidden_size)(x))


class VectorTorso(nn.Module):
    """Dense layers over a flattened observation; without any, the observation itself."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.tanh

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Maps `[N, ...]` to float32 `[N, hidden_sizes[-1]]`."""
        x = jnp.asarray(observations, jnp.float32)
        if statistics is not None and jnp.ndim(statistics.scale) == 0:
            x = (x - statistics.mean[None]) / statistics.scale
        elif statistics is not None:
            x = (x - statistics.mean[None]) / statistics.scale[None]
            x = jnp.clip(x, -MAX_CENTRED, MAX_CENTRED)
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size)(x))
        return x


class OwnTorso(nn.Module):
    """A torso that somebody brought, which knows nothing of blocks and statistics.

    `module` is called on a batch of observations, float32 `[N, ...]`: images as
    `[N, height, width, channels]`, centred and scaled with the statistics if there are any, else
    divided by 255; other arrays centred, scaled and clipped to ±10 with statistics, else as they
    are. What it returns, `[N, ...]`, is flattened into features.
    """

    module: nn.Module

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Maps `[N, ...]`, or a pytree of such arrays, to float32 features `[N, H]`."""
        if statistics is None:
            seen = jax.tree.map(_show, observations)
        else:
            seen = jax.tree.map(_show, observations, statistics.mean, statistics.scale)
        num_observations = len(jax.tree.leaves(observations)[0])
        features = self.module(seen)
        if not isinstance(features, jax.Array) or features.shape[:1] != (num_observations,):
            got = getattr(features, "shape", type(features).__name__)
            raise ValueError(
                f"network must map observations [N, ...] to features [N, ...], got {got} for "
                f"N = {num_observations}."
            )
        return jnp.asarray(features, jnp.float32).reshape(num_observations, -1)


def _show(values: Array, mean: Array | None = None, scale: chex.Numeric = 255.0) -> jax.Array:
    """Observations as a torso of somebody else's reads them."""
    is_image = values.dtype == jnp.uint8
    x = jnp.asarray(values, jnp.float32)
    if mean is not None:
        x = (x - jnp.asarray(mean)[None]) / (scale if jnp.ndim(scale) == 0 else scale[None])
    elif is_image:
        x = x / scale
    if is_image:
        frames: Any = blocks_to_frames(x)  # pyright: ignore[reportArgumentType]
        return frames.transpose(0, 2, 3, 1)
    return x if mean is None else jnp.clip(x, -MAX_CENTRED, MAX_CENTRED)


class Body(nn.Module):
    """Torso and optional recurrent cell: all of a network but its heads."""

    torso: nn.Module
    cell: nn.RNNCellBase | None

    @nn.compact
    def __call__(
        self,
        observations: Array,
        is_first: Array,
        core_state: CoreState,
        statistics: ObservationStatistics | None,
    ) -> tuple[jax.Array, CoreState]:
        """Maps `[T, B, ...]` observations to `[T, B, H]` features and the core state after them."""
        chex.assert_equal_shape_prefix([observations, is_first], 2)
        num_steps, batch_size = is_first.shape
        # The torso sees all steps at once; only the core goes through time.
        features = self.torso(observations.reshape(-1, *observations.shape[2:]), statistics)
        features = features.reshape(num_steps, batch_size, -1)
        if self.cell is not None:
            core_state, features = _unroll_core(self.cell, core_state, features, is_first)
        return features, core_state


class ActorCritic(nn.Module):
    """A policy over discrete actions and a value function that share all but their heads."""

    body: Body
    num_actions: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Maps what a body does to a NetworkOutput and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        logits = nn.Dense(self.num_actions, self.use_bias, name="policy")(features)
        values = nn.Dense(1, self.use_bias, name="value")(features)[..., 0]
        return NetworkOutput(Categorical(logits), values), core_state


class GaussianActorCritic(nn.Module):
    """A Gaussian policy and a value function that share nothing (Mnih et al. 2016, section 9).

    The mean is linear in the features; the variance is the softplus of a linear output, one
    for all dimensions or one for each.
    """

    policy_body: Body
    value_body: Body
    num_actions: int
    num_variances: int

    @nn.compact
    def __call__(self, observations, is_first, core_states, statistics):
        """Maps what a body does to a NetworkOutput and both core states."""
        policy_state, value_state = core_states
        features, policy_state = self.policy_body(observations, is_first, policy_state, statistics)
        mean = nn.Dense(self.num_actions, kernel_init=MEAN_INIT, name="mean")(features)
        variance = nn.softplus(nn.Dense(self.num_variances, name="variance")(features))
        features, value_state = self.value_body(observations, is_first, value_state, statistics)
        values = nn.Dense(1, name="value")(features)[..., 0]
        policy = DiagonalGaussian(mean, variance + MIN_VARIANCE)
        return NetworkOutput(policy, values), (policy_state, value_state)


class ActionValues(nn.Module):
    """Q(s, ·): one value for each discrete action."""

    body: Body
    num_actions: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Maps what a body does to float32 `[T, B, A]` and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        return nn.Dense(self.num_actions, self.use_bias, name="q")(features), core_state


def _unroll_core(
    cell: nn.RNNCellBase, core_state: CoreState, features: jax.Array, is_first: Array
) -> tuple[CoreState, jax.Array]:
    """Runs the cell over `[T, B, ...]`, from zeros wherever a new episode starts."""

    def step(cell, core_state, inputs):
        features_t, is_first_t = inputs
        core_state = jax.tree.map(lambda x: jnp.where(is_first_t[:, None], 0.0, x), core_state)
        return cell(core_state, features_t)

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    return scan(cell, core_state, (features, jnp.asarray(is_first)))


PAPER_LAYERS = ((16, 8, 4), (32, 4, 2))  # Mnih et al. 2016, section 8; Mnih et al. 2013
NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al. 2015, methods

# How many features a recurrent core has: 256 in Atari games (Mnih et al. 2016, section 8), 128
# in MuJoCo (section 9); for small problems our choice.
_TORSOS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "atari": (lambda: ImageTorso(layers=PAPER_LAYERS, hidden_size=256), 256),
    "nature": (lambda: ImageTorso(layers=NATURE_LAYERS, hidden_size=512), 256),
    "mujoco": (lambda: VectorTorso(hidden_sizes=(200,), activation=nn.relu), 128),
    "mlp": (lambda: VectorTorso(hidden_sizes=(64, 64)), 256),  # our choice
}
_CELLS: dict[str, Callable[[int], nn.RNNCellBase | None]] = {
    "ff": lambda _: None,
    "gru": lambda size: nn.GRUCell(features=size),
    "lstm": lambda size: nn.OptimizedLSTMCell(features=size),
}
OWN_CORE_SIZE = 256  # behind a torso of one's own, as in Atari games
TABULAR = "tabular"
NETWORK_NAMES = (*(f"{torso}_{core}" for torso in _TORSOS for core in _CELLS), TABULAR)
IMAGE_TORSOS = ("atari", "nature")
HEADS = ("actor_critic", "gaussian_actor_critic", "action_values")


def make_network(
    name: str,
    num_actions: int,
    head: str = "actor_critic",
    *,
    per_dimension_variance: bool = False,
    torso: nn.Module | None = None,
) -> Network:
    """Builds a network of the zoo, or around a torso of one's own, as pure functions.

    Args:
      name: `<torso>_<core>`, torso one of atari, nature (images as 4×4 blocks, see
        `convolutions.frames_to_blocks`), mujoco and mlp (anything, flattened), core one of ff,
        gru, lstm: `atari_ff`, `nature_lstm`, `mlp_gru` …; or `tabular`, a matrix with a row for
        each state, which are to be given as one-hot vectors.
      num_actions: A, the number of discrete actions, or D of continuous dimensions.
      head: `actor_critic`, `gaussian_actor_critic` (continuous actions; policy and values
        then share nothing) or `action_values`.
      per_dimension_variance: of the Gaussian; the paper has one for all dimensions.
      torso: one's own, see `OwnTorso`; of the name only the core, its last part, then matters.

    Raises:
      ValueError: if there is no network or head of that name.
    """
    if torso is None and name not in NETWORK_NAMES:
        raise ValueError(f"network must be one of {', '.join(NETWORK_NAMES)}, got {name}.")
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head}.")
    use_bias = name != TABULAR
    body = _make_body(name, torso)
    if head == "gaussian_actor_critic":
        num_variances = num_actions if per_dimension_variance else 1
        module = GaussianActorCritic(body, _make_body(name, torso), num_actions, num_variances)
    elif head == "actor_critic":
        module = ActorCritic(body, num_actions, use_bias)
    else:
        module = ActionValues(body, num_actions, use_bias)

    def initial_state(batch_size: int) -> CoreState:
        # Zeros, whatever the key: carry initializers of Flax's cells are zeros by default.
        key = jax.random.key(0)
        state = () if body.cell is None else body.cell.initialize_carry(key, (batch_size, 1))
        return (state, state) if head == "gaussian_actor_critic" else state

    def init(key: chex.PRNGKey, observations: Array) -> Params:
        is_first = jnp.ones(observations.shape[:2], bool)
        core_state = initial_state(observations.shape[1])
        return module.init(key, observations, is_first, core_state, None)["params"]

    def apply(params, statistics, observations, is_first, core_state):
        return module.apply({"params": params}, observations, is_first, core_state, statistics)

    return Network(init=init, apply=apply, initial_state=initial_state)


def core_of(name: str) -> str:
    """The core that a name ends with: `ff` where it does with none."""
    core = name.rpartition("_")[2]
    return core if core in _CELLS else "ff"


def _make_body(name: str, own_torso: nn.Module | None) -> Body:
    if own_torso is not None:
        # A copy: two bodies with one module would share its parameters.
        return Body(OwnTorso(own_torso.clone(parent=None)), _CELLS[core_of(name)](OWN_CORE_SIZE))
    if name == TABULAR:
        return Body(VectorTorso(hidden_sizes=()), None)
    torso, core = name.split("_")
    make_torso, core_size = _TORSOS[torso]
    return Body(make_torso(), _CELLS[core](core_size))
