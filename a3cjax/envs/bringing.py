"""Environments that people bring: functions that make them, and vector environments.

A configuration holds only names. What is brought is named `python:<module>:<name>`; the object
itself is passed along, or imported where the name allows it.
"""

import contextlib
import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from a3cjax.envs.batches import Noting, VectorEnvironments
from a3cjax.envs.gymnasium_batch import GymnasiumBatch
from a3cjax.envs.observations import AUTO
from a3cjax.envs.supported import check_spaces
from a3cjax.envs.vector_batch import VectorBatch
from a3cjax.errors import ConfigError, quote
from a3cjax.system.output import warn

PYTHON_PREFIX = "python:"

Source = Callable[..., gymnasium.Env | VectorEnv] | VectorEnv
"""A function (a class counts) that makes one environment or a vector of them; or such a vector."""


def name_source(source: Any) -> str:
    """`python:<module>:<name>` of a function, or `python:<module>:<<name>>` of what has none.

    Nothing can be imported by a name in angle brackets.

    Raises:
      ConfigError: for anything that does not make environments, such as an environment itself.
    """
    # A pool of envpool is both.
    if isinstance(source, gymnasium.Env) and not isinstance(source, VectorEnv):
        raise ConfigError(
            "env must be a function that makes environments, as in "
            f"env=lambda: {type(source.unwrapped).__name__}(): each actor-learner needs its own, "
            f"got one that is made already, {quote(source)}."
        )
    if not (callable(source) or isinstance(source, VectorEnv)):
        raise ConfigError(
            "env must be an id, a function that makes an environment, or a vector environment, "
            f"got {quote(source)}."
        )
    return PYTHON_PREFIX + path_of(source)


def path_of(thing: Any) -> str:
    """`<module>:<name>` of a Python object, or, in angle brackets, of what it is made of."""
    inner = thing
    while isinstance(inner, functools.partial):
        inner = inner.func
    target = inner if hasattr(inner, "__qualname__") else type(inner)
    is_named = target is thing and not inspect.ismethod(thing)
    name = target.__qualname__ if is_named else f"<{target.__qualname__}>"
    return f"{target.__module__}:{name}"


def find_source(name: str) -> Source:
    """Import what `python:<module>:<name>` names.

    Raises:
      ConfigError: if it cannot be imported: says that it must be passed.
    """
    module, _, path = name.removeprefix(PYTHON_PREFIX).partition(":")
    try:
        if not path or "<" in path:
            raise ImportError("it has no name that it could be imported by")
        source: Any = importlib.import_module(module)
        for part in path.split("."):
            source = getattr(source, part)
    except Exception as error:
        raise ConfigError(
            "env must be passed once more, as env=... of train, load or evaluate, where it cannot "
            f"be imported, got {name}: {type(error).__name__}: {error}"
        ) from error
    name_source(source)  # which refuses what makes no environments
    return source


def make_brought(
    name: str,
    source: Source,
    *,
    num_envs: int,
    seed: int,
    discount: float,
    renders: bool = False,
    image_layout: str = AUTO,
    env_kwargs: Mapping[str, Any] | None = None,
) -> VectorEnvironments:
    """Make a batch from what people bring; arguments as for `make_environments`.

    A vector environment fixes its own number of environments: `num_envs` is for functions that
    make a single one, or take it as an argument.

    Raises:
      ConfigError: if it cannot be called so, or its spaces are not supported.
      Exception: whatever it raises.
    """
    if isinstance(source, VectorEnv):
        if env_kwargs:
            raise ConfigError(
                f"env_kwargs must be null for an environment that is made, got {quote(env_kwargs)}."
            )
        return start(name, VectorBatch(name, source, is_own=False), seed, discount, image_layout)
    try:
        signature = inspect.signature(source)
    except ValueError:  # a built-in function does not tell what it takes
        signature = None
    parameters = {} if signature is None else signature.parameters
    options = given = dict(env_kwargs or {})
    if "num_envs" in parameters:  # it makes vector environments; some are seeded as they are made
        options = {"num_envs": num_envs, "seed": seed} | given
        options = {key: options[key] for key in options if key in (*given, *parameters)}

    def call(**more: str) -> Any:
        try:
            if signature is not None:
                signature.bind(**options)
        except TypeError as error:
            raise ConfigError(
                f"env_kwargs must be the arguments of {name}, got {quote(given)}: {error}."
            ) from error
        return source(**{**options, **more})  # pyright: ignore[reportCallIssue]

    with Noting(name, "the constructor"):
        first = call()
        if isinstance(first, gymnasium.Env) and options != given:  # where they mean something else
            with contextlib.suppress(Exception):  # only those that play must close soundly
                first.close()
            options = given
            first = call()
    kinds = [parameter.kind for parameter in parameters.values()]
    takes_mode = "render_mode" in parameters or inspect.Parameter.VAR_KEYWORD in kinds
    renders = renders and takes_mode and "render_mode" not in options
    if isinstance(first, VectorEnv):
        if renders and first.render_mode is None:
            with contextlib.suppress(Exception):  # it may not take the argument, or lack a library
                shown = call(render_mode="rgb_array")
                if shown is not first:
                    first.close()
                first = shown
        return start(name, VectorBatch(name, first, is_own=True), seed, discount, image_layout)
    if not isinstance(first, gymnasium.Env):
        raise ConfigError(
            "env must be a function that returns a gymnasium.Env or a vector environment of "
            f"gymnasium.vector, got {name}, which returned {quote(first)}."
        )
    made = [first]  # used, too: its constructor may be slow

    def make_one(**more: str) -> gymnasium.Env:
        return made.pop() if made and not more else call(**more)

    return start(name, make_batch(name, make_one, num_envs, renders), seed, discount, image_layout)


def make_batch(
    name: str, make_one: Callable[..., gymnasium.Env], num_envs: int, renders: bool
) -> GymnasiumBatch:
    """A batch of environments, with pictures if `renders` and they can show them."""

    def make(**options: str) -> GymnasiumBatch:
        return GymnasiumBatch(name, functools.partial(make_one, **options), num_envs)

    with Noting(name, "the constructor"):
        envs = make()
        if renders and "rgb_array" in envs.metadata.get("render_modes", ()):
            with contextlib.suppress(Exception):  # only those that play must close soundly
                envs.close()
            try:
                envs = make(render_mode="rgb_array")
            except Exception as error:  # it may lack a library or a display
                warn(f"{name} cannot be made with pictures: {error}")
                envs = make()
    return envs


def start(
    name: str,
    envs: GymnasiumBatch | VectorBatch,
    seed: int,
    discount: float,
    image_layout: str = AUTO,
) -> VectorEnvironments:
    """Check the spaces and seed the generators: environment i gets `seed + i`."""
    try:
        check_spaces(name, envs.single_observation_space, envs.single_action_space)
        with Noting(name, "reset()"), warnings.catch_warnings():
            # A pool that is passed has the seeds that it was made with.
            warnings.filterwarnings("ignore", "EnvPool seeds are fixed", UserWarning)
            envs.reset(seed=seed)
        spec = envs.envs[0].spec if isinstance(envs, GymnasiumBatch) else None
        return VectorEnvironments(
            name,
            envs,
            discount=discount,
            frames_per_step=1,
            is_atari=False,
            max_episode_steps=spec and spec.max_episode_steps,
            image_layout=image_layout,
        )
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong before tells more
            envs.close()
        raise
