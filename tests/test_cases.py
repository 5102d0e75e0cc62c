import contextlib
import os

from tests.cases import for_each


class Subtests:
    """As pytest's fixture: keeps the names of the cases that fail, and goes on."""

    def __init__(self):
        self.failed = []

    @contextlib.contextmanager
    def test(self, msg):
        try:
            yield
        except AssertionError:
            self.failed.append(msg)


def test_every_case_is_run_and_those_that_fail_are_named():
    seen, subtests = [], Subtests()

    @for_each("is_odd", [False, True])
    @for_each(("number", "word"), [(1, "one"), (2, "two")])
    def law(number, word, is_odd):
        seen.append((number, word, is_odd))
        assert (number % 2 == 1) == is_odd

    law(subtests=subtests)
    assert seen == [(n, w, odd) for odd in (False, True) for n, w in ((1, "one"), (2, "two"))]
    assert subtests.failed == ["number=1, word='one'", "number=2, word='two'"]


def test_cases_share_neither_folders_nor_patches(tmp_path, monkeypatch):
    @for_each("name", ["A3CJAX_FIRST", "A3CJAX_SECOND"])
    def law(name, tmp_path, monkeypatch):
        assert not list(tmp_path.iterdir())
        assert not {"A3CJAX_FIRST", "A3CJAX_SECOND"} & set(os.environ)
        (tmp_path / name).touch()
        monkeypatch.setenv(name, "1")

    subtests = Subtests()
    law(subtests=subtests, tmp_path=tmp_path, monkeypatch=monkeypatch)
    assert subtests.failed == []
    assert not {"A3CJAX_FIRST", "A3CJAX_SECOND"} & set(os.environ)
