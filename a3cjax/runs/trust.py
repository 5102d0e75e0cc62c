"""Code that the settings in a folder name: whether it may be imported."""

import sys
from pathlib import Path

from a3cjax.config.settings import Config
from a3cjax.envs.base import GYMNASIUM_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.runs.lock import is_own


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
