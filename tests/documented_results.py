"""Commands that train, play and report, wherever the documents print them, and what they come to.

What is read are the pages, the docstrings of the program, and the comments above presets. A
command with a place to fill in, such as `<run folder>`, is a form: others show what comes of it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.documented_commands import PLACEHOLDER
from tests.documents import ROOT, pages, read_blocks, read_commands, read_text_commands

RESULTS = ROOT / "tests" / "learning" / "documented_results.yaml"
RUNS = re.compile(
    r"(?:a3cjax|python -m a3cjax) (?:train|sweep|evaluate|play|report|publish|doctor)\b"
    r"|python experiments/run\.py\b|make (?:train|control|atari5)\b"
)
LINES_AROUND = 14  # of a block, in which its figures stand


class Printed(NamedTuple):
    """A command where it is printed: `text` is what stands around it, "" for one in a sentence."""

    command: str
    place: str
    text: str


def read_printed() -> list[Printed]:
    """All commands that are no forms, in the order of the documents."""
    found = [*_of_pages(), *_of_docstrings(), *_of_presets()]
    return [one for one in found if is_run(one.command)]


def is_run(command: str) -> bool:
    """Whether a reader can start it as it stands, and something is run then."""
    return bool(RUNS.match(command)) and not PLACEHOLDER.search(command) and "--help" not in command


def _of_pages() -> Iterator[Printed]:
    for page in pages():
        lines = page.read_text().splitlines()
        name = str(page.relative_to(ROOT))
        for block in read_blocks(page):
            if block.language == "sh":
                end = block.line + block.code.count("\n")
                text = "\n".join(lines[max(0, block.line - LINES_AROUND) : end + LINES_AROUND])
                for command in read_commands(block):
                    yield Printed(_bare(command), f"{name}:{block.line}", text)
        yield from _in_sentences(name, read_text_commands(page))


def _of_docstrings() -> Iterator[Printed]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in (*sorted((ROOT / "a3cjax").rglob("*.py")), ROOT / "experiments" / "run.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = (ast.get_docstring(node) if isinstance(node, kinds) else None) or ""
            name = str(path.relative_to(ROOT))
            for command in re.findall(r"^    +(\S.*)$", text, re.MULTILINE):
                yield Printed(_bare(command), name, text)
            yield from _in_sentences(name, re.findall(r"`([^`\n]+)`", text))


def _of_presets() -> Iterator[Printed]:
    for path in sorted((ROOT / "a3cjax" / "config" / "presets").glob("*.yaml")):
        text = path.read_text()
        for command in re.findall(r"^#   +(\S.*)$", text, re.MULTILINE):
            yield Printed(_bare(command), str(path.relative_to(ROOT)), text)


def _in_sentences(place: str, commands: list[str]) -> Iterator[Printed]:
    """Those with arguments; without, they name a verb."""
    for command in commands:
        if RUNS.sub("", command, count=1).strip():
            yield Printed(_bare(command), place, "")


def _bare(command: str) -> str:
    """A command without the comment behind it, and with single blanks."""
    return " ".join(re.sub(r"\s+#\s.*", "", command).split())


def read_results(path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """What each command must come to: see the file."""
    return yaml.safe_load(path.read_text())


def text_beside(result: Mapping[str, Any]) -> str:
    """What a document must say beside a command."""
    least, most = result.get("mean", (0, 0))
    return result["beside"].format(least=f"{least:g}", most=f"{most:g}").replace("-", "−")


def says(text: str, wanted: str) -> bool:
    """Whether a text has these words, wherever its lines are broken."""
    return " ".join(wanted.split()) in " ".join(re.sub(r"\n# ", "\n", text).split())


def check_printed(printed: Printed, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that a command has a result, and that the document tells it.

    Raises:
      AssertionError: says what is missing, and where.
    """
    result = results.get(printed.command)
    assert result is not None, f"{RESULTS.name} has no result of `{printed.command}`"
    wanted = text_beside(result)
    is_told = not printed.text or says(printed.text, wanted)
    assert is_told, f"{printed.place}: beside `{printed.command}` must stand: {wanted}"
