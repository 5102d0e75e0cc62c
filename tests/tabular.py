"""A network that looks everything up, so that losses can be worked out by hand, and inputs."""

import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.distributions import Categorical
from a3cjax.networks import Network
from a3cjax.types import Constants, CoreState, NetworkOutput, Params, Snapshot, TimeStep, Trajectory
from a3cjax.updates import make_act


def make_tabular_network() -> Network:
    """Observations are numbers of states, params tables: logits `[S, A]` and values `[S]`.

    Statistics, where given, multiply the logits by their scale.
    """

    def init(key, observations):
        raise NotImplementedError("tests write the tables themselves")

    def apply(params, statistics, observations, is_first, core_state):
        logits = params["logits"][observations]
        if statistics is not None:
            logits = logits * statistics.scale
        return NetworkOutput(Categorical(logits), params["values"][observations]), core_state

    return Network(init=init, apply=apply, initial_state=lambda batch_size: ())


def random_tables(seed: int, num_states: int, num_actions: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.normal(size=(num_states, num_actions)).astype(np.float32),
        "values": rng.normal(size=num_states).astype(np.float32),
    }


def random_trajectory(seed: int, T: int, B: int, num_actions: int) -> Trajectory:
    """Every step of every environment is in a state of its own; episodes begin at random.

    Where an episode ends, it either terminated or was truncated.
    """
    rng = np.random.default_rng(seed)
    is_first = rng.random((T + 1, B)) < 0.3
    ends = np.concatenate([is_first[2:], np.zeros((1, B), bool)])
    terminated = ends & (rng.random((T, B)) < 0.5)
    return Trajectory(
        observations=np.arange((T + 1) * B, dtype=np.int32).reshape(T + 1, B),
        actions=rng.integers(0, num_actions, size=(T, B)).astype(np.int32),
        rewards=rng.normal(size=(T, B)).astype(np.float32),
        discounts=np.where(terminated, 0.0, 0.9).astype(np.float32),
        is_first=is_first,
        core_state=(),
    )


def random_params(network: Network, observations: np.ndarray, seed: int = 0) -> Params:
    """Parameters of the shapes that `network.init` makes, of a fitting size.

    Compiling the initializers would take longer than the tests. Biases are not zero.
    """
    rng = np.random.default_rng(seed)
    first = jax.tree.map(lambda x: x[:1, :1], observations)
    shapes = jax.eval_shape(network.init, jax.random.key(0), first)

    def draw(leaf):
        num_inputs = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return rng.normal(scale=num_inputs**-0.5, size=leaf.shape).astype(leaf.dtype)

    return jax.tree.map(draw, shapes)


def act(
    agent: Agent,
    params: Params,
    constants: Constants,
    timestep: TimeStep,
    core_state: CoreState = (),
    *,
    key: jax.Array | None = None,
    is_greedy: bool = False,
):
    """Actions, core state and key, as whoever plays or trains with this agent gets them."""
    key = jax.random.key(0) if key is None else key
    snapshot = Snapshot(0, 0, params, constants.statistics)
    compiled = make_act(agent, is_greedy=is_greedy)
    return compiled(snapshot, constants.exploration, timestep, core_state, key)
