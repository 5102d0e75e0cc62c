"""Environments by name: the only importer of envpool, and of environments from Gymnasium."""

import contextlib
import difflib
import functools
import importlib
import os
import re
import subprocess
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from a3cjax.envs.base import GYMNASIUM_PREFIX
from a3cjax.envs.batches import VectorEnvironments
from a3cjax.envs.bringing import (
    PYTHON_PREFIX,
    Source,
    find_source,
    make_batch,
    make_brought,
    start,
)
from a3cjax.envs.lean_pool import LeanPool
from a3cjax.envs.observations import AUTO
from a3cjax.envs.supported import check_spaces
from a3cjax.errors import ConfigError, quote

# Importing this module takes matplotlib and half a second, for pictures of Jumanji's games that few
# ask for: until `_draw_jumanji`, a stand-in leaves these games without pictures.
JUMANJI_PICTURES = "envpool.jumanji.jumanji_render"
if "envpool" not in sys.modules:
    stand_in: Any = types.ModuleType(JUMANJI_PICTURES)
    stand_in.with_jumanji_python_render = lambda envs, _: envs
    sys.modules[JUMANJI_PICTURES] = stand_in
    importlib.import_module("envpool")
    del sys.modules[JUMANJI_PICTURES]

import envpool  # noqa: E402
from envpool.registration import registry  # noqa: E402

_CHECKED = set[str]()  # pools that can be learned on; asking envpool takes as long as a game

NO_LIMIT = np.iinfo(np.int32).max  # of steps of a game, as envpool writes it

_PROTOCOLS: dict[str, dict[str, Any]] = {
    # Mnih et al. 2016, section 8, and 2015, methods: up to 30 no-ops, minimal actions; a lost
    # life ends a training episode. Neither presses FIRE at a reset: that is envpool's usage, which
    # is said here so that another default of its cannot change results.
    "paper": {
        "episodic_life": True,
        "use_fire_reset": True,
        "noop_max": 30,
        "full_action_space": False,
        "repeat_action_probability": 0.0,
    },
    # Machado et al. 2018, table 5: sticky actions, all 18 actions, only game over ends.
    "machado": {
        "episodic_life": False,
        "noop_max": 1,  # envpool's least; sticky actions take the place of no-op starts
        "use_fire_reset": True,
        "full_action_space": True,
        "repeat_action_probability": 0.25,
    },
}
PROTOCOL_NAMES = tuple(_PROTOCOLS)

# What other libraries put around the name of a game: `ALE/Pong-v5`, `PongNoFrameskip-v4`.
_OTHER_IDS = re.compile(r"^ALE/|(-ram)?(NoFrameskip|Deterministic)?(-v\d+)?$")

# They wait for opponents, or crash the process.
_SEVERAL_PLAYERS = {"Cig-v1", "MultiDuel-v1"}

_GIVES_ARGUMENTS = "env_kwargs={name: value} gives them"
# Those of envpool's options that the run sets itself.
_OWN_OPTIONS = (
    *("num_envs", "batch_size", "num_threads", "seed", "env_seed", "env_type", "render_mode"),
    *("max_num_players", "gym_reset_return_info"),
)

_TRY_TO_RENDER = """
import sys, envpool
envs = envpool.make_gymnasium(sys.argv[1], num_envs=1, render_mode="rgb_array")
envs.reset()
envs.render()
"""


def make_environments(
    env: str,
    *,
    num_envs: int,
    seed: int,
    discount: float,
    protocol: str = "paper",
    has_whole_games: bool = False,
    sticky_actions: float | None = None,
    num_threads: int = 1,
    renders: bool = False,
    image_layout: str = AUTO,
    env_kwargs: Mapping[str, Any] | None = None,
    source: Source | None = None,
) -> VectorEnvironments:
    """Make a batch of environments.

    Args:
      env: an envpool id, with or without its version (`Pong`, `Pong-v5`), `gymnasium:<id>`, or
        `python:<module>:<function>`.
      num_envs: B.
      seed: environment i is seeded with `seed + i`.
      discount: γ.
      protocol: of Atari games, `paper` or `machado`; others ignore it.
      has_whole_games: of Atari games, whether only game over ends them, as in evaluations, not a
        lost life.
      sticky_actions: of Atari games, the probability that a frame repeats the action of the
        one before; None for the protocol's.
      num_threads: of envpool's pool.
      renders: whether they are to have pictures, if they can.
      image_layout: of observations that are images, see `plan_reading`.
      env_kwargs: arguments with which each is made; for envpool, its options.
      source: what a name `python:...` stands for; None to import it.

    Returns:
      The environments, already reset once.

    Raises:
      ConfigError: if there is no such environment, its spaces are not supported, none of its
        observations has the layout asked for, or it has no sticky actions.
    """
    is_gymnasium = env.startswith((GYMNASIUM_PREFIX, PYTHON_PREFIX))
    env_id = env if is_gymnasium else resolve_envpool_id(env)
    is_atari = not is_gymnasium and _family(env_id) == "envpool.atari"
    if sticky_actions is not None and not is_atari:
        raise ConfigError(f"env must be an Atari game to have sticky actions, got {env}.")
    common: dict[str, Any] = {"num_envs": num_envs, "seed": seed, "discount": discount}
    common |= {"renders": renders, "image_layout": image_layout}
    if env.startswith(PYTHON_PREFIX):
        source = find_source(env) if source is None else source
        return make_brought(env, source, **common, env_kwargs=env_kwargs)
    if is_gymnasium:
        return _make_gymnasium(env, **common, env_kwargs=env_kwargs or {})
    if env_id in _SEVERAL_PLAYERS:
        raise ConfigError(f"env must have a single player, got {env}.")
    options = (_PROTOCOLS[protocol] if is_atari else {}) | dict(env_kwargs or {})
    for name in set(_OWN_OPTIONS) & set(options):
        raise ConfigError(f"env_kwargs must leave {name} to the run, got {quote(options[name])}.")
    if is_atari and has_whole_games:
        options["episodic_life"] = False
    if sticky_actions is not None:
        if not isinstance(sticky_actions, Real) or not 0 <= sticky_actions <= 1:
            got = quote(sticky_actions)
            raise ConfigError(f"sticky_actions must be between 0 and 1, got {got}.")
        options["repeat_action_probability"] = sticky_actions
    try:
        envs = make_pool(env_id, num_envs, seed, num_threads, options, renders)
    except TypeError as error:
        if not env_kwargs:
            raise
        raise ConfigError(
            f"env_kwargs must be options that envpool has for {env_id}, "
            f"got {quote(dict(env_kwargs))}: {str(error).partition(chr(10))[0]}"
        ) from error
    except (ImportError, RuntimeError) as error:  # libraries or files that some games need
        raise ConfigError(f"env must be one that envpool can make, got {env}: {error}") from error
    with without_warnings_on_bounds():
        # Frames are what games show. Elsewhere frame_skip counts steps of a physics integrator,
        # and results on MuJoCo and dm_control are reported in steps of the agent.
        shows_frames = envs.single_observation_space.dtype == np.uint8
        frames_per_step = envs.config.get("frame_skip", 1) if shows_frames else 1
        limit = envs.config.get("max_episode_steps", NO_LIMIT)
        environments = VectorEnvironments(
            env_id,
            LeanPool(envs),
            discount=discount,
            frames_per_step=frames_per_step,
            is_atari=is_atari,
            max_episode_steps=None if limit >= NO_LIMIT else limit,
            image_layout=image_layout,
        )
    if environments.num_envs != num_envs:  # an observation for each player
        environments.close()
        raise ConfigError(f"env must have a single player, got {env}.")
    return environments


def make_pool(
    env_id: str,
    num_envs: int,
    seed: int,
    num_threads: int = 1,
    options: Mapping[str, Any] | None = None,
    renders: bool = False,
) -> Any:
    """envpool's own batch behind `make_environments`, not reset yet.

    Arguments are as there; `options` are envpool's, None for those of the paper's protocol.

    Raises:
      ConfigError: if its spaces are not supported.
    """
    if options is None:
        options = _PROTOCOLS["paper"] if _family(env_id) == "envpool.atari" else {}
    options = dict(options)
    is_vizdoom = _family(env_id) == "envpool.vizdoom"
    if is_vizdoom:
        options["use_combined_action"] = True  # buttons are pressed or not
    with without_warnings_on_bounds():
        pool = f"{env_id} {sorted(options.items())}"
        if pool not in _CHECKED:
            spec = envpool.make_spec(env_id, **options)
            check_spaces(env_id, spec.gymnasium_observation_space, spec.gymnasium_action_space)
            _CHECKED.add(pool)
        if renders and _can_render(env_id):
            options["render_mode"] = "rgb_array"
            if _family(env_id) == "envpool.jumanji":
                _draw_jumanji()
        make = functools.partial(envpool.make, env_id, env_type="gymnasium", seed=seed, **options)
        if is_vizdoom and num_envs > 1:
            # Its processes race for files that the first one writes in the working directory:
            # where they were missing, half of the pools hung or crashed.
            first = make(num_envs=1, num_threads=1)
            first.reset()
            first.close()
            del first
        return make(num_envs=num_envs, num_threads=num_threads)


def _draw_jumanji() -> None:
    """Give Jumanji's games their pictures back, see `JUMANJI_PICTURES`."""
    if JUMANJI_PICTURES not in sys.modules:
        importlib.reload(sys.modules["envpool.jumanji"])
    _have_own_fonts()


def _have_own_fonts() -> None:
    """Undo envpool's move of matplotlib's cache to /tmp, made for pictures of Jumanji's games.

    The cache there may list fonts of Python environments that are long gone.
    """
    if "envpool" in os.environ.get("MPLCONFIGDIR", ""):
        del os.environ["MPLCONFIGDIR"]


_have_own_fonts()  # somebody else may have imported envpool


def _can_render(env_id: str) -> bool:
    """Whether it is safe to ask for pictures: without OpenGL, MuJoCo ends the process."""
    if not _family(env_id).startswith("envpool.mujoco"):
        return True
    command = [sys.executable, "-c", _TRY_TO_RENDER, env_id]
    try:
        with tempfile.TemporaryDirectory() as folder:  # where MuJoCo leaves its log
            tried = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _make_gymnasium(
    env: str,
    num_envs: int,
    seed: int,
    discount: float,
    renders: bool,
    image_layout: str,
    env_kwargs: Mapping[str, Any],
) -> VectorEnvironments:
    env_id = env.removeprefix(GYMNASIUM_PREFIX)
    module, colon, _ = env_id.rpartition(":")
    if colon:
        # Gymnasium would import it, too, but not tell its errors from the constructor's.
        try:
            importlib.import_module(module)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"env must be in a module to import, got {env}: {reason}") from error

    # Every answer is checked, not only the first that Gymnasium's checker looks at.
    options = {"disable_env_checker": True, **env_kwargs}
    make_one = functools.partial(gymnasium.make, env_id, **options)
    try:
        envs = make_batch(env, make_one, num_envs, renders)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"env must be known to Gymnasium, got {env_id}: {error}") from error
    except TypeError as error:
        refusal = error.__cause__  # Gymnasium has rewritten it
        where = refusal and refusal.__traceback__
        if "argument" in str(refusal) and where and where.tb_next is None:
            got = f"{env} with {quote(dict(env_kwargs))}" if env_kwargs else env
            raise ConfigError(
                f"env_kwargs must be the arguments of its id ({_GIVES_ARGUMENTS}), "
                f"got {got}: {refusal}."
            ) from error
        raise
    except (AttributeError, LookupError) as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if frames[-1].f_code is load_env_creator.__code__:
            raise ConfigError(
                f"env must have an entry point that there is, got {env_id}: {error}."
            ) from error
        error.add_note(f"if it is for want of arguments: {_GIVES_ARGUMENTS}")
        raise
    return start(env, envs, seed, discount, image_layout)


def resolve_envpool_id(env: str) -> str:
    """Complete an envpool id, in whatever case, with its newest version: `Pong` -> `Pong-v5`.

    Raises:
      ConfigError: if there is none; says what it is called here, or names the nearest ones.
    """
    env_ids = sorted(envpool.list_all_envs(), key=lambda env_id: _name_and_version(env_id)[1])
    newest = {_name_and_version(env_id)[0]: env_id for env_id in env_ids}  # the newest come last
    ids = newest | {env_id: env_id for env_id in env_ids}
    # A few names differ only in capitals: the exact spelling comes first.
    env_id = ids.get(env) or {name.lower(): ids[name] for name in ids}.get(env.lower())
    if env_id is not None:
        return env_id
    names = {name.lower(): name for name in newest}
    base = _OTHER_IDS.sub("", env).lower()
    cutoff = 1.0 if ":" in env else 0.5  # with a colon it is no misspelt id of envpool's
    nearest = [base] if base in names else difflib.get_close_matches(base, names, cutoff=cutoff)
    told = ", ".join(names[name] for name in nearest)
    hint = f"; here it is {told}" if base in names else f"; nearest: {told}" if told else ""
    is_elsewhere = env.startswith((GYMNASIUM_PREFIX, PYTHON_PREFIX))
    elsewhere = f", {GYMNASIUM_PREFIX}<id> or {PYTHON_PREFIX}<module>:<function>"
    others = "" if is_elsewhere else elsewhere
    raise ConfigError(f"env must be an envpool id{others}, got {env}{hint}.")


def canonical_name(env: str) -> str:
    """A game's name as it is spelt everywhere: `pong` and `Pong` are `Pong`, `pong-v5` `Pong-v5`.

    Raises:
      ConfigError: as `resolve_envpool_id`; names of Gymnasium and Python are left alone.
    """
    if env.startswith((GYMNASIUM_PREFIX, PYTHON_PREFIX)):
        return env
    env_id = resolve_envpool_id(env)
    return env_id if env.lower() == env_id.lower() else _name_and_version(env_id)[0]


def _name_and_version(env_id: str) -> tuple[str, int]:
    """`Pong-v5` -> `Pong`, 5; an id without a version, as some of envpool 1.2.7, has 0."""
    name, _, version = env_id.rpartition("-v")
    return (name, int(version)) if name and version.isdecimal() else (env_id, 0)


def _family(env_id: str) -> str:
    """The module of envpool that an environment is in."""
    return registry.specs[env_id][0]


def without_warnings_on_bounds() -> contextlib.AbstractContextManager:
    """Gymnasium warns where a space's bounds are float64, as many of envpool's are."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
