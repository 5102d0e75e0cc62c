import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from a3cjax.system import signals
from a3cjax.system.signals import SignalStop, leave, leaving
from tests.fakes import PATIENCE_SECONDS, FakeClock

# Signals are handled in the main thread, where pytest runs its tests, before the call that raises
# them returns.

STOPPING = signals.ALWAYS + signals.BY_DEFAULT


@pytest.fixture(autouse=True)
def usual():
    """Signals are handled as in a fresh process; a shell's background jobs ignore interrupts."""
    own = dict.fromkeys(STOPPING, signal.SIG_DFL)
    own[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers():
    return [signal.getsignal(number) for number in STOPPING]


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_first_signal_is_put_off_and_does_afterwards_what_it_would_have_done(number):
    signal_stop, handled = SignalStop(), []
    with signal_stop.installed():
        assert not signal_stop.is_set()
        signal.raise_signal(number)
        assert signal_stop.is_set()
        assert (signal_stop.signal_number, signal_stop.name) == (number, number.name)
    signal.signal(number, lambda number, frame: handled.append(number))
    signal_stop.pass_on()
    assert handled == [number]
    SignalStop().pass_on()  # nothing came


@pytest.mark.parametrize(("seconds", "is_at_once"), [(0.0, False), (1.9, False), (2.0, True)])
def test_second_interrupt_acts_at_once_if_it_is_a_later_one(seconds, is_at_once):
    clock = FakeClock()
    signal_stop = SignalStop(clock)
    with signal_stop.installed():
        signal.raise_signal(signal.SIGTERM)
        clock.take(seconds)
        if is_at_once:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)
        assert signal_stop.signal_number == signal.SIGTERM


def test_other_signals_never_act_at_once():
    clock = FakeClock()
    with SignalStop(clock).installed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
            clock.take(100.0)


@pytest.mark.parametrize("num_signals", [0, 1])
def test_handlers_are_restored(num_signals):
    before = handlers()

    def fail():
        with SignalStop().installed():
            assert not set(handlers()) & set(before)
            for _ in range(num_signals):
                signal.raise_signal(signal.SIGINT)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert handlers() == before


def test_ignored_signals_stay_ignored_and_those_with_another_use_keep_it():
    def own(number, frame):
        """A caller's."""

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, own)
    for install in (SignalStop().installed, leaving):
        with install():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR1) is own


def test_signals_of_the_command_line_can_be_put_off():
    with leaving():
        assert handlers() == [leave] * len(STOPPING)
        with SignalStop().installed():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
    assert leave not in handlers()


def test_other_threads_handle_no_signals():
    before, during = handlers(), []

    def install():
        with SignalStop().installed():
            during.extend(handlers())

    thread = threading.Thread(target=install)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert during == before


def test_forked_child_is_ended_as_usual():
    program = """
import os, signal
from a3cjax.system.signals import SignalStop, leaving
with leaving(), SignalStop().installed():
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sink, b".")  # a signal that comes earlier is lost: Python forgets it at a fork
        signal.pause()
    os.read(source, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_interrupt_ends_a_loop_in_asyncio_too():
    passed = []

    async def main():
        for _ in range(3):
            signal_stop = SignalStop()
            with signal_stop.installed():
                signal.raise_signal(signal.SIGINT)
            signal_stop.pass_on()  # asyncio's handler only marks its task
            passed.append(1)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert passed == []


def test_verbs_that_are_watched_leave_without_a_word():
    program = """
import os, signal, threading
from a3cjax.commands.ending import watched
from a3cjax.system.signals import leaving
def work(supervisor):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
with leaving():
    watched(work, 60)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGTERM, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_command_line_leaves_without_a_word(number):
    program = f"""
import os, signal
from a3cjax.system.signals import leaving, on_leaving
from a3cjax.system.witness import witnessed
fail = lambda: 1 / 0
with leaving(), witnessed(60) as witness, on_leaving(fail), on_leaving(witness.say_goodbye):
    with on_leaving(lambda: os.write(1, b"earlier")):
        pass
    with on_leaving(lambda: os.write(1, b"farewell")):
        signal.raise_signal({int(number)})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, b"farewell", b"")
