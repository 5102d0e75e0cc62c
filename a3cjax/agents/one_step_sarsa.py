"""Asynchronous one-step Sarsa: section 4 of Mnih et al. 2016.

As one_step_q.py, except for y ← r + γ Q(s′, a′; θ⁻), where a′ is the action really taken in s′.
An actor-learner therefore chooses a′ before it learns, and begins its next unroll with it.
There are two exceptions, in which a′ is the action that would have been taken: s′ is the last
state of an episode that was truncated; or a vector environment waits in s′ until others have begun
(envs/vector_batch.py), and ignores a′.
"""

from a3cjax.agents.base import Agent
from a3cjax.agents.q_learning import make_q_agent
from a3cjax.networks import Network
from a3cjax.returns import one_step_sarsa_targets


def make_one_step_sarsa(
    network: Network, *, max_abs_reward: float | None = None, huber_delta: float | None = None
) -> Agent:
    """Build one-step Sarsa, which acts ahead, around a network of action values, Q(s, ·).

    Args:
      network: Q(s, ·).
      max_abs_reward: rewards are clipped to ± this in the loss; None leaves them alone.
      huber_delta: error beyond which the loss is linear, see `q_loss`; None for a squared loss.
    """

    def targets(trajectory, next_q_values, *_):
        return one_step_sarsa_targets(
            trajectory.rewards, trajectory.discounts, next_q_values, trajectory.actions[1:]
        )

    return make_q_agent(
        network, targets, max_abs_reward=max_abs_reward, acts_ahead=True, huber_delta=huber_delta
    )
