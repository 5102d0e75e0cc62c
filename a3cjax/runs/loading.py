"""Trained agents, ready to act: `a3cjax.load`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np

from a3cjax.agents import Agent
from a3cjax.config.builders import (
    build_agent,
    build_evaluation_environments,
    init_state,
)
from a3cjax.config.settings import Config, load_config
from a3cjax.envs.base import Environments, EnvironmentSpec
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.evaluation import Evaluation, evaluate_agent
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.types import (
    Constants,
    CoreState,
    ObservationStatistics,
    Snapshot,
    TimeStep,
)

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


def build_checkpoint_template(config: Config, spec: EnvironmentSpec) -> Checkpoint:
    """A checkpoint with the structure and shapes of this configuration's."""
    state = init_state(config, build_agent(config, spec), spec)
    statistics = None
    if config.centre_observations:
        mean = np.zeros(spec.observation_shape, np.float32)
        statistics = ObservationStatistics(jnp.asarray(mean), jnp.ones(()))
    return Checkpoint(state, statistics, Progress())


def evaluate_run(
    run_dir: Path,
    *,
    num_episodes: int | None = None,
    is_greedy: bool = False,
    sticky_actions: float | None = None,
    folder: str = NEWEST,
) -> Evaluation:
    """Evaluates a checkpoint of a run folder.

    Args:
      run_dir: the folder.
      num_episodes: how many games, >= 1; None for as many as the run was configured for, or
        30 if that is 0.
      is_greedy: takes the most probable action instead of sampling.
      sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
      folder: `NEWEST` or `BEST`.

    Returns:
      The games.

    Raises:
      FileNotFoundError: if the folder is no run folder or holds no checkpoint.
      ConfigError: if `num_episodes` is too large, or there are no sticky actions.
      ValueError: if the checkpoint is of another format.
      CheckpointError: if all checkpoints are damaged.
    """
    config = load_config(run_dir)
    num_episodes = num_episodes or config.eval_episodes or Config.eval_episodes
    config = config.replace(eval_episodes=num_episodes)  # checks the number
    agent, snapshot = load_agent(config, run_dir, folder)
    evaluation = evaluate_agent(
        config,
        agent,
        snapshot,
        num_episodes=num_episodes,
        is_greedy=is_greedy,
        sticky_actions=sticky_actions,
    )
    assert evaluation is not None  # nothing stops it
    return evaluation


def load_agent(config: Config, run_dir: Path, folder: str = NEWEST) -> tuple[Agent, Snapshot]:
    """The agent of a run folder with the parameters of its newest sound, or best, checkpoint.

    A published agent has a file of parameters instead.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is of another format.
      CheckpointError: if all are damaged.
    """
    if folder == NEWEST and (run_dir / PARAMETER_FILE).is_file():
        spec = describe_environment(config)
        template = build_checkpoint_template(config, spec)
        snapshot = read_parameters(run_dir, template.state.params, template.statistics)
        return build_agent(config, spec), snapshot
    spec, checkpoint = load_checkpoint(config, run_dir, folder)
    progress = checkpoint.progress
    snapshot = Snapshot(
        progress.num_updates, progress.num_frames, checkpoint.state.params, checkpoint.statistics
    )
    return build_agent(config, spec), snapshot


def load_checkpoint(
    config: Config, run_dir: Path, folder: str = NEWEST
) -> tuple[EnvironmentSpec, Checkpoint]:
    """The newest sound checkpoint of a run folder, and what its environments are like.

    Args:
      config: of the run.
      run_dir: its folder.
      folder: `NEWEST` or `BEST`; a damaged checkpoint in it is reported as a warning.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is of another format.
      CheckpointError: if all are damaged.
    """
    if not (run_dir / folder).is_dir():
        raise FileNotFoundError(f"run folder must hold {folder}/, got {run_dir}.")
    spec = describe_environment(config)
    template = build_checkpoint_template(config, spec)
    return spec, Checkpointer(run_dir / folder).restore(template, _print_warning)


def describe_environment(config: Config) -> EnvironmentSpec:
    """What the environments of a configuration are like, by making one."""
    environments = build_evaluation_environments(config, 1)
    environments.close()
    return environments.spec


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
