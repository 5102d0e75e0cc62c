"""Code that the settings in a folder name: whether it may be imported."""

import sys
from pathlib import Path

from a3cjax.config.settings import Config
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.runs.lock import is_own


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
