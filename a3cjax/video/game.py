"""A game as a viewer follows it: at every timestep the picture and the agent's thoughts."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.envs.base import Environments
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.playing import TrainedAgent
from a3cjax.types import Constants, Observation
from a3cjax.video.saliency import Saliency, make_saliency

# In one moment of four, the brightest place is as bright as possible. Scaling by the maximum would
# leave all moments dark but the few in which everything depends on the ball.
FULL_BRIGHTNESS = 0.75


class Moment(NamedTuple):
    """One timestep of a game.

    `num_steps` counts the agent steps so far, and `score` is the sum of their raw rewards; `reward`
    is that of the step that led here. `value` is V(s) or maxₐ Q(s, a) in units of rewards, and
    `policy` the distribution over actions, in NumPy arrays without leading axes. `action` is what
    the agent does here, None at the end of the game or, with `is_cut`, where a limit of steps cuts
    it. `picture` is uint8 `[height, width, 3]`, None where there is none. `observation` is what the
    network reads, and `saliency` that of its image, None where it has no image or none was asked
    for.
    """

    num_steps: int
    score: float
    reward: float
    value: float
    policy: Any
    action: np.ndarray | None
    picture: np.ndarray | None
    observation: Observation
    saliency: Saliency | None = None
    is_cut: bool = False


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
      environments: one, made for evaluation; of several, the first is watched.
      keys: for sampling actions, one for each game.
      is_greedy: takes the most probable action instead of sampling; None: as in the run's own
        evaluations.
      with_saliency: whether moments have a saliency, if the agent sees an image.
      renders: whether to ask the environment for pictures.

    Yields:
      T + 1 moments for a game of T steps, while it is played; the last has no action.
    """
    snapshot = agent.snapshot
    exploration = evaluation_exploration(environments.num_envs)
    constants = Constants(snapshot.statistics, None, exploration, snapshot.reward_scale)

    look = jax.jit(lambda *inputs: agent.agent.look(*inputs)[0])
    salience = make_saliency(agent.agent, environments.spec) if with_saliency else None

    for key in keys:
        score = reward = 0.0
        for num_steps, step in enumerate(
            agent.play(environments, key, is_greedy=is_greedy, num_games=1)
        ):
            if num_steps:
                reward = float(step.timestep.reward[0])
                score += reward
            seen = snapshot.params, constants, step.timestep, step.core_state
            output = jax.tree.map(lambda x: np.asarray(x)[0], look(*seen))
            yield Moment(
                num_steps=num_steps,
                score=score,
                reward=reward,
                value=float(output.values),
                policy=output.policy,
                action=None if step.actions is None else step.actions[0],
                picture=environments.render() if renders else None,
                observation=jax.tree.map(lambda x: np.asarray(x)[0], step.timestep.observation),
                saliency=salience and jax.tree.map(np.asarray, salience(*seen)),
                is_cut=bool(step.cut),
            )


def brighten(moments: Iterable[Moment], num_ahead: int) -> Iterator[Moment]:
    """Turns saliency into brightness from 0 to 1, by one scale for all moments: noise stays dark.

    Args:
      moments: as `watch` yields them.
      num_ahead: how many first moments set the scale; none is yielded before they are all there.

    Yields:
      The moments, with S replaced by √S (a distance, as of policies), relative to the scale.
    """
    moments = iter(moments)
    first = list(itertools.islice(moments, num_ahead))
    known = [np.sqrt(moment.saliency) for moment in first if moment.saliency is not None]
    scale = np.quantile(np.max(known, axis=(2, 3)), FULL_BRIGHTNESS, axis=0) if known else 1.0
    scale = np.reshape(scale, (-1, 1, 1)) + np.finfo(np.float32).tiny  # 0 if the agent sees nothing
    for moment in itertools.chain(first, moments):
        if moment.saliency is not None:
            shares = np.minimum(np.sqrt(moment.saliency) / scale, 1.0)
            moment = moment._replace(saliency=Saliency(*shares))
        yield moment
