"""Asynchronous advantage actor-critic in JAX: the pure layer.

Returns, distributions and losses take time-major `[T, B]` arrays and work inside any JAX
program. Training lives in `a3cjax.training` and is not imported here: `Config`, `train` and
`load`, which brings a trained agent back, import what they need when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a3cjax.config.settings import Config
    from a3cjax.distributions import (
        Categorical,
        DiagonalGaussian,
        MultiCategorical,
        SquashedGaussian,
    )
    from a3cjax.losses import (
        actor_critic_loss,
        entropy_loss,
        policy_gradient_loss,
        q_loss,
        value_loss,
    )
    from a3cjax.returns import (
        lambda_returns,
        n_step_returns,
        one_step_q_targets,
        one_step_sarsa_targets,
    )
    from a3cjax.runs.loading import load
    from a3cjax.training.run import train

__all__ = [
    "Categorical",
    "Config",
    "DiagonalGaussian",
    "MultiCategorical",
    "SquashedGaussian",
    "actor_critic_loss",
    "entropy_loss",
    "lambda_returns",
    "load",
    "n_step_returns",
    "one_step_q_targets",
    "one_step_sarsa_targets",
    "policy_gradient_loss",
    "q_loss",
    "train",
    "value_loss",
]

# Where each lies. Looked up when it is asked for: the command line answers before JAX is there.
_HOMES = {
    "distributions": "Categorical DiagonalGaussian MultiCategorical SquashedGaussian",
    "losses": "actor_critic_loss entropy_loss policy_gradient_loss q_loss value_loss",
    "returns": "lambda_returns n_step_returns one_step_q_targets one_step_sarsa_targets",
    "runs.loading": "load",
    "config.settings": "Config",
    "training.run": "train",
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"a3cjax.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
