"""Whether code that is named by the settings in a folder may be imported."""

import sys
from pathlib import Path

from a3cjax.config.settings import Config
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError
from a3cjax.runs.lock import is_own


def check_trust(config: Config, folder: Path) -> None:
    """Refuse code that the settings in a folder name unless the user has asked for it.

    Users ask for code by training with it, or by importing it themselves.

    Raises:
      ConfigError: names the module.
    """
    prefix, _, env_id = config.env.partition(":")
    module, is_python = env_id.rpartition(":")[0], f"{prefix}:" == PYTHON_PREFIX
    # `python:` could call any function of a module that is imported, such as os.system.
    is_harmless = not is_python and module in sys.modules
    if module and not is_harmless and not is_own(folder, config.env):
        also = ", or what makes the environments is passed as env=..." if is_python else ""
        raise ConfigError(
            f"env must import no code of others, got {config.env} in {folder}: "
            f"with trust=true, {module} is imported{also}."
        )
