import io
import math
import queue

import pytest
from rich.console import Console

from a3cjax.actors.reports import Lost, Restarted, Seconds
from a3cjax.envs.base import Episode
from a3cjax.logs import journal as journal_module
from a3cjax.logs.journal import BadUpdatesError, Journal
from a3cjax.logs.terminal import TerminalLogger
from a3cjax.runs.tables import TIME_PARTS
from tests.fakes import make_report


class FakeLogger:
    def __init__(self):
        self.rows, self.episodes = [], []

    def write_metrics(self, row):
        self.rows.append(row)

    def write_episodes(self, episodes):
        self.episodes += episodes

    def write_evaluation(self, num_frames, score):
        raise AssertionError("the journal knows of no evaluation")

    def close(self, *, has_failed=False):
        pass


class FakeView(FakeLogger):
    """A terminal that redraws itself."""

    is_live, period_seconds, memory = True, 1.0, 0.5

    def write_metrics(self, row, actors):
        self.rows.append((row, actors))


class Bench:
    """A journal with a clock that is set by hand; a report is 80 frames."""

    def __init__(self, monkeypatch, terminal=None, **changes):
        self.now = 100.0
        self.late_reports = []
        monkeypatch.setattr(journal_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(journal_module.time, "sleep", self.wait)
        self.logger, self.stream = FakeLogger(), io.StringIO()
        terminal = terminal or TerminalLogger("Pong", 10_000, console=Console(file=self.stream))
        settings = {"num_frames": 0, "period_frames": 400, "began": 90.0, "max_bad_updates": 10}
        settings |= changes
        self.version, self.frames = settings.get("num_updates", 0), settings["num_frames"]
        self.reports = queue.SimpleQueue()
        self.journal = Journal(self.reports, [self.logger], terminal, **settings)

    def report(self, num_reports, **changes):
        for _ in range(num_reports):
            self.version += 1
            self.frames += 80
            self.reports.put(make_report(version=self.version, run_frames=self.frames, **changes))

    def wait(self, seconds):
        self.now += seconds
        if self.late_reports:
            self.reports.put(self.late_reports.pop(0))

    def lines(self):
        """The number of frames in each line printed."""
        return [line.split()[1] for line in self.stream.getvalue().splitlines()[1:]]


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def test_files_get_a_row_every_period_of_frames(bench):
    for _ in range(12):
        bench.now += 0.5
        bench.report(1)
        bench.journal.write()
    assert [row["num_frames"] for row in bench.logger.rows] == [400, 800]
    assert [row["num_updates"] for row in bench.logger.rows] == [5, 10]
    assert [row["wall_seconds"] for row in bench.logger.rows] == [12.5, 15.0]
    assert [row["frames_per_second"] for row in bench.logger.rows] == [160.0, 160.0]


def test_rows_have_the_columns_that_scripts_rely_on(bench):
    bench.now += 2.34567
    bench.report(6)
    bench.journal.write()
    (row,) = bench.logger.rows
    assert list(row.items())[:3] == [
        ("num_frames", 480),
        ("num_updates", 6),
        ("wall_seconds", 12.346),
    ]
    columns = (
        "frames_per_second episode_return_mean policy_loss value_loss entropy grad_norm "
        "staleness_mean lock_wait_fraction"
    )
    assert set(columns.split()) <= set(row)


def test_the_rest_gets_a_row_at_the_end(bench):
    bench.report(6)
    bench.now += 1
    bench.journal.write()
    bench.report(1)
    bench.now += 1
    bench.journal.finish()
    bench.journal.finish()
    assert [row["num_frames"] for row in bench.logger.rows] == [480, 560]


def test_terminal_gets_a_row_every_ten_seconds_and_at_the_end(bench):
    for _ in range(25):
        bench.now += 1
        bench.report(1)
        bench.journal.write()
    assert bench.lines() == ["800", "1,600"]
    bench.journal.finish()
    assert bench.lines() == ["800", "1,600", "2,000"]


def test_view_is_redrawn_when_nothing_happens(monkeypatch):
    view = FakeView()
    bench = Bench(monkeypatch, view)
    bench.report(1, actor_index=0)
    bench.report(1, actor_index=1)
    for _ in range(3):
        bench.now += 1.0
        bench.journal.write()
        bench.report(1, actor_index=1)  # and the other one does nothing any more
        bench.journal.write()  # too early
    assert [row["num_frames"] for row, _ in view.rows] == [160, 240, 320]
    idle = [{index: row["idle_seconds"] for index, row in rows.items()} for _, rows in view.rows]
    assert idle == [{0: 0.0, 1: 0.0}, {0: 1.0, 1: 0.0}, {0: 2.0, 1: 0.0}]
    bench.now += 1.0
    bench.journal.write()
    bench.now += 1.0
    bench.journal.write()  # no actor does anything
    assert [row["idle_seconds"] for row in view.rows[-1][1].values()] == [4.0, 1.0]


def test_view_gets_a_row_of_each_actor_learner(monkeypatch):
    view = FakeView()
    bench = Bench(monkeypatch, view)
    for value in range(30):
        bench.report(1, actor_index=3, staleness=4, episodes=[Episode(0, float(value), 7)])
    bench.report(1, actor_index=1, num_steps=5, seconds=Seconds(0.0, 3.0, 2.0, 1.0, 3.0, 0.25))
    bench.now += 2.0
    bench.journal.write()
    ((row, actors),) = view.rows
    third, first = actors[3], actors[1]
    assert list(actors) == [3, 1]
    assert (first["steps_per_second"], third["steps_per_second"]) == (2.5, 300.0)  # in 2 seconds
    assert first["steps_per_second"] + third["steps_per_second"] == row["steps_per_second"]
    fractions = [first[f"{part}_fraction"] for part in TIME_PARTS]
    assert fractions == [0.0, 3 / 6, 2 / 6, 1 / 6]
    assert (first["lock_wait_fraction"], third["lock_wait_fraction"]) == (0.5, 0.05)
    assert (first["staleness_mean"], third["staleness_mean"]) == (0.0, 4.0)
    assert math.isnan(first["episode_return_mean"])
    assert third["episode_return_mean"] == sum(range(20, 30)) / 10  # of its last 10
    assert row["episode_return_mean"] == sum(range(30)) / 30
    bench.report(1, actor_index=3, num_steps=0)
    bench.now += 1.0
    bench.journal.write()  # half of the period before counts
    assert view.rows[-1][1][3]["steps_per_second"] == 300 / 2


def test_view_gets_every_episode(monkeypatch):
    view = FakeView()
    bench = Bench(monkeypatch, view)
    bench.report(1, episodes=[Episode(0, 2.0, 7), Episode(1, 4.0, 9)])
    bench.journal.write()
    assert [episode.episode_return for episode in view.episodes] == [2.0, 4.0]
    assert view.episodes == bench.logger.episodes


def test_long_periods_of_the_files_do_not_keep_the_terminal_waiting(monkeypatch):
    bench = Bench(monkeypatch, period_frames=10**9)
    bench.report(3)
    bench.now += 11
    bench.journal.write()
    assert bench.logger.rows == []
    assert bench.lines() == ["240"]


def test_nothing_is_shown_before_the_first_update(bench):
    bench.now += 60
    bench.journal.finish()
    assert bench.lines() == []
    assert bench.logger.rows == []


def test_episodes_are_written_with_the_frames_of_their_update(bench):
    bench.report(2)
    bench.report(1, actor_index=3, episodes=[Episode(0, 2.0, 7), Episode(1, 4.0, 9)])
    bench.now += 5
    bench.journal.write()
    assert [tuple(row) for row in bench.logger.episodes] == [
        (240, 15.0, 3, 2.0, 7),
        (240, 15.0, 3, 4.0, 9),
    ]
    assert bench.journal.mean_return == 3.0


def reports(*versions, **changes):
    return [make_report(version=v, run_frames=80 * v, **changes) for v in versions]


def test_updates_are_taken_in_by_their_version_not_by_their_arrival(bench):
    for report in reports(3, 1, 5):
        bench.reports.put(report._replace(episodes=[Episode(0, float(report.version), 7)]))
    bench.now += 1
    bench.journal.write()
    assert [(e.num_frames, e.episode_return) for e in bench.logger.episodes] == [(80, 1.0)]
    bench.reports.put(reports(2)[0])
    bench.journal.write()
    assert [(e.num_frames, e.episode_return) for e in bench.logger.episodes] == [
        (80, 1.0),
        (240, 3.0),
    ]
    bench.journal.finish()  # update 4 was never reported: its actor failed
    assert bench.logger.episodes[-1].num_frames == 400
    assert bench.logger.rows[-1]["num_frames"] == 400


def test_updates_that_cost_no_frames_count_as_updates(bench):
    for version, num_frames, run_frames in [(1, 80, 80), (2, 0, 80), (3, 320, 400), (4, 0, 400)]:
        changes = {"num_frames": num_frames, "run_frames": run_frames, "num_steps": num_frames // 4}
        bench.reports.put(make_report(version=version, staleness=version, **changes))
    bench.now += 1
    bench.journal.write_up_to(4)
    bench.journal.finish()
    (row,) = bench.logger.rows
    assert (row["num_frames"], row["num_updates"]) == (400, 4)
    assert (row["frames_per_second"], row["staleness_mean"]) == (400 / 1, 2.5)


def test_before_a_checkpoint_the_files_say_what_it_holds_and_no_more(bench):
    for report in reports(1, 2, 4, episodes=[Episode(0, 1.0, 7)]):
        bench.reports.put(report)
    bench.late_reports = reports(3, episodes=[Episode(0, 1.0, 7)])
    bench.now += 1
    bench.journal.write_up_to(3)
    assert [episode.num_frames for episode in bench.logger.episodes] == [80, 160, 240]
    assert [row["num_frames"] for row in bench.logger.rows] == [240]
    assert bench.logger.rows[0]["num_updates"] == 3
    bench.now += 1
    bench.journal.finish()
    assert [row["num_frames"] for row in bench.logger.rows] == [240, 320]


def test_an_update_that_is_never_reported_holds_up_no_checkpoint(bench):
    bench.reports.put(reports(2)[0])
    began = bench.now
    bench.journal.write_up_to(2)
    assert 2.0 < bench.now - began < 3.0


def test_versions_that_are_declared_lost_hold_up_nothing(bench):
    one, two, three, four = reports(1, 2, 3, 4)
    for report in (four, three):
        bench.reports.put(report)
    bench.reports.put(Lost((1, 2)))
    bench.reports.put(one)  # it was reported all the same
    bench.now += 1
    began = bench.now
    bench.journal.write_up_to(4)
    assert bench.now == began
    assert [row["num_updates"] for row in bench.logger.rows] == [4]
    assert bench.logger.rows[0]["num_frames"] == four.run_frames
    bench.reports.put(Lost((5,), four.run_frames + 8))
    bench.journal.write()
    assert (bench.journal.num_updates, bench.journal.num_frames) == (5, four.run_frames + 8)
    bench.now += 1
    bench.reports.put(two._replace(episodes=[Episode(0, 5.0, 7)]))  # late, but here
    bench.reports.put(Lost((3,)))
    bench.journal.write()
    (late,) = bench.logger.episodes
    assert (late.num_frames, late.episode_return) == (four.run_frames + 8, 5.0)
    bench.journal.finish()
    assert (bench.journal.num_updates, bench.journal.num_frames) == (5, four.run_frames + 8)


def test_random_play_after_the_last_update_is_in_the_last_row(bench):
    (one,) = reports(1)
    bench.reports.put(one)
    bench.reports.put(Lost((1,), one.run_frames + 20))
    bench.now += 1
    bench.journal.write()
    assert bench.journal.num_frames == one.run_frames
    bench.journal.finish()
    assert bench.logger.rows[-1]["num_frames"] == one.run_frames + 20
    assert bench.logger.rows[-1]["num_updates"] == 1


def test_what_is_dropped_is_no_bad_update_and_its_frames_count_where_it_came(monkeypatch):
    bench = Bench(monkeypatch, max_bad_updates=2, period_frames=80)
    dropped = {"is_dropped": True, "episodes": [Episode(0, 5.0, 7)]}
    for frames in (320, 240, 400):  # all after version 2
        bench.reports.put(make_report(version=2, run_frames=frames, **dropped))
    bench.report(1)
    bench.now += 1
    bench.journal.write()
    assert (bench.journal.num_frames, bench.logger.episodes) == (80, [])
    bench.report(1)
    bench.now += 1
    bench.journal.write_up_to(2)
    assert [game.num_frames for game in bench.logger.episodes] == [240, 320, 400]
    assert [row["num_dropped_updates"] for row in bench.logger.rows] == [0, 3]
    assert [row["num_refused_updates"] for row in bench.logger.rows] == [0, 0]
    assert bench.logger.rows[-1]["num_frames"] == 400


def test_restarts_are_counted_in_the_next_row_and_in_the_line_of_whoever_died(monkeypatch):
    bench = Bench(monkeypatch, view := FakeView())
    for restarted in ([Restarted(1), Restarted()], []):
        for report in restarted:
            bench.reports.put(report)
        bench.report(5, actor_index=1)
        dropped = {"version": bench.version, "run_frames": bench.frames, "is_dropped": True}
        bench.reports.put(make_report(actor_index=1, **dropped))
        bench.now += 1
        bench.journal.write()
    assert [row["num_restarts"] for row in bench.logger.rows] == [2, 0]
    # In the line, those of all periods together.
    assert [actors[1]["num_restarts"] for _, actors in view.rows] == [1, 1]
    assert [actors[1]["num_dropped_updates"] for _, actors in view.rows] == [1, 2]


def test_what_is_counted_after_the_last_frame_has_a_row_at_the_end(bench):
    bench.report(5)
    bench.now += 1
    bench.journal.write()
    dropped = {"version": 5, "run_frames": 400, "is_dropped": True}
    for late in (make_report(**dropped), Restarted()):
        bench.reports.put(late)
    bench.now += 1
    bench.journal.finish()
    assert [row["num_frames"] for row in bench.logger.rows] == [400, 400]
    counts = [(row["num_dropped_updates"], row["num_restarts"]) for row in bench.logger.rows]
    assert counts == [(0, 0), (1, 1)]


def test_a_pooled_gradient_has_no_version(bench):
    bench.reports.put(make_report(version=7, run_frames=999, is_pooled=True))
    bench.report(5)
    bench.now += 1
    bench.journal.write()
    (row,) = bench.logger.rows
    assert (row["num_frames"], row["num_updates"]) == (400, 5)
    assert row["frames_per_second"] == 480.0  # six gradients of 80 frames


def refused(**changes):
    return make_report(version=0, run_frames=0, bad_trajectory="trajectory", **changes)


def test_refused_updates_are_counted_and_told_once(bench):
    bench.reports.put(refused())
    bench.reports.put(refused(episodes=[Episode(0, 5.0, 7)]))
    bench.report(5)
    bench.now += 1
    bench.journal.write()
    (row,) = bench.logger.rows
    assert (row["num_refused_updates"], row["num_updates"], row["num_frames"]) == (2, 5, 400)
    assert row["grad_norm"] == 3.0  # of the others
    assert bench.journal.mean_return == 5.0
    assert bench.stream.getvalue().count("not finite") == 1


def test_too_many_refused_updates_in_a_row_end_the_run(monkeypatch):
    bench = Bench(monkeypatch, max_bad_updates=3)
    for _ in range(2):
        bench.reports.put(refused())
        bench.reports.put(refused())
        bench.report(1)
    bench.journal.write()
    for _ in range(3):
        bench.reports.put(refused(actor_index=4))
    with pytest.raises(BadUpdatesError, match=r"3 updates in a row .* of actor 4") as caught:
        bench.journal.write()
    assert caught.value.report.bad_trajectory == "trajectory"
    bench.now += 1
    bench.journal.finish()
    assert bench.logger.rows[-1]["num_updates"] == 2


def test_a_resumed_run_counts_on(monkeypatch):
    bench = Bench(monkeypatch, num_frames=800, num_updates=10, past_returns=[1.0] * 150)
    bench.report(5, episodes=[Episode(0, 2.0, 7)])
    bench.now += 1
    bench.journal.write()
    (row,) = bench.logger.rows
    assert (row["num_frames"], row["num_updates"], row["num_episodes"]) == (1200, 15, 155)
    assert row["episode_return_mean"] == 1.05


def test_a_run_that_goes_on_has_its_first_row_after_a_whole_period(monkeypatch):
    bench = Bench(monkeypatch, num_frames=1_000, num_updates=12)
    bench.now += 1
    bench.report(4)
    bench.journal.write()
    assert bench.logger.rows == []
    bench.report(1)
    bench.journal.write()
    assert [row["num_frames"] for row in bench.logger.rows] == [1_400]
