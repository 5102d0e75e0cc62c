"""Acting on plain observations, without an environment of a3cjax: `TrainedAgent.predict`."""

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import chex
import jax
import numpy as np
from gymnasium.spaces import Discrete

from a3cjax.agents import Agent
from a3cjax.config.builders import make_keys
from a3cjax.envs.actions import make_clip, read_mask
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.envs.gymnasium_batch import check_leaf, nest
from a3cjax.envs.observations import plan_reading, read_observations
from a3cjax.envs.spaces import leaves_of
from a3cjax.errors import AnswerError
from a3cjax.exploration import evaluation_exploration
from a3cjax.types import CoreState, Snapshot, TimeStep
from a3cjax.updates import make_act

# Folded into the key of evaluations, far from the numbers of their games.
_STREAM = 2**31


class Predictor:
    """Chooses actions for plain observations; several threads may ask at once.

    A single observation is a batch of one: for each number of observations there is one program,
    compiled when it is first asked for.
    """

    def __init__(self, agent: Agent, snapshot: Snapshot, spec: EnvironmentSpec, seed: int):
        """Sampled actions follow from `seed`, and from how many were sampled before."""
        self._initial_state, self._snapshot, self._spec = agent.initial_state, snapshot, spec
        self._clip = make_clip(spec.action_space)
        self._acts = [make_act(agent, is_greedy=is_greedy) for is_greedy in (False, True)]
        self._key = jax.random.fold_in(make_keys(seed).evaluation, _STREAM)
        self._plan = plan_reading(spec.observation_space, spec.image_layout)
        self._lock = threading.Lock()  # guards the key: each is used once
        self._initial_states: dict[int, CoreState] = {}

    def predict(
        self,
        observation: Any,
        state: CoreState | None,
        deterministic: bool,
        episode_start: Any,
        action_mask: Any,
        key: chex.PRNGKey | None,
    ) -> tuple[Any, CoreState]:
        """As `TrainedAgent.predict`."""
        observations, num, is_single = self._read(observation)
        starts = _read_starts(episode_start, num)
        timestep = TimeStep(
            observations,
            np.zeros(num, np.float32),
            np.ones(num, np.float32),
            np.ones(num, bool) if state is None else starts,
        )
        if action_mask is not None:
            mask = self._read_masks([action_mask] if is_single else action_mask, num)
            timestep = timestep._replace(action_mask=mask)
        if num not in self._initial_states:
            self._initial_states[num] = self._initial_state(num)
        state = self._check_state(self._initial_states[num] if state is None else state, num)
        act, exploration = self._acts[bool(deterministic)], evaluation_exploration(num)
        is_own = key is None and not deterministic
        with self._lock if is_own else contextlib.nullcontext():
            own = self._key if key is None else key
            actions, state, own = act(self._snapshot, exploration, timestep, state, own)
            if is_own:
                self._key = own
        actions = self._clip(np.asarray(actions))
        if not is_single:
            return actions, state
        is_number = isinstance(self._spec.action_space, Discrete)
        return int(actions[0]) if is_number else np.asarray(actions[0]), state

    def _read(self, observation: Any) -> tuple[Any, int, bool]:
        """Observations as networks read them, how many, and whether it is one without a batch."""
        space = self._spec.observation_space
        try:
            leaves = list(leaves_of(space, observation, "predict", "observation"))
            arrays = [check_leaf(*leaf, "predict", may_be_batch=True) for leaf in leaves]
            is_single = arrays[0].shape == leaves[0][1].shape
            counts = {
                None if array.shape == leaf.shape else len(array)
                for array, (_, leaf, _) in zip(arrays, leaves, strict=True)
            }
            if len(counts) > 1 or 0 in counts:
                told = " and ".join("no batch" if n is None else f"{n}" for n in counts)
                raise ValueError(f"observation must be one, or one batch of them, got {told}.")
            batch = nest(space, iter([a[None] for a in arrays] if is_single else arrays))
            observations = read_observations(space, batch, "predict", plan=self._plan)
            return observations, counts.pop() or 1, is_single
        except AnswerError as error:
            raise ValueError(str(error)) from error

    def _read_masks(self, masks: Sequence[Any], num: int) -> np.ndarray:
        space = self._spec.action_space
        if isinstance(masks, tuple) and not isinstance(space, Discrete):
            # For one observation it has an array for each number that is chosen.
            raise ValueError("action_mask must be a list or an array in a batch, got a tuple.")
        if len(masks) != num:
            raise ValueError(
                f"action_mask must be one for each observation, {num}, got {len(masks)}."
            )
        try:
            return np.stack([read_mask(space, m, "predict") for m in masks])
        except AnswerError as error:
            raise ValueError(str(error)) from error

    def _check_state(self, state: CoreState, num: int) -> CoreState:
        expected, given = _shapes(self._initial_states[num]), _shapes(state)
        if expected != given:
            raise ValueError(
                "state must be None, or what predict returned for the observation before of "
                f"as many games, {num}: of shapes {expected[1]}, got {given[1]}."
            )
        return state


def _shapes(state: CoreState) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, structure = jax.tree.flatten(state)
    return structure, [np.shape(leaf) for leaf in leaves]


def _read_starts(episode_start: Any, num: int) -> np.ndarray:
    starts = np.asarray(False if episode_start is None else episode_start)
    if starts.dtype.kind != "b" or starts.shape not in ((), (num,)):
        rule = f"True, False or {num} of them"
        raise ValueError(f"episode_start must be {rule}, got {starts.tolist()}.")
    return np.broadcast_to(starts, num)
