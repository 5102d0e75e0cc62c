"""What every algorithm provides: a NamedTuple of pure functions, and what it is built from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax

from a3cjax.types import (
    Array,
    Constants,
    CoreState,
    NetworkOutput,
    Params,
    TimeStep,
    Trajectory,
)


class Agent(NamedTuple):
    """An algorithm as pure functions.

    `init(key, observations) -> params`.
    `initial_state(batch_size) -> core_state`.
    `act(params, constants, timestep, core_state, key) -> (actions, core_state, key)`
    samples one action for each environment, int32 `[B]` or float32 `[B, D]`.
    `act_greedily(params, constants, timestep, core_state)` likewise, what it thinks best.
    `loss(params, constants, trajectory) -> (scalar, metrics)`; metrics is a NamedTuple of
    scalars.
    `look(params, constants, timestep, core_state) -> (NetworkOutput, core_state)`: the policy
    that `act` samples, and float32 `[B]` values, V(s) or maxₐ Q(s, a).
    `acts_ahead`: whether a trajectory must hold the action at its last observation, too.
    """

    init: Callable[[chex.PRNGKey, Array], Params]
    initial_state: Callable[[int], CoreState]
    act: Callable[
        [Params, Constants, TimeStep, CoreState, chex.PRNGKey],
        tuple[jax.Array, CoreState, chex.PRNGKey],
    ]
    act_greedily: Callable[[Params, Constants, TimeStep, CoreState], tuple[jax.Array, CoreState]]
    loss: Callable[[Params, Constants, Trajectory], tuple[jax.Array, Any]]
    look: Callable[[Params, Constants, TimeStep, CoreState], tuple[NetworkOutput, CoreState]]
    acts_ahead: bool = False


class Algorithm(NamedTuple):
    """How an algorithm is registered.

    `make(network, **settings)` builds the agent. It is given those settings of the run that
    it has a keyword for, and where it has one `max_abs_reward` (rewards are clipped to ± this
    in the loss; None leaves them alone) and `bootstraps` (False where updates are whole
    episodes). `head` is the network's: `actor_critic` (Gaussian where actions are
    continuous) or `action_values`. `has_target_params`: whether θ⁻ is kept for it.
    """

    make: Callable[..., Agent]
    head: str
    has_target_params: bool = False
