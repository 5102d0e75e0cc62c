"""Trains an agent: `python experiments/run.py env=Pong`, with any setting as `name=value`.

Exit codes: 0 done, 1 something failed (the traceback says what), 2 a wrong setting (one
line says which), 130 or 143 stopped by SIGINT or SIGTERM after saving.
"""

import os
import sys
from typing import Any, cast

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from a3cjax.config import ConfigError, check_override, make_config
from a3cjax.training import train


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(settings: DictConfig) -> None:
    """Runs one training job; Hydra calls it once, or once for each point of a sweep."""
    config = make_config(cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True)))
    summary = train(config)
    if summary.signal_number is not None:
        sys.exit(128 + summary.signal_number)


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here instead of being printed
    try:
        for argument in sys.argv[1:]:
            check_override(argument)
        main()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
