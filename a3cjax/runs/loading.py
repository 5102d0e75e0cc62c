"""From a run folder, or a published one, to its agent: `a3cjax.load`."""

import contextlib
import os
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from a3cjax.config.builders import build_agent, build_evaluation_environments, init_state
from a3cjax.config.settings import Config, load_config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.runs.playing import TrainedAgent
from a3cjax.runs.trained import find_agent
from a3cjax.types import ObservationStatistics, Snapshot

StrPath = str | os.PathLike[str]


def load(run_dir: StrPath, *, best: bool = False) -> TrainedAgent:
    """Loads the agent of a run folder or of a published one, or one that comes with a3cjax.

    Args:
      run_dir: a folder with config.yaml, and checkpoints or params.safetensors; or a name, such
        as `pong`.
      best: the best parameters by evaluation instead of the last; of a run folder only.

    Raises:
      FileNotFoundError: if the folder holds no agent.
      ConfigError: if its settings cannot be used.
      ValueError: if its checkpoint is of another format.
      CheckpointError: if its parameters are damaged.
    """
    folder = find_agent(run_dir)
    config = load_config(folder)
    if (folder / PARAMETER_FILE).is_file() and not best:
        spec = describe_environment(config)
        template = build_checkpoint_template(config, spec)
        snapshot = read_parameters(folder, template.state.params, template.statistics)
    else:
        spec, checkpoint = load_checkpoint(config, folder, BEST if best else NEWEST)
        state, statistics, progress = checkpoint
        snapshot = Snapshot(progress.num_updates, progress.num_frames, state.params, statistics)
    return TrainedAgent(config, build_agent(config, spec), snapshot)


def build_checkpoint_template(config: Config, spec: EnvironmentSpec) -> Checkpoint:
    """A checkpoint with the structure and shapes of this configuration's."""
    state = init_state(config, build_agent(config, spec), spec)
    statistics = None
    if config.centre_observations:
        mean = np.zeros(spec.observation_shape, np.float32)
        statistics = ObservationStatistics(jnp.asarray(mean), jnp.ones(()))
    return Checkpoint(state, statistics, Progress())


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
    with contextlib.closing(Checkpointer(run_dir / folder)) as checkpointer:
        checkpoint = checkpointer.restore(build_checkpoint_template(config, spec), _print_warning)
    return spec, checkpoint


def describe_environment(config: Config) -> EnvironmentSpec:
    """What the environments of a configuration are like, by making one."""
    environments = build_evaluation_environments(config, 1)
    environments.close()
    return environments.spec


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
