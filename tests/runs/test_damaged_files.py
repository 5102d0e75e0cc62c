"""Whatever lies in a run folder's files: it is read, or refused in one line."""

import json
import os
import shutil

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from a3cjax.commands.sweeps import Point, arguments_of, record
from a3cjax.config.reading import load_config, resume_config
from a3cjax.errors import CheckpointError, ConfigError
from a3cjax.reports.content import make_content
from a3cjax.reports.markdown import render_markdown
from a3cjax.reports.run_curves import plot_curves
from a3cjax.reports.runs import read_run
from a3cjax.reports.writing import render_csv
from a3cjax.runs import tables
from tests.cases import for_each
from tests.run_folders import make_run_folder

TABLES = (tables.METRICS, tables.EPISODES, tables.EVALUATIONS)
HEADERS = {name: ",".join(columns) for name, columns in tables.COLUMNS.items()}
CELLS = (
    "",
    "x",
    "-1",
    "1e400",
    "nan",
    "1" * 5000,
    "1_0",
    "٣",
    "\0",
    "\udcff",
    "=1",
    '"',
    "a" * 200_000,
)


def report_on(folder):
    content = make_content([read_run(folder)], None, show_published=False)
    return render_markdown(content), render_csv(content)


def sweep_on(folder):
    point = Point({"seed": "1", "total_frames": "100"}, folder)
    record([point], folder.parent)
    return arguments_of(point)


READERS = {
    "rows": lambda folder: [tables.read_rows(folder / name) for name in TABLES],
    "columns": lambda folder: [tables.read_columns(folder / name) for name in TABLES],
    "episodes": lambda folder: [tables.read_episodes(folder / name) for name in TABLES],
    "summary": tables.read_summary,
    "settings": load_config,
    "resume": lambda folder: resume_config(str(folder), {}),
    "report": report_on,
    "sweep": sweep_on,
    "curves": lambda folder: plot_curves(folder, "title"),
    "cut": lambda folder: tables.cut_logs(folder, 2000),  # last: it mends
}


def refusal_of(reader, folder):
    """The line with which a reader refuses a folder; empty if it does not."""
    try:
        reader(folder)
    except (ConfigError, CheckpointError, FileNotFoundError) as error:
        return str(error)
    return ""


def read_all(folder, *, draws=True):
    """Reads a run folder with everything that reads it; only refusals in a line are allowed."""
    for name, reader in READERS.items():
        if draws or name != "curves":
            refusal = refusal_of(reader, folder)
            assert len(refusal) <= 1000, name
            assert refusal.isprintable(), name
    # What is left of the logs can be gone on with.
    for name in TABLES:
        rows, num_damaged = tables.read_rows(folder / name)
        assert num_damaged == 0
        assert all(0 <= tables.frames_of(row) <= 2000 for row in rows)
        tables.append_rows(folder / name, [{"num_frames": 2001}], ("num_frames",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of a sweep with a run in it, made anew for each example by `damaged`."""
    return tmp_path_factory.mktemp("sweep") / "run"


def make_sound(folder):
    shutil.rmtree(folder.parent)
    make_run_folder(folder, note="x")
    (folder / tables.EPISODES).write_text(f"{HEADERS[tables.EPISODES]}\n1000,1,0,1,9\n")
    (folder / tables.EVALUATIONS).write_text(f"{HEADERS[tables.EVALUATIONS]}\n1000{',1' * 9}\n")


FILES = (*TABLES, tables.SUMMARY, tables.CONFIG_FILE, "../sweep.json")
CONTENTS = {
    "empty": b"",
    "NUL": b"\0" * 100,
    "bad UTF-8": b"\xff\xfe\xfa,\n\xff,1,1\n",
    "a number": b"5",
    "long number": b"1" * 5000,
    "deep list": b"[" * 50_000,
    "deep sound list": b"[" * 500 + b"]" * 500,
    "deep sound value": b'{"seed": ' + b"[" * 500 + b"]" * 500 + b"}",
    "deep commit": b'{"commit": ' + b"[" * 500 + b"]" * 500 + b"}",
    "null": b"null",
    "long line": b"a" * 300_000 + b"\n" + b"1\n",
    "carriage returns": b"num_frames,wall_seconds,mean\r1,2,3\r\n4,5,6\r",
    "one column": b"num_frames\n1\n2\n",
    "twice the same column": b"num_frames,num_frames,wall_seconds\n1,2,3\n",
    "header alone": b"num_frames,wall_seconds\n",
    "no header": b"1,2,3\n4,5,6\n7,8,9\n",
}


@for_each("content", CONTENTS)
@for_each("name", FILES)
def test_damaged_files_are_read_or_refused_in_a_line(folder, name, content):
    make_sound(folder)
    (folder / name).write_bytes(CONTENTS[content])
    read_all(folder, draws=name == tables.METRICS)


@for_each("name", FILES)
def test_folders_and_pipes_in_place_of_files_are_refused_in_a_line(folder, name):
    for make in (os.mkdir, os.mkfifo):
        make_sound(folder)
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        assert all(refusal_of(reader, folder).isprintable() for reader in READERS.values())


@settings(max_examples=10)  # each draws a picture
@given(data=st.data())
def test_tables_with_any_cells_are_read(folder, data):
    make_sound(folder)
    for name in TABLES:
        size = HEADERS[name].count(",") + 1
        number = st.integers(-1, 4000).map(str)
        row = st.lists(st.sampled_from(CELLS) | number, min_size=size - 1, max_size=size + 1)
        rows = data.draw(st.lists(row, max_size=5))
        text = "\n".join(
            [HEADERS[name], *map(",".join, rows), data.draw(st.sampled_from(["", "1"]))]
        )
        (folder / name).write_text(text, errors="surrogateescape")
    read_all(folder)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [10**4000, -(10**300), float("nan"), float("inf"), "=1+1", "<b>", "\x1b[0m\n"]
    )
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
SUMMARY_NAMES = (
    *("env", "seed", "command", "commit", "num_frames", "training_seconds", "evaluation", "signal"),
    *("machine", "versions", "best_score"),
)
RESULT_NAMES = ("mean", "scores", "median", "actions", "num_episodes")


@given(
    summary=st.dictionaries(st.sampled_from(SUMMARY_NAMES), ANYTHING),
    result=st.dictionaries(st.sampled_from(RESULT_NAMES), ANYTHING),
    values=st.dictionaries(
        st.sampled_from(("env", "seed", "algorithm", "total_frames", "new")), ANYTHING
    ),
)
def test_json_and_settings_of_any_types_are_read(folder, summary, result, values):
    make_sound(folder)
    before = json.loads((folder / tables.SUMMARY).read_text())
    for content in (summary, summary | {"evaluation": result}):
        (folder / tables.SUMMARY).write_text(json.dumps(before | content))
        (folder / tables.CONFIG_FILE).write_text(json.dumps(values))  # which is YAML
        read_all(folder, draws=False)
