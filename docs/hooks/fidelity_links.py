"""Links of docs/fidelity.md that lead to the very line: `[`symbol`](../a3cjax/file.py#L40)`.

    python docs/hooks/fidelity_links.py

finds every symbol and rewrites the lines on the page; a symbol that has moved is followed to the
one file of the package that has it now. A symbol is a function, a class or a name that is
assigned, dotted where it lies within another, or a setting of a preset; what follows its name,
as in `unroll_length=5`, must be its value there.
"""

import ast
import os
import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "fidelity.md"
LINK = re.compile(r"\[`(?P<symbol>[^`]+)`\]\((?P<path>[^)#\s]+)#L(?P<line>\d*)\)")


def refresh(text: str) -> str:
    """The text of the page with all its links as they are now.

    Raises:
      LookupError: if nothing, or more than one file, defines what a link names.
    """

    def point(link: re.Match[str]) -> str:
        path = PAGE.parent / link["path"]
        line = find_line(path, link["symbol"])
        if line is None:
            others = [(p, find_line(p, link["symbol"])) for p in REPOSITORY.glob("a3cjax/**/*.py")]
            found = [(p, line) for p, line in others if line is not None]
            if len(found) != 1:
                raise LookupError(
                    f"{link['symbol']} must be defined by one file, as it was by {link['path']}, "
                    f"got {len(found)}."
                )
            path, line = found[0]
        return f"[`{link['symbol']}`]({os.path.relpath(path, PAGE.parent)}#L{line})"

    return LINK.sub(point, text)


def find_line(path: Path, symbol: str) -> int | None:
    """The line of a file, from 1 on, that defines a symbol; None if there is none."""
    name, equals, value = symbol.partition("=")
    if not path.is_file():
        return None
    text = path.read_text()
    is_code = path.suffix == ".py"
    found = find_definition(ast.parse(text), name) if is_code else find_setting(text, name)
    if found is None or (equals and found[1] != yaml.safe_load(value)):
        return None
    return found[0]


def find_setting(text: str, name: str) -> tuple[int, object] | None:
    """Line and value of a setting in YAML."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(f"{name}:"):
            return number, yaml.safe_load(line)[name]
    return None


def find_definition(tree: ast.AST, name: str) -> tuple[int, object] | None:
    """Line of a definition in Python, and its value or default if that is a plain one."""
    node: ast.AST = tree
    for part in name.split("."):
        found = next((child for child in ast.walk(node) if part in names_of(child)), None)
        if found is None:
            return None
        node = found
    assert isinstance(node, ast.stmt)
    return node.lineno, value_of(node)


def names_of(node: ast.AST) -> list[str]:
    """The names that a statement defines."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name()):
            return [node.target.id]
    return []


def value_of(node: ast.stmt) -> object:
    """What is assigned; of `name: kind = setting(default, ...)` the default."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Call) and value.args:
        value = value.args[0]
    try:
        return ast.literal_eval(value) if isinstance(value, ast.expr) else None
    except ValueError:
        return None


if __name__ == "__main__":
    before = PAGE.read_text()
    after = refresh(before)
    PAGE.write_text(after)
    links = list(zip(LINK.finditer(before), LINK.finditer(after), strict=True))
    moved = [new["symbol"] for old, new in links if old["line"] != new["line"]]
    print(f"{len(links)} links, {len(moved)} lines changed: {', '.join(moved) or 'none'}")
