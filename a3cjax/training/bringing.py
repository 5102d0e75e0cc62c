"""What people bring to `train` besides the settings, checked before anything is started."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from a3cjax.agents import ALGORITHMS, Algorithm
from a3cjax.agents.base import ALGORITHM_HEADS
from a3cjax.config.bringing import NO_PARTS, Parts
from a3cjax.errors import ConfigError, quote
from a3cjax.logs.loggers import Logger
from a3cjax.training.callbacks import as_tuple


class Brought(NamedTuple):
    """All that a run gets from its caller besides settings."""

    parts: Parts = NO_PARTS
    callbacks: tuple[Any, ...] = ()
    loggers: tuple[Logger, ...] = ()


LOGGER_METHODS = tuple(name for name in vars(Logger) if not name.startswith("_"))


def check_loggers(loggers: Sequence[Any]) -> tuple[Logger, ...]:
    """The loggers as a tuple, once all are known to have a logger's methods.

    Raises:
      TypeError: for one that lacks a method, which subclasses of Logger have all; and for one that
        is not in a list.
    """
    loggers = as_tuple("loggers", loggers)
    for logger in loggers:
        missing = [name for name in LOGGER_METHODS if not hasattr(logger, name)]
        if missing or isinstance(logger, type):
            rule = "loggers must be objects of a subclass of a3cjax.logs.loggers.Logger"
            raise TypeError(f"{rule}, got {quote(logger)} without {', '.join(missing) or 'self'}.")
    return loggers


def register(algorithm: Any) -> str:
    """The name of an algorithm; an `Algorithm` is registered under the name of its `make`.

    Raises:
      ConfigError: if it is not an algorithm, or would replace one of the package's own.
    """
    if isinstance(algorithm, str):
        return algorithm
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            "algorithm must be a name or an Algorithm of a3cjax.agents, as in "
            f'Algorithm(make_mine, head="actor_critic"), got {quote(algorithm)}.'
        )
    if algorithm.head not in ALGORITHM_HEADS:
        raise ConfigError(f"head must be {' or '.join(ALGORITHM_HEADS)}, got {algorithm.head}.")
    make: Any = algorithm.make
    while isinstance(make, functools.partial):
        make = make.func
    name = getattr(make, "__name__", "").removeprefix("make_")
    if not name.isidentifier():
        rule = "algorithm must be made by a function with a name, which becomes its own"
        raise ConfigError(f"{rule}, got {quote(algorithm.make)}.")
    there = ALGORITHMS.get(name)
    is_ours = there is not None and there.make.__module__.startswith("a3cjax.")
    if is_ours and there != algorithm:
        raise ConfigError(
            f"algorithm must have a name that is not taken, got {name}: its function can be "
            f"called make_my_{name}."
        )
    ALGORITHMS[name] = algorithm
    return name
