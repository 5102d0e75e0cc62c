from a3cjax.logs.loggers import CsvLogger
from a3cjax.runs.tables import EpisodeRow, read_columns, read_episodes, read_rows
from tests.fakes import make_row

EPISODES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, -0.125, 7)]


def test_columns_of_metrics_are_those_of_the_first_row(tmp_path):
    logger = CsvLogger(tmp_path)
    first = make_row(400)
    logger.write_metrics(first)
    CsvLogger(tmp_path).write_metrics({**make_row(800), "unheard_of": 1.0})  # a resumed run
    rows, num_damaged = read_rows(tmp_path / "metrics.csv")
    assert [list(row) for row in rows] == [list(first)] * 2
    assert num_damaged == 0


def test_files_can_be_read_while_training_goes_on(tmp_path):
    logger = CsvLogger(tmp_path)
    assert read_rows(tmp_path / "metrics.csv") == ([], 0)
    assert (tmp_path / "episodes.csv").read_text() == ",".join(EpisodeRow._fields) + "\n"
    logger.write_metrics(make_row())
    logger.write_episodes(EPISODES)
    assert read_columns(tmp_path / "metrics.csv")[0]["num_frames"].tolist() == [400]
    assert read_episodes(tmp_path / "episodes.csv") == EPISODES
    logger.close()
