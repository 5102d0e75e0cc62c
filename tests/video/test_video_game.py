"""Games as a viewer follows them: scores, values, choices and saliency belong to their moment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.agents import Agent, make_a3c, make_one_step_q
from a3cjax.config.settings import Config
from a3cjax.distributions import Categorical
from a3cjax.envs.base import Episode
from a3cjax.exploration import EVALUATION_EPSILON, evaluation_exploration
from a3cjax.networks import make_network
from a3cjax.runs.playing import TrainedAgent
from a3cjax.types import Constants, NetworkOutput, Snapshot
from a3cjax.video import game
from a3cjax.video.saliency import Saliency
from tests.cases import for_each
from tests.fakes import FakeEnvironments

KEY = jax.random.key(0)
CONSTANTS = Constants(None, None, evaluation_exploration(1))


class ShownEnvironments(FakeEnvironments):
    """Whose picture is grey, as bright as the number of steps taken."""

    render_fps = None

    def render(self):
        return np.full((6, 4, 3), self._t, np.uint8)


def make_environments(*ends, **options):
    script = {step: [Episode(0, 100.0 * step, step)] for step in ends}
    return ShownEnvironments(num_envs=1, episodes=script, **options)


def unused(*_):
    raise AssertionError("a video neither starts from scratch nor learns")


def make_agent():
    """Values an observation by `params` times it, and prefers action 1 by as many logits."""

    def look(params, constants, timestep, core_state):
        number = timestep.observation[:, 0]
        logits = jnp.stack([jnp.zeros_like(number), number, jnp.zeros_like(number)], axis=-1)
        return NetworkOutput(Categorical(logits), params * number), core_state

    return Agent(unused, lambda batch_size: (), look, unused)


def watch(agent, params, environments, *, key=KEY, num_games=1, reward_scale=None, **options):
    snapshot = Snapshot(1, 4, params, reward_scale=reward_scale)
    trained = TrainedAgent(Config(), agent, snapshot, environments.spec)
    return list(game.watch(trained, environments, [key] * num_games, **options))


def test_game_ends_with_a_moment_that_has_the_score_and_no_action():
    environments = make_environments(5, 9)
    moments = watch(make_agent(), 2.0, environments)
    assert [moment.num_steps for moment in moments] == [0, 1, 2, 3, 4, 5]
    # Reward t is t; the score is what lies behind.
    assert [moment.reward for moment in moments] == [0, 1, 2, 3, 4, 5]
    assert [moment.score for moment in moments] == [0, 1, 3, 6, 10, 15]
    assert [moment.action is None for moment in moments] == [False] * 5 + [True]
    actions = np.concatenate(environments.actions)
    np.testing.assert_array_equal(actions, [moment.action for moment in moments[:-1]])


def test_picture_value_and_policy_belong_to_the_same_observation():
    for moment in watch(make_agent(), 2.0, make_environments(4)):
        t = moment.num_steps
        np.testing.assert_array_equal(moment.observation, [t])
        assert moment.value == 2.0 * t
        np.testing.assert_array_equal(moment.policy.logits, [0, t, 0])
        assert moment.picture.max() == t
        assert moment.saliency is None


def test_next_game_begins_with_a_reset_and_a_score_of_zero():
    tape = []
    environments = make_environments(3, 6, tape=tape)
    moments = watch(make_agent(), 2.0, environments, num_games=2)
    assert [event[0] for event in tape] == ["reset", *["step"] * 3] * 2
    assert [moment.num_steps for moment in moments] == [0, 1, 2, 3] * 2
    assert (moments[4].score, moments[4].reward) == (0, 0)
    assert moments[-1].score == 4 + 5 + 6


def test_greedy_actions_are_the_most_probable_and_sampled_ones_follow_the_key():
    def actions(**options):
        moments = watch(make_agent(), 1.0, make_environments(12), **options)
        return [int(moment.action) for moment in moments[:-1]]

    assert actions(is_greedy=True) == [0] + [1] * 11
    sampled = [tuple(actions(key=jax.random.key(number))) for number in (0, 0, 1, 2, 3)]
    assert sampled[0] == sampled[1]
    assert len(set(sampled)) > 1


def look_along(network, params, moments):
    """The network's answer to the whole game at once."""
    observations = np.stack([moment.observation for moment in moments])[:, None]
    is_first = np.arange(len(moments))[:, None] == 0
    output, _ = network.apply(params, None, observations, is_first, network.initial_state(1))
    return output


def test_memory_of_a_recurrent_network_is_carried_through_the_game():
    network = make_network("mlp_lstm", 3)
    params = network.init(KEY, np.zeros((1, 1, 1), np.float32))
    moments = watch(make_a3c(network), params, make_environments(6))
    output = look_along(network, params, moments)
    values = [moment.value for moment in moments]
    np.testing.assert_allclose(values, output.values[:, 0], rtol=1e-5)
    logits = [moment.policy.logits for moment in moments]
    np.testing.assert_allclose(logits, output.policy.logits[:, 0], rtol=1e-4, atol=1e-6)


def test_q_methods_show_action_values_and_the_largest_of_them():
    network = make_network("mlp_ff", 3, "action_values")
    params = network.init(KEY, np.zeros((1, 1, 1), np.float32))
    moments = watch(make_one_step_q(network), params, make_environments(4))
    q_values = look_along(network, params, moments)[:, 0]
    for moment, expected in zip(moments, q_values, strict=True):
        np.testing.assert_allclose(moment.policy.q_values, expected, rtol=1e-5)
        assert moment.value == pytest.approx(float(expected.max()), rel=1e-5)
        assert moment.policy.epsilons == np.float32(EVALUATION_EPSILON)


@pytest.mark.parametrize("head", ["actor_critic", "action_values"])
def test_values_are_shown_in_units_of_rewards_and_change_no_action(head):
    network = make_network("mlp_ff", 3, head)
    agent = make_a3c(network) if head == "actor_critic" else make_one_step_q(network)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1, network.init(KEY, np.zeros((1, 1, 1), np.float32))
    )
    plain, scaled = (
        watch(agent, params, make_environments(4), reward_scale=scale)
        for scale in (None, np.float32(8))
    )
    for one, other in zip(plain, scaled, strict=True):
        assert one.value != 0
        assert other.value == 8 * one.value
        np.testing.assert_array_equal(other.action, one.action)
        if head == "action_values":
            np.testing.assert_array_equal(other.policy.q_values, 8 * one.policy.q_values)


@for_each(("variance", "number"), [("free", 2), ("each", 2), ("shared", 1)])
def test_gaussian_policies_show_mean_and_variance(variance, number):
    network = make_network("mlp_ff", 2, "gaussian_actor_critic", variance=variance)
    params = network.init(KEY, np.zeros((1, 1, 1), np.float32))
    environments = make_environments(3, num_actions=2, is_continuous=True)
    moments = watch(make_a3c(network), params, environments, is_greedy=True)
    for moment in moments[:-1]:
        assert moment.policy.mean.shape == (2,)
        assert moment.policy.variance.shape == (number,)
        np.testing.assert_array_equal(moment.action, moment.policy.mean)


# Saliency.


class PictureEnvironments(ShownEnvironments):
    """Whose observation is an image, as bright as the number of steps taken."""

    def __init__(self, **options):
        super().__init__(**options)
        self.spec = self.spec._replace(observation=jax.ShapeDtypeStruct((3, 3, 16), np.uint8))

    def timestep(self, t):
        image = np.zeros((1, 3, 3, 16), np.uint8)
        image[0, 1, 1, 5] = 20 * t
        return super().timestep(t)._replace(observation=image)


def make_seer():
    """An agent whose logit is one pixel, and its value `params` times as much."""

    def look(params, constants, timestep, core_state):
        number = timestep.observation[:, 1, 1, 5].astype(jnp.float32)
        return NetworkOutput(Categorical(number[:, None]), params * number), core_state

    return Agent(unused, lambda batch_size: (), look, unused)


def watch_images(**options):
    environments = PictureEnvironments(num_envs=1, episodes={5: [Episode(0, 15.0, 5)]})
    return watch(make_seer(), 2.0, environments, **options)


def test_saliency_comes_with_every_moment_where_it_is_asked_for():
    assert {moment.saliency for moment in watch_images()} == {None}
    moments = watch_images(with_saliency=True)
    assert len(moments) == 6
    for t, moment in enumerate(moments):
        assert moment.saliency.actor.shape == moment.saliency.critic.shape == (12, 12)
        assert (moment.saliency.actor.max() > 0) == (t > 0)
        np.testing.assert_allclose(moment.saliency.critic, 4 * moment.saliency.actor)


def test_saliency_is_left_out_where_there_is_no_image():
    moments = watch(make_agent(), -3.0, make_environments(3), with_saliency=True)
    assert {moment.saliency for moment in moments} == {None}


def with_saliency(*sizes):
    grid = np.array([[1.0, 0.25], [0.0, 1.0]])
    (moment, *_) = watch(make_agent(), 2.0, make_environments(3))
    for size in sizes:
        yield moment._replace(saliency=Saliency(size * grid, 9 * size * grid))


def test_brightness_has_one_scale_for_the_whole_film():
    moments = list(game.brighten(with_saliency(1e-4, 1.0, 1.0, 1.0, 4.0), 5))
    for moment, size in zip(moments, (0.01, 1.0, 1.0, 1.0, 2.0), strict=True):
        expected = np.minimum(size * np.array([[1.0, 0.5], [0.0, 1.0]]), 1.0)
        for brightness in moment.saliency:
            np.testing.assert_allclose(brightness, expected, rtol=1e-6)


def test_scale_of_a_long_film_is_that_of_its_begin():
    asked = []
    moments = game.brighten((asked.append(1) or x for x in with_saliency(1, 1, 16)), 2)
    first = next(moments)
    assert len(asked) == 2
    assert first.saliency.actor.max() == 1
    *_, last = moments
    np.testing.assert_allclose(last.saliency.actor, [[1, 1], [0, 1]])


def test_film_without_saliency_or_without_a_look_stays_dark():
    (moment, *_) = watch(make_agent(), 2.0, make_environments(3))
    assert list(game.brighten([moment], 10)) == [moment]
    (blind,) = game.brighten(with_saliency(0.0), 10)
    assert np.max(blind.saliency) == 0
