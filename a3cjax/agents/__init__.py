"""The asynchronous methods of the paper, one file per algorithm box, and two that came later."""

from a3cjax.agents.a3c import make_a3c
from a3cjax.agents.base import Agent, Algorithm
from a3cjax.agents.n_step_q import make_n_step_q
from a3cjax.agents.one_step_q import make_one_step_q
from a3cjax.agents.one_step_sarsa import make_one_step_sarsa
from a3cjax.agents.ppo import make_ppo
from a3cjax.agents.vtrace import make_vtrace

ALGORITHMS = {
    "a3c": Algorithm(make_a3c, head="actor_critic"),
    "n_step_q": Algorithm(make_n_step_q, head="action_values", has_target_params=True),
    "one_step_q": Algorithm(make_one_step_q, head="action_values", has_target_params=True),
    "one_step_sarsa": Algorithm(make_one_step_sarsa, head="action_values", has_target_params=True),
    "ppo": Algorithm(make_ppo, head="actor_critic"),
    "vtrace": Algorithm(make_vtrace, head="actor_critic"),
}
"""What `algorithm=` chooses from; a new one is a file and a line here: docs/algorithms.md."""

__all__ = [
    "ALGORITHMS",
    "Agent",
    "Algorithm",
    "make_a3c",
    "make_n_step_q",
    "make_one_step_q",
    "make_one_step_sarsa",
    "make_ppo",
    "make_vtrace",
]
