import json
import math
import shutil

import chex
import numpy as np
import pytest

from a3cjax.reports.content import make_content
from a3cjax.reports.curves import make_band, return_panels, speed_panels
from a3cjax.reports.groups import MISSING, differing_settings, group_runs
from a3cjax.reports.published import published_curves
from a3cjax.reports.runs import RunFolderError, distinct_names, read_run, read_runs
from tests.cases import for_each
from tests.run_folders import METRICS, RESULTS, make_run_folder


def test_scores_of_a_real_run_are_those_of_its_summary():
    run = read_run(RESULTS / "pong-seed1")
    summary = json.loads((RESULTS / "pong-seed1" / "summary.json").read_text())
    assert run.final_score.mean == summary["evaluation"]["mean"]
    assert run.final_score.games == tuple(summary["evaluation"]["scores"])
    assert run.frames_per_second == pytest.approx(summary["frames_per_second"], rel=1e-3)
    assert run.best_evaluation == run.final_score.mean
    assert run.best_training == 19.25  # the highest of its metrics.csv
    assert run.best_score == run.best_training
    assert run.notes == ()
    assert sum(run.time_fractions.values()) == pytest.approx(1)


def test_interrupted_run_takes_its_score_from_the_repeated_evaluation():
    run = read_run(RESULTS / "pong-paper")
    assert run.final_score.mean == pytest.approx(-10.833333)
    assert any("evaluation-sampled-30.json" in note for note in run.notes)
    assert any("signal 15" in note for note in run.notes)


def test_run_without_evaluation_shows_its_training_games(tmp_path):
    run = read_run(make_run_folder(tmp_path / "run", scores=None))
    assert (run.final_score.mean, run.final_score.kind) == (10.0, "training")
    assert math.isnan(run.best_evaluation)
    assert run.best_score == 10.0
    assert (run.num_frames, run.wall_seconds, run.frames_per_second) == (3000, 3, 1000)
    assert any("summary.json is missing" in note for note in run.notes)


def test_best_evaluation_counts_those_during_training(tmp_path):
    folder = make_run_folder(tmp_path / "run", scores=(10.0, 12.0))
    (folder / "evaluations.csv").write_text(
        "num_frames,wall_seconds,actions,mean,scores\n"
        "1000,1,sampled,5,4 6\n"
        "2000,2,sampled,19,18 20\n"
    )
    run = read_run(folder)
    assert (run.final_score.mean, run.best_evaluation, run.best_training) == (11.0, 19.0, 10.0)
    (panel, _) = return_panels(group_runs([run]), show_published=False)
    ((index, x, y),) = panel.evaluations
    assert index == 0
    np.testing.assert_allclose(x, [0.001, 0.002])
    np.testing.assert_allclose(y, [5, 19])


def test_training_scores_do_not_come_from_the_first_few_games(tmp_path):
    folder = make_run_folder(tmp_path / "run")
    # After 2 games the mean is 50 by luck; after 100 and 200 games it is 10 and 20.
    rows = [(1000, 1, 2, 50), (2000, 2, 100, 10), (3000, 3, 200, 20)]
    lines = [",".join(METRICS[:4]), *(",".join(map(str, row)) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert read_run(folder).best_training == 20
    assert read_run(folder).frames_to(15) == 3000
    # With fewer than 100 games in all, that of all of them is what there is.
    (folder / "metrics.csv").write_text("\n".join(lines[:2]) + "\n")
    assert read_run(folder).best_training == 50


def test_frames_to_a_score_are_those_at_which_it_is_first_reached(tmp_path):
    run = read_run(make_run_folder(tmp_path / "run", returns=(-20.0, 5.0, 4.0, 9.0)))
    assert run.frames_to(4.5) == 2000
    assert math.isnan(run.frames_to(10.0))


@for_each(
    ("file", "text", "note"),
    [
        ("metrics.csv", None, "metrics.csv is missing"),
        ("metrics.csv", "", "metrics.csv holds no rows yet"),
        ("metrics.csv", ",".join(METRICS) + "\n", "metrics.csv holds no rows yet"),
        ("metrics.csv", "a,b\n1,2\n", "metrics.csv has no column num_frames or wall_seconds"),
        ("metrics.csv", "num_frames,wall_seconds\n1,x\n", "metrics.csv cannot be read"),
        ("metrics.csv", "num_frames,wall_seconds\n1,2,3,4\n", "metrics.csv cannot be read"),
        ("metrics.csv", "num_frames,wall\0seconds\n1,2\n", "metrics.csv"),
        ("summary.json", None, "summary.json is missing"),
        ("summary.json", "", "summary.json cannot be read"),
        ("summary.json", "[1, 2]", "summary.json cannot be read"),
        ("summary.json", "[" * 100_000, "summary.json cannot be read"),
        ("summary.json", '{"evaluation": {"mean": "high"}}', "no final evaluation"),
        ("summary.json", '{"evaluation": {"mean": NaN, "scores": 3}}', "no final evaluation"),
        ("evaluations.csv", "num_frames,wall_seconds,mean\n1,2,x\n", "evaluations.csv cannot"),
        ("evaluations.csv", "num_frames,wall_seconds,mean\n", "evaluations.csv holds no rows"),
    ],
)
def test_half_finished_run_folder_is_read_and_what_is_missing_is_said(tmp_path, file, text, note):
    folder = make_run_folder(tmp_path / "run")
    path = folder / file
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)
    run = read_run(folder)
    assert any(note in said for said in run.notes), run.notes
    assert run.name == "run"


def test_links_in_a_loop_are_no_run_folder(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RunFolderError, match=r"^run folder must hold config\.yaml, got .*loop\.$"):
        read_runs([tmp_path / "loop"])


def test_a_byte_order_mark_before_a_table_is_no_part_of_it(tmp_path):
    folder = make_run_folder(tmp_path / "run")
    sound, path = read_run(folder), folder / "metrics.csv"
    path.write_text("\ufeff" + path.read_text())
    chex.assert_trees_all_equal(read_run(folder).metrics, sound.metrics)


def test_summary_from_before_a_run_was_resumed_says_nothing_of_its_result(tmp_path):
    # Frame 3000 has been reached since.
    summary = {"num_frames": 1000, "training_seconds": 1, "signal": 15, "best_score": 99.0}
    run = read_run(make_run_folder(tmp_path / "run", scores=(5.0,), summary=summary))
    assert (run.num_frames, run.wall_seconds) == (3000, 3)
    assert (run.final_score.mean, run.final_score.kind) == (10.0, "training")
    assert run.best_score == 10.0
    assert run.summary["commit"] == "0123456789abcdef"
    assert any("before the run was resumed" in note for note in run.notes)
    assert not any("signal" in note for note in run.notes)


@for_each(
    ("changes", "is_resumed", "is_final"),
    [
        ({}, False, True),  # older ones do not tell their frames
        ({}, True, False),
        ({"num_frames": 3000}, True, True),
        ({"num_frames": 1000}, True, False),
        ({"num_frames": 1000}, False, False),
        ({"num_frames": 3000, "num_cut": 1}, False, False),
        ({"num_frames": 3000, "max_episode_steps": 10}, False, False),
        ({"num_frames": 3000, "sticky_actions": 0.25}, False, False),
        ({"num_frames": 3000, "mean": None}, False, False),
    ],
)
def test_final_score_is_of_the_last_parameters_by_the_rules_of_the_run(
    tmp_path, changes, is_resumed, is_final
):
    summary = {"num_frames": 1000 if is_resumed else 3000, "evaluation": None}
    folder = make_run_folder(tmp_path / "run", summary=summary)
    result = {"mean": 75.0, "num_cut": 0, "max_episode_steps": None, "sticky_actions": None}
    (folder / "evaluation-sampled-30.json").write_text(json.dumps(result | changes))
    run = read_run(folder)
    expected = (75.0, "evaluation") if is_final else (10.0, "training")
    assert (run.final_score.mean, run.final_score.kind) == expected
    assert is_final == any("evaluation-sampled-30.json" in note for note in run.notes)


@for_each(
    ("names", "is_greedy", "chosen"),
    [
        (["sampled-5", "sampled-100", "sampled-30"], False, "sampled-100"),
        (["sampled-100", "greedy-30"], True, "greedy-30"),
        (["sampled-30", "greedy-100"], False, "sampled-30"),
        (["sampled-30", "greedy-100"], None, "sampled-30"),  # older runs sampled
        (["greedy-30", "greedy-5"], False, "greedy-30"),
    ],
)
def test_of_several_final_evaluations_the_longest_by_the_rules_of_the_run_counts(
    tmp_path, names, is_greedy, chosen
):
    settings = {} if is_greedy is None else {"greedy_evaluation": is_greedy}
    summary = {"num_frames": 3000, "evaluation": None}
    folder = make_run_folder(tmp_path / "run", summary=summary, **settings)
    for mean, name in enumerate(names):
        actions, number = name.split("-")
        result = {"mean": mean, "num_frames": 3000, "num_episodes": int(number)}
        text = json.dumps(result | {"actions": actions})
        (folder / f"evaluation-{name}.json").write_text(text)
    run = read_run(folder)
    assert run.final_score.mean == names.index(chosen)
    assert f"its final score is that of evaluation-{chosen}.json" in run.notes


@for_each(
    "line",
    [
        "3000\n",
        "3000,0.",  # cut within the seconds, which would be another number
        "3000,3,300,10,1000,1,2,1.7e-",
        "3000,3,300,10,1000,1,2,0.01,0.5,0.2,0.2,0.1,0.1\n",
        "\0\0\0\0\n",  # as a power cut leaves them
    ],
)
def test_line_that_is_damaged_is_left_out_alone(tmp_path, line):
    folder = make_run_folder(tmp_path / "run", returns=(1.0, 2.0), scores=None)
    with (folder / "metrics.csv").open("a") as file:
        file.write(line)
    run = read_run(folder)
    np.testing.assert_array_equal(run.column("num_frames"), [1000, 2000])
    assert run.wall_seconds == 2
    assert "metrics.csv cannot be read in 1 of its 3 lines" in run.notes


def test_columns_that_an_older_run_lacks_are_unknown(tmp_path):
    folder = make_run_folder(tmp_path / "run")
    (folder / "metrics.csv").write_text("num_frames,wall_seconds\n1000,1\n")
    run = read_run(folder)
    assert math.isnan(run.typical("staleness_mean"))
    assert all(math.isnan(fraction) for fraction in run.time_fractions.values())
    assert math.isnan(run.best_training)


@for_each("text", [None, "", "- 1\n", "a: [", "!!bool x"])
def test_folder_without_settings_is_no_run_folder(tmp_path, text):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match=r"must hold .* got"):
        read_run(tmp_path)


def test_no_folder_at_all_is_refused():
    with pytest.raises(RunFolderError, match="at least one run folder"):
        read_runs([])


def test_a_folder_given_twice_is_one_run(tmp_path):
    folder = make_run_folder(tmp_path / "run")
    assert len(read_runs([folder, tmp_path / "." / "run", folder])) == 1


def test_copies_of_a_run_are_one_run_and_said_to_be(tmp_path):
    folder = make_run_folder(tmp_path / "run")
    copies = [shutil.copytree(folder, tmp_path / name) for name in ("backup", "copy")]
    (run,) = read_runs([folder, *copies])
    assert run.name == "run"
    left_out = ("backup is a copy of it, and is left out", "copy is a copy of it, and is left out")
    assert run.notes[-2:] == left_out
    log = copies[0] / "metrics.csv"
    log.write_text(log.read_text() + log.read_text().splitlines()[-1] + "\n")  # it went on
    assert [run.name for run in read_runs([folder, *copies])] == ["run", "backup"]


def test_names_are_as_long_as_they_must_be_to_differ(tmp_path):
    paths = [tmp_path / "Pong" / "seed1", tmp_path / "Breakout" / "seed1"]
    assert distinct_names(paths) == ["Pong/seed1", "Breakout/seed1"]
    assert distinct_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def runs_with(tmp_path, *changes):
    return [
        read_run(make_run_folder(tmp_path / str(index), **change))
        for index, change in enumerate(changes)
    ]


def test_runs_that_differ_in_the_seed_only_are_one_group(tmp_path):
    runs = runs_with(
        tmp_path,
        {"seed": 1, "run_dir": "a", "log_period_frames": 10, "tensorboard": True},
        {"seed": 2, "run_dir": "b", "log_period_frames": 20, "tensorboard": False, "video": False},
        {"seed": 3, "unroll_length": 5, "video": True},
        {"seed": 1, "env": "Breakout"},
    )
    groups = group_runs(runs)
    # A setting that only some record does not set the others apart.
    assert [len(group.runs) for group in groups] == [3, 1]
    assert [group.label for group in groups] == ["a3c", "a3c"]
    assert groups[0].method == groups[1].method


def test_runs_with_other_settings_are_another_group_named_by_what_differs(tmp_path):
    runs = runs_with(
        tmp_path,
        {"seed": 1, "unroll_length": 5},
        {"seed": 2, "unroll_length": 20},
        {"seed": 1, "unroll_length": 20},
        {"seed": 1, "algorithm": "n_step_q", "unroll_length": 20},
    )
    groups = group_runs(runs)
    assert [len(group.runs) for group in groups] == [1, 2, 1]
    assert [group.label for group in groups] == [
        "a3c (unroll_length=5)",
        "a3c (unroll_length=20)",
        "n_step_q",
    ]
    assert len({group.method for group in groups}) == 3


def test_what_a_setting_meant_before_it_was_one_sets_older_runs_apart(tmp_path):
    runs = runs_with(tmp_path, {"seed": 1}, {"seed": 1, "target_entropy": 0.3}, {"seed": 2})
    groups = group_runs(runs)
    assert [len(group.runs) for group in groups] == [2, 1]
    differing, _ = differing_settings(groups)
    assert ("target_entropy", ["None", "0.3"]) in differing


@for_each(
    ("envs", "num_groups"),
    [
        (["CartPole-v0", "CartPole-v1"], 2),
        (["gymnasium:Hopper-v4", "gymnasium:Hopper-v5"], 2),
        (["Pong", "Pong-v5", "gymnasium:ALE/Pong-v5", "PongNoFrameskip-v4"], 1),
    ],
)
def test_versions_of_an_environment_are_different_ones_but_for_atari_games(
    tmp_path, envs, num_groups
):
    groups = group_runs(runs_with(tmp_path, *({"env": env} for env in envs)))
    assert len({group.game for group in groups}) == len(groups) == num_groups


def test_labels_differ_also_where_a_few_settings_do_not_tell_runs_apart(tmp_path):
    settings = [{"a": i, "b": 0, "c": 0, "d": j} for i in (0, 1) for j in (0, 1)]
    settings += [{"a": 0, "b": 1, "c": 1, "d": 0}]
    groups = group_runs(runs_with(tmp_path, *settings))
    assert len({group.label for group in groups}) == 5


def test_a_budget_belongs_to_the_game_unless_budgets_are_compared(tmp_path):
    pong, breakout = {"total_frames": 6}, {"env": "Breakout", "total_frames": 10}
    by_name = {"target_entropy": None, "normalize_advantages": True}  # as `tuned/` has them
    usual = {"target_entropy": 0.3, "normalize_advantages": False}
    (first, second) = group_runs(runs_with(tmp_path / "a", pong | by_name, breakout | usual))
    assert first.method == second.method
    groups = group_runs(runs_with(tmp_path / "c", pong | by_name, breakout | usual, pong | usual))
    assert len({group.method for group in groups}) == 3
    groups = group_runs(runs_with(tmp_path / "b", pong, breakout, {"total_frames": 12}))
    assert len({group.method for group in groups}) == 3
    assert [group.label for group in groups] == [
        "a3c (total_frames=6)",
        "a3c",
        "a3c (total_frames=12)",
    ]


def test_what_follows_from_a_budget_is_in_no_label_unless_it_was_chosen(tmp_path):
    short, long = ({"total_frames": x, "warmup_steps": x // 40} for x in (400, 800))
    labels = [group.label for group in group_runs(runs_with(tmp_path / "a", short, long))]
    assert labels == ["a3c (total_frames=400)", "a3c (total_frames=800)"]
    chosen = short | {"warmup_steps": 2}
    labels = [group.label for group in group_runs(runs_with(tmp_path / "b", short, long, chosen))]
    assert labels[2] == "a3c (total_frames=400, warmup_steps=2)"


def test_settings_that_differ_are_told_from_those_that_all_share(tmp_path):
    runs = runs_with(
        tmp_path,
        {"seed": 1, "unroll_length": 5, "discount": 0.99, "log_period_frames": 1, "a": 1},
        {"seed": 2, "unroll_length": 5, "discount": 0.99, "log_period_frames": 2, "a": 1},
        {"seed": 1, "unroll_length": 20, "discount": 0.99, "log_period_frames": 1},
        {"seed": 1, "unroll_length": 40, "discount": 0.99, "log_period_frames": 1, "a": 2},
    )
    differing, shared = differing_settings(group_runs(runs))
    assert differing == [
        ("a", ["1", MISSING, "2"]),
        ("log_period_frames", ["1, 2", "1", "1"]),
        ("unroll_length", ["5", "20", "40"]),
    ]
    assert "discount: 0.99" in shared
    assert not any(setting.startswith("seed") for setting in shared)


def test_settings_that_differ_within_a_group_are_not_shared(tmp_path):
    runs = runs_with(tmp_path, {"log_period_frames": 1}, {"seed": 2, "log_period_frames": 2})
    differing, shared = differing_settings(group_runs(runs))
    assert differing == [("log_period_frames", ["1, 2"])]
    assert not any(setting.startswith("log_period_frames") for setting in shared)


def test_largest_staleness_is_that_of_the_whole_run(tmp_path):
    folder = make_run_folder(tmp_path / "run", returns=(1.0, 2.0, 3.0))
    # staleness_mean and staleness_max of the second row.
    text = (folder / "metrics.csv").read_text()
    text = text.replace("2000,2,200,2.0,1000,1,2", "2000,2,200,2.0,1000,1,9")
    (folder / "metrics.csv").write_text(text)
    run = read_run(folder)
    assert (run.typical("staleness_max"), run.largest("staleness_max")) == (2, 9)
    table = make_content([run], None, show_published=False).speed
    (row,) = table.rows
    assert row[table.columns.index("staleness, largest")].value == 9


def test_what_was_dropped_and_who_was_started_again_are_shown_where_there_is_any(tmp_path):
    quiet = make_run_folder(tmp_path / "quiet", returns=(1.0, 2.0))
    fleet = make_run_folder(tmp_path / "fleet", returns=(1.0, 2.0))
    lines = (fleet / "metrics.csv").read_text().splitlines()
    counted = [",num_dropped_updates,num_restarts", ",7,0", ",4,1"]
    text = "\n".join(map("".join, zip(lines, counted, strict=True))) + "\n"
    (fleet / "metrics.csv").write_text(text)
    both = make_content([read_run(quiet), read_run(fleet)], None, show_published=False).speed
    assert both.columns[-2:] == ("updates dropped", "restarts")
    assert [[cell.text for cell in row[-2:]] for row in both.rows] == [["–", "–"], ["11", "1"]]
    alone = make_content([read_run(quiet)], None, show_published=False).speed
    assert not {"updates dropped", "restarts"} & {*alone.columns}


def test_band_is_median_and_spread_as_far_as_all_seeds_go():
    x = np.array([0.0, 1.0, 2.0])
    band = make_band([(x, 0 * x), (x, 10 * x), (np.array([0.0, 4.0]), np.array([6.0, 6.0]))])
    assert (band.x[0], band.x[-1]) == (0, 2)
    # At x = 1 the seeds are at 0, 10 and 6; at x = 2 at 0, 20 and 6.
    for at, expected in ((1.0, (6, 0, 10)), (2.0, (6, 0, 20))):
        values = [np.interp(at, band.x, y) for y in (band.median, band.low, band.high)]
        np.testing.assert_allclose(values, expected, atol=0.1)


def test_band_of_nothing_in_common_is_none():
    first, later = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    assert make_band([]) is None
    assert make_band([(first, first), (later, later)]) is None
    single = make_band([(np.array([1.0]), np.array([5.0]))])
    assert (single.x.tolist(), single.median.tolist()) == ([1.0], [5.0])


def test_published_curves_end_where_the_panel_ends():
    (over_frames, over_minutes) = return_panels(
        group_runs([read_run(RESULTS / "pong-seed1")]), show_published=True
    )
    assert over_minutes.x_label == "minutes"
    for shown, curve in zip(
        over_minutes.published, published_curves("Pong", {"a3c"}, "hours"), strict=True
    ):
        assert shown.label == curve.label
        end = np.interp(over_minutes.x_max / 60, curve.x, curve.y)  # the published ones in hours
        assert (shown.x[-1], shown.y[-1]) == pytest.approx((over_minutes.x_max, end))
    assert over_frames.x_max == pytest.approx(1.5 * 6.0, rel=0.01)
    assert len(over_frames.published) >= 5
    assert max(curve.x[-1] for curve in over_frames.published) == pytest.approx(over_frames.x_max)
    (without, _) = return_panels(
        group_runs([read_run(RESULTS / "pong-seed1")]), show_published=False
    )
    assert without.published == ()


def test_speed_leaves_the_odd_rest_of_a_run_out(tmp_path):
    folder = make_run_folder(tmp_path / "run", returns=(1.0, 2.0, 3.0))
    text = (folder / "metrics.csv").read_text().replace("3000,3,", "2001,3,")
    (folder / "metrics.csv").write_text(text)
    (panel, _) = speed_panels(group_runs([read_run(folder)]))
    np.testing.assert_allclose(panel.lines[0].seeds[0][0], [0.001, 0.002])
