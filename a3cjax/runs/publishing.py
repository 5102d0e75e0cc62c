"""Published agents: parameters, what they come from, and a model card."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from flax import linen as nn

from a3cjax.config.reading import CONFIG_FILE
from a3cjax.config.settings import Config
from a3cjax.envs.bringing import PYTHON_PREFIX
from a3cjax.errors import ConfigError, quote
from a3cjax.networks import Network
from a3cjax.runs.environment_files import ENVIRONMENT_FILE, write_environment
from a3cjax.runs.evaluation import describe_games
from a3cjax.runs.hub import CARD, PICTURE, PREFIX
from a3cjax.runs.loading import load
from a3cjax.runs.parameter_files import PARAMETER_FILE, write_parameters
from a3cjax.runs.tables import EPISODES, EVALUATIONS, METRICS, SUMMARY, read_summary, show_score
from a3cjax.system.files import new_folder, replace_file
from a3cjax.system.quoting import code, markdown, without_folders, word

PARTS_OF_RUNS = {"checkpoints", "best", "run.lock", METRICS, EPISODES, EVALUATIONS}
TEMPLATE = Path(__file__).with_name("model_card.md")
SCORES = ("mean", "median", "standard_deviation", "min", "max")


def publish(
    run_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    trust: bool = False,
    hub: str | None = None,
    network: Network | nn.Module | None = None,
) -> Path:
    """Make a folder from which `a3cjax.load` loads a finished run's agent; return the folder.

    Args:
      run_dir: holds the checkpoint of the run's end and its summary.json.
      output_dir: gets the parameters, config.yaml, environment.json, summary.json, a model card
        as README.md and, if there is one, the run's picture; earlier ones are overwritten.
      trust: as for `a3cjax.load`.
      hub: `<user>/<name>` from which the model card loads it; None: from the folder.
      network: as passed to `train`.

    Raises:
      FileNotFoundError: if there is no run folder, or it holds no checkpoint or no summary.
      ConfigError: if the run was not evaluated at its end, or the evaluation is not of the newest
        parameters or is of another environment, or `output_dir` lies in `run_dir` or holds
        anything but an agent published earlier.
      CheckpointError: if its checkpoint is of another format, or all are damaged.
      OSError: if `output_dir` cannot be written.
    """
    run_dir, output_dir = Path(run_dir), Path(output_dir)
    output = Path(os.path.realpath(output_dir))  # not `resolve`, which fails at links in a loop
    if Path(os.path.realpath(run_dir)) in (output, *output.parents):
        raise ConfigError(f"output_dir must be another folder than run_dir, got {output_dir}.")
    exists = os.path.lexists(output_dir)
    names = os.listdir(output) if output.is_dir() else ["a file"] if exists else []
    held = {name for name in names if not name.endswith(".part")}  # of a publication cut short
    if held and (PARAMETER_FILE not in held or held & PARTS_OF_RUNS):
        raise ConfigError(
            "output_dir must be new, empty or of an agent published earlier, "
            f"got {output_dir} with {quote(min(held))}."
        )
    if not run_dir.is_dir():
        raise FileNotFoundError(f"There is no run folder {run_dir}.")
    summary = read_summary(run_dir)
    if not summary:
        raise FileNotFoundError(f"run folder must hold a sound {SUMMARY}, got {run_dir}.")
    if not summary.get("evaluation"):
        raise ConfigError(f"run_dir must be of a run with a final evaluation, got {run_dir}.")
    agent = load(run_dir, trust=trust, network=network)
    if summary.get("env") != agent.config.env:
        raise ConfigError(
            f"run_dir must be of one run, got {run_dir}: {SUMMARY} is of "
            f"{quote(summary.get('env'))}, {CONFIG_FILE} of {agent.config.env}."
        )
    if summary.get("num_frames") != agent.snapshot.num_frames:
        raise ConfigError(
            f"run_dir must be of a run that has ended, got {run_dir}: summary.json is of frame "
            f"{quote(summary.get('num_frames'))}, the newest sound checkpoint of "
            f"{agent.snapshot.num_frames}."
        )
    has_picture = (run_dir / PICTURE).is_file()
    name = output.name if hub is None else PREFIX + hub
    card = make_model_card(agent.config, summary, name, has_picture=has_picture)
    with new_folder(output_dir):
        write_parameters(output_dir, agent.snapshot)
        for name in (PICTURE, ENVIRONMENT_FILE):  # of an agent that was there before
            (output_dir / name).unlink(missing_ok=True)
        write_environment(output_dir, agent.spec)
        if has_picture:
            shutil.copyfile(run_dir / PICTURE, output_dir / PICTURE)
        # Where things lie on this machine is nobody else's business.
        own = {"run_dir": output.name, "ray_address": None}
        settings = dataclasses.asdict(agent.config) | own
        replace_file(output_dir / CONFIG_FILE, yaml.safe_dump(settings, sort_keys=False))
        texts = {name: text for name, text in summary.items() if isinstance(text, str)}
        summary |= {name: without_places(text) for name, text in texts.items()}
        replace_file(output_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")
        replace_file(output_dir / CARD, card)
    return output_dir


def without_places(text: str) -> str:
    """A command line without folders, and without the address of a cluster."""
    return without_folders(re.sub(r"\bray_address=\S+", "ray_address=...", text))


def make_model_card(
    config: Config, summary: dict[str, Any], name: str, *, has_picture: bool = False
) -> str:
    """The model card: what the agent is, what it reaches, how to use it, where it comes from.

    `name` is what `a3cjax.load` takes.

    The card's head is the metadata that model hubs read (huggingface.co/docs/hub/model-cards). What
    it quotes stays text, and paths are cut to their last part.

    Raises:
      ConfigError: if the summary is not as a run writes it.
    """
    try:
        command = without_places(str(summary["command"]))
        versions = ", ".join(f"{name} {text}" for name, text in summary["versions"].items())
        texts = {
            **dataclasses.asdict(config),
            "name": f"{config.algorithm} {config.env}",
            "command": command,
            "commit": summary["commit"],
            "versions": versions,
            "processor": summary["machine"]["processor"],
            "actions": summary["evaluation"]["actions"],
        }
        return TEMPLATE.read_text(encoding="utf-8").format(
            text={name: markdown(text) for name, text in texts.items()},
            code={name: code(text) for name, text in texts.items()},
            **_describe_use(config, name, summary["evaluation"]["num_episodes"]),
            yaml={name: json.dumps(str(text)) for name, text in texts.items()},
            evaluation=summary["evaluation"],
            games=describe_games(summary["evaluation"]),
            scores={name: show_score(summary["evaluation"][name]) for name in SCORES},
            num_frames=summary["num_frames"],
            cores=f"{(cores := summary['machine']['cores']):d} core{'' if cores == 1 else 's'}",
            picture=f"![A game of {markdown(config.env)}]({PICTURE})" if has_picture else "",
            minutes=round(summary["training_seconds"] / 60),
        )
    # Anything may be missing, or of another type than it should be.
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{SUMMARY} must be as a run writes it, got {reason}.") from error


def _describe_use(config: Config, name: str, num_episodes: int) -> dict[str, str]:
    """What is passed to `load` and `evaluate`, and what is to be said of it or to be used instead.

    Objects that were passed to `train` are passed again.
    """
    load, evaluate = [json.dumps(name)], [f"num_episodes={num_episodes:d}"]
    verb, objects = ["a3cjax evaluate", word(name)], []
    if config.network.startswith(PYTHON_PREFIX):
        load.append("network=network")
        objects.append("network")
    if config.env.startswith(PYTHON_PREFIX):
        evaluate.append("env=env")
        objects.append("env")
    elif ":" in config.env.partition(":")[2]:  # its module is imported
        load.append("trust=True")
        verb.append("trust=true")
    names = " and ".join(f"`{name}` (`{code(getattr(config, name))}`)" for name in objects)
    also = f"with {names} as passed to `train`" if objects else f"or `{code(' '.join(verb))}`"
    return {"load": ", ".join(load), "evaluate": ", ".join(evaluate), "also": also}
