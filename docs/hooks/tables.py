"""Long names in tables may be broken where their words end: columns then share the width."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
# Behind these, if the name goes on.
WORD_END = re.compile(r"(::|[_=/]|\.(?=_))(?=\w)")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Allows line breaks within the code in the cells of tables."""
    del page, config, files

    def allow(code: re.Match[str]) -> str:
        return WORD_END.sub(r"\1<wbr>", code[0])

    return CELL.sub(lambda cell: CODE.sub(allow, cell[0]), content)
