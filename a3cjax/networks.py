"""Networks: torso, core and heads in flax.linen, and the pure functions around them.

torso: one observation -> features; core: feed-forward, GRU or LSTM over time; heads:
policy and state value, or action values. The same `apply` acts (T = 1) and learns (T steps).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from a3cjax.convolutions import (
    BLOCK_SIZE,
    blocks_to_frames,
    conv_of_blocks,
    conv_valid,
    map_chunks,
    stored_relu,
)
from a3cjax.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
    mask_logits,
)
from a3cjax.types import (
    VECTOR,
    Array,
    CoreState,
    NetworkOutput,
    Observation,
    ObservationStatistics,
    Params,
)

# Flax's default for Dense, used for the convolutions, too.
# docs/decisions.md compares it with orthogonal matrices.
KERNEL_INIT = nn.initializers.lecun_normal()
# Means near zero at first: an action far beyond its bounds teaches nothing about its size.
MEAN_INIT = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
# Of free ones: less noise keeps what falls on its back from it, docs/decisions.md.
FIRST_LOG_DEVIATION = -0.5
MIN_VARIANCE = 1e-6  # the density of an action stays finite
# Of centred vectors: what hardly varied in random play may go far beyond it later. `clip_obs` of
# Stable-Baselines3's VecNormalize (stable_baselines3/common/vec_env/vec_normalize.py).
MAX_CENTRED = 10.0


class Network(NamedTuple):
    """A network as pure functions.

    `init(key, observations) -> params`, observations `[1, 1, ...]`, here and below of one array
    or a dict of several.
    `apply(params, statistics, observations, is_first, core_state)` with `[T, B, ...]`
    observations and `[T, B]` is_first -> `(output, core_state)`. The output is a
    NetworkOutput, or Q(s, ·) as float32 `[T, B, A]`.
    `initial_state(batch_size) -> core_state` with `[B, H]` arrays.
    """

    init: Callable[[chex.PRNGKey, Observation], Params]
    apply: Callable[
        [Params, ObservationStatistics | None, Observation, Array, CoreState],
        tuple[Any, CoreState],
    ]
    initial_state: Callable[[int], CoreState]


class ImageTorso(nn.Module):
    """Convolutions and one dense layer over frames given as 4×4 blocks.

    `layers`: (channels, kernel size, stride) of each convolution. Where the first stride is 4,
    that of the blocks, they are multiplied as they are; else frames are made of them again.
    """

    layers: tuple[tuple[int, int, int], ...]
    hidden_size: int

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Maps uint8 `[N, rows, columns, C·16]` to float32 `[N, hidden_size]`."""
        scale = 255.0 if statistics is None else statistics.scale
        num_in = observations.shape[-1] // BLOCK_SIZE**2
        stride = self.layers[0][2]
        convolve_first = conv_of_blocks
        if stride != BLOCK_SIZE:
            convolve_first = functools.partial(_conv_of_frames, stride=stride)
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
            biases[0] -= convolve_first(statistics.mean[None], kernels[0])

        def convolve(blocks: Array) -> jax.Array:
            x = stored_relu(convolve_first(blocks, kernels[0]) + biases[0])
            for kernel, bias, layer in zip(kernels[1:], biases[1:], self.layers[1:], strict=True):
                x = stored_relu(conv_valid(x, kernel, stride=layer[2]) + bias)
            return x

        x = map_chunks(convolve, observations)
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.hidden_size)(x))


def _conv_of_frames(blocks: Array, kernel: Array, stride: int) -> jax.Array:
    """Convolves frames given as blocks with any stride."""
    frames = jnp.moveaxis(blocks_to_frames(jnp.asarray(blocks, kernel.dtype)), 1, -1)
    return conv_valid(frames, kernel, stride)


class VectorTorso(nn.Module):
    """Dense layers over a flattened observation; without any, the observation itself."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.silu
    use_layer_norm: bool = True

    @nn.compact
    def __call__(
        self, observations: Observation, statistics: ObservationStatistics | None
    ) -> jax.Array:
        """Maps `[N, ...]`, or a dict of such, to float32 `[N, hidden_sizes[-1]]`."""
        parts = jax.tree.leaves(_centre(observations, statistics))
        x = jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=-1)
        for size in self.hidden_sizes:
            x = nn.Dense(size)(x)
            x = self.activation(nn.LayerNorm()(x) if self.use_layer_norm else x)
        return x


def _centre(observations: Observation, statistics: ObservationStatistics | None) -> Observation:
    """Observations `[N, ...]` as floats, less their mean and by their scale, leaf by leaf."""

    def centre(x, mean, scale):
        x = (jnp.asarray(x, jnp.float32) - mean[None]) / (scale[None] if jnp.ndim(scale) else scale)
        return jnp.clip(x, -MAX_CENTRED, MAX_CENTRED) if jnp.ndim(scale) else x

    if statistics is None:
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), observations)
    return jax.tree.map(centre, observations, statistics.mean, statistics.scale)


class MultiTorso(nn.Module):
    """Each image through convolutions that fit its size, all numbers through dense layers.

    What comes of them is joined in one dense layer.
    """

    hidden_size: int

    @nn.compact
    def __call__(
        self, observations: dict[str, Array], statistics: ObservationStatistics | None
    ) -> jax.Array:
        """Maps a dict of `[N, ...]` arrays to float32 `[N, hidden_size]`."""
        parts = []
        for key in sorted(observations):
            own = statistics and ObservationStatistics(statistics.mean[key], statistics.scale[key])
            # By name, not dtype: saliency asks with pixels that are floats.
            if key == VECTOR:
                torso = _TORSOS["mlp"][0](name=key)
            else:
                fitting = _image_torsos_for(observations[key].shape[1:])
                torso = _TORSOS[fitting[0]][0](name=f"image_{key}")
            parts.append(torso(observations[key], own))
        return nn.relu(nn.Dense(self.hidden_size)(jnp.concatenate(parts, axis=-1)))


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
    # Saliency asks with pixels that are floats: one scale for three axes is an image's, too.
    is_scaled_image = mean is not None and jnp.ndim(mean) == 3 and jnp.ndim(scale) == 0
    is_image = values.dtype == jnp.uint8 or is_scaled_image
    x = jnp.asarray(values, jnp.float32)
    if mean is not None:
        scale = jnp.asarray(scale)
        x = (x - jnp.asarray(mean)[None]) / (scale[None] if scale.ndim else scale)
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
        observations: Observation,
        is_first: Array,
        core_state: CoreState,
        statistics: ObservationStatistics | None,
    ) -> tuple[jax.Array, CoreState]:
        """Maps `[T, B, ...]` observations to `[T, B, H]` features and the core state after them."""
        chex.assert_equal_shape_prefix([*jax.tree.leaves(observations), is_first], 2)
        num_steps, batch_size = is_first.shape
        # The torso sees all steps at once; only the core goes through time.
        observations = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), observations)
        features = self.torso(observations, statistics)
        features = features.reshape(num_steps, batch_size, -1)
        if self.cell is not None:
            core_state, features = _unroll_core(self.cell, core_state, features, is_first)
        return features, core_state


class ActorCritic(nn.Module):
    """A policy over discrete actions and a value function that share all but their heads.

    `num_actions`: A, or of several choices at once how many each has to choose from.
    """

    body: Body
    num_actions: int | tuple[int, ...]
    use_bias: bool = True

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Maps what a body does to a NetworkOutput and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        logits = nn.Dense(int(np.sum(self.num_actions)), self.use_bias, name="policy")(features)
        values = nn.Dense(1, self.use_bias, name="value")(features)[..., 0]
        if isinstance(self.num_actions, int):
            return NetworkOutput(Categorical(logits), values), core_state
        policy = MultiCategorical(_pad_logits(logits, self.num_actions))
        return NetworkOutput(policy, values), core_state


class GaussianActorCritic(nn.Module):
    """A Gaussian policy and a value function that share nothing (Mnih et al. 2016, section 9).

    The mean is linear in the features. The variance is, by `variance`, the softplus of a linear
    output, `shared` by all dimensions (the paper's) or one for `each`; or `free`: parameters for
    each dimension, the same in all states (Schulman et al. 2015, appendix D).
    `distribution` is made of both.
    """

    policy_body: Body
    value_body: Body
    num_actions: int
    variance: str
    distribution: type[DiagonalGaussian] | type[SquashedGaussian] = DiagonalGaussian

    @nn.compact
    def __call__(self, observations, is_first, core_states, statistics):
        """Maps what a body does to a NetworkOutput and both core states."""
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
    """Q(s, ·): one value for each discrete action."""

    body: Body
    num_actions: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, observations, is_first, core_state, statistics):
        """Maps what a body does to float32 `[T, B, A]` and the core state."""
        features, core_state = self.body(observations, is_first, core_state, statistics)
        return nn.Dense(self.num_actions, self.use_bias, name="q")(features), core_state


def _pad_logits(logits: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """`[..., sum(sizes)]` as `[..., K, M]`, -inf where a number has no such choice."""
    numbers = np.arange(max(sizes))
    is_choice = numbers < np.array(sizes)[:, None]
    columns = np.where(is_choice, (np.cumsum(sizes) - sizes)[:, None] + numbers, 0)
    mask = jnp.broadcast_to(is_choice, (*logits.shape[:-1], *is_choice.shape))
    return mask_logits(logits[..., columns], mask)


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
MINATAR_LAYERS = ((16, 3, 1),)  # Young & Tian 2019, section 4; kenjyoung/MinAtar, examples/dqn.py

# How many features a recurrent core has: 256 in Atari games (Mnih et al. 2016, section 8), 128
# in MuJoCo (section 9); for small problems our choice.
_TORSOS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "atari": (functools.partial(ImageTorso, layers=PAPER_LAYERS, hidden_size=256), 256),
    "nature": (functools.partial(ImageTorso, layers=NATURE_LAYERS, hidden_size=512), 256),
    "minatar": (functools.partial(ImageTorso, layers=MINATAR_LAYERS, hidden_size=128), 128),
    "multi": (functools.partial(MultiTorso, hidden_size=256), 256),  # our choice
    "mujoco": (
        functools.partial(
            VectorTorso, hidden_sizes=(200,), activation=nn.relu, use_layer_norm=False
        ),
        128,
    ),
    "mlp": (functools.partial(VectorTorso, hidden_sizes=(64, 64)), 256),  # our choice
}
_CELLS: dict[str, Callable[[int], nn.RNNCellBase | None]] = {
    "ff": lambda _: None,
    "gru": lambda size: nn.GRUCell(features=size),
    "lstm": lambda size: nn.OptimizedLSTMCell(features=size),
}
OWN_CORE_SIZE = 256  # behind a torso of one's own, as in Atari games
TABULAR = "tabular"
NETWORK_NAMES = (*(f"{torso}_{core}" for torso in _TORSOS for core in _CELLS), TABULAR)
# The side in pixels of the smallest image that the convolutions of a torso leave anything of;
# images come in blocks of 4×4. The first that fits is taken.
LEAST_PIXELS = {"atari": 17, "nature": 33, "minatar": 1}
ANY_TORSOS = ("mlp", "mujoco")  # which flatten what they read
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
    torso: nn.Module | None = None,
) -> Network:
    """Builds a network of the zoo, or around a torso of one's own, as pure functions.

    Args:
      name: `<torso>_<core>`, torso one of atari, nature, minatar (images as 4×4 blocks, see
        `convolutions.frames_to_blocks`), multi (a dict of images and a vector), mujoco and mlp
        (anything, flattened), core one of ff, gru, lstm: `atari_ff`, `nature_lstm`, `mlp_gru` …;
        or `tabular`, a matrix with a row for each state, which are to be given as one-hot vectors.
      num_actions: A, the number of discrete actions, or D of continuous dimensions; of several
        choices at once (`actor_critic` only) how many each has to choose from.
      head: `actor_critic`, `gaussian_actor_critic` or `squashed_gaussian_actor_critic`
        (continuous actions; policy and values then share nothing) or `action_values`.
      variance: of the Gaussian, `free`, `each` or `shared`: see `GaussianActorCritic`.
      torso: one's own, see `OwnTorso`; of the name only the core, its last part, then matters.

    Raises:
      ValueError: if there is no network or head of that name, or the head has one choice only.
    """
    if torso is None and name not in NETWORK_NAMES:
        raise ValueError(f"network must be one of {', '.join(NETWORK_NAMES)}, got {name}.")
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head}.")
    use_bias = name != TABULAR
    body = _make_body(name, torso)
    gaussian = _GAUSSIANS.get(head.removesuffix("_actor_critic"))
    if head == "actor_critic":
        module = ActorCritic(body, num_actions, use_bias)
    elif not isinstance(num_actions, int):
        raise ValueError(f"head must be actor_critic for several choices at once, got {head}.")
    elif gaussian is not None:
        module = GaussianActorCritic(body, _make_body(name, torso), num_actions, variance, gaussian)
    else:
        module = ActionValues(body, num_actions, use_bias)

    def initial_state(batch_size: int) -> CoreState:
        # Zeros, whatever the key: carry initializers of Flax's cells are zeros by default.
        key = jax.random.key(0)
        state = () if body.cell is None else body.cell.initialize_carry(key, (batch_size, 1))
        return state if gaussian is None else (state, state)

    def init(key: chex.PRNGKey, observations: Observation) -> Params:
        is_first = jnp.ones(jax.tree.leaves(observations)[0].shape[:2], bool)
        core_state = initial_state(is_first.shape[1])
        return module.init(key, observations, is_first, core_state, None)["params"]

    def apply(params, statistics, observations, is_first, core_state):
        return module.apply({"params": params}, observations, is_first, core_state, statistics)

    return Network(init=init, apply=apply, initial_state=initial_state)


def torsos_for(observation: Any) -> tuple[str, ...]:
    """The torsos that can read observations of this structure, the most fitting first.

    `observation`: one of them, or its `jax.ShapeDtypeStruct`s; bytes are images.
    """
    if isinstance(observation, dict):
        return ("multi", *ANY_TORSOS)
    if observation.dtype != jnp.uint8:
        return ANY_TORSOS
    return (*_image_torsos_for(observation.shape), *ANY_TORSOS)


def _image_torsos_for(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Those whose convolutions leave something of an image of blocks `[rows, columns, ...]`."""
    side = BLOCK_SIZE * min(shape[:2])
    return tuple(torso for torso, least in LEAST_PIXELS.items() if side >= least)


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
