"""Evaluation: whole games with fixed parameters, every score kept."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments, Episode
from a3cjax.exploration import evaluation_exploration
from a3cjax.types import Constants, Snapshot

MAX_EPISODE_STEPS = 200_000
"""Agent steps after which a game counts as endless; Atari's end after 27,000."""


class Evaluation(NamedTuple):
    """Scores of all games, in order of their environment, and how they were played."""

    episodes: list[Episode]
    is_greedy: bool

    @property
    def mean(self) -> float:
        """Mean score."""
        return statistics.fmean(self.scores)

    @property
    def scores(self) -> list[float]:
        """Raw, unclipped scores."""
        return [episode.episode_return for episode in self.episodes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for summary.json."""
        scores = self.scores
        return {
            "actions": "greedy" if self.is_greedy else "sampled",
            "num_episodes": len(scores),
            "mean": self.mean,
            "median": statistics.median(scores),
            "standard_deviation": statistics.pstdev(scores),
            "min": min(scores),
            "max": max(scores),
            "scores": scores,
            "lengths": [episode.episode_length for episode in self.episodes],
        }


def evaluate(
    agent: Agent,
    snapshot: Snapshot,
    environments: Environments,
    key: chex.PRNGKey,
    *,
    is_greedy: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Plays one whole game in every environment.

    One game each, not the first to finish: short games would count too often.

    Args:
      agent: acts.
      snapshot: with these parameters.
      environments: B of them, made for evaluation; reset here.
      key: for sampling actions.
      is_greedy: takes the most probable action instead of sampling.
      should_stop: asked at every step; True ends the evaluation without a result.

    Returns:
      B episodes, or None if it was stopped.

    Raises:
      RuntimeError: if a game goes on beyond `MAX_EPISODE_STEPS`.
    """
    constants = Constants(snapshot.statistics, None, evaluation_exploration(environments.num_envs))
    if is_greedy:
        act_greedily = jax.jit(agent.act_greedily)

        def act(params, constants, timestep, core_state, key):
            return *act_greedily(params, constants, timestep, core_state), key
    else:
        act = jax.jit(agent.act)

    timestep = environments.reset()
    environments.pop_episodes()
    core_state = agent.initial_state(environments.num_envs)
    episodes: list[Episode | None] = [None] * environments.num_envs
    for _ in range(MAX_EPISODE_STEPS):
        if should_stop():
            return None
        actions, core_state, key = act(snapshot.params, constants, timestep, core_state, key)
        timestep = environments.step(np.asarray(actions))
        for episode in environments.pop_episodes():
            if episodes[episode.environment_index] is None:
                episodes[episode.environment_index] = episode
        finished = [episode for episode in episodes if episode is not None]
        if len(finished) == environments.num_envs:
            return Evaluation(finished, is_greedy)
    raise RuntimeError(f"games must end within {MAX_EPISODE_STEPS} steps to be evaluated.")


def evaluate_agent(
    config: Config,
    agent: Agent,
    snapshot: Snapshot,
    *,
    num_episodes: int | None = None,
    is_greedy: bool = False,
    sticky_actions: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Plays whole games on environments made for it.

    Environments and actions follow from `config.seed`: a repetition gives the same scores.

    Args:
      config: of the run.
      agent: acts.
      snapshot: with these parameters.
      num_episodes: how many games, >= 1; None for as many as configured.
      is_greedy: takes the most probable action instead of sampling.
      sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
      should_stop: asked at every step; True ends the evaluation without a result.

    Returns:
      The games, or None if it was stopped.
    """
    if num_episodes is None:
        num_episodes = config.eval_episodes
    environments = build_evaluation_environments(
        config, num_episodes, sticky_actions=sticky_actions
    )
    try:
        return evaluate(
            agent,
            snapshot,
            environments,
            make_keys(config.seed).evaluation,
            is_greedy=is_greedy,
            should_stop=should_stop,
        )
    finally:
        environments.close()
