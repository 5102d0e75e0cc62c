"""The parts of a run put together: environments, agent, shared parameters, actor-learners."""

import contextlib
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from a3cjax.actors.actor_learner import ActorLearner, Standing, make_programs
from a3cjax.actors.placement import place_actors
from a3cjax.actors.supervisor import Supervisor
from a3cjax.actors.warmup import warm_up
from a3cjax.agents import Agent
from a3cjax.config.builders import build_agent, build_optimizer, init_state, make_keys
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments
from a3cjax.envs.making import EVALUATION_SEED_OFFSET, SEEDS_PER_RUN, make_environments
from a3cjax.errors import ConfigError
from a3cjax.exploration import make_explore, spread_factors
from a3cjax.parameters.on_device import ParametersOnDevice
from a3cjax.parameters.shared import SharedParameters
from a3cjax.parameters.store import ParameterStore
from a3cjax.parameters.turns import take_turns
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.system.machine import available_cores
from a3cjax.training.fleet import Fleet
from a3cjax.types import TimeStep
from a3cjax.updates import make_apply_gradients


def prepare(config: Config, num_seeds: int = 0) -> tuple[Config, Agent, list[Environments]]:
    """Makes the environments of a run, and what follows from them.

    Args:
      config: settings.
      num_seeds: see `build_batches`.

    Returns:
      The settings with nothing left open, the agent, and every actor-learner's environments:
      the caller closes them.

    Raises:
      ConfigError: if settings do not fit the environment.
    """
    config = config.replace(num_actors=config.num_actors or available_cores())
    batches = build_batches(config, num_seeds)
    try:
        config = resolve(config, batches[0].spec)
        return config, build_agent(config, batches[0].spec), batches
    except BaseException:
        close_all(batches)
        raise


def build_batches(config: Config, num_seeds: int = 0) -> list[Environments]:
    """Every actor's training environments; no two environments share a seed.

    Args:
      config: settings, `num_actors` among them.
      num_seeds: used by the run before: a resumed run plays other games than it began with.

    Raises:
      ConfigError: if there is no such environment, its spaces are of another kind, or there
        are more environments than seeds.
    """
    assert config.num_actors is not None
    most = (EVALUATION_SEED_OFFSET - 1) // config.envs_per_actor
    if config.num_actors > most:
        raise ConfigError(
            f"num_actors must be <= {most} with envs_per_actor={config.envs_per_actor}, "
            f"got {config.num_actors}."
        )
    batches: list[Environments] = []
    num_envs = config.num_actors * config.envs_per_actor
    first_seed = num_seeds % (EVALUATION_SEED_OFFSET - num_envs)
    try:
        for index, place in enumerate(place_actors(config.num_actors)):
            with place.entered():
                batch = make_environments(
                    config.env,
                    num_envs=config.envs_per_actor,
                    seed=config.seed * SEEDS_PER_RUN + first_seed + index * config.envs_per_actor,
                    discount=config.discount,
                    protocol=config.protocol,
                )
            batches.append(batch)
    except BaseException:
        close_all(batches)
        raise
    return batches


def close_all(batches: Sequence[Environments]) -> None:
    """Frees all environments."""
    for batch in batches:
        batch.close()


def assemble(
    config: Config,
    agent: Agent,
    batches: Sequence[Environments],
    *,
    checkpoint: Checkpoint | None = None,
    supervisor: Supervisor | None = None,
) -> Fleet:
    """Makes the shared parameters and the actor-learners, after random play.

    Args:
      config: resolved.
      agent: what they run.
      batches: the environments of each.
      checkpoint: where the run goes on from; None where it begins.
      supervisor: of the run; None where it is watched by nobody.

    Returns:
      Actor-learners that stand where random play ended, or where the checkpoint says.

    Raises:
      CheckpointError: if environments cannot go on from the checkpoint.
      Exception: what random play raised, see `warm_up`.
    """
    past = checkpoint.progress if checkpoint else Progress()
    supervisor = supervisor or Supervisor()
    spec = batches[0].spec
    is_played = past.standings or past.num_frames >= config.total_frames
    timesteps, statistics, num_steps = warm_up(
        batches,
        0 if is_played else config.warmup_steps or 0,
        config.seed + SEEDS_PER_RUN * past.num_resumes,
        gather=bool(config.centre_observations) and checkpoint is None,
        supervisor=supervisor,
        stall_seconds=config.stall_timeout_seconds,
    )
    store = SharedParameters(
        checkpoint.state if checkpoint else init_state(config, agent, spec),
        make_apply_gradients(build_optimizer(config)),
        statistics=checkpoint.statistics if checkpoint else statistics,
        # Random play costs frames, too.
        num_frames=past.num_frames + num_steps * spec.frames_per_step,
        num_updates=past.num_updates,
        target_period_frames=config.target_period_frames,
        shares_statistics=config.shared_statistics,
    )
    fleet = Fleet(store)
    stores: Sequence[ParameterStore] = [store] * len(batches)
    if config.deterministic:
        stores = take_turns(
            store, len(batches), supervisor.stop_event, at_round_end=fleet.note_round
        )
    _add_actors(fleet, config, agent, batches, timesteps, stores, past.actor_keys)
    if past.standings:  # of a deterministic run, which goes on with as many actors
        fleet.restore(past.standings)
    if config.deterministic:
        fleet.note_round()
    return fleet


def _add_actors(
    fleet: Fleet,
    config: Config,
    agent: Agent,
    batches: Sequence[Environments],
    timesteps: Sequence[TimeStep],
    stores: Sequence[ParameterStore],
    keys: Sequence[Sequence[int]],
) -> None:
    """An actor-learner for each batch; the first go on with the keys of a checkpoint."""
    # Each actor's gradient keeps a core busy. With more at once than cores, the one that holds
    # the lock waits for a core, and all others for the lock: docs/decisions.md.
    # Actors that wait for their turn would keep the slots of those whose turn it is.
    slots = threading.BoundedSemaphore(available_cores())
    programs = make_programs(agent, contextlib.nullcontext() if config.deterministic else slots)
    places = place_actors(len(batches))
    factors = spread_factors(len(batches), config.entropy_spread)
    unroll_length = config.unroll_length
    assert config.exploration_frames is not None
    for index, (batch, timestep, place) in enumerate(zip(batches, timesteps, places, strict=True)):
        key = jax.random.fold_in(make_keys(config.seed).actors, index)
        if index < len(keys):
            key = jax.random.wrap_key_data(jnp.asarray(keys[index], jnp.uint32))
        start = (programs.initial_state(batch.num_envs), key)
        core_state, key = jax.device_put(start, place.device)
        actor = ActorLearner(
            index,
            programs,
            batch,
            ParametersOnDevice(stores[index], place.device),
            Standing(timestep, core_state, None, key),
            explore=make_explore(
                config.seed,
                index,
                batch.num_envs,
                num_frames=config.exploration_frames,
                entropy_factor=factors[index],
            ),
            unroll_length=None if isinstance(unroll_length, str) else unroll_length,
            total_frames=config.total_frames,
            report=fleet.reports.put,
        )
        fleet.add(actor, place)
