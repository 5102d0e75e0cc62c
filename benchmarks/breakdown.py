"""Where the time of a step goes, part by part, on one core.

`python benchmarks/breakdown.py` pins itself to one core and times each part of an actor-learner's
loop by CPU time, beside what the core's arithmetic and memory allow. One row per figure goes to
benchmarks/results/breakdown.csv, a picture to benchmarks/results/breakdown-<network>.png.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results_table import Results

from a3cjax.actors.programs import make_programs
from a3cjax.actors.supervisor import Supervisor
from a3cjax.actors.trajectories import stack, stack_trees
from a3cjax.config.builders import build_agent, build_optimizer
from a3cjax.config.settings import Config
from a3cjax.convolutions import CHUNK_SIZE, frames_to_blocks
from a3cjax.exploration import evaluation_exploration
from a3cjax.system.compilation import configure_jax
from a3cjax.training.assembly import assemble, prepare
from a3cjax.training.measuring import emulator_rate
from a3cjax.types import Constants
from a3cjax.updates import make_act, make_apply_gradients

RESULTS = Path(__file__).parent / "results" / "breakdown.csv"
# The parts of a training step. "environment step" is the emulator and the conversion to blocks.
SUMMANDS = (
    *("environment step", "act", "stack the trajectory"),
    *("observe the last", "learn", "apply"),
)


def core_seconds(call: Callable[[], object], repetitions: int) -> list[float]:
    """CPU time of the whole process for one call, measured `repetitions` times."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repetitions):
        began = time.process_time()
        jax.block_until_ready(call())
        times.append(time.process_time() - began)
    return times


def flops(function: Callable, *arguments: object) -> float:
    """Floating-point operations of a compiled call, as XLA counts them."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def plot(costs: dict[str, float], title: str, path: Path) -> None:
    """Draws a bar for each part of a step, and the time that arithmetic alone would take."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    heights = [costs[name] for name in SUMMANDS]
    axis.barh(SUMMANDS, heights, color="tab:blue", label="measured")
    limited = [name for name in SUMMANDS if f"{name}, as one matrix product" in costs]
    limits = [costs[f"{name}, as one matrix product"] for name in limited]
    axis.barh(limited, limits, height=0.35, color="tab:orange", label="as one matrix product")
    for name, height in zip(SUMMANDS, heights, strict=True):
        end = max(height, costs.get(f"{name}, as one matrix product", 0.0))
        axis.text(end, name, f" {height:.3f}", va="center", fontsize="small")
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(heights))
    axis.set_xlabel("core-milliseconds for one agent step")
    axis.set_title(f"{title}: {sum(heights):.2f} core-ms a step", fontsize="medium")
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="atari_ff")
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    configure_jax()

    config = Config(num_actors=1, network=arguments.network, warmup_steps=64)
    config, agent, (batch,) = prepare(config)
    num_envs, unroll_length = batch.num_envs, config.unroll_length
    supervisor = Supervisor()
    state, snapshot = assemble(config, agent, [batch], supervisor=supervisor).store.read()
    supervisor.dismiss()
    core_state, key = agent.initial_state(num_envs), jax.random.key(0)
    exploration = evaluation_exploration(num_envs)
    actions = np.zeros(num_envs, np.int32)
    timesteps = [batch.step(actions) for _ in range(unroll_length + 1)]
    timestep = timesteps[-1]
    all_actions = [actions] * unroll_length
    programs = make_programs(agent)
    act, compute_gradients, observe_at = programs[0], programs[1], programs.observe_at
    assert observe_at is not None
    apply_gradients = make_apply_gradients(build_optimizer(config))
    layer_outputs = [observe_at(snapshot, timestep) for timestep in timesteps]

    def stack_all():
        kept = stack_trees(layer_outputs)
        return stack(timesteps, all_actions, core_state)._replace(layer_outputs=kept)

    trajectory = stack_all()
    forgetful = trajectory._replace(layer_outputs=None)
    grads, _ = compute_gradients(snapshot, exploration, trajectory)
    frames = np.zeros((num_envs, 4, 84, 84), np.uint8)

    per_step, per_update = num_envs, num_envs * unroll_length
    parts = {
        "act": (lambda: act(snapshot, exploration, timestep, core_state, key)[0], per_step),
        "blocks from frames": (lambda: frames_to_blocks(frames), per_step),
        "environment step": (lambda: batch.step(actions).observation, per_step),
        "stack the trajectory": (
            lambda: stack_all().observations,
            per_update,
        ),
        "observe the last": (lambda: observe_at(snapshot, timestep), per_update),
        "learn": (lambda: compute_gradients(snapshot, exploration, trajectory)[0], per_update),
        "learn without recalling": (
            lambda: compute_gradients(snapshot, exploration, forgetful)[0],
            per_update,
        ),
        "apply": (lambda: apply_gradients(state, grads, np.float32(0)), per_update),
    }
    results, costs = Results(RESULTS), {}
    for name, (call, num_steps) in parts.items():
        repetitions = arguments.repetitions * (1 if num_steps == per_update else 20)
        times = core_seconds(call, repetitions)
        costs[name] = results.add(
            name, [1000 * seconds / num_steps for seconds in times], "core-ms a step"
        )

    rates = [emulator_rate("Pong", 1, num_envs, seconds=2.0) for _ in range(5)]
    results.add("emulator alone", [1000 / rate for rate in rates], "core-ms a step")

    matrix = jnp.ones((2048, 2048))
    times = core_seconds(lambda: matrix @ matrix, 5)
    flops_per_second = 2 * 2048**3 / min(times)
    results.add("matrix product, 2048", [2 * 2048**3 / t / 1e9 for t in times], "GFLOP/s")
    source, target = np.ones(2**26, np.float32), np.ones(2**26, np.float32)
    times = core_seconds(lambda: np.copyto(target, source), 5)
    results.add("copy, 256 MB", [2 * source.nbytes / t / 1e9 for t in times], "GB/s")
    counted = build_agent(config, batch.spec)  # XLA does not see into the kernels
    act_flops = (
        flops(make_act(counted), snapshot, exploration, timestep, core_state, key) / per_step
    )
    # XLA counts the body of a loop once, so the loss is computed for fewer samples than two chunks.
    length = CHUNK_SIZE
    short = stack(
        [jax.tree.map(lambda x: x[:1], timestep)] * (length + 1),
        [actions[:1]] * length,
        agent.initial_state(1),
    )
    kept = jax.tree.map(lambda x: x[: length + 1, :1], trajectory.layer_outputs)
    short = short._replace(layer_outputs=kept)
    loss_gradient = jax.grad(counted.loss, has_aux=True)
    constants = Constants(snapshot.statistics, snapshot.target_params, exploration)
    learn_flops = flops(loss_gradient, snapshot.params, constants, short) / length
    for name, count in (("act", act_flops), ("learn", learn_flops)):
        limit = 1000 * count / flops_per_second
        name = f"{name}, as one matrix product"
        costs[name] = results.add(name, [limit], "core-ms a step")
    title = f"Pong, {config.network}: {num_envs} environments × {unroll_length} steps"
    results.write(title)
    plot(costs, title, RESULTS.with_name(f"breakdown-{config.network}.png"))
    batch.close()


if __name__ == "__main__":
    main()
