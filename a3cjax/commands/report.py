"""Lays runs over each other and over published ones.

    a3cjax report runs/Pong/<folder> runs/Pong/<folder>
    a3cjax report results/pong-seed* output=pong-seeds title="Pong, three seeds"

It leaves report.html (one file, opened without a network), report.md, report.png and report.csv;
or, with `output=curves.png`, a picture of the learning curves alone.
"""

import dataclasses
from pathlib import Path

from a3cjax.commands.arguments import read, refusing
from a3cjax.config.declaring import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """Settings of `a3cjax report`."""

    output: str = setting(
        "report", "folder to write to; or a PNG, for the learning curves alone", is_path=True
    )
    title: str | None = setting(None, "null: the games")
    published: bool = setting(True, "lay published learning curves under ours")


SETTINGS, PLACES = (ReportSettings,), "<run folder> ..."


def main(words: list[str], texts: dict[str, str]) -> None:
    """Write a report."""
    settings = read(ReportSettings, texts)
    from a3cjax.reports import RunFolderError, write_report

    with refusing(RunFolderError, OSError):
        path = write_report(
            [Path(name) for name in words],
            Path(settings.output),
            settings.title,
            show_published=settings.published,
        )
    print(f"written to {path}")
