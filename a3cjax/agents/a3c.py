"""Asynchronous advantage actor-critic: algorithm S3 of Mnih et al. 2016.

The paper's lines                                  here
  perform aₜ according to policy π(aₜ|sₜ; θ′)        `look`, which updates.py samples
  R ← 0 for terminal s_t, V(s_t, θ′_v) otherwise    discounts, the last of `values`
  R ← rᵢ + γR                                       `episode_returns` with λ = 1
  dθ ← dθ + ∇ log π(aᵢ|sᵢ; θ′)(R − V(sᵢ; θ′_v))     `actor_critic_loss`, whose gradient is
  dθ_v ← dθ_v + ∂(R − V(sᵢ; θ′_v))²/∂θ′_v           minus the first and plus the second

`look`, and the loss around the returns, are in actor_critic.py.
"""

from a3cjax.agents.actor_critic import Targets, make_actor_critic
from a3cjax.agents.base import Agent
from a3cjax.agents.experience import episode_returns
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
    """Build A3C around a network.

    Args:
      network: policy and value function.
      lambda_: mixes n-step returns of all lengths; 1, as in the paper, looks as far ahead as
        the unroll goes.
      value_cost: weight of ½(R − V)².
      entropy_cost: β, weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      bootstraps: False for REINFORCE with a baseline (Williams 1992), which the paper uses in
        MuJoCo: returns are sums of rewards to the episode's end, whatever `lambda_` says.
      normalize_advantages: as for `actor_critic_loss`.
    """

    def targets(trajectory, values, log_rhos, continues):
        del log_rhos  # one policy acts and learns
        next_values = values[1:]
        return Targets(
            episode_returns(trajectory, next_values, continues, lambda_, bootstraps=bootstraps)
        )

    return make_actor_critic(
        network,
        targets,
        value_cost=value_cost,
        entropy_cost=entropy_cost,
        max_abs_reward=max_abs_reward,
        normalize_advantages=normalize_advantages,
    )
