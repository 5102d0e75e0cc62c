"""A frame of a video: the game at the left, what the agent thinks at the right."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from a3cjax.distributions import EpsilonGreedy
from a3cjax.envs.base import EnvironmentSpec
from a3cjax.video import style
from a3cjax.video.charts import ValueChart, choice_title, draw_choice
from a3cjax.video.game import Moment
from a3cjax.video.pictures import HEIGHT, Pictures

MARGIN = 16
PANEL_WIDTH = 368
CHART_SECONDS = 20.0
_CHART_HEIGHT = 112
_CHOICE_HEIGHT = 146


class Labels(NamedTuple):
    """What a screen says of the run: a title, a line below it, and names of the actions.

    `num_games` says how many games there will be, None if nobody knows; `is_greedy`, whether the
    most likely actions are taken.
    """

    title: str
    subtitle: str
    action_names: list[str]
    num_games: int | None = 1
    is_greedy: bool = False


class Screen:
    """Draws moment after moment; a moment with `num_steps` 0 starts another game."""

    def __init__(self, spec: EnvironmentSpec, labels: Labels, steps_per_second: float):
        """`steps_per_second` is the speed at which the game is shown."""
        self._labels = labels
        self._steps_per_second = steps_per_second
        self._pictures = Pictures(spec)
        num_steps = max(2, round(CHART_SECONDS * steps_per_second))
        self._chart = ValueChart(PANEL_WIDTH, _CHART_HEIGHT, num_steps)
        self._num_games, self._width = 0, 0

    def draw(self, moment: Moment) -> np.ndarray:
        """One frame, uint8 `[height, width, 3]`; both sides are even, as H.264 requires."""
        if moment.num_steps == 0:
            self._num_games += 1
            self._chart.start()
        picture = self._pictures.draw(moment)
        # A film has one size; some environments' pictures change theirs with the level.
        self._width = self._width or picture.width
        if picture.width != self._width:
            height = max(1, picture.height * self._width // picture.width)
            size = (self._width, height) if height <= HEIGHT else (self._width, HEIGHT)
            picture = ImageOps.pad(picture, size, color=style.BACKGROUND)
        width = picture.width + PANEL_WIDTH + 3 * MARGIN
        height = HEIGHT + 2 * MARGIN
        image = Image.new("RGB", (width + width % 2, height + height % 2), style.BACKGROUND)
        image.paste(picture, (MARGIN, MARGIN + (HEIGHT - picture.height) // 2))
        self._draw_panel(image, picture.width + 2 * MARGIN, moment)
        return np.asarray(image)

    def _draw_panel(self, image: Image.Image, left: int, moment: Moment) -> None:
        labels = self._labels
        right = left + PANEL_WIDTH
        place, width = (left, MARGIN - 3), PANEL_WIDTH - 120  # room for the game's number
        style.write(image, place, labels.title, style.TEXT, 20, is_bold=True, max_width=width)
        if labels.num_games != 1:
            of_all = "" if labels.num_games is None else f" of {labels.num_games}"
            text = f"game {self._num_games}{of_all}"
            style.write(image, (right, MARGIN + 4), text, style.MUTED, 12, anchor="ra")
        place = (left, MARGIN + (26 if moment.saliency is None else 23))
        style.write(image, place, labels.subtitle, style.MUTED, 11, max_width=PANEL_WIDTH)

        if moment.saliency is not None:
            place = (left, MARGIN + 37)
            _draw_legend(image, place, {"policy": style.ACTOR, "value": style.CRITIC})

        value_name = "MAX Q" if isinstance(moment.policy, EpsilonGreedy) else "VALUE"
        seconds = int(moment.num_steps / self._steps_per_second)
        step = f"{moment.num_steps:,} · {seconds // 60}:{seconds % 60:02d}"
        top = MARGIN + 54
        for begin, end, name, text, size in (
            (0.0, 0.32, "SCORE", style.short_number(moment.score), 24),
            (0.34, 0.62, value_name, style.short_number(moment.value), 24),
            (0.64, 1.0, "STEP · TIME", step, 18),
        ):
            x, width = left + begin * PANEL_WIDTH, (end - begin) * PANEL_WIDTH
            style.write(image, (x, top), name, style.MUTED, 10)
            place = (x, top + 42)
            style.write(
                image, place, text, style.TEXT, size, is_bold=True, anchor="ls", max_width=width
            )

        top += 58
        is_q = isinstance(moment.policy, EpsilonGreedy)
        name = "max Q(s, ·)" if is_q else "value V(s)"
        title = f"{name}, last {CHART_SECONDS:.0f} seconds"
        style.write(image, (left, top), title, style.MUTED, 12)
        image.paste(self._chart.draw(moment.value, moment.reward), (left, top + 19))

        top += 19 + _CHART_HEIGHT + 12
        title = choice_title(moment.policy, is_greedy=labels.is_greedy)
        style.write(image, (left, top), title, style.MUTED, 12)
        choice = draw_choice(
            moment.policy, moment.action, labels.action_names, PANEL_WIDTH, _CHOICE_HEIGHT
        )
        image.paste(choice, (left, top + 19))


def _draw_legend(
    image: Image.Image, place: tuple[float, float], colours: dict[str, style.Colour]
) -> None:
    """What the light over the game means: a square of its colour before each word."""
    x, y = place
    style.write(image, place, "light: looked at by", style.MUTED, 11)
    x += 116
    for word, colour in colours.items():
        image.paste(colour, (round(x), round(y) + 2, round(x) + 9, round(y) + 11))
        style.write(image, (x + 14, y), word, style.MUTED, 11)
        x += 62
