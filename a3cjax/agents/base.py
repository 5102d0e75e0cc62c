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
    `observe(params, constants, timestep) -> layer_outputs`, each `[B, ...]`: the outputs of the
    network's layers. `look` recalls them if they are passed as its last argument, `loss` if they
    are in the trajectory. None for an agent that cannot do so.
    `loss(params, constants, trajectory) -> (scalar, metrics)`; metrics is a NamedTuple or a
    dict of scalars.
    `acts_ahead`: whether a trajectory must also hold the action at its last observation.
    `behave(params, constants, trajectory) -> log_probs`, float `[T, B]`: log μ(aₜ|sₜ) of actions
    that were taken with these parameters, for `Trajectory.behaviour_log_probs`. An agent with
    `behave` learns at the newest parameters, an agent without (None) at those that acted.
    `num_passes`: the number of updates in which it learns from each trajectory.
    """

    init: Callable[[chex.PRNGKey, Observation], Params]
    initial_state: Callable[[int], CoreState]
    look: Look
    loss: Callable[[Params, Constants, Trajectory], tuple[jax.Array, Any]]
    acts_ahead: bool = False
    observe: Observe | None = None
    behave: Behave | None = None
    num_passes: int = 1


ALGORITHM_HEADS = ("actor_critic", "action_values")


class Algorithm(NamedTuple):
    """How an algorithm is registered.

    `make(network, **settings)` builds the agent. It is passed the settings of the run for which
    it has a keyword and, if it has these keywords, `max_abs_reward` (rewards are clipped to ±
    this in the loss; None leaves them alone) and `bootstraps` (False if updates are whole
    episodes). `head` is the network's head: `actor_critic` (Gaussian if actions are
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
    """The network's output for one timestep, `[B, ...]`, and the core state after it.

    A policy is restricted to the actions that are allowed there.
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
    """The last argument of `Network.apply`, left out if None: a custom network may not take it."""
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
    """The network's output for the T + 1 observations of a trajectory."""
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
    """Values in units of rewards, also if the network has learned from scaled rewards."""
    scale = constants.reward_scale
    return values if scale is None else values * scale


def allow(policy: Any, mask: Array | None) -> Any:
    """Restrict a policy to the actions that a mask allows; without a mask, leave it as it is.

    A custom distribution needs a method `masked(mask)` for that, as Categorical has.
    """
    return policy if mask is None else policy.masked(mask)
