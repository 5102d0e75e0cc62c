"""Puts small faults into a copy of the package, one at a time, and lists those unnoticed.

    python -m tests.mutants [returns]

takes those whose file or fault has the words given, or all. Before that the tests must pass without
a fault, unless `--unchecked`. Exits with 1 if a fault goes unnoticed that has no reason written
beside it, or one with a reason is noticed.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.mutants import PACKAGE, Mutant, read_mutants, read_row_mutants

PYTEST = ("-qx", "--assert=plain", "-pno:cacheprovider", "-pno:xdist", "--timeout=300")
PASSED, FAILED = 0, 1  # pytest's exit status; others mean that no test was run
# Imported once with all that they need, which takes longer than most tests; ours then go again.
IMPORTED_ONCE = ("tests.conftest", "rlax", "envpool")
OURS = ("a3cjax", "tests")


def copy_repository(folder: Path) -> None:
    """A copy whose package may be changed; what else tests read is linked."""
    for path in ROOT.iterdir():
        if path in (PACKAGE, ROOT / "tests"):
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)


def run_tests(folder: Path, tests: Sequence[str]) -> int:
    """The exit status of pytest in a process of its own, which stops at the first failure."""
    with warnings.catch_warnings(action="ignore"):
        process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = -1
    try:
        os.chdir(folder)
        with open("output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(folder)
        status = int(pytest.main([*PYTEST, *tests]))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def judge(mutant: Mutant, folder: Path) -> str:
    """Whether its tests notice a fault: `noticed`, `survives`, or `no test was run`."""
    path = folder / "a3cjax" / mutant.file
    before = path.read_text()
    mutant.apply(folder / "a3cjax")
    try:
        status = run_tests(folder, mutant.find_tests())
    finally:
        path.write_text(before)
    return {PASSED: "survives", FAILED: "noticed"}.get(status, "no test was run")


def main(words: Sequence[str], *, unchecked: bool) -> int:
    """Tells of each fault whether it was noticed; returns the exit status."""
    mutants = [
        mutant
        for mutant in (*read_mutants(), *read_row_mutants().values())
        if all(word in f"{mutant.file} {mutant.fault}" for word in words)
    ]
    if not mutants:
        raise SystemExit(f"No fault has all of these words: {' '.join(words)}.")
    with warnings.catch_warnings(action="ignore"):
        for name in IMPORTED_ONCE:
            importlib.import_module(name)
    verdicts, num_wrong = Counter(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_repository(folder)
        tests = sorted({test for mutant in mutants for test in mutant.find_tests()})
        if not unchecked and run_tests(folder, tests) != PASSED:
            raise SystemExit((folder / "output").read_text()[-9000:])
        for mutant in mutants:
            began = time.monotonic()
            verdict = judge(mutant, folder)
            verdicts[verdict] += 1
            num_wrong += verdict != ("survives" if mutant.survives else "noticed")
            seconds = time.monotonic() - began
            print(f"{verdict:16} {seconds:3.0f} s  {mutant.file}: {mutant.fault}", flush=True)
            if mutant.survives:
                print(f"{'':23}{mutant.survives}")
    print(f"{len(mutants)} faults:", ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()))
    return int(num_wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="of the file or the fault")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests before that")
    arguments = parser.parse_args()
    sys.exit(main(arguments.words, unchecked=arguments.unchecked))
