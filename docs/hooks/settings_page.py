"""The tables of docs/settings.md, made from the declarations of the settings.

    python docs/hooks/settings_page.py

rewrites what stands between `<!-- table: train -->` and `<!-- end -->` on the page; a test
compares it. The tables are those of the verbs, and `words`: what other libraries call a setting.
"""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from a3cjax.commands import VERBS
from a3cjax.config.declaring import (
    KIND_NAMES,
    Rule,
    Settings,
    kinds_and_words,
    read_other_names,
    show,
)
from a3cjax.config.settings import Config

PAGE = Path(__file__).parents[1] / "settings.md"
TABLE = re.compile(r"<!-- table: (?P<name>\w+) -->\n(?:(?!<!--).*\n)*<!-- end -->")


def refresh(text: str) -> str:
    """The text of the page with its tables as they are now."""

    def fill(table: re.Match[str]) -> str:
        name = table["name"]
        return f"<!-- table: {name} -->\n\n{make_table(name)}\n\n<!-- end -->"

    return TABLE.sub(fill, text)


def make_table(name: str) -> str:
    """The table of a verb, or of the words that other libraries have."""
    return "\n".join(words_table() if name == "words" else verb_table(name))


def verb_table(verb: str) -> Iterator[str]:
    """The settings of a verb that no other verb has before it, each group under its title."""
    kinds = importlib.import_module(f"a3cjax.commands.{verb}").SETTINGS
    if verb == "sweep":
        kinds = kinds[:1]  # the others are those of its runs
    group = None
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        if field.metadata["group"] != group:
            if group is not None:
                yield ""
            group = field.metadata["group"]
            if group:
                yield from (f"### {group}", "")
            yield from ("| setting | default | can be | what it is |", "|---|---|---|---|")
        text = escape(field.metadata["text"])
        yield f"| `{field.name}` | `{show(field.default)}` | {domain(field)} | {text} |"


def words_table() -> Iterator[str]:
    """What other libraries call the settings of the verbs, in their order."""
    yield from ("| here | elsewhere |", "|---|---|")
    modules = [importlib.import_module(f"a3cjax.commands.{verb}") for verb in VERBS]
    kinds: list[type[Settings]] = [Config, *(kind for m in modules for kind in m.SETTINGS)]
    names = dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind))
    for name in names:
        if name in read_other_names():
            words = ", ".join(f"`{word}`" for word in read_other_names()[name].split())
            yield f"| `{name}` | {words} |"


def domain(field: dataclasses.Field) -> str:
    """What a setting can be: `whole number, 1 to 1,000; null`."""
    kinds, words = kinds_and_words(field)
    rule: Rule | None = field.metadata["rule"]
    if rule is not None and rule.names():
        return ", ".join(f"`{name}`" for name in rule.names())
    names = [KIND_NAMES[kind].removeprefix("a ") for kind in kinds if kind in KIND_NAMES]
    if bool in kinds:
        names = ["`true`, `false`"]
    bounds = f", {rule.text}" if rule is not None else ""
    kind = "path" if field.metadata["is_path"] else " or ".join(names)
    words += ("null",) if type(None) in kinds else ()
    return "; ".join([escape(kind + bounds), *(f"`{word}`" for word in words)])


def escape(text: str) -> str:
    """Text as Markdown that shows it as it stands."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    before = PAGE.read_text()
    after = refresh(before)
    PAGE.write_text(after)
    print(f"{PAGE.name}: {'rewritten' if after != before else 'nothing has changed'}")
