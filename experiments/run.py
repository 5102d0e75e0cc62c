"""Trains an agent: `python experiments/run.py env=Pong`, with any setting as `name=value`."""


import hydra
from omegaconf import DictConfig, OmegaConf

from a3cjax.config import make_config
from a3cjax.training import train



@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(settings: DictConfig) -> None:
    config = make_config(OmegaConf.to_container(settings, resolve=True))
    summary = train(config)
    print(summary)


if __name__ == "__main__":
    main()
