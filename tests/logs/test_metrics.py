import math

import numpy as np

from a3cjax.actors.reports import Seconds
from a3cjax.envs.base import Episode
from a3cjax.logs.metrics import MetricsWindow
from a3cjax.runs.tables import RETURN_WINDOW
from tests.cases import for_each
from tests.fakes import make_metrics, make_report


def row_of(*reports, window=None, seconds=2.0):
    window = window or MetricsWindow()
    for report in reports:
        window.add(report)
    return window.pop_row(seconds)


def test_rates_are_those_of_the_period():
    row = row_of(make_report(num_frames=80, num_steps=20), make_report(num_frames=60, num_steps=15))
    assert row["frames_per_second"] == 70.0  # 140 frames in 2 seconds
    assert row["steps_per_second"] == 17.5


def test_scalars_are_means_over_the_updates():
    row = row_of(
        make_report(metrics=make_metrics(1.0, 2.0, 0.5, 4.0)),
        make_report(metrics=make_metrics(-2.0, 4.0, 1.0, 5.0)),
    )
    assert (row["policy_loss"], row["value_loss"], row["entropy"]) == (-0.5, 3.0, 0.75)
    assert row["grad_norm"] == 4.5
    assert all(isinstance(value, int | float) for value in row.values())


def test_names_of_the_run_are_not_the_algorithms():
    names = "num_frames", "frames_per_second", "staleness_max", "num_games"
    metrics = dict(zip(names, (1.0, 2.0, 3.0, 4.0), strict=True))
    row = row_of(make_report(num_frames=80, metrics=metrics))
    assert row["frames_per_second"] == 40.0
    assert row["staleness_max"] == 0
    names = *(f"loss_{name}" for name in names[:3]), "num_games"
    assert [row[name] for name in names] == [1.0, 2.0, 3.0, 4.0]
    assert "num_frames" not in row


def test_staleness_is_summarised():
    row = row_of(*(make_report(staleness=staleness) for staleness in (0, 1, 5)))
    assert row["staleness_mean"] == 2.0
    assert row["staleness_max"] == 5


def test_fractions_are_of_the_time_of_the_actors():
    # Together 10 seconds of one actor, and 20 of another.
    row = row_of(
        make_report(),
        make_report(seconds=Seconds(env=2.0, act=3.0, learn=7.0, push=8.0, wait=5.5, hold=1.25)),
    )
    fractions = {name: row[f"{name}_fraction"] for name in ("env", "act", "learn", "push")}
    assert fractions == {"env": 6 / 30, "act": 6 / 30, "learn": 9 / 30, "push": 9 / 30}
    assert row["lock_wait_fraction"] == 6 / 30
    assert row["lock_hold_fraction"] == 1.5 / 30


def test_every_row_starts_a_new_period():
    window = MetricsWindow()
    row_of(make_report(staleness=9, num_frames=800), window=window)
    row = row_of(make_report(staleness=1, num_frames=40), window=window)
    assert row["staleness_max"] == 1
    assert row["frames_per_second"] == 20.0


def episodes(*returns):
    return [Episode(0, float(episode_return), 10) for episode_return in returns]


def test_mean_return_is_unknown_before_the_first_episode():
    assert math.isnan(MetricsWindow().mean_return)
    assert math.isnan(row_of(make_report())["episode_return_mean"])


def test_mean_return_reaches_over_periods():
    window = MetricsWindow()
    assert row_of(make_report(episodes=episodes(1, 3)), window=window)["episode_return_mean"] == 2
    assert row_of(make_report(episodes=episodes(8)), window=window)["episode_return_mean"] == 4
    assert row_of(make_report(), window=window)["episode_return_mean"] == 4
    assert window.mean_return == 4


def test_mean_return_is_of_the_last_100_episodes():
    returns = np.arange(250.0)
    window = MetricsWindow()
    for chunk in np.split(returns, 25):
        window.add(make_report(episodes=episodes(*chunk)))
    assert RETURN_WINDOW == 100
    assert window.mean_return == returns[-100:].mean()


def test_num_episodes_counts_all_since_the_start():
    window = MetricsWindow()
    assert row_of(make_report(episodes=episodes(1, 2)), window=window)["num_episodes"] == 2
    assert row_of(make_report(episodes=episodes(1)), window=window)["num_episodes"] == 3


def test_period_without_an_update_has_no_rates():
    row = row_of()
    assert row["frames_per_second"] == 0
    assert math.isnan(row["staleness_mean"])
    assert math.isnan(row["env_fraction"])


@for_each("field", ["value_loss", "policy_loss"])
def test_divergence_stays_visible(field):
    metrics = {**make_metrics(0.0, 0.0, 0.0, math.nan), field: math.nan}
    assert math.isnan(row_of(make_report(metrics=metrics))[field])


def test_window_may_hold_fewer_episodes():
    window = MetricsWindow(num_episodes=10)
    for value in range(30):
        window.add(make_report(episodes=episodes(value)))
    assert window.mean_return == np.mean(range(20, 30))


def test_window_without_updates_is_idle_for_whole_periods():
    window = MetricsWindow()
    row_of(make_report(), window=window)
    assert window.idle_seconds == 0.0
    for seconds in (2.0, 4.0):
        row_of(window=window)
        assert window.idle_seconds == seconds
    row_of(make_report(), window=window)
    assert window.idle_seconds == 0.0


@for_each("fate", [{"bad_trajectory": "kept"}, {"is_dropped": True}])
def test_period_of_lost_updates_alone_has_the_columns_of_all_others(fate):
    row = row_of(make_report(metrics=make_metrics(1.0, 2.0, 0.5, 4.0), num_frames=80, **fate))
    assert list(row) == list(row_of(make_report(metrics=make_metrics(1.0, 2.0, 0.5, 4.0))))
    assert math.isnan(row["policy_loss"])
    assert row["frames_per_second"] == (40.0 if "is_dropped" in fate else 0.0)


# Memory of earlier periods.


def test_earlier_periods_count_with_their_weight():
    window = MetricsWindow(memory=0.5)
    row_of(make_report(num_steps=40, staleness=4), window=window)
    row = row_of(make_report(num_steps=10, staleness=1), window=window)
    # Half of the first period: 20 steps and half an update, in 1 second.
    assert row["steps_per_second"] == (20 + 10) / (1 + 2)
    assert row["staleness_mean"] == (2 + 1) / 1.5
    assert row["staleness_max"] == 1
    assert window.num_updates == 0
    row = row_of(window=window)
    assert row["steps_per_second"] == (10 + 5) / (0.5 + 1 + 2)
    assert row["policy_loss"] == -0.5


def test_numbers_that_are_not_finite_are_forgotten_after_their_period():
    window = MetricsWindow(memory=0.5)
    row = row_of(make_report(metrics=make_metrics(math.nan, 2.0, 1.5, math.inf)), window=window)
    assert math.isnan(row["policy_loss"])
    row = row_of(make_report(), make_report(), window=window)
    assert row["policy_loss"] == -1.0 / 2.5
    assert math.isfinite(row["grad_norm"])
