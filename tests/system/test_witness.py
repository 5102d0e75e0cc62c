import os
import signal
import subprocess
import sys
import textwrap

import pytest

from a3cjax.system import witness
from a3cjax.system.witness import Witness, watch, witnessed
from tests.fakes import PATIENCE_SECONDS

NOBODY = 2**22 + 1  # more than Linux gives to a process


def run(body):
    """What a program with a witness prints to its end, and how it ends; 3 s without a sign."""
    program = "import ctypes, os, signal, time\nfrom a3cjax.system.witness import witnessed\n"
    program += f"with witnessed(3.0) as witness:\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_thread_that_stands_still_with_the_interpreters_lock_ends_the_process_with_its_stack():
    ended = run("""
    def stand_still():
        ctypes.PyDLL(None).sleep(100000)  # with the lock held

    stand_still()
    """)
    assert ended.returncode == -signal.SIGABRT
    assert "a3cjax: no sign of life for 3 s" in ended.stderr
    assert "in stand_still" in ended.stderr


def test_process_that_ends_without_a_word_is_told():
    ended = run("""
    witness.leave_word("to go on: a3cjax train resume=my\\nrun")
    os._exit(0)
    """)
    assert (ended.returncode, ended.stdout) == (0, "")
    line = "a3cjax: the process ended without a word. to go on: a3cjax train resume=my run\n"
    assert ended.stderr == line


def test_process_that_ends_is_told_though_a_child_of_its_lives():
    ended = run("""
    child = os.fork()
    if child == 0:
        os.closerange(0, 3)
        time.sleep(1e6)
    print(child, flush=True)
    os._exit(0)
    """)
    os.kill(int(ended.stdout), signal.SIGKILL)
    assert "the process ended without a word" in ended.stderr


def test_run_that_says_goodbye_is_not_spoken_of():
    ended = run("""
    for _ in range(100):
        witness.beat()
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.fixture
def told(monkeypatch):
    """Lines that the witness says, and the signals that it sends."""
    lines = []
    monkeypatch.setattr(witness, "tell", lines.append)
    monkeypatch.setattr(os, "kill", lambda pid, number: lines.append(signal.Signals(number).name))
    monkeypatch.setattr(witness, "LOOK_SECONDS", 0.01)
    return lines


def test_process_that_is_halted_is_not_silent(told, monkeypatch):
    source, sink = os.pipe()
    looks = []

    def is_halted(pid):
        looks.append(pid)
        if len(looks) == 50:
            os.write(sink, witness.GOODBYE)
        return True

    monkeypatch.setattr(witness, "_is_halted", is_halted)
    watch(NOBODY, 0.05, source)
    assert looks == [NOBODY] * 50
    assert told == []
    os.close(source)
    os.close(sink)


def test_process_that_does_not_end_when_told_is_killed(told, monkeypatch):
    source, sink = os.pipe()
    monkeypatch.setattr(witness, "DUMP_SECONDS", 0.02)
    monkeypatch.setattr(witness, "_is_halted", lambda pid: False)

    def kill(pid, number):
        told.append(signal.Signals(number).name)
        if number == signal.SIGKILL:
            os.write(sink, witness.GOODBYE)

    monkeypatch.setattr(os, "kill", kill)
    watch(NOBODY, 0.05, source)
    assert told[0].startswith("a3cjax: no sign of life for 0.05 s")
    assert (told[1], told[-1]) == ("SIGABRT", "SIGKILL")
    os.close(source)
    os.close(sink)


def test_run_goes_on_without_its_witness():
    with witnessed(1e6) as own:
        own._process.kill()
        own._process.wait()
        own.leave_word("nobody hears it")
        own.beat()
    Witness(None).beat()
    Witness(None).close()


def test_witness_is_told_halted_processes_by_the_system():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
    try:
        assert not witness._is_halted(process.pid)
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert witness._is_halted(process.pid)
    finally:
        process.kill()
        process.wait()


def test_terminal_signals_do_not_reach_the_witness():
    with witnessed(1e6) as own:
        assert os.getsid(own._process.pid) == own._process.pid != os.getsid(0)
    assert own._process.wait(PATIENCE_SECONDS) == 0
