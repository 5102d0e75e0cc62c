"""What the actor-critics have in common: a policy to act with, and one loss around their targets.

A method provides `targets(trajectory, values, log_rhos, continues)`, from which the policy and the
values learn.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from a3cjax.agents.base import (
    Agent,
    allow,
    evaluate,
    in_units_of_rewards,
    look_once,
    make_observe,
)
from a3cjax.agents.experience import clean, find_experience
from a3cjax.distributions import Categorical, Distribution, MultiCategorical
from a3cjax.losses import actor_critic_loss
from a3cjax.networks import Network
from a3cjax.types import Exploration, NetworkOutput, Trajectory

# As a share of a random policy's entropy: over a range of 0.2 the cost goes from double to zero.
STEERING_WIDTH = 0.1


class Targets(NamedTuple):
    """Arguments of `actor_critic_loss`, each float `[T, B]`."""

    returns: jax.Array
    advantages: jax.Array | None = None
    old_log_probs: jax.Array | None = None


MakeTargets = Callable[[Trajectory, jax.Array, jax.Array | None, jax.Array], Targets]


def make_actor_critic(
    network: Network,
    targets: MakeTargets,
    *,
    value_cost: float,
    entropy_cost: float,
    max_abs_reward: float | None,
    normalize_advantages: bool,
    clip_ratio: float = 0.2,
    is_off_policy: bool = False,
    num_passes: int = 1,
) -> Agent:
    """Build an agent that samples from its policy.

    Args:
      network: policy and value function.
      targets: makes Targets from a trajectory (its rewards scaled and clipped by `clean`), float
        `[T + 1, B]` values V(sₜ), float `[T, B]` log π(aₜ|sₜ) − log μ(aₜ|sₜ) of the policy π that
        learns and the policy μ that acted (0 where nothing was experienced; None if they are the
        same), and bool `[T, B]` that is False where an episode ended. Values and logarithms are
        constants.
      value_cost: weight of ½(R − V)².
      entropy_cost: β, weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      normalize_advantages: as for `actor_critic_loss`.
      clip_ratio: as `clip` for `actor_critic_loss`.
      is_off_policy: whether the agent learns at newer parameters than those that acted.
      num_passes: as for `Agent`.
    """

    def look(params, constants, *inputs):
        output, core_state = look_once(network, params, constants, *inputs)
        values = in_units_of_rewards(output.values, constants)
        return output._replace(values=values), core_state

    def behave(params, constants, trajectory):
        output = evaluate(network, params, constants, trajectory)
        return policy_of(output, trajectory).log_prob(trajectory.actions)

    def loss(params, constants, trajectory):
        output = evaluate(network, params, constants, trajectory)
        policy, values = policy_of(output, trajectory), jax.lax.stop_gradient(output.values)
        is_experience, continues = find_experience(trajectory)
        log_rhos, behaviour_log_probs = None, trajectory.behaviour_log_probs
        if behaviour_log_probs is not None:
            log_rhos = policy.log_prob(trajectory.actions) - behaviour_log_probs
            log_rhos = jnp.where(is_experience, jax.lax.stop_gradient(log_rhos), 0.0)
        cleaned = clean(trajectory, is_experience, max_abs_reward, constants.reward_scale)
        entropy_factor, entropy_floor = steering(policy, constants.exploration, is_experience)
        return actor_critic_loss(
            policy,
            output.values[:-1],
            trajectory.actions,
            **targets(cleaned, values, log_rhos, continues)._asdict(),
            clip=clip_ratio,
            value_cost=value_cost,
            entropy_cost=entropy_cost * entropy_factor,
            entropy_floor=entropy_floor,
            mask=is_experience,
            normalize_advantages=normalize_advantages,
        )

    return Agent(
        network.init,
        network.initial_state,
        look,
        loss,
        observe=make_observe(network),
        behave=behave if is_off_policy else None,
        num_passes=num_passes,
    )


def steering(
    policy: Distribution, exploration: Exploration, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The factor of the entropy cost, the actor's own times c(h), and the cost's floor k(h).

    Both are float scalars. h is the entropy at the steps of the mask (`[T, B]`) as a share of a
    random policy's entropy there, and h* its target: c = 1 + (h* − h) / `STEERING_WIDTH`, at least
    0 and at most 2. A cost is in units of rewards, and so is too much for one game and too little
    for another; a share is neither. k = c − 1, at least 0, is the `entropy_floor` of
    `actor_critic_loss`: a policy that has settled on never being rewarded has no advantages, and
    would get no entropy back. This is our choice and not in the paper. Without a target c is 1,
    and k is 0.

    Raises:
      AssertionError: if there is a target, and the policy is not a (Multi)Categorical.
    """
    factor, target = jnp.asarray(exploration.entropy_factor), exploration.target_entropy
    if target is None:
        return factor, jnp.zeros_like(factor)
    if not isinstance(policy, (Categorical, MultiCategorical)):
        kind = type(policy).__name__
        raise AssertionError(f"target_entropy must be null for a policy that is a {kind}.")
    random = policy._replace(logits=jnp.where(jnp.isneginf(policy.logits), -jnp.inf, 0.0))
    # Replaced, not multiplied by 0: steps that nobody experienced may be NaN.
    entropy, greatest = (jnp.sum(jnp.where(mask, p.entropy(), 0.0)) for p in (policy, random))
    share = jax.lax.stop_gradient(entropy) / jnp.where(greatest == 0, 1.0, greatest)
    cost = jnp.clip(1 + (target - share) / STEERING_WIDTH, 0.0, 2.0)
    return factor * cost, jnp.maximum(cost - 1, 0.0)


def policy_of(output: NetworkOutput, trajectory: Trajectory):
    """The policy at the T observations where actions were taken, among the allowed actions."""
    return jax.tree.map(lambda x: x[:-1], allow(output.policy, trajectory.action_masks))
