"""The border of compilation: pure functions become the compiled calls that threads make."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import chex
import jax
import jax.numpy as jnp
import optax

from a3cjax.agents.base import Agent, Look, Observe, allow, recalled
from a3cjax.types import (
    Constants,
    CoreState,
    Exploration,
    LayerOutputs,
    LearnerState,
    Observation,
    Params,
    Snapshot,
    TimeStep,
    Trajectory,
)


class GradientMetrics(NamedTuple):
    """Scalar metrics of one gradient.

    `parts` are the algorithm's own metrics, a NamedTuple such as `ActorCriticMetrics`, or a dict;
    `grad_norm` is the global norm before clipping.
    """

    parts: Any
    grad_norm: jax.Array

    def as_dict(self) -> dict[str, float]:
        """All of them as plain numbers, by name."""
        metrics = {**_by_name(self.parts), "grad_norm": self.grad_norm}
        return {name: float(value) for name, value in metrics.items()}


def _by_name(metrics: Any) -> Mapping[str, Any]:
    return metrics if isinstance(metrics, Mapping) else metrics._asdict()


def _check_metrics(metrics: Any) -> None:
    """Raise a TypeError if an algorithm's metrics are no scalars with names."""
    if not isinstance(metrics, Mapping) and not hasattr(metrics, "_asdict"):
        rule = "metrics of a loss must be a NamedTuple or a dict of scalars"
        raise TypeError(f"{rule}, got a {type(metrics).__name__}.")
    for name, value in _by_name(metrics).items():
        if not jax.tree_util.all_leaves([value]) or jnp.shape(value):
            got = jax.tree.map(jnp.shape, value)
            raise TypeError(f"{name}, a metric of the loss, must be a scalar, got shape {got}.")


Act = Callable[
    [Snapshot, Exploration, TimeStep, CoreState, chex.PRNGKey],
    tuple[jax.Array, CoreState, chex.PRNGKey],
]
ActAndKeep = Callable[
    [Snapshot, Exploration, TimeStep, CoreState, chex.PRNGKey],
    tuple[jax.Array, CoreState, chex.PRNGKey, LayerOutputs | None],
]
ObserveAt = Callable[[Snapshot, TimeStep], LayerOutputs]
Behave = Callable[[Snapshot, Exploration, Trajectory], jax.Array]
ComputeGradients = Callable[[Snapshot, Exploration, Trajectory], tuple[Params, GradientMetrics]]
ApplyGradients = Callable[
    [LearnerState, Params, chex.Numeric], tuple[LearnerState, jax.Array | bool]
]
P = ParamSpec("P")
Compiled = TypeVar("Compiled")


def once_for_each(make: Callable[P, Compiled]) -> Callable[P, Compiled]:
    """Remember the last eight of what is compiled; what has no hash is compiled anew."""
    remembered = functools.lru_cache(maxsize=8)(make)

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> Compiled:
        try:
            hash((args, *kwargs.values()))
        except TypeError:
            return make(*args, **kwargs)
        return remembered(*args, **kwargs)

    return call


@once_for_each
def make_init(
    agent: Agent, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[chex.PRNGKey, Observation], tuple[Params, Any]]:
    """Compile `init(key, observations) -> (params, opt_state)`, with observations `[1, 1, ...]`.

    As one program, it is compiled, and read from the cache, as a whole.
    """

    @jax.jit
    def init(key, observations):
        params = agent.init(key, observations)
        return params, optimizer.init(params)

    return init


def make_act(agent: Agent, *, is_greedy: bool = False) -> Act:
    """Compile `act(snapshot, exploration, timestep, core_state, key)`, once for each agent.

    `act` returns `(actions, core_state, key)` with one action for each environment, int32 `[B]` or
    `[B, K]`, or float32 `[B, D]`: sampled from the agent's policy, or with `is_greedy` its mode.
    If the timestep has a mask, actions are allowed ones.
    """
    act = compile_act(agent.look, None, is_greedy)

    def act_upon(*args):
        actions, core_state, key, _ = _call_act(act, *args)
        return actions, core_state, key

    return act_upon


def make_act_and_keep(agent: Agent) -> ActAndKeep:
    """As `make_act`, with the layer outputs at the timestep last, None if the agent keeps none."""
    return functools.partial(_call_act, compile_act(agent.look, agent.observe, False))


def _call_act(act: Callable[..., Any], snapshot: Snapshot, exploration: Exploration, *args):
    constants = Constants(snapshot.statistics, None, exploration, snapshot.reward_scale)
    return act(snapshot.params, constants, *args)


@once_for_each  # evaluations are repeated, and must not compile again
def compile_act(look: Look, observe: Observe | None, is_greedy: bool) -> Callable[..., Any]:
    """Compile acting upon what an agent's `look` returns, and keeping what it observes."""

    @jax.jit
    def act(params, constants, timestep, core_state, key):
        layer_outputs = None if observe is None else observe(params, constants, timestep)
        inputs = (timestep, core_state, *recalled(layer_outputs))
        output, core_state = look(params, constants, *inputs)
        key, subkey = jax.random.split(key)
        policy = allow(output.policy, timestep.action_mask)  # whoever wrote `look`
        actions = policy.mode() if is_greedy else policy.sample(subkey)
        return actions, core_state, key, layer_outputs

    return act


def make_observe_at(agent: Agent) -> ObserveAt | None:
    """Compile `observe_at(snapshot, timestep) -> layer_outputs`; None if the agent keeps none."""
    if agent.observe is None:
        return None
    observe = jax.jit(agent.observe)
    return lambda snapshot, timestep: observe(
        snapshot.params, Constants(snapshot.statistics, None, None), timestep
    )


@once_for_each
def make_compute_gradients(agent: Agent) -> ComputeGradients:
    """Compile `compute_gradients(snapshot, exploration, trajectory) -> (grads, metrics)`.

    Gradients have the structure of `snapshot.params`; nothing is clipped yet.
    """

    @jax.jit
    def compute_gradients(params, constants, trajectory):
        loss_and_gradients = jax.value_and_grad(agent.loss, has_aux=True)
        (loss, parts), grads = loss_and_gradients(params, constants, trajectory)
        _check_metrics(parts)
        # A loss that is not finite has no gradient, whatever autodiff made of it.
        grads = jax.tree.map(lambda grad: jnp.where(jnp.isfinite(loss), grad, jnp.nan), grads)
        return grads, GradientMetrics(parts, optax.tree.norm(grads))

    return lambda snapshot, exploration, trajectory: compute_gradients(
        snapshot.params,
        Constants(snapshot.statistics, snapshot.target_params, exploration, snapshot.reward_scale),
        trajectory,
    )


def make_behave(agent: Agent) -> Behave | None:
    """Compile `behave(snapshot, exploration, trajectory) -> log_probs` of the snapshot that acted.

    None for an agent that learns at the parameters that acted.
    """
    if agent.behave is None:
        return None
    behave = jax.jit(agent.behave)
    return lambda snapshot, exploration, trajectory: behave(
        snapshot.params, Constants(snapshot.statistics, None, exploration), trajectory
    )


@once_for_each
def make_apply_gradients(optimizer: optax.GradientTransformationExtraArgs) -> ApplyGradients:
    """Compile `apply_gradients(state, grads, num_frames) -> (state, is_finite)`.

    `num_frames` are the emulator frames of all updates before this one: the learning rate
    follows them. Nothing is donated, since other threads hold the old parameters. `is_finite` is
    whether these are all finite: the global norm of the gradient (clipping turns an infinite one
    into an update of zeros) and every number of the new parameters and the new optimizer state.
    """

    @jax.jit
    def apply_gradients(params, opt_state, grads, num_frames):
        updates, opt_state = optimizer.update(grads, opt_state, params, num_frames=num_frames)
        params, are_others_finite = _mark(optax.apply_updates(params, updates), opt_state)
        # The barrier keeps XLA from computing the parameters a second time for their norm.
        params, grads = jax.lax.optimization_barrier((params, grads))
        norms = jnp.stack([optax.tree.norm(params), optax.tree.norm(grads)])
        return params, opt_state, jnp.isfinite(norms).all() & are_others_finite

    def apply_to_state(state, grads, num_frames):
        params, opt_state, is_finite = apply_gradients(
            state.params, state.opt_state, grads, num_frames
        )
        # The rest of the state bypasses the compiled program, which would copy it.
        return state._replace(params=params, opt_state=opt_state), is_finite

    return apply_to_state


def _mark(params: Params, opt_state: Any) -> tuple[Params, jax.Array]:
    """Parameters with NaN where the optimizer's state is not finite; whether its rest is finite.

    What the state holds for each parameter is thus checked in the pass that computes both; a
    separate pass would cost a third of a push's time.
    """
    structure, shapes = jax.tree.structure(params), list(map(jnp.shape, jax.tree.leaves(params)))

    def is_alike(tree):
        leaves = jax.tree.leaves(tree)
        return jax.tree.structure(tree) == structure and list(map(jnp.shape, leaves)) == shapes

    parts = jax.tree.leaves(opt_state, is_leaf=is_alike)
    are_finite = [jax.tree.map(jnp.isfinite, part) for part in parts if is_alike(part)]
    params = jax.tree.map(
        lambda param, *each: functools.reduce(lambda x, ok: jnp.where(ok, x, jnp.nan), each, param),
        params,
        *are_finite,
    )
    others = [jnp.isfinite(part).all() for part in parts if not is_alike(part)]
    return params, jnp.stack([jnp.array(True), *others]).all()
