"""Published agents: parameters with what they come from, and a model card."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.folder import write_config
from a3cjax.runs.loading import load
from a3cjax.runs.parameter_files import write_parameters
from a3cjax.system.files import replace_file

COPIED = ("summary.json", "play.gif")
# Of a run's settings, those that a reader asks for first.
SHOWN_SETTINGS = (
    *("algorithm", "network", "total_frames", "num_actors", "envs_per_actor", "unroll_length"),
    *("discount", "lambda_", "optimizer", "learning_rate", "entropy_cost", "protocol", "seed"),
)
NUMBERS = ("mean", "median", "standard_deviation", "min", "max")
TASK = "reinforcement-learning"
TEMPLATE = Path(__file__).with_name("model_card.md")


def publish(run_dir: Path, output_dir: Path) -> Path:
    """Makes a folder from which `a3cjax.load` brings a finished run's agent back.

    Args:
      run_dir: with the checkpoint of the run's end and its summary.json.
      output_dir: gets the parameters, config.yaml, summary.json, a model card as README.md and,
        if there is one, the run's picture; its own files are written over.

    Returns:
      `output_dir`.

    Raises:
      FileNotFoundError: if the run folder holds no checkpoint or no summary.
      ConfigError: if the run was not evaluated at its end, or that is not of the newest
        parameters, or both folders are the same.
      ValueError: if its checkpoint is of another format.
      CheckpointError: if its checkpoints are damaged.
      OSError: if `output_dir` cannot be written.
    """
    if output_dir.resolve() == run_dir.resolve():
        raise ConfigError(f"output_dir must be another folder than run_dir, got {output_dir}.")
    summary = read_summary(run_dir)
    agent = load(run_dir)
    if summary["num_frames"] != agent.snapshot.num_frames:
        raise ConfigError(
            f"run_dir must be of a run that has ended, got {run_dir}: summary.json is of frame "
            f"{summary['num_frames']}, the newest sound checkpoint of {agent.snapshot.num_frames}."
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    write_parameters(output_dir, agent.snapshot)
    write_config(agent.config, output_dir)
    for name in COPIED:
        (output_dir / name).unlink(missing_ok=True)  # of an agent that was there before
        if (run_dir / name).is_file():
            shutil.copyfile(run_dir / name, output_dir / name)
    replace_file(output_dir / "README.md", make_model_card(agent.config, summary, output_dir))
    return output_dir


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Reads a summary.json that ends with an evaluation.

    Raises:
      FileNotFoundError: if there is none.
      ConfigError: if the run was not evaluated at its end.
    """
    path = run_dir / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(f"run folder must hold summary.json, got {run_dir}.")
    summary = json.loads(path.read_text())
    if not summary["evaluation"]:
        raise ConfigError(f"run_dir must be of a run with a final evaluation, got {run_dir}.")
    return summary


def make_model_card(config: Config, summary: dict[str, Any], folder: Path) -> str:
    """The model card: what the agent is, what it reaches, how to use it, where it comes from.

    Its head is the metadata that model hubs read (huggingface.co/docs/hub/model-cards).
    """
    evaluation = summary["evaluation"]
    mean, deviation = evaluation["mean"], evaluation["standard_deviation"]
    metric = {
        "type": "mean_reward",
        "name": "mean_reward",
        "value": f"{mean:.2f} +/- {deviation:.2f}",
    }
    metadata = {
        "library_name": "a3cjax",
        "license": "mit",
        "pipeline_tag": TASK,
        "tags": [TASK, config.algorithm, "jax", "envpool", config.env],
        "model-index": [
            {
                "name": f"{config.algorithm} {config.env}",
                "results": [
                    {
                        "task": {"type": TASK, "name": TASK},
                        "dataset": {"type": config.env, "name": config.env},
                        "metrics": [metric],
                    }
                ],
            }
        ],
    }
    has_picture = (folder / "play.gif").is_file()
    values = {
        **{name: getattr(config, name) for name in ("env", "algorithm", "network", "protocol")},
        "metadata": yaml.safe_dump(metadata, sort_keys=False),
        "folder": folder.as_posix(),
        "picture": f"![A game of {config.env}](play.gif)" if has_picture else "",
        "command": summary["command"],
        "commit": summary["commit"],
        "frames": f"{summary['num_frames']:,}",
        "minutes": round(summary["training_seconds"] / 60),
        "versions": ", ".join(f"{name} {text}" for name, text in summary["versions"].items()),
        "settings": "\n".join(f"| `{name}` | {getattr(config, name)} |" for name in SHOWN_SETTINGS),
        **{name: summary["machine"][name] for name in ("cores", "processor")},
        **{name: evaluation[name] for name in ("num_episodes", "actions")},
        **{name: f"{evaluation[name]:.2f}" for name in NUMBERS},
    }
    return TEMPLATE.read_text().format(**values)
