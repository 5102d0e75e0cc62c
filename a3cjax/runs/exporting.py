"""A trained agent as a program in one file, which needs JAX to run, but not a3cjax.

The file is what `jax.export` writes: StableHLO, with parameters and statistics inside. What it
takes and returns are plain dicts, tuples and arrays.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, errors, export

from a3cjax.agents import Agent
from a3cjax.agents.base import allow
from a3cjax.config.builders import KEY_IMPLEMENTATION
from a3cjax.envs.actions import count_choices
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.observations import plan_reading
from a3cjax.envs.traced import clip_traced, read_traced, shapes_of_batch
from a3cjax.errors import quote
from a3cjax.exploration import EVALUATION_EPSILON
from a3cjax.types import Constants, Exploration, Snapshot, TimeStep

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # for another one the file would be of no use

# What a program raises that asks how large an open dimension is. Until JAX 0.10.0 `core` has it.
_NAME = "InconclusiveDimensionOperation"
_Inconclusive: type[Exception] = getattr(errors, _NAME, None) or getattr(core, _NAME)

Program = Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]


def export_agent(
    agent: Agent,
    snapshot: Snapshot,
    spec: EnvironmentSpec,
    *,
    is_greedy: bool,
    has_mask: bool,
    batch_size: int | None,
    platforms: Sequence[str],
) -> bytes:
    """The content of the file that `TrainedAgent.export` writes; raises what that raises."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size}.")
    if isinstance(platforms, str) or not platforms or set(platforms) - set(PLATFORMS):
        got = quote(platforms)
        raise ValueError(f"platforms must be a list of some of {', '.join(PLATFORMS)}, got {got}.")
    if has_mask and spec.is_continuous:
        raise ValueError("has_mask must be False for continuous actions.")
    (B,) = export.symbolic_shape("B") if batch_size is None else (batch_size,)
    states = jax.tree.leaves(jax.eval_shape(lambda: agent.initial_state(1)))
    shapes = (
        shapes_of_batch(spec.observation_space, B),
        tuple(jax.ShapeDtypeStruct((B, *state.shape[1:]), state.dtype) for state in states),
        jax.ShapeDtypeStruct((B,), np.bool_),
    )
    options = {}
    if not is_greedy:
        options["key"] = jax.ShapeDtypeStruct((2,), np.uint32)
    if has_mask:
        sizes = count_choices(spec.action_space)
        shape = sizes.tolist() if spec.actions.kind == "discrete" else (len(sizes), max(sizes))
        options["action_mask"] = jax.ShapeDtypeStruct((B, *shape), np.bool_)
    program = jax.jit(make_program(agent, snapshot, spec))
    try:
        exported = export.export(program, platforms=platforms)(*shapes, **options)
    except (TypeError, _Inconclusive) as error:
        reason = str(error).partition("\n")[0]
        if batch_size is not None or (isinstance(error, TypeError) and "_DimExpr" not in reason):
            raise
        raise ValueError(
            "batch_size must be a number for a network whose program depends on it, as by len(x) "
            f"(x.shape[0] does not), got None: {reason}"
        ) from error
    return bytes(exported.serialize())


def make_program(agent: Agent, snapshot: Snapshot, spec: EnvironmentSpec) -> Program:
    """What is exported: `act(observation, state, is_first, *, key, action_mask)`.

    See `TrainedAgent.export`; without a key it takes the most probable actions.
    """
    space, plan = spec.observation_space, plan_reading(spec.observation_space, spec.image_layout)
    structure = jax.tree.structure(jax.eval_shape(lambda: agent.initial_state(1)))

    def act(observation, state, is_first, *, key=None, action_mask=None):
        zeros = jnp.zeros(is_first.shape, jnp.float32)
        timestep = TimeStep(
            read_traced(space, observation, plan), zeros, zeros + 1, is_first, action_mask
        )
        exploration = Exploration(zeros + EVALUATION_EPSILON, np.float32(1))
        constants = Constants(snapshot.statistics, None, exploration, snapshot.reward_scale)
        core_state = jax.tree.unflatten(structure, state)
        output, core_state = agent.look(snapshot.params, constants, timestep, core_state)
        policy = allow(output.policy, action_mask)
        if key is None:
            actions = policy.mode()
        else:
            key = jax.random.wrap_key_data(key, impl=KEY_IMPLEMENTATION)
            actions = policy.sample(jax.random.split(key)[1])  # as `predict` draws
        return clip_traced(spec.action_space, actions), tuple(jax.tree.leaves(core_state))

    return act
