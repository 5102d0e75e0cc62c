"""Many cases of one law in one test, each named where it fails."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case of `pytest.mark.parametrize` that is like its neighbours and takes seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


def for_each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable:
    """As `pytest.mark.parametrize`, but one test: it goes on after a case that fails.

    For quick laws only. Each case has a `monkeypatch` and a `tmp_path` of its own; it shares the
    other fixtures.
    """
    names = (names,) if isinstance(names, str) else names
    cases = [(case,) if len(names) == 1 else tuple(case) for case in cases]
    assert cases, "a law without a case cannot fail"

    def decorate(test: Callable) -> Callable:
        signature = inspect.signature(test)
        wants_subtests = "subtests" in signature.parameters

        @functools.wraps(test)
        def test_all(*instance, subtests, **fixtures):
            if wants_subtests:
                fixtures["subtests"] = subtests
            for index, case in enumerate(cases):
                values = dict(zip(names, case, strict=True))
                told = ", ".join(f"{name}={value!r:.200}" for name, value in values.items())
                with subtests.test(msg=told), _renewed(fixtures, index) as renewed:
                    test(*instance, **values, **renewed)

        del test_all.__wrapped__  # pytest would ask it for the names of fixtures
        own = [p for p in signature.parameters.values() if p.name not in (*names, "subtests")]
        subtests = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)
        setattr(test_all, "__signature__", signature.replace(parameters=[*own, subtests]))  # noqa: B010
        return test_all

    return decorate


@contextlib.contextmanager
def _renewed(fixtures: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    """The fixtures of one case: patches that end with it, and an empty folder."""
    with contextlib.ExitStack() as stack:
        renewed = dict(fixtures)
        if "monkeypatch" in fixtures:
            renewed["monkeypatch"] = stack.enter_context(fixtures["monkeypatch"].context())
        if "tmp_path" in fixtures:
            renewed["tmp_path"] = fixtures["tmp_path"] / f"case-{index}"
            renewed["tmp_path"].mkdir()
        yield renewed
