"""Writes a report: page, Markdown, picture and table of its runs."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from a3cjax.reports.content import Content, make_content
from a3cjax.reports.diagnosis import diagnose
from a3cjax.reports.markdown import render_markdown
from a3cjax.reports.overview import write_curves, write_overview
from a3cjax.reports.page import render_page
from a3cjax.reports.runs import read_runs
from a3cjax.runs.tables import TIME_PARTS, check_no_run
from a3cjax.system.files import new_folder, replace_file
from a3cjax.system.quoting import cell


def write_report(
    run_dirs: Sequence[Path | str],
    output: Path | str,
    title: str | None = None,
    *,
    show_published: bool = True,
) -> Path:
    """Writes report.html, report.md, report.png and report.csv.

    Args:
      run_dirs: run folders, at least one; for half-finished ones the report says what is missing.
      output: the folder where the files go; it is made if needed, and files in it are replaced.
        Or the name of a PNG: then only that is written, with the learning curves.
      title: of the report; None for the names of the games.
      show_published: lays published learning curves under ours.

    Returns:
      The path of report.html, or of the PNG.

    Raises:
      ConfigError: if there is no run folder, one holds no settings, or the output is one.
      OSError: if the output cannot be written.
    """
    output = Path(output)
    check_no_run("output", output)
    runs = read_runs([Path(run_dir) for run_dir in run_dirs])
    content = make_content(runs, title, show_published=show_published)
    try:
        return _write(content, output)
    except OSError as error:
        told = OSError(f"output must be writable, got {output}: {error}")
        told.errno = error.errno
        raise told from error


def _write(content: Content, output: Path) -> Path:
    if output.suffix.lower() == ".png":
        output.parent.mkdir(parents=True, exist_ok=True)
        write_curves(content, output)
        return output
    path = output / "report.html"
    # Files from elsewhere may hold what is no letter in any encoding.
    page = render_page(content).encode(errors="backslashreplace").decode()
    with new_folder(output):
        replace_file(path, page)
        replace_file(output / "report.md", render_markdown(content))
        replace_file(output / "report.csv", render_csv(content))
        write_overview(content, output / "report.png")
    return path


def render_csv(content: Content) -> str:
    """A row for each run, with numbers in full; a cell is empty if its value is unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        (
            *("run", "game", "algorithm", "method", "seed", "num_frames", "training_seconds"),
            *("final_score", "final_score_of", "num_final_games", "best_evaluation"),
            *("best_training", "final_human_normalized", "best_human_normalized"),
            *("frames_to_human", "frames_per_second", "staleness", "lock_wait_fraction"),
            *(f"{part}_fraction" for part in TIME_PARTS),
            *("commit", "notes", "warnings"),
        )
    )
    for members in content.games:
        for group in members:
            atari = group.atari
            for run in group.runs:
                final = run.final_score
                normalized = [
                    atari.normalize(score) if atari else math.nan
                    for score in (final.mean, run.best_score)
                ]
                cells = (
                    *(run.name, run.env, run.algorithm, group.label, run.seed),
                    *(run.num_frames, run.wall_seconds, final.mean, final.kind),
                    *(len(final.games), run.best_evaluation, run.best_training, *normalized),
                    run.frames_to(atari.human) if atari else math.nan,
                    *(run.frames_per_second, run.typical("staleness_mean")),
                    run.typical("lock_wait_fraction"),
                    *run.time_fractions.values(),
                    *(str(run.summary.get("commit", "")), "; ".join(run.notes)),
                    "; ".join(warned.sentence for warned in diagnose(run)),
                )
                writer.writerow([_plain(value) for value in cells])
    return buffer.getvalue()


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return cell(value) if isinstance(value, str) else value
    return "" if not math.isfinite(value) else f"{value:.10g}"
