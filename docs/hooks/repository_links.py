"""Links of pages to files of the repository outside docs/ work on the site, too.

In the repository `../a3cjax/returns.py` leads to a file. Each such file becomes a page of the
site (code), is copied (pictures), or is a page already (README.md, CHANGELOG.md). `#L40` leads to
line 40 there. A link to a file that is not there is left alone, so that MkDocs reports it.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
DOCS, SOURCE = "docs", "source/"
# Pages that lie at the root of the repository, and where they stand on the site.
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
PICTURES = {".png", ".gif", ".svg", ".jpg", ".mp4"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "sh"}

# What the highlighter calls the lines of the only block of code on a page.
LINE = re.compile(r"__codelineno-\d+-(\d+)")

# A fenced block or code in a line, which are left alone, or the target of a link or picture.
LINK = re.compile(
    r"(?P<code>^(?P<fence>[ \t]*```+).*?^(?P=fence)[ \t]*$|`[^`\n]+`)"
    r"|\]\((?P<target>[^)\s#]+)(?P<rest>#[^)\s]*)?\)",
    re.DOTALL | re.MULTILINE,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, and every file that any page links to."""
    for name, src_uri in ROOT_PAGES.items():
        text = (REPOSITORY / name).read_text()
        files.append(File.generated(config, src_uri, content=text))
    wanted = {
        path
        for page in files.documentation_pages()
        for path in find_outside(page.content_string, folder_of(page.src_uri))
    }
    for path in sorted(wanted - set(ROOT_PAGES)):
        files.append(make_file(path, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at the places that files have on the site."""
    del config
    folder = folder_of(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri) or "."

    def point(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        path = resolve(link["target"], folder)
        place = place_on_site(path) if path is not None else None
        if place is None or files.get_file_from_path(place) is None:
            return link[0]
        return f"]({posixpath.relpath(place, here)}{link['rest'] or ''})"

    return LINK.sub(point, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names the lines of a source file `L40`, and tells MkDocs, which checks links, of them."""
    del config, files
    if not page.file.src_uri.startswith(SOURCE):
        return content
    lines = {f"L{line}" for line in LINE.findall(content)}
    page.present_anchor_ids = (page.present_anchor_ids or set()) | lines
    return LINE.sub(r"L\1", content)


def find_outside(markdown: str, folder: str) -> Iterator[str]:
    """The files outside docs/ that a page in this folder of the repository links to."""
    for link in LINK.finditer(markdown):
        path = None if link["code"] else resolve(link["target"], folder)
        if path is not None and not is_page_of_docs(path) and (REPOSITORY / path).is_file():
            yield path


def resolve(target: str, folder: str) -> str | None:
    """The path in the repository that a link means; None if it leads elsewhere."""
    if re.match(r"[a-z]+:|/", target):
        return None
    path = posixpath.normpath(posixpath.join(folder, target))
    return None if path.startswith("..") else path


def is_page_of_docs(path: str) -> bool:
    """Whether MkDocs knows the file by itself."""
    return path.startswith(f"{DOCS}/") and not path.startswith(f"{DOCS}/hooks/")


def folder_of(src_uri: str) -> str:
    """The folder in the repository of a page of the site."""
    if src_uri in ROOT_PAGES.values():
        return ""
    return posixpath.join(DOCS, posixpath.dirname(src_uri))


def place_on_site(path: str) -> str:
    """Where a file of the repository stands on the site, as MkDocs' source path."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    if is_page_of_docs(path):
        return path.removeprefix(f"{DOCS}/")
    suffix = "" if Path(path).suffix in PICTURES else ".md"
    return f"{SOURCE}{path}{suffix}"


def make_file(path: str, config: MkDocsConfig) -> File:
    """A picture as it is, or a page that shows a file."""
    source = REPOSITORY / path
    if source.suffix in PICTURES:
        return File.generated(config, place_on_site(path), abs_src_path=os.fspath(source))
    language = LANGUAGES.get(source.suffix, "text")
    # Four backticks: a file may hold fences of three.
    content = (
        f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n"
        f'# `{path}`\n\n````{language} linenums="1"\n{source.read_text()}\n````\n'
    )
    return File.generated(config, place_on_site(path), content=content)
