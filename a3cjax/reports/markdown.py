"""A report as Markdown, with the picture of report.png."""

import re

from a3cjax.reports.content import Content, peer_note
from a3cjax.reports.tables import Table


def escape(text: str) -> str:
    """Text on one line without a meaning in Markdown or HTML, also within a table."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def render_table(table: Table) -> str:
    """A table, columns of numbers to the right."""
    lines = [
        "| " + " | ".join(escape(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if is_numeric else "---" for is_numeric in table.numeric) + "|",
    ]
    lines.extend("| " + " | ".join(escape(cell.text) for cell in row) + " |" for row in table.rows)
    return "\n".join(lines)


def render_markdown(content: Content) -> str:
    """The whole report."""
    blocks = [f"# {escape(content.title)}", escape(content.subtitle) + "."]
    for card in content.cards:
        facts = "".join(
            f"; {escape(name)} {escape(value)}" for name, value in (*card.facts, *card.published)
        )
        line = f"- **{escape(card.heading)}: {escape(card.value)}** ({escape(card.caption)}){facts}"
        blocks.append(line)
    if content.missing:
        blocks += ["## What is missing", "\n".join(f"- {escape(n)}" for n in content.missing)]
    blocks += ["## Learning curves", "![Learning curves, scores and speed](report.png)"]
    blocks += ["## Scores", render_table(content.scores)]
    if content.normalized is not None:
        blocks += ["## Human-normalised scores", render_table(content.normalized)]
        blocks += [f"{escape(peer_note())}."]
    if content.aggregate_table is not None:
        blocks += ["## Over games and seeds", render_table(content.aggregate_table)]
    blocks += ["## Speed", render_table(content.speed), "## Settings"]
    if content.settings is not None:
        blocks.append(render_table(content.settings))
    else:
        blocks.append("All runs share every setting but the seed.")
    blocks += ["The same in all runs: " + escape(", ".join(content.shared_settings)) + "."]
    blocks += ["## Where the runs come from", render_table(content.origin)]
    return "\n\n".join(blocks) + "\n"
