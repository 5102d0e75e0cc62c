"""Agents by name: those that come with the package, or folders of one's own."""

import os
from pathlib import Path

TRAINED = Path(__file__).parents[1] / "trained"


def trained_agents() -> list[str]:
    """The names of the agents that come with the package."""
    return sorted(path.parent.name for path in TRAINED.glob("*/config.yaml"))


def find_agent(name: str | os.PathLike[str]) -> Path:
    """The folder of an agent.

    Args:
      name: a run folder, a published one, or, where there is no such folder, the name of an
        agent that comes with the package: `pong` or `Pong`.

    Raises:
      FileNotFoundError: if there is neither; names what there is.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if str(name).lower() in trained_agents():
        return TRAINED / str(name).lower()
    raise FileNotFoundError(
        f"There is no run folder {name}; agents that come with a3cjax: "
        f"{', '.join(trained_agents())}."
    )
