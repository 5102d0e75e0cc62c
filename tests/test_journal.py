import io

import pytest

from a3cjax import journal as journal_module
from a3cjax.envs import Episode
from a3cjax.journal import Journal
from a3cjax.loggers import TerminalLogger
from tests.fakes import make_report


class FakeLogger:
    def __init__(self):
        self.rows, self.episodes = [], []

    def write_metrics(self, row):
        self.rows.append(row)

    def write_episodes(self, episodes):
        self.episodes += episodes

    def close(self):
        pass


class Bench:
    """A journal with a clock that is set by hand; a report is 80 frames."""

    def __init__(self, monkeypatch, **changes):
        self.now = 100.0
        monkeypatch.setattr(journal_module.time, "monotonic", lambda: self.now)
        self.logger, self.stream = FakeLogger(), io.StringIO()
        terminal = TerminalLogger("Pong", 10_000, self.stream)
        settings = {"num_frames": 0, "period_frames": 400, "began": 90.0, **changes}
        self.journal = Journal([self.logger], terminal, **settings)

    def report(self, num_reports, **changes):
        for _ in range(num_reports):
            self.journal.reports.put(make_report(**changes))

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


def test_the_rest_gets_a_row_at_the_end(bench):
    bench.report(6)
    bench.now += 1
    bench.journal.write()
    bench.report(1)
    bench.now += 1
    bench.journal.write(is_last=True)
    bench.journal.write(is_last=True)
    assert [row["num_frames"] for row in bench.logger.rows] == [480, 560]


def test_terminal_gets_a_row_every_ten_seconds_and_at_the_end(bench):
    for _ in range(25):
        bench.now += 1
        bench.report(1)
        bench.journal.write()
    assert bench.lines() == ["800", "1,600"]
    bench.journal.write(is_last=True)
    assert bench.lines() == ["800", "1,600", "2,000"]


def test_long_periods_of_the_files_do_not_keep_the_terminal_waiting(monkeypatch):
    bench = Bench(monkeypatch, period_frames=10**9)
    bench.report(3)
    bench.now += 11
    bench.journal.write()
    assert bench.logger.rows == []
    assert bench.lines() == ["240"]


def test_nothing_is_shown_before_the_first_update(bench):
    bench.now += 60
    bench.journal.write(is_last=True)
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


def test_frames_count_on_from_where_the_run_stood(monkeypatch):
    bench = Bench(monkeypatch, num_frames=1000)
    bench.report(5)
    bench.now += 1
    bench.journal.write()
    assert [row["num_frames"] for row in bench.logger.rows] == [1400]
