"""Asynchronous actor-critic with V-trace: Espeholt et al. 2018 (IMPALA).

The paper's lines                                                       here
  ρₜ = min(ρ̄, π(aₜ|sₜ)/μ(aₜ|sₜ)), cₜ = λ min(c̄, π/μ)     (sec. 4.1)   `log_rhos`, ρ̄ = c̄ = 1
  vₜ = V(sₜ) + ρₜ δₜV + γ cₜ (vₜ₊₁ − V(sₜ₊₁))            (remark 1)   targets of `vtrace_targets`
  ρₜ ∇ log π(aₜ|sₜ)(rₜ + γ vₜ₊₁ − V(sₜ))                 (sec. 4.2)   its advantages, weighted by ρₜ
  (vₜ − V(sₜ)) ∇ V(sₜ), and the entropy's gradient       (sec. 4.2)   `actor_critic_loss`

IMPALA's actors send their trajectories to one learner. Here each actor-learner learns from its own
trajectories, at the newest parameters (π), which others have changed while it acted, and corrects
for the parameters with which it acted (μ). Where both are the same, this is A3C.
"""

import jax.numpy as jnp

from a3cjax.agents.actor_critic import Targets, make_actor_critic
from a3cjax.agents.base import Agent
from a3cjax.agents.experience import episode_lambdas, episode_returns
from a3cjax.networks import Network
from a3cjax.returns import vtrace_targets


def make_vtrace(
    network: Network,
    *,
    lambda_: float = 1.0,
    value_cost: float = 0.5,
    entropy_cost: float = 0.01,
    max_abs_reward: float | None = None,
    bootstraps: bool = True,
    normalize_advantages: bool = False,
    num_passes: int = 1,
) -> Agent:
    """Build, around a network, an actor-critic that corrects for stale parameters.

    Args:
      network: policy and value function.
      lambda_: mixes n-step targets of all lengths (remark 2); 1 is the paper's.
      value_cost: weight of ½(v − V)².
      entropy_cost: weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      bootstraps: False where updates are whole episodes: nothing is bootstrapped at their ends,
        and λ is 1, whatever `lambda_` says.
      normalize_advantages: as for `actor_critic_loss`, for the advantages weighted by ρₜ.
      num_passes: the number of updates from each trajectory, each at the newest parameters.
    """

    def targets(trajectory, values, log_rhos, continues):
        if log_rhos is None:
            returns = episode_returns(
                trajectory, values[1:], continues, lambda_, bootstraps=bootstraps
            )
            return Targets(returns)
        discounts, bootstrap_value = trajectory.discounts, values[-1]
        if not bootstraps:
            discounts = jnp.where(continues, discounts, 0.0)
            bootstrap_value = jnp.zeros_like(bootstrap_value)
        corrected = vtrace_targets(
            trajectory.rewards,
            discounts,
            values[:-1],
            bootstrap_value,
            log_rhos,
            lambda_=episode_lambdas(trajectory, continues, lambda_ if bootstraps else 1.0),
        )
        return Targets(corrected.targets, corrected.advantages)

    return make_actor_critic(
        network,
        targets,
        value_cost=value_cost,
        entropy_cost=entropy_cost,
        max_abs_reward=max_abs_reward,
        normalize_advantages=normalize_advantages,
        is_off_policy=True,
        num_passes=num_passes,
    )
