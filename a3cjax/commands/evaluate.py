"""Repeats the final evaluation of a run: `a3cjax evaluate <run folder>`."""

import argparse
import json
import os
import sys
from pathlib import Path

from a3cjax.errors import CheckpointError
from a3cjax.logs.terminal import print_evaluation
from a3cjax.runs.loading import load
from a3cjax.system.compilation import configure_jax


def main() -> None:
    """Evaluates a checkpoint, prints the table and writes evaluation-*.json."""
    parser = argparse.ArgumentParser(description="Plays full games with a trained agent.")
    parser.add_argument("run_dir", type=Path, help="a run folder with checkpoints/ in it")
    parser.add_argument("--episodes", type=positive_int, help="how many; default: as in the run")
    parser.add_argument("--greedy", action="store_true", help="most probable actions, not sampled")
    parser.add_argument("--best", action="store_true", help="the best parameters, not the last")
    parser.add_argument(
        "--sticky-actions",
        type=probability,
        metavar="P",
        help="each frame repeats the last action with this probability (0.25: Machado et al. "
        "2018); default: as in training",
    )
    arguments = parser.parse_args()
    configure_jax()
    sys.path.append(os.getcwd())  # one's own Gymnasium environments
    try:
        evaluation = load(arguments.run_dir, best=arguments.best).evaluate(
            arguments.episodes, is_greedy=arguments.greedy, sticky_actions=arguments.sticky_actions
        )
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print_evaluation(evaluation)
    result = evaluation.as_dict()
    sticky = arguments.sticky_actions
    name = "-".join(
        [
            "evaluation",
            *(["best"] if arguments.best else []),
            result["actions"],
            *([] if sticky is None else [f"sticky{sticky:g}"]),
            str(result["num_episodes"]),
        ]
    )
    result = {
        "parameters": "best" if arguments.best else "final",
        "sticky_actions": sticky,
    } | result
    path = arguments.run_dir / f"{name}.json"
    try:
        path.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        print(f"error: the scores cannot be kept: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"written to {path}")


def positive_int(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


def probability(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {number}")
    return number
