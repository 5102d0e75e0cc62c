"""Published agents: parameters with what they come from, and a model card."""

import shutil
from pathlib import Path
from typing import Any

from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError
from a3cjax.runs.folder import write_config
from a3cjax.runs.loading import load
from a3cjax.runs.parameter_files import write_parameters
from a3cjax.runs.tables import PLAY, SUMMARY, read_summary
from a3cjax.system.files import replace_file

PICTURE = f"{PLAY}.gif"
TEMPLATE = Path(__file__).with_name("model_card.md")


def publish(run_dir: Path, output_dir: Path) -> Path:
    """Makes a folder from which `a3cjax.load` brings a finished run's agent back; returns it.

    Args:
      run_dir: with the checkpoint of the run's end and its summary.json.
      output_dir: gets the parameters, config.yaml, summary.json, a model card as README.md and,
        if there is one, the run's picture; its own files are written over.

    Raises:
      FileNotFoundError: if the run folder holds no checkpoint or no summary.
      ConfigError: if the run was not evaluated at its end, or that is not of the newest
        parameters, or both folders are the same.
      CheckpointError: if its checkpoint is of another format, or all are damaged.
      OSError: if `output_dir` cannot be written.
    """
    if output_dir.resolve() == run_dir.resolve():
        raise ConfigError(f"output_dir must be another folder than run_dir, got {output_dir}.")
    summary = read_summary(run_dir)
    if not summary:
        raise FileNotFoundError(f"run folder must hold {SUMMARY}, got {run_dir}.")
    if not summary["evaluation"]:
        raise ConfigError(f"run_dir must be of a run with a final evaluation, got {run_dir}.")
    agent = load(run_dir)
    if summary["num_frames"] != agent.snapshot.num_frames:
        raise ConfigError(
            f"run_dir must be of a run that has ended, got {run_dir}: summary.json is of frame "
            f"{summary['num_frames']}, the newest sound checkpoint of {agent.snapshot.num_frames}."
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    write_parameters(output_dir, agent.snapshot)
    write_config(agent.config, output_dir)
    for name in (SUMMARY, PICTURE):
        (output_dir / name).unlink(missing_ok=True)  # of an agent that was there before
        if (run_dir / name).is_file():
            shutil.copyfile(run_dir / name, output_dir / name)
    replace_file(output_dir / "README.md", make_model_card(agent.config, summary, output_dir))
    return output_dir


def make_model_card(config: Config, summary: dict[str, Any], folder: Path) -> str:
    """The model card: what the agent is, what it reaches, how to use it, where it comes from.

    Its head is the metadata that model hubs read (huggingface.co/docs/hub/model-cards).
    """
    has_picture = (folder / PICTURE).is_file()
    return TEMPLATE.read_text().format(
        config=config,
        summary=summary,
        evaluation=summary["evaluation"],
        folder=folder.as_posix(),
        picture=f"![A game of {config.env}]({PICTURE})" if has_picture else "",
        minutes=round(summary["training_seconds"] / 60),
        versions=", ".join(f"{name} {text}" for name, text in summary["versions"].items()),
    )
