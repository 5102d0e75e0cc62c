"""Training: from a configuration to a run folder."""

from a3cjax.training.callbacks import Callback
from a3cjax.training.run import train

__all__ = ["Callback", "train"]
