"""Asynchronous PPO: Schulman et al. 2017, distributed as in Heess et al. 2017.

The papers' lines                                             here
  rₜ(θ) = π(aₜ|sₜ; θ) / π(aₜ|sₜ; θ_old)              (eq. 6)   `behaviour_log_probs` of θ_old
  min(rₜ Aₜ, clip(rₜ, 1 − ε, 1 + ε) Aₜ)              (eq. 7)   `clipped_surrogate_loss`
  Aₜ = δₜ + γλ δₜ₊₁ + …, δₜ = rₜ + γV(sₜ₊₁) − V(sₜ)  (eq. 11)  `episode_returns` − V(sₜ)
  L = L_clip − c₁ (V − V_targ)² + c₂ S[π]            (eq. 9)   `actor_critic_loss`
  K epochs over what was acted                       (alg. 1)  `num_passes`
  workers send gradients, a chief applies them       (Heess)   `ParameterStore.push`

Heess et al. wait for the gradients of most workers and average them, with a penalty on the KL
divergence in place of the clip; here each gradient is applied as it comes, as in A3C.

Where θ is θ_old, the gradient and the program are the same as A3C's. Elsewhere values and
advantages are computed with the newest θ, as Andrychowicz et al. 2021 (choice C5) found best, and
not with θ_old. A pass is one update from the whole unroll: there are no minibatches.
"""

from a3cjax.agents.actor_critic import Targets, make_actor_critic
from a3cjax.agents.base import Agent
from a3cjax.agents.experience import episode_returns
from a3cjax.networks import Network


def make_ppo(
    network: Network,
    *,
    lambda_: float = 1.0,
    value_cost: float = 0.5,
    entropy_cost: float = 0.01,
    max_abs_reward: float | None = None,
    bootstraps: bool = True,
    normalize_advantages: bool = False,
    clip_ratio: float = 0.2,
    num_passes: int = 2,
) -> Agent:
    """Build asynchronous PPO around a network.

    Args:
      network: policy and value function.
      lambda_: mixes n-step returns of all lengths.
      value_cost: c₁, weight of ½(R − V)².
      entropy_cost: c₂, weight of the policy's entropy.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      bootstraps: False where updates are whole episodes: returns are then sums of rewards,
        whatever `lambda_` says.
      normalize_advantages: as for `actor_critic_loss`.
      clip_ratio: ε, how far an action's probability may move from the one it was taken with.
      num_passes: K, the number of updates from each trajectory, each at the newest parameters.
    """

    def targets(trajectory, values, log_rhos, continues):
        del log_rhos  # the loss differentiates its own
        next_values = values[1:]
        return Targets(
            episode_returns(trajectory, next_values, continues, lambda_, bootstraps=bootstraps),
            old_log_probs=trajectory.behaviour_log_probs,
        )

    return make_actor_critic(
        network,
        targets,
        value_cost=value_cost,
        entropy_cost=entropy_cost,
        max_abs_reward=max_abs_reward,
        normalize_advantages=normalize_advantages,
        clip_ratio=clip_ratio,
        is_off_policy=True,
        num_passes=num_passes,
    )
