"""From the name of an agent, or its folder, to the agent itself: `a3cjax.load`."""

import os
import sys
from pathlib import Path

import jax.numpy as jnp
from flax import linen as nn

from a3cjax.agents import Agent
from a3cjax.config.bringing import NO_PARTS, Parts
from a3cjax.config.builders import (
    build_agent,
    build_evaluation_environments,
    init_state,
)
from a3cjax.config.settings import CONFIG_FILE, Config, load_config
from a3cjax.envs.bringing import PYTHON_PREFIX, Source
from a3cjax.errors import ConfigError
from a3cjax.networks import Network
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.runs.lock import is_own
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.runs.playing import TrainedAgent, closing_quietly
from a3cjax.system.compilation import check_jax
from a3cjax.system.output import warn
from a3cjax.types import ObservationStatistics, Snapshot

TRAINED = Path(__file__).parents[1] / "trained"  # published agents that come with the package


def load(
    run_dir: str | os.PathLike[str],
    *,
    best: bool = False,
    trust: bool = False,
    env: Source | None = None,
    network: Network | nn.Module | None = None,
) -> TrainedAgent:
    """Loads the agent of a run folder or of a published one, or one that comes with a3cjax.

    Args:
      run_dir: a folder with config.yaml, and checkpoints or params.safetensors; or a name: `pong`.
      best: the best parameters by evaluation instead of the last; of a run folder only.
      trust: whether a folder that this user has not trained in may name a module to import, as
        in `gymnasium:<module>:<id>`.
      env: the function that makes its environments, or a vector of them, as passed to `train`.
      network: as passed to `train`.

    Raises:
      FileNotFoundError: if the folder holds no agent.
      ConfigError: if its settings cannot be used, or name a module that is not trusted, or JAX
        cannot compute in this process.
      CheckpointError: if its parameters are damaged, of another format or of another agent.
    """
    check_jax()
    folder = find_agent(run_dir)
    config = load_config(folder)
    parts = Parts(env, network)
    if not trust and env is None:
        check_trust(config, folder)
    if (folder / PARAMETER_FILE).is_file() and not best:
        folder = folder.absolute()  # environments may change the working folder
        agent, template = build_untrained(config, parts)
        snapshot = read_parameters(folder, template.state.params, template.statistics)
    else:
        agent, checkpoint = load_checkpoint(config, folder / (BEST if best else NEWEST), parts)
        state, statistics, progress = checkpoint
        snapshot = Snapshot(progress.num_updates, progress.num_frames, state.params, statistics)
    return TrainedAgent(config, agent, snapshot, parts)


def check_trust(config: Config, folder: Path) -> None:
    """Refuses code that the settings in a folder name, and that nobody here has asked for.

    The user asks for it where he trains, or imports it himself.

    Raises:
      ConfigError: names the module.
    """
    prefix, _, env_id = config.env.partition(":")
    module, is_python = env_id.rpartition(":")[0], f"{prefix}:" == PYTHON_PREFIX
    # Of an imported module any function could be called so, os.system for one.
    is_harmless = not is_python and module in sys.modules
    if module and not is_harmless and not is_own(folder, config.env):
        also = ", or what makes the environments is passed as env=..." if is_python else ""
        raise ConfigError(
            f"env must import no code of others, got {config.env} in {folder}: "
            f"with trust=true, {module} is imported{also}."
        )


def find_agent(name: str | os.PathLike[str]) -> Path:
    """The folder of this name, or else of the agent of this name in the package: `pong`, `Pong`.

    Raises:
      FileNotFoundError: if there is neither; names the agents that come with the package.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    names = sorted(path.parent.name for path in TRAINED.glob(f"*/{CONFIG_FILE}"))
    if str(name).lower() in names:
        return TRAINED / str(name).lower()
    raise FileNotFoundError(
        f"There is no run folder {name}; agents that come with a3cjax: {', '.join(names)}."
    )


def load_checkpoint(
    config: Config, folder: Path, parts: Parts = NO_PARTS
) -> tuple[Agent, Checkpoint]:
    """The configured agent, and its newest sound checkpoint in `NEWEST` or `BEST` of a run folder.

    Damaged ones are reported in warnings.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      CheckpointError: if all are damaged, or it is of another format or agent.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"run folder must hold {folder.name}/, got {folder.parent}.")
    checkpointer = Checkpointer(folder)
    agent, template = build_untrained(config, parts)
    return agent, checkpointer.restore(template, warn)


def build_untrained(config: Config, parts: Parts = NO_PARTS) -> tuple[Agent, Checkpoint]:
    """The configured agent, and a checkpoint of the structure and shapes that it has."""
    with closing_quietly(build_evaluation_environments(config, 1, parts=parts)) as environments:
        spec = environments.spec
    agent = build_agent(config, spec, parts.network)
    statistics = None
    if config.centre_observations:
        mean = jnp.zeros(spec.observation_shape, jnp.float32)
        scale = jnp.ones((), jnp.float32) if spec.is_image else jnp.ones_like(mean)
        statistics = ObservationStatistics(mean, scale)
    return agent, Checkpoint(init_state(config, agent, spec), statistics, Progress())
