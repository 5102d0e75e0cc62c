"""The laws of networks: architecture, centring, and recurrent cores that reset."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a3cjax.convolutions import frames_to_blocks
from a3cjax.distributions import DiagonalGaussian, MultiCategorical, SquashedGaussian
from a3cjax.networks import HEADS, NETWORK_NAMES, make_network
from a3cjax.torsos import NATURE_LAYERS, PAPER_LAYERS
from a3cjax.types import ObservationStatistics
from tests.cases import for_each
from tests.tabular import random_params

T, B, A = 5, 3, 4
SCALE = np.array(37.0, np.float32)
CORES = ["ff", "gru", "lstm"]
RECURRENT = ["mlp_gru", "mlp_lstm"]
GAUSSIAN = "gaussian_actor_critic"
# Networks that go through time: all cores, and two cores at once.
THROUGH_TIME = [*((f"mlp_{core}", "actor_critic") for core in CORES), ("mujoco_lstm", GAUSSIAN)]


def reads_images(name):
    return name.startswith(("atari", "nature", "small", "minatar"))


def random_vectors(seed=0, num_steps=T):
    return np.random.default_rng(seed).normal(size=(num_steps, B, 6)).astype(np.float32)


def random_frames(seed=0, size=36, channels=2):
    """Bytes `[T·B, C, size, size]` as an environment stacks them."""
    shape = (T * B, channels, size, size)
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def as_observations(frames):
    """Frames as blocks `[T, B, rows, columns, C·16]`."""
    return frames_to_blocks(frames).reshape(T, B, frames.shape[2] // 4, frames.shape[3] // 4, -1)


@functools.cache
def make(name, head="actor_critic"):
    """Observations; a network of A actions, compiled; random parameters and core state."""
    images, vectors = as_observations(random_frames()), random_vectors()
    observations = images if reads_images(name) else vectors
    if name.startswith("multi"):
        small = as_observations(random_frames(seed=1, size=8))
        observations = {"camera": images, "map": small, "vector": vectors}
    network = make_network(name, A, head, variance="shared")  # the paper's
    network = network._replace(apply=jax.jit(network.apply))
    params = random_params(network, observations)
    rng = np.random.default_rng(0)
    core_state = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(x.dtype), network.initial_state(B)
    )
    return observations, network, params, core_state


def test_names_are_all_pairs_of_torso_and_core_and_the_table():
    torsos = ("atari", "nature", "small", "minatar", "multi", "mujoco", "mlp")
    expected = {*(f"{torso}_{core}" for torso in torsos for core in CORES), "tabular"}
    assert set(NETWORK_NAMES) == expected
    assert len(NETWORK_NAMES) == len(expected)


def shapes_of(name, head, **kwargs):
    """Shapes and dtypes of a network's output and core state, and of its initial state."""
    image = jax.ShapeDtypeStruct((T, B, 21, 21, 64), jnp.uint8)
    vector = jax.ShapeDtypeStruct((T, B, 6), jnp.float32)
    several = {"camera": image, "vector": vector}
    observations = image if reads_images(name) else vector
    observations = several if name.startswith("multi") else observations
    network = make_network(name, A, head, **kwargs)

    def run(key, observations, is_first):
        params = network.init(key, jax.tree.map(lambda x: x[:1, :1], observations))
        core_state = network.initial_state(B)
        return network.apply(params, None, observations, is_first, core_state), core_state

    (output, core_state), initial_state = jax.eval_shape(
        run,
        jax.random.key(0),
        observations,
        jax.ShapeDtypeStruct((T, B), jnp.bool_),
    )
    return output, core_state, initial_state


@for_each(
    ("name", "head"),
    [
        *((name, "actor_critic") for name in NETWORK_NAMES),
        *((f"mlp_{core}", head) for core in CORES for head in HEADS[1:]),
        *((f"mujoco_{core}", GAUSSIAN) for core in CORES),
        ("tabular", "action_values"),
    ],
)
def test_shapes_and_dtypes_of_every_network(name, head):
    output, core_state, initial_state = shapes_of(name, head)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(output))
    if head == "action_values":
        assert output.shape == (T, B, A)
    elif head == "actor_critic":
        assert output.policy.logits.shape == (T, B, A)
        assert output.values.shape == (T, B)
    else:
        assert output.policy.mean.shape == (T, B, A)
        assert output.policy.variance.shape == (T, B, A)
        assert output.values.shape == (T, B)
    chex.assert_trees_all_equal_shapes_and_dtypes(core_state, initial_state)
    num_arrays = {"ff": 0, "gru": 1, "lstm": 2, "tabular": 0}[name.rpartition("_")[2]]
    core_size = 128 if name.startswith(("mujoco", "small", "minatar")) else 256
    num_cores = 2 if head.endswith(GAUSSIAN) else 1
    shapes = [x.shape for x in jax.tree.leaves(core_state)]
    assert shapes == [(B, core_size)] * (num_arrays * num_cores)


@for_each("head", HEADS)
@for_each("core", CORES[1:])
def test_initial_state_is_zeros(core, head):
    leaves = jax.tree.leaves(make_network(f"mlp_{core}", A, head).initial_state(B))
    assert leaves
    assert all(not np.any(leaf) for leaf in leaves)


def num_parameters(name, head="actor_critic", shape=(21, 21, 64)):
    network = make_network(name, 6, head, variance="shared")
    dtype = jnp.uint8 if reads_images(name) else jnp.float32
    observations = jax.ShapeDtypeStruct((1, 1, *shape), dtype)
    params = jax.eval_shape(network.init, jax.random.key(0), observations)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_number_of_parameters_is_the_papers():
    # 84×84×4, 6 actions. Convolutions 8·8·4·16 + 16 = 4112 and 4·4·16·32 + 32 = 8224 leave
    # 9×9×32 = 2592 features; then 2592·256 + 256 = 663808, heads 256·6 + 6 = 1542 and 257.
    assert num_parameters("atari_ff") == 4112 + 8224 + 663_808 + 1542 + 257
    # Convolutions 8·8·4·32 + 32 = 8224, 4·4·32·64 + 64 = 32832, 3·3·64·64 + 64 = 36928 leave
    # 7×7×64 = 3136 features; then 3136·512 + 512 = 1606144, heads 512·6 + 6 = 3078 and 513.
    assert num_parameters("nature_ff") == 8224 + 32_832 + 36_928 + 1_606_144 + 3078 + 513
    # An LSTM has four gates with 256 inputs, 256 states and a bias each.
    assert num_parameters("atari_lstm") - num_parameters("atari_ff") == 4 * 256 * (256 + 256 + 1)
    # The Q methods have no head for a value.
    assert num_parameters("atari_ff") - num_parameters("atari_ff", "action_values") == 257


def test_number_of_parameters_is_the_papers_for_continuous_actions():
    # 17 numbers, 6 dimensions: a layer of 17·200 + 200 = 3600 for the policy and another for the
    # value; the mean 200·6 + 6 = 1206, the variance and the value 201 each.
    assert num_parameters("mujoco_ff", GAUSSIAN, (17,)) == 2 * 3600 + 1206 + 2 * 201
    # An LSTM of 128 for each, with four gates of 200 inputs, 128 states and a bias.
    lstms = 2 * 4 * 128 * (200 + 128 + 1)
    heads = 128 * 6 + 6 + 2 * 129
    assert num_parameters("mujoco_lstm", GAUSSIAN, (17,)) == 2 * 3600 + lstms + heads


def slow_image_network(params, images, layers):
    """The image network by XLA's convolutions on `[N, height, width, C]` of any numbers."""
    x, torso = images, params["body"]["torso"]
    for i, (_, _, stride) in enumerate(layers):
        x = jax.lax.conv_general_dilated(
            x,
            torso[f"conv_{i}_kernel"],
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + torso[f"conv_{i}_bias"][None, None, None])

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"][None]

    x = jax.nn.relu(dense(x.reshape(x.shape[0], -1), torso["Dense_0"]))
    logits, values = dense(x, params["policy"]), dense(x, params["value"])
    return logits.reshape(T, B, A), values.reshape(T, B)


@pytest.mark.parametrize(
    ("torso", "layers", "centred"),
    [
        ("atari", PAPER_LAYERS, False),
        ("atari", PAPER_LAYERS, True),
        ("nature", NATURE_LAYERS, True),
    ],
)
def test_image_network_equals_plain_convolutions_of_centred_pixels(torso, layers, centred):
    observations, network, params, core_state = make(f"{torso}_ff")
    frames = random_frames()
    images = frames.transpose(0, 2, 3, 1).astype(np.float32)
    if centred:
        mean_frame = np.random.default_rng(1).uniform(0, 255, frames.shape[1:]).astype(np.float32)
        statistics = ObservationStatistics(frames_to_blocks(mean_frame[None])[0], SCALE)
        images = (images - mean_frame.transpose(1, 2, 0)[None]) / SCALE
    else:
        statistics, images = None, images / 255.0
    is_first = np.zeros((T, B), bool)

    @jax.jit
    def compare(params):
        output, _ = network.apply(params, statistics, observations, is_first, core_state)
        return output, slow_image_network(params, images, layers)

    output, (logits, values) = compare(params)
    np.testing.assert_allclose(output.policy.logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.values, values, rtol=1e-4, atol=1e-4)


def test_centring_inside_the_first_layer_has_the_gradients_of_centred_pixels():
    observations, network, params, core_state = make("atari_ff")
    mean = np.random.default_rng(1).uniform(0, 255, observations.shape[2:]).astype(np.float32)

    @jax.jit
    def gradient(params, statistics, observations):
        def loss(params):
            is_first = jnp.zeros((T, B), bool)
            output, _ = network.apply(params, statistics, observations, is_first, core_state)
            return jnp.mean(jnp.square(output.values - 1.0)) + jnp.mean(
                output.policy.logits[..., 0]
            )

        return jax.grad(loss)(params)

    statistics = ObservationStatistics(mean, SCALE)
    inside = gradient(params, statistics, observations)
    # Without statistics, the network divides by 255.
    centred = (observations - mean[None, None]) / SCALE * np.float32(255.0)
    outside = gradient(params, None, centred)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.max(np.abs(b)))


def test_vector_network_on_statistics_equals_it_on_centred_observations():
    observations, network, params, core_state = make("mlp_ff")
    mean = np.arange(6, dtype=np.float32)
    is_first = np.zeros((T, B), bool)
    statistics = ObservationStatistics(mean, SCALE)
    inside, _ = network.apply(params, statistics, observations, is_first, core_state)
    centred = (observations - mean[None, None]) / SCALE
    outside, _ = network.apply(params, None, centred, is_first, core_state)
    chex.assert_trees_all_close(inside, outside, rtol=1e-5, atol=1e-6)


def test_kernels_start_with_variance_one_over_inputs_and_biases_at_zero():
    # This generator compiles three times faster than the default one.
    key = jax.random.key(0, impl="rbg")
    params = jax.jit(make_network("atari_ff", A).init)(key, as_observations(random_frames()))
    # Standard error of a standard deviation from n numbers: 1/√(2n) of it, here at most 2 %.
    for name, num_inputs in [("conv_0_kernel", 8 * 8 * 2), ("conv_1_kernel", 4 * 4 * 16)]:
        deviation = np.std(params["body"]["torso"][name])
        np.testing.assert_allclose(deviation, num_inputs**-0.5, rtol=0.08)
    dense = params["body"]["torso"]["Dense_0"]
    np.testing.assert_allclose(np.std(dense["kernel"]), (3 * 3 * 32) ** -0.5, rtol=0.02)
    biases = [x for path, x in jax.tree.leaves_with_path(params) if "bias" in str(path[-1])]
    assert len(biases) == 5
    assert not any(np.any(bias) for bias in biases)


# Gaussian policies.


def test_gaussian_network_by_hand():
    # One hidden layer of ReLUs for the policy and another for the value; the mean is linear,
    # the variance log(1 + exp(·)) of a linear output.
    observations, network, params, core_state = make("mujoco_ff", GAUSSIAN)
    output, _ = network.apply(params, None, observations, np.zeros((T, B), bool), core_state)

    def dense(x, layer):
        return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    def hidden(body):
        return np.maximum(dense(observations, params[body]["torso"]["Dense_0"]), 0.0)

    mean = dense(hidden("policy_body"), params["mean"])
    variance = np.log1p(np.exp(dense(hidden("policy_body"), params["variance"])))
    np.testing.assert_allclose(output.policy.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.policy.variance, variance, rtol=1e-4)
    values = dense(hidden("value_body"), params["value"])[..., 0]
    np.testing.assert_allclose(output.values, values, rtol=1e-4, atol=1e-5)


def test_policy_and_values_of_a_gaussian_network_share_nothing():
    observations, network, params, core_state = make("mujoco_lstm", GAUSSIAN)

    @jax.jit
    def gradients(params):
        def outputs(params):
            is_first = jnp.zeros((T, B), bool)
            output, _ = network.apply(params, None, observations, is_first, core_state)
            policy = jnp.mean(output.policy.mean) + jnp.mean(output.policy.variance)
            return policy, jnp.mean(output.values)

        return jax.jacrev(outputs)(params)

    by_policy, by_values = gradients(params)

    def reached(gradient):
        return {name for name, leaves in gradient.items() if np.any(flat(leaves) != 0)}

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    assert reached(by_policy) == {"policy_body", "mean", "variance"}
    assert reached(by_values) == {"value_body", "value"}


def test_gaussian_policy_starts_around_zero_with_a_variance_of_log_2():
    # softplus(0) = log 2. Features of normal observations are of order one, √1e-4 is 0.01.
    network = make_network("mujoco_ff", A, GAUSSIAN, variance="shared")
    observations = random_vectors()
    params = jax.jit(network.init)(jax.random.key(0, impl="rbg"), observations)
    output, _ = network.apply(params, None, observations, np.zeros((T, B), bool), ((), ()))
    assert 0 < np.max(np.abs(output.policy.mean)) < 0.05
    nothing = np.zeros_like(observations)
    output, _ = network.apply(params, None, nothing, np.zeros((T, B), bool), ((), ()))
    np.testing.assert_allclose(output.policy.variance, np.log(2), rtol=1e-5)
    np.testing.assert_array_equal(output.policy.mean, np.zeros_like(output.policy.mean))


def test_free_variances_are_those_of_learned_log_deviations():
    observations, core_state = random_vectors(), ((), ())
    network = make_network("mujoco_ff", A, GAUSSIAN, variance="free")
    params = jax.tree.map(np.asarray, jax.jit(network.init)(jax.random.key(0), observations))
    first = params["log_deviations"]
    np.testing.assert_array_equal(first, np.full_like(first, -0.5))
    params["log_deviations"] = np.linspace(-0.5, 0.3, len(first), dtype=np.float32)

    def policy_of(params):
        inputs = (params, None, observations, np.zeros((T, B), bool), core_state)
        return network.apply(*inputs)[0].policy

    variance = policy_of(params).variance
    expected = np.exp(2 * params["log_deviations"]) + 1e-6
    np.testing.assert_allclose(variance, np.broadcast_to(expected, variance.shape), rtol=1e-5)
    # Of log N(0; μ, σ²) in log σ: (μ/σ)² − 1; actions of 0, and means near it.
    gradient = jax.grad(lambda params: policy_of(params).log_prob(np.zeros((T, B, A))).sum())
    by_deviations = gradient(params)["log_deviations"]
    np.testing.assert_allclose(by_deviations, np.full(len(first), -T * B), rtol=0.01)


def test_squashed_policy_has_the_parameters_of_the_plain_one():
    observations, network, params, core_state = make("mujoco_ff", GAUSSIAN)
    squashed = make_network("mujoco_ff", A, f"squashed_{GAUSSIAN}", variance="shared")
    inputs = (params, None, observations, np.zeros((T, B), bool), core_state)
    plain_output, _ = network.apply(*inputs)
    output, _ = squashed.apply(*inputs)
    assert isinstance(output.policy, SquashedGaussian)
    assert isinstance(plain_output.policy, DiagonalGaussian)
    chex.assert_trees_all_equal(tuple(output.policy), tuple(plain_output.policy))


# Several choices at once.


def test_logits_of_several_choices_are_those_of_one_layer_number_by_number():
    sizes = (1, 3)
    assert sum(sizes) == A
    observations, network, params, core_state = make("mlp_ff")
    several = make_network("mlp_ff", sizes)
    is_first = np.zeros((T, B), bool)
    single, _ = network.apply(params, None, observations, is_first, core_state)
    output, _ = several.apply(params, None, observations, is_first, core_state)
    logits, one_row = np.asarray(output.policy.logits), np.asarray(single.policy.logits)
    assert isinstance(output.policy, MultiCategorical)
    assert logits.shape == (T, B, 2, 3)
    for number, (size, begin) in enumerate(zip(sizes, (0, 1), strict=True)):
        np.testing.assert_allclose(
            logits[..., number, :size], one_row[..., begin : begin + size], rtol=1e-5, atol=1e-6
        )
        assert (logits[..., number, size:] == -np.inf).all()
    shapes = jax.eval_shape(several.init, jax.random.key(0), observations[:1, :1])
    chex.assert_trees_all_equal_shapes(shapes, params)


@for_each("head", ["action_values", GAUSSIAN])
def test_heads_of_one_choice_refuse_several(head):
    with pytest.raises(ValueError, match=f"^head must be actor_critic for several .*, got {head}"):
        make_network("mlp_ff", (2, 3), head)


# Action values.


def test_action_values_read_their_body_as_a_policy_does():
    observations, network, params, core_state = make("mlp_gru")
    is_first = np.zeros((T, B), bool)
    output, state = network.apply(params, None, observations, is_first, core_state)
    q_params = {"body": params["body"], "q": params["policy"]}
    q_network = make("mlp_gru", "action_values")[1]
    q_values, q_state = q_network.apply(q_params, None, observations, is_first, core_state)
    chex.assert_trees_all_close(q_values, output.policy.logits, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(q_state, state, rtol=1e-5, atol=1e-6)


def test_table_answers_the_row_of_a_state_and_its_gradient_touches_no_other():
    network = make_network("tabular", A, "action_values")
    table = np.random.default_rng(0).normal(size=(6, A)).astype(np.float32)
    states = np.array([[0, 5, 2], [2, 2, 4]])
    observations = np.eye(6, dtype=np.float32)[states]
    is_first = np.zeros(states.shape, bool)

    def apply(params):
        return network.apply(params, None, observations, is_first, ())[0]

    np.testing.assert_array_equal(apply({"q": {"kernel": table}}), table[states])
    gradient = jax.grad(lambda params: jnp.sum(apply(params)))({"q": {"kernel": table}})
    visits = np.bincount(states.ravel(), minlength=6).astype(np.float32)
    np.testing.assert_array_equal(gradient["q"]["kernel"], np.tile(visits[:, None], A))


def test_dueling_values_are_a_value_and_advantages_over_their_mean():
    observations, _, _, core_state = make("mlp_gru")
    network = make_network("mlp_gru", A, "action_values", dueling=True)
    params = random_params(network, observations)
    assert set(params) == {"body", "value", "advantage"}
    is_first = np.zeros((T, B), bool)
    q_values, _ = network.apply(params, None, observations, is_first, core_state)
    # Heads of the same body as a policy and a value, which are known to read it rightly.
    heads = {"policy": params["advantage"], "value": params["value"], "body": params["body"]}
    output, _ = make("mlp_gru")[1].apply(heads, None, observations, is_first, core_state)
    advantages, values = output.policy.logits, output.values[..., None]
    expected = values + advantages - np.mean(advantages, axis=-1, keepdims=True)
    np.testing.assert_allclose(q_values, expected, rtol=1e-5, atol=1e-5)
    # The value is the mean of all, and advantages that are shifted are the same.
    np.testing.assert_allclose(np.mean(q_values, axis=-1), output.values, rtol=1e-4, atol=1e-5)


# What is refused.


@for_each(
    ("arguments", "rule"),
    [
        ({"name": "rnn"}, f"network must be one of {', '.join(NETWORK_NAMES)}, got rnn."),
        ({"head": "dueling"}, f"head must be one of {', '.join(HEADS)}, got dueling."),
        *(
            ({"num_actions": n}, "num_actions must be a whole number >= 1, or a tuple of some")
            for n in (0, -2, 2.0, True, "4", (), (2, 0), (2, -1), None)
        ),
        ({"variance": "fre"}, "variance must be one of free, each, shared, got fre."),
        *(
            ({"name": "tabular", "head": f"{kind}{GAUSSIAN}"}, "head must be actor_critic or act")
            for kind in ("", "squashed_")
        ),
        ({"dueling": True}, "dueling must be False for head actor_critic, got True."),
        (
            {"name": "tabular", "head": "action_values", "dueling": True},
            "dueling must be False for a table, got True.",
        ),
        ({"torso": dict}, "torso must be a flax.linen Module, got <class 'dict'>."),
    ],
)
def test_arguments_that_make_no_network_are_refused_by_name(arguments, rule):
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}"):
        make_network(**{"name": "mlp_ff", "num_actions": A, **arguments})


def test_numbers_of_actions_may_be_numpys():
    for num_actions in (np.int64(A), (np.int32(1), np.int64(3))):
        make_network("mlp_ff", num_actions).init(jax.random.key(0), random_vectors()[:1, :1])


@for_each("name", ["atari_ff", "nature_lstm", "minatar_ff", "multi_ff"])
def test_frames_in_place_of_blocks_are_refused(name):
    frames = np.zeros((1, 1, 84, 84, 4), np.uint8)
    observations = {"camera": frames, "vector": np.zeros((1, 1, 2), np.float32)}
    rule = r"^observations must be images as blocks, .*frames_to_blocks .*, got \(1, 84, 84, 4\)\."
    with pytest.raises(AssertionError, match=rule):
        make_network(name, A).init(
            jax.random.key(0), observations if name == "multi_ff" else frames
        )


# Derivatives of every order.


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("atari_lstm", "actor_critic"),
        ("nature_ff", "actor_critic"),
        ("minatar_gru", "action_values"),
        ("multi_ff", "actor_critic"),
        ("mujoco_ff", GAUSSIAN),
    ],
)
def test_every_torso_and_core_has_jvps_and_hessian_vector_products(name, head):
    observations, network, params, core_state = make(name, head)
    is_first = np.zeros((T, B), bool)
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)

    def loss(params):
        output, _ = network.apply(params, None, observations, is_first, core_state)
        return sum(jnp.mean(jnp.sin(leaf)) for leaf in jax.tree.leaves(output))

    def inner(one, other):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, one, other)))

    @jax.jit
    def derivatives(params):
        gradient, product = jax.jvp(jax.grad(loss), (params,), (direction,))
        slope = jax.jvp(loss, (params,), (direction,))[1]
        # Reverse over forward is another way to the same: ∇(∇f · v) = Hv.
        backwards = jax.grad(lambda x: jax.jvp(loss, (x,), (direction,))[1])(params)
        return slope, inner(gradient, direction), product, backwards

    slope, expected, product, backwards = derivatives(params)
    assert slope != 0
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-5)
    for a, b in zip(jax.tree.leaves(product), jax.tree.leaves(backwards), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.max(np.abs(b)) + 1e-7)


# Time.


@pytest.mark.parametrize(("name", "head"), THROUGH_TIME)
def test_unroll_equals_single_steps_with_resets_in_the_middle(name, head):
    observations, network, params, core_state = make(name, head)
    is_first = np.zeros((T, B), bool)
    is_first[2, 0] = is_first[0, 1] = is_first[3, 1] = True  # the third runs through
    output, state_after = network.apply(params, None, observations, is_first, core_state)
    state, outputs = core_state, []
    for t in range(T):
        output_t, state = network.apply(
            params, None, observations[t : t + 1], is_first[t : t + 1], state
        )
        outputs.append(output_t)
    stepwise = jax.tree.map(lambda *x: np.concatenate(x), *outputs)
    chex.assert_trees_all_close(output, stepwise, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(state_after, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "head"), THROUGH_TIME[1:])
def test_reset_starts_from_the_initial_state_and_forgets_the_past(name, head):
    observations, network, params, core_state = make(name, head)
    is_first = np.zeros((T, B), bool)
    is_first[2, 0] = True
    output, state_after = network.apply(params, None, observations, is_first, core_state)
    # Another past, for every environment: other observations and another state before them.
    other = observations.copy()
    other[:2] = random_vectors(1)[:2]
    other_start = jax.tree.map(lambda x: 1.0 - x, core_state)
    moved, moved_after = network.apply(params, None, other, is_first, other_start)
    same = jax.tree.map(lambda x: x[2:, 0], output)
    chex.assert_trees_all_equal(same, jax.tree.map(lambda x: x[2:, 0], moved))
    for a, b in zip(jax.tree.leaves(state_after), jax.tree.leaves(moved_after), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        # Without a reset, the past is felt.
        assert np.all(np.any(a[1:] != b[1:], axis=-1))
    assert np.all(output.values[2:, 1:] != moved.values[2:, 1:])
    # What follows a reset is an episode from the initial state.
    from_reset = np.roll(observations, -2, axis=0)
    never = np.zeros((T, B), bool)
    fresh, _ = network.apply(params, None, from_reset, never, network.initial_state(B))
    fresh = jax.tree.map(lambda x: x[: T - 2, 0], fresh)
    chex.assert_trees_all_close(same, fresh, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_flow_through_the_whole_unroll_and_stop_at_a_reset(name):
    observations, network, params, core_state = make(name)
    is_first = np.zeros((T, B), bool)
    is_first[2, 0] = is_first[0, 1] = True  # the third environment runs through

    @jax.jit
    @jax.grad
    def gradient_of_last_value(inputs):
        observations, core_state = inputs
        output, _ = network.apply(params, None, observations, is_first, core_state)
        return jnp.sum(output.values[-1])

    by_observations, by_state = gradient_of_last_value((observations, core_state))
    reached = np.any(np.asarray(by_observations) != 0, axis=-1)
    expected = np.ones((T, B), bool)
    expected[:2, 0] = False
    np.testing.assert_array_equal(reached, expected)
    for leaf in jax.tree.leaves(by_state):
        np.testing.assert_array_equal(np.any(np.asarray(leaf) != 0, axis=-1), [False, False, True])


def test_feed_forward_network_knows_no_past():
    observations, network, params, core_state = make("mlp_ff")
    is_first = np.zeros((T, B), bool)
    output, _ = network.apply(params, None, observations, is_first, core_state)
    backwards, _ = network.apply(params, None, observations[::-1], ~is_first, core_state)
    backwards = jax.tree.map(lambda x: x[::-1], backwards)
    chex.assert_trees_all_close(output, backwards, rtol=1e-5, atol=1e-6)


def test_same_key_gives_the_same_parameters():
    network = make_network("mlp_ff", A)
    init = jax.jit(network.init)
    first, again, other = (init(jax.random.key(seed), random_vectors()) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    assert np.any(first["policy"]["kernel"] != other["policy"]["kernel"])


@for_each("shape", [(T - 1, B), (T, 1), (T,)])
def test_is_first_of_wrong_shape_raises(shape):
    observations, network, params, core_state = make("mlp_ff")
    with pytest.raises(AssertionError):
        network.apply(params, None, observations, np.zeros(shape, bool), core_state)


@for_each("batch_size", [1, B + 1])
@for_each("name", ["mlp_gru", "mlp_lstm"])
def test_core_state_of_another_batch_raises(name, batch_size):
    observations, network, params, _ = make(name)
    core_state = network.initial_state(batch_size)
    with pytest.raises(AssertionError, match="core_state has shape"):
        network.apply(params, None, observations, np.zeros((T, B), bool), core_state)


def test_statistics_of_wrong_shape_raise():
    observations, network, params, core_state = make("atari_ff")
    mean = np.zeros(observations.shape[2:-1], np.float32)
    statistics = ObservationStatistics(mean, SCALE)
    with pytest.raises(AssertionError):
        network.apply(params, statistics, observations, np.zeros((T, B), bool), core_state)


def test_vectors_are_centred_entry_by_entry_and_cut_at_ten():
    # (x − mean) / scale = (3, −2), and what random play had never seen: ±10, whatever it is.
    network = make_network("tabular", 2, "action_values")  # Q = x · kernel shows its input
    params = {"q": {"kernel": jnp.eye(2)}}
    statistics = ObservationStatistics(jnp.array([1.0, 2e9]), jnp.array([0.5, 1e9]))
    observations = np.array([[2.5, 0.0], [3e38, -3e38], [np.inf, 2e9]], np.float32)[None]
    q_values, _ = network.apply(params, statistics, observations, np.zeros((1, 3), bool), ())
    np.testing.assert_allclose(q_values[0], [[3, -2], [10, -10], [10, 0]], rtol=1e-6)


def test_single_number_is_centred_and_cut_as_a_vector_is():
    statistics = ObservationStatistics(jnp.array(1.0), jnp.array(0.5))
    network = make_network("mlp_ff", 2)
    core_state = network.initial_state(2)
    one, vector = np.array([[2.0, 3e38]], np.float32), jax.tree.map(lambda x: x[None], statistics)
    params = jax.jit(network.init)(jax.random.key(0), one[:, :1])
    is_first = np.zeros((1, 2), bool)
    chex.assert_trees_all_equal(
        network.apply(params, statistics, one, is_first, core_state),
        network.apply(params, vector, one[..., None], is_first, core_state),
    )


def test_images_are_centred_by_one_scale_and_not_cut():
    network = make_network("tabular", 2, "action_values")
    statistics = ObservationStatistics(jnp.array([1.0, 2.0]), jnp.array(0.5))
    observations = np.array([[[255, 0]]], np.uint8)
    q_values, _ = network.apply(
        {"q": {"kernel": jnp.eye(2)}}, statistics, observations, np.zeros((1, 1), bool), ()
    )
    np.testing.assert_allclose(q_values[0, 0], [508, -4])


@for_each(("name", "size", "stride"), [("minatar_ff", 3, 1), ("small_ff", 8, 4)])
def test_networks_of_small_images_convolve_whole_frames_once(name, size, stride):
    observations, network, params, core_state = make(name)
    torso = params["body"]["torso"]
    frames = np.moveaxis(random_frames(), 1, -1).astype(np.float64) / 255  # [T·B, 36, 36, 2]
    kernel, bias = torso["conv_0_kernel"], torso["conv_0_bias"]
    assert kernel.shape == (size, size, 2, 16)
    windows = np.lib.stride_tricks.sliding_window_view(frames, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride]
    features = np.maximum(np.einsum("nyxcij,ijco->nyxo", windows, kernel) + bias, 0)
    dense = torso["Dense_0"]
    features = features.reshape(T * B, -1) @ np.asarray(dense["kernel"], float) + dense["bias"]
    assert ("LayerNorm_0" in torso) == (name == "small_ff")
    if name == "small_ff":
        features -= features.mean(axis=1, keepdims=True)
        features /= np.sqrt(np.square(features).mean(axis=1, keepdims=True) + 1e-6)
        norm = torso["LayerNorm_0"]
        features = features * norm["scale"] + norm["bias"]
    head = params["value"]
    values = np.maximum(features, 0) @ np.asarray(head["kernel"], float) + head["bias"]
    output, _ = network.apply(params, None, observations, np.zeros((T, B), bool), core_state)
    np.testing.assert_allclose(output.values, values.reshape(T, B), rtol=2e-3, atol=1e-4)


def statistics_like(observations, mean, scale):
    """Of each leaf: `mean` everywhere, and `scale`, of images a scalar."""
    means = jax.tree.map(lambda x: np.full(x.shape[2:], mean, np.float32), observations)
    scales = jax.tree.map(
        lambda x: np.full(() if x.dtype == np.uint8 else x.shape[2:], scale, np.float32),
        observations,
    )
    return ObservationStatistics(means, scales)


@pytest.mark.parametrize("key", ["camera", "map", "vector"])
@pytest.mark.parametrize("name", ["multi_ff", "mlp_ff"])
def test_every_part_of_a_dict_counts_and_is_centred_by_its_own_statistics(name, key):
    observations = make("multi_ff")[0]
    if name == "mlp_ff":  # where a few numbers are lost beside many pixels
        small = as_observations(random_frames(seed=2, size=8)) // 8
        observations |= {"camera": small, "map": observations["map"] // 8}
    network = make_network(name, A)
    params = random_params(network, observations)
    apply = jax.jit(network.apply)

    def values_of(observations, statistics):
        output, _ = apply(params, statistics, observations, np.zeros((T, B), bool), ())
        return np.asarray(output.values)

    plain = statistics_like(observations, 0.0, 4.0)
    values = values_of(observations, plain)
    changed = dict(observations) | {key: observations[key][::-1].copy()}
    assert not np.allclose(values_of(changed, plain), values)
    # Twice as much, by twice the scale, is the same; and so is all moved with its mean.
    halved = dict(observations) | {key: observations[key] // 8 if key != "vector" else changed[key]}
    moved = dict(halved) | {key: halved[key] * 2 + 1}
    statistics = ObservationStatistics(
        dict(plain.mean) | {key: plain.mean[key] + 1},
        dict(plain.scale) | {key: plain.scale[key] * 2},
    )
    expected = values_of(halved, plain)
    np.testing.assert_allclose(values_of(moved, statistics), expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(values_of(moved, plain), expected, atol=1e-4)


def test_policy_and_values_of_an_actor_critic_share_all_but_their_heads():
    observations, network, params, core_state = make("mlp_ff")

    def outputs(params):
        is_first = jnp.zeros((T, B), bool)
        output, _ = network.apply(params, None, observations, is_first, core_state)
        return jnp.mean(output.policy.logits[..., 0]), jnp.mean(output.values)

    def reached(gradients):
        leaves = jax.tree.leaves_with_path(gradients)
        return {jax.tree_util.keystr(path) for path, gradient in leaves if np.any(gradient != 0)}

    by_policy, by_values = map(reached, jax.jit(jax.jacrev(outputs))(params))
    body = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)}
    body = {path for path in body if path.startswith("['body']")}
    assert by_policy == body | {"['policy']['kernel']", "['policy']['bias']"}
    assert by_values == body | {"['value']['kernel']", "['value']['bias']"}
