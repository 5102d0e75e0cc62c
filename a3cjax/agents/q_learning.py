"""What the three Q methods have in common: acting ε-greedily, and a loss around their targets.

A method gives `targets(trajectory, next_q_values, continues)`, the yₜ of its box in Mnih et
al. 2016: from rewards, discounts and Q(sₜ₊₁, ·; θ⁻).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from a3cjax.agents.base import Agent
from a3cjax.agents.experience import blank_resets, clip_rewards, find_experience
from a3cjax.distributions import EpsilonGreedy
from a3cjax.losses import q_loss
from a3cjax.networks import Network
from a3cjax.types import NetworkOutput, QMetrics, Trajectory

Targets = Callable[[Trajectory, jax.Array, jax.Array], jax.Array]


def make_q_agent(
    network: Network,
    targets: Targets,
    *,
    max_abs_reward: float | None,
    acts_ahead: bool = False,
) -> Agent:
    """Builds an agent that acts ε-greedily and fits Q(s, a; θ) to targets.

    Args:
      network: action values, `[T, B, A]`.
      targets: float `[T, B]` from a trajectory (its rewards clipped, if so), float
        `[T, B, A]` Q(sₜ₊₁, ·; θ⁻), and bool `[T, B]` that is False where an episode ended.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      acts_ahead: whether the targets need the action at the last observation.

    Returns:
      The algorithm as pure functions.
    """

    def look(params, constants, timestep, core_state):
        """An ε-greedy policy in Q(s, ·), and maxₐ Q(s, a)."""
        q_values, core_state = network.apply(
            params,
            constants.statistics,
            timestep.observation[None],
            timestep.is_first[None],
            core_state,
        )
        policy = EpsilonGreedy(q_values[0], constants.exploration.epsilons)
        return NetworkOutput(policy, jnp.max(q_values[0], axis=-1)), core_state

    def act_greedily(params, constants, timestep, core_state):
        output, core_state = look(params, constants, timestep, core_state)
        return output.policy.mode(), core_state

    def act(params, constants, timestep, core_state, key):
        output, core_state = look(params, constants, timestep, core_state)
        key, subkey = jax.random.split(key)
        return output.policy.sample(subkey), core_state, key

    def loss(params, constants, trajectory):
        def unroll(params):
            q_values, _ = network.apply(
                params,
                constants.statistics,
                trajectory.observations,
                trajectory.is_first,
                trajectory.core_state,
            )
            return q_values

        is_experience, continues = find_experience(trajectory)
        blanked = blank_resets(trajectory, is_experience)
        clipped = blanked._replace(rewards=clip_rewards(blanked.rewards, max_abs_reward))
        q_values = unroll(params)[:-1]
        y = targets(clipped, unroll(constants.target_params)[1:], continues)
        actions = jnp.asarray(trajectory.actions)[: len(y)]
        # Sum over time and mean over the batch, as in `actor_critic_loss`.
        losses = jnp.where(is_experience, q_loss(q_values, actions, y), 0.0)
        num_kept = jnp.maximum(jnp.sum(is_experience), 1)
        q_taken = jnp.take_along_axis(q_values, actions[..., None], axis=-1)[..., 0]
        metrics = QMetrics(
            value_loss=jnp.sum(losses) / num_kept,
            q_value=jnp.sum(jnp.where(is_experience, q_taken, 0.0)) / num_kept,
            epsilon=jnp.mean(constants.exploration.epsilons),
        )
        return jnp.mean(jnp.sum(losses, axis=0)), metrics

    return Agent(
        init=network.init,
        initial_state=network.initial_state,
        act=act,
        act_greedily=act_greedily,
        loss=loss,
        look=look,
        acts_ahead=acts_ahead,
    )
