"""Environments by name: the only importer of envpool, and of environments from Gymnasium."""

import contextlib
import difflib
import functools
import importlib
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import envpool
import gymnasium
import numpy as np
from envpool.registration import registry

from a3cjax.envs.batches import VectorEnvironments, noting
from a3cjax.envs.spaces import leaves_of
from a3cjax.errors import ConfigError

GYMNASIUM_PREFIX = "gymnasium:"

# Seeds of training environments start at seed · SEEDS_PER_RUN; evaluation uses the upper half.
SEEDS_PER_RUN = 100_000
EVALUATION_SEED_OFFSET = SEEDS_PER_RUN // 2

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

# What other libraries put around the name of a game: `ALE/Pong-v5`, `PongNoFrameskip-v4`.
_OTHER_IDS = re.compile(r"^ALE/|(-ram)?(NoFrameskip|Deterministic)?(-v\d+)?$")

# They wait for opponents, or crash the process.
_SEVERAL_PLAYERS = {"Cig-v1", "MultiDuel-v1"}

# Where OpenGL is missing, MuJoCo ends the process instead of raising.
_ENDS_THE_PROCESS = "envpool.mujoco"
_TRY_TO_RENDER = """
import sys, envpool
envs = envpool.make_gymnasium(sys.argv[1], num_envs=1, render_mode="rgb_array")
envs.reset()
envs.render()
"""
_TRY_SECONDS = 60


def make_environments(
    env: str,
    *,
    num_envs: int,
    seed: int,
    discount: float,
    protocol: str = "paper",
    is_evaluation: bool = False,
    sticky_actions: float | None = None,
    num_threads: int = 1,
    renders: bool = False,
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
      sticky_actions: of Atari games, the probability that a frame repeats the action of the
        one before; None for the protocol's.
      num_threads: of the pool.
      renders: whether they are to have pictures, where they can.

    Returns:
      The environments, already reset once.

    Raises:
      ConfigError: if there is no such environment, its spaces are of another kind, or it has
        no sticky actions.
    """
    is_gymnasium = env.startswith(GYMNASIUM_PREFIX)
    if sticky_actions is not None and (is_gymnasium or not _is_atari(resolve_envpool_id(env))):
        raise ConfigError(f"env must be an Atari game to have sticky actions, got {env}.")
    if is_gymnasium:
        return _make_gymnasium(
            env.removeprefix(GYMNASIUM_PREFIX), num_envs, seed, discount, renders
        )
    env_id = resolve_envpool_id(env)
    if env_id in _SEVERAL_PLAYERS:
        raise ConfigError(f"env must have a single player, got {env}.")
    try:
        envs = make_pool(
            env_id,
            num_envs=num_envs,
            seed=seed,
            protocol=protocol,
            is_evaluation=is_evaluation,
            sticky_actions=sticky_actions,
            num_threads=num_threads,
            renders=renders and _can_render(env_id),
        )
    except (ImportError, RuntimeError) as error:  # libraries or files that some games need
        raise ConfigError(f"env must be one that envpool can make, got {env}: {error}") from error
    # Frames are what games show. Elsewhere frame_skip counts steps of a physics integrator, and
    # results on MuJoCo and dm_control are told in steps of the agent.
    with _without_warnings_on_bounds():
        shows_frames = envs.single_observation_space.dtype == np.uint8
        environments = VectorEnvironments(
            env_id,
            envs,
            discount=discount,
            frames_per_step=_envpool_fields(env_id).get("frame_skip", 1) if shows_frames else 1,
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
    sticky_actions: float | None = None,
    num_threads: int = 1,
    renders: bool = False,
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
        if sticky_actions is not None:
            options["repeat_action_probability"] = sticky_actions
    is_vizdoom = "use_combined_action" in _envpool_fields(env_id)
    if is_vizdoom:
        options["use_combined_action"] = True  # buttons are pressed or not
    with _without_warnings_on_bounds():
        spec = envpool.make_spec(env_id, **options)
        _check_spaces(env_id, spec.gymnasium_observation_space, spec.gymnasium_action_space)
        if renders:
            options["render_mode"] = "rgb_array"
        make = functools.partial(envpool.make, env_id, env_type="gymnasium", seed=seed, **options)
        if is_vizdoom and num_envs > 1:
            # Its processes race for files that the first one writes in the working directory:
            # where they were missing, half of the pools hung or crashed.
            first = make(num_envs=1, num_threads=1)
            first.reset()
            first.close()
            del first
        return make(num_envs=num_envs, num_threads=num_threads)


def _can_render(env_id: str) -> bool:
    """Whether it is safe to ask this environment of envpool's for pictures."""
    import_path = registry.specs[env_id][0]
    if not import_path.startswith(_ENDS_THE_PROCESS):
        return True
    command = [sys.executable, "-c", _TRY_TO_RENDER, env_id]
    try:
        with tempfile.TemporaryDirectory() as folder:  # where MuJoCo leaves its log
            tried = subprocess.run(command, cwd=folder, capture_output=True, timeout=_TRY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _make_gymnasium(
    env_id: str, num_envs: int, seed: int, discount: float, renders: bool
) -> VectorEnvironments:
    env = GYMNASIUM_PREFIX + env_id
    module, colon, _ = env_id.rpartition(":")
    if colon:
        # Gymnasium would import it, too, but not tell its errors from the constructor's.
        try:
            importlib.import_module(module)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"env must be in a module to import, got {env}: {reason}") from error
    make = functools.partial(
        gymnasium.make_vec,
        env_id,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP},
    )
    try:
        with noting(env, "the constructor"):
            envs = make()
            if renders and "rgb_array" in envs.metadata.get("render_modes", ()):
                envs.close()
                try:
                    envs = make(render_mode="rgb_array")
                except Exception as error:  # it may lack a library or a display
                    print(f"warning: {env} cannot be made with pictures: {error}", file=sys.stderr)
                    envs = make()
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


def _check_spaces(env: str, observation_space: gymnasium.Space, action_space: gymnasium.Space):
    box, discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
    if isinstance(action_space, box):
        is_supported = len(action_space.shape) == 1 and action_space.dtype.kind == "f"
    else:
        is_supported = isinstance(action_space, discrete)
    if not is_supported:
        raise ConfigError(
            f"env must have discrete actions or vectors of floats, got {env} with {action_space}."
        )
    leaves = [leaf.space for leaf in leaves_of(observation_space)]
    is_dict = isinstance(observation_space, gymnasium.spaces.Dict)
    supported = box if is_dict else box | discrete
    if not leaves or not all(isinstance(leaf, supported) for leaf in leaves):
        raise ConfigError(
            "env must have Box or Discrete observations or a Dict of Boxes, "
            f"got {env} with {observation_space}."
        )
    for space in (action_space, observation_space):
        if isinstance(space, discrete) and space.start != 0:
            raise ConfigError(f"env must have spaces that start at 0, got {env} with {space}.")


def resolve_envpool_id(env: str) -> str:
    """Completes an envpool id with its newest version: `Pong` -> `Pong-v5`; letters of any case.

    Raises:
      ConfigError: if there is none; says what it is called here, or names the nearest ones.
    """
    env_ids = sorted(envpool.list_all_envs(), key=_version)  # the newest of a name comes last
    newest = {name.lower(): env_id for env_id in env_ids if (name := env_id.rpartition("-v")[0])}
    ids = newest | {env_id.lower(): env_id for env_id in env_ids}
    # A few names differ in their capitals only: as they are written, they come first.
    ids |= {env_id.rpartition("-v")[0]: env_id for env_id in env_ids}
    ids |= dict(zip(env_ids, env_ids, strict=True))
    env_id = ids.get(env) or ids.get(env.lower())
    if env_id is not None:
        return env_id
    base = _OTHER_IDS.sub("", env).lower()
    nearest = [base] if base in newest else difflib.get_close_matches(base, newest, cutoff=0.5)
    names = ", ".join(newest[name].rpartition("-v")[0] for name in nearest)
    hint = f"; here it is {names}" if base in newest else f"; nearest: {names}" if names else ""
    raise ConfigError(f"env must be an envpool id or {GYMNASIUM_PREFIX}<id>, got {env}{hint}.")


def _version(env_id: str) -> int:
    return int(env_id.rpartition("-v")[2])


def canonical_name(env: str) -> str:
    """A game's name as it is spelt everywhere: `pong` and `Pong` are `Pong`, `pong-v5` `Pong-v5`.

    Raises:
      ConfigError: as `resolve_envpool_id`; names of Gymnasium are left alone.
    """
    if env.startswith(GYMNASIUM_PREFIX):
        return env
    env_id = resolve_envpool_id(env)
    return env_id if env.lower() == env_id.lower() else env_id.rpartition("-v")[0]


def _is_atari(env_id: str) -> bool:
    fields = _envpool_fields(env_id)
    return "episodic_life" in fields and "repeat_action_probability" in fields


@functools.cache
def _envpool_fields(env_id: str) -> dict[str, Any]:
    with _without_warnings_on_bounds():
        return envpool.make_spec(env_id).config._asdict()


@contextlib.contextmanager
def _without_warnings_on_bounds() -> Iterator[None]:
    """Gymnasium warns where a space's bounds are float64, as many of envpool's are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
