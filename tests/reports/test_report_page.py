import csv
import io
import itertools
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from a3cjax.commands import main
from a3cjax.reports import figures, videos, write_report
from a3cjax.reports.content import make_content
from a3cjax.reports.groups import group_runs
from a3cjax.reports.markdown import render_markdown
from a3cjax.reports.overview import PANEL_SIZE, draw_game
from a3cjax.reports.page import pick_videos, render_page
from a3cjax.reports.runs import read_runs
from a3cjax.reports.tables import format_duration, format_frames, format_score, number_cell
from a3cjax.reports.videos import find_video
from a3cjax.reports.writing import render_csv
from tests.cases import for_each
from tests.run_folders import RESULTS, make_run_folder

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">$\\bad{$'
MP4 = b"\0\0\0\x20ftypisom"  # how a file begins
ELEMENTS_WITHOUT_END = {"meta", "link", "img", "source", "input", "br"}


class Page(HTMLParser):
    """Elements of a page, its text, and whether every element is closed where it should be."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.is_well_formed, self.words = [], [], True, []
        self.feed(html)
        self.is_well_formed &= not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ELEMENTS_WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.is_well_formed &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content_of(*folders, **options):
    return make_content(read_runs(folders), None, **{"show_published": False, **options})


def make_gif(path, num_pictures=2, size=(16, 12)):
    pictures = [Image.new("RGB", size, (80 * index, 0, 0)) for index in range(num_pictures)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The files of a report on three games of results/, by name."""
    output = tmp_path_factory.mktemp("report") / "new" / "folder"
    names = [*(f"pong-seed{seed}" for seed in (1, 2, 3)), "breakout-seed1"]
    path = write_report([RESULTS / name for name in (*names, "inverted-pendulum-seed1")], output)
    assert path == output / "report.html"
    return output


def test_page_needs_nothing_but_itself(report):
    page = Page((report / "report.html").read_text())
    assert page.is_well_formed
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "poster", "xlink:href", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
    assert "@import" not in (report / "report.html").read_text()


def test_page_can_be_read_without_seeing(report):
    page = Page((report / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if attributes.get("role") == "img":
            assert len(attributes["aria-label"]) > 10
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == len(page.all("table"))


def test_page_shows_the_scores_of_all_runs(report):
    text = " ".join(Page((report / "report.html").read_text()).words)
    for score in ("18.9", "19.9", "19.2", "345", "1,000"):
        assert score in text
    assert "median of 3 seeds: 18.9 to 19.9" in text


def test_markdown_has_the_same_tables(report):
    markdown = (report / "report.md").read_text()
    assert "report.png" in markdown
    page = Page((report / "report.html").read_text())
    # A header line and a row for each row of the page's tables.
    assert markdown.count("\n|") == len(page.all("table")) + len(page.all("tr"))


def test_picture_and_table_of_runs_are_written(report):
    with Image.open(report / "report.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").resize((100, 100)).getcolors(10_000)) > 50
    rows = read_csv(report / "report.csv")
    assert [row["run"] for row in rows][:3] == ["pong-seed1", "pong-seed2", "pong-seed3"]
    assert float(rows[0]["final_score"]) == pytest.approx(18.8666667)
    assert float(rows[0]["final_human_normalized"]) == pytest.approx((18.8667 + 20.7) / 35.3, 1e-4)
    assert rows[4]["final_human_normalized"] == ""


def test_nothing_out_of_a_file_becomes_html(tmp_path):
    folder = make_run_folder(
        tmp_path / "<img src=x onerror=alert(1)>$\\bad{$",
        env=HOSTILE,
        algorithm=HOSTILE,
        seed=HOSTILE,
        note=HOSTILE,
        summary={
            **dict.fromkeys(("commit", "command"), HOSTILE),
            "machine": {"processor": HOSTILE, "cores": HOSTILE},
            "versions": {HOSTILE: HOSTILE},
        },
    )
    other = make_run_folder(tmp_path / "other", env=HOSTILE, algorithm=HOSTILE, note="plain")
    path = write_report([folder, other], tmp_path / "report", title=HOSTILE)
    page = Page(path.read_text())
    assert page.is_well_formed
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    assert HOSTILE in "".join(page.words)
    for tag in ("<script", "<img"):
        assert tag not in (path.parent / "report.md").read_text()


def test_what_is_no_letter_is_shown_by_its_number(tmp_path):
    folder = make_run_folder(tmp_path / "run", summary={"commit": "\ud800"}, seed="x")
    folder = folder.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    path = write_report([folder], tmp_path / "report")
    words = "".join(Page(path.read_text()).words)
    assert "caf\\udce9" in words
    assert "\\ud800" in words
    assert "caf\\udce9" in (path.parent / "report.md").read_text().replace("\\\\", "\\")


def test_every_group_of_a_sweep_has_its_key_in_the_picture(tmp_path):
    few, many = (
        [make_run_folder(tmp_path / f"{n}-{i}", seed=1, unroll_length=i) for i in range(n)]
        for n in (2, 25)
    )
    heights = []
    for folders in (few, many):
        write_report(folders, tmp_path / "curves.png", show_published=False)
        with Image.open(tmp_path / "curves.png") as picture:
            heights.append(picture.height / picture.width)
            pixels = np.asarray(picture.convert("L"))
    assert heights[1] > 2.5 * heights[0]
    # Nothing is cut off: below the last key there is white, as at the picture's own edges.
    assert (pixels[-3:] == pixels[0, 0]).all()


@for_each(
    ("text", "cell"),
    [
        ("=cmd|'/c calc'!A1", "'=cmd|'/c calc'!A1"),
        *((f"{sign}1+A1", f"'{sign}1+A1") for sign in "=+-@＝"),
        ("\t=1+1", "'=1+1"),
        ("\r\n-A1", "'-A1"),
        ("\0=A1", "\\x00=A1"),
        *((text, text) for text in ("-3", "+1.5", "-1e-5", "Pong", "a-b", "", "0123")),
    ],
)
def test_spreadsheets_compute_no_cell_of_a_report(tmp_path, text, cell):
    folder = make_run_folder(tmp_path / "run", seed=text, summary={"commit": text}, scores=(-3.0,))
    (row,) = csv.DictReader(io.StringIO(render_csv(content_of(folder))))
    assert (row["commit"], row["seed"], row["final_score"]) == (cell, cell, "-3")


def test_markdown_cells_stay_in_their_cells(tmp_path):
    folder = make_run_folder(tmp_path / "a|b`c", env="Pong", note="x|y\nz")
    other = make_run_folder(tmp_path / "other", env="Pong", note="w")
    lines = [*render_markdown(content_of(folder, other)).splitlines(), ""]
    assert any("a\\|b\\`c" in line for line in lines)
    for header in (index for index, line in enumerate(lines) if line.startswith("|---")):
        num_bars = lines[header].count("|")
        for line in lines[header + 1 : lines.index("", header)]:
            assert line.replace("\\|", "").count("|") == num_bars


def test_runs_that_have_just_begun_or_stopped_early_are_reported(tmp_path):
    whole = make_run_folder(tmp_path / "whole", returns=(1.0, 2.0, 3.0, 4.0))
    early = make_run_folder(tmp_path / "early", returns=(1.0,), seed=2, scores=None)
    begun = make_run_folder(tmp_path / "begun", scores=None, returns=(), seed=3)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text("env: Breakout\n")
    path = write_report([whole, early, begun, bare], tmp_path / "report", show_published=False)
    page = Page(path.read_text())
    assert page.is_well_formed
    text = " ".join(page.words)
    assert "begun: no game was finished yet: it has no score" in text
    assert "bare: metrics.csv is missing" in text
    rows = read_csv(path.parent / "report.csv")
    assert [row["final_score_of"] for row in rows] == ["evaluation", "training", "none", "none"]
    assert [row["num_frames"] for row in rows] == ["4000", "1000", "", ""]
    assert "summary.json is missing" in rows[1]["notes"]
    with Image.open(path.parent / "report.png") as picture:
        assert picture.width > 1000


def test_contents_are_listed_from_four_games_on(tmp_path, report):
    games = ["Pong", "Breakout", "Qbert", "BeamRider"]
    four = content_of(*(make_run_folder(tmp_path / game, env=game) for game in games))
    links = [link["href"] for link in Page(render_page(four)).all("a")]
    assert "#game-4" in links
    three = Page((report / "report.html").read_text())
    assert "#game-3" not in [link["href"] for link in three.all("a")]


def test_several_games_have_an_interquartile_mean_with_an_interval(tmp_path):
    folders = [
        make_run_folder(tmp_path / f"{env}{seed}", env=env, seed=seed, scores=(score + seed,))
        for env, score in (("Pong", -3.05), ("Breakout", 16.1))
        for seed in (1, 2)
    ]
    content = content_of(*folders)
    card = content.cards[-1]
    assert card.heading == "2 Atari games, a3c"
    # Pong: 52.8 and 55.7 % of human, Breakout: 53.5 and 56.9 %; the middle two are kept.
    assert card.value == "55 %"
    assert next(name for name, _ in card.facts) == "95 % interval"
    alone = content_of(folders[0], folders[2]).aggregate_table
    assert "needs two seeds a game" in [cell.text for cell in alone.rows[0]]


def test_videos_are_embedded_with_their_first_picture(tmp_path):
    moving = make_run_folder(tmp_path / "moving", env="CartPole")
    film = make_run_folder(tmp_path / "film", env="CartPole", unroll_length=5)
    broken = make_run_folder(tmp_path / "broken", env="CartPole", unroll_length=6)
    make_gif(moving / "play.gif")
    make_gif(film / "play.gif")
    (film / "play.mp4").write_bytes(MP4)
    (broken / "play.gif").write_bytes(b"GIF89a")
    page = Page(render_page(content_of(moving, film, broken)))
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/gif;base64,")
    assert "played by moving" in image["alt"]
    (still,) = page.all("source")  # for those who want no motion
    assert still["media"] == "(prefers-reduced-motion: reduce)"
    assert still["srcset"].startswith("data:image/png;base64,")
    (video,) = page.all("video")
    assert video["src"].startswith("data:video/mp4;base64,")
    assert video["poster"].startswith("data:image/png;base64,")
    assert "controls" in video
    assert "broken: play.gif is left out: it is no GIF" in " ".join(page.words)


def test_video_that_is_too_large_or_damaged_is_left_out(tmp_path, monkeypatch):
    run = read_runs([make_run_folder(tmp_path / "run")])[0]
    assert find_video(run) == (None, None)
    (run.folder / "play.gif").write_bytes(b"\0" * 100)
    assert find_video(run) == (None, "play.gif is left out: it is no GIF")
    make_gif(run.folder / "play.gif")
    (run.folder / "play.mp4").write_bytes(b"\0" * 100)
    video, note = find_video(run)
    assert (video.kind, note) == ("gif", "play.mp4 is left out: it is no MP4")
    monkeypatch.setattr(videos, "MAX_BYTES", 2**20)
    (run.folder / "play.mp4").write_bytes(MP4 + b"\0" * 2**20)
    video, note = find_video(run)
    assert video.kind == "gif"
    assert note == "play.mp4 is left out: 1.0 MiB, the limit is 1"
    monkeypatch.setattr(videos, "MAX_BYTES", 10)
    assert find_video(run)[0] is None


@for_each(
    ("scores", "caption"),
    [
        ([(1.0,), (2.0,)], "final evaluation, median of 2 seeds: 1.0 to 2.0"),
        ([(1.0,), None], "final evaluation or last training games, median of 2 seeds: 1.0 to 10.0"),
        ([None], "last training games"),
    ],
)
def test_card_says_what_its_score_is_of(tmp_path, scores, caption):
    folders = [
        make_run_folder(tmp_path / str(seed), seed=seed, scores=of_run)
        for seed, of_run in enumerate(scores)
    ]
    assert content_of(*folders).cards[0].caption == caption


@for_each("seed", [20240131, "1" * 5000])  # no number is made of so many digits
def test_card_of_a_run_without_games_and_its_seed_as_it_was_given(tmp_path, seed):
    content = content_of(make_run_folder(tmp_path / "run", scores=None, returns=(), seed=seed))
    assert (content.cards[0].value, content.cards[0].caption) == ("–", "no game was finished yet")
    assert content.scores.rows[0][content.scores.columns.index("seed")].text == str(seed)


@for_each(
    ("curves", "label", "described"),
    [
        ([(1.0, 2.0), ()], "a3c", "a3c: from 1.0 to 2.0 at"),
        ([(1.0, 2.0), (), (3.0, 4.0)], "a3c, 2 seeds", "a3c, median of 2 seeds: from 2.0 to 3.0"),
        ([()], "a3c", "a3c: no games yet."),
    ],
)
def test_curves_count_the_seeds_that_have_one(tmp_path, curves, label, described):
    folders = [
        make_run_folder(tmp_path / str(seed), seed=seed, returns=returns, scores=None)
        for seed, returns in enumerate(curves)
    ]
    pictures, legend = draw_game(group_runs(read_runs(folders)), 0, show_published=False)
    assert [key.label for key in legend] == [label]
    assert all(described in picture.description for picture in pictures)


def test_dots_of_many_methods_stay_in_the_row_of_their_game(tmp_path):
    for index in range(9):
        make_run_folder(tmp_path / f"pong{index}", unroll_length=index)
    make_run_folder(tmp_path / "breakout", env="Breakout")
    axis = figures.new_figure(4, 3).subplots()
    groups = group_runs(read_runs(sorted(tmp_path.iterdir())))
    figures.draw_normalized(axis, groups, figures.LIGHT)
    rows = [line.get_ydata() for line in axis.lines if line.get_markersize() == 7]
    assert [round(float(y[0])) for y in rows] == [0, *[1] * 9]
    assert max(axis.get_ylim()) > max(float(y[0]) for y in rows)


@for_each("score", [0.0, 345.0, 17_668.0, 5_000_000.0])
def test_ticks_of_normalised_scores_do_not_overlap(tmp_path, score):
    make_run_folder(tmp_path / "run", env="VideoPinball", scores=(score,))
    figure = figures.new_figure(*PANEL_SIZE)
    axis = figure.subplots()
    figures.draw_normalized(axis, group_runs(read_runs([tmp_path / "run"])), figures.LIGHT)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
    assert len(boxes) >= 3
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_group_shows_the_video_of_its_best_run_that_has_one(tmp_path):
    make_run_folder(tmp_path / "best", scores=(3.0,))
    make_run_folder(tmp_path / "worse", scores=(1.0,), seed=2)
    make_run_folder(tmp_path / "better", scores=(2.0,), seed=3)
    make_run_folder(tmp_path / "unknown", scores=None, returns=(), seed=4)
    for name in ("worse", "better", "unknown"):
        make_gif(tmp_path / name / "play.gif")
    names = ("unknown", "worse", "better", "best")
    (group,) = group_runs(read_runs([tmp_path / name for name in names]))
    assert [video.run_name for video in pick_videos([group], [])] == ["better"]


@for_each(
    ("shown", "expected"),
    [
        (format_score(-20.44), "−20.4"),
        (format_score(0), "0.0"),
        (format_score(-0.04), "−0.040"),
        (format_score(0.96), "0.96"),
        (format_score(-0.0000123), "−1.2e−05"),
        (format_score(1234.5), "1,234"),
        (format_score(float("nan")), "–"),
        (format_frames(6_002_008), "6.0M"),
        (format_frames(250_000), "250k"),
        (format_frames(800), "800"),
        (format_duration(45), "45 s"),
        (format_duration(1749), "29 min"),
        (format_duration(3599), "1 h 00 min"),
        (number_cell(float("inf")).value, None),
    ],
)
def test_numbers_are_written_as_people_read_them(shown, expected):
    assert shown == expected


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the program in this process, in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["a3cjax", "report", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_program_writes_a_report_in_place_of_an_earlier_one(command, tmp_path):
    make_run_folder(tmp_path / "run")
    output = tmp_path / "report"
    output.mkdir()
    (output / "report.html").write_text("an earlier one")
    code, out, _ = command("run", "title=My runs", "published=false")
    assert code == 0
    assert out == "written to report/report.html\n"
    html = (output / "report.html").read_text()
    assert "<title>My runs</title>" in html
    assert "published curves" not in html
    assert sorted(file.name for file in output.iterdir()) == [
        f"report.{suffix}" for suffix in ("csv", "html", "md", "png")
    ]


@pytest.mark.parametrize("file", ["curves.png", "curves.PNG"])
def test_program_draws_the_learning_curves_alone(command, tmp_path, monkeypatch, file):
    drawn, png = [], figures.png
    monkeypatch.setattr(
        figures, "png", lambda figure, path: drawn.append(figure) or png(figure, path)
    )
    for seed in (1, 2):
        make_run_folder(tmp_path / f"a{seed}", seed=seed)
    make_run_folder(tmp_path / "b", algorithm="n_step_q", label="$x" * 40)
    code, out, _ = command("a1", "a2", "b", f"output=new/{file}")
    assert (code, out) == (0, f"written to new/{file}\n")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [file]
    (figure,) = drawn
    over_frames, over_time = figure.axes
    assert (over_frames.get_xlabel(), over_time.get_xlabel()) == ("million frames", "minutes")
    labels = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert labels[:2] == ["a3c, 2 seeds", "n_step_q"]
    # Of others in frames; DQN and all four methods of the paper, as in its figure 1.
    assert sum("(paper)" in label for label in labels) == 5
    assert len(labels) == 2 + 4 + 5


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_program_refuses_what_is_no_run_folder(command, tmp_path, make):
    make_run_folder(tmp_path / "run")
    make(tmp_path / "other")
    code, out, err = command("run", "other", "output=out")
    assert (code, out) == (2, "")
    assert err == "error: run folder must hold config.yaml, got other.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["file", "file/out", "file/curves.png", "picture.png"])
def test_program_says_that_it_cannot_write(command, tmp_path, output):
    make_run_folder(tmp_path / "run")
    Path("file").touch()
    Path("picture.png").mkdir()
    code, _, err = command("run", f"output={output}")
    assert code == 2
    assert err.startswith(f"error: output must be writable, got {output}: ")
    assert err.count("\n") == 1


def test_program_writes_no_report_into_a_run_folder(command, tmp_path):
    make_run_folder(tmp_path / "run")
    before = sorted(os.listdir("run"))
    code, _, err = command("run", "output=run")
    assert (code, err) == (2, "error: output must not be the folder of a run, got run.\n")
    assert sorted(os.listdir("run")) == before


def test_program_without_arguments_says_how_to_use_it(command):
    code, _, err = command()
    assert code == 2
    assert "<run folder>" in err


def test_title_that_is_no_text_is_drawn_with_its_bytes_escaped(tmp_path):
    make_run_folder(tmp_path / "run")
    path = write_report([tmp_path / "run"], tmp_path / "report", title=os.fsdecode(b"l\xfc"))
    assert "<title>l\\udcfc</title>" in path.read_text()
    assert (path.parent / "report.png").stat().st_size > 0
