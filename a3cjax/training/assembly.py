"""The parts of a run put together: environments, agent, shared parameters, actor-learners."""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import VectorEnv

from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.crews import Crew, SharedBatch
from a3cjax.actors.placement import AUTO, CPU, Place, Placement, place_run, share_out
from a3cjax.actors.programs import Programs, make_programs
from a3cjax.actors.reports import UpdateReport
from a3cjax.actors.statistics import lost_in_rounding, standing_images, statistics_of
from a3cjax.actors.supervisor import Job, Supervisor
from a3cjax.actors.warmup import THREADS, warm_up
from a3cjax.agents import Agent
from a3cjax.config.bringing import NO_PARTS, Parts
from a3cjax.config.builders import (
    build_agent,
    build_normalizer,
    build_optimizer,
    init_state,
    make_keys,
)
from a3cjax.config.defaults import fill_ahead
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import EPISODE, Config
from a3cjax.envs.base import (
    EVALUATION_SEED_OFFSET,
    SEEDS_PER_RUN,
    Environments,
    EnvironmentSpec,
)
from a3cjax.envs.bringing import Source
from a3cjax.envs.making import make_environments
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.exploration import make_explore, spread_factors
from a3cjax.kernels import NETWORKS, load_kernels
from a3cjax.parameters.shared import (
    ParametersOnDevice,
    ParameterStore,
    SharedParameters,
    as_views,
)
from a3cjax.parameters.turns import take_turns
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.system.life import show_life
from a3cjax.system.machine import available_cores
from a3cjax.torsos import ImageKernels
from a3cjax.training.fleets import ThreadFleet
from a3cjax.types import LearnerState, Seen, TimeStep
from a3cjax.updates import make_apply_gradients


class Share(NamedTuple):
    """The actor-learners of a run that one process has, numbered from `first_index` on."""

    first_index: int
    num_actors: int


def whole_of(config: Config) -> Share:
    """The share of a process that has all actor-learners of the run."""
    assert config.num_actors is not None
    return Share(0, config.num_actors)


def prepare(
    config: Config,
    num_seeds: int = 0,
    supervisor: Supervisor | None = None,
    parts: Parts = NO_PARTS,
) -> tuple[Config, Agent, list[Environments]]:
    """The settings of a run with nothing left open, its agent, and every actor's environments.

    The caller closes the environments. Raises what `build_batches` raises, a ConfigError if
    settings do not fit, and whatever a user's own network raises.
    """
    if isinstance(parts.env, VectorEnv):
        _check_vector(config)
        config = config.replace(num_actors=1)
    config = fill_ahead(config)
    batches = build_batches(config, num_seeds, supervisor, parts.env)
    with contextlib.ExitStack() as stack:
        stack.callback(close_all, batches, supervisor)
        # A vector environment fixes its own number of environments.
        config = config.replace(envs_per_actor=envs_per_actor(config, whole_of(config), batches))
        config = resolve(config, batches[0].spec)
        config, kernels = choose_kernels(config)
        agent = build_agent(config, batches[0].spec, parts.network, kernels)
        if parts.network is not None:  # nobody knows yet whether it can be built
            jax.eval_shape(lambda: init_state(config, agent, batches[0].spec))
        stack.pop_all()
    return config, agent, batches


def crew_sizes(config: Config, share: Share) -> list[int]:
    """How many actor-learners each thread of a process drives, and so how many share a batch.

    Actor-learners that take turns wait for each other, and whole episodes end at different times:
    in both cases each actor-learner has a thread of its own.
    """
    if config.deterministic or config.unroll_length == EPISODE:
        return [1] * share.num_actors
    return share_out(share.num_actors, config.devices)


def envs_per_actor(config: Config, share: Share, batches: Sequence[Environments]) -> int:
    """How many environments each actor-learner of a process has.

    Raises:
      ConfigError: if actor-learners are to share a batch that fixes its own size.
    """
    sizes = crew_sizes(config, share)
    if sizes[0] == 1:
        return batches[0].num_envs
    asked = config.envs_per_actor or 0
    for batch, size in zip(batches, sizes, strict=True):
        if batch.num_envs != size * asked:
            raise ConfigError(
                f"num_actors must be so few that each has a thread of its own where {config.env} "
                f"fixes its number of environments (an argument num_envs leaves it to the run), "
                f"got {config.num_actors} on {len(sizes)} threads."
            )
    return asked


def choose_kernels(config: Config) -> tuple[Config, ImageKernels | None]:
    """The config with `kernels` settled, and the layers in C++; None if it uses none.

    Raises:
      ConfigError: if the config asks for them and they are not available.
    """
    kernels, reason = None, f"for the network {config.network}"
    if config.kernels is not False and config.network.startswith(NETWORKS):
        kernels, reason = load_kernels()
    if config.kernels and kernels is None:
        raise ConfigError(f"kernels must be false or null {reason}, got true.")
    return config.replace(kernels=kernels is not None), kernels


def _check_vector(config: Config) -> None:
    """Refuse settings that need more than the one vector environment that is made already."""
    way_out = f"(a function can make more: env=lambda: ...), got {config.env} with"
    if config.num_actors not in (None, 1):
        rule = "num_actors must be 1 with a vector environment that is made already"
        raise ConfigError(f"{rule} {way_out} {config.num_actors}.")
    if config.eval_period_frames is not None:
        rule = "eval_period_frames must be null with a vector environment that is made already"
        raise ConfigError(f"{rule} {way_out} {config.eval_period_frames}.")


def build_batches(
    config: Config,
    num_seeds: int = 0,
    supervisor: Supervisor | None = None,
    source: Source | None = None,
    share: Share | None = None,
) -> list[Environments]:
    """The training environments of every thread's actors, no two with the same seed.

    `num_seeds` is how many seeds the run has used before: a resumed run plays other games than it
    began with. `source` is what the environment's name stands for, if it was brought. With a
    `share`, only the environments of this process are made. With a supervisor, each batch is made
    in the thread that will drive it.

    Raises:
      ConfigError: if there is no such environment, its spaces are not supported, there are more
        environments than seeds, or there are no such devices.
      Stopped: if a stop is asked for meanwhile, or an environment stands still.
    """
    config = fill_ahead(config)
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    assert config.discount is not None
    most = (EVALUATION_SEED_OFFSET - 1) // config.envs_per_actor
    if config.num_actors > most:
        raise ConfigError(
            f"num_actors must be <= {most} with envs_per_actor={config.envs_per_actor}, "
            f"got {config.num_actors}."
        )
    share = share or whole_of(config)
    sizes = crew_sizes(config, share)
    places = place_run(config.devices, len(sizes)).actors
    batches: list[Environments] = []
    num_envs = config.num_actors * config.envs_per_actor
    first_seed = config.seed * SEEDS_PER_RUN + num_seeds % (EVALUATION_SEED_OFFSET - num_envs)
    first_seed += share.first_index * config.envs_per_actor
    with contextlib.ExitStack() as stack:
        stack.callback(close_all, batches, supervisor)
        for index, (place, size) in enumerate(zip(places, sizes, strict=True)):
            make = functools.partial(
                make_environments,
                config.env,
                num_envs=size * config.envs_per_actor,
                seed=first_seed + sum(batch.num_envs for batch in batches),
                discount=config.discount,
                protocol=config.protocol,
                image_layout=config.image_layout,
                env_kwargs=config.env_kwargs,
                source=source,
                has_whole_games=config.unroll_length == EPISODE,
            )
            make = place.entered()(make)
            if supervisor is None:
                batches.append(make())
            else:
                doing = f"making {config.env}"
                batches.append(supervisor.ask(make, f"{THREADS}-{index}", doing))
        stack.pop_all()
    return batches


def close_all(batches: list[Environments], supervisor: Supervisor | None = None) -> None:
    """Close all environments, and empty the list.

    With a supervisor, each batch is closed in its own thread, and a failure is only reported:
    nothing is lost by it.
    """
    if supervisor is None:
        for batch in batches:
            batch.close()
    else:
        targets = [lambda _, batch=batch: batch.close() for batch in batches]
        supervisor.start(targets, THREADS, "closing environments", "trifle")
        supervisor.wait()
    batches.clear()


def assemble(
    config: Config,
    agent: Agent,
    batches: Sequence[Environments],
    *,
    supervisor: Supervisor,
    checkpoint: Checkpoint | None = None,
) -> ThreadFleet:
    """Play at random, then make the shared parameters and the actor-learners of each batch.

    With a `checkpoint`, they go on from there. The `supervisor` oversees random play, and nobody
    waits for a turn once it stops the run.

    Raises:
      CheckpointError: if environments cannot go on from the checkpoint.
      ConfigError: if observations cannot be centred.
      Stopped: if a stop is asked for meanwhile.
      Exception: what random play raised, see `warm_up`.
    """
    spec = batches[0].spec
    past = checkpoint.progress if checkpoint else Progress()
    # Compiled while random play has nothing to compile.
    initial = [] if checkpoint else [lambda _: init_state(config, agent, spec)]
    initialising = supervisor.start(initial, "initialiser", "making parameters", "help")
    timesteps, seen, num_steps = warm_up(
        batches, warmup_steps(config, past, spec), warmup_seed(config, past), supervisor
    )
    if checkpoint is None:
        checkpoint = begin(config, spec, initialising[0].result, seen, supervisor.tell)
    placement = place_run(config.devices, len(batches))
    store = _make_store(config, checkpoint._replace(progress=past), placement)
    store.drop(num_steps * spec.frames_per_step, past.num_updates)  # random play costs frames, too
    fleet = ThreadFleet(store, spec)
    assert config.num_actors is not None
    stores: Sequence[ParameterStore] = [store] * config.num_actors
    programs = make_run_programs(config, agent, placement, checkpoint.state.seen)
    if config.deterministic:
        stores = take_turns(
            store,
            len(batches),
            supervisor.stop_event,
            at_round_end=fleet.note_round,
            at_wait=show_life,  # the one that is waited for is watched itself
        )
    fleet.actors, fleet.targets = recruit(
        config,
        batches,
        timesteps,
        programs=programs,
        stores=stores,
        past=past,
        report=fleet.report,
    )
    if past.standings:
        try:
            # Only a deterministic run has these, and it goes on with as many actors.
            for actor, standing in zip(fleet.actors, past.standings, strict=True):
                actor.set_standing(standing)
        # Only an environment itself knows what it does with a state that it did not write.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"environments cannot be restored: {reason}") from error
    if config.deterministic:
        fleet.note_round()
    return fleet


def warmup_steps(config: Config, past: Progress, spec: EnvironmentSpec) -> int:
    """Steps of random play in each environment before a run begins or goes on.

    A run that goes on spends at most a tenth of the frames that it has left on them.
    """
    most = config.warmup_steps or 0
    if past.standings:
        return 0
    if past.num_resumes == 0:
        return most
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    frames = config.num_actors * config.envs_per_actor * spec.frames_per_step
    left = max(config.total_frames - past.num_frames, 0)
    return min(most, left // (10 * frames))


def warmup_seed(config: Config, past: Progress) -> int:
    """The seed of the actions of random play."""
    return config.seed + SEEDS_PER_RUN * past.num_resumes


def begin(
    config: Config,
    spec: EnvironmentSpec,
    state: LearnerState,
    seen: Seen,
    tell: Callable[[str], None],
) -> Checkpoint:
    """What a run begins with: its first parameters, and what random play has seen.

    `tell` gets a line for each doubt about what was seen.

    Raises:
      ConfigError: if observations cannot be centred.
    """
    moments = seen.observations
    doubts, statistics = [*lost_in_rounding(moments)], None
    if config.centre_observations:
        statistics = statistics_of(moments, spec.observation)
        doubts += standing_images(moments, spec.observation)
    for doubt in doubts:
        tell(f"warning: {doubt}")
    state = state._replace(seen=build_normalizer(config, spec, seen))
    return Checkpoint(state, statistics, Progress())


def make_run_programs(
    config: Config, agent: Agent, placement: Placement, normalizer: Seen
) -> Programs:
    """What the actor-learners of a process have in common."""
    # Not with whole episodes, whose lengths differ; nor on a GPU, which computes faster than it
    # copies its memory.
    recalls = config.unroll_length != EPISODE and placement.is_one_memory
    programs = make_programs(agent, recalls=recalls)._replace(normalizer=normalizer)
    if config.deterministic:
        # Actors that wait for their turn would hold the slots of those whose turn it is.
        return programs
    # Each actor's gradient keeps a core busy. With more at once than cores, the one that
    # holds the lock waits for a core, and all others for the lock: docs/decisions.md.
    return programs._replace(learning_slot=threading.BoundedSemaphore(available_cores()))


class Recruits(NamedTuple):
    """The actor-learners of a process, by index, and what its threads are to run."""

    actors: list[ActorLearner]
    targets: list[Callable[[Job], None]]


def recruit(
    config: Config,
    batches: Sequence[Environments],
    timesteps: Sequence[TimeStep],
    *,
    programs: Programs,
    stores: Sequence[ParameterStore],
    past: Progress,
    report: Callable[[UpdateReport], None],
    first_index: int = 0,
) -> Recruits:
    """Make the actor-learners of each batch, numbered from `first_index` on.

    `stores` holds one for each of them, in order. Seeds, keys and entropy factors follow from an
    actor-learner's index in the run.
    """
    assert config.num_actors is not None
    assert config.envs_per_actor is not None
    placement = place_run(config.devices, len(batches))
    actors_key, unroll_length = make_keys(config.seed).actors, config.unroll_length
    factors = spread_factors(config.num_actors, config.entropy_spread)
    num_frames = config.exploration_frames
    assert num_frames is not None
    home = None if _hands_over_views(config, placement) else placement.learner
    recruits = Recruits([], [])
    target_entropy = config.target_entropy
    assert not isinstance(target_entropy, str)

    def make_actor(environments: Environments, timestep: TimeStep, place: Place) -> ActorLearner:
        index, num_envs = first_index + len(recruits.actors), environments.num_envs
        key = jax.random.fold_in(actors_key, index)
        if index < len(past.actor_keys):
            key = jax.random.wrap_key_data(jnp.asarray(past.actor_keys[index], jnp.uint32))
        core_state, key = jax.device_put((programs.initial_state(num_envs), key), place.device)
        actor = ActorLearner(
            index,
            programs,
            environments,
            ParametersOnDevice(stores[index - first_index], place.device, home),
            Standing(timestep, core_state, None, key, np.zeros(num_envs)),
            make_explore(
                config.seed,
                index,
                num_envs,
                num_frames=num_frames,
                period_frames=config.epsilon_period_frames,
                entropy_factor=factors[index],
                target_entropy=target_entropy,
                total_frames=config.total_frames,
            ),
            unroll_length=None if isinstance(unroll_length, str) else unroll_length,
            total_frames=config.total_frames,
            report=report,
        )
        recruits.actors.append(actor)
        return actor

    for batch, timestep, place in zip(batches, timesteps, placement.actors, strict=True):
        if batch.num_envs == config.envs_per_actor:
            run = make_actor(batch, timestep, place).run
        else:
            shared = SharedBatch(batch, config.envs_per_actor)
            crew = [
                make_actor(cast(Environments, part), own, place)
                for part, own in zip(shared.parts, shared.split(timestep), strict=True)
            ]
            run = Crew(crew, shared).run
        recruits.targets.append(place.entered()(run))  # the place is entered at every call
    return recruits


def _hands_over_views(config: Config, placement: Placement) -> bool:
    """Whether parameters belong to no device: where the run chose the devices, and all are CPUs."""
    return placement.is_one_memory and config.devices in (AUTO, CPU)


def _make_store(config: Config, checkpoint: Checkpoint, placement: Placement) -> SharedParameters:
    """The shared parameters of a checkpoint."""
    hand_over = as_views
    if not _hands_over_views(config, placement):
        hand_over = functools.partial(jax.device_put, device=placement.learner)
    state = checkpoint.state
    learned = hand_over((state.params, state.opt_state, state.target_params))
    params, opt_state, target_params = learned
    return SharedParameters(
        state._replace(params=params, opt_state=opt_state, target_params=target_params),
        make_apply_gradients(build_optimizer(config)),
        statistics=checkpoint.statistics,
        num_frames=checkpoint.progress.num_frames,
        num_updates=checkpoint.progress.num_updates,
        target_period_frames=config.target_period_frames,
        shares_statistics=config.shared_statistics,
        hand_over=hand_over,
    )
