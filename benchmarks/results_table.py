"""Figures of a benchmark as a table and as rows of a CSV file."""

import csv
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.console
import rich.table

from a3cjax.system import machine, provenance


class Results:
    """Figures of a benchmark: printed as a table, appended to a CSV file with their origin."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: list[dict[str, object]] = []
        self._origin = {
            "commit": provenance.describe_commit(),
            **machine.describe_machine(),
            "versions": json.dumps(provenance.describe_versions()),
        }

    def add(self, figure: str, values: Sequence[float], unit: str) -> float:
        """Takes the repetitions of a figure; returns their median."""
        median = statistics.median(values)
        self._rows.append(
            {
                "figure": figure,
                "median": f"{median:.4g}",
                "min": f"{min(values):.4g}",
                "max": f"{max(values):.4g}",
                "repetitions": len(values),
                "unit": unit,
            }
        )
        return median

    def write(self, title: str) -> None:
        """Prints the table and appends the rows to the file."""
        table = rich.table.Table(title=title)
        for name in ("figure", "median", "min", "max", "unit"):
            table.add_column(name, justify="left" if name in ("figure", "unit") else "right")
        for row in self._rows:
            table.add_row(*(str(row[name]) for name in ("figure", "median", "min", "max", "unit")))
        width = None if sys.stdout.isatty() else 120  # in a pipe rich takes 80
        rich.console.Console(highlight=False, soft_wrap=True, width=width).print(table)
        rows: list[Mapping[str, object]] = [{**row, **self._origin} for row in self._rows]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", newline="") as file:
            is_new = not os.fstat(file.fileno()).st_size
            writer = csv.DictWriter(file, rows[0].keys())
            if is_new:
                writer.writeheader()
            writer.writerows(rows)
