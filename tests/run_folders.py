"""Run folders made up for tests of what reads them."""

import json
from pathlib import Path

import yaml

RESULTS = Path(__file__).parent.parent / "results"
METRICS = (
    *("num_frames", "wall_seconds", "num_episodes", "episode_return_mean", "frames_per_second"),
    *("staleness_mean", "staleness_max", "lock_wait_fraction"),
    *("env_fraction", "act_fraction", "learn_fraction", "push_fraction"),
)


def make_run_folder(
    folder,
    *,
    env="Pong",
    seed=1,
    returns=(-20.0, 0.0, 10.0),
    scores=(10.0, 12.0),
    summary=None,
    **settings,
):
    """A run folder with a row of metrics for each of `returns`, one every 1000 frames and second.

    `scores` are those of the final evaluation; None leaves summary.json out.
    """
    folder.mkdir(parents=True)
    settings = {"env": env, "seed": seed, "algorithm": "a3c", "total_frames": 3000, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = [",".join(METRICS)]
    for index, mean in enumerate(returns, start=1):
        row = (1000 * index, index, 100 * index, mean, 1000, 1, 2, 0.01, 0.5, 0.2, 0.2, 0.1)
        lines.append(",".join(map(str, row)))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if scores is not None:
        content = {
            "num_frames": 1000 * len(returns),
            "training_seconds": len(returns),
            "evaluation": {"mean": sum(scores) / len(scores), "scores": list(scores)},
            "command": "python experiments/run.py",
            "commit": "0123456789abcdef",
            "machine": {"processor": "a processor", "cores": 2},
            "versions": {"python": "3.11.7", "jax": "0.10.2"},
            **(summary or {}),
        }
        (folder / "summary.json").write_text(json.dumps(content))
    return folder
