"""A trained agent and its games, step by step: evaluations and videos are made of them."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.config.bringing import NO_PARTS, Parts, bring
from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.config.settings import MAX_BATCH, Config
from a3cjax.envs.base import Environments, Episode
from a3cjax.envs.bringing import Source
from a3cjax.errors import ConfigError
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.evaluation import Evaluation
from a3cjax.system.compilation import check_fork
from a3cjax.system.output import Lasting, warn
from a3cjax.types import CoreState, Snapshot, TimeStep
from a3cjax.updates import make_act

MAX_EPISODE_STEPS = 27_000
"""A game that has no limit of its own is cut after so many steps, half an hour of an Atari game
(Machado et al. 2018), or after those of the run's budget if they are fewer."""
MIN_EPISODE_STEPS = 1_000  # which even the smallest budget allows
REPORT_SECONDS = 10.0  # between lines that say how far an evaluation is


class Step(NamedTuple):
    """Where B games stand, and what the agent does there.

    `core_state` is that of the network before it saw this timestep. `actions` are None once all
    games are over. `episodes` are the games that ended here, of each environment the first one;
    `cut` at last those that had not ended by then.
    """

    timestep: TimeStep
    core_state: CoreState
    actions: np.ndarray | None
    episodes: list[Episode]
    cut: Sequence[Episode] = ()


@dataclass(frozen=True)
class TrainedAgent:
    """An agent with its parameters.

    `config` are the settings of its run, `agent` the pure functions of its algorithm,
    `snapshot` holds the parameters, `parts` what the settings only have names for.
    """

    config: Config
    agent: Agent
    snapshot: Snapshot
    parts: Parts = NO_PARTS

    def make_environments(
        self, num_envs: int = 1, *, env: str | Source | None = None
    ) -> Environments:
        """`num_envs` environments as in evaluations: whole games, never seen in training.

        `env` is an id, a function that makes one, or a vector of environments, in place of those
        that the run had.
        """
        return self._build(num_envs, env)

    def _build(self, num_envs: int, env: str | Source | None, **options: Any) -> Environments:
        config, parts = self.config, self.parts
        if env is not None:
            config, parts = bring(config.replace(resume=None), env)
        return build_evaluation_environments(config, num_envs, parts=parts, **options)

    def initial_state(self, num_envs: int) -> CoreState:
        """The state of the recurrent core before a game, for `num_envs` environments."""
        return self.agent.initial_state(num_envs)

    def act(
        self, timestep: TimeStep, core_state: CoreState, key: chex.PRNGKey, is_greedy: bool = False
    ) -> tuple[np.ndarray, CoreState, chex.PRNGKey]:
        """Chooses an action for each of the B environments.

        Args:
          timestep: of `make_environments(B)`: what its `reset` or `step` returned.
          core_state: of `initial_state(B)` or the last call.
          key: for sampling.
          is_greedy: takes the most probable action instead of sampling.

        Returns:
          Actions, int32 `[B]` or float32 `[B, D]`, and the next `core_state` and `key`.

        Raises:
          TypeError: for anything but a TimeStep; says how one is built of an observation.
        """
        check_fork()
        if not isinstance(timestep, TimeStep):
            raise TypeError(
                "act takes a TimeStep: TimeStep(observation[None], np.zeros(1, np.float32), "
                "np.ones(1, np.float32), np.array([True])) is one of a single observation that "
                f"begins a game (a3cjax.types), got {type(timestep).__name__}."
            )
        exploration = evaluation_exploration(len(timestep.is_first))
        act = make_act(self.agent, is_greedy=is_greedy)
        actions, core_state, key = act(self.snapshot, exploration, timestep, core_state, key)
        return np.asarray(actions), core_state, key

    def play(
        self,
        environments: Environments,
        key: chex.PRNGKey,
        *,
        is_greedy: bool = False,
        max_episode_steps: int | None = None,
        num_games: int | None = None,
    ) -> Iterator[Step]:
        """Plays one whole game in every environment, or in the first `num_games` of them.

        One game each, not the first to finish: short games would count too often. Where a game
        is over, the next one begins, until the last one is over.

        Args:
          environments: B of them, made for evaluation; reset here.
          key: for sampling actions.
          is_greedy: as for `act`.
          max_episode_steps: games are cut after so many; None for their own limit, and where
            they have none for `MAX_EPISODE_STEPS`, or the run's budget if that is less.
          num_games: of the first so many environments, B at most; None for all.

        Yields:
          Each step before it is taken, and at last where all games are over or cut.
        """
        core_state = self.initial_state(environments.num_envs)
        timestep = environments.reset()
        environments.pop_episodes()  # of games before
        unfinished = set(range(environments.num_envs)[:num_games])
        ended: list[Episode] = []
        returns = np.zeros(environments.num_envs)
        limit = self._choose_limit(environments, max_episode_steps)
        for _ in range(limit):
            actions, next_core_state, key = self.act(timestep, core_state, key, is_greedy)
            yield Step(timestep, core_state, actions, ended)
            timestep, core_state = environments.step(actions), next_core_state
            returns += timestep.reward
            episodes = environments.pop_episodes()
            ended = [episode for episode in episodes if episode.environment_index in unfinished]
            unfinished -= {episode.environment_index for episode in ended}
            if not unfinished:
                break
        cut = [Episode(index, float(returns[index]), limit) for index in sorted(unfinished)]
        yield Step(timestep, core_state, None, ended, cut)

    def _choose_limit(self, environments: Environments, max_episode_steps: int | None) -> int:
        own = max_episode_steps or self.config.max_episode_steps
        if own is not None:
            return own
        if environments.spec.max_episode_steps is not None:
            return environments.spec.max_episode_steps + 1  # they end by themselves
        budget = self.config.total_frames // environments.spec.frames_per_step
        return min(MAX_EPISODE_STEPS, max(MIN_EPISODE_STEPS, budget))

    def evaluate(
        self,
        num_episodes: int | None = None,
        *,
        is_greedy: bool = False,
        sticky_actions: float | None = None,
        max_episode_steps: int | None = None,
        at_step: Callable[[], object] = lambda: None,
        env: str | Source | None = None,
    ) -> Evaluation:
        """Plays whole games, each in an environment of its own.

        Of a vector environment with less of them in rounds.

        Environments and actions follow from the run's seed: a repetition gives the same games.

        Args:
          num_episodes: how many, >= 1; None for as many as the run was configured for, or 30
            if that is 0.
          is_greedy: as for `act`.
          sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
          max_episode_steps: as for `play`.
          at_step: called at every step.
          env: as for `make_environments`.

        Raises:
          ConfigError: if there are no sticky actions, or too many games.
        """
        number = num_episodes
        if number is None:
            number = self.config.eval_episodes or Config.eval_episodes
        if not 1 <= number <= MAX_BATCH:
            raise ConfigError(f"num_episodes must be between 1 and {MAX_BATCH}, got {number}.")
        environments = self._build(number, env, sticky_actions=sticky_actions)
        options = {"is_greedy": is_greedy, "max_episode_steps": max_episode_steps}
        options["should_stop"] = lambda: at_step() and False
        report = functools.partial(print, file=Lasting(sys.stderr))
        with closing_quietly(environments):
            evaluation = evaluate_agent(self, environments, number, report=report, **options)
        assert evaluation is not None  # nothing stops it
        return evaluation


def evaluate_agent(
    agent: TrainedAgent,
    environments: Environments,
    num_episodes: int | None = None,
    *,
    is_greedy: bool = False,
    max_episode_steps: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation | None:
    """As `TrainedAgent.evaluate`, a game in each of these environments, in rounds if need be.

    `num_episodes` is None for as many as there are environments. `should_stop` is asked at every
    step; True leaves no result. `report` is given a line now and then, and one if games had to be
    cut.
    """
    key, reported = make_keys(agent.config.seed).evaluation, time.monotonic()
    number = environments.num_envs if num_episodes is None else num_episodes
    options = {"is_greedy": is_greedy, "max_episode_steps": max_episode_steps}
    episodes: list[Episode] = []
    num_cut = 0
    for first in range(0, number, environments.num_envs):  # of a round
        round_key = jax.random.fold_in(key, first) if first else key
        games = agent.play(environments, round_key, num_games=number - first, **options)
        for num_steps, step in enumerate(games):
            for episode in (*step.episodes, *step.cut):
                index = first + episode.environment_index
                episodes.append(episode._replace(environment_index=index))
            if step.actions is not None and should_stop():
                return None
            if time.monotonic() - reported > REPORT_SECONDS:
                reported, told = time.monotonic(), f"{len(episodes)} of {number} games"
                report(f"evaluation: {told} are over after {num_steps:,} steps")
            if step.cut:
                num_cut += len(step.cut)
                report(
                    f"warning: {len(step.cut)} of {number} games of {agent.config.env} did not "
                    f"end within {num_steps:,} steps and were cut there: max_episode_steps=... "
                    "sets another limit, eval_episodes=0 leaves evaluations out"
                )
    return Evaluation(sorted(episodes), is_greedy, num_cut)


@contextlib.contextmanager
def closing_quietly(environments: Environments) -> Iterator[Environments]:
    """Frees environments after the block; only says if they cannot be: their games are played."""
    try:
        yield environments
    finally:
        try:
            with contextlib.chdir("."):
                environments.close()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warn(f"environments cannot be closed: {reason}")
