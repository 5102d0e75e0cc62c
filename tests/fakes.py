"""Stand-ins for the collaborators of the host layer: scripted, and telling what they were asked."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from a3cjax.actors.reports import Seconds, UpdateReport
from a3cjax.envs.base import Episode
from a3cjax.envs.specs import make_spec
from a3cjax.logs.metrics import MetricsWindow
from a3cjax.parameters.shared import Receipt
from a3cjax.types import Seen, Snapshot, TimeStep

DISCOUNT = 0.9
# For what takes a fraction of a second: only what hangs takes so long, however busy the machine.
PATIENCE_SECONDS = 200.0


class FakeClock:
    """A clock that stands still until someone takes time; or a module `time` with such a clock."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        self.now += seconds

    monotonic = perf_counter = __call__
    sleep = take


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for what another thread or process is about to do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


class PoolStep(NamedTuple):
    """What a pool of environments answers to one step: each field a sequence over B."""

    rewards: Sequence[float]
    terminated: Sequence[bool] = ()
    truncated: Sequence[bool] = ()
    game_over: Sequence[bool] = ()


class ScriptedPool:
    """A vector environment as envpool and Gymnasium have it, which plays a given script.

    Observation t is `make_observation(t)` for the whole batch, 0 being the reset's. All
    observations are written into one buffer: who wants to keep one must copy it.
    """

    def __init__(
        self,
        steps: Sequence[PoolStep],
        *,
        num_envs: int = 1,
        counts_lives: bool = False,
        observation_space: gymnasium.Space | None = None,
        make_observation: Callable[[int], Any] = lambda t: [float(t)],
        num_actions: int = 3,
        action_space: gymnasium.Space | None = None,
    ):
        self._steps = steps
        self._num_envs = num_envs
        self._counts_lives = counts_lives
        self._make_observation = make_observation
        box = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        self.single_observation_space = observation_space or box
        self.single_action_space = action_space or gymnasium.spaces.Discrete(num_actions)
        self._buffer = self._observe(0)
        self._t = 0
        self.actions: list[np.ndarray] = []
        self.is_closed = False

    def reset(self):
        self._t = 0
        fill(self._buffer, self._observe(0))
        return self._buffer, {}

    def step(self, actions: np.ndarray):
        self.actions.append(actions)
        step = self._steps[self._t]
        self._t += 1
        fill(self._buffer, self._observe(self._t))
        never = [False] * self._num_envs
        info = {}
        if self._counts_lives:
            info["lives"] = np.ones(self._num_envs, np.int32)
            info["terminated"] = np.array(step.game_over or never, np.int32)
        return (
            self._buffer,
            np.array(step.rewards, np.float32),
            np.array(step.terminated or never),
            np.array(step.truncated or never),
            info,
        )

    def close(self) -> None:
        self.is_closed = True

    def _observe(self, t: int) -> Any:
        return batched(self.single_observation_space, self._make_observation(t), self._num_envs)


def batched(space: gymnasium.Space, observation: Any, num_envs: int) -> Any:
    """The same observation for all environments, in the dtypes of its space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: batched(space[key], leaf, num_envs) for key, leaf in observation.items()}
    return np.stack([np.asarray(observation, space.dtype)] * num_envs)


def fill(buffer: Any, observation: Any) -> None:
    """Writes an observation over another one."""
    if isinstance(buffer, dict):
        for key, leaf in observation.items():
            fill(buffer[key], leaf)
    else:
        buffer[...] = observation


class FakeEnvironments:
    """An Environments whose observation is the number of steps taken since it was made.

    Reward t is t; `first` names the environments whose episode starts at step t, `idle` those for
    which step t is none, `episodes` what ends there.
    """

    def __init__(
        self,
        *,
        num_envs: int = 2,
        frames_per_step: int = 4,
        num_actions: int = 3,
        is_continuous: bool = False,
        first: Mapping[int, Sequence[int]] | None = None,
        idle: Mapping[int, Sequence[int]] | None = None,
        episodes: Mapping[int, Sequence[Episode]] | None = None,
        tape: list | None = None,
        on_step: Callable[[int], object] = lambda t: None,
    ):
        self.num_envs = num_envs
        self.spec = make_spec(
            Box(-np.inf, np.inf, (1,)),
            Box(-1.0, 1.0, (num_actions,)) if is_continuous else Discrete(num_actions),
            frames_per_step=frames_per_step,
        )
        self._first = first or {}
        self._idle = idle
        self._scripted = episodes or {}
        self._tape = tape if tape is not None else []
        self._on_step = on_step
        self._t = 0
        self._episodes: list[Episode] = []
        self.actions: list[np.ndarray] = []
        self.is_closed = False

    def reset(self) -> TimeStep:
        self._tape.append(("reset",))
        return self.timestep(self._t)._replace(is_first=np.ones(self.num_envs, bool))

    def restart(self, indices: np.ndarray) -> None:
        if len(indices):
            self._tape.append(("restart", indices.tolist()))

    def step(self, actions: np.ndarray) -> TimeStep:
        self._t += 1
        self._tape.append(("step", actions.tolist()))
        self._on_step(self._t)
        self.actions.append(actions)
        self._episodes += self._scripted.get(self._t, ())
        return self.timestep(self._t)

    def sample_actions(self, generator: np.random.Generator) -> np.ndarray:
        if self.spec.is_continuous:
            size = (self.num_envs, self.spec.num_actions)
            return generator.uniform(-1.0, 1.0, size).astype(np.float32)
        return generator.integers(self.spec.num_actions, size=self.num_envs, dtype=np.int32)

    def timestep(self, t: int) -> TimeStep:
        """The timestep after t steps."""
        is_first = np.zeros(self.num_envs, bool)
        is_first[list(self._first.get(t, ()))] = True
        timestep = TimeStep(
            observation=np.full((self.num_envs, 1), t, np.float32),
            reward=np.full(self.num_envs, t, np.float32),
            discount=np.full(self.num_envs, DISCOUNT, np.float32),
            is_first=is_first,
        )
        if self._idle is None:
            return timestep
        idle = list(self._idle.get(t, ()))
        timestep.observation[idle], timestep.reward[idle], timestep.discount[idle] = t - 1, 0, 1
        return timestep._replace(is_idle=np.isin(np.arange(self.num_envs), idle))

    def pop_episodes(self) -> list[Episode]:
        episodes, self._episodes = self._episodes, []
        return episodes

    def get_state(self) -> None:
        """None: it cannot tell where it stands."""

    def close(self) -> None:
        self.is_closed = True


class FakeStore:
    """A ParameterStore that writes what happens on a tape; `others` push between its calls."""

    def __init__(
        self,
        tape: list | None = None,
        *,
        num_frames: int = 0,
        others: int = 0,
        refuses: bool = False,
        on_pull: Callable[[], object] = lambda: None,
        on_push: Callable[[], object] = lambda: None,
    ):
        self._tape = tape if tape is not None else []
        self._others = others
        self._refuses = refuses
        self._on_pull = on_pull
        self._on_push = on_push
        self._snapshot = Snapshot(0, num_frames, "params 0")
        self.pushed_by: list[int] = []
        self.seen: list[Seen | None] = []

    def pull(self) -> Snapshot:
        self._tape.append(("pull", self._snapshot.version))
        self._on_pull()
        return self._snapshot

    def push(
        self,
        grads: Any,
        num_frames: int,
        version: int,
        actor_index: int = 0,
        seen: Seen | None = None,
    ) -> Receipt:
        self.pushed_by.append(actor_index)
        self.seen.append(seen)
        self._tape.append(("push", grads, num_frames, version))
        self._on_push()
        new_version = self._snapshot.version + self._others + 1
        frames = self._snapshot.num_frames + num_frames
        self._snapshot = Snapshot(new_version, frames, f"params {new_version}")
        staleness = new_version - 1 - version
        return Receipt(
            new_version,
            frames,
            staleness,
            wait_seconds=0.25,
            hold_seconds=0.5,
            is_refused=self._refuses,
        )


def run_in_threads(targets: Sequence[Callable[[], object]]) -> None:
    """Runs all targets at the same time; raises what one of them raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(targets))

    def run(target: Callable[[], object]) -> None:
        try:
            barrier.wait(PATIENCE_SECONDS)
            target()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "a thread did not return"
    if failures:
        raise failures[0]


def counting(start: int = 1) -> Callable[[], int]:
    """A function that returns one number after the other."""
    numbers = itertools.count(start)
    return lambda: next(numbers)


def make_metrics(
    policy_loss: float, value_loss: float, entropy: float, grad_norm: float
) -> dict[str, float]:
    """The metrics of one update of A3C."""
    names = ("policy_loss", "value_loss", "entropy", "grad_norm")
    return dict(zip(names, (policy_loss, value_loss, entropy, grad_norm), strict=True))


def make_report(**changes: Any) -> UpdateReport:
    """A report of one update, with whatever a test cares about changed."""
    report = UpdateReport(
        actor_index=0,
        num_frames=80,
        num_steps=20,
        run_frames=80,
        version=1,
        staleness=0,
        metrics=make_metrics(-0.5, 2.0, 1.5, 3.0),
        episodes=[],
        seconds=Seconds(env=4.0, act=3.0, learn=2.0, push=1.0, wait=0.5, hold=0.25),
    )
    return report._replace(**changes)


def make_row(num_frames: int = 400, wall_seconds: float = 1.0, **changes: float) -> dict:
    """A row of metrics as training writes it, with whatever a test cares about changed."""
    window = MetricsWindow()
    window.add(make_report(episodes=[Episode(0, 12.5, 30)]))
    counters = {"num_frames": num_frames, "num_updates": 5, "wall_seconds": wall_seconds}
    return {**counters, **window.pop_row(seconds=0.5), **changes}


def compilation_cache_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of JAX with which all runs of this test session share compiled programs."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # its own lies in that of the session
        folder = folder.parent
    return {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
