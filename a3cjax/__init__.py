"""Asynchronous advantage actor-critic in JAX: the pure layer.

Returns, distributions and losses take time-major `[T, B]` arrays and work inside any JAX
program. Training lives in `a3cjax.training` and is not imported here; `load`, which brings a
trained agent back, imports what it needs when it is called.
"""

from typing import TYPE_CHECKING

from a3cjax.distributions import Categorical, DiagonalGaussian
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

if TYPE_CHECKING:
    from a3cjax.runs.loading import StrPath
    from a3cjax.runs.playing import TrainedAgent

__all__ = [
    "Categorical",
    "DiagonalGaussian",
    "actor_critic_loss",
    "entropy_loss",
    "lambda_returns",
    "load",
    "n_step_returns",
    "one_step_q_targets",
    "one_step_sarsa_targets",
    "policy_gradient_loss",
    "q_loss",
    "value_loss",
]


def load(run_dir: "StrPath", *, best: bool = False) -> "TrainedAgent":
    """Loads a trained agent: `a3cjax.load("results/pong").evaluate()`.

    See `a3cjax.runs.loading.load` for arguments and errors, `TrainedAgent` for what it can do.
    """
    from a3cjax.runs.loading import load

    return load(run_dir, best=best)
