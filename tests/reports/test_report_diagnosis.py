"""Warnings of a report: each where it should be, none on a sound run."""

import json
import math

import numpy as np
import pytest
import yaml

from a3cjax.reports.content import make_content
from a3cjax.reports.diagnosis import diagnose
from a3cjax.reports.markdown import render_markdown
from a3cjax.reports.page import render_page
from a3cjax.reports.runs import read_run, read_runs
from a3cjax.reports.tables import CURVE_POINTS, DASH, curve_cell
from a3cjax.reports.writing import render_csv
from tests.cases import for_each
from tests.run_folders import RESULTS

BUDGET = 6_000_000
NUM_ROWS = 60
SIX_ACTIONS = {"type": "Discrete", "n": 6, "start": 0, "dtype": "int64"}


def going(*values):
    """A column that goes in lines through these values, evenly spread over the run."""
    return np.interp(np.linspace(0, 1, NUM_ROWS), np.linspace(0, 1, len(values)), values)


DROPPED = {"num_dropped_updates": going(1, 1)}


def make_run(
    folder,
    *,
    columns=None,
    games=None,
    action_space=SIX_ACTIONS,
    share=1.0,
    scores=None,
    **settings,
):
    """A run of Pong that went well, but for what is changed; `share` of the budget is over."""
    folder.mkdir()
    settings = {
        **{"env": "Pong", "seed": 1, "algorithm": "a3c", "total_frames": BUDGET},
        **{"num_actors": 2, "max_grad_norm": 40.0, **settings},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    frames = np.linspace(0, share * settings["total_frames"], NUM_ROWS + 1)[1:].round()
    table = {
        "num_frames": frames,
        "wall_seconds": frames / 3000,
        "num_episodes": np.arange(NUM_ROWS) * 20 + 100,
        "episode_return_mean": going(-20.5, 0, 17, 18.5, 19),
        "entropy": going(1.78, 1.5, 1.6),
        "value_loss": going(0.1, 0.01),
        "grad_norm": going(20, 3),
        "staleness_mean": going(1, 1),
        "staleness_max": going(2, 3),
        "num_refused_updates": going(0, 0),
        **(columns or {}),
    }
    lines = [
        ",".join(table),
        *(",".join(map(str, row)) for row in zip(*table.values(), strict=True)),
    ]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if games is None:
        games = [(18 + n % 3, 1500 + 7 * n) for n in range(200)]
    rows = [f"{n + 1},{n},0,{score},{length}" for n, (score, length) in enumerate(games)]
    header = "num_frames,wall_seconds,actor,episode_return,episode_length"
    (folder / "episodes.csv").write_text("\n".join([header, *rows]) + "\n")
    if action_space is not None:
        content = json.dumps({"action_space": action_space})
        (folder / "environment.json").write_text(content)
    if scores is not None:
        summary = {"num_frames": frames[-1], "evaluation": {"mean": np.mean(scores)}}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def returns(*values):
    return {"episode_return_mean": going(*values)}


PLATEAU = returns(-20.5, -10, 0, 8, 8.4, 9)  # the seed of issue 19 went from 8.6 to 10.7
RANDOM_PLAY = returns(-20.7, -20.6)
COPIES = [(6, 2000)] * 12
DIFFERENT = [(n % 5, 1500 + n) for n in range(188)]
CARTPOLE = {
    "env": "CartPole",
    "action_space": {"type": "Discrete", "n": 2},
    "columns": {"entropy": going(0.69, 0.5)},
}
COLLAPSING = {"entropy": going(0.6, 0.01, 0.01)}
LAST_ROW = {"episode_return_mean": np.where(np.arange(NUM_ROWS) == NUM_ROWS - 1, 9.0, math.nan)}
RISING = [(9, 9)] * 100 + [(21, 21)] * 100
BEAM_RIDER = {
    "env": "BeamRider",
    "scores": [500.0],
    "games": [(400 + 200 * (n % 2), 1500 + 7 * n) for n in range(200)],
}


@for_each(
    ("changes", "names"),
    [
        ({}, []),
        # Plateaus.
        ({"columns": PLATEAU}, ["plateau"]),
        ({"columns": returns(-20.5, 8.6, 8.6, 10.7)}, ["plateau"]),
        ({"columns": returns(-20.5, 8.6, 8.6, 14.7)}, []),  # it rises
        ({"columns": PLATEAU, "scores": [15.7]}, []),  # better than it looks
        ({"columns": PLATEAU, "scores": [10.5]}, ["plateau"]),
        ({"columns": returns(-20.5, 15, 15, 15)}, []),  # not far below
        ({"columns": PLATEAU, "share": 0.7}, []),  # the budget is not over
        ({"columns": PLATEAU, "total_frames": 1_000_000}, []),  # and short
        ({"columns": RANDOM_PLAY, "total_frames": 2_000_000}, ["plateau"]),
        # Games that deviate by 100: two means of a hundred differ by 14 by chance.
        ({**BEAM_RIDER, "columns": returns(370, 370, 370, 390)}, []),  # however far off humans are
        ({**BEAM_RIDER, "columns": returns(370, 370, 370, 380)}, ["plateau"]),
        ({**BEAM_RIDER, "columns": returns(370, 770, 1170, 1210)}, ["plateau"]),
        # Copies of games.
        ({"games": DIFFERENT + COPIES}, ["repeats"]),
        ({"games": DIFFERENT + COPIES[:9]}, []),
        ({"games": COPIES + DIFFERENT}, []),  # long ago
        ({"games": [(n % 8, 900 + n % 8) for n in range(100)]}, ["repeats"]),
        ({"games": [(n % 11, 900 + n % 11) for n in range(110)]}, []),
        ({"games": [(21, 1500)] * 100}, []),  # nothing left to win
        ({"games": COPIES}, []),  # too few to tell
        ({"games": [(n % 2, 9) for n in range(100)]}, []),  # short by nature
        ({**CARTPOLE, "games": [(9, 90), *[(500, 500)] * 120]}, []),
        ({**CARTPOLE, "games": [(500, 500), *[(200, 200)] * 120]}, ["repeats"]),
        # Entropy; ln 6 is 1.79.
        (
            {"columns": {**RANDOM_PLAY, "entropy": going(1.7, 0.05, 0.05)}, "share": 0.5},
            ["collapsed"],
        ),
        ({"columns": {"entropy": going(1.7, 0.05, 0.05)}}, []),  # it plays well
        ({"columns": {**RANDOM_PLAY, "entropy": going(1.7, 0.12, 0.12)}, "share": 0.5}, []),
        (
            {**CARTPOLE, "columns": {**returns(20, 9), **COLLAPSING}},
            ["collapsed"],
        ),
        ({**CARTPOLE, "columns": {**returns(20, 99), **COLLAPSING}}, []),
        ({**CARTPOLE, "columns": {**returns(17, 18), **COLLAPSING}}, ["collapsed"]),  # 19 before
        # Learned within the first row; as good as can be; one row only.
        ({**CARTPOLE, "columns": {**returns(20.1, 20), **COLLAPSING}, "games": RISING}, []),
        ({**CARTPOLE, "columns": {**returns(1, 1), **COLLAPSING}, "games": [(1, 1)] * 200}, []),
        ({**CARTPOLE, "columns": {**COLLAPSING, **LAST_ROW}}, []),
        ({"columns": {"entropy": going(1.79, 1.77, 1.78)}}, ["random"]),
        # Less of it where the score is that of random play, too.
        ({"columns": {**RANDOM_PLAY, "entropy": going(1.5, 1.7, 1.7)}, "share": 0.5}, ["random"]),
        ({"columns": {**RANDOM_PLAY, "entropy": going(1.7, 1.5, 1.5)}, "share": 0.5}, []),
        ({"columns": {"entropy": going(1.7, 1.7, 1.7)}}, []),
        ({"columns": {"entropy": going(1.79, 1.77)}, "share": 0.3}, []),  # it may still begin
        ({"columns": {"entropy": going(1.79, 1.77)}, "action_space": None}, []),
        (
            {
                "columns": {"entropy": going(1.79, 1.77)},
                "action_space": {"type": "Box", "shape": [6]},
            },
            [],
        ),
        *(
            ({"columns": {"entropy": going(entropy, entropy)}, "action_space": space}, names)
            for space, entropy, names in [
                ({"type": "MultiDiscrete", "nvec": [2, 3]}, 1.78, ["random"]),
                ({"type": "MultiDiscrete", "nvec": [[2, 2], [3, 3]]}, 3.57, ["random"]),
                ({"type": "MultiDiscrete", "nvec": [[2, 2], [3, 3]]}, 3.5, []),
                ({"type": "MultiDiscrete", "nvec": [[2], [3, 3]]}, 3.5, []),  # damaged
                ({"type": "MultiBinary", "n": 3}, 2.07, ["random"]),
                ({"type": "MultiBinary", "n": [2, 3]}, 4.15, ["random"]),
                ({"type": "MultiBinary", "n": [2, 3]}, 4.0, []),
            ]
        ),
        # Staleness.
        ({"columns": {"staleness_mean": going(2.5, 2.5)}}, ["stale"]),
        ({"columns": {"staleness_max": going(11, 11)}}, ["stale"]),
        ({"columns": {"staleness_mean": going(15, 15), "staleness_max": going(42, 42)}}, ["stale"]),
        (
            {
                "columns": {"staleness_mean": going(15, 15), "staleness_max": going(42, 42)},
                "num_actors": 16,
            },
            [],
        ),
        # Clipping tells something only of runs that do not learn.
        ({"columns": {"grad_norm": going(400, 400)}}, []),
        ({"columns": {**PLATEAU, "grad_norm": going(400, 400)}}, ["plateau", "clipped"]),
        ({"columns": {**PLATEAU, "grad_norm": going(39, 40)}}, ["plateau"]),
        (
            {"columns": {**PLATEAU, "grad_norm": going(400, 400)}, "max_grad_norm": None},
            ["plateau"],
        ),
        ({"columns": {"num_refused_updates": going(0, 0, 1)}}, ["refused"]),
        (
            {
                "columns": {
                    "num_refused_updates": going(0, 3),
                    "num_updates": going(0, 0),
                    "num_dropped_updates": going(0, 0),
                }
            },
            ["refused"],
        ),
        (
            {"columns": {"num_dropped_updates": going(1, 1), "num_updates": going(1, 400)}},
            ["dropped"],
        ),
        ({"columns": {"num_dropped_updates": going(1, 1), "num_updates": going(1, 900)}}, []),
    ],
)
def test_each_warning_appears_where_it_should(changes, names, tmp_path):
    run = read_run(make_run(tmp_path / "run", **changes))
    assert [warned.name for warned in diagnose(run)] == names


def test_warnings_say_in_a_sentence_what_was_seen_and_what_to_try(tmp_path):
    columns = {
        **PLATEAU,
        "staleness_mean": going(3.2, 3.2),
        "grad_norm": going(400, 400),
        "num_refused_updates": going(1, 1),
        "entropy": going(1.785, 1.785),
    }
    run = read_run(make_run(tmp_path / "run", columns=columns, games=DIFFERENT + COPIES))
    warned = {w.name: w.sentence for w in diagnose(run)}
    assert len(warned) == 6
    for name, words in {
        "plateau": "from 8.1 to 8.9 in the last 2.0M frames, where 20.9 was published",
        "repeats": "up to 12 in a row are equal, most often 6.0 after 2,000 steps",
        "random": "entropy ended at 1.78 of 1.79 nats",
        "stale": "3.2 updates in the mean and 2 at the most, with 2 actors",
        "clipped": "max_grad_norm=40 in 100 % of the periods, its norm is 400",
        "refused": "60 updates were refused",
    }.items():
        assert words in warned[name]
    for sentence in warned.values():
        assert "try " in sentence
        assert "\n" not in sentence


@for_each(("is_normal", "is_named"), [("true", False), ("false", True)])
def test_normalized_advantages_are_advised_where_they_are_not_yet(tmp_path, is_normal, is_named):
    folder = make_run(tmp_path / "run", columns={"entropy": going(1.785, 1.785)})
    with (folder / "config.yaml").open("a") as file:
        file.write(f"normalize_advantages: {is_normal}\n")
    (warned,) = diagnose(read_run(folder))
    assert ("normalize_advantages=true" in warned.sentence) == is_named
    assert "a smaller entropy_cost" in warned.sentence


# Runs of `results/` that did not go well, and the warnings that are right.
NOT_WELL = {
    "space-invaders-advantages-in-points/seed1": {"plateau"},
    "space-invaders-advantages-in-points/seed5": {"plateau"},
    "atari5-constant-cost/BeamRider-seed1": {"random"},
    "atari5-constant-cost/SpaceInvaders-seed1": {"plateau"},
    "space-invaders-fresh/seed5": {"plateau"},
    "other-games-advantages-in-points/enduro-seed1": {"repeats"},
    "other-games/kungfumaster-seed1": {"plateau"},
}


@for_each(
    "name",
    [path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("episodes.csv")],
)
def test_runs_of_ours_are_warned_of_where_they_did_not_go_well(name):
    warnings = {warned.name for warned in diagnose(read_run(RESULTS / name))}
    assert warnings == NOT_WELL.get(name, set())


def test_empty_and_damaged_folders_are_not_warned_of(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("env: Pong\nnum_actors: many\ntotal_frames: soon\n")
    assert diagnose(read_run(folder)) == ()
    for content in ('{"action_space": 3}', '{"action_space": {"type": "Discrete", "n": "x"}}', "["):
        (folder / "environment.json").write_text(content)
        (folder / "metrics.csv").write_text("num_frames,wall_seconds,entropy\n9,1,0\n")
        assert diagnose(read_run(folder)) == ()


def test_warnings_stand_in_page_markdown_and_table(tmp_path):
    bad = make_run(tmp_path / "bad", columns=PLATEAU)
    good = make_run(tmp_path / "good")
    content = make_content(read_runs([bad, good]), None, show_published=False)
    (warning,) = content.warnings
    assert warning.startswith("bad: the score stands still")
    assert "What looks wrong" in render_page(content)
    assert warning in render_page(content)
    assert "## What looks wrong" in render_markdown(content)
    assert "the score stands still" in render_csv(content).splitlines()[1]
    sound = make_content(read_runs([good]), None, show_published=False)
    assert "looks wrong" not in render_page(sound) + render_markdown(sound)


# Where numbers went.


def test_course_has_a_curve_of_all_that_is_known(tmp_path):
    one = make_run(tmp_path / "one")
    other = make_run(tmp_path / "other", columns={"explained_variance": going(0, 0.8)})
    content = make_content(read_runs([one, other]), None, show_published=False)
    assert content.course.columns == (
        *("run", "score in training", "entropy, nats", "explained variance", "value loss"),
        *("staleness", "gradient norm"),
    )
    first, second = content.course.rows
    assert (first[3].text, first[3].curve) == (DASH, ())
    assert second[3].text == "0.000 → 0.800"
    assert render_page(content).count("<polyline") == 5 + 6


def test_curves_go_from_bottom_to_top_and_constant_ones_are_flat():
    rising = curve_cell(np.linspace(0.0, 90.0, 1000))
    x, y = np.array(rising.curve).T
    assert len(x) == CURVE_POINTS
    assert (x[0], x[-1], y[0], y[-1]) == (0, 1, 0, 1)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert rising.text == "0.721 → 89.3"
    assert np.ptp(np.array(curve_cell(1 + 0.001 * np.arange(10)).curve)[:, 1]) < 0.1
    assert curve_cell(np.zeros(9)).curve[0] == (0, 0.5)
    peak = curve_cell(np.array([*np.linspace(0, 1, 59), 1e6]))
    assert peak.curve[30][1] == pytest.approx(0.5, abs=0.05)
    assert curve_cell(np.array([math.nan])).text == DASH
    assert curve_cell(np.array([math.nan, 5.0])).curve == ((0.0, 0.5),)
