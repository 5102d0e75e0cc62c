"""Python objects that people bring to a run, and their names in the settings."""

from typing import Any, NamedTuple

from flax import linen as nn

from a3cjax.config.settings import Config
from a3cjax.envs.bringing import PYTHON_PREFIX, Source, name_source, path_of
from a3cjax.errors import ConfigError, quote
from a3cjax.networks import Network, core_of


class Parts(NamedTuple):
    """The objects behind names in a configuration.

    `env` makes environments, or is a vector of them; `network` is a whole one, or a torso.
    """

    env: Source | None = None
    network: Network | nn.Module | None = None


NO_PARTS = Parts()


def bring(
    config: Config,
    env: str | Source | None = None,
    network: str | Network | nn.Module | None = None,
) -> tuple[Config, Parts]:
    """The settings with the names of what is brought, and the objects behind these names.

    Raises:
      ConfigError: if something is not an environment or network, or not that of the run to resume.
    """
    parts = Parts()
    if env is not None:
        parts = parts._replace(env=None if isinstance(env, str) else env)
        config = rename(config, "env", env if isinstance(env, str) else name_source(env))
    if network is not None:
        parts = parts._replace(network=None if isinstance(network, str) else network)
        name = network if isinstance(network, str) else _name_network(network, config.network)
        config = rename(config, "network", name)
    return config, parts


def rename(config: Config, setting: str, value: Any) -> Config:
    """The settings with this one changed.

    Raises:
      ConfigError: if a run to resume has another value. What is brought may be named anew.
    """
    changed, old = config.replace(**{setting: value}), getattr(config, setting)
    new = getattr(changed, setting)
    if config.resume is None or new == old:
        return changed
    if all(str(value).startswith(PYTHON_PREFIX) for value in (old, new)):
        return config
    raise ConfigError(f"{setting} must be {old}, as in the run to resume, got {new}.")


def _name_network(network: Any, configured: str) -> str:
    if isinstance(network, Network):
        return PYTHON_PREFIX + path_of(network.apply)
    if isinstance(network, nn.Module):
        return f"{PYTHON_PREFIX}{path_of(type(network))}_{core_of(configured)}"
    raise ConfigError(
        "network must be a name, a Network of a3cjax.networks, or a Flax module (linen) for the "
        f"torso, as in network=Torso(), got {quote(network)}."
    )
