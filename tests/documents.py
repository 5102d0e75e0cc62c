"""What README.md and docs/ show: fenced blocks, and commands in the text."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FENCED = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,})(?P<info>[^`\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
IN_TEXT = re.compile(r"`((?:\.venv/bin/)?(?:python|make|a3cjax) [^`\n]+)`")
SETTINGS = re.compile(r"`((?:[a-z]\w*=[\w./:+-]+)(?: [a-z]\w*=[\w./:+-]+)*)`")


class Block(NamedTuple):
    """A fenced block: its page, the line its code begins at, language and code.

    `title` is the name of the file that the reader is to save it as, "" for none.
    """

    page: Path
    line: int
    language: str
    title: str
    code: str


def pages() -> list[Path]:
    """README.md and all pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_blocks(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, or of a text that stands for it.

    Raises:
      AssertionError: if a fence is not closed.
    """
    text = page.read_text() if text is None else text
    blocks = []
    for match in FENCED.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        line = text.count("\n", 0, match.start("code")) + 1
        code = textwrap.dedent(match["code"])
        blocks.append(Block(page, line, language, title[1] if title else "", code))
    left = FENCED.sub("", text)
    assert not re.search(r"^[ \t]*```", left, re.MULTILINE), f"{page} must close every fence."
    return blocks


def read_commands(block: Block) -> Iterator[str]:
    """The commands of a shell block, continued lines joined, comments left out."""
    for line in block.code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def read_text_commands(page: Path) -> list[str]:
    """The commands `a3cjax …`, `python …` and `make …` in a page's text."""
    return IN_TEXT.findall(FENCED.sub("", page.read_text()))


def read_text_settings(page: Path) -> list[dict[str, str]]:
    """The settings `name=value …` in a page's text."""
    spans = SETTINGS.findall(FENCED.sub("", page.read_text()))
    return [dict(part.split("=", 1) for part in span.split()) for span in spans]
