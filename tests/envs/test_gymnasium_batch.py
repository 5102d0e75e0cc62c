import concurrent.futures
import functools
import itertools
import re
import signal
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformAction, TransformObservation, TransformReward

from a3cjax.envs.base import Episode
from a3cjax.envs.batches import AnswerError, VectorEnvironments
from a3cjax.envs.bringing import make_brought
from a3cjax.envs.gymnasium_batch import GymnasiumBatch
from a3cjax.envs.making import make_environments
from a3cjax.errors import ConfigError
from a3cjax.system.life import show_life_by
from tests.cases import for_each

NAME = "gymnasium:Wrong-v0"
SHOWN = np.zeros(2, np.float32)


class Wrong(gymnasium.Env):
    """Right, until a test sets what it returns or where it raises."""

    observation_space: gymnasium.Space = Box(-1.0, 1.0, (2,))
    action_space: gymnasium.Space = Discrete(2)
    first: Any = (SHOWN, {})
    then: Any = (SHOWN, 0.0, False, False, {})
    raises_in = ""
    tape: ClassVar[list[Any]] = []

    def __init__(self):
        self._answer("constructor", None)

    def _answer(self, call, answer):
        self.tape.append(call)
        if call == self.raises_in:
            raise OSError("the emulator broke")
        return answer

    def reset(self, *, seed=None, options=None):
        self.tape.append(options)
        return self._answer("reset", self.first)

    def step(self, action):
        self.tape.append(action)
        return self._answer("step", self.then)

    def close(self):
        self._answer("close", None)


def test_each_environment_is_a_sign_of_life():
    # However slow, a batch must not be taken for a thread that stands still.
    signs = []
    show_life_by(lambda: signs.append(1))
    try:
        batch, counts = GymnasiumBatch(NAME, Wrong, 3), []
        for call in (batch.reset, lambda: batch.step(np.zeros(3, int)), batch.close):
            counts.append(len(signs))
            call()
        assert [*counts, len(signs)] == [3, 6, 9, 12]
    finally:
        show_life_by(lambda: None)


gymnasium.register("Wrong-v0", Wrong, max_episode_steps=1000)
gymnasium.register("WrongBare-v0", Wrong, order_enforce=False)
gymnasium.register("WrongInside-v0", lambda: TransformReward(Wrong(), lambda reward: reward))


@pytest.fixture(autouse=True)
def tape(monkeypatch):
    """What the environments of this test were asked: calls, and what they were given."""
    monkeypatch.setattr(Wrong, "tape", [])
    return Wrong.tape


def play_wrong(name=NAME, num_steps=1, num_envs=2, **options):
    """What each step showed."""
    environments = make_environments(name, num_envs=num_envs, seed=0, discount=0.9, **options)
    actions = np.zeros(num_envs, np.int32)
    timesteps = [environments.step(actions) for _ in range(num_steps)]
    environments.close()
    return timesteps


# What environments raise.


@for_each("call", ["constructor", "reset", "step", "close"])
def test_what_environments_raise_tells_where(monkeypatch, call):
    play_wrong()
    monkeypatch.setattr(Wrong, "raises_in", call)
    with pytest.raises(OSError, match="the emulator broke") as caught:
        play_wrong()
    (note,) = caught.value.__notes__
    assert re.fullmatch(rf"in (the )?{call}(\(\))? of gymnasium:Wrong-v0", note)


def test_signals_in_environments_are_explained(monkeypatch):
    def step(self, action):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    monkeypatch.setattr(Wrong, "step", step)
    with concurrent.futures.ThreadPoolExecutor() as thread:
        failure = thread.submit(play_wrong).exception()
    assert isinstance(failure, ValueError)
    (note,) = failure.__notes__
    assert note == (
        f"in step() of {NAME}: environments live in a thread of their own, and signals need the "
        "main thread"
    )


def test_every_environment_is_closed_whatever_one_raises_and_once(monkeypatch, tape):
    monkeypatch.setattr(Wrong, "raises_in", "close")
    batch = GymnasiumBatch(NAME, Wrong, 4)
    with pytest.raises(OSError, match="the emulator broke"):
        batch.close()
    batch.close()
    assert tape.count("close") == 4


def test_environments_made_before_one_that_cannot_be_are_closed(monkeypatch, tape):
    monkeypatch.setattr(Wrong, "raises_in", "close")
    left = [Wrong, Wrong, Wrong]
    with pytest.raises(IndexError, match="pop from empty list"):
        GymnasiumBatch(NAME, lambda: left.pop()(), 4)
    assert tape.count("close") == 3


# What environments return: one law for each call, and a table of what breaks it.

PARTS = Dict({"a": Tuple([Box(-1, 1, (2,)), Discrete(3)]), "b": MultiBinary(2)})


def step_of(observation: Any = SHOWN, reward: Any = 0.0, terminated: Any = False) -> tuple:
    return observation, reward, terminated, False, {}


@for_each("name", [NAME, "gymnasium:WrongBare-v0", "gymnasium:WrongInside-v0"])
@for_each(
    ("call", "answer", "message"),
    [
        ("step", (SHOWN, 0.0, False, {}), r"5 values, got 4 \(the API before Gymnasium 0\.26\)"),
        ("step", (*step_of(), 1), "5 values, got 6"),
        ("step", SHOWN, r"5 values, got an array of shape \(2,\) and float32"),
        ("step", None, "5 values, got None"),
        ("reset", SHOWN, r"2 values, got an array of .* \(the API before Gymnasium 0\.26\)"),
        ("reset", (SHOWN,), r"2 values, got 1 \(the API before Gymnasium 0\.26\)"),
        ("reset", (SHOWN, {}, {}), "2 values, got 3"),
        ("reset", {"a": 1, "b": 2}, r"2 values, got a dict of \['a', 'b'\] \(.*\)"),
        ("reset", None, r"2 values, got None \(the API .*\)"),
    ],
)
def test_number_of_values_is_checked_before_any_wrapper_unpacks_them(
    monkeypatch, name, call, answer, message
):
    monkeypatch.setattr(Wrong, "first" if call == "reset" else "then", answer)
    where = rf"{call}\(\) of {name} \(environment 0 of the batch\)"
    names = "observation, info" if call == "reset" else "observation, .*, info"
    with pytest.raises(
        AnswerError, match=rf"^{call}\(\) must return {message} in {where}: {names}\.$"
    ):
        play_wrong(name)


@for_each(
    ("answer", "message"),
    [
        (step_of(reward=np.array([1.0])), r"rewards must be numbers, got an array of shape \(1,\)"),
        (step_of(reward=np.zeros((2, 2))), r"rewards must be numbers, got .* shape \(2, 2\)"),
        (step_of(reward=[1.0]), r"rewards must be numbers, got \[1\.0\]"),
        (step_of(reward=[[1], []]), r"rewards must be numbers, got \[\[1\], \[\]\]"),
        (step_of(reward=None), "rewards must be numbers, got None"),
        (step_of(reward="1.0"), "rewards must be numbers, got '1.0'"),
        (step_of(reward=1j), "rewards must be numbers, got 1j"),
        (step_of(reward={}), r"rewards must be numbers, got a dict of \[\]"),
        (step_of(reward=10**400), "rewards must be numbers, got 1000"),
        (step_of(reward=np.nan), "rewards must be finite, got nan"),
        (step_of(reward=-np.inf), "rewards must be finite, got -inf"),
        (step_of(reward=1e300), r"rewards must be finite, got 1e\+300"),
        (step_of(terminated=None), "terminated must be True or False, got None"),
        (step_of(terminated=2), "terminated must be True or False, got 2"),
        (step_of(terminated=np.nan), "terminated must be True or False, got nan"),
        (step_of(terminated="no"), "terminated must be True or False, got 'no'"),
        (step_of(terminated=np.array([True])), r"terminated must be True .* shape \(1,\) and bool"),
        ((SHOWN, 0.0, False, 0.5, {}), "truncated must be True or False, got 0.5"),
    ],
)
def test_rewards_and_ends_of_another_kind_are_refused(monkeypatch, answer, message):
    monkeypatch.setattr(Wrong, "then", answer)
    where = rf"step\(\) of {NAME} \(environment 0 of the batch\)"
    with pytest.raises(AnswerError, match=rf"^{message}.* in {where}\.$") as caught:
        play_wrong("gymnasium:Wrong-v0")
    assert "\n" not in str(caught.value)


PICTURE = Box(0, 255, (4, 4, 3), np.uint8)


@for_each("call", ["reset", "step"])
@for_each(
    ("space", "right", "wrong", "message"),
    [
        (Box(-1, 1, (2,)), SHOWN, np.zeros(3), r"of shape \(2,\) and float32, .* shape \(3,\)"),
        (Box(-1, 1, (2,)), SHOWN, np.zeros((2, 1)), r"of shape \(2,\) .* got .* shape \(2, 1\)"),
        (Box(-1, 1, (2,)), SHOWN, 0.0, r"of shape \(2,\) .* got .* shape \(\) and float64"),
        (Box(-1, 1, (1,)), SHOWN[:1], np.float32(1), r"of shape \(1,\) .* got .* shape \(\)"),
        (Box(-1, 1, (2,)), SHOWN, None, "of shape .* got None"),
        (Box(-1, 1, (2,)), SHOWN, np.array(["a", "b"]), r"of .* float32, .* and <U1"),
        (Box(-1, 1, (2,)), SHOWN, [[1], [2, 3]], r"of shape .* got \[\[1\], \[2, 3\]\]"),
        (Box(-1, 1, (2,)), SHOWN, np.zeros(2, complex), "of .* float32, as .* complex128"),
        (Box(-1, 1, (2,)), SHOWN, np.array([0, np.nan]), "finite, got nan"),
        (Box(-1, 1, (2,)), SHOWN, np.array([1e300, 0]), r"finite, got 1e\+300"),
        (PICTURE, np.zeros((4, 4, 3), int), np.zeros((4, 4, 3)), "of .* uint8, as .* float64"),
        (PICTURE, np.zeros((4, 4, 3), int), np.full((4, 4, 3), 256), r"in \[0, 255\].*, got 256"),
        (PICTURE, np.zeros((4, 4, 3), int), np.full((4, 4, 3), -1), r"in \[0, 255\].*, got -1"),
        (Discrete(3), 1, 1.0, r"of shape \(\) and int64, .* float64"),
        (Discrete(3), 1, np.array([1]), r"of shape \(\) and int64, .* shape \(1,\)"),
        (Discrete(3), 1, 3, r"in \[0, 2\], got 3"),
        (Discrete(3), 1, 10**30, r"of shape \(\) and int64, .* got 1000"),
        (MultiBinary(2), [0, 1], [0, 2], "0 or 1, got 2"),
        (MultiDiscrete([2, 2]), [0, 1], [0, 2], r"in MultiDiscrete\(.*\), got 2"),
        (PARTS, {"a": (SHOWN, 2), "b": [1, 0]}, {"a": (SHOWN, 2)}, r"a dict of \['a', 'b'\], got"),
        (PARTS, {"a": (SHOWN, 2), "b": [1, 0]}, SHOWN, r"a dict of \['a', 'b'\], got an array"),
    ],
)
def test_observations_that_are_not_as_announced_are_refused(
    monkeypatch, call, space, right, wrong, message
):
    monkeypatch.setattr(Wrong, "observation_space", space)
    monkeypatch.setattr(Wrong, "first", (wrong if call == "reset" else right, {}))
    monkeypatch.setattr(Wrong, "then", step_of(wrong))
    where = rf"{call}\(\) of {NAME} \(environment 0 of the batch\)"
    with pytest.raises(AnswerError, match=rf"^observations must be {message}.* in {where}\.$"):
        play_wrong()


@for_each(
    ("observation", "name"),
    [
        ({"a": (SHOWN,), "b": [0, 0]}, r"observations\['a'\] must be a tuple of 2"),
        ({"a": SHOWN, "b": [0, 0]}, r"observations\['a'\] must be a tuple of 2"),
        ({"a": (SHOWN[:1], 0), "b": [0, 0]}, r"observations\['a'\]\[0\] must be of shape"),
        ({"a": (SHOWN, 7), "b": [0, 0]}, r"observations\['a'\]\[1\] must be in \[0, 2\]"),
        ({"a": (SHOWN, 0), "b": [0, 0], "c": 1}, r"observations must be a dict of \['a', 'b'\]"),
    ],
)
def test_part_of_an_observation_that_is_wrong_is_named(monkeypatch, observation, name):
    monkeypatch.setattr(Wrong, "observation_space", PARTS)
    monkeypatch.setattr(Wrong, "first", (observation, {}))
    with pytest.raises(AnswerError, match=f"^{name}.*, got .*{NAME}"):
        play_wrong()


@for_each(
    ("space", "observation", "expected"),
    [
        (Box(-1, 1, (2,)), np.array([0.5, 0.25]), [0.5, 0.25]),  # in twice as many bits
        (Box(-1, 1, (2,)), [1, -1], [1, -1]),
        (Box(-1, 1, (), np.float64), 0.5, 0.5),
        (Box(0, 1, (2,), bool), [True, False], [1, 0]),
        (MultiBinary(2), np.array([True, False]), [1, 0]),
        (Discrete(2), np.bool_(True), [0, 1]),
        (Discrete(3, start=-1), np.array(1, np.int8), [0, 0, 1]),
        (Box(0, 9, (1,), np.uint8), [7], [7]),
        (Tuple([Discrete(2), Box(-1, 1, (1,))]), [1, [0.5]], [0, 1, 0.5]),
    ],
)
def test_observations_may_be_written_in_several_ways(monkeypatch, space, observation, expected):
    monkeypatch.setattr(Wrong, "observation_space", space)
    monkeypatch.setattr(Wrong, "first", (observation, {}))
    monkeypatch.setattr(Wrong, "then", step_of(observation))
    (timestep,) = play_wrong()
    np.testing.assert_array_equal(timestep.observation, np.array([expected] * 2, np.float32))


@for_each("reward", [1, True, np.float32(1), np.int8(1), np.array(1.0), np.True_])
@for_each("is_over", [True, 1, np.True_, np.array(True), np.int64(1)])
def test_rewards_and_ends_may_be_of_any_kind_of_number(monkeypatch, reward, is_over):
    monkeypatch.setattr(Wrong, "then", step_of(SHOWN, reward, is_over))
    (timestep,) = play_wrong()
    np.testing.assert_array_equal(timestep.reward, [1, 1])
    np.testing.assert_array_equal(timestep.discount, [0, 0])


def test_whole_numbers_become_the_bytes_that_were_announced(monkeypatch):
    shown = np.arange(48).reshape(4, 4, 3)
    monkeypatch.setattr(Wrong, "observation_space", PICTURE)
    monkeypatch.setattr(Wrong, "first", (shown, {}))
    monkeypatch.setattr(Wrong, "then", step_of(shown.astype(np.int16)))
    (timestep,) = play_wrong()
    assert timestep.observation.dtype == np.uint8
    expected = np.moveaxis(shown, -1, 0).reshape(1, 1, 48)
    np.testing.assert_array_equal(timestep.observation, [expected] * 2)


# Infos and options are none of the learner's business.


@for_each("kind", ["ragged", "mixed", "growing", "lives", "no dict"])
def test_infos_change_nothing(monkeypatch, kind):
    def infos():
        for t in itertools.count(1):
            yield {
                "ragged": {"items": np.zeros(t % 4)},
                "mixed": {"target": [None, 1, "x", np.zeros(2), {"y": 1}][t % 5]},
                "growing": {f"key {i}": i for i in range(t)},
                "lives": {"lives": 3, "terminated": False, "reward": 5.0},
                "no dict": [None, "info", 3][t % 3],
            }[kind]

    given = infos()
    monkeypatch.setattr(Wrong, "reset", lambda self, seed=None, options=None: (SHOWN, next(given)))
    monkeypatch.setattr(Wrong, "step", lambda self, _: (SHOWN, 1.0, True, False, next(given)))
    environments = make_environments(NAME, num_envs=2, seed=0, discount=0.9)
    timesteps = [environments.step(np.zeros(2, np.int32)) for _ in range(12)]
    episodes = environments.pop_episodes()
    environments.close()
    assert [t.is_first[0] for t in timesteps] == 6 * [False, True]
    assert episodes == 6 * [Episode(0, 1.0, 1), Episode(1, 1.0, 1)]


def test_options_are_none(monkeypatch, tape):
    monkeypatch.setattr(Wrong, "then", step_of(SHOWN, 0.0, terminated=True))
    environments = make_environments(NAME, num_envs=2, seed=0, discount=0.9)
    environments.step(np.zeros(2, np.int32))
    environments.step(np.zeros(2, np.int32))  # resets
    environments.restart(np.array([1]))
    environments.close()
    assert tape.count("reset") == 2 + 2 + 2 + 1
    assert all(options is None for options, call in itertools.pairwise(tape) if call == "reset")


# The same play as in Gymnasium's own batch.


class Drifting(gymnasium.Env):
    """Draws all it shows; ends now and then by itself, and by its time limit."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space = Dict({"at": Box(-9, 9, (2,), np.float32), "mode": Discrete(4)})
    action_space = Box(-1, 1, (2,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.num_pictures = 0

    def _observe(self):
        self._at = self._at + self.np_random.normal(size=2)
        return {"at": self._at, "mode": int(self.np_random.integers(4))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._at = np.zeros(2)
        return self._observe(), {"seed": seed}

    def step(self, action):
        self._at += action
        is_over = bool(self.np_random.random() < 0.1)
        return self._observe(), self.np_random.normal(), is_over, False, {}

    def render(self):
        self.num_pictures += 1
        return np.full((4, 4, 3), self.num_pictures, np.uint8)

    def get_state(self):
        return {"at": self._at.tolist(), "generator": self.np_random.bit_generator.state}

    def set_state(self, state):
        self._at = np.array(state["at"])
        self.np_random.bit_generator.state = state["generator"]


gymnasium.register("Drifting-v0", Drifting, max_episode_steps=9)
MAKE = {"num_envs": 3, "seed": 5, "discount": 0.9}


def test_play_is_that_of_gymnasiums_own_batch():
    makers = [lambda: gymnasium.make("Drifting-v0", disable_env_checker=True)] * 3
    theirs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    ours = GymnasiumBatch("Drifting-v0", makers[0], 3)

    def same(mine, its):
        for one, other in zip(mine[:-1], its[:-1], strict=True):  # without infos
            for key in one if isinstance(one, dict) else ():
                np.testing.assert_array_equal(one[key].astype(other[key].dtype), other[key])
            if not isinstance(one, dict):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)

    same(ours.reset(seed=5), theirs.reset(seed=5))
    same(ours.reset(), theirs.reset())
    generator, ends = np.random.default_rng(0), []
    for t in range(120):
        actions = generator.uniform(-1, 1, (3, 2)).astype(np.float32)
        answer = ours.step(actions)
        same(answer, theirs.step(actions))
        ends.append(answer[2:4])
        if t % 10 == 7:
            mask = generator.integers(2, size=3).astype(bool) | [True, False, False]
            same(
                ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask})
            )
    assert np.array(ends).any(axis=0).all()  # each of them was terminated, and truncated
    ours.close()
    theirs.close()


def test_batch_goes_on_from_a_state_that_was_kept():
    actions = np.random.default_rng(1).uniform(-1, 1, (60, 3, 2)).astype(np.float32)

    def play(environments, actions):
        return [environments.step(action) for action in actions]

    environments = make_environments("gymnasium:Drifting-v0", **MAKE)
    states = []
    expected = []
    for action in actions:
        states.append(environments.get_state())
        expected += play(environments, [action])
    episodes = environments.pop_episodes()
    environments.close()
    kept = next(t for t in range(20, 60) if any(states[t]["was_done"]))
    for begin in (10, kept):  # in the midst of time limits, and before a reset
        resumed = make_environments("gymnasium:Drifting-v0", **{**MAKE, "seed": 77})
        resumed.set_state(states[begin])
        for one, other in zip(play(resumed, actions[begin:]), expected[begin:], strict=True):
            for mine, its in zip(one, other, strict=True):
                np.testing.assert_array_equal(mine, its)
        later = resumed.pop_episodes()
        assert later == episodes[-len(later) :]
        resumed.close()


def test_only_the_first_environment_is_rendered():
    environments = make_environments("gymnasium:Drifting-v0", renders=True, **MAKE)
    assert environments.render_fps == 7
    for number in (1, 2):
        picture = environments.render()
        assert picture is not None
        assert (picture == number).all()
    assert [env.unwrapped.num_pictures for env in environments._envs.envs] == [2, 0, 0]
    environments.close()


def test_close_that_fails_before_the_play_costs_no_pictures(monkeypatch):
    def close(self):
        raise OSError("no viewer")

    monkeypatch.setattr(Drifting, "close", close)
    environments = make_environments("gymnasium:Drifting-v0", renders=True, **MAKE)
    assert environments.render() is not None
    with pytest.raises(OSError, match="no viewer"):
        environments.close()


# What environments are to have.


@pytest.mark.parametrize("start", [-1, 3])
def test_environments_see_their_own_numbers_of_actions(monkeypatch, tape, start):
    monkeypatch.setattr(Wrong, "action_space", Discrete(3, start=start))
    environments = make_environments(NAME, num_envs=3, seed=0, discount=0.9)
    assert environments.spec.num_actions == 3
    assert set(environments.sample_actions(np.random.default_rng(0))) <= {0, 1, 2}
    environments.step(np.arange(3, dtype=np.int32))
    environments.close()
    seen = [
        action
        for action, call in itertools.pairwise(tape)
        if isinstance(call, str) and call == "step"
    ]
    assert seen == [start, start + 1, start + 2]
    assert all(Wrong.action_space.contains(action) for action in seen)


@for_each("name", ["observation_space", "action_space"])
def test_spaces_that_are_missing_are_named(monkeypatch, name):
    message = f"^env must have an {name}, a space of Gymnasium, got {NAME} "
    monkeypatch.setattr(Wrong, name, (2,))
    with pytest.raises(ConfigError, match=rf"{message}with \(2,\)\.$"):
        play_wrong()
    monkeypatch.delattr(Wrong, name)
    with pytest.raises(ConfigError, match=rf"{message}without one\.$"):
        play_wrong()


def test_decorated_reset_is_taken_as_it_is_called(monkeypatch):
    def plain(self):
        return SHOWN, {}

    @functools.wraps(plain)
    def reset(self, seed=None, options=None):
        return plain(self)

    monkeypatch.setattr(Wrong, "reset", reset)
    play_wrong()


class New(gymnasium.Wrapper):
    """The API of today around that of old."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(), {}

    def step(self, action):
        observation, reward, is_over, info = self.env.step(action)  # type: ignore
        return observation, reward, is_over, False, info


gymnasium.register("New-v0", lambda: New(Wrong()), max_episode_steps=9)


def test_environments_of_the_old_api_may_be_wrapped_by_their_user(monkeypatch):
    monkeypatch.setattr(Wrong, "reset", lambda self: SHOWN)
    monkeypatch.setattr(Wrong, "step", lambda self, action: (SHOWN, 2.0, True, {}))
    timesteps = play_wrong("gymnasium:New-v0", num_steps=2)
    assert [t.reward[0] for t in timesteps] == [2, 0]


def test_what_an_environment_says_is_beneath_it_may_be_shared(monkeypatch):
    monkeypatch.setattr(Wrong, "unwrapped", object())
    batch = GymnasiumBatch(NAME, Wrong, 2)
    assert batch.envs[0] is not batch.envs[1]
    batch.close()


def test_spaces_that_differ_within_a_batch_are_refused(monkeypatch):
    sizes = itertools.count(2)
    monkeypatch.setattr(
        Wrong, "__init__", lambda self: setattr(self, "action_space", Discrete(next(sizes)))
    )
    with pytest.raises(ConfigError, match=r"the same action_space .* Discrete\(2\) and Discrete"):
        play_wrong()


def test_reset_of_the_old_api_is_refused(monkeypatch):
    monkeypatch.setattr(Wrong, "reset", lambda self: SHOWN)
    with pytest.raises(ConfigError, match=r"^env must have reset.* with reset\(\), the API before"):
        play_wrong()


class Levels(Wrong):
    """One of several."""

    def __init__(self, level):
        if level == 1:
            len()  # type: ignore
        self.level = level


gymnasium.register("LevelsA-v0", Levels)
gymnasium.register("LevelsB-v0", Levels, kwargs={"level": "easy"})
gymnasium.register("LevelsC-v0", Levels, kwargs={"level": "easy", "stage": 1})
gymnasium.register("LevelsD-v0", Levels, kwargs={"level": 1})


@for_each(("name", "reason"), [("LevelsA", "'level'"), ("LevelsC", "'stage'")])
def test_id_without_its_arguments_is_answered_with_how_to_give_them(name, reason):
    play_wrong("gymnasium:LevelsB-v0")
    way = re.escape("(env_kwargs={name: value} gives them)")
    with pytest.raises(
        ConfigError,
        match=rf"^env_kwargs must .*{way}, got gymnasium:{name}-v0: .*{reason}\.$",
    ):
        play_wrong(f"gymnasium:{name}-v0")


def test_type_errors_within_a_constructor_are_its_own():
    with pytest.raises(TypeError, match="exactly one argument") as caught:
        play_wrong("gymnasium:LevelsD-v0")
    assert caught.value.__notes__ == ["in the constructor of gymnasium:LevelsD-v0"]


class Sized(Wrong):
    """Takes what it needs from anything."""

    def __init__(self, **options):
        self.size = options["size"]


gymnasium.register("Sized-v0", Sized)
gymnasium.register("Nowhere-v0", "math:nothing")


def test_key_errors_of_a_constructor_say_how_an_id_gets_arguments():
    with pytest.raises(KeyError, match="size") as caught:
        play_wrong("gymnasium:Sized-v0")
    where, hint = caught.value.__notes__
    assert where == "in the constructor of gymnasium:Sized-v0"
    assert "env_kwargs={name: value} gives them" in hint


def test_entry_point_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"^env must have an entry point .* got Nowhere-v0: "):
        play_wrong("gymnasium:Nowhere-v0")


# The wrappers that refusals name do help.


def numbering(combinations):
    """Wrong with actions of several parts, which are numbered."""
    env = Wrong()
    env.action_space = MultiDiscrete(combinations)

    def parts(action):
        return np.array(np.unravel_index(action, combinations))

    return TransformAction(env, parts, Discrete(int(np.prod(combinations))))


gymnasium.register("Numbered-v0", lambda: numbering((3, 2)))


def test_combinations_can_be_numbered_by_a_wrapper(tape):
    environments = make_environments("gymnasium:Numbered-v0", num_envs=6, seed=0, discount=0.9)
    environments.step(np.arange(6, dtype=np.int32))
    environments.close()
    seen = [
        action
        for action, call in itertools.pairwise(tape)
        if isinstance(call, str) and call == "step"
    ]
    expected = list(itertools.product(range(3), range(2)))
    assert [tuple(action) for action in seen] == expected


def test_what_a_wrapper_returns_is_checked_and_what_it_mends_is_not():
    def batch(function, space):
        def make():
            env = TransformReward(Wrong(), function)
            return TransformObservation(env, lambda seen: seen[:1], space)

        return VectorEnvironments(
            "Wrapped",
            GymnasiumBatch("Wrapped", make, 1),
            discount=0.9,
            frames_per_step=1,
            is_atari=False,
        )

    environments = batch(lambda reward: reward + 2, Box(-1, 1, (1,)))
    assert environments.step(np.zeros(1, np.int32)).reward == [2]
    with pytest.raises(AnswerError, match=r"observations must be of shape \(2,\) .* got .* \(1,\)"):
        batch(lambda reward: reward, Box(-1, 1, (2,)))
    environments = batch(lambda reward: np.array([reward]), Box(-1, 1, (1,)))
    with pytest.raises(AnswerError, match="rewards must be numbers"):
        environments.step(np.zeros(1, np.int32))


def drifting(**attributes):
    """A class of environments with some attributes of its own."""
    return type("Own", (Drifting,), attributes)


@for_each(
    ("make", "told"),
    [
        (Drifting, None),
        (lambda: wrappers.TimeLimit(wrappers.TransformReward(Drifting(), abs), 5), None),
        # For something else: no line, since nobody promised anything.
        (drifting(get_state=lambda self, index: index), ""),
        (drifting(set_state=lambda self, at, speed: None), ""),
        (drifting(set_state=None), ""),
        # What cannot be kept as it is.
        (drifting(get_state=lambda self: self._at), "not JSON serializable"),
        (drifting(get_state=lambda self: {"at": (1, 2)}), "not the same after JSON"),
        (lambda: wrappers.DelayObservation(Drifting(), 2), "the wrapper DelayObservation"),
        (lambda: wrappers.NormalizeReward(Drifting()), "the wrapper NormalizeReward"),
    ],
)
def test_only_what_can_be_kept_as_a_whole_is_kept(make, told, capsys):
    environments = make_brought("python:own", make, **MAKE)
    states = [environments.get_state() for _ in range(3)]
    err = capsys.readouterr().err
    if told is None:
        assert None not in states
    else:
        assert states == [None] * 3
    if told:
        assert err.count("begins new games where a run is resumed") == 1  # said once
        assert told in err
    else:
        assert err == ""
    environments.close()


def test_a_stream_that_runs_dry_is_a_fault_and_no_end():
    # A StopIteration would end the generator that asked, as if all were done.
    environments = make_brought("python:own", drifting(step=lambda self, _: next(iter(()))), **MAKE)
    with pytest.raises(RuntimeError, match=r"step\(\) of python:own ended by StopIteration"):
        environments.step(np.zeros((3, 2), np.float32))
    environments.close()
