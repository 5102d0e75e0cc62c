"""Equations as MathML, made while the site is built: nothing is to be fetched to show them.

Pages hold them in TeX, between dollar signs; arithmatex finds them there, and every browser
of today renders MathML by itself.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
# A prime is raised by itself; as a superscript it would fly.
PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns what arithmatex marked into MathML."""
    del config, files

    def render(equation: re.Match[str]) -> str:
        tex = html.unescape(equation["tex"]).strip()
        is_block = equation["tag"] == "div"
        try:
            mathml = convert(tex, display="block" if is_block else "inline")
        except Exception as error:  # its exceptions have no common class
            raise PluginError(f"{page.file.src_uri} has an equation that fails: {tex}") from error
        mathml = PRIME.sub(r"<mrow>\1<mo>&#x02032;</mo></mrow>", mathml)
        return f'<div class="equation">{mathml}</div>' if is_block else mathml

    content = EQUATION.sub(render, content)
    if "arithmatex" in content:
        raise PluginError(f"{page.file.src_uri} has an equation that was not rendered.")
    return content
