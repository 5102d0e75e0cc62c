"""Asynchronous n-step Q-learning: algorithm S2 of Mnih et al. 2016.

The paper's lines                                             here
  take action aₜ according to the ε-greedy policy               `look` of q_learning.py
  R ← 0 for terminal s_t, maxₐ Q(s_t, a; θ⁻) otherwise          discounts, `next_values`
  R ← rᵢ + γR                                                  `episode_returns` with λ = 1
  dθ ← dθ + ∂(R − Q(sᵢ, aᵢ; θ′))²/∂θ′                          `q_loss` in q_learning.py
"""

import jax.numpy as jnp

from a3cjax.agents.base import Agent
from a3cjax.agents.experience import episode_returns
from a3cjax.agents.q_learning import make_q_agent
from a3cjax.networks import Network
from a3cjax.types import taken


def make_n_step_q(
    network: Network,
    *,
    lambda_: float = 1.0,
    max_abs_reward: float | None = None,
    bootstraps: bool = True,
    double_q: bool = False,
    huber_delta: float | None = None,
) -> Agent:
    """Build n-step Q-learning around a network of action values.

    Args:
      network: Q(s, ·).
      lambda_: mixes n-step returns of all lengths, which is Peng's Q(λ) (Peng & Williams 1994);
        1 is the paper's.
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      bootstraps: False where updates are whole episodes: returns are then sums of rewards,
        whatever `lambda_` says.
      double_q: whether θ chooses the action whose value under θ⁻ enters the return (van Hasselt
        et al. 2016, equation 4).
      huber_delta: error beyond which the loss is linear, see `q_loss`; None for a squared loss.
    """

    def targets(trajectory, next_q_values, selector_q_values, continues):
        # The selector is θ⁻, too, but for `double_q`.
        next_values = taken(next_q_values, jnp.argmax(selector_q_values, axis=-1))
        return episode_returns(trajectory, next_values, continues, lambda_, bootstraps=bootstraps)

    return make_q_agent(
        network,
        targets,
        max_abs_reward=max_abs_reward,
        double_q=double_q,
        huber_delta=huber_delta,
    )
