"""Settings of a run, and the parts that they name."""

from a3cjax.config.reading import load_config, make_config, resume_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError

__all__ = ["Config", "ConfigError", "load_config", "make_config", "resume_config"]
