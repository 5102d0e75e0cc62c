"""A3C on Catch, put together by hand from the parts of a3cjax: `python examples/a3c.py`.

A ball falls down a board of 10 × 5 squares, straight, from a random column. The agent moves a
paddle along the lowest row; it gets a reward of 1 if it catches the ball and −1 if it does not.

Quotations are from Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning",
arXiv:1602.01783, most of them from algorithm S3. Files are named where they explain more.
"""

import queue

import jax
import numpy as np

from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.programs import Programs, make_programs
from a3cjax.actors.reports import UpdateReport
from a3cjax.actors.supervisor import Supervisor
from a3cjax.agents import make_a3c
from a3cjax.envs import make_environments
from a3cjax.exploration import evaluation_exploration, make_explore
from a3cjax.networks import make_network
from a3cjax.optimizers import linear_annealing, make_optimizer
from a3cjax.parameters.shared import SharedParameters
from a3cjax.types import LearnerState, Snapshot
from a3cjax.updates import make_apply_gradients

NUM_ACTORS = 2  # "actor-learners", each in a thread; the paper has 16
NUM_ENVS = 8  # games that each of them plays at once; the paper has 1
UNROLL_LENGTH = 20  # t_max, steps between two updates; the paper has 5
TOTAL_FRAMES = 100_000  # T_max, steps of all actor-learners together
DISCOUNT = 0.99  # γ
ENTROPY_COST = 0.01  # β
LEARNING_RATE = 3e-3  # η at the beginning; it falls to 0 in a straight line


def main() -> float:
    """Train and print; return the mean return of games with the final policy."""
    # The network: two hidden layers, and on them "one softmax output for the policy π(aₜ|sₜ; θ) and
    # one linear output for the value function V(sₜ; θᵥ)" (a3cjax/networks.py).
    environments = make_environments("Catch", num_envs=1, seed=0, discount=DISCOUNT)
    spec = environments.spec
    environments.close()
    network = make_network("mlp_ff", spec.num_actions)
    observations = np.zeros((1, 1, *spec.observation_shape), spec.observation_dtype)
    params = network.init(jax.random.key(0), observations)

    # The agent: its policy, and the loss whose gradient is dθ and dθᵥ (a3cjax/agents/a3c.py).
    programs = make_programs(make_a3c(network, entropy_cost=ENTROPY_COST))

    # "Global shared parameter vectors θ and θᵥ", and an optimizer whose statistics are shared,
    # too. The paper's is RMSProp; Adam is quicker here (a3cjax/parameters/shared.py).
    optimizer = make_optimizer("adam", schedule=linear_annealing(LEARNING_RATE, TOTAL_FRAMES))
    state = LearnerState(params, optimizer.init(params))
    store = SharedParameters(state, make_apply_gradients(optimizer))

    # A thread for each actor-learner. If one fails, the supervisor stops the others.
    reports: queue.SimpleQueue[UpdateReport] = queue.SimpleQueue()
    actors = [make_actor(index, programs, store, reports) for index in range(NUM_ACTORS)]
    returns: list[float] = []

    def show_progress() -> None:
        for _ in range(reports.qsize()):
            returns.extend(episode.episode_return for episode in reports.get().episodes)
        if returns:
            num_frames, mean = store.pull().num_frames, np.mean(returns[-200:])
            print(f"{num_frames:7,} frames, mean return of the last 200 games {mean:+.2f}")

    supervisor = Supervisor(stall_seconds=600.0)
    supervisor.start([actor.run for actor in actors], "actor-learner")
    supervisor.watch(look=show_progress, period=1.0)
    supervisor.wait(seconds=60.0)
    supervisor.raise_failures()
    supervisor.dismiss()
    for actor in actors:
        actor.environments.close()

    score = evaluate(programs, store.pull())
    print(f"{TOTAL_FRAMES:7,} frames, mean return of 200 new games {score:+.2f}")
    return score


def make_actor(
    index: int,
    programs: Programs,
    store: SharedParameters,
    reports: queue.SimpleQueue[UpdateReport],
) -> ActorLearner:
    """An actor-learner with games of its own (a3cjax/actors/actor_learner.py).

    Its `run` repeats these steps "until T > T_max":

    1. "Synchronize thread-specific parameters θ′ = θ": it pulls a snapshot of the parameters.
    2. "Perform aₜ according to policy π(aₜ|sₜ; θ′)", t_max times in every game.
    3. "Accumulate gradients wrt θ′": it differentiates the loss of what it saw.
    4. "Perform asynchronous update of θ using dθ": it pushes the gradient to the parameters,
       which others may have changed since step 1.
    """
    seed = index * NUM_ENVS  # of its first game; the others have the numbers after it
    environments = make_environments("Catch", num_envs=NUM_ENVS, seed=seed, discount=DISCOUNT)
    return ActorLearner(
        index,
        programs,
        environments,
        store,
        Standing(
            timestep=environments.reset(),  # "Get state sₜ"
            core_state=programs.initial_state(NUM_ENVS),  # a memory, which mlp_ff does not have
            ahead=None,
            key=jax.random.key(index),  # with which actions are sampled
            discounted_sums=np.zeros(NUM_ENVS),  # for scaling rewards, which is not done here
        ),
        # For A3C always the same; the Q methods begin with random actions.
        explore=make_explore(0, index, NUM_ENVS, num_frames=TOTAL_FRAMES),
        unroll_length=UNROLL_LENGTH,
        total_frames=TOTAL_FRAMES,
        report=reports.put,  # is called after every update
    )


def evaluate(programs: Programs, snapshot: Snapshot, num_games: int = 200) -> float:
    """The mean return of games that the actor-learners have not played."""
    environments = make_environments("Catch", num_envs=num_games, seed=10_000, discount=DISCOUNT)
    timestep, core_state = environments.reset(), programs.initial_state(num_games)
    exploration, key = evaluation_exploration(num_games), jax.random.key(10_000)
    returns: list[float] = []
    while len(returns) < num_games:  # all games last nine steps
        action, core_state, key, _ = programs.act(snapshot, exploration, timestep, core_state, key)
        timestep = environments.step(np.asarray(action))
        returns += [episode.episode_return for episode in environments.pop_episodes()]
    environments.close()
    return float(np.mean(returns))


if __name__ == "__main__":
    main()
