"""From the name of an agent, or its folder, to the agent itself: `a3cjax.load`."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from a3cjax.agents import Agent
from a3cjax.config.bringing import NO_PARTS, Parts, bring
from a3cjax.config.builders import (
    build_agent,
    build_evaluation_environments,
    init_state,
)
from a3cjax.config.reading import CONFIG_FILE, load_config
from a3cjax.config.settings import Config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.bringing import Source
from a3cjax.errors import check_flags
from a3cjax.networks import Network
from a3cjax.parameters.shared import make_snapshot
from a3cjax.runs.checkpoints import Checkpoint, Checkpointer, Progress
from a3cjax.runs.environment_files import read_environment
from a3cjax.runs.folder import BEST, NEWEST
from a3cjax.runs.hub import download, is_on_hub
from a3cjax.runs.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.runs.playing import TrainedAgent, closing_quietly
from a3cjax.runs.trust import check_trust
from a3cjax.system.compilation import check_jax
from a3cjax.system.files import expand_home
from a3cjax.system.output import warn
from a3cjax.types import ObservationStatistics, Snapshot

TRAINED = Path(__file__).parents[1] / "trained"  # published agents that come with the package


def load(
    run_dir: str | os.PathLike[str],
    *,
    best: bool = False,
    trust: bool = False,
    env: str | Source | None = None,
    network: str | Network | nn.Module | None = None,
) -> TrainedAgent:
    """Load the agent of a run folder or of a published one, or one that comes with a3cjax.

    Args:
      run_dir: a folder with config.yaml, and checkpoints or params.safetensors; or a name: `pong`,
        or `hf://<user>/<name>` of an agent on the hub.
      best: the best parameters by evaluation instead of the last; only for a run folder.
      trust: whether a folder that this user has not trained in may name a module to import, as
        in `gymnasium:<module>:<id>`. `predict` imports nothing; but to load an older folder,
        without environment.json, its environment is needed.
      env: the function that makes its environments, or a vector of them, as passed to `train`.
      network: as passed to `train`.

    Raises:
      FileNotFoundError: if the folder holds no agent.
      ConfigError: if its settings cannot be used, or name a module that is needed and not
        trusted, or JAX cannot compute in this process.
      CheckpointError: if its parameters are damaged, of another format or of another agent.
    """
    check_jax()
    check_flags(best=best, trust=trust)
    folder = find_agent(run_dir)  # as given: errors show it so
    there, config = folder.absolute(), load_config(folder)  # environments may change folders
    parts = NO_PARTS
    if env is not None:
        config, parts = bring(config.replace(resume=None), env)
        trust = True  # what the settings name is not imported
    if isinstance(network, str):
        config = config.replace(network=network)
    else:
        parts = parts._replace(network=network)
    if (folder / PARAMETER_FILE).is_file() and not best:
        spec = find_spec(config, folder, parts, trust=trust)
        agent, template = build_untrained(config, spec, parts)
        state, statistics, _ = template
        scale = None if state.seen.returns is None else np.float32(1)
        expected = Snapshot(0, 0, state.params, statistics, reward_scale=scale)
        snapshot = read_parameters(there, expected)
    else:
        checkpoints = folder / (BEST if best else NEWEST)
        spec, agent, checkpoint = load_checkpoint(config, checkpoints, parts, trust=trust)
        state, statistics, progress = checkpoint
        snapshot = make_snapshot(state, progress.num_updates, progress.num_frames, statistics)
        snapshot = snapshot._replace(target_params=None)  # only for learning
    return TrainedAgent(config, agent, snapshot, spec, None if trust else there, parts)


def find_spec(
    config: Config, folder: Path, parts: Parts = NO_PARTS, *, trust: bool
) -> EnvironmentSpec:
    """The spec of a folder's environment, which has to be made if the folder is an older one.

    Raises what `load` raises.
    """
    spec = read_environment(folder, config.image_layout)
    if spec is None:
        if not trust:
            check_trust(config, folder)
        with closing_quietly(build_evaluation_environments(config, 1, parts=parts)) as environments:
            spec = environments.spec
    return spec


def find_agent(name: str | os.PathLike[str]) -> Path:
    """The user's folder of this name, or else that of the agent in the package: `pong`, `Pong`.

    An agent on the hub, `hf://...`, is downloaded.

    Raises:
      FileNotFoundError: if there is neither; names the agents that come with the package.
      ConfigError: as `download`.
    """
    if is_on_hub(name):
        return download(str(name))
    folder = own_folder(name)
    if folder is not None:
        return folder
    names = packaged_names()
    if str(name).lower() in names:
        return TRAINED / str(name).lower()
    shown = str(name) or "''"
    raise FileNotFoundError(
        f"There is no run folder {shown}; agents that come with a3cjax: {', '.join(names)}."
    )


def own_folder(name: str | os.PathLike[str]) -> Path | None:
    """The user's folder of this name; None for an agent that comes with a3cjax or is on the hub.

    A folder without config.yaml, such as that of a report, does not hide an agent in the package,
    and an empty name is not the current folder.
    """
    folder = Path(expand_home(name))
    is_packaged = str(name).lower() in packaged_names()
    is_own = (folder / CONFIG_FILE).is_file() if is_packaged else folder.is_dir()
    return folder if is_own and name != "" else None


def packaged_names() -> list[str]:
    """The names of the agents that come with a3cjax."""
    return sorted(path.parent.name for path in TRAINED.glob(f"*/{CONFIG_FILE}"))


def load_checkpoint(
    config: Config, folder: Path, parts: Parts = NO_PARTS, *, trust: bool = True
) -> tuple[EnvironmentSpec, Agent, Checkpoint]:
    """The configured agent, and its newest sound checkpoint in `NEWEST` or `BEST` of a run folder.

    Warnings report damaged ones. The spec of its environment comes first in the result.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      CheckpointError: if all are damaged, or it is of another format or agent.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"run folder must hold {folder.name}/, got {folder.parent}.")
    checkpointer = Checkpointer(folder)
    spec = find_spec(config, folder.parent, parts, trust=trust)
    agent, template = build_untrained(config, spec, parts)
    return spec, agent, checkpointer.restore(template, warn)


def build_untrained(
    config: Config, spec: EnvironmentSpec, parts: Parts = NO_PARTS
) -> tuple[Agent, Checkpoint]:
    """The configured agent, and a template of its checkpoints.

    In place of arrays, the template holds `jax.ShapeDtypeStruct`.
    """
    agent = build_agent(config, spec, parts.network)

    def make_arrays():
        statistics = None
        if config.centre_observations:
            mean = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), spec.observation)
            scale = jax.tree.map(
                lambda x: jnp.ones(() if x.dtype == jnp.uint8 else x.shape, jnp.float32),
                spec.observation,
            )
            statistics = ObservationStatistics(mean, scale)
        return init_state(config, agent, spec), statistics

    state, statistics = jax.eval_shape(make_arrays)
    # `eval_shape` has no 64 bits.
    seen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), state.seen)
    state = state._replace(seen=seen)
    return agent, Checkpoint(state, statistics, Progress())
