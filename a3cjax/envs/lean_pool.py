"""envpool's step, without what its Python wrapper works out anew each time.

Lists of arrays are exchanged through private methods of envpool (as of 1.2.5). So the first step is
envpool's own, and is watched: unless it consists of exactly the arrays expected here, all further
steps are envpool's own, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from a3cjax.envs.actions import ACTION_MASK

INFOS = ("lives", "terminated", ACTION_MASK)  # all that is read here
_ENV_IDS = ["env_id", "players.env_id"]  # what is sent before the actions


class LeanPool:
    """An envpool that steps all its environments at once, and of its infos shows `INFOS`."""

    def __init__(self, pool: Any):
        self._pool = pool
        self._step: Callable[[np.ndarray], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def step(self, actions: np.ndarray) -> Any:
        """As envpool's, with actions as the environments take them."""
        if self._step is None:
            answer, self._step = _step_first(self._pool, actions)
            return answer
        return self._step(actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanStep:
    """What `step` of a pool sends at each call, and where its answer stands in what it receives."""

    send: Callable[[list[np.ndarray]], None]
    receive: Callable[[], list[np.ndarray]]
    env_ids: list[np.ndarray]
    action_dtype: np.dtype
    observations: Any  # an index, or dicts of them
    rewards: int
    done: int
    truncated: int
    infos: dict[str, int]

    def __call__(self, actions: np.ndarray) -> Any:
        """Steps: see `answer`."""
        self.send([*self.env_ids, actions.astype(self.action_dtype, order="C")])
        return self.answer(self.receive())

    def answer(self, received: list[np.ndarray]) -> Any:
        """Observations, rewards, terminated, truncated, and an info."""
        truncated = received[self.truncated]
        return (
            _pick(self.observations, received),
            received[self.rewards],
            received[self.done] & ~truncated,
            truncated,
            {name: received[index] for name, index in self.infos.items()},
        )


def _pick(indices: Any, received: list[np.ndarray]) -> Any:
    if isinstance(indices, int):
        return received[indices]
    return {key: _pick(inner, received) for key, inner in indices.items()}


def _step_first(pool: Any, actions: np.ndarray) -> tuple[Any, Callable[[np.ndarray], Any]]:
    """The answer of envpool's own step, and how to step from then on."""
    sent, received = [], []

    def watched_send(arrays: list[np.ndarray]) -> None:
        sent.extend(arrays)
        send(arrays)

    def watched_receive() -> list[np.ndarray]:
        received.extend(receive())
        return received

    try:
        send, receive = pool._send, pool._recv
        pool._send, pool._recv = watched_send, watched_receive  # before those of its class
    except AttributeError:
        return pool.step(actions), pool.step
    try:
        answer = pool.step(actions)
    finally:
        del pool._send, pool._recv
    try:
        return answer, _recognise(pool, actions, sent, received, answer) or pool.step
    except (AttributeError, LookupError, TypeError, ValueError):
        return answer, pool.step


def _recognise(
    pool: Any,
    actions: np.ndarray,
    sent: list[np.ndarray],
    received: list[np.ndarray],
    answer: Any,
) -> LeanStep | None:
    """The step that was watched; None, or an error for `_step_first`, if it is of another kind."""
    places = {id(array): index for index, array in enumerate(received)}

    def find(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: find(inner) for key, inner in value.items()}
        return places[id(value)]

    observations, rewards, terminated, truncated, info = answer
    *env_ids, sent_actions = sent
    step = LeanStep(
        send=pool._send,
        receive=pool._recv,
        env_ids=env_ids,
        action_dtype=sent_actions.dtype,
        observations=find(observations),
        rewards=find(rewards),
        done=list(pool._state_keys).index("done"),
        truncated=find(truncated),
        infos={name: find(info[name]) for name in INFOS if name in info},
    )
    same = [(ids, np.arange(len(actions))) for ids in env_ids]
    same += [(sent_actions, actions), (step.answer(received)[2], terminated)]
    is_known = list(pool._action_keys)[:-1] == _ENV_IDS
    return step if is_known and all(np.array_equal(*pair) for pair in same) else None
