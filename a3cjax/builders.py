"""From a configuration to the parts of a run: environments, agent, optimizer, templates."""

import dataclasses
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from a3cjax.actor_learner import ActorLearner, UpdateReport
from a3cjax.agents import ALGORITHMS, Agent
from a3cjax.checkpoints import Checkpoint, Progress
from a3cjax.config import EPISODE, Config, ConfigError
from a3cjax.envs import (
    EVALUATION_SEED_OFFSET,
    SEEDS_PER_RUN,
    make_environments,
)
from a3cjax.exploration import make_explore, spread_factors
from a3cjax.networks import Network, make_network
from a3cjax.optimizers import linear_annealing, make_optimizer
from a3cjax.parameters import ParametersOnDevice, ParameterStore, SharedParameters
from a3cjax.placement import place_actors
from a3cjax.provenance import available_cores
from a3cjax.turns import take_turns
from a3cjax.types import LearnerState, ObservationStatistics, Params, TimeStep
from a3cjax.updates import make_act, make_apply_gradients, make_compute_gradients
from a3cjax.vector_envs import Environments, EnvironmentSpec

# The rewards of all Atari games are clipped to ±1 in the loss (Mnih et al. 2015, methods).
ATARI_MAX_ABS_REWARD = 1.0


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


def build_evaluation_environments(
    config: Config,
    num_envs: int,
    *,
    sticky_actions: float | None = None,
    renders: bool = False,
) -> Environments:
    """`num_envs` environments that play whole games, with seeds that training never uses.

    `sticky_actions` is the probability of a repeated action, None for the protocol's;
    `renders`: they are to have pictures, where they can.

    Raises:
      ConfigError: if there is no such environment, or its spaces are of another kind.
    """
    return make_environments(
        config.env,
        num_envs=num_envs,
        seed=config.seed * SEEDS_PER_RUN + EVALUATION_SEED_OFFSET,
        discount=config.discount,
        protocol=config.protocol,
        is_evaluation=True,
        sticky_actions=sticky_actions,
        num_threads=available_cores(),
        renders=renders,
    )


def build_agent(config: Config, spec: EnvironmentSpec) -> Agent:
    """The configured algorithm around the configured network."""
    make = ALGORITHMS[config.algorithm].make
    offered = {
        **dataclasses.asdict(config),
        "max_abs_reward": ATARI_MAX_ABS_REWARD if spec.is_atari else None,
        "bootstraps": config.unroll_length != EPISODE,
    }
    parameters = inspect.signature(make).parameters.values()
    wanted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in offered]
    return make(build_network(config, spec), **{name: offered[name] for name in wanted})


def build_network(config: Config, spec: EnvironmentSpec) -> Network:
    """The configured network with the heads that the algorithm needs."""
    head = ALGORITHMS[config.algorithm].head
    return make_network(
        config.network,
        spec.num_actions,
        "gaussian_actor_critic" if spec.is_continuous else head,
        per_dimension_variance=config.per_dimension_variance,
    )


class RunKeys(NamedTuple):
    """The root keys of a run's random streams; actor k folds its index into `actors`."""

    init: chex.PRNGKey
    actors: chex.PRNGKey
    evaluation: chex.PRNGKey


def make_keys(seed: int) -> RunKeys:
    """The keys that a run with this seed uses, never two alike."""
    return RunKeys(*jax.random.split(jax.random.key(seed), len(RunKeys._fields)))


def init_params(agent: Agent, spec: EnvironmentSpec, key: chex.PRNGKey) -> Params:
    """Initial parameters for observations of this environment."""
    observations = np.zeros((1, 1, *spec.observation_shape), spec.observation_dtype)
    return jax.jit(agent.init)(key, observations)


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
        state or _init_state(config, agent, spec),
        make_apply_gradients(build_optimizer(config)),
        statistics=statistics,
        num_frames=num_frames,
        num_updates=num_updates,
        target_period_frames=config.target_period_frames,
        shares_statistics=config.shared_statistics,
    )


def _init_state(config: Config, agent: Agent, spec: EnvironmentSpec) -> LearnerState:
    params = init_params(agent, spec, make_keys(config.seed).init)
    opt_state = build_optimizer(config).init(params)
    if not config.shared_statistics:
        assert config.num_actors is not None
        opt_state = (opt_state,) * config.num_actors
    has_target_params = ALGORITHMS[config.algorithm].has_target_params
    return LearnerState(params, opt_state, params if has_target_params else None)


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


def build_checkpoint_template(config: Config, spec: EnvironmentSpec) -> Checkpoint:
    """A checkpoint with the structure and shapes of this configuration's."""
    state = _init_state(config, build_agent(config, spec), spec)
    statistics = None
    if config.centre_observations:
        mean = np.zeros(spec.observation_shape, np.float32)
        statistics = ObservationStatistics(jnp.asarray(mean), jnp.ones(()))
    return Checkpoint(state, statistics, Progress())


def build_schedule(config: Config) -> optax.Schedule:
    """The learning rate by number of frames, annealed over this run's if so configured."""
    learning_rate = config.learning_rate
    assert learning_rate is not None
    if not config.anneal_learning_rate:
        return lambda _: learning_rate
    return linear_annealing(learning_rate, config.total_frames)


def build_optimizer(config: Config) -> optax.GradientTransformationExtraArgs:
    """The configured optimizer."""
    assert not isinstance(config.max_grad_norm, str)
    return make_optimizer(
        config.optimizer,
        schedule=build_schedule(config),
        decay=config.decay,
        epsilon=config.epsilon,
        momentum=config.momentum,
        max_grad_norm=config.max_grad_norm,
    )
