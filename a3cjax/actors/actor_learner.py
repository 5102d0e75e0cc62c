"""One actor-learner: a thread's loop of acting, differentiating and pushing."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from a3cjax.actors.programs import Programs, as_stale
from a3cjax.actors.reports import Seconds, UpdateReport
from a3cjax.actors.supervisor import Job
from a3cjax.actors.trajectories import fill_up, keep_first_episodes, stack, stack_trees
from a3cjax.envs.base import MAX_EPISODE_STEPS, Environments
from a3cjax.errors import AnswerError
from a3cjax.exploration import Explore
from a3cjax.parameters.moments import discounted_sums, moments_of, moments_of_new
from a3cjax.parameters.shared import ParameterStore, Receipt
from a3cjax.types import (
    CoreState,
    Exploration,
    LayerOutputs,
    Seen,
    Snapshot,
    TimeStep,
    Trajectory,
    is_experienced,
)
from a3cjax.updates import GradientMetrics


class Decision(NamedTuple):
    """An action, the core state before the observation where it was chosen, and layer outputs."""

    action: np.ndarray
    core_state: CoreState
    layer_outputs: LayerOutputs | None = None


class Standing(NamedTuple):
    """Where an actor-learner stands between two steps.

    `core_state` is the network's state before the observation of `timestep`, and `key` the key
    with which the next action is sampled. `ahead` is the decision that an agent which acts ahead
    has already made at `timestep`; `core_state` and `key` are then those after it.
    `discounted_sums`: float64 `[B]`, what the games' rewards until now count at the next step.
    """

    timestep: TimeStep
    core_state: CoreState
    ahead: Decision | None
    key: chex.PRNGKey
    discounted_sums: np.ndarray


class Stepped(NamedTuple):
    """Where actions led, and the seconds that the step took."""

    timestep: TimeStep
    seconds: float


Work = Generator[np.ndarray, Stepped, None]


@dataclass(eq=False)
class ActorLearner:
    """A loop that acts T steps with a snapshot, computes a gradient there, and pushes it.

    One instance belongs to one thread. Collaborators are passed in, so that tests can replace them.
    """

    index: int  # tells its reports and gradients from those of others
    programs: Programs
    environments: Environments  # B of them, its own
    store: ParameterStore
    standing: Standing  # where it begins, with the environments
    explore: Explore
    unroll_length: int | None  # T; None makes an update of a whole episode in every environment
    total_frames: int  # of the run, after which it returns
    report: Callable[[UpdateReport], None]

    def __post_init__(self):
        self.clock = time.perf_counter
        self.first_length: int | None = None  # of the first unroll, if it is to be shorter
        self._is_between_passes = False

    def key_words(self) -> tuple[int, ...]:
        """The words of the key that the next action is sampled with."""
        return tuple(jax.random.key_data(self.standing.key).tolist())

    def get_standing(self) -> dict[str, Any] | None:
        """Where it stands between two unrolls, without its key, in plain values for JSON.

        None if its environments cannot tell, or if it is to learn again from its last unroll.
        """
        state = self.environments.get_state()
        if state is None or self._is_between_passes:
            return None
        leaves = jax.tree.leaves(self.standing._replace(key=None))
        return {
            "leaves": [np.asarray(leaf).tolist() for leaf in leaves],
            "is_ahead": self.standing.ahead is not None,
            "environments": state,
        }

    def set_standing(self, standing: dict[str, Any]) -> None:
        """Go on from what `get_standing` returned, with the same number of environments."""
        own = self.standing._replace(key=None)
        if standing["is_ahead"]:
            action = self.environments.sample_actions(np.random.default_rng(0))
            own = own._replace(ahead=Decision(action, own.core_state))
        own_leaves, structure = jax.tree.flatten(own)
        leaves = [
            np.array(values, leaf.dtype).reshape(leaf.shape)
            for values, leaf in zip(standing["leaves"], own_leaves, strict=True)
        ]
        self.standing = jax.tree.unflatten(structure, leaves)._replace(key=self.standing.key)
        self.environments.set_state(standing["environments"])

    def run(self, stop_event: threading.Event | Job) -> None:
        """Update until the frame budget is used up or `stop_event`, asked at every step, is set."""
        work = self.work(stop_event)
        with contextlib.suppress(StopIteration):
            actions = next(work)
            while True:
                began = self.clock()
                timestep = self.environments.step(actions)
                actions = work.send(Stepped(timestep, self.clock() - began))

    def work(self, stop_event: threading.Event | Job) -> Work:
        """As `run`, but yields actions to a caller, who takes them and sends the result back."""
        self._stop_event = stop_event
        while not stop_event.is_set():
            self._start_update()
            snapshot = self.store.pull()
            if snapshot.num_frames >= self.total_frames:
                return
            self._lap("push")
            exploration = self.explore(snapshot.num_frames)
            trajectory = yield from self._unroll(snapshot, exploration)
            if trajectory is not None:
                self._learn(snapshot, exploration, trajectory)

    def _start_update(self) -> None:
        """Count the time from now on as spent on the next update."""
        self._spent = dict.fromkeys(Seconds._fields[:4], 0.0)
        self._lap_began = self.clock()

    def _lap(self, part: str) -> None:
        """Count the time since the last call as spent on this part of the update."""
        now = self.clock()
        self._spent[part] += now - self._lap_began
        self._lap_began = now

    def _unroll(
        self, snapshot: Snapshot, exploration: Exploration
    ) -> Generator[np.ndarray, Stepped, Trajectory | None]:
        """Act for T steps, or whole episodes; return None if asked to stop.

        The last timestep is kept and starts the next unroll.

        Raises:
          AnswerError: if an episode does not end.
        """
        plays_episodes = self.unroll_length is None
        length, self.first_length = self.first_length or self.unroll_length, None
        if plays_episodes:
            self.standing = self.standing._replace(timestep=self.environments.reset(), ahead=None)
            self._lap("env")
        core_state = (self.standing.ahead or self.standing).core_state
        timesteps, actions, layer_outputs = [self.standing.timestep], [], []
        has_ended = np.zeros(self.environments.num_envs, bool)
        longest = max(self.environments.spec.max_episode_steps or 0, MAX_EPISODE_STEPS)
        lengths = np.zeros(self.environments.num_envs, int)
        while not (has_ended.all() if plays_episodes else len(actions) == length):
            if self._stop_event.is_set():
                return None
            if plays_episodes and np.any(lengths[~has_ended] > longest):
                rule = "episodes must end where unroll_length is episode"
                raise AnswerError(f"{rule}, got one that has not after {longest:,} steps.")
            decision = self.standing.ahead or self._decide(snapshot, exploration)
            actions.append(decision.action)
            layer_outputs.append(decision.layer_outputs)
            self._lap("act")
            timestep, seconds = yield decision.action
            self._lap_began = self.clock()
            self._spent["env"] += seconds
            self.standing = self.standing._replace(timestep=timestep, ahead=None)
            timesteps.append(timestep)
            has_ended |= np.asarray(timestep.is_first)
            if plays_episodes:
                lengths += is_experienced(timestep.is_first, timestep.is_idle)
        if self.programs.acts_ahead:
            ahead = self._decide(snapshot, exploration)
            self.standing = self.standing._replace(ahead=ahead)
            actions.append(ahead.action)
            self._lap("act")
        if self._stop_event.is_set():
            return None
        trajectory = stack(timesteps, actions, core_state)
        if self.programs.observe_at is None or not jax.tree.leaves(layer_outputs):
            return trajectory
        layer_outputs.append(self.programs.observe_at(snapshot, self.standing.timestep))
        return trajectory._replace(layer_outputs=stack_trees(layer_outputs))

    def _decide(self, snapshot: Snapshot, exploration: Exploration) -> Decision:
        timestep, before, _, key, _ = self.standing
        acted = self.programs.act(snapshot, exploration, timestep, before, key)
        action, core_state, key, layer_outputs = acted
        self.standing = self.standing._replace(core_state=core_state, key=key)
        return Decision(np.asarray(action), before, layer_outputs)

    def _look_at(self, trajectory: Trajectory) -> Seen:
        """The moments that this trajectory adds to what the run has seen."""
        returns = observations = None
        normalizer = self.programs.normalizer
        if normalizer.returns is not None:
            _, _, rewards, discounts, is_first, *_ = trajectory
            is_idle = None if trajectory.is_idle is None else trajectory.is_idle[1:]
            before = self.standing.discounted_sums
            sums, after = discounted_sums(rewards, discounts, is_first, before)
            self.standing = self.standing._replace(discounted_sums=after)
            returns = moments_of(sums[is_experienced(is_first[1:], is_idle)])
        if normalizer.observations is not None:
            seen = jax.tree.map(lambda x: x[:-1], trajectory.observations)
            is_idle = None if trajectory.is_idle is None else trajectory.is_idle[:-1]
            observations = moments_of_new(normalizer.observations, seen, is_idle)
        return Seen(returns, observations)

    def _learn(self, snapshot: Snapshot, exploration: Exploration, trajectory: Trajectory) -> None:
        """Compute and push a gradient in each pass, unless asked to stop."""
        is_idle = None if trajectory.is_idle is None else trajectory.is_idle[1:]
        num_steps = int(np.count_nonzero(is_experienced(trajectory.is_first[1:], is_idle)))
        seen = self._look_at(trajectory)  # before it is filled up with what nobody has seen
        if self.unroll_length is None:
            trajectory = keep_first_episodes(trajectory)
        else:
            trajectory = fill_up(trajectory, self.unroll_length)
        for num_left in reversed(range(self.programs.num_passes)):
            num_frames = num_steps * self.environments.spec.frames_per_step
            with self.programs.learning_slot:
                if self._stop_event.is_set():  # after waiting for others
                    return
                self._lap("learn")
                snapshot, trajectory = self._renew(snapshot, exploration, trajectory)
                grads, metrics = jax.block_until_ready(
                    self.programs.compute_gradients(snapshot, exploration, trajectory)
                )
                self._lap("learn")
                self._is_between_passes = num_left > 0
                receipt = self.store.push(grads, num_frames, snapshot.version, self.index, seen)
            self._lap("push")
            bad_trajectory = trajectory._replace(layer_outputs=None) if receipt.is_refused else None
            self._tell(num_frames, num_steps, metrics, receipt, bad_trajectory)
            num_steps, seen = 0, None  # they count once for each unroll
            self._start_update()

    def _renew(
        self, snapshot: Snapshot, exploration: Exploration, trajectory: Trajectory
    ) -> tuple[Snapshot, Trajectory]:
        """The snapshot at which to learn, and the trajectory as it is learned from there.

        It is the snapshot that acted, unless there is a newer one and the agent corrects for that.
        """
        if self.programs.behave is None:
            return snapshot, trajectory
        newest = self.store.pull()
        self._lap("push")
        if newest.version == snapshot.version:
            return snapshot, trajectory
        if trajectory.behaviour_log_probs is None:
            log_probs = self.programs.behave(snapshot, exploration, trajectory)
            trajectory = as_stale(trajectory, log_probs)
        return newest, trajectory

    def _tell(
        self,
        num_frames: int,
        num_steps: int,
        metrics: GradientMetrics,
        receipt: Receipt,
        bad_trajectory: Trajectory | None,
    ) -> None:
        """Report an update and the games that ended before it."""
        at_lock = {"wait": receipt.wait_seconds, "hold": receipt.hold_seconds}
        self.report(
            UpdateReport(
                actor_index=self.index,
                num_frames=num_frames,
                num_steps=num_steps,
                run_frames=receipt.num_frames,
                version=receipt.version,
                staleness=receipt.staleness,
                metrics=metrics.as_dict(),
                episodes=self.environments.pop_episodes(),
                seconds=Seconds(**self._spent, **at_lock),
                bad_trajectory=bad_trajectory,
                is_dropped=receipt.is_dropped,
                is_pooled=receipt.is_pooled,
            )
        )
