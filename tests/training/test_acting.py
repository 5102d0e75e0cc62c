"""Actions of every kind, and masks of them, from the settings to the trained agent."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from a3cjax.agents import ALGORITHMS
from a3cjax.config.settings import Config
from a3cjax.runs.loading import load
from a3cjax.training.run import train
from a3cjax.video.recording import VideoOptions, record_video
from tests.cases import slow

CONFIG = Config(
    total_frames=1000,
    num_actors=1,
    envs_per_actor=4,
    unroll_length=10,
    warmup_steps=20,
    eval_episodes=2,
    tensorboard=False,
    video=False,
)


class Acting(gymnasium.Env):
    """Takes whatever its space contains, for ten steps, and keeps it."""

    observation_space = Box(-1.0, 1.0, (3,))
    action_space: gymnasium.Space = Discrete(2)
    seen: ClassVar[list] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.seen.append(action)
        self.t += 1
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, 1.0, self.t == 10, False, {}


gymnasium.register("Acting-v0", Acting)


@pytest.fixture
def acting(monkeypatch, tmp_path):
    """Trains on a space; what its environments were given, and the run's folder."""

    def run(space, **settings):
        monkeypatch.setattr(Acting, "action_space", space)
        monkeypatch.setattr(Acting, "seen", [])
        config = CONFIG.replace(env="gymnasium:Acting-v0", run_dir=str(tmp_path / "run"))
        summary = train(config.replace(**settings))
        assert summary.evaluation.mean == 10
        return Acting.seen, summary.run_dir

    return run


SARSA, SQUASHED = "one_step_sarsa", {"policy": "squashed_gaussian"}


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        slow(Discrete(3, start=-1), {}),
        slow(Discrete(3, start=7), {"algorithm": "one_step_q"}),
        slow(MultiDiscrete([3, 2]), {}),
        (MultiDiscrete([[2, 1], [4, 3]], start=[[-1, 0], [5, 2]]), {"network": "mlp_gru"}),
        slow(MultiBinary(3), {}),
        (MultiBinary((2, 2)), {"unroll_length": "episode"}),
        slow(Box(0.0, 100.0, (1,)), {}),
        (Box(-2.0, 3.0, (2, 3), np.float64), {"variance": "each"}),
        slow(Box(-np.inf, np.inf, ()), {}),
        slow(Box(np.array([0, -np.inf]), np.array([np.inf, 5]), dtype=np.float16), {}),
        slow(Box(0.0, 100.0, (2, 2)), SQUASHED),
        (Box(5, 9, (), np.int16), SQUASHED | {"network": "mujoco_lstm"}),
    ],
    ids=str,
)
def test_every_space_of_actions_trains_and_is_played_and_filmed(acting, tmp_path, space, settings):
    seen, run_dir = acting(space, **settings)
    assert len(seen) > 1000
    agent = load(run_dir)
    scores = agent.evaluate(2, is_greedy=True).scores
    assert scores == [10.0, 10.0]
    for is_greedy in (False, True):
        options = VideoOptions(formats=("gif",), is_greedy=is_greedy, max_seconds=0.2)
        recording = record_video(agent, tmp_path / f"film-{is_greedy}", options)
        assert recording is not None
        assert recording.paths[0].stat().st_size > 0


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [("gaussian", 0, 100), ("gaussian", 990, 1000), ("squashed_gaussian", -0.4, 0.4)],
)
def test_first_actions_cover_the_bounds_however_far_they_are(acting, policy, low, high):
    # Hardly anything is learned: the learning rate is tiny.
    settings = {"policy": policy, "learning_rate": 1e-9, "warmup_steps": 2}
    seen, _ = acting(Box(low, high, (1,)), total_frames=2000, **settings)
    shares = (np.ravel(seen).astype(float) - low) / (high - low)
    quarters, _ = np.histogram(shares, 4, (-1e-3, 1.001))
    assert (quarters > 0.15 * len(shares)).all(), quarters
    at_the_bounds = np.mean((shares < 1e-4) | (shares > 1 - 1e-4))
    assert at_the_bounds < (0.35 if policy == "gaussian" else 0.01)


class Guarded(Acting):
    """Raises where an action is forbidden; each step forbids others. Tells nothing at the end."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, self._draw()

    def step(self, action):
        for mask, one in zip(self._allowed, np.ravel(action), strict=True):
            assert mask[one], "a forbidden action"
        *answer, _ = super().step(action)
        self.forbidden[0] += sum(int((~mask).sum()) for mask in self._allowed)
        info = self._draw()
        if self.t == 10 and self.np_random.random() < 0.7:
            none = [np.zeros(len(mask), np.int8) for mask in self._allowed]
            info = {"action_mask": none[0] if len(none) == 1 else tuple(none)}
        return *answer, info

    def _draw(self):
        space = self.action_space
        sizes = [space.n] if isinstance(space, Discrete) else space.nvec  # type: ignore
        draws = [self.np_random.random(size) for size in sizes]
        self._allowed = [(draw < 0.5) | (draw == draw.min()) for draw in draws]
        masks = [mask.astype(np.int8) for mask in self._allowed]
        return {"action_mask": masks[0] if isinstance(space, Discrete) else tuple(masks)}

    forbidden: ClassVar[list] = [0]


gymnasium.register("Guarded-v0", Guarded)
gymnasium.register("GuardedCut-v0", Guarded, max_episode_steps=7)


@pytest.mark.parametrize(
    ("env", "space", "settings"),
    [
        *(
            slow("Guarded-v0", Discrete(4), {"algorithm": algorithm})
            for algorithm in ALGORITHMS
            if algorithm != SARSA
        ),
        ("Guarded-v0", Discrete(4), {"algorithm": SARSA}),
        ("GuardedCut-v0", Discrete(4), {"algorithm": "n_step_q"}),
        slow("Guarded-v0", Discrete(4), {"unroll_length": "episode", "network": "mlp_gru"}),
        ("GuardedCut-v0", MultiDiscrete([3, 2, 4]), {}),
    ],
    ids=str,
)
def test_forbidden_actions_are_never_taken(monkeypatch, tmp_path, space, settings, env):
    monkeypatch.setattr(Guarded, "forbidden", [0])
    monkeypatch.setattr(Guarded, "action_space", space)
    # Large steps: values and preferences go far, also those of what is forbidden.
    config = CONFIG.replace(env=f"gymnasium:{env}", run_dir=str(tmp_path / "run"), **settings)
    summary = train(config.replace(total_frames=1000, learning_rate=0.1, max_bad_updates=1))
    assert Guarded.forbidden[0] > 1000
    length = 7 if "Cut" in env else 10
    assert summary.evaluation.mean == length
    agent = load(summary.run_dir)
    assert agent.evaluate(4, is_greedy=True).mean == agent.evaluate(4).mean == length
