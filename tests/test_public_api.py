"""What other programs import: these names and signatures do not change unnoticed."""

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import a3cjax
from tests.cases import for_each

SIGNATURES = {
    "n_step_returns": "(rewards, discounts, bootstrap_value)",
    "lambda_returns": "(rewards, discounts, next_values, lambda_=1.0)",
    "one_step_q_targets": "(rewards, discounts, next_q_values)",
    "one_step_sarsa_targets": "(rewards, discounts, next_q_values, next_actions)",
    "double_q_targets": "(rewards, discounts, next_q_values, selector_q_values)",
    "gae_advantages": "(rewards, discounts, values, bootstrap_value, lambda_=1.0)",
    "vtrace_targets": (
        "(rewards, discounts, values, bootstrap_value, log_rhos, *, lambda_=1.0, clip_rho=1.0, "
        "clip_c=1.0, clip_pg_rho=1.0)"
    ),
    "policy_gradient_loss": "(log_probs, advantages)",
    "value_loss": "(values, returns)",
    "entropy_loss": "(entropies)",
    "q_loss": "(q_values, actions, targets, *, huber_delta=None)",
    "clipped_surrogate_loss": "(log_probs, old_log_probs, advantages, *, clip=0.2)",
    "actor_critic_loss": (
        "(distribution, values, actions, returns, *, advantages=None, weights=None, "
        "old_log_probs=None, clip=0.2, value_cost=0.5, entropy_cost=0.01, mask=None, "
        "normalize_advantages=False, entropy_floor=0.0)"
    ),
    "mask_logits": "(logits, mask)",
    "load": "(run_dir, *, best=False, trust=False, env=None, network=None)",
    "train": (
        "(config, *, env=None, env_kwargs=None, network=None, algorithm=None, callbacks=(), "
        "loggers=())"
    ),
}
OF_THE_PROGRAM = {"Config", "load", "train"}
FIELDS = {
    "Categorical": ("logits",),
    "MultiCategorical": ("logits",),
    "DiagonalGaussian": ("mean", "variance"),
    "SquashedGaussian": ("mean", "variance"),
}
# What functions answer, and what somebody who writes an agent fills or reads.
CONTAINERS = {
    "ActorCriticMetrics": ("policy_loss", "value_loss", "entropy", "explained_variance"),
    "Constants": ("statistics", "target_params", "exploration", "reward_scale"),
    "EpsilonGreedy": ("q_values", "epsilons", "mask"),
    "Exploration": ("epsilons", "entropy_factor", "target_entropy"),
    "LearnerState": ("params", "opt_state", "target_params", "seen"),
    "NetworkOutput": ("policy", "values"),
    "ObservationStatistics": ("mean", "scale"),
    "QMetrics": ("value_loss", "q_value", "epsilon"),
    "Snapshot": (
        *("version", "num_frames", "params", "statistics", "target_params", "reward_scale"),
    ),
    "TimeStep": ("observation", "reward", "discount", "is_first", "action_mask", "is_idle"),
    "Trajectory": (
        *("observations", "actions", "rewards", "discounts", "is_first", "core_state"),
        *("action_masks", "is_idle", "layer_outputs", "behaviour_log_probs"),
    ),
    "VTrace": ("targets", "advantages"),
}
PROTOCOLS = {
    "Density": {"log_prob", "entropy"},
    "Distribution": {"log_prob", "entropy", "sample", "mode", "kl_divergence"},
}
METHODS = {
    "sample": "(self, key)",
    "log_prob": "(self, actions)",
    "entropy": "(self)",
    "mode": "(self)",
    "kl_divergence": "(self, other)",
}
PURE_MODULES = {"distributions", "losses", "returns", "types"}


def signature_of(function):
    """Names, kinds and defaults, without annotations."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


def test_public_names_are_these():
    assert sorted(a3cjax.__all__) == sorted(
        [*SIGNATURES, *FIELDS, *CONTAINERS, *PROTOCOLS, "Config"]
    )


@for_each("name", SIGNATURES)
def test_signature_is_pinned(name):
    assert signature_of(getattr(a3cjax, name)) == SIGNATURES[name]


@for_each("name", FIELDS)
def test_distributions_are_named_tuples_with_pinned_methods(name):
    distribution = getattr(a3cjax, name)
    assert tuple in distribution.__bases__
    assert distribution._fields == FIELDS[name]
    methods = {method: signature_of(getattr(distribution, method)) for method in METHODS}
    assert methods == METHODS


@for_each("name", CONTAINERS)
def test_fields_of_containers_are_pinned(name):
    assert getattr(a3cjax, name)._fields == CONTAINERS[name]


@for_each("name", PROTOCOLS)
def test_methods_of_protocols_are_pinned(name):
    bases = getattr(a3cjax, name).__mro__
    members = {member for base in bases for member in vars(base) if not member.startswith("_")}
    assert members == PROTOCOLS[name]
    for distribution in FIELDS:
        assert all(hasattr(getattr(a3cjax, distribution), member) for member in members)


def modules_after(program):
    """What is imported when a program has run in a process of its own."""
    program += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return set(json.loads(output.splitlines()[-1]))


def test_losses_import_the_pure_layer_only():
    pure = [name for name in a3cjax.__all__ if name not in OF_THE_PROGRAM]
    modules = modules_after(f"from a3cjax import {', '.join(pure)}")
    packages = {module.split(".")[0] for module in modules}
    assert not packages & {"envpool", "gymnasium", "flax", "optax", "matplotlib", "yaml"}
    ours = {module for module in modules if module.startswith("a3cjax.")}
    assert ours == {f"a3cjax.{module}" for module in PURE_MODULES}


def test_training_begins_without_what_its_end_draws_with():
    modules = modules_after("import a3cjax.training, a3cjax.envs.making")
    packages = {module.split(".")[0] for module in modules}
    assert packages >= {"jax", "envpool"}
    assert not packages & {"matplotlib", "PIL", "av", "jinja2"}


def test_jumanji_is_drawn_by_matplotlib_where_pictures_are_asked_for():
    make = "make_environments('Game2048', num_envs=1, seed=1, discount=1.0, renders=True)"
    program = f"from a3cjax.envs import make_environments; picture = {make}.render()"
    modules = modules_after(f"{program}; assert picture.shape == (256, 256, 3)")
    assert "matplotlib.pyplot" in modules


def test_first_line_of_training_is_there_before_jax_is():
    assert "jax" not in modules_after("import a3cjax.commands.train")


def test_command_line_is_there_before_jax_is():
    program = "from a3cjax.commands import main; main(['--help'])"
    packages = {module.split(".")[0] for module in modules_after(program)}
    assert "a3cjax" in packages
    assert not packages & {"jax", "flax", "envpool", "gymnasium", "matplotlib"}


@for_each(
    ("face", "names"),
    [
        ("config", ("Config", "ConfigError", "load_config", "make_config", "resume_config")),
        ("training", ("Callback", "train")),
        ("envs", ("Environments", "EnvironmentSpec", "Episode", "make_environments")),
        (
            "parameters",
            ("ParameterStore", "ParametersOnDevice", "Receipt", "SharedParameters"),
        ),
    ],
)
def test_folders_hand_on_what_is_documented(face, names):
    module = importlib.import_module(f"a3cjax.{face}")
    for name in names:
        assert getattr(module, name).__name__ == name
        assert getattr(module, name).__module__.startswith("a3cjax.")


def test_names_that_are_none_are_answered_as_python_does():
    with pytest.raises(AttributeError, match=r"a3cjax.*no attribute 'n_step_return'"):
        _ = a3cjax.n_step_return
    assert set(a3cjax.__all__) <= set(dir(a3cjax))


@for_each("name", sorted(OF_THE_PROGRAM))
def test_what_needs_an_extra_says_which(name, monkeypatch):
    error = ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium")

    def import_module(_):
        raise error

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.delitem(vars(a3cjax), name, raising=False)  # left there by another patch
    with pytest.raises(ModuleNotFoundError) as raised:
        getattr(a3cjax, name)
    assert raised.value.__notes__[-1].startswith(
        f"a3cjax {name} needs gymnasium, which comes with the extra train: "
    )
