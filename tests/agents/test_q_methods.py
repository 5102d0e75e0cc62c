"""The laws of the Q methods: what their targets are made of, what is learned, how they act."""

import inspect
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a3cjax.agents import ALGORITHMS, make_n_step_q, make_one_step_q, make_one_step_sarsa
from a3cjax.networks import Network, make_network
from a3cjax.types import Constants, Exploration, ObservationStatistics, TimeStep, Trajectory
from tests.cases import for_each
from tests.tabular import act, random_params, random_trajectory

T, B, A = 6, 4, 3
NUM_STATES = (T + 1) * B
LAMBDA = 0.8
METHODS = {
    "n_step_q": make_n_step_q,
    "one_step_q": make_one_step_q,
    "one_step_sarsa": make_one_step_sarsa,
}
seeds = st.integers(0, 2**32 - 1)
every_method = for_each("method", METHODS)


def make_table_of_action_values() -> Network:
    """Observations are numbers of states, params are Q, `[S, A]`; statistics scale it."""

    def init(key, observations):
        raise NotImplementedError("tests write the table themselves")

    def apply(params, statistics, observations, is_first, core_state):
        scale = 1.0 if statistics is None else statistics.scale
        return params[observations] * scale, core_state

    return Network(init=init, apply=apply, initial_state=lambda batch_size: ())


def make_constants(target_params=None, epsilons=(0.1,) * B, statistics=None):
    exploration = Exploration(np.array(epsilons, np.float32), np.float32(1.0))
    return Constants(statistics, target_params, exploration)


def make_agent(method, network=None, **hyperparameters):
    return METHODS[method](network or make_table_of_action_values(), **hyperparameters)


def table_loss(method, **hyperparameters):
    """((loss, metrics), gradients) of Q(θ), Q(θ⁻) and a trajectory, compiled."""
    agent = make_agent(method, **hyperparameters)
    differentiated = jax.value_and_grad(agent.loss, has_aux=True)
    return jax.jit(
        lambda q, target_q, trajectory: differentiated(q, make_constants(target_q), trajectory)
    )


LOSSES = {
    "n_step_q": table_loss("n_step_q", lambda_=LAMBDA),
    "one_step_q": table_loss("one_step_q"),
    "one_step_sarsa": table_loss("one_step_sarsa"),
}


def random_table(seed, num_states=NUM_STATES, num_actions=A):
    return np.random.default_rng(seed).normal(size=(num_states, num_actions)).astype(np.float32)


def random_tables(seed):
    """Q(θ) and Q(θ⁻)."""
    return random_table([seed, 1]), random_table([seed, 2])


def random_experience(method, seed):
    """A random trajectory, with the action at its last observation for who acts ahead."""
    rng = np.random.default_rng([seed, 3])
    trajectory = random_trajectory(seed, T, B, A)
    if not METHODS[method](make_table_of_action_values()).acts_ahead:
        return trajectory
    last = rng.integers(0, A, size=(1, B)).astype(np.int32)
    return trajectory._replace(actions=np.concatenate([trajectory.actions, last]))


def one_environment(observations, actions, rewards, discounts, is_first):
    def column(values, dtype):
        return np.array(values, dtype)[:, None]

    return Trajectory(
        observations=column(observations, np.int32),
        actions=column(actions, np.int32),
        rewards=column(rewards, np.float32),
        discounts=column(discounts, np.float32),
        is_first=column(is_first, bool),
        core_state=(),
    )


@for_each(
    ("method", "targets"),
    [
        # y_t = r_{t+1} + ½ max Q(s_{t+1}, ·; θ⁻): 1 + ½ 2, 2 + ½ 4, 3 + ½ 6
        ("one_step_q", [2.0, 4.0, 6.0]),
        # y_t = r_{t+1} + ½ Q(s_{t+1}, a_{t+1}; θ⁻): 1 + ½ 1, 2 + ½ 3, 3 + ½ 5
        ("one_step_sarsa", [1.5, 3.5, 5.5]),
        # y_2 = 3 + ½ 6 = 6, y_1 = 2 + ½ 6 = 5, y_0 = 1 + ½ 5 = 3.5
        ("n_step_q", [3.5, 5.0, 6.0]),
    ],
)
def test_loss_of_a_hand_example(method, targets):
    # Taken were Q(s_0, a_0) = 1, Q(s_1, a_0) = 2 and Q(s_2, a_1) = 3.
    q = np.array([[1, 9], [2, 9], [9, 3], [9, 9]], np.float32)
    target_q = np.array([[7, 7], [1, 2], [4, 3], [5, 6]], np.float32)
    actions = [0, 0, 1] + [0] * (method == "one_step_sarsa")
    trajectory = one_environment(
        [0, 1, 2, 3], actions, [1, 2, 3], [0.5] * 3, [True, False, False, False]
    )
    (loss, metrics), gradients = table_loss(method)(q, target_q, trajectory)
    errors = np.array(targets) - [1, 2, 3]
    np.testing.assert_allclose(loss, 0.5 * np.sum(errors**2), rtol=1e-6)
    np.testing.assert_allclose(metrics, [0.5 * np.mean(errors**2), (1 + 2 + 3) / 3, 0.1], rtol=1e-6)
    # Q − y where the action was taken, and nowhere else.
    expected = [[-errors[0], 0], [-errors[1], 0], [0, -errors[2]], [0, 0]]
    np.testing.assert_allclose(gradients, expected, rtol=1e-6)


@every_method
def test_no_target_is_made_of_a_forbidden_action(method):
    rng = np.random.default_rng(0)
    mask = rng.random((T + 1, B, A)) < 0.6
    trajectory = random_experience(method, 0)
    at = np.zeros((T + 1, B), int)
    at[: len(trajectory.actions)] = trajectory.actions
    np.put_along_axis(mask, at[..., None], True, axis=-1)  # what was done was allowed
    q, target_q = random_tables(0)
    states = np.arange((T + 1) * B).reshape(T + 1, B)
    trajectory = trajectory._replace(observations=states)  # each is visited once
    forbidden = ~mask.reshape(-1, A)
    hopes = np.where(forbidden, 1e6, target_q).astype(np.float32)
    fears = np.where(forbidden, -1e6, target_q).astype(np.float32)
    masked = LOSSES[method](q, hopes, trajectory._replace(action_masks=mask))
    expected = LOSSES[method](q, fears, trajectory)
    chex.assert_trees_all_close(masked, expected, rtol=1e-6)
    if method != "one_step_sarsa":
        assert LOSSES[method](q, hopes, trajectory)[0][0] > 100 * masked[0][0]


@every_method
def test_value_and_choice_are_those_of_the_best_allowed_action(method):
    q, mask = random_table(0, B), np.tile([True, False, True], (B, 1))
    now = timestep(np.arange(B))._replace(action_mask=mask)
    output, _ = make_agent(method).look(q, make_constants(epsilons=(0.5,) * B), now, ())
    np.testing.assert_array_equal(output.values, q[:, [0, 2]].max(axis=-1))
    np.testing.assert_array_equal(output.policy.mode(), 2 * np.argmax(q[:, [0, 2]], axis=-1))
    samples = [output.policy.sample(jax.random.key(seed)) for seed in range(30)]
    assert set(np.unique(samples)) == {0, 2}


def slow_targets(method, target_q, trajectory, lambda_=LAMBDA):
    """Targets step by step; NaN for automatic resets."""
    targets = np.full(trajectory.rewards.shape, np.nan)
    num_steps, batch_size = trajectory.rewards.shape
    for b in range(batch_size):
        for t in reversed(range(num_steps)):
            if trajectory.is_first[t + 1, b]:
                continue  # no experience
            next_q = target_q[trajectory.observations[t + 1, b]].astype(float)
            episode_goes_on = t + 1 < num_steps and not trajectory.is_first[t + 2, b]
            if method == "one_step_sarsa":
                following = next_q[trajectory.actions[t + 1, b]]
            elif method == "n_step_q" and episode_goes_on:
                following = (1 - lambda_) * max(next_q) + lambda_ * targets[t + 1, b]
            else:
                following = max(next_q)
            targets[t, b] = trajectory.rewards[t, b] + trajectory.discounts[t, b] * following
    return targets


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds)
def test_loss_and_gradient_are_those_of_the_targets(method, seed):
    (q, target_q), trajectory = random_tables(seed), random_experience(method, seed)
    (loss, metrics), gradients = LOSSES[method](q, target_q, trajectory)
    actions = trajectory.actions[:T]
    q_taken = np.take_along_axis(q[trajectory.observations[:-1]], actions[..., None], axis=-1)
    q_taken = q_taken[..., 0].astype(float)
    errors = slow_targets(method, target_q, trajectory) - q_taken
    is_kept = ~trajectory.is_first[1:]
    num_kept = max(1, np.sum(is_kept))
    losses = np.where(is_kept, 0.5 * errors**2, 0.0)
    # Summed over time and averaged over the batch.
    np.testing.assert_allclose(loss, np.sum(losses) / B, rtol=1e-5)
    averages = [np.sum(losses) / num_kept, np.sum(q_taken[is_kept]) / num_kept, 0.1]
    np.testing.assert_allclose(metrics, averages, rtol=1e-5, atol=1e-6)
    expected = np.zeros((T + 1, B, A))
    np.put_along_axis(
        expected[:-1], actions[..., None], np.where(is_kept, -errors / B, 0.0)[..., None], axis=-1
    )
    by_step = np.asarray(gradients).reshape(T + 1, B, A)
    np.testing.assert_allclose(by_step, expected, rtol=1e-5, atol=1e-6)


@every_method
def test_nothing_is_learned_by_the_target_parameters(method):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    agent = make_agent(method)

    def loss(target_q):
        return agent.loss(q, make_constants(target_q), trajectory)[0]

    np.testing.assert_array_equal(jax.grad(loss)(target_q), np.zeros_like(target_q))
    assert loss(target_q) != loss(target_q + 1.0)


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds, reward=st.floats(width=32), discount=st.floats(width=32))
@example(seed=0, reward=math.nan, discount=math.inf)
def test_automatic_resets_count_for_nothing_whatever_numbers_stand_there(
    method, seed, reward, discount
):
    (q, target_q), trajectory = random_tables(seed), random_experience(method, seed)
    is_reset = trajectory.is_first[1:]
    actions, is_free = trajectory.actions.copy(), is_reset.copy()
    if method == "one_step_sarsa":
        # What would have been done at the last observation of an episode is part of the target
        # before it, unless the episode terminated.
        is_free[1:] &= trajectory.discounts[:-1] == 0
    actions[:T] = np.where(is_free, (actions[:T] + 1) % A, actions[:T])
    moved = trajectory._replace(
        rewards=np.where(is_reset, np.float32(reward), trajectory.rewards),
        discounts=np.where(is_reset, np.float32(discount), trajectory.discounts),
        actions=actions,
    )
    chex.assert_trees_all_equal(
        LOSSES[method](q, target_q, trajectory), LOSSES[method](q, target_q, moved)
    )


@every_method
def test_trajectory_of_resets_alone_teaches_nothing(method):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    nothing = trajectory._replace(is_first=np.ones((T + 1, B), bool))
    (loss, metrics), gradients = LOSSES[method](q, target_q, nothing)
    np.testing.assert_array_equal(gradients, np.zeros_like(q))
    assert (loss, metrics.value_loss, metrics.q_value) == (0, 0, 0)


def gradients_by_step(method, q, target_q, trajectory):
    _, gradients = LOSSES[method](q, target_q, trajectory)
    return np.asarray(gradients).reshape(T + 1, B, A)


@for_each("t", range(T))
def test_target_of_sarsa_is_of_the_action_taken_next(t):
    (q, target_q), trajectory = random_tables(0), random_experience("one_step_sarsa", 0)
    trajectory = trajectory._replace(
        is_first=np.zeros((T + 1, B), bool), discounts=np.full((T, B), 0.9, np.float32)
    )
    other = trajectory.actions.copy()
    other[t + 1, 2] = (other[t + 1, 2] + 1) % A
    # Compared step by step: what is learned about (s_t+1, a_t+1) moves to another action.
    before = gradients_by_step("one_step_sarsa", q, target_q, trajectory)
    after = gradients_by_step("one_step_sarsa", q, target_q, trajectory._replace(actions=other))
    has_changed = np.any(before != after, axis=-1)
    expected = np.zeros((T + 1, B), bool)
    expected[t, 2] = True
    expected[t + 1, 2] = t + 1 < T
    np.testing.assert_array_equal(has_changed, expected)
    # d loss / d Q = (Q − y) / B, so that the change of the target is − B times that of the slope.
    state, action = trajectory.observations[t + 1, 2], trajectory.actions[t, 2]
    change = 0.9 * (
        target_q[state, other[t + 1, 2]] - target_q[state, trajectory.actions[t + 1, 2]]
    )
    slopes = before[t, 2, action] - after[t, 2, action]
    np.testing.assert_allclose(B * slopes, change, rtol=1e-5)


def test_sarsa_alone_acts_ahead():
    assert {method for method in METHODS if make_agent(method).acts_ahead} == {"one_step_sarsa"}


@for_each("num_actions", [T, T + 1])
@for_each("method", ["n_step_q", "one_step_q"])
def test_action_at_the_last_observation_is_not_needed(method, num_actions):
    (q, target_q), trajectory = random_tables(0), random_experience("one_step_sarsa", 0)
    longer = trajectory._replace(actions=trajectory.actions[:num_actions])
    shorter = trajectory._replace(actions=trajectory.actions[:T])
    chex.assert_trees_all_equal(
        LOSSES[method](q, target_q, longer), LOSSES[method](q, target_q, shorter)
    )


# Three steps of an episode, an automatic reset, one step of the next. Q(θ) = 0, so that slopes
# are −y. max Q(s, ·; θ⁻) of the five states: 1, 2, 3, 4, 5.
EPISODES = {
    "observations": [0, 1, 2, 3, 4],
    "actions": [0, 0, 0, 0],
    "is_first": [True, False, False, True, False],
}
MAXIMA = np.array([[1, 0], [0, 2], [3, 0], [0, 4], [5, 0]], np.float32)


@for_each(
    ("discount_of_last_step", "expected"),
    [
        # Truncated: y_1 = 2 + ½ 3 = 3.5, y_0 = 1 + ½ 3.5 = 2.75.
        (0.5, [2.75, 3.5, 0.0, 5.5]),
        # Terminated: y_1 = 2, y_0 = 1 + ½ 2 = 2.
        (0.0, [2.0, 2.0, 0.0, 5.5]),
    ],
)
def test_n_step_targets_bootstrap_at_the_end_and_at_truncations_not_at_terminations(
    discount_of_last_step, expected
):
    # The last step is of the next episode, and the unroll ends: y_3 = 3 + ½ 5 = 5.5.
    trajectory = one_environment(
        **EPISODES, rewards=[1, 2, 77, 3], discounts=[0.5, discount_of_last_step, 0.5, 0.5]
    )
    _, gradients = table_loss("n_step_q")(np.zeros_like(MAXIMA), MAXIMA, trajectory)
    np.testing.assert_allclose(-gradients[:4, 0], expected, rtol=1e-6)


@for_each("last_discount", [0.5, 0.0])
def test_without_bootstrapping_n_step_targets_are_sums_of_rewards(last_discount):
    # y_1 = 2 and y_0 = 1 + ½ 2 = 2, terminated or truncated; y_3 = 3. λ does not matter.
    trajectory = one_environment(
        **EPISODES, rewards=[1, 2, 77, 3], discounts=[0.5, last_discount, 0.5, 0.5]
    )
    loss = table_loss("n_step_q", bootstraps=False, lambda_=0.3)
    _, gradients = loss(np.zeros_like(MAXIMA), MAXIMA, trajectory)
    np.testing.assert_allclose(-gradients[:4, 0], [2.0, 2.0, 0.0, 3.0], rtol=1e-6)


@given(seed=seeds)
def test_lambda_zero_is_one_step_q_learning(seed):
    (q, target_q), trajectory = random_tables(seed), random_experience("one_step_q", seed)
    mixed = zero_lambda_loss(q, target_q, trajectory)
    chex.assert_trees_all_close(
        mixed, LOSSES["one_step_q"](q, target_q, trajectory), rtol=1e-5, atol=1e-6
    )


zero_lambda_loss = table_loss("n_step_q", lambda_=0.0)


@every_method
def test_rewards_are_clipped_in_the_loss_only_where_asked_for(method):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    raw = trajectory._replace(rewards=3.0 * trajectory.rewards)
    clipped = raw._replace(rewards=np.clip(raw.rewards, -1.0, 1.0))
    assert np.any(raw.rewards > 1)
    assert np.any(raw.rewards < -1)
    plain, clipping = table_loss(method), table_loss(method, max_abs_reward=1.0)
    chex.assert_trees_all_close(clipping(q, target_q, raw), plain(q, target_q, clipped), rtol=1e-6)
    assert plain(q, target_q, raw)[0][0] != plain(q, target_q, clipped)[0][0]


@every_method
@for_each(
    ("field", "change"),
    [
        ("rewards", lambda rewards: rewards[:-1]),
        ("rewards", lambda rewards: rewards[..., None]),
        ("discounts", lambda discounts: discounts[:, :-1]),
        ("actions", lambda actions: actions[: T - 1]),
        ("actions", lambda actions: actions.astype(np.float32)),
        ("is_first", lambda is_first: is_first.astype(np.float32)),
    ],
)
def test_trajectories_that_do_not_fit_raise(method, field, change):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    wrong = trajectory._replace(**{field: change(getattr(trajectory, field))})
    loss = make_agent(method).loss
    # As users have it: the tests' own strictness is not what refuses it.
    message = "Incompatible shapes|assert_type failed|must be"
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        pytest.raises((AssertionError, ValueError, TypeError), match=message),
    ):
        loss(q, make_constants(target_q), wrong)


def test_sarsa_refuses_a_trajectory_without_the_action_at_its_last_observation():
    (q, target_q), trajectory = random_tables(0), random_experience("one_step_q", 0)
    with pytest.raises(AssertionError):
        make_agent("one_step_sarsa").loss(q, make_constants(target_q), trajectory)


def test_hyperparameters_are_by_keyword_with_the_papers_defaults():
    def defaults(make):
        parameters = inspect.signature(make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    common = {"max_abs_reward": None, "huber_delta": None}
    assert {method: defaults(make) for method, make in METHODS.items()} == {
        "n_step_q": {"lambda_": 1.0, "bootstraps": True, "double_q": False, **common},
        "one_step_q": {"double_q": False, **common},
        "one_step_sarsa": common,
    }


def test_all_are_registered_as_having_action_values_and_target_parameters():
    for method, make in METHODS.items():
        algorithm = ALGORITHMS[method]
        assert algorithm.make is make
        assert (algorithm.head, algorithm.has_target_params) == ("action_values", True)


# Acting.


def timestep(observation):
    zeros = np.zeros(len(observation), np.float32)
    return TimeStep(np.asarray(observation), zeros, zeros, np.zeros(len(observation), bool))


@every_method
def test_the_loss_tells_the_mean_epsilon(method):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    constants = make_constants(target_q, epsilons=np.arange(B) / 10)
    _, metrics = make_agent(method).loss(q, constants, trajectory)
    np.testing.assert_allclose(metrics.epsilon, np.mean(np.arange(B) / 10), rtol=1e-6)


@every_method
def test_each_environment_acts_with_its_own_epsilon(method):
    # State s has its largest value at action s. Random are ε of the actions, and a third of
    # these are the best one by chance: P(best) = 1 − ε + ε/3.
    epsilons, num_draws = np.array([0.0, 0.1, 0.5, 1.0], np.float32), 4000
    states = np.array([0, 1, 2, 1], np.int32)
    constants = make_constants(epsilons=np.repeat(epsilons, num_draws))
    q, now = np.eye(A, dtype=np.float32), timestep(np.repeat(states, num_draws))
    actions, _, _ = act(make_agent(method), q, constants, now)
    assert actions.dtype == jnp.int32
    frequencies = np.stack(
        [np.mean(np.asarray(actions).reshape(4, num_draws) == a, axis=-1) for a in range(A)],
        axis=-1,
    )
    expected = epsilons[:, None] / A + (1 - epsilons)[:, None] * np.eye(A)[states]
    # Standard deviations are at most √(¼ / 4000) = 0.008.
    np.testing.assert_allclose(frequencies, expected, atol=0.03)
    np.testing.assert_array_equal(frequencies[0], np.eye(A)[states[0]])


@every_method
def test_greedy_actions_are_the_best_whatever_epsilon(method):
    q, now = random_table(0, NUM_STATES), timestep(np.arange(NUM_STATES))
    constants = make_constants(epsilons=[1.0] * NUM_STATES)
    actions, _, _ = act(make_agent(method), q, constants, now, is_greedy=True)
    np.testing.assert_array_equal(actions, np.argmax(q, axis=-1))
    assert actions.dtype == jnp.int32


@every_method
def test_acting_needs_an_epsilon_for_each_environment(method):
    with pytest.raises(AssertionError):
        act(make_agent(method), random_table(0), make_constants(epsilons=[0.1]), timestep([0, 1]))


@every_method
def test_statistics_reach_the_network_when_acting_and_learning(method):
    agent = make_agent(method)
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    statistics = ObservationStatistics(mean=np.zeros(()), scale=np.array(-1.0, np.float32))
    with_statistics = make_constants(target_q, statistics=statistics)
    negated, now = make_constants(-target_q), timestep(np.arange(B))
    for is_greedy in (True, False):
        chex.assert_trees_all_equal(
            act(agent, q, with_statistics, now, is_greedy=is_greedy),
            act(agent, -q, negated, now, is_greedy=is_greedy),
        )
    loss = jax.jit(agent.loss)
    chex.assert_trees_all_close(
        loss(q, with_statistics, trajectory), loss(-q, negated, trajectory), rtol=1e-6
    )


# Recurrent networks.

SIZE = 5


@pytest.fixture(scope="module")
def recurrent():
    """An LSTM's action values, parameters θ and θ⁻, observations, and a core state not zero."""
    network = make_network("mlp_lstm", A, "action_values")
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(T + 1, B, SIZE)).astype(np.float32)
    params, target_params = (random_params(network, observations, seed) for seed in (1, 2))
    core_state = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), network.initial_state(B)
    )
    return network, params, target_params, observations, core_state


@every_method
def test_recurrent_values_are_unrolled_from_the_same_core_state(method, recurrent):
    network, params, target_params, observations, core_state = recurrent
    trajectory = random_experience(method, 1)
    is_first = trajectory.is_first
    assert np.any(is_first[0])
    assert not np.all(is_first[0])
    apply = jax.jit(network.apply)
    q, target_q = (
        np.asarray(apply(which, None, observations, is_first, core_state)[0]).reshape(-1, A)
        for which in (params, target_params)
    )
    # The tables of Q at every step, as the network sees them, have the same loss.
    expected = LOSSES[method](q, target_q, trajectory)[0]
    settings = {"lambda_": LAMBDA} if method == "n_step_q" else {}
    loss = jax.jit(make_agent(method, network, **settings).loss)
    seen = trajectory._replace(observations=observations, core_state=core_state)
    chex.assert_trees_all_close(
        loss(params, make_constants(target_params), seen), expected, rtol=1e-4
    )


@every_method
def test_acting_with_memory_sees_what_learning_sees(method, recurrent):
    network, params, _, observations, core_state = recurrent
    is_first = random_trajectory(1, T, B, A).is_first
    expected, _ = network.apply(params, None, observations, is_first, core_state)
    agent = make_agent(method, network)
    zeros, actions = np.zeros(B, np.float32), []
    for t in range(T + 1):
        now = TimeStep(observations[t], zeros, zeros, is_first[t])
        action, core_state, _ = act(
            agent, params, make_constants(), now, core_state, is_greedy=True
        )
        actions.append(action)
    np.testing.assert_array_equal(np.stack(actions), np.argmax(expected, axis=-1))


# Double Q-learning, and errors that are not squared.


@for_each(
    ("method", "targets"),
    [
        # By Q(θ) the best actions in s_1, s_2, s_3 are 1, 1, 0; of these Q(θ⁻) is 2, 3, 5:
        # y_t = r_{t+1} + ½ that: 1 + ½ 2, 2 + ½ 3, 3 + ½ 5
        ("one_step_q", [2.0, 3.5, 5.5]),
        # y_2 = 3 + ½ 5 = 5.5, y_1 = 2 + ½ 5.5 = 4.75, y_0 = 1 + ½ 4.75
        ("n_step_q", [3.375, 4.75, 5.5]),
    ],
)
def test_double_q_of_a_hand_example(method, targets):
    q = np.array([[1, 9], [2, 9], [0, 3], [9, 8]], np.float32)
    target_q = np.array([[7, 7], [1, 2], [4, 3], [5, 6]], np.float32)
    trajectory = one_environment(
        [0, 1, 2, 3], [0, 0, 1], [1, 2, 3], [0.5] * 3, [True, False, False, False]
    )
    (loss, _), gradients = table_loss(method, double_q=True)(q, target_q, trajectory)
    errors = np.array(targets) - [1, 2, 3]
    np.testing.assert_allclose(loss, 0.5 * np.sum(errors**2), rtol=1e-6)
    # No gradient goes through the choice.
    expected = [[-errors[0], 0], [-errors[1], 0], [0, -errors[2]], [0, 0]]
    np.testing.assert_allclose(gradients, expected, rtol=1e-6)


DOUBLE_METHODS = ["n_step_q", "one_step_q"]
DOUBLE_LOSSES = {
    "n_step_q": table_loss("n_step_q", lambda_=LAMBDA, double_q=True),
    "one_step_q": table_loss("one_step_q", double_q=True),
}


@pytest.mark.parametrize("method", DOUBLE_METHODS)
@given(seed=seeds)
def test_double_q_values_by_one_what_the_other_chooses(method, seed):
    (q, target_q), trajectory = random_tables(seed), random_experience(method, seed)
    # As if θ⁻ had nothing but the values of the actions that θ takes for the best.
    best = np.argmax(q, axis=-1, keepdims=True)
    chosen = np.broadcast_to(np.take_along_axis(target_q, best, axis=-1), target_q.shape)
    chex.assert_trees_all_close(
        DOUBLE_LOSSES[method](q, target_q, trajectory),
        LOSSES[method](q, chosen, trajectory),
        rtol=1e-5,
        atol=1e-6,
    )
    # Both are one where θ⁻ is θ.
    chex.assert_trees_all_close(
        DOUBLE_LOSSES[method](q, q, trajectory), LOSSES[method](q, q, trajectory), rtol=1e-5
    )


@for_each("method", DOUBLE_METHODS)
def test_double_q_chooses_among_the_allowed_actions(method):
    mask = np.ones((T + 1, B, A), bool)
    mask[..., 1] = False
    trajectory = random_experience(method, 0)
    trajectory = trajectory._replace(actions=2 * (trajectory.actions % 2), action_masks=mask)
    q, target_q = random_tables(0)
    hopes, fears = q.copy(), q.copy()
    hopes[:, 1], fears[:, 1] = 1e6, -1e6
    masked = DOUBLE_LOSSES[method](hopes, target_q, trajectory)
    expected = DOUBLE_LOSSES[method](fears, target_q, trajectory._replace(action_masks=None))
    assert np.isfinite(masked[0][0])
    chex.assert_trees_all_close(masked, expected, rtol=1e-6)


@every_method
def test_huber_loss_is_linear_beyond_delta(method):
    (q, target_q), trajectory = random_tables(0), random_experience(method, 0)
    delta = 0.7
    _, slopes = table_loss(method)(q, target_q, trajectory)
    (loss, _), gradients = table_loss(method, huber_delta=delta)(q, target_q, trajectory)
    assert (np.abs(B * slopes) > delta).any()
    # The mean over the batch divides each error, Q − y, by B.
    np.testing.assert_allclose(B * gradients, np.clip(B * slopes, -delta, delta), atol=1e-5)
    errors = np.abs(B * np.asarray(slopes, float))
    each = np.where(errors <= delta, 0.5 * errors**2, delta * (errors - 0.5 * delta))
    np.testing.assert_allclose(loss, each.sum() / B, rtol=1e-5)
