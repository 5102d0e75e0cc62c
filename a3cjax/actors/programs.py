"""An agent's functions, each compiled once for all actor-learners of a run."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

from a3cjax.agents import Agent
from a3cjax.system.compilation import first_alone
from a3cjax.types import CoreState, Seen, Trajectory
from a3cjax.updates import (
    ActAndKeep,
    Behave,
    ComputeGradients,
    ObserveAt,
    make_act_and_keep,
    make_behave,
    make_compute_gradients,
    make_observe_at,
)


class Programs(NamedTuple):
    """What all actor-learners of a run have in common: the agent's functions, compiled.

    `learning_slot` is held while a gradient is computed and applied; a semaphore in its place
    limits how many learn at once. `normalizer` is an example of the moments that actor-learners
    are to compute for `LearnerState.seen`. With `observe_at`, learning recalls the outputs of the
    network's layers from acting, since both use the same parameters. With `behave`, they learn at
    the newest parameters, in `num_passes` updates from each unroll.
    """

    act: ActAndKeep
    compute_gradients: ComputeGradients
    initial_state: Callable[[int], CoreState]
    acts_ahead: bool = False
    learning_slot: AbstractContextManager = contextlib.nullcontext()
    normalizer: Seen = Seen()
    observe_at: ObserveAt | None = None
    behave: Behave | None = None
    num_passes: int = 1


def make_programs(agent: Agent, *, recalls: bool = True) -> Programs:
    """Compile an agent's functions, for all actor-learners that run it.

    `recalls`: whether learning recalls what acting computed, if the agent can. An agent that acts
    ahead cannot: its first action is chosen with the parameters of the unroll before.
    """
    if agent.acts_ahead or not recalls:
        agent = agent._replace(observe=None)
    compute_gradients, behave = make_compute_gradients(agent), make_behave(agent)
    if behave is not None:
        compute_gradients = _compile_both(compute_gradients, behave)
    return Programs(
        first_alone(make_act_and_keep(agent)),
        first_alone(compute_gradients),
        agent.initial_state,
        agent.acts_ahead,
        observe_at=make_observe_at(agent),
        behave=behave,
        num_passes=agent.num_passes,
    )


def _compile_both(compute_gradients: ComputeGradients, behave: Behave) -> ComputeGradients:
    """Compile the program for stale trajectories, too, when the first gradient is computed.

    Only then do all actor-learners wait for the compilation. Later the others would go on, and the
    gradient for which it is needed would be late by hundreds of updates.
    """
    is_compiled = False

    def compute(snapshot, exploration, trajectory):
        nonlocal is_compiled
        if not is_compiled:
            is_compiled = True
            log_probs = behave(snapshot, exploration, trajectory)
            compute_gradients(snapshot, exploration, as_stale(trajectory, log_probs))
        return compute_gradients(snapshot, exploration, trajectory)

    return compute


def as_stale(trajectory: Trajectory, log_probs: jax.Array) -> Trajectory:
    """A trajectory for learning at newer parameters, where there is nothing to recall."""
    return trajectory._replace(behaviour_log_probs=log_probs, layer_outputs=None)
