"""Writes a report on runs: `a3cjax report <run folders…>`.

It leaves report.html (one file, opened without a network), report.md, report.png and report.csv;
or, with `--output curves.png`, a picture of the learning curves alone.
"""

import argparse
import sys
from pathlib import Path

from a3cjax.reports import RunFolderError, write_report


def main() -> None:
    """Parses the command line and writes."""
    parser = argparse.ArgumentParser(description="Writes a report on runs, as one HTML file.")
    parser.add_argument("run_dirs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        help="folder to write to; or a PNG, for the learning curves alone",
    )
    parser.add_argument("--title", help="default: the games")
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="lay published learning curves under ours",
    )
    arguments = parser.parse_args()
    try:
        path = write_report(
            arguments.run_dirs,
            arguments.output,
            arguments.title,
            show_published=arguments.published,
        )
    except (RunFolderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {path}")
