"""Asynchronous one-step Q-learning: algorithm 1 of Mnih et al. 2016.

The paper's lines                                             here
  take action a according to the ε-greedy policy                `look` of q_learning.py
  y ← r for terminal s′, r + γ maxₐ′ Q(s′, a′; θ⁻) otherwise    `one_step_q_targets`
  dθ ← dθ + ∂(y − Q(s, a; θ))²/∂θ                              `q_loss` in q_learning.py
  every I_AsyncUpdate steps update θ with dθ                   `unroll_length`
  every I_target steps θ⁻ ← θ                                  parameters/shared.py

With `network=tabular` θ is the matrix of Q-learning (Watkins 1989). With `double_q` it is
Double Q-learning: y ← r + γ Q(s′, argmaxₐ′ Q(s′, a′; θ); θ⁻) (van Hasselt et al. 2016, equation 4).
"""

from a3cjax.agents.base import Agent
from a3cjax.agents.q_learning import make_q_agent
from a3cjax.networks import Network
from a3cjax.returns import double_q_targets, one_step_q_targets


def make_one_step_q(
    network: Network,
    *,
    max_abs_reward: float | None = None,
    double_q: bool = False,
    huber_delta: float | None = None,
) -> Agent:
    """Build one-step Q-learning around a network of action values, Q(s, ·).

    Args:
      network: Q(s, ·).
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      double_q: whether θ chooses the action a′ that θ⁻ evaluates.
      huber_delta: error beyond which the loss is linear, see `q_loss`; None for a squared loss.
    """

    def targets(trajectory, next_q_values, selector_q_values, _):
        inputs = (trajectory.rewards, trajectory.discounts, next_q_values)
        if double_q:
            return double_q_targets(*inputs, selector_q_values)
        return one_step_q_targets(*inputs)

    return make_q_agent(
        network,
        targets,
        max_abs_reward=max_abs_reward,
        double_q=double_q,
        huber_delta=huber_delta,
    )
