"""A game as a viewer follows it: at every timestep the picture and the agent's thoughts."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.agents import Agent
from a3cjax.envs.base import Environments
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.evaluation import MAX_EPISODE_STEPS
from a3cjax.types import Array, Constants, CoreState, Params, Snapshot, TimeStep


class Moment(NamedTuple):
    """One timestep of a game.

    `num_steps` agent steps and `score`, the sum of raw rewards, lie behind it; `reward` is
    that of the step that led here. `value` is V(s) or maxₐ Q(s, a), `policy` the distribution
    over actions in NumPy arrays without leading axes. `action` is what the agent does here,
    None at the end of the game. `picture` is uint8 `[height, width, 3]`, None where there is
    none, `observation` what the network reads; `saliency` has its shape and is None where it
    was not asked for.
    """

    num_steps: int
    score: float
    reward: float
    value: float
    policy: Any
    action: np.ndarray | None
    picture: np.ndarray | None
    observation: np.ndarray
    saliency: np.ndarray | None = None


def value_saliency(
    agent: Agent, params: Params, constants: Constants, timestep: TimeStep, core_state: CoreState
) -> jax.Array:
    """How much the value would change with each number of the observation: |∂V(s)/∂s|.

    Simonyan et al. 2013, "Deep inside convolutional networks", section 3; Wang et al. 2016,
    "Dueling network architectures", section 4, show the values of Atari agents so.

    Args:
      agent: values the state.
      params: of its network.
      constants: of the agent.
      timestep: `[B, ...]`; observations may be bytes.
      core_state: of the network, before this timestep.

    Returns:
      float32, in the shape of the observations.
    """

    def sum_of_values(observation: Array) -> jax.Array:
        output, _ = agent.look(
            params, constants, timestep._replace(observation=observation), core_state
        )
        return jnp.sum(output.values)  # each depends on its own observation alone

    return jnp.abs(jax.grad(sum_of_values)(jnp.asarray(timestep.observation, jnp.float32)))


def make_decide(agent: Agent, *, is_greedy: bool, with_saliency: bool) -> Callable[..., Any]:
    """The jitted function behind every moment.

    `(params, constants, timestep, core_state, key) -> (output, actions, saliency, core_state,
    key)`: what `agent.look` answers, actions for the batch, and saliency or None.
    """

    def decide(params, constants, timestep, core_state, key):
        saliency = None
        if with_saliency:
            saliency = value_saliency(agent, params, constants, timestep, core_state)
        output, core_state = agent.look(params, constants, timestep, core_state)
        key, subkey = jax.random.split(key)
        actions = output.policy.mode() if is_greedy else output.policy.sample(subkey)
        return output, actions, saliency, core_state, key

    return jax.jit(decide)


def play(
    decide: Callable[..., Any],
    agent: Agent,
    snapshot: Snapshot,
    environments: Environments,
    key: chex.PRNGKey,
    *,
    renders: bool = True,
) -> Iterator[Moment]:
    """Plays one whole game.

    Args:
      decide: from `make_decide`, of this agent.
      agent: knows the core state at the start.
      snapshot: the parameters to act with.
      environments: one, made for evaluation; reset here.
      key: for sampling actions.
      renders: whether to ask the environment for pictures.

    Yields:
      T + 1 moments of a game of T steps, while it is played; the last has no action.

    Raises:
      RuntimeError: if the game goes on beyond `MAX_EPISODE_STEPS`.
    """
    constants = Constants(snapshot.statistics, None, evaluation_exploration(1))
    timestep = environments.reset()
    environments.pop_episodes()
    core_state = agent.initial_state(1)
    score, reward = 0.0, 0.0
    for num_steps in range(MAX_EPISODE_STEPS + 1):
        is_over = bool(environments.pop_episodes())
        output, actions, saliency, core_state, key = decide(
            snapshot.params, constants, timestep, core_state, key
        )
        yield Moment(
            num_steps=num_steps,
            score=score,
            reward=reward,
            value=float(output.values[0]),
            policy=jax.tree.map(lambda x: np.asarray(x)[0], output.policy),
            action=None if is_over else np.asarray(actions)[0],
            picture=environments.render() if renders else None,
            observation=np.asarray(timestep.observation)[0],
            saliency=None if saliency is None else np.asarray(saliency)[0],
        )
        if is_over:
            return
        timestep = environments.step(np.asarray(actions))
        reward = float(timestep.reward[0])
        score += reward
    raise RuntimeError(f"games must end within {MAX_EPISODE_STEPS} steps to be shown.")
