"""The containers of a3cjax for `jax.export`: importing this module registers them.

Functions that take or return a Trajectory, a TimeStep, a policy … can then be serialized, and
deserialized wherever this module is imported. In files, a container has the name of its class,
with `a3cjax.` before it.
"""

from jax import export

from a3cjax import distributions, types

CONTAINERS = (
    types.TimeStep,
    types.Trajectory,
    types.ObservationStatistics,
    types.NetworkOutput,
    types.Snapshot,
    types.Exploration,
    types.Constants,
    types.ActorCriticMetrics,
    types.QMetrics,
    distributions.Categorical,
    distributions.MultiCategorical,
    distributions.EpsilonGreedy,
    distributions.DiagonalGaussian,
    distributions.SquashedGaussian,
)

for _container in CONTAINERS:
    export.register_namedtuple_serialization(
        _container, serialized_name=f"a3cjax.{_container.__name__}"
    )
