"""Every command that the documents print has a result, and the text beside it tells it."""

import pytest

from tests.cases import for_each
from tests.documented_results import (
    Printed,
    check_printed,
    is_run,
    read_printed,
    read_results,
    says,
)

PRINTED = read_printed()
RESULT = {"takes": "seconds", "mean": [490, 500], "beside": "{least} or more of {most}"}


@for_each("printed", PRINTED)
def test_documents_tell_what_a_command_comes_to(printed):
    check_printed(printed, read_results())


def test_every_result_is_of_a_command_that_is_printed():
    assert read_results().keys() == {printed.command for printed in PRINTED}


@for_each("command", read_results())
def test_results_say_something_that_can_fail(command):
    result = read_results()[command]
    assert result["takes"] in {"seconds", "minutes", "hours"}
    laws = {"mean", "films", "files", "prints"}
    assert laws & result.keys() or "small" in result
    if result["takes"] == "hours":
        assert laws & result["small"].keys()
    known = laws | {"takes", "beside", "after", "small"}
    assert result.keys() <= known


def test_commands_are_found_wherever_they_are_printed():
    places = {printed.place.partition(":")[0] for printed in PRINTED}
    assert places >= {
        "README.md",
        "docs/quick-start.md",
        "docs/tutorials/train.md",
        "a3cjax/commands/sweep.py",
        "a3cjax/config/presets/paper.yaml",
        "experiments/run.py",
    }


@for_each(
    ("command", "answer"),
    [
        ("a3cjax train env=Pong", True),
        ("make control", True),
        ("a3cjax train resume=runs/Pong/<folder>", False),
        ("a3cjax train resume=…", False),
        ("a3cjax train --help", False),
        ("make test", False),
    ],
)
def test_forms_and_help_are_no_runs(command, answer):
    assert is_run(command) == answer


@for_each(
    ("text", "message"),
    [
        ("It ends at 490 or more of 500.", None),
        ("It ends at 490\nor more of 500.", None),
        ("It ends at 400 or more of 500.", "beside `a3cjax train env=CartPole` must stand: 490"),
        ("It learns.", "page.md:3: beside"),
        ("", None),  # in a sentence
    ],
)
def test_wrong_figure_is_noticed(text, message):
    printed = Printed("a3cjax train env=CartPole", "page.md:3", text)
    results = {printed.command: RESULT}
    if message is None:
        check_printed(printed, results)
    else:
        with pytest.raises(AssertionError, match=message):
            check_printed(printed, results)
    with pytest.raises(AssertionError, match="has no result"):
        check_printed(printed, {})


def test_words_are_found_across_the_comment_signs_of_a_preset():
    assert says("# It stood at\n# 18 or more of 21.", "at 18 or more")
