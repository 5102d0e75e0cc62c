"""The laws of A3C beside the paper's Atari games: whole episodes, Gaussians, entropy costs."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a3cjax.agents import make_a3c
from a3cjax.agents.actor_critic import steering
from a3cjax.distributions import Categorical, DiagonalGaussian, MultiCategorical
from a3cjax.networks import MIN_VARIANCE, make_network
from a3cjax.types import Constants, Exploration, TimeStep
from tests.cases import for_each
from tests.tabular import (
    act,
    make_tabular_network,
    random_params,
    random_tables,
    random_trajectory,
)

T, B, A, D, SIZE = 6, 4, 3, 2, 5
NUM_STATES = (T + 1) * B
VALUE_COST, ENTROPY_COST = 0.25, 0.1
seeds = st.integers(0, 2**32 - 1)


def make_constants(entropy_factor=1.0, num_envs=B, target=None):
    epsilons = np.zeros(num_envs, np.float32)
    return Constants(None, None, Exploration(epsilons, jnp.float32(entropy_factor), target))


def compiled_loss(network, *, target=None, **hyperparameters):
    """((loss, metrics), gradients) of params, a trajectory and an entropy factor."""
    settings = {"value_cost": VALUE_COST, "entropy_cost": ENTROPY_COST, **hyperparameters}
    differentiated = jax.value_and_grad(make_a3c(network, **settings).loss, has_aux=True)
    return jax.jit(
        lambda params, trajectory, entropy_factor=1.0: differentiated(
            params, make_constants(entropy_factor, target=target), trajectory
        )
    )


def slow_loss(log_probs, entropies, values, returns, is_kept, entropy_cost=ENTROPY_COST):
    """The loss of A3C step by step, and the averages of its parts; all arrays are `[T, B]`."""
    parts = np.zeros(3)
    for t, b in np.argwhere(is_kept):
        advantage = returns[t, b] - values[t, b]
        parts += [-log_probs[t, b] * advantage, 0.5 * advantage**2, entropies[t, b]]
    loss = (parts[0] + VALUE_COST * parts[1] - entropy_cost * parts[2]) / values.shape[1]
    return loss, parts / max(1, np.sum(is_kept))


# Whole episodes.


def monte_carlo_returns(trajectory):
    """Sums of discounted rewards to the end of each episode, or of the arrays; NaN for resets."""
    returns = np.full(trajectory.rewards.shape, np.nan)
    num_steps, batch_size = trajectory.rewards.shape
    for b in range(batch_size):
        for t in range(num_steps):
            if trajectory.is_first[t + 1, b]:
                continue  # no experience
            total, weight = 0.0, 1.0
            for k in range(t, num_steps):
                if trajectory.is_first[k + 1, b]:
                    break  # it had ended before
                total += weight * trajectory.rewards[k, b]
                weight *= trajectory.discounts[k, b]
            returns[t, b] = total
    return returns


whole_episode_loss = compiled_loss(make_tabular_network(), bootstraps=False)


@given(seed=seeds)
def test_without_bootstrapping_returns_are_sums_of_rewards(seed):
    params, trajectory = random_tables(seed, NUM_STATES, A), random_trajectory(seed, T, B, A)
    (loss, metrics), gradients = whole_episode_loss(params, trajectory)
    returns, is_kept = monte_carlo_returns(trajectory), ~trajectory.is_first[1:]
    states = trajectory.observations[:-1]
    logits, values = params["logits"][states].astype(float), params["values"][states].astype(float)
    log_policy = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    log_probs = np.take_along_axis(log_policy, trajectory.actions[..., None], axis=-1)[..., 0]
    entropies = -np.sum(np.exp(log_policy) * log_policy, axis=-1)
    expected, averages = slow_loss(log_probs, entropies, values, returns, is_kept)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics[:3], averages, rtol=1e-4, atol=1e-5)
    slopes = np.where(is_kept, VALUE_COST * (values - returns) / B, 0.0)
    by_step = np.asarray(gradients["values"]).reshape(T + 1, B)
    np.testing.assert_allclose(by_step[:-1], slopes, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(by_step[-1], np.zeros(B))


@given(seed=seeds, reward=st.floats(width=32), discount=st.floats(width=32))
@example(seed=0, reward=math.nan, discount=math.inf)
def test_automatic_resets_count_for_nothing_whatever_numbers_stand_there(seed, reward, discount):
    params, trajectory = random_tables(seed, NUM_STATES, A), random_trajectory(seed, T, B, A)
    is_reset = trajectory.is_first[1:]
    moved = trajectory._replace(
        rewards=np.where(is_reset, np.float32(reward), trajectory.rewards),
        discounts=np.where(is_reset, np.float32(discount), trajectory.discounts),
    )
    chex.assert_trees_all_equal(
        whole_episode_loss(params, trajectory), whole_episode_loss(params, moved)
    )


# Exploration.


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_entropy_factor_multiplies_the_entropy_cost(factor):
    params, trajectory = random_tables(0, NUM_STATES, A), random_trajectory(0, T, B, A)
    network = make_tabular_network()
    multiplied = compiled_loss(network, entropy_cost=factor * ENTROPY_COST)
    chex.assert_trees_all_close(
        compiled_loss(network)(params, trajectory, factor),
        multiplied(params, trajectory),
        rtol=1e-6,
        atol=1e-7,
    )


def policies_of_share(share):
    """Logits `[T, B, A + 1]`, one action forbidden, with this share of the entropy of chance."""

    def entropy(logit):
        return float(Categorical(jnp.array([logit, *[0.0] * (A - 1)])).entropy())

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(middle) > share * math.log(A) else (low, middle)
    return jnp.broadcast_to(jnp.array([-jnp.inf, low, *[0.0] * (A - 1)]), (T, B, A + 1))


@for_each("kind", [Categorical, MultiCategorical])
@for_each(
    ("share", "target", "expected"),
    [
        (0.5, 0.5, 1.0),
        (0.5, 0.47, 0.7),
        (0.5, 0.56, 1.6),
        (0.5, 0.39, 0.0),  # more random than it is to be by more than a tenth
        (0.5, 0.9, 2.0),
        (1.0, 1.0, 1.0),
        (0.0, 0.3, 2.0),
    ],
)
def test_entropy_is_steered_by_hand(kind, share, target, expected):
    mask = jnp.arange(T * B).reshape(T, B) % 3 > 0
    logits = jnp.where(mask[..., None], policies_of_share(share), 0.0)  # elsewhere it is chance
    policy = kind(logits if kind is Categorical else jnp.stack([logits, logits], axis=2))
    exploration = Exploration(np.zeros(B), jnp.float32(3), jnp.float32(target))
    factor, floor = steering(policy, exploration, mask)
    np.testing.assert_allclose(factor, 3 * expected, atol=2e-4)
    np.testing.assert_allclose(floor, max(expected - 1, 0), atol=2e-4)


def test_entropy_is_steered_only_where_there_is_a_target_and_a_greatest_entropy():
    exploration = Exploration(np.zeros(B), jnp.float32(3), jnp.float32(0.1))
    without = exploration._replace(target_entropy=None)
    gaussian = DiagonalGaussian(jnp.zeros((T, B, D)), jnp.ones((T, B, D)))
    chance, mask = Categorical(jnp.zeros((T, B, A))), jnp.ones((T, B), bool)
    for policy in (gaussian, chance):
        assert steering(policy, without, mask) == (3.0, 0.0)
    with pytest.raises(
        AssertionError, match=r"must be null for a policy that is a DiagonalGaussian"
    ):
        steering(gaussian, exploration, mask)
    nothing = jnp.zeros((T, B), bool)  # as where all environments are reset
    assert np.isfinite(steering(chance, exploration, nothing)).all()


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_entropy_is_steered_by_what_was_experienced_whatever_numbers_stand_elsewhere(number):
    mask = jnp.arange(T * B).reshape(T, B) % 3 > 0
    exploration = Exploration(np.zeros(B), jnp.float32(1), jnp.float32(0.5))
    logits = jnp.where(mask[..., None], policies_of_share(0.5), number)
    factor, _ = steering(Categorical(logits), exploration, mask)
    np.testing.assert_allclose(factor, 1.0, atol=1e-4)


def test_loss_steers_by_the_kept_steps_and_without_a_gradient():
    params, trajectory = random_tables(0, NUM_STATES, A), random_trajectory(0, T, B, A)
    logits = params["logits"].reshape(T + 1, B, A)[:-1]
    kept = ~trajectory.is_first[1:]
    share = np.mean(Categorical(logits).entropy()[kept]) / math.log(A)
    steered = compiled_loss(make_tabular_network(), target=share + 0.05)
    chex.assert_trees_all_close(
        steered(params, trajectory, 2.0),
        compiled_loss(make_tabular_network())(params, trajectory, 3.0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_policy_that_is_to_be_more_random_gains_entropy_however_small_advantages_are():
    params, trajectory = random_tables(0, NUM_STATES, A), random_trajectory(0, T, B, A)
    logits = params["logits"].reshape(T + 1, B, A)[:-1]
    kept = ~trajectory.is_first[1:]
    entropies = Categorical(logits).entropy()[kept]
    options = {"normalize_advantages": True}
    for deficit, floor in ((0.2, 1.0), (0.05, 0.5), (0.0, 0.0)):
        target = np.mean(entropies) / math.log(A) + deficit
        network = make_tabular_network()
        (steered, _), _ = compiled_loss(network, target=target, **options)(params, trajectory)
        (without, _), _ = compiled_loss(network, **options)(params, trajectory, 0.0)
        (plain, _), _ = compiled_loss(network, **options)(params, trajectory, 1.0)
        most = ENTROPY_COST * np.sum(entropies) / B  # what the entropy is worth without a scale
        scale = (without - plain) / most
        expected = (1 + floor) * (floor + (1 - floor) * scale)
        np.testing.assert_allclose((without - steered) / most, expected, rtol=1e-3)


# Continuous actions.

ACTOR = ("policy_body", "mean", "variance")
CRITIC = ("value_body", "value")


@pytest.fixture(scope="module", params=["shared", "each"])
def gaussian(request):
    """A network, random parameters, and a trajectory of continuous actions."""
    network = make_network("mujoco_ff", D, "gaussian_actor_critic", variance=request.param)
    return network, *params_and_trajectory(network)


def params_and_trajectory(network):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(T + 1, B, SIZE)).astype(np.float32)
    trajectory = random_trajectory(1, T, B, A)._replace(
        observations=observations,
        actions=rng.normal(size=(T, B, D)).astype(np.float32),
        core_state=network.initial_state(B),
    )
    return random_params(network, observations), trajectory


def look(network, params, trajectory):
    """What the network answers along the trajectory."""
    return network.apply(
        params, None, trajectory.observations, trajectory.is_first, trajectory.core_state
    )[0]


@pytest.mark.parametrize("bootstraps", [True, False])
def test_loss_of_a_gaussian_policy(gaussian, bootstraps):
    network, params, trajectory = gaussian
    policy, values = jax.tree.map(lambda x: np.asarray(x, float), look(network, params, trajectory))
    mean, variance = policy.mean[:-1], np.broadcast_to(policy.variance[:-1], (T, B, D))
    densities = np.exp(-((trajectory.actions - mean) ** 2) / (2 * variance))
    densities /= np.sqrt(2 * math.pi * variance)
    log_probs = np.sum(np.log(densities), axis=-1)
    entropies = np.sum(0.5 * np.log(2 * math.pi * math.e * variance), axis=-1)
    returns = monte_carlo_returns(trajectory)
    if bootstraps:  # with λ = 0: from the next observation at once
        returns = trajectory.rewards + trajectory.discounts * values[1:]
    is_kept = ~trajectory.is_first[1:]
    expected, averages = slow_loss(log_probs, entropies, values[:-1], returns, is_kept)
    loss = compiled_loss(network, bootstraps=bootstraps, lambda_=0.0)
    (actual, metrics), _ = loss(params, trajectory)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics[:3], averages, rtol=1e-4)


def test_gaussian_policy_and_values_have_all_parameters_and_share_none(gaussian):
    network, params, trajectory = gaussian
    assert set(params) == {*ACTOR, *CRITIC}

    def values(params):
        return jnp.sum(look(network, params, trajectory).values)

    def policy(params):
        return jnp.sum(look(network, params, trajectory).policy.log_prob(actions))

    actions = np.ones((T + 1, B, D), np.float32)
    check_only(jax.grad(values)(params), CRITIC)
    check_only(jax.grad(policy)(params), ACTOR)


def check_only(gradients, names):
    """Every array under these names has a gradient, and no other."""
    for name, subtree in gradients.items():
        for leaf in jax.tree.leaves(subtree):
            assert np.any(leaf != 0) == (name in names), name


def test_gaussian_actor_and_critic_learn_from_their_own_part_of_the_loss(gaussian):
    network, params, trajectory = gaussian
    _, both = compiled_loss(network)(params, trajectory)
    _, actor = compiled_loss(network, value_cost=0.0)(params, trajectory)
    check_only(actor, ACTOR)
    # The values enter the policy's gradient only as constants.
    chex.assert_trees_all_close(
        {name: actor[name] for name in ACTOR}, {name: both[name] for name in ACTOR}, rtol=1e-5
    )
    # And where the advantages are zero, and the entropy costs nothing, the policy rests.
    values = np.asarray(look(network, params, trajectory).values)
    certain = trajectory._replace(rewards=values[:-1], discounts=np.zeros((T, B), np.float32))
    _, nothing = compiled_loss(network, entropy_cost=0.0)(params, certain)
    for leaf in jax.tree.leaves(nothing):
        np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-6)
    _, entropy_only = compiled_loss(network, entropy_cost=1.0)(params, certain)
    assert any(np.any(np.abs(x) > 1e-3) for x in jax.tree.leaves(entropy_only["variance"]))


def test_variance_is_one_number_or_one_for_each_dimension():
    for variance, size in (("shared", 1), ("each", D), ("free", D)):
        network = make_network("mujoco_ff", D, "gaussian_actor_critic", variance=variance)
        params, trajectory = params_and_trajectory(network)
        policy, values = look(network, params, trajectory)
        assert policy.mean.shape == (T + 1, B, D)
        assert policy.variance.shape == (T + 1, B, size)
        assert values.shape == (T + 1, B)


@pytest.mark.parametrize("bias", [-1e4, -10.0, 0.0, 1e4])
def test_variance_is_positive_and_its_density_finite(bias):
    network = make_network("mujoco_ff", D, "gaussian_actor_critic", variance="shared")
    params, trajectory = params_and_trajectory(network)
    kernel = np.zeros_like(params["variance"]["kernel"])
    params["variance"] = {"kernel": kernel, "bias": np.array([bias], np.float32)}
    policy = look(network, params, trajectory).policy
    # softplus(x) = log(1 + eˣ)
    expected = MIN_VARIANCE + np.logaddexp(0.0, bias)
    np.testing.assert_allclose(policy.variance, np.full((T + 1, B, 1), expected), rtol=1e-4)
    assert np.all(policy.variance > 0)
    (loss, _), gradients = compiled_loss(network)(params, trajectory)
    chex.assert_tree_all_finite((loss, gradients))


def test_continuous_actions_are_sampled_from_the_gaussian():
    network = make_network("mujoco_ff", D, "gaussian_actor_critic", variance="each")
    params, trajectory = params_and_trajectory(network)
    num_draws = 4000
    observation = np.repeat(trajectory.observations[0, :1], num_draws, axis=0)
    zeros, is_first = np.zeros(num_draws, np.float32), np.zeros(num_draws, bool)
    now, constants = TimeStep(observation, zeros, zeros, is_first), make_constants(1.0, num_draws)
    agent = make_a3c(network)
    core_state = agent.initial_state(num_draws)
    actions, _, _ = act(agent, params, constants, now, core_state)
    assert (actions.shape, actions.dtype) == ((num_draws, D), jnp.float32)
    policy = look(network, params, trajectory).policy
    mean, variance = policy.mean[0, 0], policy.variance[0, 0]
    np.testing.assert_allclose(np.mean(actions, axis=0), mean, atol=0.06)
    np.testing.assert_allclose(np.var(actions, axis=0), variance, rtol=0.1)
    greedy, _, _ = act(agent, params, constants, now, core_state, is_greedy=True)
    np.testing.assert_allclose(greedy, np.stack([mean] * num_draws), rtol=1e-5, atol=1e-6)


def test_gaussian_with_memory_acts_on_what_it_learns_from():
    network = make_network("mujoco_lstm", D, "gaussian_actor_critic")
    params, trajectory = params_and_trajectory(network)
    core_state = network.initial_state(B)
    assert len(core_state) == 2  # the policy's and the values'
    agent = make_a3c(network)
    zeros, actions = np.zeros(B, np.float32), []
    for t in range(T + 1):
        now = TimeStep(trajectory.observations[t], zeros, zeros, trajectory.is_first[t])
        action, core_state, _ = act(
            agent, params, make_constants(), now, core_state, is_greedy=True
        )
        actions.append(action)
    expected = look(network, params, trajectory).policy.mean
    np.testing.assert_allclose(np.stack(actions), expected, rtol=1e-4, atol=1e-5)
