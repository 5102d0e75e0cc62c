"""Where returns and losses are used otherwise than in our own training, and how they refuse."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax import (
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    MultiCategorical,
    SquashedGaussian,
    actor_critic_loss,
    clipped_surrogate_loss,
    double_q_targets,
    entropy_loss,
    gae_advantages,
    lambda_returns,
    n_step_returns,
    one_step_q_targets,
    one_step_sarsa_targets,
    policy_gradient_loss,
    q_loss,
    value_loss,
    vtrace_targets,
)
from tests.cases import for_each

T, B, A = 4, 3, 2
X = np.random.default_rng(0).normal(size=(T, B)).astype(np.float32)
Q = np.random.default_rng(1).normal(size=(T, B, A)).astype(np.float32)
ACTIONS, LAST = np.zeros((T, B), np.int32), X[0]
ALONG_TIME = {
    n_step_returns: lambda x: (x, 0.9, 0.0),
    lambda_returns: lambda x: (x, 0.9, x, 0.5),
    gae_advantages: lambda x: (x, 0.9, x, 0.0, 0.5),
    vtrace_targets: lambda x: (x, 0.9, x, 0.0, x),
}

SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from a3cjax import EpsilonGreedy, gae_advantages, lambda_returns, n_step_returns, vtrace_targets
from a3cjax.networks import make_network

mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
zeros = np.zeros_like(x)
calls = [
    lambda r: n_step_returns(r, 0.9, jnp.zeros(r.shape[1:])),
    lambda r: lambda_returns(r, 0.9, jnp.zeros(r.shape), 0.5),
    lambda r: lambda_returns(jnp.ones(r.shape), 0.9 + 0 * r, jnp.ones(r.shape)),
    lambda r: gae_advantages(r, 0.9, jnp.zeros(r.shape), 0.0, 0.5),
    lambda r: vtrace_targets(r, 0.9, jnp.zeros(r.shape), 0.0, jnp.zeros(r.shape)).targets,
]
for call in calls:
    specs = {"in_specs": P(None, "i"), "out_specs": P(None, "i")}
    for function in (call, jax.grad(lambda r: jnp.sum(call(r)))):
        sharded = jax.jit(jax.shard_map(function, mesh=mesh, **specs))(x)
        np.testing.assert_allclose(sharded, jax.jit(function)(x), rtol=1e-6)
    mapped = jax.pmap(call)(np.stack([x, x + 1]))
    np.testing.assert_allclose(mapped[1], jax.jit(call)(x + 1), rtol=1e-6)

# A recurrent network, whose parameters are the same everywhere: their gradient is that of all.
for name in ("mlp_gru", "mlp_lstm"):
    network = make_network(name, 2)
    inputs = x[..., None], x > 1, network.initial_state(6)
    params = jax.jit(network.init)(jax.random.key(0), x[:, :1, None])
    loss = lambda params, *inputs: jnp.sum(network.apply(params, None, *inputs)[0].values ** 2)
    specs = {"in_specs": (P(), P(None, "i"), P(None, "i"), P("i")), "out_specs": P()}
    sharded = jax.jit(jax.shard_map(jax.grad(loss), mesh=mesh, **specs))(params, *inputs)
    whole = jax.jit(jax.grad(loss))(params, *inputs)
    for found, expected in zip(*map(jax.tree.leaves, (sharded, whole))):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

# Over explicit axes, too, which are the default of `jax.make_mesh`.
mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, P(None, "i")))
for call in (
    lambda r: n_step_returns(r, 0.9, 0.5),
    lambda r: lambda_returns(r, 0.9, r, 0.5),
    lambda r: gae_advantages(r, 0.9, r, 0.5, 0.5),
    lambda r: vtrace_targets(r, 0.9, r, 0.5, r).targets,
    lambda r: EpsilonGreedy(r.T, 0.5 + 0 * r[0]).sample(jax.random.key(0)),
):
    expected = jax.jit(call)(x)
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(jax.jit(call)(placed), expected, rtol=1e-6)
"""


def test_on_several_devices_a_constant_may_stand_beside_what_is_sharded():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    command = [sys.executable, "-c", SHARDED]
    subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags})


@for_each("function", ALONG_TIME)
def test_a_number_stands_for_the_same_at_every_step(function):
    arguments = ALONG_TIME[function](X)
    names = list(function.__annotations__)
    full = [
        np.full(B if name == "bootstrap_value" else (T, B), x, np.float32) if np.ndim(x) == 0 else x
        for name, x in zip(names, arguments, strict=False)
    ]
    chex.assert_trees_all_equal(function(*arguments), function(*full))


def test_lists_and_whole_numbers_are_taken_where_a_person_writes_them():
    returns = n_step_returns([0.0, 0.0, 1.0], 1, 0)
    np.testing.assert_array_equal(returns, np.ones(3))
    losses = value_loss([1.0, 2.0], [3.0, 2.0])
    np.testing.assert_array_equal(losses, [2.0, 0.0])


@for_each("function", ALONG_TIME)
def test_numbers_of_pythons_do_not_make_float64_of_float32(function):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for call in (function, jax.jit(function)):
            results = jax.tree.leaves(call(*ALONG_TIME[function](X)))
            assert {x.dtype for x in results} == {jnp.dtype(jnp.float32)}
            results = jax.tree.leaves(call(*ALONG_TIME[function](X.astype(np.float64))))
            assert {x.dtype for x in results} == {jnp.dtype(jnp.float64)}


@for_each("function", ALONG_TIME)
def test_vmap_and_scan_give_what_calls_one_by_one_do(function):
    xs = np.stack([X, X + 1])

    def call(x):
        return function(*ALONG_TIME[function](x))

    expected = jax.tree.map(lambda *x: jnp.stack(x), *map(call, xs))
    chex.assert_trees_all_close(jax.vmap(call)(xs), expected, rtol=1e-5, atol=1e-6)
    scanned = jax.lax.scan(lambda _, x: (None, call(x)), None, xs)[1]
    chex.assert_trees_all_close(scanned, expected, rtol=1e-5, atol=1e-6)


def total_loss(logits):
    policy = Categorical(logits)
    options = {"advantages": X, "weights": np.abs(X), "normalize_advantages": True}
    loss, _ = actor_critic_loss(policy, jnp.mean(logits, axis=-1), ACTIONS, X, **options)
    log_probs = policy.log_prob(ACTIONS)
    surrogate = clipped_surrogate_loss(log_probs, Categorical(Q).log_prob(ACTIONS) - 0.05, X)
    return loss + jnp.sum(surrogate) + jnp.sum(q_loss(logits, ACTIONS, X, huber_delta=100.0))


def test_hessian_vector_products_are_differences_of_gradients():
    direction = np.random.default_rng(2).normal(size=Q.shape).astype(np.float32)
    gradient = jax.jit(jax.grad(total_loss))
    _, forward = jax.jvp(gradient, (Q,), (direction,))
    backward = jax.jit(jax.grad(lambda q: jnp.vdot(jax.grad(total_loss)(q), direction)))(Q)
    differences = (gradient(Q + 1e-2 * direction) - gradient(Q - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(forward, backward, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(forward, differences, rtol=2e-2, atol=2e-3)


def a3c(logits, values, actions, returns, **options):
    return actor_critic_loss(Categorical(logits), values, actions, returns, **options)


EMPTY, NOBODY = X[:0], X[:, :0]
REFUSALS = [
    (lambda: n_step_returns(X, X[0], 0.0), "discounts has shape (3,), rewards (4, 3)"),
    (lambda: n_step_returns(X, X[:, :1], 0.0), "discounts has shape (4, 1), rewards (4, 3)"),
    (lambda: n_step_returns(X, X, LAST[:1]), "bootstrap_value has shape (1,), rewards (4, 3)"),
    (lambda: n_step_returns(X, X, X), "bootstrap_value has shape (4, 3), rewards (4, 3)"),
    (lambda: n_step_returns(LAST, 0.9, LAST), "bootstrap_value has shape (3,), rewards (3,)"),
    (lambda: n_step_returns(1.0, 0.9, 0.0), "rewards has shape ()"),
    (lambda: n_step_returns(EMPTY, 0.9, 0.0), "rewards has shape (0, 3)"),
    (lambda: lambda_returns(NOBODY, 0.9, NOBODY), "rewards has shape (4, 0)"),
    (lambda: lambda_returns(X, 0.9, LAST), "next_values has shape (3,), rewards (4, 3)"),
    (lambda: lambda_returns(X, X[:3], X), "discounts has shape (3, 3), rewards (4, 3)"),
    (lambda: lambda_returns(EMPTY, 0.9, EMPTY), "rewards has shape (0, 3)"),
    (lambda: lambda_returns(X, 0.9, X, LAST), "lambda_ has shape (3,), rewards (4, 3)"),
    (lambda: lambda_returns(X, 0.9, X, X[:, :1]), "lambda_ has shape (4, 1), rewards (4, 3)"),
    (lambda: gae_advantages(X, 0.9, LAST, 0.0), "values has shape (3,), rewards (4, 3)"),
    (lambda: gae_advantages(EMPTY, 0.9, EMPTY, 0.0), "rewards has shape (0, 3)"),
    (lambda: vtrace_targets(X, 0.9, X, LAST, LAST), "log_rhos has shape (3,), rewards (4, 3)"),
    *(
        (
            lambda name=name: vtrace_targets(X, 0.9, X, LAST, X, **{name: np.ones(5)}),
            f"{name} has shape (5,), rewards (4, 3)",
        )
        for name in ("clip_rho", "clip_c", "clip_pg_rho")
    ),
    (lambda: one_step_q_targets(X, X[:1], Q), "discounts has shape (1, 3), rewards (4, 3)"),
    (lambda: one_step_q_targets(X, 0.9, X), "next_q_values has shape (4, 3), rewards (4, 3)"),
    (lambda: one_step_q_targets(X, 0.9, Q[:, :1]), "next_q_values has shape (4, 1, 2), rewards"),
    (
        lambda: one_step_sarsa_targets(X, 0.9, Q[:1], ACTIONS),
        "next_q_values has shape (1, 3, 2), rewards (4, 3)",
    ),
    (
        lambda: one_step_sarsa_targets(X, 0.9, Q, ACTIONS[0]),
        "next_actions has shape (3,), rewards (4, 3)",
    ),
    (
        lambda: double_q_targets(X, 0.9, Q, Q[:1]),
        "selector_q_values has shape (1, 3, 2), next_q_values (4, 3, 2)",
    ),
    (lambda: policy_gradient_loss(X, LAST), "advantages has shape (3,), log_probs (4, 3)"),
    (lambda: policy_gradient_loss(X, X[:, :1]), "advantages has shape (4, 1), log_probs (4, 3)"),
    (lambda: policy_gradient_loss(X, ACTIONS), "advantages must be floating point, got int32"),
    (lambda: value_loss(X, X[:, :1]), "returns has shape (4, 1), values (4, 3)"),
    (lambda: value_loss(ACTIONS, X), "values must be floating point, got int32"),
    (lambda: entropy_loss(ACTIONS), "entropies must be floating point, got int32"),
    (
        lambda: clipped_surrogate_loss(X, LAST, X),
        "old_log_probs has shape (3,), log_probs (4, 3)",
    ),
    (
        lambda: clipped_surrogate_loss(X[:, :1], X[:, :1], X[:, :1], clip=np.ones(5)),
        "clip has shape (5,), log_probs (4, 1)",
    ),
    (lambda: q_loss(X, ACTIONS, X), "q_values has shape (4, 3), actions (4, 3)"),
    (lambda: q_loss(Q, ACTIONS[:, :1], X), "targets has shape (4, 3), actions (4, 1)"),
    (lambda: q_loss(Q[:, :1], ACTIONS, X), "q_values has shape (4, 1, 2), actions (4, 3)"),
    (
        lambda: q_loss(Q, ACTIONS, X, huber_delta=np.ones(5)),
        "huber_delta has shape (5,), ",
    ),
    (lambda: a3c(Q, X, ACTIONS, LAST), "returns has shape (3,), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS, X, mask=LAST), "mask has shape (3,), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS, X, weights=LAST), "weights has shape (3,), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS, X, advantages=LAST), "advantages has shape (3,), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS[0], X), "actions has shape (3,), values (4, 3)"),
    (lambda: a3c(Q, X[:, :1], ACTIONS, X), "returns has shape (4, 3), values (4, 1)"),
    (lambda: a3c(Q, X, ACTIONS, X[:, :1]), "returns has shape (4, 1), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS[:, :1], X), "actions has shape (4, 1), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS, X, mask=X[:, :1]), "mask has shape (4, 1), values (4, 3)"),
    (lambda: a3c(Q, X, ACTIONS, X, entropy_cost=LAST), "entropy_cost has shape (3,), "),
    (lambda: a3c(Q, X, ACTIONS, X, value_cost=X[:, :1]), "value_cost has shape (4, 1), "),
    (lambda: a3c(Q, X, ACTIONS, ACTIONS), "returns must be floating point, got int32"),
    (lambda: actor_critic_loss(Categorical, X, ACTIONS, X), ""),
    (lambda: a3c(Q[:0], EMPTY, ACTIONS[:0], EMPTY), "values has shape (0, 3)"),
    (lambda: a3c(Q[:, :0], NOBODY, ACTIONS[:, :0], NOBODY), "values has shape (4, 0)"),
    (lambda: value_loss(X, ACTIONS), "returns must be floating point, got int32"),
    (lambda: n_step_returns(X, X > 0, 0.0), "discounts must be floating point, got bool"),
    (lambda: q_loss(Q, X, X), "actions must be integers, got float32"),
    (lambda: n_step_returns(X, X, None), "bootstrap_value must be an array, got NoneType"),
    (lambda: actor_critic_loss(Categorical(Q), X, ACTIONS, X, value_cost=None), "value_cost must"),
    (lambda: lambda_returns(X, X, X, None), "lambda_ must be an array, got NoneType"),
    (lambda: vtrace_targets(X, X, X, 0.0, X, clip_rho="x"), "clip_rho must be an array, got str"),
    (lambda: n_step_returns([[1.0], [1.0, 2.0]], 0.9, 0.0), "rewards must be an array, got list"),
    (lambda: actor_critic_loss(Q, X, ACTIONS, X), "distribution must have log_prob"),
    (lambda: a3c(Q[:, 0], X, ACTIONS, X), "actions has shape (4, 3), logits (4, 2)"),
    (lambda: a3c(Q, X, X, X), "actions must be integers, got float32"),
    (lambda: Categorical(Q).masked(X > 0), "mask has shape (4, 3), logits (4, 3, 2)"),
    (lambda: Categorical(Q).masked(Q), "mask must be bools"),
    (lambda: Categorical(Q).kl_divergence(Categorical(X)), "logits has shape (4, 3), that of self"),
    (lambda: DiagonalGaussian(Q, X).entropy(), "variance has shape (4, 3), mean (4, 3, 2)"),
    (lambda: DiagonalGaussian(Q, Q**2).log_prob(X), "actions has shape (4, 3), mean (4, 3, 2)"),
    (lambda: DiagonalGaussian(0.0, 1.0).log_prob(0.0), "mean has shape (): it must be [..., D]"),
    (lambda: SquashedGaussian(0.0, 1.0).entropy(), "mean has shape (): it must be [..., D]"),
    (lambda: Categorical(Q[..., :0]).mode(), "logits has shape (4, 3, 0): it must be [..., A]"),
    (lambda: q_loss(Q[..., :0], ACTIONS, X), "q_values has shape (4, 3, 0), actions (4, 3)"),
    (lambda: Categorical(LAST[0]).mode(), "logits has shape (): it must be [..., A]"),
    (
        lambda: Categorical(LAST[0]).kl_divergence(Categorical(LAST[0])),
        "logits has shape (): it must be [..., A]",
    ),
    (lambda: MultiCategorical(LAST).entropy(), "logits has shape (3,): it must be [..., K, M]"),
    (
        lambda: EpsilonGreedy(np.float32(0), 0.1).mode(),
        "q_values has shape (): it must be [..., A]",
    ),
]


@for_each(("call", "message"), REFUSALS)
def test_refusals_name_the_argument_and_both_shapes(call, message):
    with pytest.raises(AssertionError) as refusal:
        call()
    assert str(refusal.value).startswith(message)
