"""Asynchronous advantage actor-critic: algorithm S3 of Mnih et al. 2016.

The paper's lines                                  here
  perform aₜ according to policy π(aₜ|sₜ; θ′)        `look`, which updates.py samples
  R ← 0 for terminal s_t, V(s_t, θ′_v) otherwise    discounts, the last value in `loss`
  R ← rᵢ + γR                                       `episode_returns` with λ = 1
  dθ ← dθ + ∇ log π(aᵢ|sᵢ; θ′)(R − V(sᵢ; θ′_v))     `actor_critic_loss`, whose gradient is
  dθ_v ← dθ_v + ∂(R − V(sᵢ; θ′_v))²/∂θ′_v           minus the first and plus the second
"""

import jax

from a3cjax.agents.base import (
    Agent,
    allow,
    evaluate,
    in_units_of_rewards,
    look_once,
    make_observe,
)
from a3cjax.agents.experience import clean, episode_returns, find_experience
from a3cjax.losses import actor_critic_loss
from a3cjax.networks import Network


def make_a3c(
    network: Network,
    *,
    lambda_: float = 1.0,
    value_cost: float = 0.5,
    entropy_cost: float = 0.01,
    max_abs_reward: float | None = None,
    bootstraps: bool = True,
    normalize_advantages: bool = False,
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
      normalize_advantages: as for `actor_critic_loss`.
    """

    def look(params, constants, *inputs):
        output, core_state = look_once(network, params, constants, *inputs)
        values = in_units_of_rewards(output.values, constants)
        return output._replace(values=values), core_state

    def loss(params, constants, trajectory):
        output = evaluate(network, params, constants, trajectory)
        is_experience, continues = find_experience(trajectory)
        returns = episode_returns(
            clean(trajectory, is_experience, max_abs_reward, constants.reward_scale),
            jax.lax.stop_gradient(output.values[1:]),
            continues,
            lambda_,
            bootstraps=bootstraps,
        )
        return actor_critic_loss(
            jax.tree.map(lambda x: x[:-1], allow(output.policy, trajectory.action_masks)),
            output.values[:-1],
            trajectory.actions,
            returns,
            value_cost=value_cost,
            entropy_cost=entropy_cost * constants.exploration.entropy_factor,
            mask=is_experience,
            normalize_advantages=normalize_advantages,
        )

    observe = make_observe(network)
    return Agent(network.init, network.initial_state, look, loss, observe=observe)
