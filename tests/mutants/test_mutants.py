"""Faults can still be put in, and there is one for every row of docs/fidelity.md."""

import re

import pytest

from tests.documents import ROOT
from tests.mutants import PACKAGE, Mutant, read_mutants, read_row_mutants, read_rows
from tests.mutants import __main__ as program

FAULTS, ROWS = read_mutants(), read_row_mutants()


@pytest.mark.parametrize("mutant", [*FAULTS, *ROWS.values()], ids=lambda m: f"{m.file}: {m.fault}")
def test_fault_can_be_put_in_and_its_tests_are_there(mutant, tmp_path):
    path, before = tmp_path / mutant.file, (PACKAGE / mutant.file).read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(before)
    mutant.apply(tmp_path)
    assert path.read_text() != before
    if path.suffix == ".py":
        compile(path.read_text(), mutant.file, "exec")
    tests = mutant.find_tests()
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        assert not name or re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_fault_whose_text_is_gone_is_told(tmp_path):
    (tmp_path / "returns.py").write_text("x = 1\nx = 1\n")
    for old in ("y = 1", "x = 1"):
        with pytest.raises(LookupError, match=r"^returns\.py must have once, got [02]: . = 1$"):
            Mutant("a name", "returns.py", old, "z = 1", "test_returns.py").apply(tmp_path)


def test_there_are_forty_faults_and_two_survive_at_most():
    assert len(FAULTS) >= 40
    assert sum(bool(mutant.survives) for mutant in FAULTS) <= 2
    assert not any(mutant.survives for mutant in ROWS.values())


def test_every_row_of_the_fidelity_page_has_a_fault_in_a_file_that_it_links():
    rows = read_rows()
    assert rows.keys() == ROWS.keys()
    for detail, mutant in ROWS.items():
        assert mutant.file in rows[detail].files, detail


@pytest.mark.parametrize(
    ("status", "verdict"), [(0, "survives"), (1, "noticed"), (2, "no test was run")]
)
def test_verdict_is_that_of_the_tests_and_the_fault_is_taken_out(
    tmp_path, monkeypatch, status, verdict
):
    path = tmp_path / "a3cjax" / "returns.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")

    def run_tests(folder, tests):
        assert (path.read_text(), tests) == ("x = 2\n", ["tests/test_returns.py"])
        return status

    monkeypatch.setattr(program, "run_tests", run_tests)
    mutant = Mutant("a number", "returns.py", "1", "2", "test_returns.py")
    assert program.judge(mutant, tmp_path) == verdict
    assert path.read_text() == "x = 1\n"
