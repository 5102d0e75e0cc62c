"""What every algorithm provides: a NamedTuple of pure functions, and what it is built from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax

from a3cjax.networks import Network
from a3cjax.types import (
    Array,
    Constants,
    CoreState,
    LayerOutputs,
    NetworkOutput,
    Observation,
    Params,
    TimeStep,
    Trajectory,
)

Look = Callable[..., tuple[NetworkOutput, CoreState]]
Observe = Callable[[Params, Constants, TimeStep], LayerOutputs]
Behave = Callable[[Params, Constants, Trajectory], jax.Array]


class Agent(NamedTuple):
    """An algorithm as pure functions.

    `init(key, observations) -> params`.
    `initial_state(batch_size) -> core_state`.
    `look(params, constants, timestep, core_state) -> (NetworkOutput, core_state)`: the policy
    from which actions are sampled (`make_act` of updates.py), and float32 `[B]` values, V(s) or
    maxₐ Q(s, a), in units of rewards.
    `observe(params, constants, timestep) -> layer_outputs`, each `[B, ...]`: what the network's
    layers answer. `look` recalls them if it is given them as its last argument, `loss` if they
    are in the trajectory. None for an agent that cannot.
    `loss(params, constants, trajectory) -> (scalar, metrics)`; metrics is a NamedTuple of
    scalars.
    `acts_ahead`: whether a trajectory must hold the action at its last observation, too.
    `behave(params, constants, trajectory) -> log_probs`, float `[T, B]`: log μ(aₜ|sₜ) of actions
    that were taken with these parameters, for `Trajectory.behaviour_log_probs`. An agent that has
    it learns at the newest parameters, one with None at those that acted.
    `num_passes`: in how many updates it learns from each trajectory.
    """

    init: Callable[[chex.PRNGKey, Observation], Params]
    initial_state: Callable[[int], CoreState]
    look: Look
    loss: Callable[[Params, Constants, Trajectory], tuple[jax.Array, Any]]
    acts_ahead: bool = False
    observe: Observe | None = None
    behave: Behave | None = None
    num_passes: int = 1


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


def look_once(
    network: Network,
    params: Params,
    constants: Constants,
    timestep: TimeStep,
    core_state: CoreState,
    layer_outputs: LayerOutputs | None = None,
) -> tuple[Any, CoreState]:
    """What the network answers to one timestep, `[B, ...]`, and the core state after it.

    A policy is one among the actions that are allowed there.
    """
    observations, is_first, layer_outputs = jax.tree.map(
        lambda x: x[None], (timestep.observation, timestep.is_first, layer_outputs)
    )
    output, core_state = network.apply(
        params,
        constants.statistics,
        observations,
        is_first,
        core_state,
        *recalled(layer_outputs),
    )
    output = jax.tree.map(lambda x: x[0], output)
    if isinstance(output, NetworkOutput):
        output = output._replace(policy=allow(output.policy, timestep.action_mask))
    return output, core_state


def recalled(layer_outputs: LayerOutputs | None) -> tuple[LayerOutputs, ...]:
    """The last argument of `Network.apply`, which a network of one's own may not take."""
    return () if layer_outputs is None else (layer_outputs,)


def make_observe(network: Network) -> Observe | None:
    """`Agent.observe` of an agent around this network."""
    if (observe := network.observe) is None:
        return None

    def observe_once(params, constants, timestep):
        observations = jax.tree.map(lambda x: x[None], timestep.observation)
        layer_outputs = observe(params, constants.statistics, observations)
        return jax.tree.map(lambda x: x[0], layer_outputs)

    return observe_once


def evaluate(network: Network, params: Params, constants: Constants, trajectory: Trajectory) -> Any:
    """What the network answers to the T + 1 observations of a trajectory."""
    output, _ = network.apply(
        params,
        constants.statistics,
        trajectory.observations,
        trajectory.is_first,
        trajectory.core_state,
        *recalled(trajectory.layer_outputs),
    )
    return output


def in_units_of_rewards(values: jax.Array, constants: Constants) -> jax.Array:
    """Values as people read them, where a network has learned from rewards that were divided."""
    scale = constants.reward_scale
    return values if scale is None else values * scale


def allow(policy: Any, mask: Array | None) -> Any:
    """A policy among the actions that a mask allows; without a mask as it is.

    A distribution of one's own has a method `masked(mask)` for that, as Categorical has.
    """
    return policy if mask is None else policy.masked(mask)
