import sys
import threading
import time
import traceback

import pytest

from a3cjax.actors import supervisor as supervisor_module
from a3cjax.actors.supervisor import Job, StallError, Stopped, Supervisor, left_behind
from tests.fakes import PATIENCE_SECONDS, FakeClock, wait_until


@pytest.fixture
def supervise():
    """Makes supervisors whose threads are let go at the end; what they say is in `told`."""
    made = []

    def make(*arguments):
        supervisor = Supervisor(*arguments)
        supervisor.told = []
        supervisor.announce = supervisor.told.append
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        supervisor.stop_event.set()
        supervisor.dismiss()


@pytest.fixture
def release():
    """Set at the end of a test, for jobs that stand still until then."""
    event = threading.Event()
    yield event
    event.set()


def wait_for_stop(job):
    wait_until(job.is_set)


def fail_at_once(job):
    raise OSError("the emulator broke")


def stand_still(release):
    """A job that shows no sign of life until it is released."""

    def get_stuck(job):
        assert release.wait(PATIENCE_SECONDS)

    return get_stuck


# Failures.


def test_one_failure_stops_all_and_is_raised_as_it_was(supervise):
    supervisor = supervise()
    supervisor.start([wait_for_stop, fail_at_once, wait_for_stop], "actor-learner")
    supervisor.wait(PATIENCE_SECONDS)
    with pytest.raises(OSError, match="the emulator broke") as caught:
        supervisor.raise_failures()
    lines = "".join(traceback.format_exception(caught.value))
    assert "in fail_at_once" in lines
    assert 'raise OSError("the emulator broke")' in lines
    assert "in thread actor-learner-1" in lines


@pytest.mark.parametrize("failure", [SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_any_exception_is_a_failure(supervise, failure):
    # SystemExit included: raised again as it is, it would end the program with exit code 0.
    def fail(job):
        raise failure

    supervisor = supervise()
    supervisor.start([fail], "actor-learner")
    supervisor.wait(PATIENCE_SECONDS)
    assert supervisor.is_stopping
    with pytest.raises(Exception, match=r"in thread actor-learner-0|a thread ended by") as caught:
        supervisor.raise_failures()
    assert failure in (caught.value, caught.value.__cause__)


def test_several_failures_come_as_a_group(supervise):
    def fail_on_stop(job):
        wait_for_stop(job)
        raise ValueError("and another")

    supervisor = supervise()
    supervisor.start([fail_on_stop, fail_at_once], "actor-learner")
    supervisor.wait(PATIENCE_SECONDS)
    with pytest.raises(BaseExceptionGroup) as caught:
        supervisor.raise_failures()
    failures = {type(failure): failure for failure in caught.value.exceptions}
    assert set(failures) == {OSError, ValueError}
    assert failures[ValueError].__notes__ == ["in thread actor-learner-0"]
    assert failures[OSError].__notes__ == ["in thread actor-learner-1"]


def test_failure_of_a_trifle_is_told_and_stops_nobody(supervise):
    supervisor = supervise()
    supervisor.start([fail_at_once], "actor-learner", "closing", "trifle")
    supervisor.wait(PATIENCE_SECONDS)
    assert supervisor.told == ["warning: closing failed: OSError: the emulator broke"]
    assert not supervisor.is_stopping
    supervisor.raise_failures()


# Threads and their jobs.


def test_one_thread_does_all_that_it_is_given_one_after_another(supervise):
    seen, supervisor = [], supervise()

    def look(job):
        seen.append((threading.current_thread().name, threading.get_ident()))

    for _ in range(3):
        supervisor.start([look, look], "actor-learner")
    asked = [supervisor.ask(threading.get_ident, f"actor-learner-{i}", "asking") for i in (0, 1)]
    supervisor.wait(PATIENCE_SECONDS)
    for index in (0, 1):
        assert seen.count((f"actor-learner-{index}", asked[index])) == 3
    assert asked[0] != asked[1]


def test_threads_do_not_keep_the_program_alive_and_end_when_dismissed(supervise):
    supervisor = supervise()
    (job,) = supervisor.start([lambda _: threading.current_thread()], "worker")
    supervisor.wait(PATIENCE_SECONDS)
    assert job.result.daemon
    assert job.result.is_alive()
    assert job.result.name in left_behind()
    supervisor.dismiss()
    assert not job.result.is_alive()
    assert job.result.name not in left_behind()


def test_question_is_answered_or_raises_for_whoever_asked(supervise):
    supervisor = supervise()

    def fail():
        raise LookupError("no such game")

    def leave():
        sys.exit(0)

    assert supervisor.ask(lambda: 3, "worker-0", "thinking") == 3
    with pytest.raises(RuntimeError, match=r"a thread ended by SystemExit\(0\)"):
        supervisor.ask(leave, "worker-0", "thinking")
    with pytest.raises(LookupError, match="no such game"):
        supervisor.ask(fail, "worker-0", "thinking")
    assert not supervisor.failures
    supervisor.stop_event.set()
    with pytest.raises(Stopped):
        supervisor.ask(lambda: 3, "worker-0", "thinking")


# Work, and the end of it.


def test_returning_threads_stop_nobody(supervise, release):
    supervisor = supervise()
    first, _ = supervisor.start([lambda _: None, stand_still(release)], "actor-learner")
    assert first.finished.wait(PATIENCE_SECONDS)
    assert supervisor.is_running
    release.set()
    supervisor.wait(PATIENCE_SECONDS)
    assert not supervisor.is_running
    assert not supervisor.is_stopping
    supervisor.raise_failures()


@pytest.mark.parametrize("role", ["help", "trifle"])
def test_what_is_no_work_keeps_no_run_alive(supervise, role):
    supervisor = supervise()
    supervisor.start([wait_for_stop], "evaluator", "evaluating", role)
    assert not supervisor.is_running
    supervisor.watch()
    supervisor.stop_event.set()
    supervisor.wait(PATIENCE_SECONDS)
    supervisor.raise_failures()


def test_watching_goes_on_as_long_as_a_worker_works(supervise, release):
    supervisor, looks = supervise(), []
    (job,) = supervisor.start([stand_still(release)], "worker")

    def look():
        looks.append(1)
        if len(looks) == 3:
            release.set()
            assert job.finished.wait(PATIENCE_SECONDS)

    supervisor.watch(look, period=0.001)
    assert len(looks) == 3
    supervisor.raise_failures()


def test_watching_ends_when_a_stop_is_wanted(supervise):
    wanted = iter([False, True])
    supervisor = supervise(lambda: next(wanted, True))
    supervisor.start([lambda job: wait_until(supervisor.stop_event.is_set)], "worker")
    supervisor.watch(period=0.001)
    assert supervisor.is_stopping
    supervisor.stop_event.set()
    supervisor.wait(PATIENCE_SECONDS)
    supervisor.raise_failures()


@pytest.mark.parametrize("failure", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_goes_wrong_while_watching_stops_all(supervise, failure):
    supervisor = supervise()
    supervisor.start([wait_for_stop], "worker")

    def look():
        raise failure

    def watch():
        supervisor.watch(look)  # a KeyboardInterrupt goes through at once
        supervisor.raise_failures()

    with pytest.raises(type(failure)):
        watch()
    supervisor.wait(PATIENCE_SECONDS)
    assert supervisor.stop_event.is_set()


def test_waiting_has_an_end_and_names_who_goes_on(supervise, release):
    supervisor = supervise()
    supervisor.start([wait_for_stop, stand_still(release)], "actor-learner", "learning")
    supervisor.stop_event.set()
    supervisor.wait(0.1)
    with pytest.raises(RuntimeError, match=r"still running after 0.1 s: .*actor-learner-1 \(learn"):
        supervisor.raise_failures()
    assert "actor-learner-0" not in str(supervisor.failures[0])


@pytest.mark.parametrize("cause", [ValueError("the cause"), None])
def test_help_that_does_not_end_is_a_failure_only_where_there_is_no_other(
    supervise, release, cause
):
    supervisor = supervise()
    supervisor.start([stand_still(release)], "initialiser", "making parameters", "help")
    if cause is not None:
        supervisor.add_failure(cause)
    supervisor.wait(0.1)
    (failure,) = supervisor.failures
    assert str(failure) == "the cause" if cause else "still running" in str(failure)


def test_waiting_says_for_whom(supervise, release, monkeypatch):
    monkeypatch.setattr(supervisor_module, "ANNOUNCE_SECONDS", 0.0)
    supervisor = supervise()
    supervisor.start([stand_still(release)], "actor-learner", "random play")
    supervisor.announce = lambda line: (supervisor.told.append(line), release.set())
    supervisor.wait(PATIENCE_SECONDS)
    assert supervisor.told[0] == "waiting for actor-learner-0 (random play)"


# Signs of life.


def test_who_stands_still_is_named_with_its_stack(supervise, release):
    supervisor = supervise(lambda: False, 0.05)
    supervisor.start([wait_for_stop, stand_still(release)], "actor-learner", "learning")
    supervisor.watch(period=0.001)
    supervisor.wait()
    with pytest.raises(StallError) as caught:
        supervisor.raise_failures()
    assert "no progress for 0.05 s: actor-learner-1 (learning)\n" in str(caught.value)
    assert "in get_stuck" in str(caught.value)


def test_who_rests_is_alive(supervise, monkeypatch):
    supervisor, clock, pauses = supervise(), FakeClock(), []

    class Event(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            clock.take(timeout)

    job = Job(supervisor, print, "resting", "work")
    supervisor.stop_event = Event()
    monkeypatch.setattr(supervisor_module, "time", clock)
    assert not job.wait(60.0)
    assert max(pauses) <= supervisor_module.SIGN_SECONDS
    assert sum(pauses) == pytest.approx(60.0)
    assert job.num_signs > len(pauses)


def test_stall_is_noted_before_anybody_may_go_on_without_who_stands_still(
    supervise, release, monkeypatch
):
    supervisor, describe = supervise(lambda: False, 0.05), supervisor_module._describe_stack

    def describe_slowly(thread):
        assert supervisor.is_running  # as long as the failure is not noted
        return describe(thread)

    monkeypatch.setattr(supervisor_module, "_describe_stack", describe_slowly)
    supervisor.start([stand_still(release)], "actor-learner")
    supervisor.watch(period=0.001)
    with pytest.raises(StallError):
        supervisor.raise_failures()


def test_failure_is_raised_though_the_overseen_thread_returned_without_a_word(supervise):
    supervisor = supervise()
    with pytest.raises(OSError, match="unseen"):
        supervisor.oversee(lambda: supervisor.add_failure(OSError("unseen")))


def test_question_to_who_stands_still_has_an_end(supervise, release):
    supervisor = supervise(lambda: False, 0.05)
    with pytest.raises(Stopped):
        supervisor.ask(lambda: stand_still(release)(None), "worker-0", "making environments")
    with pytest.raises(StallError, match=r"worker-0 \(making environments\)"):
        supervisor.raise_failures()


def test_trifle_that_stands_still_is_told_with_its_stack_and_waited_for_no_longer(
    supervise, release
):
    supervisor = supervise(lambda: False, 0.05)
    supervisor.start([stand_still(release)], "actor-learner", "closing environments", "trifle")
    supervisor.wait()
    assert "warning: no progress for 0.05 s: actor-learner-0 (closing" in supervisor.told[0]
    assert "in get_stuck" in supervisor.told[0]
    supervisor.raise_failures()


def test_process_that_was_stopped_is_not_taken_for_stalled(supervise, release, monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(supervisor_module, "time", clock)
    supervisor = supervise(lambda: False, 10.0)
    supervisor.start([stand_still(release)], "worker")
    looks = []

    def look():
        clock.take(3600.0)  # between two looks: the whole process stood still
        looks.append(1)
        if len(looks) == 8:
            release.set()
            # Looks are not to go on while a busy machine leaves the thread waiting.
            wait_until(lambda: not supervisor.is_running)

    supervisor.watch(look, period=0.001)
    supervisor.raise_failures()


# The overseen thread.


def test_overseen_thread_returns_its_result_and_shows_life_while_it_waits(supervise):
    supervisor = supervise(lambda: False, 0.5)

    def run():
        supervisor.start([lambda job: [job.wait(0.01) for _ in range(100)]], "worker")
        supervisor.watch()
        supervisor.ask(lambda: [time.sleep(0.3)], "worker-0", "sleeping")
        supervisor.wait()
        return threading.current_thread().name

    assert supervisor.oversee(run) == "run"
    assert supervisor.told == []


def test_overseen_thread_raises_as_it_is(supervise):
    def run():
        raise LookupError("no such game")

    with pytest.raises(LookupError, match="no such game") as caught:
        supervise().oversee(run)
    assert "in run" in "".join(traceback.format_exception(caught.value))


def test_overseen_thread_that_stands_still_is_named_and_what_there_is_saved(supervise, release):
    supervisor, saved = supervise(lambda: False, 0.05), []
    supervisor.rescue = lambda: saved.append(threading.current_thread().name)

    def write_to_a_server_that_never_answers():
        release.wait(PATIENCE_SECONDS)

    with pytest.raises(StallError) as caught:
        supervisor.oversee(write_to_a_server_that_never_answers)
    assert "in write_to_a_server" in str(caught.value)
    assert saved == ["rescue"]
    assert "run" in left_behind()


def test_what_was_kept_is_the_result_of_a_thread_that_stands_still_after_it(supervise, release):
    supervisor = supervise(lambda: False, 0.05)

    def run():
        supervisor.keep("the summary")
        release.wait(PATIENCE_SECONDS)

    assert supervisor.oversee(run) == "the summary"
    assert supervisor.told[0].startswith("warning: no progress for 0.05 s: run (running)")


def test_wish_to_stop_reaches_all_threads_and_is_told_once(supervise):
    told, wishes = [], []
    supervisor = supervise(lambda: bool(wishes))

    def run():
        supervisor.start([wait_for_stop], "worker")
        wishes.append("SIGINT")
        supervisor.watch()
        assert supervisor.stop_event.wait(PATIENCE_SECONDS)
        supervisor.wait()
        raise Stopped

    with pytest.raises(Stopped):
        supervisor.oversee(run, lambda: told.append("stopping"))
    assert told == ["stopping"]


def test_failure_is_what_is_raised_where_it_stopped_everything(supervise):
    supervisor = supervise()

    def run():
        supervisor.start([fail_at_once], "worker")
        supervisor.watch()
        raise Stopped

    with pytest.raises(OSError, match="the emulator broke"):
        supervisor.oversee(run)


def test_interrupt_leaves_at_once_and_stops_all(supervise, release):
    supervisor = supervise()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervisor.oversee(lambda: release.wait(PATIENCE_SECONDS), beat=interrupt)
    assert supervisor.stop_event.is_set()
