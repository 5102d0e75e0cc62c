"""From the name of an agent, or its folder, to the agent itself: `a3cjax.load`."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from a3cjax.agents import Agent
from a3cjax.config.builders import build_agent, build_evaluation_environments, init_state
from a3cjax.config.settings import CONFIG_FILE, Config, load_config
from a3cjax.envs.making import GYMNASIUM_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.parameters.shared import make_snapshot
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.runs.lock import is_own
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.runs.playing import TrainedAgent, closing_quietly
from a3cjax.system.compilation import check_jax
from a3cjax.system.output import warn
from a3cjax.types import ObservationStatistics

TRAINED = Path(__file__).parents[1] / "trained"  # published agents that come with the package


def load(
    run_dir: str | os.PathLike[str], *, best: bool = False, trust: bool = False
) -> TrainedAgent:
    """Loads the agent of a run folder or of a published one, or one that comes with a3cjax.

    Args:
      run_dir: a folder with config.yaml, and checkpoints or params.safetensors; or a name: `pong`.
      best: the best parameters by evaluation instead of the last; of a run folder only.
      trust: whether a folder that this user has not trained in may name a module to import, as
        in `gymnasium:<module>:<id>`.

    Raises:
      FileNotFoundError: if the folder holds no agent.
      ConfigError: if its settings cannot be used, or name a module that is not trusted, or JAX
        cannot compute in this process.
      CheckpointError: if its parameters are damaged, of another format or of another agent.
    """
    check_jax()
    folder = find_agent(run_dir)
    config = load_config(folder)
    if not trust:
        check_trust(config, folder)
    if (folder / PARAMETER_FILE).is_file() and not best:
        folder = folder.absolute()  # environments may change the working folder
        agent, template = build_untrained(config)
        snapshot = read_parameters(folder, make_snapshot(template.state, 0, 0, template.statistics))
    else:
        agent, checkpoint = load_checkpoint(config, folder / (BEST if best else NEWEST))
        state, statistics, progress = checkpoint
        snapshot = make_snapshot(state, progress.num_updates, progress.num_frames, statistics)
        snapshot = snapshot._replace(target_params=None)  # which are for learning
    return TrainedAgent(config, agent, snapshot)


def check_trust(config: Config, folder: Path) -> None:
    """Refuses code that the settings in a folder name, and that nobody here has asked for.

    The user asks for it where he trains, or imports it himself.

    Raises:
      ConfigError: names the module.
    """
    prefix, _, env_id = config.env.partition(GYMNASIUM_PREFIX)
    module = "" if prefix else env_id.rpartition(":")[0]
    if module and module not in sys.modules and not is_own(folder, config.env):
        raise ConfigError(
            f"env must import no code of others, got {config.env} in {folder}: "
            f"with trust=true, {module} is imported."
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


def load_checkpoint(config: Config, folder: Path) -> tuple[Agent, Checkpoint]:
    """The configured agent, and its newest sound checkpoint in `NEWEST` or `BEST` of a run folder.

    Damaged ones are reported in warnings.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      CheckpointError: if all are damaged, or it is of another format or agent.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"run folder must hold {folder.name}/, got {folder.parent}.")
    checkpointer = Checkpointer(folder)
    agent, template = build_untrained(config)
    return agent, checkpointer.restore(template, warn)


def build_untrained(config: Config) -> tuple[Agent, Checkpoint]:
    """The configured agent, and a checkpoint of the structure and shapes that it has."""
    with closing_quietly(build_evaluation_environments(config, 1)) as environments:
        spec = environments.spec
    agent = build_agent(config, spec)
    statistics = None
    if config.centre_observations:
        mean = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), spec.observation)
        scale = jax.tree.map(
            lambda x: jnp.ones(() if x.dtype == jnp.uint8 else x.shape, jnp.float32),
            spec.observation,
        )
        statistics = ObservationStatistics(mean, scale)
    return agent, Checkpoint(init_state(config, agent, spec), statistics, Progress())
