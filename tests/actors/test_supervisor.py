import signal
import threading
import time
import traceback

import pytest

from a3cjax.actors import supervisor as supervisor_module
from a3cjax.actors.supervisor import Supervisor
from a3cjax.system.signals import SignalStop
from tests.fakes import PATIENCE_SECONDS, FakeClock


@pytest.fixture
def stop_event():
    return threading.Event()


def wait_for_stop(stop_event):
    assert stop_event.wait(PATIENCE_SECONDS), "nobody asked to stop"


def fail_at_once(stop_event):
    raise OSError("the emulator broke")


def end_of(name):
    """Waits until the thread of this name has ended."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


def test_one_failure_stops_all_and_is_raised_as_it_was(stop_event):
    supervisor = Supervisor(stop_event)
    supervisor.start([wait_for_stop, fail_at_once, wait_for_stop], "actor-learner")
    assert stop_event.wait(PATIENCE_SECONDS)
    assert supervisor.failures
    supervisor.join(PATIENCE_SECONDS)
    with pytest.raises(OSError, match="the emulator broke") as caught:
        supervisor.raise_failures()
    lines = "".join(traceback.format_exception(caught.value))
    assert "in fail_at_once" in lines
    assert 'raise OSError("the emulator broke")' in lines
    assert "actor-learner-1" in lines


@pytest.mark.parametrize("failure", [SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_any_exception_is_a_failure(stop_event, failure):
    # SystemExit included: raised again as it is, it would end the program with exit code 0.
    def fail(stop_event):
        raise failure

    supervisor = Supervisor(stop_event)
    supervisor.start([fail], "actor-learner")
    assert stop_event.wait(PATIENCE_SECONDS)
    supervisor.join(PATIENCE_SECONDS)
    with pytest.raises(Exception, match=r"in thread actor-learner-0|a thread ended by") as caught:
        supervisor.raise_failures()
    assert failure in (caught.value, caught.value.__cause__)


def test_several_failures_come_as_a_group(stop_event):
    def fail_on_stop(stop_event):
        wait_for_stop(stop_event)
        raise ValueError("and another")

    supervisor = Supervisor(stop_event)
    supervisor.start([fail_on_stop, fail_at_once], "actor-learner")
    supervisor.join(PATIENCE_SECONDS)
    with pytest.raises(BaseExceptionGroup) as caught:
        supervisor.raise_failures()
    failures = {type(failure): failure for failure in caught.value.exceptions}
    assert set(failures) == {OSError, ValueError}
    assert failures[ValueError].__notes__ == ["in thread actor-learner-0"]
    assert failures[OSError].__notes__ == ["in thread actor-learner-1"]


def test_stuck_thread_is_reported_by_name(stop_event):
    release = threading.Event()
    supervisor = Supervisor(stop_event)
    supervisor.start([wait_for_stop, lambda _: release.wait(PATIENCE_SECONDS)], "actor-learner")
    stop_event.set()
    end_of("actor-learner-0")
    began = time.monotonic()
    supervisor.join(0.1)
    assert time.monotonic() - began >= 0.1
    release.set()
    with pytest.raises(RuntimeError, match=r"still running .*actor-learner-1") as caught:
        supervisor.raise_failures()
    assert "actor-learner-0" not in str(caught.value)


def test_stuck_thread_does_not_hide_the_failure_that_stopped_it(stop_event):
    release = threading.Event()
    supervisor = Supervisor(stop_event)
    supervisor.start([fail_at_once, lambda _: release.wait(PATIENCE_SECONDS)], "actor-learner")
    assert stop_event.wait(PATIENCE_SECONDS)
    supervisor.join(0.05)
    release.set()
    with pytest.raises(BaseExceptionGroup) as caught:
        supervisor.raise_failures()
    assert [type(failure) for failure in caught.value.exceptions] == [OSError, RuntimeError]


def test_several_stuck_threads_share_the_time_limit(stop_event, monkeypatch):
    clock, limits = FakeClock(), []

    def join(self, seconds):
        limits.append(seconds)
        clock.take(min(seconds, 2.0))  # two seconds for each, if it may

    release = threading.Event()
    supervisor = Supervisor(stop_event)
    supervisor.start([lambda _: release.wait(PATIENCE_SECONDS)] * 4, "actor-learner")
    with monkeypatch.context() as patch:
        patch.setattr(supervisor_module, "time", clock)
        patch.setattr(threading.Thread, "join", join)
        supervisor.join(5.0)
    release.set()
    assert limits == [5.0, 3.0, 1.0, 0.0]


def test_returning_threads_stop_nobody(stop_event):
    release = threading.Event()
    supervisor = Supervisor(stop_event)
    supervisor.start([lambda _: None, lambda _: release.wait(PATIENCE_SECONDS)], "actor-learner")
    end_of("actor-learner-0")
    assert not stop_event.is_set()
    assert supervisor.is_running
    release.set()
    supervisor.join(PATIENCE_SECONDS)
    assert not supervisor.is_running
    assert not stop_event.is_set()
    supervisor.raise_failures()


def test_supervisor_is_not_running_once_a_stop_is_asked_for(stop_event):
    supervisor = Supervisor(stop_event)
    assert not supervisor.is_running
    supervisor.start([wait_for_stop], "actor-learner")
    assert supervisor.is_running
    stop_event.set()
    assert not supervisor.is_running
    supervisor.join(PATIENCE_SECONDS)
    assert not supervisor.failures
    supervisor.raise_failures()


def test_threads_are_named_and_get_the_stop_event(stop_event):
    seen = {}

    def look(event):
        seen[threading.current_thread().name] = event, threading.current_thread().daemon

    supervisor = Supervisor(stop_event)
    supervisor.start([look, look], "actor-learner")
    supervisor.join(PATIENCE_SECONDS)
    # Daemons: one that is stuck must not keep the program alive.
    assert seen == {f"actor-learner-{index}": (stop_event, True) for index in (0, 1)}


def test_watching_goes_on_as_long_as_a_worker_works():
    release, looks = threading.Event(), []
    supervisor = Supervisor()

    def look():
        looks.append(1)
        if len(looks) == 3:
            release.set()
            end_of("worker-0")

    supervisor.start([lambda _: release.wait(PATIENCE_SECONDS)], "worker")
    supervisor.watch(PATIENCE_SECONDS, look, period=0.001)
    assert len(looks) == 3
    supervisor.raise_failures()


def test_watching_ends_when_a_stop_is_wanted():
    wanted = iter([False, True])
    supervisor = Supervisor(should_stop=lambda: next(wanted, True))
    supervisor.start([wait_for_stop], "worker")
    supervisor.watch(PATIENCE_SECONDS, period=0.001)
    assert supervisor.is_stopping
    assert not supervisor.stop_event.is_set()  # that is for whoever watched
    supervisor.stop_event.set()
    supervisor.join(PATIENCE_SECONDS)
    supervisor.raise_failures()


def raising(failure):
    def look():
        raise failure

    return look


def test_what_goes_wrong_while_watching_is_a_failure():
    supervisor = Supervisor()
    supervisor.start([wait_for_stop], "worker")
    supervisor.watch(PATIENCE_SECONDS, raising(OSError("the disk is full")))
    supervisor.join(PATIENCE_SECONDS)
    with pytest.raises(OSError, match="the disk is full"):
        supervisor.raise_failures()


def test_interrupt_while_watching_goes_through_and_stops_all():
    supervisor = Supervisor()
    supervisor.start([wait_for_stop], "worker")
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch(PATIENCE_SECONDS, raising(KeyboardInterrupt()))
    supervisor.join(PATIENCE_SECONDS)
    supervisor.raise_failures()


# Signals. They are handled in the main thread, where pytest runs its tests, before the call that
# raises them returns.


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def usual(request):
    """A signal and a list of those of its kind that were handled as usual."""
    handled = []
    previous = signal.signal(request.param, lambda number, frame: handled.append(number))
    yield request.param, handled
    signal.signal(request.param, previous)


def test_first_signal_is_remembered(usual):
    number, handled = usual
    signal_stop = SignalStop()
    assert not signal_stop.is_set()
    with signal_stop.installed():
        signal.raise_signal(number)
        assert signal_stop.is_set()
        assert signal_stop.signal_number == number
    assert handled == []


def test_second_signal_acts_as_usual(usual):
    number, handled = usual
    with SignalStop().installed():
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert handled == [number]
        signal.raise_signal(number)
    assert handled == [number, number]


def test_second_signal_may_be_the_other(usual):
    number, handled = usual
    other = {signal.SIGINT: signal.SIGTERM, signal.SIGTERM: signal.SIGINT}[number]
    signal_stop = SignalStop()
    with signal_stop.installed():
        signal.raise_signal(other)
        signal.raise_signal(number)
    assert handled == [number]
    assert signal_stop.signal_number == other


@pytest.fixture
def foreground():
    """Interrupts are handled as Python does it; a shell's background jobs start ignoring them."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("foreground")
def test_second_interrupt_raises_keyboard_interrupt():
    with SignalStop().installed():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("num_signals", [0, 1])
def test_handlers_are_restored(num_signals):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SignalStop().installed():
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        for _ in range(num_signals):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not set(before) & set(during)


def test_handlers_are_restored_after_a_failure():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), SignalStop().installed():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_handle_no_signals():
    before = signal.getsignal(signal.SIGINT)
    during = []

    def install():
        with SignalStop().installed():
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=install)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert during == [before]
