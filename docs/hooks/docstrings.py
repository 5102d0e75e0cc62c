"""How docstrings are read: what is laid out by hand, equations and tables, keeps its layout.

A docstring indents its equations and aligns the columns of its tables with blanks, for people
who read the source. As Markdown they would run into one paragraph; as code blocks they do not.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note):")
ALIGNED = re.compile(r"\S {3,}\S")


class KeepLayout(griffe.Extension):
    """Makes code blocks of laid out paragraphs, in every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each function, class, module and attribute."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = keep_layout(obj.docstring.value)


def keep_layout(docstring: str) -> str:
    """Fences every paragraph before the first section that is indented or aligned with blanks."""
    paragraphs = docstring.split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        if SECTION.match(paragraph):
            break
        lines = paragraph.splitlines()
        is_indented = all(line.startswith("  ") for line in lines if line)
        if lines and (is_indented or any(ALIGNED.search(line) for line in lines)):
            paragraphs[i] = f"```text\n{paragraph}\n```"
    return "\n\n".join(paragraphs)
