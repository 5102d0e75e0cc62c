"""The parts of a run put together: batches, store, actor-learners."""

import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from a3cjax.actors.actor_learner import ActorLearner, UpdateReport
from a3cjax.actors.placement import place_actors
from a3cjax.agents import Agent
from a3cjax.config.builders import build_optimizer, init_state, make_keys
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments, EnvironmentSpec
from a3cjax.envs.making import EVALUATION_SEED_OFFSET, SEEDS_PER_RUN, make_environments
from a3cjax.errors import ConfigError
from a3cjax.exploration import make_explore, spread_factors
from a3cjax.parameters.on_device import ParametersOnDevice
from a3cjax.parameters.shared import SharedParameters
from a3cjax.parameters.store import ParameterStore
from a3cjax.parameters.turns import take_turns
from a3cjax.system.machine import available_cores
from a3cjax.types import LearnerState, ObservationStatistics, TimeStep
from a3cjax.updates import make_act, make_apply_gradients, make_compute_gradients


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
        for batch in batches:
            batch.close()
        raise
    return batches


def build_store(
    config: Config,
    agent: Agent,
    spec: EnvironmentSpec,
    *,
    statistics: ObservationStatistics | None,
    num_frames: int,
    num_updates: int = 0,
    state: LearnerState | None = None,
) -> SharedParameters:
    """The shared parameters at the start of a run, `num_frames` of random play behind them.

    Where a run is resumed, `state` and `num_updates` are those of its checkpoint.
    """
    return SharedParameters(
        state or init_state(config, agent, spec),
        make_apply_gradients(build_optimizer(config)),
        statistics=statistics,
        num_frames=num_frames,
        num_updates=num_updates,
        target_period_frames=config.target_period_frames,
        shares_statistics=config.shared_statistics,
    )


def build_actors(
    config: Config,
    agent: Agent,
    batches: Sequence[Environments],
    timesteps: Sequence[TimeStep],
    store: ParameterStore,
    report: Callable[[UpdateReport], None],
    *,
    stop_event: threading.Event | None = None,
    at_round_end: Callable[[], None] = lambda: None,
    keys: Sequence[Sequence[int]] = (),
) -> list[ActorLearner]:
    """An actor-learner for each batch, standing at its timestep; all run the same programs.

    Args:
      config: resolved.
      agent: what they run.
      batches: environments of each.
      timesteps: where these stand.
      store: the shared parameters.
      report: takes what each update leaves for the log.
      stop_event: ends the waiting for one's turn, where `config.deterministic`.
      at_round_end: is called between rounds, where `config.deterministic`.
      keys: words of the PRNG keys of the first actors, from a checkpoint.
    """
    act, compute_gradients = make_act(agent), make_compute_gradients(agent)
    # Each actor's gradient keeps a core busy. With more at once than cores, the one that holds
    # the lock waits for a core, and all others for the lock: docs/decisions.md.
    # Actors that wait for their turn would keep the slots of those whose turn it is.
    learning_slot = None if config.deterministic else threading.BoundedSemaphore(available_cores())
    places = place_actors(len(batches))
    stores: Sequence[ParameterStore] = [store] * len(batches)
    if config.deterministic:
        stores = take_turns(
            store, len(batches), stop_event or threading.Event(), at_round_end=at_round_end
        )
    unroll_length = config.unroll_length
    factors = spread_factors(len(batches), config.entropy_spread)
    assert config.exploration_frames is not None
    actors: list[ActorLearner] = []
    for index, (batch, timestep, place) in enumerate(zip(batches, timesteps, places, strict=True)):
        key = jax.random.fold_in(make_keys(config.seed).actors, index)
        if index < len(keys):
            key = jax.random.wrap_key_data(jnp.asarray(keys[index], jnp.uint32))
        actors.append(
            ActorLearner(
                index,
                act=act,
                compute_gradients=compute_gradients,
                core_state=jax.device_put(agent.initial_state(batch.num_envs), place.device),
                environments=batch,
                store=ParametersOnDevice(stores[index], place.device),
                key=jax.device_put(key, place.device),
                explore=make_explore(
                    config.seed,
                    index,
                    batch.num_envs,
                    num_frames=config.exploration_frames,
                    entropy_factor=factors[index],
                ),
                unroll_length=None if isinstance(unroll_length, str) else unroll_length,
                total_frames=config.total_frames,
                report=report,
                acts_ahead=agent.acts_ahead,
                timestep=timestep,
                enter_place=place.entered,
                learning_slot=learning_slot,
            )
        )
    return actors
