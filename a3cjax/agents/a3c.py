"""Asynchronous advantage actor-critic: algorithm S3 of Mnih et al. 2016.

The paper's lines                                  here
  perform aₜ according to policy π(aₜ|sₜ; θ′)        `act`
  R ← 0 for terminal s_t, V(s_t, θ′_v) otherwise    discounts, the last value in `loss`
  R ← rᵢ + γR                                       `lambda_returns` with λ = 1
  dθ ← dθ + ∇ log π(aᵢ|sᵢ; θ′)(R − V(sᵢ; θ′_v))     `actor_critic_loss`, whose gradient is
  dθ_v ← dθ_v + ∂(R − V(sᵢ; θ′_v))²/∂θ′_v           minus the first and plus the second
"""

import jax
import jax.numpy as jnp

from a3cjax.agents.base import Agent
from a3cjax.agents.experience import blank_resets, clip_rewards, find_experience
from a3cjax.losses import actor_critic_loss
from a3cjax.networks import Network
from a3cjax.returns import lambda_returns


def make_a3c(
    network: Network,
    *,
    lambda_: float = 1.0,
    value_cost: float = 0.5,
    entropy_cost: float = 0.01,
    max_abs_reward: float | None = None,
    bootstraps: bool = True,
) -> Agent:
    """Builds A3C around a network.

    Args:
      network: policy and value function.
      lambda_: mixes n-step returns of all lengths; 1 is the paper's, which looks as far
        ahead as the unroll goes.
      value_cost: weight of ½(R − V)².
      entropy_cost: β, weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      bootstraps: False for REINFORCE with a baseline (Williams 1992), as the paper trains in
        MuJoCo: returns are sums of rewards to the episode's end, whatever `lambda_` says.

    Returns:
      The algorithm as pure functions.
    """

    def look(params, constants, timestep, core_state):
        output, core_state = network.apply(
            params,
            constants.statistics,
            timestep.observation[None],
            timestep.is_first[None],
            core_state,
        )
        return jax.tree.map(lambda x: x[0], output), core_state

    def act(params, constants, timestep, core_state, key):
        output, core_state = look(params, constants, timestep, core_state)
        key, subkey = jax.random.split(key)
        return output.policy.sample(subkey), core_state, key

    def act_greedily(params, constants, timestep, core_state):
        output, core_state = look(params, constants, timestep, core_state)
        return output.policy.mode(), core_state

    def loss(params, constants, trajectory):
        output, _ = network.apply(
            params,
            constants.statistics,
            trajectory.observations,
            trajectory.is_first,
            trajectory.core_state,
        )
        is_experience, continues = find_experience(trajectory)
        blanked = blank_resets(trajectory, is_experience)
        next_values = jax.lax.stop_gradient(output.values[1:])
        returns = lambda_returns(
            clip_rewards(blanked.rewards, max_abs_reward),
            blanked.discounts,
            next_values if bootstraps else jnp.zeros_like(next_values),
            jnp.where(continues, lambda_ if bootstraps else 1.0, 0.0),
        )
        return actor_critic_loss(
            jax.tree.map(lambda x: x[:-1], output.policy),
            output.values[:-1],
            trajectory.actions,
            returns,
            value_cost=value_cost,
            entropy_cost=entropy_cost * constants.exploration.entropy_factor,
            mask=is_experience,
        )

    return Agent(
        init=network.init,
        initial_state=network.initial_state,
        act=act,
        act_greedily=act_greedily,
        loss=loss,
        look=look,
    )
