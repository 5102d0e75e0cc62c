"""Small faults, put into the package one at a time, and the tests that are to notice them."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.documents import ROOT, load_hook

PACKAGE = ROOT / "a3cjax"
FOLDER = Path(__file__).parent


class Mutant(NamedTuple):
    """A fault, and who is to notice it.

    `file` lies in a3cjax and holds `old` exactly once. `tests` are names of test files, each with
    `::test` behind it for one test, apart by blanks. `survives` is the reason why none of them can
    notice it, "" where one must.
    """

    fault: str
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""

    def apply(self, package: Path) -> None:
        """Puts the fault into this copy of the package.

        Raises:
          LookupError: if `old` is not there, or more than once: the fault must be written anew.
        """
        path = package / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise LookupError(f"{self.file} must have once, got {text.count(self.old)}: {self.old}")
        path.write_text(text.replace(self.old, self.new))

    def find_tests(self) -> list[str]:
        """Its tests as pytest names them."""
        found = []
        for test in self.tests.split():
            file, colons, name = test.partition("::")
            (path,) = (ROOT / "tests").rglob(file)
            found.append(f"{path.relative_to(ROOT)}{colons}{name}")
        return found


class Row(NamedTuple):
    """A row of docs/fidelity.md: the tests that it names, and the files that it links."""

    tests: str
    files: set[str]


def read_rows() -> dict[str, Row]:
    """The rows that name tests, by their detail."""
    links, rows = load_hook("fidelity_links"), {}
    for line in links.PAGE.read_text().splitlines():
        tests = re.findall(r"`(test_\w+\.py::test_\w+)`", line)
        if tests and line.startswith("| "):
            files = {link["path"].removeprefix("../a3cjax/") for link in links.LINK.finditer(line)}
            rows[line.split(" | ")[0].removeprefix("| ")] = Row(" ".join(tests), files)
    return rows


def read_row_mutants() -> dict[str, Mutant]:
    """A fault for each row, by the row's detail."""
    rows = read_rows()
    mutants = yaml.safe_load((FOLDER / "rows.yaml").read_text())
    return {detail: Mutant(**mutants[detail], tests=rows[detail].tests) for detail in mutants}


def read_mutants() -> list[Mutant]:
    """All other faults."""
    by_file = yaml.safe_load((FOLDER / "faults.yaml").read_text())
    return [Mutant(file=file, **one) for file, faults in by_file.items() for one in faults]
