"""What a run musters before anything is written: environments, resolved settings and an agent.

Its actor-learners are threads of this process or, with `cluster`, of workers on Ray.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from a3cjax.actors.supervisor import Supervisor
from a3cjax.agents import Agent
from a3cjax.cluster.environment import environment_of_ray
from a3cjax.config.bringing import Parts
from a3cjax.config.settings import Config
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.errors import ConfigError
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.system.output import tell
from a3cjax.training.assembly import assemble, close_all, prepare
from a3cjax.training.cluster_muster import SHARDS, Engine
from a3cjax.training.fleets import Fleet


class Muster(Protocol):
    """All that a run needs before its folder is made."""

    config: Config
    """With nothing left open."""
    agent: Agent
    spec: EnvironmentSpec
    num_seeds: int
    """Of environments of all actor-learners, also of those that were made once more."""

    def assemble(self, checkpoint: Checkpoint | None, run_dir: Path) -> Fleet:
        """Play at random, and make parameters and actor-learners: see `assembly.assemble`."""
        ...

    def close(self) -> None:
        """Free environments and processes; a second call does nothing."""
        ...


class ThreadMuster:
    """Environments and actor-learners of this process."""

    def __init__(self, config: Config, past: Progress, supervisor: Supervisor, parts: Parts):
        self._supervisor = supervisor
        self.config, self.agent, self._batches = prepare(config, past.num_seeds, supervisor, parts)
        self.spec = self._batches[0].spec
        self.num_seeds = sum(batch.num_envs for batch in self._batches)

    def assemble(self, checkpoint: Checkpoint | None, run_dir: Path) -> Fleet:
        """See `Muster.assemble`."""
        shutil.rmtree(run_dir / SHARDS, ignore_errors=True)  # of an earlier life, on a cluster
        return assemble(
            self.config,
            self.agent,
            self._batches,
            checkpoint=checkpoint,
            supervisor=self._supervisor,
        )

    def close(self) -> None:
        """Free the environments, each in its own thread."""
        close_all(self._batches, self._supervisor)


@contextlib.contextmanager
def engine_of(config: Config) -> Iterator[Engine | None]:
    """Ray, if the settings want it; to be entered before JAX is used.

    Raises:
      ConfigError: where it is not installed, or does not start.
    """
    if config.cluster is None:
        yield None
        return
    address = config.ray_address
    tell("starting Ray ..." if address is None else f"joining {address} ...")
    with environment_of_ray(is_private=address is None):
        try:
            from a3cjax.cluster.ray_engine import ray_engine
        except ImportError as error:
            raise ConfigError(
                f"cluster must be null where Ray is missing ({error}), got {config.cluster}: in a "
                "checkout, pip install '.[ray]'."
            ) from error
        with ray_engine(address) as engine:
            yield engine
