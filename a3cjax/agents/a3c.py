"""Asynchronous advantage actor-critic: algorithm S3 of Mnih et al. 2016.

The box in the paper, and where its lines are here:

  get state s_t; reset gradients; θ′ ← θ          ActorLearner.run (snapshot)
  perform a_t according to policy π(a_t|s_t; θ′)  act
  R ← 0 or V(s_t; θ′)                             loss: discounts and the last value
  R ← r_i + γR                                    loss: lambda_returns
  dθ ← dθ + ∇ log π(a_i|s_i; θ′)(R − V)           loss: actor_critic_loss
  dθ_v ← dθ_v + ∂(R − V(s_i))²/∂θ_v               loss: actor_critic_loss
  asynchronous update of θ and θ_v                SharedParameters.push
"""

import chex
import jax
import jax.numpy as jnp

from a3cjax.agents.base import Agent
from a3cjax.distributions import Categorical
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
) -> Agent:
    """Builds A3C around a network.

    Args:
      network: policy and value function.
      lambda_: mixes n-step returns of all lengths; 1 is the paper's, which looks as far
        ahead as the unroll goes.
      value_cost: weight of ½(R − V)².
      entropy_cost: β, weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.

    Returns:
      The algorithm as pure functions.
    """

    def apply_to_batch(params, statistics, timestep, core_state):
        observations, is_first = timestep.observation[None], timestep.is_first[None]
        output, core_state = network.apply(params, statistics, observations, is_first, core_state)
        return Categorical(output.logits[0]), core_state

    def act(params, statistics, timestep, core_state, key):
        policy, core_state = apply_to_batch(params, statistics, timestep, core_state)
        key, subkey = jax.random.split(key)
        return policy.sample(subkey), core_state, key

    def act_greedily(params, statistics, timestep, core_state):
        policy, core_state = apply_to_batch(params, statistics, timestep, core_state)
        return policy.mode(), core_state

    def loss(params, statistics, trajectory):
        output, _ = network.apply(
            params,
            statistics,
            trajectory.observations,
            trajectory.is_first,
            trajectory.core_state,
        )
        chex.assert_type(trajectory.is_first, bool)
        # A transition into a first observation is the environment's automatic reset.
        is_experience = ~trajectory.is_first[1:]
        # Where the transition after this one is a reset, the episode ended here. If it
        # terminated, the discount is 0; if a time limit truncated it, the value of the true
        # last observation ends the return: λ = 0.
        continues = jnp.concatenate([is_experience[1:], jnp.ones_like(is_experience[:1])])
        rewards = trajectory.rewards
        if max_abs_reward is not None:
            rewards = jnp.clip(rewards, -max_abs_reward, max_abs_reward)
        returns = lambda_returns(
            rewards,
            trajectory.discounts,
            jax.lax.stop_gradient(output.values[1:]),
            jnp.where(continues, lambda_, 0.0),
        )
        return actor_critic_loss(
            Categorical(output.logits[:-1]),
            output.values[:-1],
            trajectory.actions,
            returns,
            value_cost=value_cost,
            entropy_cost=entropy_cost,
            mask=is_experience,
        )

    return Agent(
        init=network.init,
        initial_state=network.initial_state,
        act=act,
        act_greedily=act_greedily,
        loss=loss,
    )
