"""Asynchronous advantage actor-critic in JAX: the pure layer.

Returns, distributions and losses take time-major `[T, B]` arrays and work inside any JAX
program. Training lives in `a3cjax.training` and is not imported here: `Config`, `train` and
`load`, which brings a trained agent back, are imported only when they are accessed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a3cjax.config.settings import Config
    from a3cjax.distributions import (
        Categorical,
        Density,
        DiagonalGaussian,
        Distribution,
        EpsilonGreedy,
        MultiCategorical,
        SquashedGaussian,
        mask_logits,
    )
    from a3cjax.losses import (
        actor_critic_loss,
        clipped_surrogate_loss,
        entropy_loss,
        policy_gradient_loss,
        q_loss,
        value_loss,
    )
    from a3cjax.returns import (
        VTrace,
        double_q_targets,
        gae_advantages,
        lambda_returns,
        n_step_returns,
        one_step_q_targets,
        one_step_sarsa_targets,
        vtrace_targets,
    )
    from a3cjax.runs.loading import load
    from a3cjax.training.run import train
    from a3cjax.types import (
        ActorCriticMetrics,
        Constants,
        Exploration,
        LearnerState,
        NetworkOutput,
        ObservationStatistics,
        QMetrics,
        Snapshot,
        TimeStep,
        Trajectory,
    )

__all__ = [
    "ActorCriticMetrics",
    "Categorical",
    "Config",
    "Constants",
    "Density",
    "DiagonalGaussian",
    "Distribution",
    "EpsilonGreedy",
    "Exploration",
    "LearnerState",
    "MultiCategorical",
    "NetworkOutput",
    "ObservationStatistics",
    "QMetrics",
    "Snapshot",
    "SquashedGaussian",
    "TimeStep",
    "Trajectory",
    "VTrace",
    "actor_critic_loss",
    "clipped_surrogate_loss",
    "double_q_targets",
    "entropy_loss",
    "gae_advantages",
    "lambda_returns",
    "load",
    "mask_logits",
    "n_step_returns",
    "one_step_q_targets",
    "one_step_sarsa_targets",
    "policy_gradient_loss",
    "q_loss",
    "train",
    "value_loss",
    "vtrace_targets",
]

# The module of each name. Imported on access: the command line answers before JAX is imported.
_HOMES = {
    "distributions": (
        "Categorical Density DiagonalGaussian Distribution EpsilonGreedy "
        "MultiCategorical SquashedGaussian mask_logits"
    ),
    "losses": (
        "actor_critic_loss clipped_surrogate_loss entropy_loss policy_gradient_loss "
        "q_loss value_loss"
    ),
    "returns": (
        "VTrace double_q_targets gae_advantages lambda_returns n_step_returns "
        "one_step_q_targets one_step_sarsa_targets vtrace_targets"
    ),
    "types": (
        "ActorCriticMetrics Constants Exploration LearnerState NetworkOutput ObservationStatistics "
        "QMetrics Snapshot TimeStep Trajectory"
    ),
    "runs.loading": "load",
    "config.settings": "Config",
    "training.run": "train",
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names.split():
            try:
                return getattr(importlib.import_module(f"a3cjax.{home}"), name)
            except ModuleNotFoundError as error:
                from a3cjax.errors import missing_extra

                if (told := missing_extra(name, error)) is not error:
                    error.add_note(str(told))
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
