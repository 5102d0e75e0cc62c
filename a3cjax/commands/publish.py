"""Makes a small folder of a trained agent, to pass on.

    a3cjax publish runs/Pong/<folder> my-pong

It holds the parameters, a model card and where they come from; `a3cjax.load` reads it.
"""

from pathlib import Path

from a3cjax.commands.arguments import refusing
from a3cjax.errors import CheckpointError

SETTINGS, PLACES = (), "<run folder> <new folder>"


def main(words: list[str], texts: dict[str, str]) -> None:
    """Publishes an agent."""
    del texts  # it has no settings
    run_dir, output_dir = words
    from a3cjax.runs.publishing import publish

    with refusing(ValueError, OSError, CheckpointError):
        folder = publish(Path(run_dir), Path(output_dir))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"written to {folder}, {size / 1e6:.1f} MB")
