"""A batch of Gymnasium environments, stepped one after the other, each answer checked by itself.

Gymnasium's own SyncVectorEnv first writes answers into arrays, where those of another shape fail
or are changed. It also gathers infos, of which only masks of actions are read here.
"""

import contextlib
import inspect
import numbers
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.vector import VectorEnv, VectorWrapper

from a3cjax.envs.actions import ActionMasks
from a3cjax.envs.spaces import AnswerError, describe, leaves_of, sorted_keys
from a3cjax.errors import ConfigError
from a3cjax.system.life import show_life

RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")

# The kinds of dtypes that may stand for an announced one: whole numbers are numbers, too.
_KINDS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}

# Environments of all batches of this process, by id: some cannot be hashed.
_IN_USE = weakref.WeakValueDictionary[int, gymnasium.Env | VectorEnv]()


class GymnasiumBatch:
    """B environments behind Gymnasium's vector interface, as far as it is used here.

    They are reset automatically one step late: the step after an end ignores its action and
    returns the first observation of the next episode. Infos are dropped except masks of actions
    (`actions.ActionMasks`).

    All methods raise what an environment raises, and AnswerError for what it must not return.
    """

    def __init__(self, env: str, make: Callable[[], gymnasium.Env], num_envs: int):
        """Call `make` B times; `env` is for messages.

        Raises:
          ConfigError: if one lacks its spaces, or `reset` takes neither seed nor options, or it
            is one that is in use already.
          Exception: whatever `make` raises; those made before are closed.
        """
        self._env = env
        self.envs: list[gymnasium.Env] = []
        try:
            for index in range(num_envs):
                self.envs.append(make())
                self.envs[-1] = _counting(self.envs[-1], env, index)
                claim(self.envs[-1], env)
                for name in ("observation_space", "action_space"):
                    check_space(name, self.envs[-1], self.envs[0], env)
                show_life()
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong before tells more
                self.close()
            raise
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.metadata = self.envs[0].metadata
        self.render_mode = self.envs[0].render_mode
        self.resets_next = np.zeros(num_envs, bool)
        self._masks = ActionMasks(self.single_action_space, num_envs)
        self._where_steps = [_place("step()", env, index) for index in range(num_envs)]
        self._leaves: list[list[np.ndarray]] = [[]] * num_envs  # what each has shown last

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Start all anew, environment i with `seed + i`; or those of `options["reset_mask"]`."""
        mask = np.ones(len(self.envs), bool) if options is None else options["reset_mask"]
        for index in np.flatnonzero(mask).tolist():
            self._reset(index, None if seed is None else seed + index)
        return self._stack(), self._masks.stack()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action for each: observations, rewards, terminated, truncated and masks."""
        rewards = np.zeros(len(self.envs))
        terminated, truncated = np.zeros((2, len(self.envs)), bool)
        resets_next = self.resets_next.tolist()
        for index, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            if resets_next[index]:
                self._reset(index)
                continue
            where = self._where_steps[index]
            # From a Box without axes NumPy's loop makes numbers, which the space does not contain.
            action = np.asarray(action) if isinstance(self.single_action_space, Box) else action
            answer = check_count("step()", env.step(action), STEP, where)
            self._leaves[index] = check_leaves(self.single_observation_space, answer[0], where)
            rewards[index] = _check_number("rewards", "numbers", answer[1], where)
            terminated[index] = _check_number("terminated", "True or False", answer[2], where)
            truncated[index] = _check_number("truncated", "True or False", answer[3], where)
            is_over = bool(terminated[index] or truncated[index])
            self._masks.read(index, answer[4], where, is_over=is_over)
            show_life()
        self.resets_next = terminated | truncated
        return self._stack(), rewards, terminated, truncated, self._masks.stack()

    def render(self) -> tuple[Any]:
        """The first environment's picture."""
        return (self.envs[0].render(),)

    def close(self) -> None:
        """Close all, once; what any of them raises is raised when all have been tried."""
        envs, self.envs = self.envs, []
        with contextlib.ExitStack() as stack:
            for env in reversed(envs):
                stack.callback(show_life)
                stack.callback(env.close)
                release(env)

    def _reset(self, index: int, seed: int | None = None) -> None:
        env, where = self.envs[index], _place("reset()", self._env, index)
        answer = check_count("reset()", env.reset(seed=seed, options=None), RESET, where)
        self._leaves[index] = check_leaves(self.single_observation_space, answer[0], where)
        self._masks.read(index, answer[1], where)
        self.resets_next[index] = False
        show_life()

    def _stack(self) -> Any:
        columns = (np.stack(column) for column in zip(*self._leaves, strict=True))
        return nest(self.single_observation_space, columns)


def claim(env: gymnasium.Env | VectorEnv, name: str) -> None:
    """Raise a ConfigError if an environment is in use, beneath its wrappers; else note that it is.

    Stepped as two, one would mix the games of both.
    """
    own = _innermost(env)
    if id(own) in _IN_USE:
        raise ConfigError(
            f"env must be made anew by every call, as by env=lambda: {type(own).__name__}(), got "
            f"{name}, which returned one that is in use."
        )
    _IN_USE[id(own)] = own


def release(env: gymnasium.Env | VectorEnv) -> None:
    """Take back `claim`."""
    _IN_USE.pop(id(_innermost(env)), None)


def _innermost(env: gymnasium.Env | VectorEnv) -> gymnasium.Env | VectorEnv:
    """Beneath Gymnasium's wrappers. An environment's own `unwrapped` may be shared by right."""
    while isinstance(env, gymnasium.Wrapper | VectorWrapper):
        env = env.env
    return env


def _place(call: str, env: str, index: int) -> str:
    return f"{call} of {env} (environment {index} of the batch)"


def nest(space: gymnasium.Space, leaves: Iterator[Any]) -> Any:
    """The leaves, in the order of `leaves_of`, nested as the space is."""
    if isinstance(space, Dict):
        return {key: nest(space[key], leaves) for key in sorted_keys(space)}
    if isinstance(space, Tuple):
        return tuple(nest(part, leaves) for part in space)
    return next(leaves)


class _Counted(gymnasium.Wrapper):
    """Checks how many values are returned before a wrapper of Gymnasium's unpacks them."""

    def __init__(self, layer: gymnasium.Env, env: str, index: int):
        super().__init__(layer)
        self._where = _place("reset()", env, index), _place("step()", env, index)
        try:
            signature = inspect.signature(layer.reset, follow_wrapped=False)
        except ValueError:  # a built-in function does not tell what it takes
            return
        try:
            signature.bind(seed=None, options=None)
        except TypeError as error:
            raise ConfigError(
                f"env must have reset(seed=None, options=None), got {env} with reset{signature}, "
                "the API before Gymnasium 0.26."
            ) from error

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        answer = self.env.reset(seed=seed, options=options)
        return check_count("reset()", answer, RESET, self._where[0])

    def step(self, action: Any) -> Any:
        return check_count("step()", self.env.step(action), STEP, self._where[1])


def _counting(env: gymnasium.Env, name: str, index: int) -> gymnasium.Env:
    """Put a _Counted below Gymnasium's own wrappers; what users wrap may follow any API."""
    lowest, layer = None, env
    while isinstance(layer, gymnasium.Wrapper):
        if type(layer).__module__.startswith("gymnasium.wrappers"):
            lowest = layer
        layer = layer.env
    if lowest is None:
        return _Counted(env, name, index)
    lowest.env = _Counted(lowest.env, name, index)
    return env


def check_space(name: str, env: Any, first: Any, called: str) -> None:
    """Raise a ConfigError unless an environment has this space, and the same as the first."""
    space = getattr(env, name, None)
    if not isinstance(space, gymnasium.Space):
        got = f"{called} with {describe(space)}" if space is not None else f"{called} without one"
        raise ConfigError(f"env must have an {name}, a space of Gymnasium, got {got}.")
    if space != getattr(first, name):
        got = f"{called} with {getattr(first, name)} and {space}"
        raise ConfigError(f"env must have the same {name} whenever it is made, got {got}.")


def check_count(call: str, answer: Any, names: tuple[str, ...], where: str) -> Any:
    """An answer, if it has a value for each of `names`; else raises an AnswerError with them."""
    is_tuple = isinstance(answer, tuple | list)
    if is_tuple and len(answer) == len(names):
        return answer
    got = f"{len(answer)}" if is_tuple else describe(answer)
    is_old = len(answer) == len(names) - 1 if is_tuple else names == RESET
    hint = " (the API before Gymnasium 0.26)" if is_old else ""
    rule = f"{call} must return {len(names)} values, got {got}{hint}"
    raise AnswerError(f"{rule} in {where}: {', '.join(names)}.")


def _check_number(name: str, rule: str, value: Any, where: str) -> float:
    if isinstance(value, bool) or (rule == "numbers" and isinstance(value, float)):
        return value
    try:
        # numpy's numbers are real ones; those of other libraries can be arrays.
        number = np.asarray(value)[()] if not isinstance(value, numbers.Real) else value
        is_number = isinstance(number, numbers.Real | np.bool_) and not np.ma.is_masked(value)
        is_number = is_number and not isinstance(number, np.timedelta64)
        if is_number and (rule == "numbers" or number in (0, 1)):
            return float(number)
    except Exception:  # what other libraries raise
        pass
    raise AnswerError(f"{name} must be {rule}, got {describe(value)} in {where}.")


def check_leaves(
    space: gymnasium.Space, observation: Any, where: str, batch: tuple[int, ...] = ()
) -> list[np.ndarray]:
    """The leaves as fresh arrays, whole numbers in the dtype that was announced.

    `batch` is the shape of the axes before those of a single observation.

    Raises:
      AnswerError: if they are not as announced; names `where`.
    """
    leaves = leaves_of(space, observation, where)
    return [check_leaf(*named, where, batch=batch) for named in leaves]


def check_leaf(
    name: str,
    leaf: gymnasium.Space,
    value: Any,
    where: str,
    *,
    batch: tuple[int, ...] = (),
    may_be_batch: bool = False,
) -> np.ndarray:
    """A leaf of an observation as a fresh array, whole numbers in the dtype that was announced.

    `batch` is the shape of the axes before its own. `may_be_batch`: it may have one more in front.

    Raises:
      AnswerError: if it is of another shape, or of numbers that its space cannot have.
    """
    assert leaf.dtype is not None
    assert leaf.shape is not None
    announced = (*batch, *leaf.shape)
    try:
        array = np.array(value)  # a copy: environments may share what they write into
    except Exception:  # lists of lists of several lengths, arrays of other libraries
        array = np.array(None)
    shape = array.shape[1:] if may_be_batch and array.ndim > len(announced) else array.shape
    if (
        np.ma.is_masked(value)
        or shape != announced
        or array.dtype.kind not in _KINDS[leaf.dtype.kind]
    ):
        further = "or a batch of them" if may_be_batch else "as announced"
        rule = f"of shape {announced} and {leaf.dtype}, {further}"
        got = describe(array if array.dtype.kind in "biufc" else value)
        raise AnswerError(f"{name} must be {rule}, got {got} in {where}.")
    if leaf.dtype.kind in "iu" and array.dtype != leaf.dtype:
        whole = array.astype(leaf.dtype)
        if (whole != array).any():
            wrong = array[whole != array].flat[0]
            limits = np.iinfo(leaf.dtype)
            rule = f"in [{limits.min}, {limits.max}] as {leaf.dtype}"
            raise AnswerError(f"{name} must be {rule}, got {wrong} in {where}.")
        array = whole
    return array


# Gymnasium's wrappers that remember nothing, or nothing that an observation or reward depends on.
_FORGETFUL = (
    _Counted,
    *(wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker),
    *(wrappers.RecordEpisodeStatistics, wrappers.HumanRendering),
    *(wrappers.TransformObservation, wrappers.TransformReward, wrappers.TransformAction),
)


def check_wrappers(env: gymnasium.Env) -> None:
    """Raise a ValueError if a wrapper may remember something that nobody keeps."""
    while isinstance(env, gymnasium.Wrapper):
        if not isinstance(env, _FORGETFUL):
            raise ValueError(f"nobody keeps what the wrapper {type(env).__name__} may remember")
        env = env.env
