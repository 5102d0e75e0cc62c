"""Frames of videos: what stands where, and that it says what it should."""

import envpool
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

from a3cjax.convolutions import frames_to_blocks
from a3cjax.distributions import (
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    MultiCategorical,
    SquashedGaussian,
)
from a3cjax.envs.base import ActionSpec, EnvironmentSpec
from a3cjax.video import actions, charts, style
from a3cjax.video.actions import action_names
from a3cjax.video.charts import ValueChart, choice_title, draw_choice, probability_rows
from a3cjax.video.files import choose_colours
from a3cjax.video.game import Moment
from a3cjax.video.pictures import (
    HEIGHT,
    MAX_WIDTH,
    Pictures,
    fit,
    lay_over,
    observed_picture,
)
from a3cjax.video.saliency import Saliency
from a3cjax.video.screen import MARGIN, PANEL_WIDTH, Labels, Screen
from tests.cases import for_each


def choices(num_actions):
    return ActionSpec("discrete", (num_actions,))


VECTOR = EnvironmentSpec(jax.ShapeDtypeStruct((3,), np.float32), choices(3), 1, is_atari=False)
IMAGE = VECTOR._replace(observation=jax.ShapeDtypeStruct((2, 3, 64), np.uint8))
STATES = VECTOR._replace(observation=jax.ShapeDtypeStruct((5,), np.float32), is_one_hot=True)
NAMES = ["left", "stay", "right"]
POLICY = Categorical(np.log([0.5, 0.25, 0.25]))


def make_moment(**changes):
    moment = Moment(
        num_steps=0,
        score=0.0,
        reward=0.0,
        value=1.0,
        policy=POLICY,
        action=np.int32(0),
        picture=np.full((210, 160, 3), 90, np.uint8),
        observation=np.zeros(3, np.float32),
    )
    return moment._replace(**changes)


def make_screen(**changes):
    labels = Labels(title="Pong", subtitle="a3c", action_names=NAMES)
    return Screen(VECTOR, labels._replace(**changes), steps_per_second=15.0)


def count(image, colour):
    """Pixels of exactly this colour."""
    return int((np.asarray(image) == colour).all(axis=-1).sum())


# The whole frame.


@for_each("size", [(210, 160), (84, 84), (83, 41), (1, 1), (400, 600), (999, 3)])
def test_frames_have_even_sides_and_room_for_any_picture(size):
    frame = make_screen().draw(make_moment(picture=np.full((*size, 3), 90, np.uint8)))
    assert frame.dtype == np.uint8
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert frame.shape[0] == HEIGHT + 2 * MARGIN
    assert frame.shape[1] <= MAX_WIDTH + PANEL_WIDTH + 3 * MARGIN
    assert count(frame, (90, 90, 90)) > 0


def test_another_score_changes_only_where_the_score_stands():
    frames = [make_screen().draw(make_moment(score=score)) for score in (-3.0, 21.0)]
    rows, columns = np.nonzero((frames[0] != frames[1]).any(axis=-1))
    panel = 160 * 2 + 2 * MARGIN
    assert len(rows) > 20
    assert panel <= columns.min()
    assert columns.max() < panel + 0.34 * PANEL_WIDTH
    assert rows.min() > MARGIN + 54
    assert rows.max() < MARGIN + 110


def test_large_numbers_and_long_words_stay_where_they_belong():
    frames = [
        make_screen(title=title, subtitle=f"{title} · " * 3).draw(
            make_moment(score=number, value=value, num_steps=num_steps)
        )
        for title, number, value, num_steps in (
            ("Pong", 0.0, 0.0, 1),
            ("gymnasium-environment-v0", -1234567.0, -1e-5, 199_999),
        )
    ]
    for frame in frames:
        panel = frame[:, 160 * 2 + 2 * MARGIN :]
        assert count(panel[:, PANEL_WIDTH:], style.BACKGROUND) == panel[:, PANEL_WIDTH:, 0].size
        numbers = panel[MARGIN + 70 : MARGIN + 105]
        for begin, end in ((0.322, 0.34), (0.622, 0.64)):
            between = numbers[:, round(begin * PANEL_WIDTH) : int(end * PANEL_WIDTH)]
            assert count(between, style.BACKGROUND) == between[..., 0].size


@for_each(
    "policy",
    [
        EpsilonGreedy(np.linspace(-12345.0, 0.0, 18), np.float32(0.05)),
        DiagonalGaussian(np.full(18, -123.45), np.full(18, 1e4)),
    ],
)
def test_numbers_of_a_choice_are_written_beside_the_bars(policy):
    image = draw_choice(policy, None, [f"action {i}" for i in range(18)], 368, 146)
    number_width = 36 if isinstance(policy, EpsilonGreedy) else 76
    end_of_bars = 368 // 2 - 12 - number_width
    gap = np.asarray(image)[:, end_of_bars + 2 : end_of_bars + 6]
    assert count(gap, style.CARD) == gap[..., 0].size


def test_all_choices_of_several_numbers_are_shown_or_the_one_made_of_each():
    spec = ActionSpec("multi_discrete", (2, 3))
    names = action_names("gymnasium:Own-v0", spec, is_atari=False)
    assert names == ["0: 0", "0: 1", "1: 0", "1: 1", "1: 2"]
    logits = np.log([[0.25, 0.75, 1.0], [0.5, 0.25, 0.25]])
    logits[0, 2] = -np.inf
    policy = MultiCategorical(logits)
    rows = charts._choice_rows(policy, np.array([1, 0]), names)
    assert [(name, text, bool(is_chosen)) for name, _, text, is_chosen in rows] == [
        ("0: 0", "25%", False),
        ("0: 1", "75%", True),
        ("1: 0", "50%", True),
        ("1: 1", "25%", False),
        ("1: 2", "25%", False),
    ]
    np.testing.assert_allclose([length for _, length, *_ in rows], [0.25, 0.75, 0.5, 0.25, 0.25])
    many = action_names("Own", ActionSpec("multi_discrete", (20, 3)), is_atari=False)
    logits = np.zeros((2, 20))
    logits[0, 7], logits[1, 3:] = 3.0, -np.inf
    rows = charts._choice_rows(MultiCategorical(logits), np.array([5, 2]), many)
    assert [(name, is_chosen) for name, *_, is_chosen in rows] == [("0: 5", True), ("1: 2", True)]
    rows = charts._choice_rows(MultiCategorical(logits), None, many)
    assert rows[0][0] == "0: 7"
    assert "probabilities" in choice_title(policy, is_greedy=False)
    for action in (None, np.array([5, 2])):
        image = draw_choice(MultiCategorical(logits), action, many, 368, 146)
        assert (count(image, style.CHOSEN) > 0) == (action is not None)


def test_forbidden_actions_are_left_out_of_action_values():
    policy = EpsilonGreedy(np.array([-1.0, 50.0, -2.0]), np.float32(0.05), np.array([1, 0, 1]) == 1)
    best, worst = (
        count(draw_choice(policy, np.int32(a), NAMES, 368, 146), style.CHOSEN) for a in (0, 2)
    )
    assert best > 1000 > 10 * worst


def test_squashed_numbers_are_shown_where_they_are_taken():
    policy = SquashedGaussian(np.array([50.0]), np.array([1.0]))
    image = np.asarray(draw_choice(policy, np.array([0.999]), ["x"], 368, 146))
    near = np.abs(image.astype(int) - style.CHOSEN).sum(axis=-1) < 60
    plain = DiagonalGaussian(np.array([0.999]), np.array([1e-6]))
    same = np.asarray(draw_choice(plain, np.array([0.999]), ["x"], 368, 146))
    expected = np.abs(same.astype(int) - style.CHOSEN).sum(axis=-1) < 60
    np.testing.assert_array_equal(near, expected)
    assert "tanh" in choice_title(policy, is_greedy=False)


def test_game_stands_at_the_left_enlarged_by_whole_pixels():
    picture = np.random.default_rng(0).integers(0, 255, (210, 160, 3), np.uint8)
    frame = make_screen().draw(make_moment(picture=picture))
    game = frame[MARGIN : MARGIN + 420, MARGIN : MARGIN + 320]
    np.testing.assert_array_equal(game, picture.repeat(2, axis=0).repeat(2, axis=1))


@for_each(("num_games", "is_counted"), [(1, False), (2, True), (None, True)])
def test_games_are_counted_where_more_than_one_may_come(num_games, is_counted):
    screen = make_screen(num_games=num_games)
    first, second = (screen.draw(make_moment())[: MARGIN + 20] for _ in range(2))
    assert (first != second).any() == is_counted


# The value.


def test_chart_shows_the_last_steps_in_a_range_that_never_shrinks():
    chart = ValueChart(200, 100, num_steps=10)
    for value in (0.0, 8.0):
        before = chart.draw(value, 0.0)
    for _ in range(10):
        after = chart.draw(8.0, 0.0)
    accents = [np.nonzero((np.asarray(i) == style.ACCENT).all(axis=-1)) for i in (before, after)]
    assert np.ptp(accents[0][0]) > 60  # from the bottom to the top
    assert np.ptp(accents[1][0]) < 5  # 0 is out of sight, but not out of the range
    assert accents[1][0].max() < 30


def test_chart_goes_on_in_one_range_and_joins_no_two_games():
    chart = ValueChart(200, 100, num_steps=5)
    for step, value in enumerate((0.0, 0.0, 8.0, 8.0)):
        if step in (0, 2):
            chart.start()
        image = np.asarray(chart.draw(value, 0.0))
    rows, columns = np.nonzero((image == style.ACCENT).all(axis=-1))
    assert rows.min() < 20
    assert rows.max() > 80  # the game before is there, too
    assert not ((rows > 20) & (rows < 80)).any()  # and no line leads from it to this one
    rule = (image == style.RULE).all(axis=-1)[30:40].all(axis=0)
    assert rule.sum() in (1, 2)
    assert columns.min() < np.flatnonzero(rule)[0] < columns.max()


def test_values_that_are_not_finite_leave_gaps():
    chart = ValueChart(200, 100, num_steps=7)
    for value in (np.nan, np.inf, -np.inf):  # unknown before any is known, too
        assert count(chart.draw(value, 0.0), style.ACCENT) == 0
    for value in (1.0, 2.0, np.inf, 1.0):
        image = chart.draw(value, 0.0)
    _, columns = np.nonzero((np.asarray(image) == style.ACCENT).all(axis=-1))
    assert columns.min() > 46 + 3 / 6 * 144 - 2
    assert columns.max() < 46 + 4 / 6 * 144 + 2  # a line from the fourth step to the fifth, alone


@for_each(("reward", "colour"), [(1.0, style.GAIN), (-1.0, style.LOSS)])
def test_rare_rewards_are_marked_and_constant_ones_are_not(reward, colour):
    rare, constant = ValueChart(200, 100, 10), ValueChart(200, 100, 10)
    for step in range(8):
        marked = rare.draw(0.0, reward * (step == 4))
        unmarked = constant.draw(0.0, reward)
    assert count(marked, colour) > 5
    assert count(unmarked, colour) == 0


# The choice of action.


@for_each("num_actions", [1, 2, 18, 19, 300])
def test_probabilities_shown_sum_to_one(num_actions):
    logits = np.random.default_rng(0).normal(size=num_actions)
    names = [f"action {index}" for index in range(num_actions)]
    for chosen in (0, int(np.argmin(logits)), num_actions - 1, None):
        rows = probability_rows(Categorical(logits), chosen, names)
        assert len(rows) == min(num_actions, 18)
        assert sum(share for _, share, _ in rows) == pytest.approx(1.0)
        assert sum(is_chosen for *_, is_chosen in rows) == (chosen is not None)
    likeliest = names[int(np.argmax(logits))]
    assert likeliest in {name for name, _, _ in rows}


def test_bars_are_as_long_as_their_probabilities():
    image = draw_choice(POLICY, np.int32(0), NAMES, 368, 146)
    half, both_quarters = count(image, style.CHOSEN), count(image, style.ACCENT)
    assert half > 1000
    assert half == pytest.approx(both_quarters, rel=0.1)  # the name is in its colour, too


def test_action_values_are_bars_from_the_worst_to_the_best():
    policy = EpsilonGreedy(np.array([-3.0, -2.0, -1.0]), np.float32(0.05))
    best, middle, worst = (
        count(draw_choice(policy, np.int32(a), NAMES, 368, 146), style.CHOSEN) for a in (2, 1, 0)
    )
    assert best > 1.7 * middle
    assert worst < 0.1 * best
    assert "ε = 0.05" in choice_title(policy, is_greedy=False)
    assert "ε" not in choice_title(policy, is_greedy=True)


@for_each("variance", [[0.04], [0.04, 0.04]])
def test_gaussians_show_the_action_where_it_lies(variance):
    policy = DiagonalGaussian(np.array([0.0, -5.0]), np.array(variance))
    places = []
    for action in (-0.9, 0.9):
        image = draw_choice(policy, np.array([action, 99.0]), ["x", "y"], 368, 146)
        near = np.abs(np.asarray(image)[:30].astype(int) - style.CHOSEN).sum(axis=-1) < 60
        places.append(np.nonzero(near)[1].mean())
    assert places[0] < places[1]
    assert "±" in choice_title(policy, is_greedy=False)


def test_without_an_action_nothing_is_marked():
    policies = (POLICY, DiagonalGaussian(np.zeros(3), np.ones(1)))
    for policy in policies:
        assert count(draw_choice(policy, None, NAMES, 368, 146), style.CHOSEN) == 0


# Names of actions.


def test_actions_of_atari_games_have_their_names():
    pong = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert action_names("Pong", choices(6), is_atari=True) == pong
    assert action_names("ALE/Pong-v5", choices(6), is_atari=True) == pong
    assert action_names("Breakout-v5", choices(4), is_atari=True) == [
        "NOOP",
        "FIRE",
        "RIGHT",
        "LEFT",
    ]
    full = action_names("Pong", choices(18), is_atari=True)
    assert full == action_names("Seaquest", choices(18), is_atari=True)
    assert len(set(full)) == 18


def test_every_game_with_few_actions_is_one_that_there_is():
    games = " ".join(actions._ATARI_MINIMAL.values()).split()
    assert len(games) == len(set(games)) > 40
    assert {f"{game}-v5" for game in games} <= set(envpool.list_all_envs())
    for numbers in actions._ATARI_MINIMAL:
        assert list(numbers) == sorted(set(numbers))
        assert set(numbers) < set(range(18))


@for_each("game", ["Freeway", "Breakout", "Qbert", "BeamRider"])
def test_names_fit_the_number_of_actions_of_a_game(game):
    spec = envpool.make_spec(f"{game}-v5", full_action_space=False)
    num_actions = int(spec.action_array_spec["action"].maximum) + 1
    assert action_names(game, choices(num_actions), is_atari=True)[0] == "NOOP"


def test_unknown_actions_are_numbered():
    assert action_names("CartPole", choices(2), is_atari=False) == ["left", "right"]
    assert action_names("gymnasium:CartPole-v1", choices(2), is_atari=False) == ["left", "right"]
    numbered = ["action 0", "action 1", "action 2"]
    assert action_names("gymnasium:my_module:MyEnv-v0", choices(3), is_atari=False) == numbered
    for env in ("gymnasium:my_module:CartPole-v1", "python:mine:CartPole"):
        assert action_names(env, choices(2), is_atari=False) == numbered[:2]
    assert action_names("CartPole", choices(3), is_atari=False) == numbered  # somebody else's


# Pictures.


def test_newest_of_stacked_frames_is_shown():
    frames = np.random.default_rng(0).integers(0, 255, (4, 20, 24), np.uint8)
    picture = observed_picture(frames_to_blocks(frames[None])[0], IMAGE)
    np.testing.assert_array_equal(picture, np.stack([frames[3]] * 3, axis=-1))


def test_all_that_stands_on_a_board_is_shown():
    pieces = np.zeros((4, 12, 12), np.uint8)
    pieces[0, 1, 2], pieces[3, 5, 6] = 255, 255
    picture = observed_picture(frames_to_blocks(pieces[None])[0], IMAGE)
    np.testing.assert_array_equal(np.argwhere(picture[..., 0]), [[1, 2], [5, 6]])


def test_three_channels_are_colours():
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 12), np.uint8)
    picture = observed_picture(frames_to_blocks(frames[None])[0], IMAGE)
    np.testing.assert_array_equal(picture, np.moveaxis(frames, 0, -1))


@for_each(("low", "high"), [(0, 1), (10, 13), (0, 255)])
def test_black_and_white_are_what_the_space_announces(low, high):
    frames = np.full((1, 20, 20), low, np.uint8)
    frames[0, 3, 4] = high
    spec = IMAGE._replace(observation_space=Box(low, high, (20, 20, 1), np.uint8))
    picture = observed_picture(frames_to_blocks(frames[None])[0], spec)
    assert (picture[3, 4] == 255).all()
    assert picture.sum() == 3 * 255


def test_matrices_and_numbered_states_are_boards():
    matrix = np.zeros((10, 5), np.float32)
    matrix[7, 2] = 1
    picture = observed_picture(matrix, VECTOR)
    assert picture.shape == (10, 5, 3)
    np.testing.assert_array_equal(picture[7, 2], style.ACCENT)
    board = observed_picture(np.eye(5, dtype=np.float32)[4], STATES)
    assert board.shape == (2, 3, 3)
    np.testing.assert_array_equal(board[1, 1], style.ACCENT)
    assert count(board, style.CARD) == 5


def test_vectors_are_shown_over_time():
    pictures = Pictures(VECTOR)
    images = [
        pictures.draw(
            make_moment(picture=None, num_steps=t, observation=np.array([t, -t, 0], np.float32))
        )
        for t in range(30)
    ]
    assert images[0].size == (MAX_WIDTH, HEIGHT)
    assert count(images[29], style.ACCENT) > count(images[2], style.ACCENT)
    again = pictures.draw(make_moment(picture=None))  # another game
    np.testing.assert_array_equal(np.asarray(again), np.asarray(images[0]))


def test_pictures_are_made_smaller_where_they_are_too_large():
    assert fit(np.zeros((500, 1000, 3), np.uint8)).size == (400, 200)
    assert fit(np.zeros((4000, 10, 3), np.uint8)).size == (1, 420)


def lit(actor=(), critic=()):
    grids = np.zeros((2, 4, 4), np.float32)
    for grid, places in zip(grids, (actor, critic), strict=True):
        for place in places:
            grid[place] = 1.0
    return Saliency(*grids)


def test_policy_and_value_light_up_a_grey_picture_in_colours_of_their_own():
    image = Image.new("RGB", (40, 40), (200, 40, 10))
    lighted = np.asarray(lay_over(image, lit([(0, 0)], [(3, 3)]))).astype(int)
    actor, critic, dark = lighted[2, 2], lighted[37, 37], lighted[2, 37]
    assert np.ptp(dark) == 0 < dark[0] < 60  # grey, and not as light as it was
    assert actor[2] - actor[0] > 80  # blue
    assert critic[0] - critic[2] > 80  # orange
    both = np.asarray(lay_over(image, lit([(0, 0)], [(0, 0)]))).astype(int)[2, 2]
    np.testing.assert_allclose(both - dark, (actor - dark) + (critic - dark), atol=2)


def test_what_is_lit_is_still_seen():
    picture = np.full((40, 40, 3), 60, np.uint8)
    picture[4:6, 4:6] = 236  # the ball
    lighted = np.asarray(lay_over(Image.fromarray(picture), lit([(0, 0)], [(0, 0)]))).astype(int)
    assert (lighted[4, 4] - lighted[2, 2]).max() > 40


@for_each(("is_atari", "is_shown"), [(True, True), (False, False)])
def test_saliency_is_shown_on_what_the_network_reads(is_atari, is_shown):
    spec = IMAGE._replace(is_atari=is_atari)
    moment = make_moment(observation=np.zeros((2, 3, 64), np.uint8), saliency=lit())
    assert (Pictures(spec).draw(moment).size == (320, 420)) == is_shown
    plain = moment._replace(saliency=None)
    assert Pictures(spec).draw(plain).size == (320, 420)


def test_light_has_a_legend_where_there_is_some():
    names = [
        {tuple(c) for c in frame[:, 350:].reshape(-1, 3)} >= {style.ACTOR, style.CRITIC}
        for frame in (
            Screen(IMAGE._replace(is_atari=True), Labels("Pong", "a3c", NAMES), 15.0).draw(moment)
            for moment in (
                make_moment(observation=np.zeros((2, 3, 64), np.uint8), saliency=lit()),
                make_moment(observation=np.zeros((2, 3, 64), np.uint8)),
            )
        )
    ]
    assert names == [True, False]


# Numbers and colours.


@for_each(
    ("number", "text"),
    [
        *(
            (-3.0, "−3"),
            (12345.0, "12,345"),
            (0.1234, "0.12"),
            (-0.0042, "−0.004"),
            (-12.34, "−12.3"),
            (0.0, "0"),
        ),
        *((345.67, "346"), (2.5e7 + 0.5, "2.5e+07"), (1e-5, "1.0e−05"), (1e300, "1.0e+300")),
    ],
)
def test_numbers_are_short(number, text):
    assert style.short_number(number) == text


def test_flat_colours_survive_in_a_palette():
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8).repeat(2, axis=0)
    )
    rare = (250, 128, 114)
    image.paste(rare, (0, 0, 4, 4))
    image.paste(style.BACKGROUND, (25, 0, 50, 100))
    colours = choose_colours([image, image])
    assert colours.shape == (256, 3)
    assert count(colours, rare) >= 1
    assert count(colours, style.BACKGROUND) >= 1


def test_palette_has_the_shades_of_all_frames():
    noise = np.random.default_rng(0).integers(0, 40, (60, 60, 3), np.uint8)
    dim, bright = (Image.fromarray(noise + np.uint8(level)) for level in (60, 150))
    colours = choose_colours([dim, bright, bright]).astype(float)  # bright is frequent
    for image in (dim, bright):
        pixels = np.asarray(image).reshape(-1, 1, 3)
        distances = np.linalg.norm(pixels - colours, axis=-1).min(axis=1)
        assert np.mean(distances) < 7
