"""A report as Markdown, with the picture of report.png."""

from a3cjax.reports.content import Content, peer_note
from a3cjax.reports.tables import Table
from a3cjax.system.quoting import markdown


def render_table(table: Table) -> str:
    """A table, with columns of numbers aligned right."""
    lines = [
        "| " + " | ".join(markdown(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if is_numeric else "---" for is_numeric in table.numeric) + "|",
    ]
    lines.extend(
        "| " + " | ".join(markdown(cell.text) for cell in row) + " |" for row in table.rows
    )
    return "\n".join(lines)


def render_markdown(content: Content) -> str:
    """The whole report."""
    blocks = [f"# {markdown(content.title)}", markdown(content.subtitle) + "."]
    for card in content.cards:
        facts = "".join(
            f"; {markdown(name)} {markdown(value)}"
            for name, value in (*card.facts, *card.published)
        )
        heading, value, caption = map(markdown, (card.heading, card.value, card.caption))
        blocks.append(f"- **{heading}: {value}** ({caption}){facts}")
    if content.missing:
        blocks += ["## What is missing", "\n".join(f"- {markdown(n)}" for n in content.missing)]
    if content.warnings:
        blocks += ["## What looks wrong", "\n".join(f"- {markdown(w)}" for w in content.warnings)]
    blocks += ["## Learning curves", "![Learning curves, scores and speed](report.png)"]
    blocks += ["## Scores", render_table(content.scores)]
    if content.normalized is not None:
        blocks += ["## Human-normalised scores", render_table(content.normalized)]
        blocks += [f"{markdown(peer_note())}."]
    if content.aggregate_table is not None:
        blocks += ["## Over games and seeds", render_table(content.aggregate_table)]
    blocks += ["## How training went", render_table(content.course)]
    blocks += ["## Speed", render_table(content.speed), "## Settings"]
    if content.settings is not None:
        blocks.append(render_table(content.settings))
    else:
        blocks.append("All runs share every setting but the seed.")
    blocks += ["The same in all runs: " + markdown(", ".join(content.shared_settings)) + "."]
    blocks += ["## Where the runs come from", render_table(content.origin)]
    return "\n\n".join(blocks) + "\n"
