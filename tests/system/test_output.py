"""No line of output is worth a run: closed, broken, full and ASCII-only streams."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from a3cjax.envs.base import Episode
from a3cjax.logs.terminal import TerminalLogger, print_evaluation
from a3cjax.runs.evaluation import Evaluation
from a3cjax.system.output import Lasting, tell, warn
from tests.documents import ROOT
from tests.fakes import PATIENCE_SECONDS, compilation_cache_options, make_row
from tests.run_folders import make_run_folder


def broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "broken": broken_pipe,
    "full": lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1),
    "closed": closed,
    "none": lambda: None,
    "to be read": lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY)),
}


@pytest.fixture(params=STREAMS)
def stream(request, monkeypatch):
    """The standard output and error: nothing can be written to them."""
    stream = STREAMS[request.param]()
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", stream)
        context.setattr(sys, "stderr", stream)
        yield stream
    if stream is not None:
        with contextlib.suppress(OSError):  # what waits cannot be written, either
            stream.close()


def test_what_cannot_be_written_is_not_missed(stream):
    lasting = Lasting(stream)
    assert lasting.write("x" * 100_000) == 100_000
    lasting.writelines(["a\n", "b\n"])
    lasting.flush()
    assert not lasting.isatty()


def test_lines_tables_and_views_last_without_the_command_line(stream):
    tell("a line")
    warn("a line")
    print_evaluation(Evaluation([Episode(0, 1.0, 5)], False))
    for environment in ({}, {"FORCE_COLOR": "1", "TERM": "xterm"}):
        logger = TerminalLogger("Pong", 1000, console=Console(_environ=environment))
        logger.print("a line")
        logger.write_metrics(make_row(500))
        logger.close()
        assert not logger.is_live


def test_letters_that_an_encoding_lacks_are_question_marks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    tell("2 × 8 \udcff")
    print_evaluation(Evaluation([Episode(0, 1.0, 5)], False))
    assert stream.buffer.getvalue().startswith(b"2 ? 8 ?\n")


def test_a_stream_that_lasts_is_else_what_it_was():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    lasting = Lasting(stream)
    assert lasting.isatty()
    assert Console(file=lasting, _environ={"TERM": "xterm"}).is_terminal
    print("a", "b", file=lasting)
    assert (lasting.getvalue(), lasting.closed) == ("a b\n", False)


@pytest.fixture
def shell(tmp_path, tmp_path_factory):
    """Runs a line of bash; `a3cjax` in it is the program. Returns its exit code and stderr."""
    options = compilation_cache_options(tmp_path_factory)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **{name.upper(): str(value) for name, value in options.items()},
    }

    def run(line):
        line = line.replace("a3cjax ", f"{sys.executable} -m a3cjax ", 1)
        process = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return process.returncode, process.stderr

    return run


SINKS = (">&- 2>&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full", "2>&1 | true", "1</dev/null")


@pytest.mark.parametrize("sink", SINKS)
def test_exit_code_is_that_of_the_work_whoever_reads(shell, sink):
    assert shell(f"a3cjax --help {sink}") == (0, "")
    assert shell(f"a3cjax nonsense {sink} 2>/dev/full")[0] == 2


def test_files_do_not_get_the_numbers_of_closed_streams(shell):
    code = "import a3cjax.system.output as o, os; o.make_output_last(); os._exit(os.dup(0))"
    assert shell(f"{sys.executable} -c '{code}' <&- >&- 2>&-")[0] > 2


def test_report_is_written_whoever_reads(shell, tmp_path):
    make_run_folder(tmp_path / "run")
    assert shell("a3cjax report run output=curves.png > /dev/full") == (0, "")
    assert (tmp_path / "curves.png").is_file()


def test_without_a_working_folder_a_line_says_so(shell):
    for line in ("a3cjax train env=CartPole run_dir=/tmp/none", "a3cjax evaluate pong"):
        exit_code, told = shell(f"mkdir gone; cd gone; rmdir ../gone; {line}")
        assert (exit_code, told.count("\n")) == (2, 1)
        assert "error: The working folder must exist, it has been deleted" in told


def test_a_variable_that_jax_refuses_is_a_line(shell):
    for line in ("a3cjax train env=CartPole run_dir=none", "a3cjax evaluate pong"):
        exit_code, told = shell(f"JAX_ENABLE_X64=perhaps {line}")
        assert (exit_code, told.count("\n")) == (2, 1)
        assert "error: JAX does not start with this environment: " in told
        assert "JAX_ENABLE_X64" in told


def test_a_disk_that_takes_no_more_is_no_wrong_setting(shell, tmp_path):
    make_run_folder(tmp_path / "run")
    for blocks, line in (
        (20, "a3cjax export pong pong.bin"),
        (20, "a3cjax report run output=report"),
        (1, "a3cjax sweep env=CartPole sweep_dir=sweep 'seed=range(1,40)'"),
    ):
        exit_code, told = shell(f"ulimit -f {blocks}; {line}")
        assert (exit_code, told.count("\n")) == (1, 1), told
        assert re.search(r"error: the results cannot be written: .*File too large", told), told
        assert re.search(r"pong\.bin|report|sweep\.json", told), told


SMALL = (
    "env=CartPole total_frames=200 num_actors=1 envs_per_actor=2 unroll_length=10 warmup_steps=16 "
    "eval_episodes=2 video=false run_dir=run log_period_frames=20"
)


@pytest.mark.parametrize("sink", [">&- 2>&-", "| head -1 >/dev/null"])
def test_run_goes_on_without_its_output(shell, tmp_path, sink):
    code, err = shell(f"a3cjax train {SMALL} {sink}")
    assert code == 0
    assert "Traceback" not in err
    assert "ignored" not in err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["signal"] is None
    # No library's words in a file of the run, as where one of them gets the number of the output.
    for name in ("metrics.csv", "episodes.csv"):
        assert (tmp_path / "run" / name).read_text().startswith("num_frames,")
    assert (tmp_path / "run" / "curves.png").is_file()
