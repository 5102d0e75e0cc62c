"""Environments: the batches that observations come from."""

from typing import TYPE_CHECKING, Any

from a3cjax.envs.base import Environments, EnvironmentSpec, Episode

if TYPE_CHECKING:
    from a3cjax.envs.making import make_environments

__all__ = ["EnvironmentSpec", "Environments", "Episode", "make_environments"]


def __getattr__(name: str) -> Any:
    """Import envpool only when environments are made: their specs are needed without it."""
    if name == "make_environments":
        from a3cjax.envs.making import make_environments

        return make_environments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
