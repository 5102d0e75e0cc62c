"""What the documents show: fenced blocks, commands, settings, paths and links in the text."""

import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
FENCED = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,})(?P<info>[^`\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
IN_TEXT = re.compile(r"`((?:\.venv/bin/)?(?:python|make|a3cjax) [^`\n]+)`")
SETTINGS = re.compile(r"`((?:[a-z]\w*=[\w./:+-]+)(?: [a-z]\w*=[\w./:+-]+)*)`")
# A path in the text that begins with a folder of the repository.
PATH = re.compile(r"`((?:a3cjax|benchmarks|docs|examples|experiments|results|tests)/[\w./-]*)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)\s]*)?\)")


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
    """What is read from the repository's front page on: README.md and all pages of docs/."""
    return [*(ROOT / name for name in AT_THE_ROOT), *sorted((ROOT / "docs").rglob("*.md"))]


def load_hook(name: str) -> ModuleType:
    """A hook as MkDocs loads it: from its file, since docs/ is no package."""
    path = ROOT / "docs" / "hooks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"hooks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def read_paths(page: Path) -> Iterator[Path]:
    """The files and folders of the repository that a page's text names or links to."""
    text = FENCED.sub("", page.read_text())
    yield from (ROOT / path for path in PATH.findall(text))
    yield from (page.parent / target for target in LINK.findall(re.sub(r"`[^`\n]+`", "", text)))
