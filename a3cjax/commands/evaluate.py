"""Plays full games with a trained agent, prints the scores and keeps every one in a file.

    a3cjax evaluate pong num_episodes=2
    a3cjax evaluate runs/Pong/<folder> num_episodes=100 greedy=true

The first gives 17 or more of 21. The agent is a run folder, a published folder, or the name of an
agent that comes with a3cjax. Its environments have seeds that training never used.
"""

import dataclasses
import json
from pathlib import Path

from a3cjax.actors.supervisor import Supervisor
from a3cjax.commands.arguments import read, refusing
from a3cjax.commands.beginning import importing
from a3cjax.commands.ending import conclude, watched
from a3cjax.config.declaring import POSITIVE, Settings, at_least, between, setting
from a3cjax.config.settings import MAX_BATCH
from a3cjax.errors import CheckpointError, OutputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """Settings of `a3cjax evaluate`."""

    num_episodes: int | None = setting(
        None, "full games; null: as many as the run's evaluations", between(1, MAX_BATCH)
    )
    greedy: bool | None = setting(
        None, "most probable actions, not sampled ones; null: as in the run's evaluations"
    )
    best: bool = setting(False, "the best parameters by evaluation, not the last")
    trust: bool = setting(False, "the run folder of somebody else may name a module to import")
    sticky_actions: float | None = setting(
        None,
        "probability that a frame repeats the last action; null: as in training "
        "(0.25: Machado et al. 2018)",
        between(0, 1),
    )
    max_episode_steps: int | None = setting(
        None, "games are cut after these steps; null: as in the run's evaluations", at_least(1)
    )
    stall_timeout_seconds: float = setting(
        600.0, "without a step, after which the evaluation ends", POSITIVE
    )
    output: str | None = setting(
        None, "file for the scores; null: evaluation-*.json in the run folder", is_path=True
    )


SETTINGS, PLACES = (EvaluateSettings,), "<run folder or name>"


def main(words: list[str], texts: dict[str, str]) -> None:
    """Evaluate an agent, print the table and write the scores."""
    (name,), settings = words, read(EvaluateSettings, texts)
    with importing():
        from a3cjax.logs.terminal import print_evaluation
        from a3cjax.runs.evaluation import Evaluation
        from a3cjax.runs.folder import as_output
        from a3cjax.runs.loading import load
        from a3cjax.system.compilation import jax_settings
        from a3cjax.system.files import replace_file
    with refusing(OSError):
        output = as_output(settings.output) if settings.output else None

    def judge(supervisor: Supervisor) -> tuple[Evaluation, int]:
        with jax_settings():
            with refusing(ValueError, OSError, CheckpointError):
                agent = load(name, best=settings.best, trust=settings.trust)
            evaluation = agent.evaluate(
                settings.num_episodes,
                is_greedy=settings.greedy,
                sticky_actions=settings.sticky_actions,
                max_episode_steps=settings.max_episode_steps,
            )
            return evaluation, agent.snapshot.num_frames

    def judge_and_keep() -> None:
        evaluation, num_frames = watched(judge, settings.stall_timeout_seconds)
        result = {
            "parameters": "best" if settings.best else "final",
            "num_frames": num_frames,
            "sticky_actions": settings.sticky_actions,
            "max_episode_steps": settings.max_episode_steps,
            **evaluation.as_dict(),
        }
        path = output or default_path(name, settings, result)
        try:  # before they are shown: that may fail, too
            replace_file(path, json.dumps(result, indent=2) + "\n")
        except OSError as error:
            print_evaluation(evaluation)
            raise OutputError(f"the scores cannot be kept: {error}") from error
        print_evaluation(evaluation)
        print(f"written to {settings.output or path}")

    conclude(judge_and_keep)


def default_path(name: str, settings: EvaluateSettings, result: dict) -> Path:
    """In the run folder, or in the current one for an agent that is not in a folder of the user."""
    from a3cjax.runs.loading import own_folder

    words = ["evaluation", *(["best"] if settings.best else []), result["actions"]]
    if settings.sticky_actions is not None:
        words.append(f"sticky{settings.sticky_actions:g}")
    if settings.max_episode_steps is not None:
        words.append(f"steps{settings.max_episode_steps}")
    stem, folder = "-".join([*words, str(result["num_episodes"])]), own_folder(name)
    own = name.rpartition("/")[2]  # of hf://<user>/<name>
    return folder / f"{stem}.json" if folder else Path(f"{own}-{stem}.json")
