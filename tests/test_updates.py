"""The border of compilation: compiled calls do what the pure functions do, and compile once."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from a3cjax.agents import make_a3c, make_one_step_q
from a3cjax.optimizers import OPTIMIZER_NAMES, linear_annealing, make_optimizer
from a3cjax.types import (
    Constants,
    Exploration,
    LearnerState,
    ObservationStatistics,
    Snapshot,
    TimeStep,
)
from a3cjax.updates import make_act, make_apply_gradients, make_compute_gradients
from tests.cases import for_each
from tests.tabular import make_tabular_network, random_tables, random_trajectory

T, B, A = 4, 3, 2
NUM_STATES = (T + 1) * B
EXPLORATION = Exploration(np.full(B, 0.5, np.float32), np.float32(2.0))


def counting(function):
    """The function, and a list that grows each time it is traced."""
    traces = []

    def counted(*arguments, **keywords):
        traces.append(None)
        return function(*arguments, **keywords)

    return counted, traces


def make_agent():
    return make_a3c(make_tabular_network())


def make_q_agent():
    """One-step Q-learning of a table, the logits of `random_tables`."""
    network = make_tabular_network()

    def apply(params, *arguments):
        output, core_state = network.apply(params, *arguments)
        return output.policy.logits, core_state

    return make_one_step_q(network._replace(apply=apply))


def make_snapshot(seed=0, version=0, statistics=None, target_seed=None):
    params = jax.tree.map(jnp.asarray, random_tables(seed, NUM_STATES, A))
    target_params = None
    if target_seed is not None:
        target_params = jax.tree.map(jnp.asarray, random_tables(target_seed, NUM_STATES, A))
    return Snapshot(version, 80 * version, params, statistics, target_params)


def constants_of(snapshot):
    return Constants(snapshot.statistics, snapshot.target_params, EXPLORATION)


def make_timestep(seed=0):
    rng = np.random.default_rng(seed)
    return TimeStep(
        observation=rng.integers(0, NUM_STATES, size=B).astype(np.int32),
        reward=rng.normal(size=B).astype(np.float32),
        discount=np.full(B, 0.9, np.float32),
        is_first=rng.random(B) < 0.5,
    )


def test_compute_gradients_is_the_gradient_of_the_agents_loss():
    agent, snapshot, trajectory = make_agent(), make_snapshot(), random_trajectory(0, T, B, A)
    grads, metrics = make_compute_gradients(agent)(snapshot, EXPLORATION, trajectory)
    expected, loss_metrics = jax.grad(agent.loss, has_aux=True)(
        snapshot.params, constants_of(snapshot), trajectory
    )
    chex.assert_trees_all_close(grads, expected, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, snapshot.params)
    chex.assert_trees_all_close(metrics.parts, loss_metrics, rtol=1e-5, atol=1e-6)


def test_grad_norm_is_the_euclidean_norm_of_all_gradients():
    grads, metrics = make_compute_gradients(make_agent())(
        make_snapshot(), EXPLORATION, random_trajectory(0, T, B, A)
    )
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    np.testing.assert_allclose(metrics.grad_norm, np.linalg.norm(flat), rtol=1e-5)


def test_statistics_of_the_snapshot_reach_the_loss():
    agent, trajectory = make_agent(), random_trajectory(0, T, B, A)
    statistics = ObservationStatistics(mean=np.zeros(()), scale=np.array(2.0, np.float32))
    snapshot = make_snapshot(statistics=statistics)
    grads, _ = make_compute_gradients(agent)(snapshot, EXPLORATION, trajectory)
    expected, _ = jax.jit(jax.grad(agent.loss, has_aux=True))(
        snapshot.params, constants_of(snapshot), trajectory
    )
    chex.assert_trees_all_close(grads, expected, rtol=1e-5, atol=1e-7)
    plain, _ = make_compute_gradients(agent)(make_snapshot(), EXPLORATION, trajectory)
    assert np.any(np.abs(grads["logits"] - plain["logits"]) > 1e-3)


def test_target_parameters_of_the_snapshot_reach_the_loss():
    agent, trajectory = make_q_agent(), random_trajectory(0, T, B, A)
    compute_gradients = make_compute_gradients(agent)
    snapshot = make_snapshot(target_seed=1)
    grads, _ = compute_gradients(snapshot, EXPLORATION, trajectory)
    expected, _ = jax.grad(agent.loss, has_aux=True)(
        snapshot.params, constants_of(snapshot), trajectory
    )
    chex.assert_trees_all_close(grads, expected, rtol=1e-5, atol=1e-7)
    other, _ = compute_gradients(make_snapshot(target_seed=2), EXPLORATION, trajectory)
    assert np.any(np.abs(grads["logits"] - other["logits"]) > 1e-3)


def test_exploration_reaches_loss_and_actions():
    agent, trajectory, snapshot = make_agent(), random_trajectory(0, T, B, A), make_snapshot()
    compute_gradients = make_compute_gradients(agent)
    grads = [
        compute_gradients(snapshot, EXPLORATION._replace(entropy_factor=factor), trajectory)[0]
        for factor in (np.float32(0.0), np.float32(50.0))
    ]
    assert np.any(np.abs(grads[0]["logits"] - grads[1]["logits"]) > 1e-3)
    # ε = 0 takes the best action at every key; ε = 1 does not.
    act, timestep = make_act(make_q_agent()), make_timestep()
    best = np.argmax(snapshot.params["logits"][timestep.observation], axis=-1)
    for epsilon, always_best in ((0.0, True), (1.0, False)):
        exploration = Exploration(np.full(B, epsilon, np.float32), np.float32(1.0))
        actions = [act(snapshot, exploration, timestep, (), jax.random.key(i))[0] for i in range(9)]
        assert np.all(np.stack(actions) == best[None]) == always_best


def test_compute_gradients_compiles_once_for_all_snapshots_and_trajectories():
    agent = make_agent()
    loss, traces = counting(agent.loss)
    compute_gradients = make_compute_gradients(agent._replace(loss=loss))
    for version in range(3):  # a new version is no new program
        exploration = EXPLORATION._replace(entropy_factor=np.float32(version))
        compute_gradients(
            make_snapshot(version, version), exploration, random_trajectory(version, T, B, A)
        )
    assert len(traces) == 1


@for_each("make", [make_agent, make_q_agent])
@for_each("is_greedy", [False, True])
def test_actions_are_those_of_the_agents_policy(make, is_greedy):
    agent, key = make(), jax.random.key(0)
    act = make_act(agent, is_greedy=is_greedy)
    for version in range(3):
        snapshot, timestep = make_snapshot(version, version), make_timestep(version)
        output, _ = agent.look(snapshot.params, constants_of(snapshot), timestep, ())
        # Results depend on which half of the key is used for what.
        next_key, subkey = jax.random.split(key)
        expected = output.policy.mode() if is_greedy else output.policy.sample(subkey)
        actual = act(snapshot, EXPLORATION, timestep, (), key)
        chex.assert_trees_all_equal(actual, (expected, (), next_key))
        key = next_key


def test_acting_compiles_once_for_an_agent():
    look, traces = counting(make_agent().look)
    agent = make_agent()._replace(look=look)
    for version in range(3):
        for is_greedy in (False, True):
            act = make_act(agent, is_greedy=is_greedy)
            snapshot = make_snapshot(version, version)
            act(snapshot, EXPLORATION, make_timestep(version), (), jax.random.key(version))
    assert len(traces) == 2


def test_new_target_parameters_are_no_new_program_for_acting():
    agent = make_q_agent()
    counted, traces = counting(agent.look)
    act = make_act(agent._replace(look=counted))
    for target_seed in (None, 1):
        snapshot = make_snapshot(target_seed=target_seed)
        act(snapshot, EXPLORATION, make_timestep(), (), jax.random.key(0))
    assert len(traces) == 1


def make_learner():
    optimizer = make_optimizer("sgd", schedule=linear_annealing(0.5, 100), momentum=0.0)
    params = make_snapshot().params
    return optimizer, LearnerState(params, optimizer.init(params))


def test_apply_gradients_moves_parameters_by_the_optimizers_update():
    # SGD without momentum at a tenth of the budget: θ − 0.5 · 0.9 · Δ
    optimizer, state = make_learner()
    grads = jax.tree.map(lambda x: jnp.asarray(np.ones(x.shape, x.dtype)), state.params)
    new_state, _ = make_apply_gradients(optimizer)(state, grads, 10)
    assert isinstance(new_state, LearnerState)
    expected = jax.tree.map(lambda x: np.asarray(x) - 0.45, state.params)
    chex.assert_trees_all_close(new_state.params, expected, rtol=1e-6)
    chex.assert_trees_all_equal_structs(new_state, state)


def test_apply_gradients_carries_the_optimizers_statistics():
    # RMSProp twice with Δ = 3, α = 0.9, ε = 0.1: g = 0.9, then 0.9 · 0.9 + 0.9 = 1.71
    optimizer = make_optimizer("rmsprop", schedule=lambda _: 1.0, decay=0.9, epsilon=0.1)
    params = {"w": jnp.array(0.0)}
    apply_gradients = make_apply_gradients(optimizer)
    state = LearnerState(params, optimizer.init(params))
    for _ in range(2):
        state, _ = apply_gradients(state, {"w": jnp.array(3.0)}, 0)
    np.testing.assert_allclose(state.params["w"], -3.0 - 3.0 / np.sqrt(1.81), rtol=1e-6)


def test_apply_gradients_leaves_the_old_state_to_those_who_hold_it():
    optimizer, state = make_learner()
    before = jax.tree.map(np.array, state)
    grads = jax.tree.map(lambda x: jnp.asarray(np.ones(x.shape, x.dtype)), state.params)
    new_state, _ = make_apply_gradients(optimizer)(state, grads, 0)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, grads)))
    chex.assert_trees_all_equal(state, before)
    assert np.all(new_state.params["values"] != state.params["values"])


def test_apply_gradients_hands_on_the_very_target_parameters():
    # As an output of the compiled program they would be copied at every update.
    optimizer, state = make_learner()
    target_params = make_snapshot(seed=1).params
    state = state._replace(target_params=target_params)
    new_state, _ = make_apply_gradients(optimizer)(state, state.params, 0)
    assert new_state.target_params is target_params


def test_apply_gradients_compiles_once_for_all_numbers_of_frames():
    optimizer, state = make_learner()
    update, traces = counting(optimizer.update)
    apply_gradients = make_apply_gradients(optimizer._replace(update=update))
    for num_frames in (0, 80, 160):
        state, _ = apply_gradients(state, state.params, num_frames)
    assert len(traces) == 1


class Unhashable(NamedTuple):
    """A function that is compared by what it holds, as some have it that were brought."""

    function: Any
    __hash__ = None  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def __call__(self, *arguments):
        return self.function(*arguments)


def test_equal_agents_have_one_program_and_others_their_own():
    agent, optimizer = make_agent(), make_optimizer("sgd", schedule=lambda _: 0.1)
    ours = make_compute_gradients(agent)
    assert make_compute_gradients(agent._replace()) is ours
    assert make_apply_gradients(optimizer._replace()) is make_apply_gradients(optimizer)
    init = Unhashable(agent.init)
    others = [agent._replace(loss=lambda *args: agent.loss(*args)), agent._replace(init=init)]
    snapshot, trajectory = make_snapshot(), random_trajectory(0, T, B, A)
    for other in others:
        theirs = make_compute_gradients(other)
        assert theirs is not ours
        gradients = [f(snapshot, EXPLORATION, trajectory)[0] for f in (ours, theirs)]
        chex.assert_trees_all_equal(*gradients)
    update = make_optimizer("sgd", schedule=lambda _: 0.2).update
    changed = make_apply_gradients(optimizer._replace(update=update))
    assert changed is not make_apply_gradients(optimizer)


def test_agent_whose_functions_have_no_hash_acts_as_others_do():
    agent, arguments = make_agent(), (make_snapshot(), EXPLORATION, make_timestep(), ())
    expected, actual = (
        make_act(agent._replace(look=look))(*arguments, jax.random.key(0))[0]
        for look in (agent.look, Unhashable(agent.look))
    )
    np.testing.assert_array_equal(actual, expected)


@for_each("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_apply_gradients_tells_whether_the_new_parameters_are_finite(bad):
    optimizer, state = make_learner()
    apply_gradients = make_apply_gradients(optimizer)
    grads = jax.tree.map(jnp.ones_like, state.params)
    assert apply_gradients(state, grads, 0)[1]
    leaves, structure = jax.tree.flatten(grads)
    leaves[-1] = leaves[-1].at[(0,) * leaves[-1].ndim].set(bad)
    assert not apply_gradients(state, jax.tree.unflatten(structure, leaves), 0)[1]


NORM_OF_MANY = {"w": jnp.full(2, 1.5e19)}  # each square is finite, their sum is not


@for_each("grads", [{"w": jnp.array([1e20, 0.0])}, NORM_OF_MANY])
@for_each("max_grad_norm", [None, 40.0])
@for_each("name", OPTIMIZER_NAMES)
def test_a_gradient_whose_norm_is_not_finite_is_refused(name, max_grad_norm, grads):
    # Clipping would make zeros of it, and a second moment of infinity freezes its weight for good.
    rule = make_optimizer(name, schedule=lambda _: 1e-9, max_grad_norm=max_grad_norm)
    params = {"w": jnp.zeros(2)}
    state = LearnerState(params, rule.init(params))
    apply_gradients = make_apply_gradients(rule)
    assert not apply_gradients(state, grads, 0)[1]
    assert apply_gradients(state, {"w": jnp.array([1e18, 0.0])}, 0)[1]


class Kept(NamedTuple):
    """Optimizer states: of each parameter, of none, a number, and a count."""

    each: dict
    other: jax.Array
    number: jax.Array
    count: jax.Array


@for_each("name", Kept._fields[:3])
@for_each("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_makes_any_part_of_the_optimizers_state_not_finite_is_refused(name, bad):
    params = {"a": jnp.ones(()), "b": jnp.ones(3)}
    kept = Kept(jax.tree.map(jnp.ones_like, params), jnp.ones((2, 2)), jnp.ones(()), jnp.int32(1))

    def make(value):
        def update(grads, states, params=None, **_):
            part = getattr(states[0], name)
            part = {**part, "b": part["b"].at[2].set(value)} if name == "each" else value * part
            return grads, (states[0]._replace(**{name: part}),)

        rule = optax.GradientTransformationExtraArgs(lambda _: (kept,), update)
        return make_apply_gradients(rule)

    state = LearnerState(params, (kept,))
    assert make(2.0)(state, params, 0)[1]
    assert not make(bad)(state, params, 0)[1]


def test_a_loss_that_is_not_finite_has_no_finite_gradient():
    agent, trajectory = make_agent(), random_trajectory(0, T, B, A)

    def loss(*arguments):
        value, metrics = agent.loss(*arguments)
        return value + jax.lax.stop_gradient(jnp.inf), metrics

    compute_gradients = make_compute_gradients(agent._replace(loss=loss))
    grads, _ = compute_gradients(make_snapshot(), EXPLORATION, trajectory)
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(grads))
