"""Notebooks are executed while the site is built, and shown with what they printed and drew.

They lie in the repository without outputs. A cell that raises fails the build.
"""

import base64
import os
import posixpath
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from traitlets.config import Config

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1800  # of a cell, on a very busy machine
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook, and its pictures."""
    for source in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = nbformat.reads(source.content_string, as_version=4)
        execute(notebook, source.src_uri)
        stem = source.src_uri.removesuffix(".ipynb")
        markdown, pictures = convert(notebook, posixpath.basename(stem))
        folder = posixpath.dirname(stem)
        files.append(File.generated(config, f"{stem}.md", content=markdown))
        for name, content in pictures.items():
            files.append(File.generated(config, posixpath.join(folder, name), content=content))
    return files


def execute(notebook: NotebookNode, name: str) -> None:
    """Runs all cells in a fresh process, in the root of the repository."""
    # The kernel, of this very Python, imports the package from this repository.
    os.environ["PYTHONPATH"] = os.fspath(REPOSITORY)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else the kernel warns about itself
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=TIMEOUT_SECONDS,
        resources={"metadata": {"path": os.fspath(REPOSITORY)}},
        # Not over TCP, where every user of the machine could listen.
        config=Config(KernelManager={"transport": "ipc"}),
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise PluginError(f"{name} fails:\n{ESCAPES.sub('', str(error))}") from error


def convert(notebook: NotebookNode, stem: str) -> tuple[str, dict[str, bytes]]:
    """An executed notebook as Markdown, with its pictures by file name.

    Args:
      notebook: with outputs.
      stem: of the names of the pictures.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell draws]({name})")
                continue
            text = output.get("text") or data.get("text/plain")
            if text:
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f"[This notebook]({stem}.ipynb), to run it yourself.")
    return "\n\n".join(parts) + "\n", pictures
