"""What every algorithm provides: a NamedTuple of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax

from a3cjax.types import Array, CoreState, ObservationStatistics, Params, TimeStep, Trajectory


class Agent(NamedTuple):
    """An algorithm as pure functions.

    `init(key, observations) -> params`.
    `initial_state(batch_size) -> core_state`.
    `act(params, statistics, timestep, core_state, key) -> (actions, core_state, key)`
    samples one action for each environment, int32 `[B]`.
    `act_greedily(params, statistics, timestep, core_state)` likewise, the most probable.
    `loss(params, statistics, trajectory) -> (scalar, metrics)`; metrics is a NamedTuple of
    scalars.
    """

    init: Callable[[chex.PRNGKey, Array], Params]
    initial_state: Callable[[int], CoreState]
    act: Callable[
        [Params, ObservationStatistics | None, TimeStep, CoreState, chex.PRNGKey],
        tuple[jax.Array, CoreState, chex.PRNGKey],
    ]
    act_greedily: Callable[
        [Params, ObservationStatistics | None, TimeStep, CoreState],
        tuple[jax.Array, CoreState],
    ]
    loss: Callable[[Params, ObservationStatistics | None, Trajectory], tuple[jax.Array, Any]]
