"""One actor-learner: a thread's loop of acting, differentiating and pushing."""

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.actors.trajectories import keep_first_episodes, stack
from a3cjax.envs.base import Environments, Episode
from a3cjax.exploration import Explore
from a3cjax.parameters.store import ParameterStore
from a3cjax.types import CoreState, Exploration, Snapshot, TimeStep, Trajectory
from a3cjax.updates import Act, ComputeGradients


class UpdateReport(NamedTuple):
    """What one update of one actor leaves for the log.

    `num_frames` are those of this update, `run_frames` and `version` where the run stands
    after it. `bad_trajectory` is None unless the update was refused because of numbers that
    are not finite; then nothing was counted.

    `staleness` counts the updates that others applied between this one's snapshot and
    itself. Environment, act, learn and push seconds add up to the actor's time for this
    update; learn includes waiting for a slot, push the pull before it, wait and hold are parts
    of push.
    """

    actor_index: int
    num_frames: int
    num_steps: int
    run_frames: int
    version: int
    staleness: int
    metrics: Any
    episodes: list[Episode]
    env_seconds: float
    act_seconds: float
    learn_seconds: float
    push_seconds: float
    wait_seconds: float
    hold_seconds: float
    bad_trajectory: Trajectory | None = None


class _Decision(NamedTuple):
    """An action, and the core state before the observation that it was chosen at."""

    action: np.ndarray
    core_state: CoreState


class ActorLearner:
    """Acts T steps with a snapshot, differentiates it, pushes the gradient, and again.

    One instance belongs to one thread. Collaborators are given: tests replace them.
    """

    def __init__(
        self,
        index: int,
        *,
        act: Act,
        compute_gradients: ComputeGradients,
        core_state: CoreState,
        environments: Environments,
        store: ParameterStore,
        key: chex.PRNGKey,
        explore: Explore,
        unroll_length: int | None,
        total_frames: int,
        report: Callable[[UpdateReport], None],
        acts_ahead: bool = False,
        timestep: TimeStep | None = None,
        enter_place: Callable[[], AbstractContextManager] = contextlib.nullcontext,
        learning_slot: AbstractContextManager | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Takes what it works with.

        With `unroll_length` None an update is made of one whole episode in every environment.
        `acts_ahead` is the agent's. `timestep` is where the environments stand; None resets
        them at the first step. `run` goes on inside `enter_place()`, and every gradient is
        computed and applied inside `learning_slot`, a semaphore that actors share; None lets
        all learn at once.
        """
        self._index = index
        self._act = act
        self._compute_gradients = compute_gradients
        self._core_state = core_state
        self._environments = environments
        self._store = store
        self._key = key
        self._explore = explore
        self._acts_ahead = acts_ahead
        self._ahead: _Decision | None = None
        self._unroll_length = unroll_length
        self._total_frames = total_frames
        self._report = report
        self._timestep = timestep
        self._enter_place = enter_place
        self._learning_slot = learning_slot or contextlib.nullcontext()
        self._clock = clock
        self.num_unrolled_steps = 0
        """Steps taken so far: what a watcher looks at to see whether this one still works."""

    @property
    def key(self) -> chex.PRNGKey:
        """The key that the next action is sampled with."""
        return self._key

    def get_standing(self) -> dict[str, Any] | None:
        """Where it stands between two updates, in plain values for JSON.

        None if its environments cannot tell. The key is not part of it.
        """
        state = self._environments.get_state()
        if state is None:
            return None
        leaves = jax.tree.leaves((self._timestep, self._core_state, self._ahead))
        return {
            "leaves": [np.asarray(leaf).tolist() for leaf in leaves],
            "is_ahead": self._ahead is not None,
            "environments": state,
        }

    def set_standing(self, standing: dict[str, Any]) -> None:
        """Goes on from what `get_standing` returned, with the same number of environments."""
        ahead = None
        if standing["is_ahead"]:
            ahead = _Decision(np.zeros(self._environments.num_envs, np.int32), self._core_state)
        own, structure = jax.tree.flatten((self._timestep, self._core_state, ahead))
        leaves = [
            np.array(values, leaf.dtype).reshape(leaf.shape)
            for values, leaf in zip(standing["leaves"], own, strict=True)
        ]
        self._timestep, self._core_state, self._ahead = jax.tree.unflatten(structure, leaves)
        self._environments.set_state(standing["environments"])

    def run(self, stop_event: threading.Event) -> None:
        """Updates until the frame budget is used up or `stop_event` is set."""
        with self._enter_place():
            while not stop_event.is_set():
                began = self._clock()
                snapshot = self._store.pull()
                if snapshot.num_frames >= self._total_frames:
                    return
                self._update(snapshot, self._clock() - began, stop_event)

    def _update(self, snapshot: Snapshot, pull_seconds: float, stop_event: threading.Event) -> None:
        exploration = self._explore(snapshot.num_frames)
        timesteps, actions, core_state, act_seconds, env_seconds = self._unroll(
            snapshot, exploration, stop_event
        )
        if stop_event.is_set():
            return
        began = self._clock()
        trajectory = stack(timesteps, actions, core_state)
        num_steps = int(np.count_nonzero(~np.asarray(trajectory.is_first[1:])))
        if self._unroll_length is None:
            trajectory = keep_first_episodes(trajectory)
        num_frames = num_steps * self._environments.spec.frames_per_step
        with self._learning_slot:
            if stop_event.is_set():  # after waiting for others
                return
            grads, metrics = jax.block_until_ready(
                self._compute_gradients(snapshot, exploration, trajectory)
            )
            learned = self._clock()
            receipt = self._store.push(grads, num_frames, snapshot.version, self._index)
        pushed = self._clock()
        self._report(
            UpdateReport(
                actor_index=self._index,
                num_frames=num_frames,
                num_steps=num_steps,
                run_frames=receipt.num_frames,
                version=receipt.version,
                staleness=receipt.staleness,
                metrics=metrics,
                episodes=self._environments.pop_episodes(),
                env_seconds=env_seconds,
                act_seconds=act_seconds,
                learn_seconds=learned - began,
                push_seconds=pull_seconds + pushed - learned,
                wait_seconds=receipt.wait_seconds,
                hold_seconds=receipt.hold_seconds,
                bad_trajectory=trajectory if receipt.is_refused else None,
            )
        )

    def _unroll(
        self, snapshot: Snapshot, exploration: Exploration, stop_event: threading.Event
    ) -> tuple[list[TimeStep], list[np.ndarray], CoreState, float, float]:
        """Acts for T steps, or whole episodes; the last timestep is kept and starts the next.

        Returns:
          T + 1 timesteps, T actions (T + 1 of an agent that acts ahead), the core state before
          them, seconds spent acting and in the environments. Fewer steps if it was asked to
          stop.
        """
        act_seconds = env_seconds = 0.0
        plays_episodes = self._unroll_length is None
        if self._timestep is None or plays_episodes:
            self._timestep, self._ahead = self._environments.reset(), None
        timesteps, actions = [self._timestep], []
        core_state = self._core_state if self._ahead is None else self._ahead.core_state
        has_ended = np.zeros(self._environments.num_envs, bool)
        while not (has_ended.all() if plays_episodes else len(actions) == self._unroll_length):
            if stop_event.is_set():
                return timesteps, actions, core_state, act_seconds, env_seconds
            began = self._clock()
            decision = self._ahead or self._decide(snapshot, exploration, timesteps[-1])
            self._ahead = None
            actions.append(decision.action)
            acted = self._clock()
            self._timestep = self._environments.step(actions[-1])
            timesteps.append(self._timestep)
            has_ended |= np.asarray(self._timestep.is_first)
            env_seconds += self._clock() - acted
            self.num_unrolled_steps += 1
            act_seconds += acted - began
        if self._acts_ahead:
            began = self._clock()
            self._ahead = self._decide(snapshot, exploration, timesteps[-1])
            actions.append(self._ahead.action)
            act_seconds += self._clock() - began
        return timesteps, actions, core_state, act_seconds, env_seconds

    def _decide(
        self, snapshot: Snapshot, exploration: Exploration, timestep: TimeStep
    ) -> _Decision:
        core_state = self._core_state
        action, self._core_state, self._key = self._act(
            snapshot, exploration, timestep, core_state, self._key
        )
        return _Decision(np.asarray(action), core_state)
