"""Code in pages, taken from the files it stands in, so that it cannot rot.

A line that is nothing but a link `[a3cjax/returns.py: n_step_returns](../a3cjax/returns.py)`
names a function, class or method of a file, nested ones as `make_a3c.loss`. On the site its
code follows the link, without its docstring; elsewhere the line stays the link it is.
"""

import ast
import re
import textwrap
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
REFERENCE = re.compile(r"^\[(?P<file>[\w/]+\.py): (?P<name>[\w.]+)\]\(\S+\)$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the code that a line refers to below it."""
    del config, files

    def show(reference: re.Match[str]) -> str:
        try:
            code = read_code(REPOSITORY / reference["file"], reference["name"])
        except (OSError, LookupError) as error:
            message = f"{page.file.src_uri} refers to code that is not there: {error}."
            raise PluginError(message) from error
        return f"{reference[0]}\n\n```python\n{code}\n```"

    return REFERENCE.sub(show, markdown)


def read_code(path: Path, name: str) -> str:
    """The code of one definition in a file, at the left margin and without its docstring.

    Args:
      path: a Python file.
      name: of a function or class in it; a dotted one lies within another.

    Raises:
      LookupError: if there is no such definition.
    """
    text = path.read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = find_definition(node, part, path)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = dict(enumerate(text.splitlines(), start=1))
    skipped: set[int] = set()
    if ast.get_docstring(node) is not None and len(node.body) > 1:
        docstring = node.body[0]
        # The blank line after it goes, too.
        skipped = set(range(docstring.lineno, node.body[1].lineno))
        skipped -= {i for i in skipped if lines[i].lstrip().startswith("#")}
    end = node.end_lineno or first
    return textwrap.dedent("\n".join(lines[i] for i in range(first, end + 1) if i not in skipped))


def find_definition(parent: ast.AST, name: str, path: Path) -> ast.AST:
    """The function or class of that name within a definition or a file."""
    for node in ast.walk(parent):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"no definition of {name} in {path.relative_to(REPOSITORY)}")
