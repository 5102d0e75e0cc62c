"""Environments: the only importer of envpool. Batches become TimeSteps here.

The traps of automatic resets, life losses and time limits end in this file; past it
there are only `discount` and `is_first`.
"""

import contextlib
import difflib
import functools
import importlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import envpool
import gymnasium
import numpy as np

from a3cjax.config import ConfigError
from a3cjax.convolutions import frames_to_blocks
from a3cjax.types import TimeStep

GYMNASIUM_PREFIX = "gymnasium:"

# Seeds of training environments start at seed · SEEDS_PER_RUN; evaluation uses the upper half.
SEEDS_PER_RUN = 100_000
EVALUATION_SEED_OFFSET = SEEDS_PER_RUN // 2

# What is larger becomes infinite as a 32-bit float.
MAX_FLOAT = np.finfo(np.float32).max

_PROTOCOLS: dict[str, dict[str, Any]] = {
    # Mnih et al. 2016, section 8, and 2015, methods: up to 30 no-ops, minimal actions; a lost
    # life ends a training episode.
    "paper": {
        "episodic_life": True,
        "noop_max": 30,
        "full_action_space": False,
        "repeat_action_probability": 0.0,
    },
    # Machado et al. 2018, table 5: sticky actions, all 18 actions, only game over ends.
    "machado": {
        "episodic_life": False,
        "noop_max": 1,  # envpool's least; sticky actions take the place of no-op starts
        "full_action_space": True,
        "repeat_action_probability": 0.25,
    },
}
PROTOCOL_NAMES = tuple(_PROTOCOLS)


class Episode(NamedTuple):
    """A finished game: where in the batch, the sum of its raw rewards, its agent steps."""

    environment_index: int
    episode_return: float
    episode_length: int


class EnvironmentSpec(NamedTuple):
    """What an agent must know of an environment to be built."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    num_actions: int
    frames_per_step: int
    is_image: bool
    is_atari: bool


class AnswerError(RuntimeError):
    """An environment returned what nothing can be learned from; the message is one line."""


class Environments(Protocol):
    """A batch of environments as an actor-learner drives it."""

    num_envs: int
    spec: EnvironmentSpec

    def reset(self) -> TimeStep:
        """Starts every environment anew: `is_first` everywhere, rewards 0."""
        ...

    def restart(self, indices: np.ndarray) -> None:
        """Starts the environments of these int indices anew; their next step goes on from there."""
        ...

    def step(self, actions: np.ndarray) -> TimeStep:
        """Takes int `[B]` actions.

        Raises:
          AnswerError: if an environment returns something else than finite numbers in the
            shape that it announced.
          Exception: whatever an environment raises.
        """
        ...

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call."""
        ...

    def close(self) -> None:
        """Frees the environments."""
        ...


class VectorEnvironments:
    """A batch behind Gymnasium's vector interface, envpool's or Gymnasium's own.

    Both reset automatically one step late: the step that ends an episode returns its
    true last observation; the next one ignores the action and returns the first
    observation of the new episode. That next one is what `is_first` marks.

    What environments return is checked before it can reach the parameters, and what they
    raise is passed on with a note; both name `env` and the call.
    """

    def __init__(
        self, env: str, envs: Any, *, discount: float, frames_per_step: int, is_atari: bool
    ):
        self._env = env
        self._envs = envs
        self._discount = discount
        space = envs.single_observation_space
        self._observation_shape: tuple[int, ...] = space.shape
        self._num_observations = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0
        self._was_done: np.ndarray = np.zeros(0, bool)
        self._returns: np.ndarray = np.zeros(0)
        self._lengths: np.ndarray = np.zeros(0, int)
        self._episodes: list[Episode] = []
        timestep = self.reset()
        self.num_envs = len(timestep.is_first)
        self.spec = EnvironmentSpec(
            observation_shape=timestep.observation.shape[1:],
            observation_dtype=timestep.observation.dtype,
            num_actions=int(envs.single_action_space.n),
            frames_per_step=frames_per_step,
            is_image=timestep.observation.dtype == np.uint8 and timestep.observation.ndim == 4,
            is_atari=is_atari,
        )

    def reset(self) -> TimeStep:
        """Starts every environment anew; running games are dropped."""
        with noting(self._env, "reset()"):
            observations, _ = self._envs.reset()
        num_envs = len(observations)
        self._check_observations(observations, (num_envs,), "reset()")
        self._was_done = np.zeros(num_envs, bool)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, int)
        return TimeStep(
            observation=self._convert(observations),
            reward=np.zeros(num_envs, np.float32),
            discount=np.full(num_envs, self._discount, np.float32),
            is_first=np.ones(num_envs, bool),
        )

    def restart(self, indices: np.ndarray) -> None:
        """Starts some environments anew and drops their games; the next step goes on from there."""
        if len(indices) == 0:
            return
        mask = np.zeros(self.num_envs, bool)
        mask[indices] = True
        with noting(self._env, "reset()"):
            self._envs.reset(options={"reset_mask": mask})
        self._was_done[indices] = False
        self._returns[indices] = 0
        self._lengths[indices] = 0

    def step(self, actions: np.ndarray) -> TimeStep:
        """Takes int `[B]` actions; where an episode just ended they are ignored."""
        with noting(self._env, "step()"):
            observations, rewards, terminated, truncated, info = self._envs.step(actions)
        self._check_observations(observations, self._was_done.shape, "step()")
        self._check("rewards", rewards, self._was_done.shape, "step()")
        is_first = self._was_done
        terminated = terminated & ~is_first
        truncated = truncated & ~is_first
        self._was_done = terminated | truncated

        self._returns += np.where(is_first, 0.0, rewards)
        self._lengths += ~is_first
        # In envpool's Atari, `terminated` includes lost lives and info["terminated"] does not.
        is_over = info["terminated"].astype(bool) if self._counts_lives(info) else terminated
        for i in np.flatnonzero((is_over | truncated) & ~is_first):
            self._episodes.append(Episode(int(i), float(self._returns[i]), int(self._lengths[i])))
            self._returns[i] = self._lengths[i] = 0

        return TimeStep(
            observation=self._convert(observations),
            reward=rewards.astype(np.float32),
            discount=np.where(terminated, 0.0, self._discount).astype(np.float32),
            is_first=is_first,
        )

    def pop_episodes(self) -> list[Episode]:
        """The games finished since the last call: raw rewards, closed at the real game over."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def close(self) -> None:
        """Frees the environments."""
        with noting(self._env, "close()"):
            self._envs.close()

    def _check_observations(
        self, observations: np.ndarray, batch_shape: tuple[int, ...], call: str
    ) -> None:
        shape = (*batch_shape, *self._observation_shape)
        self._check("observations", observations, shape, call)
        if self._num_observations:
            largest = self._num_observations - 1
            is_right = (observations >= 0) & (observations <= largest)
            self._check_all("observations", observations, is_right, f"in [0, {largest}]", call)

    def _check(self, name: str, values: np.ndarray, shape: tuple[int, ...], call: str) -> None:
        if values.shape != shape:
            raise AnswerError(
                f"{name} must be of shape {shape}, got {values.shape} in {call} of {self._env}."
            )
        if values.dtype.kind not in "biu":  # bytes and whole numbers are always finite
            # False for NaN, too.
            self._check_all(name, values, np.abs(values) <= MAX_FLOAT, "finite", call)

    def _check_all(
        self, name: str, values: np.ndarray, is_right: np.ndarray, rule: str, call: str
    ) -> None:
        if is_right.all():
            return
        where = tuple(np.argwhere(~is_right)[0])
        raise AnswerError(
            f"{name} must be {rule}, got {values[where]} in {call} of {self._env} "
            f"(environment {where[0]} of the batch)."
        )

    @staticmethod
    def _counts_lives(info: dict[str, Any]) -> bool:
        return "lives" in info and "terminated" in info

    def _convert(self, observations: np.ndarray) -> np.ndarray:
        """A fresh array in the layout that the networks read; the pool may reuse its own."""
        if self._num_observations:
            return np.eye(self._num_observations, dtype=np.float32)[observations.astype(int)]
        if observations.dtype == np.uint8 and observations.ndim == 4:
            if observations.shape[-1] in (1, 3, 4):  # channels last, as Gymnasium has them
                observations = np.moveaxis(observations, -1, 1)
            return frames_to_blocks(observations)
        return np.array(observations, np.float32)


def make_environments(
    env: str,
    *,
    num_envs: int,
    seed: int,
    discount: float,
    protocol: str = "paper",
    is_evaluation: bool = False,
    num_threads: int = 1,
) -> VectorEnvironments:
    """Makes a batch of environments.

    Args:
      env: an envpool id, with or without its version (`Pong`, `Pong-v5`), or
        `gymnasium:<id>`.
      num_envs: B.
      seed: environment i is seeded with `seed + i`.
      discount: γ.
      protocol: of Atari games, `paper` or `machado`; others ignore it.
      is_evaluation: whole games, without an end at a lost life.
      num_threads: of the pool.

    Returns:
      The environments, already reset once.

    Raises:
      ConfigError: if there is no such environment, or its spaces are of another kind.
    """
    if env.startswith(GYMNASIUM_PREFIX):
        return _make_gymnasium(env.removeprefix(GYMNASIUM_PREFIX), num_envs, seed, discount)
    env_id = resolve_envpool_id(env)
    try:
        envs = make_pool(
            env_id,
            num_envs=num_envs,
            seed=seed,
            protocol=protocol,
            is_evaluation=is_evaluation,
            num_threads=num_threads,
        )
    except (ImportError, RuntimeError) as error:  # libraries or files that some games need
        raise ConfigError(f"env must be one that envpool can make, got {env}: {error}") from error
    environments = VectorEnvironments(
        env_id,
        envs,
        discount=discount,
        frames_per_step=_envpool_fields(env_id).get("frame_skip", 1),
        is_atari=_is_atari(env_id),
    )
    if environments.num_envs != num_envs:  # an observation for each player
        environments.close()
        raise ConfigError(f"env must have a single player, got {env}.")
    return environments


def make_pool(
    env_id: str,
    *,
    num_envs: int,
    seed: int,
    protocol: str = "paper",
    is_evaluation: bool = False,
    num_threads: int = 1,
) -> Any:
    """envpool's own batch behind `make_environments`, not reset yet; arguments as there.

    Raises:
      ConfigError: if its spaces are of another kind.
    """
    options: dict[str, Any] = {}
    if _is_atari(env_id):
        options = dict(_PROTOCOLS[protocol])
        if is_evaluation:
            options["episodic_life"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Gymnasium on float64 space bounds
        spec = envpool.make_spec(env_id, **options)
        _check_spaces(env_id, spec.gymnasium_observation_space, spec.gymnasium_action_space)
        return envpool.make(
            env_id,
            env_type="gymnasium",
            num_envs=num_envs,
            num_threads=num_threads,
            seed=seed,
            **options,
        )


def _make_gymnasium(env_id: str, num_envs: int, seed: int, discount: float) -> VectorEnvironments:
    env = GYMNASIUM_PREFIX + env_id
    module, colon, _ = env_id.rpartition(":")
    if colon:
        # Gymnasium would import it, too, but not tell its errors from the constructor's.
        try:
            importlib.import_module(module)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"env must be in a module to import, got {env}: {reason}") from error
    try:
        with noting(env, "the constructor"):
            envs = gymnasium.make_vec(
                env_id,
                num_envs=num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP},
            )
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"env must be known to Gymnasium, got {env_id}: {error}") from error
    try:
        _check_spaces(env_id, envs.single_observation_space, envs.single_action_space)
        with noting(env, "reset()"):
            envs.reset(seed=seed)  # seeds the generators; environment i gets seed + i
        return VectorEnvironments(env, envs, discount=discount, frames_per_step=1, is_atari=False)
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong before tells more
            envs.close()
        raise


@contextlib.contextmanager
def noting(env: str, call: str) -> Iterator[None]:
    """Adds to what is raised inside which environment raised it, and in which call."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {call} of {env}")
        raise


def _check_spaces(env: str, observation_space: gymnasium.Space, action_space: gymnasium.Space):
    discrete = gymnasium.spaces.Discrete
    if not isinstance(action_space, discrete):
        raise ConfigError(f"env must have discrete actions, got {env} with {action_space}.")
    if not isinstance(observation_space, gymnasium.spaces.Box | discrete):
        raise ConfigError(
            f"env must have Box or Discrete observations, got {env} with {observation_space}."
        )
    for space in (action_space, observation_space):
        if isinstance(space, discrete) and space.start != 0:
            raise ConfigError(f"env must have spaces that start at 0, got {env} with {space}.")


def resolve_envpool_id(env: str) -> str:
    """Completes an envpool id with its newest version: `Pong` -> `Pong-v5`.

    Raises:
      ConfigError: if there is none; names the nearest ones.
    """
    env_ids = envpool.list_all_envs()
    if env in env_ids:
        return env
    versions = [known for known in env_ids if known.rpartition("-v")[0] == env]
    if versions:
        return max(versions, key=lambda known: int(known.rpartition("-v")[2]))
    names = sorted({known.rpartition("-v")[0] for known in env_ids})
    by_lower = {name.lower(): name for name in names}
    nearest = difflib.get_close_matches(env.lower(), by_lower, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(by_lower[name] for name in nearest)}" if nearest else ""
    raise ConfigError(f"env must be an envpool id or {GYMNASIUM_PREFIX}<id>, got {env}{hint}.")


def _is_atari(env_id: str) -> bool:
    fields = _envpool_fields(env_id)
    return "episodic_life" in fields and "repeat_action_probability" in fields


@functools.cache
def _envpool_fields(env_id: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return envpool.make_spec(env_id).config._asdict()
