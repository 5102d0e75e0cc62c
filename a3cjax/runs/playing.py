"""A trained agent and its games, step by step: evaluations and videos are made of them."""

import contextlib
import dataclasses
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.agents import Agent
from a3cjax.config.bringing import NO_PARTS, Parts, bring
from a3cjax.config.builders import build_evaluation_environments, make_keys
from a3cjax.config.settings import MAX_BATCH, Config
from a3cjax.envs.base import MAX_EPISODE_STEPS, Environments, EnvironmentSpec, Episode
from a3cjax.envs.bringing import Source
from a3cjax.errors import ConfigError, check_flags, one_line, quote
from a3cjax.exploration import evaluation_exploration
from a3cjax.runs.evaluation import Evaluation
from a3cjax.runs.folder import as_output
from a3cjax.runs.predicting import Predictor
from a3cjax.runs.trust import check_trust
from a3cjax.system.compilation import check_fork
from a3cjax.system.files import replace_file, same_folder
from a3cjax.system.life import show_life
from a3cjax.system.output import Lasting, warn
from a3cjax.types import CoreState, Snapshot, TimeStep, is_experienced
from a3cjax.updates import make_act

MIN_EPISODE_STEPS = 1_000  # of a game without a limit of its own, however small the budget is
_PREDICTORS = threading.Lock()
REPORT_SECONDS = 10.0  # between lines that say how far an evaluation is


class Step(NamedTuple):
    """Where B games stand, and what the agent does there.

    `core_state` is the network's before it saw this timestep. `actions` is None once all games
    are over. `episodes` holds the games that ended here, only the first of each environment;
    `cut` holds, at the last step, the games that a limit of steps has ended.
    """

    timestep: TimeStep
    core_state: CoreState
    actions: np.ndarray | None
    episodes: list[Episode]
    cut: Sequence[Episode] = ()


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedAgent:
    """An agent with its parameters.

    `config` holds the settings of its run, `agent` the pure functions of its algorithm, and
    `snapshot` the parameters; `spec` describes the environment that it learned on. Code named by
    the settings in an `untrusted` folder is not imported. `parts` holds the objects for which the
    settings have only names.
    """

    config: Config
    agent: Agent
    snapshot: Snapshot
    spec: EnvironmentSpec
    untrusted: Path | None = None
    parts: Parts = NO_PARTS

    def __repr__(self) -> str:
        config, num_frames = self.config, self.snapshot.num_frames
        what = f"{config.env}, {config.algorithm}, {config.network}, {num_frames:,} frames"
        return one_line(f"TrainedAgent({what})")

    @functools.cached_property
    def _predictor(self) -> Predictor:
        with _PREDICTORS:  # several threads may ask at once for the first time
            made = self.__dict__.get("_predictor")
            made = made or Predictor(self.agent, self.snapshot, self.spec, self.config.seed)
            return self.__dict__.setdefault("_predictor", made)

    def predict(
        self,
        observation: Any,
        state: CoreState | None = None,
        deterministic: bool = True,
        *,
        episode_start: Any = None,
        action_mask: Any = None,
        key: chex.PRNGKey | None = None,
    ) -> tuple[Any, CoreState]:
        """Choose an action for an observation of your own, or for each of a batch.

        Needs no environment. A call with as many observations as an earlier one compiles nothing.

        Args:
          observation: as the environment shows it: an array, a number, a dict or a tuple of its
            observation space, or lists of numbers. In a batch, each array has one more leading
            axis, `[B]`.
          state: None where games begin, else what the last call returned: `[B, ...]`, or
            `[1, ...]` for one observation. Only recurrent networks have any.
          deterministic: the most probable action instead of a sampled one.
          episode_start: bool or bool `[B]`: where another game begins at this observation.
          action_mask: bool, which actions are allowed, as in the environment's
            `info["action_mask"]`; None: all.
          key: for sampling. None: the next of the agent's own keys, which follow from the seed
            of its run.

        Returns:
          The action, in the form that the environment takes: an int in a Discrete space, else an
          array; for a batch, an array with the leading axis `[B]`. And the next `state`.

        Raises:
          ValueError: in one line, if an observation is not of the environment's space, or
            `state` is not for the same number of games.
        """
        check_fork()
        check_flags(deterministic=deterministic)
        return self._predictor.predict(
            observation, state, deterministic, episode_start, action_mask, key
        )

    def export(
        self,
        path: str | os.PathLike[str],
        deterministic: bool = True,
        *,
        has_mask: bool = False,
        batch_size: int | None = None,
        platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    ) -> Path:
        """Write a program that chooses as `predict` does, and needs JAX, but not a3cjax.

        Where it is used, `jax.export.deserialize(path.read_bytes()).call` is

            call(observation, state, is_first) -> (action, state)

        for B observations as the environment shows them, `[B, ...]`, which are not checked.
        `state` is a tuple of float32 arrays, zeros before the first call, or `()` for a network
        without memory; `is_first`, bool `[B]`, says where games begin. Numbers have 32 bits at
        most. Parameters and statistics are in the file.

        Args:
          path: of the file; an existing one is overwritten.
          deterministic: the most probable action; else a sampled one: call takes `key=`, uint32
            `[2]`, as `jax.random.PRNGKey` makes them.
          has_mask: call takes `action_mask=`, bool `[B, A]`, or `[B, K, M]` for K choices at once.
          batch_size: B; None: any.
          platforms: the JAX platforms on which it runs, some of `cpu`, `cuda`, `rocm` and `tpu`.

        Returns:
          The path.

        Raises:
          ValueError: if `batch_size` is below 1, a platform is none, or a mask is asked for with
            continuous actions.
          OSError: if the file cannot be written, is none, or is one of a run's own.
        """
        from a3cjax.runs.exporting import export_agent  # which needs one more package

        check_flags(deterministic=deterministic, has_mask=has_mask)
        place = as_output(path)
        content = export_agent(
            self.agent,
            self.snapshot,
            self.spec,
            is_greedy=deterministic,
            has_mask=has_mask,
            batch_size=batch_size,
            platforms=platforms,
        )
        replace_file(place, content)
        return Path(path)

    def make_environments(
        self,
        num_envs: int = 1,
        *,
        env: str | Source | None = None,
        sticky_actions: float | None = None,
        renders: bool = False,
    ) -> Environments:
        """`num_envs` environments as in evaluations: whole games, never seen in training.

        Args:
          num_envs: B; a vector environment fixes its own number.
          env: an id, a function that makes one, or a vector of environments, in place of those
            that the run had.
          sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
          renders: whether they are to have pictures, if they can.

        Raises:
          ConfigError: if there is no such environment here, its spaces are not those that the
            agent has learned on, or its code is not trusted; or there are to be too many.
        """
        _check_number("num_envs", num_envs)
        config, parts = self.config, self.parts
        if env is not None:
            config, parts = bring(config.replace(resume=None), env)
        elif self.untrusted is not None:
            check_trust(config, self.untrusted)
        environments = build_evaluation_environments(
            config, num_envs, parts=parts, sticky_actions=sticky_actions, renders=renders
        )
        rule, got = _seen_by_agent(self.spec), _seen_by_agent(environments.spec)
        if rule != got:
            with closing_quietly(environments):
                raise ConfigError(
                    f"env must show and take what its agent has learned on, {rule}, got "
                    f"{config.env} with {got}."
                )
        return environments

    def initial_state(self, num_envs: int) -> CoreState:
        """The state of the recurrent core before a game, for `num_envs` environments."""
        return self.agent.initial_state(num_envs)

    def act(
        self, timestep: TimeStep, core_state: CoreState, key: chex.PRNGKey, is_greedy: bool = False
    ) -> tuple[np.ndarray, CoreState, chex.PRNGKey]:
        """Choose an action for each of the B environments.

        Args:
          timestep: what `reset` or `step` of `make_environments(B)` returned.
          core_state: from `initial_state(B)` or the last call.
          key: for sampling.
          is_greedy: takes the most probable action instead of sampling.

        Returns:
          Actions, int32 `[B]` or float32 `[B, D]`, and the next `core_state` and `key`.

        Raises:
          TypeError: for anything but a TimeStep.
        """
        check_fork()
        if not isinstance(timestep, TimeStep):
            raise TypeError(
                "act takes a TimeStep, as environments of make_environments return it, got "
                f"{type(timestep).__name__}: predict(observation) takes an observation of your own."
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
        is_greedy: bool | None = None,
        max_episode_steps: int | None = None,
        num_games: int | None = None,
    ) -> Iterator[Step]:
        """Play one whole game in every environment, or in the first `num_games` of them.

        One game in each counts, not the first to finish: short games would count too often. Where
        a game is over, the next one begins, until the last that counts is over.

        Args:
          environments: B of them, made for evaluation; reset here.
          key: for sampling actions.
          is_greedy: as for `act`; None: as the run's own evaluations.
          max_episode_steps: games are cut after so many; None for their own limit or, if they
            have none, for `MAX_EPISODE_STEPS` or the run's budget, whichever is less.
          num_games: only the first so many environments count, B at most; None for all.

        Yields:
          Each step before it is taken, and finally the one at which all games are over or cut.
        """
        core_state = self.initial_state(environments.num_envs)
        timestep = environments.reset()
        environments.pop_episodes()  # of games before
        unfinished = set(range(environments.num_envs)[:num_games])
        ended: list[Episode] = []
        returns = np.zeros(environments.num_envs)
        lengths = np.zeros(environments.num_envs, int)
        cut: list[Episode] = []
        limit = self._choose_limit(environments, max_episode_steps)
        is_greedy = self.choose_greedy(is_greedy)
        while unfinished:
            actions, next_core_state, key = self.act(timestep, core_state, key, is_greedy)
            yield Step(timestep, core_state, actions, ended)
            timestep, core_state = environments.step(actions), next_core_state
            returns += timestep.reward
            lengths += is_experienced(timestep.is_first, timestep.is_idle)
            episodes = environments.pop_episodes()
            ended = [episode for episode in episodes if episode.environment_index in unfinished]
            unfinished -= {episode.environment_index for episode in ended}
            late = [index for index in sorted(unfinished) if lengths[index] >= limit]
            cut += [Episode(index, float(returns[index]), limit) for index in late]
            unfinished -= set(late)
        yield Step(timestep, core_state, None, ended, cut)

    def choose_greedy(self, is_greedy: bool | None) -> bool:
        """Whether to take the most probable actions; None leaves it to the run's settings.

        Runs older than this setting sampled.
        """
        if is_greedy is None:
            return bool(self.config.greedy_evaluation)
        check_flags(is_greedy=is_greedy)
        return bool(is_greedy)

    def _choose_limit(self, environments: Environments, max_episode_steps: int | None) -> int:
        own = self.config.max_episode_steps
        if max_episode_steps is not None:  # held to the rule of the setting
            own = self.config.replace(max_episode_steps=max_episode_steps).max_episode_steps
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
        is_greedy: bool | None = None,
        sticky_actions: float | None = None,
        max_episode_steps: int | None = None,
        env: str | Source | None = None,
    ) -> Evaluation:
        """Play whole games, each in an environment of its own.

        A vector environment with fewer environments plays them in rounds.

        Environments and actions follow from the run's seed: a repetition gives the same games.

        Args:
          num_episodes: how many, >= 1; None for as many as the run was configured for, or 30
            if that is 0.
          is_greedy: as for `play`.
          sticky_actions: probability of a repeated action in Atari games; None: the protocol's.
          max_episode_steps: as for `play`.
          env: as for `make_environments`.

        Raises:
          ConfigError: if the environment has no sticky actions, or there are too many games, or
            `max_episode_steps` is no number of steps.
        """
        number = num_episodes
        if number is None:
            number = self.config.eval_episodes or Config.eval_episodes
        _check_number("num_episodes", number)
        environments = self.make_environments(number, env=env, sticky_actions=sticky_actions)
        options = {"is_greedy": is_greedy, "max_episode_steps": max_episode_steps}
        report = functools.partial(print, file=Lasting(sys.stderr))
        with closing_quietly(environments):
            evaluation = evaluate_agent(self, environments, number, report=report, **options)
        assert evaluation is not None  # nothing stops it
        return evaluation


def _check_number(name: str, number: Any) -> None:
    if not isinstance(number, int | np.integer) or not 1 <= number <= MAX_BATCH:
        rule = f"{name} must be a whole number between 1 and {MAX_BATCH}"
        raise ConfigError(f"{rule}, got {quote(number)}.")


def _seen_by_agent(spec: EnvironmentSpec) -> str:
    """What an agent's network takes and gives, in words."""
    parts = jax.tree.map(lambda part: f"{part.dtype}{list(part.shape)}", spec.observation)
    return f"observations of {parts} and {spec.actions.kind} actions of {list(spec.actions.sizes)}"


def evaluate_agent(
    agent: TrainedAgent,
    environments: Environments,
    num_episodes: int,
    *,
    is_greedy: bool | None = None,
    max_episode_steps: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda line: None,
    hint: str = "",
) -> Evaluation | None:
    """Like `TrainedAgent.evaluate`, a game in each of these environments, in rounds if need be.

    `should_stop` is asked at every step; if it returns True, there is no result. `report` is given
    a line now and then, and one if games had to be cut, with `hint` at its end.
    """
    key, reported = make_keys(agent.config.seed).evaluation, time.monotonic()
    options = {"is_greedy": is_greedy, "max_episode_steps": max_episode_steps}
    episodes: list[Episode] = []
    num_cut = 0
    for first in range(0, num_episodes, environments.num_envs):  # of a round
        round_key = jax.random.fold_in(key, first) if first else key
        games = agent.play(environments, round_key, num_games=num_episodes - first, **options)
        for num_steps, step in enumerate(games):
            show_life()
            for episode in (*step.episodes, *step.cut):
                index = first + episode.environment_index
                episodes.append(episode._replace(environment_index=index))
            if step.actions is not None and should_stop():
                return None
            if time.monotonic() - reported > REPORT_SECONDS:
                reported, told = time.monotonic(), f"{len(episodes)} of {num_episodes} games"
                report(f"evaluation: {told} are over after {num_steps:,} steps")
            if step.cut:
                num_cut, limit = num_cut + len(step.cut), step.cut[0].episode_length
                report(
                    f"warning: {len(step.cut)} of {num_episodes} games of {agent.config.env} did "
                    f"not end within {limit:,} steps and were cut there: max_episode_steps=... "
                    f"sets another limit{hint}"
                )
    return Evaluation(sorted(episodes), agent.choose_greedy(is_greedy), num_cut)


@contextlib.contextmanager
def closing_quietly(environments: Environments) -> Iterator[Environments]:
    """Close environments after the block; only warn if that fails: their games are played."""
    try:
        yield environments
    finally:
        try:
            with same_folder():
                environments.close()
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            warn(f"environments cannot be closed: {reason}")
