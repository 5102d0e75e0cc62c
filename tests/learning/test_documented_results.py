"""Every command that the documents print is run to its end, and comes to what they say."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import av
import matplotlib.pyplot
import nbformat
import pytest

from tests.documented_results import read_printed, read_results
from tests.documents import ROOT, read_blocks

RESULTS = read_results()
# The mean in the table that closes a training or an evaluation.
MEAN = re.compile(r"┃\s+mean ┃\s+median .*\n┡.*\n│\s*(-?[\d.,]+) │")
STARTED_IN = Path.cwd()
FIGURES = os.environ.get("A3CJAX_FIGURES")
MINUTES = {"seconds": 5, "minutes": 55, "hours": 55}  # after which a command hangs


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs a command as a reader of the documents does; returns what it printed.

    In an empty folder with a checkout's files; `a3cjax`, `python` and make's `.venv` are this
    program with this Python.
    """
    for folder in (".venv/bin", "results"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "benchmarks", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    for run in (ROOT / "results").iterdir():
        if run.is_dir() and run.name != "control":
            (tmp_path / "results" / run.name).symlink_to(run)
    python = shlex.quote(sys.executable)
    for name, words in (("python", ""), ("a3cjax", " -m a3cjax")):
        path = tmp_path / ".venv" / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {python}{words} "$@"\n')
        path.chmod(0o755)
    for name in ("training", "development"):
        (tmp_path / ".venv" / f".installed-for-{name}").touch()
    path = f"{tmp_path / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}

    def run(command: str, minutes: float) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60 * minutes,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    monkeypatch.chdir(tmp_path)
    return run


def write_files(command: str) -> None:
    """Writes the files that the page of a command asks its reader to write."""
    for printed in read_printed():
        page = ROOT / printed.place.partition(":")[0]
        if printed.command == command and page.suffix == ".md":
            for block in read_blocks(page):
                if block.title:
                    Path(block.title).write_text(block.code)


def film_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames / float(stream.average_rate)


def note(line: str) -> None:
    """Prints a figure, and writes it into the file that A3CJAX_FIGURES names."""
    print(line)
    if FIGURES:
        with (STARTED_IN / FIGURES).open("a") as file:
            file.write(line + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", RESULTS)
def test_documented_command_comes_to_what_is_written(command, shell):
    if "cluster=ray" in command and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    result = RESULTS[command]
    law, words = result, ""
    if "small" in result and "A3CJAX_WHOLE" not in os.environ:
        law = result["small"]
        words = " " + law["words"]
    if "after" in result:
        shell(result["after"], MINUTES[RESULTS[result["after"]]["takes"]])
    write_files(command)
    began = time.monotonic()
    printed = shell(command + words, MINUTES[result["takes"]])
    seconds = time.monotonic() - began
    means = [float(mean.replace(",", "")) for mean in MEAN.findall(printed)]
    films = {}
    if "films" in law:
        films = {path: film_seconds(path) for path in Path().glob(law["films"]["path"])}
    note(f"{command}{words}: {seconds:.0f} s, means {means}, films {list(films.values())} s")

    if "mean" in law:
        least, most = law["mean"]
        assert means
        assert all(least <= mean <= most for mean in means), f"must be {least} to {most}: {means}"
    if "films" in law:
        least, most = law["films"]["seconds"]
        assert films
        assert all(least <= length <= most for length in films.values()), films
    for pattern in law.get("files", ()):
        assert list(Path().glob(pattern)), f"{pattern} is not there"
    assert re.search(law.get("prints", ""), printed)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=str)
def test_notebook_comes_to_what_is_written(path, monkeypatch):
    monkeypatch.setattr(matplotlib.pyplot, "show", matplotlib.pyplot.close)
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    promised = re.search(r"stands for (\d+) steps or more", " ".join(text.split()))
    assert promised
    names = {"__name__": "__main__"}
    with matplotlib.rc_context({"backend": "agg"}):
        for cell in cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
    note(f"{path.name}: {names['last']:.0f} steps")
    assert names["last"] >= int(promised[1])
