"""Networks: torso, core and heads in flax.linen, and the pure functions around them.

torso: one observation -> features; core: feed-forward, GRU or LSTM over time; heads:
policy logits and state value. The same `apply` acts (T = 1) and learns (T steps).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from a3cjax.convolutions import BLOCK_SIZE, conv_of_blocks, conv_valid, map_chunks, stored_relu
from a3cjax.types import Array, CoreState, NetworkOutput, ObservationStatistics, Params

# Flax's default for Dense, used for the convolutions, too.
# docs/decisions.md compares it with orthogonal matrices.
KERNEL_INIT = nn.initializers.lecun_normal()


class Network(NamedTuple):
    """A network as pure functions.

    `init(key, observations) -> params`, observations `[1, 1, ...]`.
    `apply(params, statistics, observations, is_first, core_state)` with `[T, B, ...]`
    observations and `[T, B]` is_first -> `(NetworkOutput, core_state)`.
    `initial_state(batch_size) -> core_state` with `[B, H]` arrays.
    """

    init: Callable[[chex.PRNGKey, Array], Params]
    apply: Callable[
        [Params, ObservationStatistics | None, Array, Array, CoreState],
        tuple[NetworkOutput, CoreState],
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
            kernels.append(self.param(f"conv_{i}_kernel", KERNEL_INIT, shape))
            bias = self.param(f"conv_{i}_bias", nn.initializers.zeros_init(), (channels,))
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
    """Dense layers over a flattened observation."""

    hidden_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, observations: Array, statistics: ObservationStatistics | None) -> jax.Array:
        """Maps `[N, ...]` to float32 `[N, hidden_sizes[-1]]`."""
        x = jnp.asarray(observations, jnp.float32)
        if statistics is not None:
            x = (x - statistics.mean[None]) / statistics.scale
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = nn.tanh(nn.Dense(size)(x))
        return x


class ActorCritic(nn.Module):
    """Torso, optional recurrent cell, policy head and value head."""

    torso: nn.Module
    cell: nn.RNNCellBase | None
    num_actions: int

    @nn.compact
    def __call__(
        self,
        observations: Array,
        is_first: Array,
        core_state: CoreState,
        statistics: ObservationStatistics | None,
    ) -> tuple[NetworkOutput, CoreState]:
        """Maps `[T, B, ...]` observations to `[T, B]` outputs and the core state after them."""
        chex.assert_equal_shape_prefix([observations, is_first], 2)
        num_steps, batch_size = is_first.shape
        # The torso sees all steps at once; only the core goes through time.
        features = self.torso(observations.reshape(-1, *observations.shape[2:]), statistics)
        features = features.reshape(num_steps, batch_size, -1)
        if self.cell is not None:
            core_state, features = _unroll_core(self.cell, core_state, features, is_first)
        logits = nn.Dense(self.num_actions, name="policy")(features)
        values = nn.Dense(1, name="value")(features)[..., 0]
        return NetworkOutput(logits, values), core_state


def _unroll_core(
    cell: nn.RNNCellBase, core_state: CoreState, features: jax.Array, is_first: Array
) -> tuple[CoreState, jax.Array]:
    """Runs the cell over `[T, B, ...]`, from zeros wherever a new episode starts."""

    def step(cell, core_state, inputs):
        features_t, is_first_t = inputs
        core_state = jax.tree.map(
            lambda state: jnp.where(is_first_t[:, None], 0.0, state), core_state
        )
        return cell(core_state, features_t)

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    return scan(cell, core_state, (features, jnp.asarray(is_first)))


PAPER_LAYERS = ((16, 8, 4), (32, 4, 2))  # Mnih et al. 2016, section 8; Mnih et al. 2013
NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al. 2015, methods

_TORSOS: dict[str, Callable[[], Any]] = {
    "atari": lambda: ImageTorso(layers=PAPER_LAYERS, hidden_size=256),
    "nature": lambda: ImageTorso(layers=NATURE_LAYERS, hidden_size=512),
    "mlp": lambda: VectorTorso(hidden_sizes=(64, 64)),  # our choice
}
_CELLS: dict[str, Callable[[], nn.RNNCellBase | None]] = {
    "ff": lambda: None,
    "gru": lambda: nn.GRUCell(features=256),  # 256: Mnih et al. 2016, section 8 (its LSTM)
    "lstm": lambda: nn.OptimizedLSTMCell(features=256),
}
NETWORK_NAMES = tuple(f"{torso}_{core}" for torso in _TORSOS for core in _CELLS)


def make_network(name: str, num_actions: int) -> Network:
    """Builds a network of the zoo.

    Args:
      name: `<torso>_<core>`, torso one of atari, nature (images as 4×4 blocks, see
        `convolutions.frames_to_blocks`) and mlp (anything, flattened), core one of ff,
        gru, lstm: `atari_ff`, `nature_lstm`, `mlp_gru` …
      num_actions: A, the number of discrete actions.

    Returns:
      The network as pure functions.

    Raises:
      ValueError: if there is no network of that name.
    """
    if name not in NETWORK_NAMES:
        raise ValueError(f"network must be one of {', '.join(NETWORK_NAMES)}, got {name}.")
    torso, core = name.split("_")
    cell = _CELLS[core]()
    module = ActorCritic(torso=_TORSOS[torso](), cell=cell, num_actions=num_actions)

    def initial_state(batch_size: int) -> CoreState:
        if cell is None:
            return ()
        # Zeros, whatever the key: carry initializers of Flax's cells are zeros by default.
        return cell.initialize_carry(jax.random.key(0), (batch_size, 1))

    def init(key: chex.PRNGKey, observations: Array) -> Params:
        is_first = jnp.ones(observations.shape[:2], bool)
        core_state = initial_state(observations.shape[1])
        return module.init(key, observations, is_first, core_state, None)["params"]

    def apply(params, statistics, observations, is_first, core_state):
        return module.apply({"params": params}, observations, is_first, core_state, statistics)

    return Network(init=init, apply=apply, initial_state=initial_state)
