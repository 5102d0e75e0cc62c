"""Asynchronous one-step Q-learning: algorithm 1 of Mnih et al. 2016.

The paper's lines                                             here
  take action a according to the ε-greedy policy                `look` of q_learning.py
  y ← r for terminal s′, r + γ maxₐ′ Q(s′, a′; θ⁻) otherwise    `one_step_q_targets`
  dθ ← dθ + ∂(y − Q(s, a; θ))²/∂θ                              `q_loss` in q_learning.py
  every I_AsyncUpdate steps update θ with dθ                   `unroll_length`
  every I_target steps θ⁻ ← θ                                  parameters.py

With `network=tabular` θ is the matrix of Q-learning (Watkins 1989).
"""

from a3cjax.agents.base import Agent
from a3cjax.agents.q_learning import make_q_agent
from a3cjax.networks import Network
from a3cjax.returns import one_step_q_targets


def make_one_step_q(network: Network, *, max_abs_reward: float | None = None) -> Agent:
    """Builds one-step Q-learning around a network of action values, Q(s, ·).

    Rewards are clipped to ± `max_abs_reward` in the loss; None leaves them alone.
    """

    def targets(trajectory, next_q_values, _):
        return one_step_q_targets(trajectory.rewards, trajectory.discounts, next_q_values)

    return make_q_agent(network, targets, max_abs_reward=max_abs_reward)
