"""A trained agent and its games, step by step: evaluations and videos are made of them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import chex
import numpy as np

from a3cjax.agents import Agent
from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.config.settings import MAX_BATCH, Config
from a3cjax.envs.base import Environments, Episode
from a3cjax.errors import ConfigError
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.evaluation import Evaluation
from a3cjax.types import CoreState, Snapshot, TimeStep
from a3cjax.updates import make_act

MAX_EPISODE_STEPS = 200_000  # with more a game counts as endless; Atari's end after 27,000


class Step(NamedTuple):
    """Where B games stand, and what the agent does there.

    `core_state` is that of the network before it saw this timestep. `actions` are None once all
    games are over. `episodes` are the games that ended here, of each environment the first one.
    """

    timestep: TimeStep
    core_state: CoreState
    actions: np.ndarray | None
    episodes: list[Episode]


@dataclass(frozen=True)
class TrainedAgent:
    """An agent with its parameters.

    `config` are the settings of its run, `agent` the pure functions of its algorithm,
    `snapshot` holds the parameters.
    """

    config: Config
    agent: Agent
    snapshot: Snapshot

    def make_environments(self, num_envs: int = 1) -> Environments:
        """`num_envs` environments as in evaluations: whole games, never seen in training."""
        return build_evaluation_environments(self.config, num_envs)

    def initial_state(self, num_envs: int) -> CoreState:
        """The state of the recurrent core before a game, for `num_envs` environments."""
        return self.agent.initial_state(num_envs)

    def act(
        self, timestep: TimeStep, core_state: CoreState, key: chex.PRNGKey, is_greedy: bool = False
    ) -> tuple[np.ndarray, CoreState, chex.PRNGKey]:
        """Chooses an action for each of the B environments.

        Args:
          timestep: of `make_environments(B)`: what its `reset` or `step` returned.
          core_state: of `initial_state(B)` or the last call.
          key: for sampling.
          is_greedy: takes the most probable action instead of sampling.

        Returns:
          Actions, int32 `[B]` or float32 `[B, D]`, and the next `core_state` and `key`.
        """
        exploration = evaluation_exploration(len(timestep.is_first))
        act = make_act(self.agent, is_greedy=is_greedy)
        actions, core_state, key = act(self.snapshot, exploration, timestep, core_state, key)
        return np.asarray(actions), core_state, key

    def play(
        self, environments: Environments, key: chex.PRNGKey, *, is_greedy: bool = False
    ) -> Iterator[Step]:
        """Plays one whole game in every environment.

        One game each, not the first to finish: short games would count too often. Where a game
        is over, the next one begins, until the last one is over.

        Args:
          environments: B of them, made for evaluation; reset here.
          key: for sampling actions.
          is_greedy: as for `act`.

        Yields:
          Each step before it is taken, and at last where all games are over.

        Raises:
          RuntimeError: if a game goes on beyond `MAX_EPISODE_STEPS`.
        """
        core_state = self.initial_state(environments.num_envs)
        timestep = environments.reset()
        environments.pop_episodes()  # of games before
        unfinished, ended = set(range(environments.num_envs)), []
        for _ in range(MAX_EPISODE_STEPS):
            actions, next_core_state, key = self.act(timestep, core_state, key, is_greedy)
            yield Step(timestep, core_state, actions, ended)
            timestep, core_state = environments.step(actions), next_core_state
            episodes = environments.pop_episodes()
            ended = [episode for episode in episodes if episode.environment_index in unfinished]
            unfinished -= {episode.environment_index for episode in ended}
            if not unfinished:
                yield Step(timestep, core_state, None, ended)
                return
        raise RuntimeError(f"games must end within {MAX_EPISODE_STEPS} steps, got a longer one.")

    def evaluate(
        self,
        num_episodes: int | None = None,
        *,
        is_greedy: bool = False,
        sticky_actions: float | None = None,
    ) -> Evaluation:
        """Plays whole games, each in an environment of its own.

        Environments and actions follow from the run's seed: a repetition gives the same games.

        Args:
          num_episodes: how many, >= 1; None for as many as the run was configured for, or 30
            if that is 0.
          is_greedy: as for `act`.
          sticky_actions: probability of a repeated action in Atari games; None: the protocol's.

        Raises:
          ConfigError: if there are no sticky actions, or too many games.
          RuntimeError: if a game goes on beyond `MAX_EPISODE_STEPS`.
        """
        number = num_episodes
        if number is None:
            number = self.config.eval_episodes or Config.eval_episodes
        if not 1 <= number <= MAX_BATCH:
            raise ConfigError(f"num_episodes must be between 1 and {MAX_BATCH}, got {number}.")
        evaluation = evaluate_agent(self, number, is_greedy, sticky_actions)
        assert evaluation is not None  # nothing stops it
        return evaluation


def evaluate_agent(
    agent: TrainedAgent,
    num_episodes: int,
    is_greedy: bool = False,
    sticky_actions: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """As `TrainedAgent.evaluate`; `should_stop` is asked at every step, True leaves no result."""
    environments = build_evaluation_environments(
        agent.config, num_episodes, sticky_actions=sticky_actions
    )
    key = make_keys(agent.config.seed).evaluation
    episodes: list[Episode] = []
    with contextlib.closing(environments):
        for step in agent.play(environments, key, is_greedy=is_greedy):
            episodes += step.episodes
            if step.actions is not None and should_stop():
                return None
    return Evaluation(sorted(episodes), is_greedy)
