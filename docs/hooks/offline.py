"""After the build: a page that would fetch anything from elsewhere fails it."""

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

# What a browser loads by itself. Links in the text may lead elsewhere: people click on them.
LOADED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
}
# They only tell something, and nothing is loaded.
TELLING = {"canonical", "next", "prev", "edit"}
EXTERNAL = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s]+)""")


class _Loads(HTMLParser):
    """Gathers the external addresses that a page loads."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []
        self._is_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._is_style = tag == "style"
        if values.get("style"):
            self.addresses += IN_STYLES.findall(str(values["style"]))
        if tag == "link" and values.get("rel") in TELLING:
            return
        for name in LOADED.get(tag, ()):
            value = values.get(name)
            if value and EXTERNAL.match(value):
                self.addresses.append(value)

    def handle_data(self, data: str) -> None:
        if self._is_style:
            self.addresses += IN_STYLES.findall(data)


def find_external(folder: Path) -> list[str]:
    """The external addresses that pages and style sheets under a folder load, with their file."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html":
            loads = _Loads()
            loads.feed(path.read_text())
            found += [f"{path.relative_to(folder)}: {address}" for address in loads.addresses]
        elif path.suffix == ".css":
            addresses = IN_STYLES.findall(path.read_text())
            found += [f"{path.relative_to(folder)}: {address}" for address in addresses]
    return found


def on_post_build(config: MkDocsConfig) -> None:
    """Fails the build if the site needs the network."""
    found = find_external(Path(config.site_dir))
    if found:
        raise PluginError("The site must work without a network, but loads:\n" + "\n".join(found))
