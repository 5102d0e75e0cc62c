import jax
import numpy as np

from a3cjax.envs.actions import clip_actions, sample_actions
from a3cjax.envs.lean_pool import INFOS, LeanPool, LeanStep
from a3cjax.envs.making import make_environments, make_pool, resolve_envpool_id
from tests.cases import for_each

B = 3
# How episodes of each end within the steps that are compared.
LIVES, TERMINATION, TIME = "a life is lost", "termination", "a time limit"


def read(answer):
    """What is read of an answer: envpool's infos have more."""
    *arrays, info = answer
    return (*arrays, {name: info[name] for name in INFOS if name in info})


def assert_same(actual, expected):
    """Of two answers what is read of them: nested alike, equal to the last bit."""
    actual, expected = read(actual), read(expected)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@for_each(
    ("env", "end"),
    [
        ("Breakout", LIVES),
        ("CartPole", TERMINATION),
        ("FrozenLake", TERMINATION),
        ("Pendulum", TIME),
        ("HalfCheetah", None),  # actions and rewards of 64 bits
        ("FetchReach", TIME),  # observations are dicts
    ],
)
def test_lean_steps_are_envpools_own(env, end):
    public, pool = (make_pool(resolve_envpool_id(env), B, seed=1) for _ in range(2))
    lean, generator, ends = LeanPool(pool), np.random.default_rng(0), set()
    assert_same(lean.reset(), public.reset())
    for _ in range(400):
        actions = sample_actions(public.action_space, B, generator)
        actions = clip_actions(public.action_space, actions)
        actual, expected = lean.step(actions), public.step(actions)
        assert_same(actual, expected)
        _, _, terminated, truncated, info = expected
        is_life = terminated & (info.get("terminated", 1) == 0)
        ends |= {LIVES} if is_life.any() else {TERMINATION} if terminated.any() else set()
        ends |= {TIME} if truncated.any() else set()
    assert isinstance(lean._step, LeanStep)
    assert end is None or end in ends
    lean.close(), public.close()


def test_environments_by_name_are_stepped_so(monkeypatch):
    num_steps, step = 5, LeanStep.__call__
    calls = []
    monkeypatch.setattr(LeanStep, "__call__", lambda *args: calls.append(1) or step(*args))
    environments = make_environments("CartPole", num_envs=B, seed=0, discount=0.9)
    for _ in range(num_steps):
        environments.step(np.zeros(B, np.int32))
    assert len(calls) == num_steps - 1  # all but the first
    environments.close()


def test_what_a_pool_has_shown_stays_as_it_was():
    lean = LeanPool(make_pool("CartPole-v1", B, seed=1))
    lean.reset()
    answers = [lean.step(np.zeros(B, np.int32)) for _ in range(20)]
    copies = jax.tree.map(np.copy, answers)
    for _ in range(100):
        lean.step(np.zeros(B, np.int32))
    jax.tree.map(np.testing.assert_array_equal, answers, copies)


class Pool:
    """What envpool's pools are made of, in a few lines: actions are their own observations."""

    _action_keys = ("env_id", "players.env_id", "action")
    _state_keys = ("obs", "reward", "done", "trunc")
    num_own_steps = 0

    def step(self, actions):
        self.num_own_steps += 1
        self._send([np.arange(B), np.arange(B), actions.astype(np.int32)])
        return self._to(*self._recv())

    def _send(self, arrays):
        self._actions = arrays[-1]

    def _recv(self):
        return [self._actions, self._actions / 2, self._actions > 0, self._actions > 1]

    def _to(self, observations, rewards, done, truncated):
        return observations, rewards, done & ~truncated, truncated, {}


class Renamed(Pool):
    def _send(self, arrays):
        raise AssertionError("is another thing now")

    def step(self, actions):
        self.num_own_steps += 1
        self._actions = actions
        return self._to(*self._recv())


class WithoutKeys(Pool):
    @property
    def _state_keys(self):
        raise AttributeError


class SendsMore(Pool):
    _action_keys = ("env_id", "mode", "action")


class SendsOtherNumbers(Pool):
    def _send(self, arrays):
        super()._send([arrays[0], arrays[1], arrays[2] + 1])

    def step(self, actions):
        return super().step(actions - 1)


class ScalesRewards(Pool):
    def _to(self, observations, rewards, done, truncated):
        return super()._to(observations, 10 * rewards, done, truncated)


class TerminatesAtTheLimit(Pool):
    def _to(self, observations, rewards, done, truncated):
        return observations, rewards, done, truncated, {}


class NamesEndsOtherwise(Pool):
    _state_keys = ("obs", "reward", "terminated", "trunc")


class AnswersFour(Pool):
    def _to(self, observations, rewards, done, truncated):
        return observations, rewards, done, {}


POOLS = [Renamed, WithoutKeys, SendsMore, SendsOtherNumbers, ScalesRewards, TerminatesAtTheLimit]


@for_each(
    ("make", "num_own_steps"),
    [(Pool, 1), *((make, 3) for make in [*POOLS, NamesEndsOtherwise, AnswersFour])],
)
def test_a_pool_that_is_made_otherwise_steps_by_itself(make, num_own_steps):
    pool, other = make(), make()
    lean = LeanPool(pool)
    for actions in np.array([[0, 1, 2], [2, 1, 0], [1, 1, 2]]):
        assert_same(lean.step(actions), other.step(actions))
    assert pool.num_own_steps == num_own_steps
