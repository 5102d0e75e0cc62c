"""Makes a small folder of a run: `a3cjax publish <run folder> results/pong`.

It holds the parameters, a model card and where they come from; `a3cjax.load` reads it.
"""

import argparse
import sys
from pathlib import Path

from a3cjax.errors import CheckpointError
from a3cjax.runs.publishing import publish


def main() -> None:
    """Parses the command line and publishes."""
    parser = argparse.ArgumentParser(description="Makes a small folder of a trained agent.")
    parser.add_argument("run_dir", type=Path, help="a run folder with checkpoints/ in it")
    parser.add_argument("output_dir", type=Path, help="is made, or its files written over")
    arguments = parser.parse_args()
    try:
        output_dir = publish(arguments.run_dir, arguments.output_dir)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    size = sum(path.stat().st_size for path in output_dir.iterdir())
    print(f"written to {output_dir}, {size / 1e6:.1f} MB")
