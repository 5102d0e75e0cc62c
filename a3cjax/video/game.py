"""A game as a viewer follows it: at every timestep the picture and the agent's thoughts."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.agents import Agent
from a3cjax.envs.base import Environments
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.playing import TrainedAgent
from a3cjax.types import Constants, CoreState, Observation, Params, TimeStep


class Moment(NamedTuple):
    """One timestep of a game.

    `num_steps` agent steps and `score`, the sum of raw rewards, lie behind it; `reward` is
    that of the step that led here. `value` is V(s) or maxₐ Q(s, a) in units of rewards, `policy`
    the distribution over actions in NumPy arrays without leading axes. `action` is what the agent
    does here, None at the end of the game. `picture` is uint8 `[height, width, 3]`, None where
    there is none, `observation` what the network reads; `saliency` has its shapes and is None where
    it was not asked for.
    """

    num_steps: int
    score: float
    reward: float
    value: float
    policy: Any
    action: np.ndarray | None
    picture: np.ndarray | None
    observation: Observation
    saliency: Observation | None = None


def value_saliency(
    agent: Agent, params: Params, constants: Constants, timestep: TimeStep, core_state: CoreState
) -> Observation:
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

    def sum_of_values(observation: Observation) -> jax.Array:
        output, _ = agent.look(
            params, constants, timestep._replace(observation=observation), core_state
        )
        return jnp.sum(output.values)  # each depends on its own observation alone

    floats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), timestep.observation)
    return jax.tree.map(jnp.abs, jax.grad(sum_of_values)(floats))


def watch(
    agent: TrainedAgent,
    environments: Environments,
    keys: Iterable[chex.PRNGKey],
    *,
    is_greedy: bool | None = False,
    with_saliency: bool = False,
    renders: bool = True,
) -> Iterator[Moment]:
    """Plays whole games, one after the other.

    Args:
      agent: plays.
      environments: one, made for evaluation; of several the first is watched.
      keys: for sampling actions, one for each game.
      is_greedy: takes the most probable action instead of sampling; None: as the run's own
        evaluations.
      with_saliency: whether moments have a saliency.
      renders: whether to ask the environment for pictures.

    Yields:
      T + 1 moments of a game of T steps, while it is played; the last has no action.

    Raises:
      RuntimeError: if a game does not end.
    """
    snapshot = agent.snapshot
    exploration = evaluation_exploration(environments.num_envs)
    constants = Constants(snapshot.statistics, None, exploration, snapshot.reward_scale)

    @jax.jit
    def look(params, constants, timestep, core_state):
        output, _ = agent.agent.look(params, constants, timestep, core_state)
        if not with_saliency:
            return output, None
        return output, value_saliency(agent.agent, params, constants, timestep, core_state)

    for key in keys:
        score = reward = 0.0
        for num_steps, step in enumerate(
            agent.play(environments, key, is_greedy=is_greedy, num_games=1)
        ):
            if num_steps:
                reward = float(step.timestep.reward[0])
                score += reward
            seen = look(snapshot.params, constants, step.timestep, step.core_state)
            output, saliency = jax.tree.map(lambda x: np.asarray(x)[0], seen)
            yield Moment(
                num_steps=num_steps,
                score=score,
                reward=reward,
                value=float(output.values),
                policy=output.policy,
                action=None if step.actions is None else step.actions[0],
                picture=environments.render() if renders else None,
                observation=jax.tree.map(lambda x: np.asarray(x)[0], step.timestep.observation),
                saliency=saliency,
            )
