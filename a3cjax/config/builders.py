"""From a configuration to the parts of a run: environments, agent, optimizer, templates."""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import chex
import jax
import numpy as np
import optax
from flax import linen as nn

from a3cjax.agents import ALGORITHMS, Agent
from a3cjax.agents.base import Look
from a3cjax.config.bringing import NO_PARTS, Parts
from a3cjax.config.declaring import show
from a3cjax.config.reading import SETTLED
from a3cjax.config.resolution import check_agent
from a3cjax.config.settings import AUTO, EPISODE, Config
from a3cjax.distributions import Categorical
from a3cjax.envs.base import (
    EVALUATION_SEED_OFFSET,
    SEEDS_PER_RUN,
    Environments,
    EnvironmentSpec,
)
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError, quote
from a3cjax.networks import Network, make_network
from a3cjax.optimizers import linear_annealing, make_optimizer
from a3cjax.parameters.moments import moments_of
from a3cjax.system.machine import available_cores
from a3cjax.torsos import ImageKernels
from a3cjax.types import LearnerState, NetworkOutput, Observation, Params, Seen, TimeStep
from a3cjax.updates import make_init

T = TypeVar("T")

# The rewards of all Atari games are clipped to ±1 in the loss (Mnih et al. 2015, methods).
ATARI_MAX_ABS_REWARD = 1.0
# Games and parameters follow from the seed of a run, whatever `jax_default_prng_impl` is where its
# agent is loaded.
KEY_IMPLEMENTATION = "threefry2x32"


@functools.lru_cache(maxsize=32)
def _cached(make: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Make the same from the same arguments.

    JAX knows compiled programs by their functions. So a second run of a process with such settings
    finds those of the first. What is brought is made anew: its code may have changed meanwhile.
    """
    return make(*args, **kwargs)


def build_evaluation_environments(
    config: Config,
    num_envs: int,
    *,
    parts: Parts = NO_PARTS,
    sticky_actions: float | None = None,
    renders: bool = False,
) -> Environments:
    """`num_envs` environments that play whole games, with seeds that training never uses.

    A vector environment may have another number, and need not follow `num_envs`.
    `sticky_actions` is the probability of a repeated action, None for the protocol's;
    `renders`: whether they are to have pictures, if they can.

    Raises:
      ConfigError: if there is no such environment, or its spaces are not supported.
    """
    # Imported only here: an agent can be loaded, and act, where envpool is not installed.
    from a3cjax.envs.making import make_environments

    return make_environments(
        config.env,
        num_envs=num_envs,
        seed=config.seed * SEEDS_PER_RUN + EVALUATION_SEED_OFFSET,
        discount=1.0 if config.discount is None else config.discount,  # scores do not depend on it
        protocol=config.protocol,
        has_whole_games=True,
        sticky_actions=sticky_actions,
        num_threads=available_cores(),
        renders=renders,
        image_layout=config.image_layout,
        env_kwargs=config.env_kwargs,
        source=parts.env,
    )


def build_agent(
    config: Config,
    spec: EnvironmentSpec,
    network: Network | nn.Module | None = None,
    kernels: ImageKernels | None = None,
) -> Agent:
    """The configured algorithm around the configured network, or one that somebody brought.

    The algorithm's keywords are fed by the settings of the same name; others keep their defaults.

    Raises:
      ConfigError: if a keyword is nearly, but not quite, the name of a setting; if network and
        settings are not all that is needed; if what is made is no Agent; or for what `resolve`
        would have filled in or refused: a config.yaml may have been written by hand.
    """
    for name in SETTLED:
        if (value := getattr(config, name)) == getattr(Config, name):
            is_resumed = config.resume is not None
            by = ", which resume_config(run_dir, changes) reads" if is_resumed else ""
            rule = f"{name} must be settled in the config.yaml of a run{by}"
            raise ConfigError(f"{rule}, got {show(value)}.")
    check_agent(config, spec)
    make = ALGORITHMS[config.algorithm].make
    offered = {
        **dataclasses.asdict(config),
        "max_abs_reward": ATARI_MAX_ABS_REWARD if spec.is_atari else None,
        "bootstraps": config.unroll_length != EPISODE,
    }
    signature = inspect.signature(make)
    wanted = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in wanted:
        nearest = difflib.get_close_matches(name, offered, n=1, cutoff=0.8)
        if name not in offered and nearest:  # else it would silently keep its default
            raise ConfigError(f"{config.algorithm} must be fed by {nearest[0]}, got {name}.")
    fed = {name: offered[name] for name in wanted if name in offered}
    try:
        signature.bind(None, **fed)
    except TypeError as error:
        rule = f"{config.algorithm} must be made from a network and, by keyword, settings alone"
        raise ConfigError(f"{rule}, got {quote(make)}: {error}.") from error
    is_ours = make.__module__.partition(".")[0] == __name__.partition(".")[0]
    call = _cached if network is None and is_ours else _cached.__wrapped__
    agent = call(make, build_network(config, spec, network, kernels), **fed)
    if not isinstance(agent, Agent):
        raise ConfigError(f"{config.algorithm} must make an Agent, got {quote(agent)}.")
    return agent if is_ours else agent._replace(look=_checked_look(agent.look, config.algorithm))


def build_network(
    config: Config,
    spec: EnvironmentSpec,
    own: Network | nn.Module | None = None,
    kernels: ImageKernels | None = None,
) -> Network:
    """The configured network with the heads that the algorithm needs.

    Args:
      config: names it.
      spec: says what it sees and chooses from.
      own: a whole network that somebody brought, or the torso of one.
      kernels: as for `make_network`.

    Raises:
      ConfigError: if one was brought to the run, and is not passed here.
    """
    head = ALGORITHMS[config.algorithm].head
    if isinstance(own, Network):
        return own._replace(apply=_checked(own.apply, spec.actions.num_outputs, head))
    if own is None and config.network.startswith(PYTHON_PREFIX):
        raise ConfigError(
            "network must be passed once more, as network=... of train, load or publish, "
            f"got {config.network}."
        )
    if spec.is_continuous:  # older runs have no such setting
        policy = "gaussian" if config.policy == AUTO else config.policy
        head = f"{policy}_actor_critic"
    call = _cached if own is None else _cached.__wrapped__
    return call(
        make_network,
        config.network,
        spec.actions.num_outputs,
        head,
        variance=config.variance,
        dueling=config.dueling,
        torso=own,
        kernels=kernels,
    )


def _checked(apply: Callable[..., Any], num_actions: int | tuple[int, ...], head: str) -> Any:
    """As `apply` of a `Network`, but a ConfigError says what its answer must be if it is not."""

    def checked(
        params: Params, statistics: Any, observations: Observation, is_first: Any, *more: Any
    ):
        answer = apply(params, statistics, observations, is_first, *more)
        output, leading = _output_of(answer, "network"), np.shape(is_first)
        if head == "action_values":
            _check_shape("output of the network", output, (*leading, num_actions))
            return answer
        _check_output(output, leading, "the network")
        if isinstance(output.policy, Categorical):
            _check_shape("logits of the network", output.policy.logits, (*leading, num_actions))
        return answer

    return checked


def _checked_look(look: Look, algorithm: str) -> Look:
    """As `look` of an `Agent`, but a ConfigError says what its answer must be if it is not."""

    def checked(params: Params, constants: Any, timestep: TimeStep, *more: Any):
        answer = look(params, constants, timestep, *more)
        output = _output_of(answer, f"look of {algorithm}")
        _check_output(output, np.shape(timestep.is_first), f"look of {algorithm}")
        return answer

    return checked


def _output_of(answer: Any, who: str) -> Any:
    is_output = isinstance(answer, NetworkOutput)
    if is_output or not isinstance(answer, tuple) or len(answer) != 2:
        raise ConfigError(f"{who} must return (output, core_state), got {quote(answer)}.")
    return answer[0]


def _check_output(output: Any, leading: tuple[Any, ...], who: str) -> None:
    if not isinstance(output, NetworkOutput) or not hasattr(output.policy, "sample"):
        raise ConfigError(
            f"output of {who} must be a NetworkOutput with a distribution as its policy, "
            f"got {quote(output)}."
        )
    _check_shape(f"values of {who}", output.values, leading)


def _check_shape(name: str, array: Any, shape: tuple[Any, ...]) -> None:
    got = getattr(array, "shape", None)
    if got != shape:
        got = quote(array) if got is None else f"{list(got)}"
        raise ConfigError(f"{name} must have shape {list(shape)}, got {got}.")


class RunKeys(NamedTuple):
    """The root keys of a run's random streams; actor k folds its index into `actors`."""

    init: chex.PRNGKey
    actors: chex.PRNGKey
    evaluation: chex.PRNGKey


def make_keys(seed: int) -> RunKeys:
    """The keys that a run with this seed uses, all different."""
    key = jax.random.key(seed, impl=KEY_IMPLEMENTATION)
    return RunKeys(*jax.random.split(key, len(RunKeys._fields)))


def init_state(config: Config, agent: Agent, spec: EnvironmentSpec) -> LearnerState:
    """What learning starts from: parameters, optimizer state, and targets if there are any."""
    observations = jax.tree.map(lambda x: np.zeros((1, 1, *x.shape), x.dtype), spec.observation)
    init = make_init(agent, build_optimizer(config))
    params, opt_state = init(make_keys(config.seed).init, observations)
    if not config.shared_statistics:
        assert config.num_actors is not None
        opt_state = (opt_state,) * config.num_actors
    targets = params if ALGORITHMS[config.algorithm].has_target_params else None
    return LearnerState(params, opt_state, targets, build_normalizer(config, spec))


def build_normalizer(config: Config, spec: EnvironmentSpec, seen: Seen | None = None) -> Seen:
    """The moments seen so far by which learning normalises rewards and observations.

    Images are centred by random play alone: their moments would cost more than they tell.
    """
    returns = observations = None
    if config.normalize_rewards:
        returns = seen.returns if seen else moments_of(())
    if config.centre_observations and any(map(is_vector, jax.tree.leaves(spec.observation))):
        parts = jax.tree.map(lambda part: moments_of((), part.shape), spec.observation)
        parts = seen.observations if seen else parts
        observations = jax.tree.map(
            lambda part, moments: moments if is_vector(part) else None, spec.observation, parts
        )
    return Seen(returns, observations)


def is_vector(part: jax.ShapeDtypeStruct) -> bool:
    """Whether a part of an observation is no image."""
    return part.dtype != np.uint8


def build_schedule(config: Config) -> optax.Schedule:
    """The learning rate by number of frames, annealed over the whole run if so configured."""
    learning_rate = config.learning_rate
    assert learning_rate is not None
    if not config.anneal_learning_rate:
        return _cached(optax.constant_schedule, learning_rate)
    return _cached(linear_annealing, learning_rate, config.total_frames)


def build_optimizer(config: Config) -> optax.GradientTransformationExtraArgs:
    """The configured optimizer."""
    assert not isinstance(config.max_grad_norm, str)
    return _cached(
        make_optimizer,
        config.optimizer,
        schedule=build_schedule(config),
        decay=config.decay,
        epsilon=config.epsilon,
        momentum=config.momentum,
        max_grad_norm=config.max_grad_norm,
    )
