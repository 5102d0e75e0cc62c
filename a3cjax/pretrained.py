"""Trained agents, ready to act: `a3cjax.load`."""

import os
from dataclasses import dataclass
from pathlib import Path

import chex
import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.builders import build_evaluation_environments
from a3cjax.config import Config, load_config
from a3cjax.evaluation import BEST, NEWEST, Evaluation, evaluate_agent, load_agent
from a3cjax.exploration import evaluation_exploration
from a3cjax.types import Constants, CoreState, Snapshot, TimeStep
from a3cjax.vector_envs import Environments

StrPath = str | os.PathLike[str]


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
        self, timestep: TimeStep, core_state: CoreState, key: chex.PRNGKey
    ) -> tuple[np.ndarray, CoreState, chex.PRNGKey]:
        """Samples an action for each of the B environments.

        Args:
          timestep: of `make_environments(B)`: what its `reset` or `step` returned.
          core_state: of `initial_state(B)` or the last call.
          key: for sampling.

        Returns:
          Actions, int32 `[B]` or float32 `[B, D]`, and the next `core_state` and `key`.
        """
        constants = Constants(
            self.snapshot.statistics, None, evaluation_exploration(len(timestep.is_first))
        )
        act = jax.jit(self.agent.act)
        actions, core_state, key = act(self.snapshot.params, constants, timestep, core_state, key)
        return np.asarray(actions), core_state, key

    def evaluate(
        self,
        num_episodes: int = 30,
        *,
        is_greedy: bool = False,
        sticky_actions: float | None = None,
    ) -> Evaluation:
        """Plays whole games.

        Args:
          num_episodes: how many, >= 1.
          is_greedy: takes the most probable action instead of sampling.
          sticky_actions: probability of a repeated action in Atari games; None: the
            protocol's.

        Returns:
          The games; a repetition gives the same ones.

        Raises:
          ConfigError: if there are no sticky actions, or too many games.
        """
        self.config.replace(eval_episodes=num_episodes)  # checks the number
        evaluation = evaluate_agent(
            self.config,
            self.agent,
            self.snapshot,
            num_episodes=num_episodes,
            is_greedy=is_greedy,
            sticky_actions=sticky_actions,
        )
        assert evaluation is not None  # nothing stops it
        return evaluation


def load(run_dir: StrPath, *, best: bool = False) -> TrainedAgent:
    """Loads the agent of a run folder, or of a published one.

    Args:
      run_dir: with config.yaml, and checkpoints or params.safetensors.
      best: the best parameters by evaluation instead of the last; of a run folder only.

    Raises:
      FileNotFoundError: if the folder holds no agent.
      ConfigError: if its settings cannot be used.
      ValueError: if its checkpoint is of another format.
      CheckpointError: if its parameters are damaged.
    """
    folder = Path(run_dir)
    config = load_config(folder)
    agent, snapshot = load_agent(config, folder, BEST if best else NEWEST)
    return TrainedAgent(config, agent, snapshot)
