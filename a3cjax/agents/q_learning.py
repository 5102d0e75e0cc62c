"""What the three Q methods have in common: an ε-greedy policy, and a loss around their targets.

A method provides `targets(trajectory, next_q_values, selector_q_values, continues)`, which computes
the yₜ of its box in Mnih et al. 2016 from rewards, discounts and Q(sₜ₊₁, ·; θ⁻). The best action
there is chosen by a selector: by Q(sₜ₊₁, ·; θ⁻) itself, or in Double Q-learning by Q(sₜ₊₁, ·; θ)
(van Hasselt et al. 2016, equation 4).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from a3cjax.agents.base import Agent, evaluate, in_units_of_rewards, look_once, make_observe
from a3cjax.agents.experience import clean, find_experience
from a3cjax.distributions import EpsilonGreedy, mask_logits
from a3cjax.losses import q_loss
from a3cjax.networks import Network
from a3cjax.types import NetworkOutput, QMetrics, Trajectory, taken

MakeTargets = Callable[[Trajectory, jax.Array, jax.Array, jax.Array], jax.Array]


def make_q_agent(
    network: Network,
    targets: MakeTargets,
    *,
    max_abs_reward: float | None,
    acts_ahead: bool = False,
    double_q: bool = False,
    huber_delta: float | None = None,
) -> Agent:
    """Build an agent that acts ε-greedily and fits Q(s, a; θ) to targets.

    Args:
      network: action values, `[T, B, A]`.
      targets: makes float `[T, B]` targets from a trajectory (its rewards scaled and clipped by
        `clean`), float `[T, B, A]` Q(sₜ₊₁, ·; θ⁻) with -inf where an action is forbidden, the
        selector's action values of the same form, and bool `[T, B]` that is False where an
        episode ended.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      acts_ahead: whether the targets need the action at the last observation.
      double_q: whether the selector is Q(sₜ₊₁, ·; θ).
      huber_delta: as for `q_loss`.
    """

    def look(params, constants, timestep, *inputs):
        """An ε-greedy policy over Q(s, ·), and maxₐ Q(s, a), both among the allowed actions."""
        q_values, core_state = look_once(network, params, constants, timestep, *inputs)
        q_values = in_units_of_rewards(q_values, constants)  # which changes no action
        mask = timestep.action_mask
        policy = EpsilonGreedy(q_values, constants.exploration.epsilons, mask)
        return NetworkOutput(policy, jnp.max(mask_logits(q_values, mask), axis=-1)), core_state

    def loss(params, constants, trajectory):
        q_values = evaluate(network, params, constants, trajectory)
        # The layer outputs are those of θ: with θ⁻ there is nothing to recall.
        anew = trajectory._replace(layer_outputs=None)
        next_q_values = evaluate(network, constants.target_params, constants, anew)
        # No target may count on a forbidden action.
        next_q_values = mask_logits(next_q_values, trajectory.action_masks)[1:]
        selector_q_values = next_q_values
        if double_q:
            selector = jax.lax.stop_gradient(q_values)
            selector_q_values = mask_logits(selector, trajectory.action_masks)[1:]
        q_values = q_values[:-1]
        is_experience, continues = find_experience(trajectory)
        cleaned = clean(trajectory, is_experience, max_abs_reward, constants.reward_scale)
        y = targets(cleaned, next_q_values, selector_q_values, continues)
        actions = jnp.asarray(trajectory.actions)[: len(y)]
        # Sum over time and mean over the batch, as in `actor_critic_loss`.
        losses = q_loss(q_values, actions, y, huber_delta=huber_delta)
        losses = jnp.where(is_experience, losses, 0.0)
        num_kept = jnp.maximum(jnp.sum(is_experience), 1).astype(losses.dtype)
        q_taken = taken(q_values, actions)
        metrics = QMetrics(
            value_loss=jnp.sum(losses) / num_kept,
            q_value=jnp.sum(jnp.where(is_experience, q_taken, 0.0)) / num_kept,
            epsilon=jnp.mean(constants.exploration.epsilons),
        )
        return jnp.mean(jnp.sum(losses, axis=0)), metrics

    observe = make_observe(network)
    return Agent(network.init, network.initial_state, look, loss, acts_ahead, observe)
