"""Evaluation: whole games with fixed parameters, every score kept."""

import contextlib
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.builders import (
    build_agent,
    build_checkpoint_template,
    build_evaluation_environments,
    make_keys,
)
from a3cjax.checkpoints import Checkpoint, Checkpointer
from a3cjax.config import Config, load_config
from a3cjax.exploration import evaluation_exploration
from a3cjax.parameter_files import PARAMETER_FILE, read_parameters
from a3cjax.parameters import SharedParameters
from a3cjax.placement import background_device
from a3cjax.provenance import available_cores
from a3cjax.types import Constants, LearnerState, Snapshot
from a3cjax.vector_envs import Environments, EnvironmentSpec, Episode

# The folders of checkpoints in a run folder.
NEWEST, BEST = "checkpoints", "best"

MAX_EPISODE_STEPS = 200_000
"""Agent steps after which a game counts as endless; Atari's end after 27,000."""

EVALUATION_SHARE = 0.04
"""Of all cores' time, for evaluations during training. They keep about one core busy; so with 25
cores and more they need no rest. benchmarks/evaluation_cost.py measures what it comes to."""

# A process that was put aside for an hour has not worked for an hour.
MAX_REST_SECONDS = 60.0


class Evaluation(NamedTuple):
    """Scores of all games, in order of their environment, and how they were played."""

    episodes: list[Episode]
    is_greedy: bool

    @property
    def mean(self) -> float:
        """Mean score."""
        return statistics.fmean(self.scores)

    @property
    def scores(self) -> list[float]:
        """Raw, unclipped scores."""
        return [episode.episode_return for episode in self.episodes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for summary.json."""
        scores = self.scores
        return {
            "actions": "greedy" if self.is_greedy else "sampled",
            "num_episodes": len(scores),
            "mean": self.mean,
            "median": statistics.median(scores),
            "standard_deviation": statistics.pstdev(scores),
            "min": min(scores),
            "max": max(scores),
            "scores": scores,
            "lengths": [episode.episode_length for episode in self.episodes],
        }


def evaluate(
    agent: Agent,
    snapshot: Snapshot,
    environments: Environments,
    key: chex.PRNGKey,
    *,
    is_greedy: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Plays one whole game in every environment.

    One game each, not the first to finish: short games would count too often.

    Args:
      agent: acts.
      snapshot: with these parameters.
      environments: B of them, made for evaluation; reset here.
      key: for sampling actions.
      is_greedy: takes the most probable action instead of sampling.
      should_stop: asked at every step; True ends the evaluation without a result.

    Returns:
      B episodes, or None if it was stopped.

    Raises:
      RuntimeError: if a game goes on beyond `MAX_EPISODE_STEPS`.
    """
    constants = Constants(snapshot.statistics, None, evaluation_exploration(environments.num_envs))
    if is_greedy:
        act_greedily = jax.jit(agent.act_greedily)

        def act(params, constants, timestep, core_state, key):
            return *act_greedily(params, constants, timestep, core_state), key
    else:
        act = jax.jit(agent.act)

    timestep = environments.reset()
    environments.pop_episodes()
    core_state = agent.initial_state(environments.num_envs)
    episodes: list[Episode | None] = [None] * environments.num_envs
    for _ in range(MAX_EPISODE_STEPS):
        if should_stop():
            return None
        actions, core_state, key = act(snapshot.params, constants, timestep, core_state, key)
        timestep = environments.step(np.asarray(actions))
        for episode in environments.pop_episodes():
            if episodes[episode.environment_index] is None:
                episodes[episode.environment_index] = episode
        finished = [episode for episode in episodes if episode is not None]
        if len(finished) == environments.num_envs:
            return Evaluation(finished, is_greedy)
    raise RuntimeError(f"games must end within {MAX_EPISODE_STEPS} steps to be evaluated.")


def evaluate_agent(
    config: Config,
    agent: Agent,
    snapshot: Snapshot,
    *,
    num_episodes: int | None = None,
    is_greedy: bool = False,
    sticky_actions: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Plays whole games on environments made for it.

    Environments and actions follow from `config.seed`: a repetition gives the same scores.

    Args:
      config: of the run.
      agent: acts.
      snapshot: with these parameters.
      num_episodes: how many games, >= 1; None for as many as configured.
      is_greedy: takes the most probable action instead of sampling.
      sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
      should_stop: asked at every step; True ends the evaluation without a result.

    Returns:
      The games, or None if it was stopped.
    """
    if num_episodes is None:
        num_episodes = config.eval_episodes
    environments = build_evaluation_environments(
        config, num_episodes, sticky_actions=sticky_actions
    )
    try:
        return evaluate(
            agent,
            snapshot,
            environments,
            make_keys(config.seed).evaluation,
            is_greedy=is_greedy,
            should_stop=should_stop,
        )
    finally:
        environments.close()


class Pace:
    """Rests between the steps of an evaluation, so that it takes a small share of the machine.

    Called after every step; tells whether to stop, as soon as that is known.
    """

    def __init__(self, share: float, stop_event: threading.Event):
        """`share` of the time is for work, above 0 and at most 1."""
        self._rest_per_second = 1 / share - 1
        self._stop_event = stop_event
        self._resumed = time.monotonic()

    def __call__(self) -> bool:
        """Rests as long as the work since the last call demands; True as soon as it is to stop."""
        worked = time.monotonic() - self._resumed
        is_stopped = self._stop_event.wait(min(worked * self._rest_per_second, MAX_REST_SECONDS))
        self._resumed = time.monotonic()
        return is_stopped


class Evaluator:
    """Evaluates the newest parameters every `period_frames`, in a thread of its own.

    That thread rests most of the time, at the price of long evaluations: while one goes on, the
    next does not begin. Results lie in `results` as (state, snapshot, evaluation), for the main
    thread.
    """

    def __init__(
        self,
        evaluate: Callable[[Snapshot, Callable[[], bool]], Evaluation | None],
        store: SharedParameters,
        *,
        num_frames: int,
        period_frames: int,
    ):
        """`evaluate(snapshot, should_stop)` plays the games; `num_frames` is where it starts."""
        self._evaluate = evaluate
        self._store = store
        self._last_frames = num_frames
        self._period_frames = period_frames
        self.results: queue.SimpleQueue[tuple[LearnerState, Snapshot, Evaluation]] = (
            queue.SimpleQueue()
        )

    def run(self, stop_event: threading.Event) -> None:
        """Evaluates whenever it is due, until it is asked to stop."""
        device = background_device()
        share = min(1.0, EVALUATION_SHARE * available_cores())
        while not stop_event.wait(0.1):
            state, snapshot = self._store.read()
            if snapshot.num_frames - self._last_frames < self._period_frames:
                continue
            self._last_frames = snapshot.num_frames
            evaluated = snapshot._replace(
                params=jax.device_put(snapshot.params, device),
                statistics=jax.device_put(snapshot.statistics, device),
            )
            evaluation = self._evaluate(evaluated, Pace(share, stop_event))
            if evaluation is not None:
                self.results.put((state, snapshot, evaluation))


def evaluate_run(
    run_dir: Path,
    *,
    num_episodes: int | None = None,
    is_greedy: bool = False,
    sticky_actions: float | None = None,
    folder: str = NEWEST,
) -> Evaluation:
    """Evaluates a checkpoint of a run folder.

    Args:
      run_dir: the folder.
      num_episodes: how many games, >= 1; None for as many as the run was configured for, or
        30 if that is 0.
      is_greedy: takes the most probable action instead of sampling.
      sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
      folder: `NEWEST` or `BEST`.

    Returns:
      The games.

    Raises:
      FileNotFoundError: if the folder is no run folder or holds no checkpoint.
      ConfigError: if `num_episodes` is too large, or there are no sticky actions.
      ValueError: if the checkpoint is of another format.
      CheckpointError: if all checkpoints are damaged.
    """
    config = load_config(run_dir)
    num_episodes = num_episodes or config.eval_episodes or Config.eval_episodes
    config = config.replace(eval_episodes=num_episodes)  # checks the number
    agent, snapshot = load_agent(config, run_dir, folder)
    evaluation = evaluate_agent(
        config,
        agent,
        snapshot,
        num_episodes=num_episodes,
        is_greedy=is_greedy,
        sticky_actions=sticky_actions,
    )
    assert evaluation is not None  # nothing stops it
    return evaluation


def load_agent(config: Config, run_dir: Path, folder: str = NEWEST) -> tuple[Agent, Snapshot]:
    """The agent of a run folder with the parameters of its newest sound, or best, checkpoint.

    A published agent has a file of parameters instead.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is of another format.
      CheckpointError: if all are damaged.
    """
    if folder == NEWEST and (run_dir / PARAMETER_FILE).is_file():
        spec = describe_environment(config)
        template = build_checkpoint_template(config, spec)
        snapshot = read_parameters(run_dir, template.state.params, template.statistics)
        return build_agent(config, spec), snapshot
    spec, checkpoint = load_checkpoint(config, run_dir, folder)
    progress = checkpoint.progress
    snapshot = Snapshot(
        progress.num_updates, progress.num_frames, checkpoint.state.params, checkpoint.statistics
    )
    return build_agent(config, spec), snapshot


def load_checkpoint(
    config: Config, run_dir: Path, folder: str = NEWEST
) -> tuple[EnvironmentSpec, Checkpoint]:
    """The newest sound checkpoint of a run folder, and what its environments are like.

    Args:
      config: of the run.
      run_dir: its folder.
      folder: `NEWEST` or `BEST`; a damaged checkpoint in it is reported as a warning.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is of another format.
      CheckpointError: if all are damaged.
    """
    if not (run_dir / folder).is_dir():
        raise FileNotFoundError(f"run folder must hold {folder}/, got {run_dir}.")
    spec = describe_environment(config)
    with contextlib.closing(Checkpointer(run_dir / folder)) as checkpointer:
        checkpoint = checkpointer.restore(build_checkpoint_template(config, spec), _print_warning)
    return spec, checkpoint


def describe_environment(config: Config) -> EnvironmentSpec:
    """What the environments of a configuration are like, by making one."""
    environments = build_evaluation_environments(config, 1)
    environments.close()
    return environments.spec


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
