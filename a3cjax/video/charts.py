"""What the agent thinks, as drawings: its value over time, and its choice of action."""

import math
from collections import deque
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from a3cjax.distributions import (
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    MultiCategorical,
    SquashedGaussian,
)
from a3cjax.video import style

_MAX_BARS = 18  # for which there is room; Atari games have no more
_MAX_IN_A_COLUMN = 9
# A tick for each reward, unless they are so many that they say nothing.
_MOST_REWARDED = 0.25


class ValueChart:
    """A chart of the value in the last seconds and of when rewards came; a rule between games."""

    def __init__(self, width: int, height: int, num_steps: int):
        """A chart of `width` × `height` pixels and `num_steps` agent steps."""
        self._size = (width, height)
        self._num_steps = num_steps
        self._values: deque[float] = deque(maxlen=num_steps)
        self._rewards: deque[float] = deque(maxlen=num_steps)
        self._games: deque[int] = deque(maxlen=num_steps)
        self._num_games = 0
        self._low, self._high = math.inf, -math.inf

    def start(self) -> None:
        """Begins a line of its own for the next game."""
        self._num_games += 1

    def draw(self, value: float, reward: float) -> Image.Image:
        """The chart after one more step; its range only grows, so that games can be compared.

        A value that is not finite is unknown: it leaves a gap.
        """
        is_known = math.isfinite(value)
        self._values.append(value if is_known else math.nan)
        self._rewards.append(reward)
        self._games.append(self._num_games)
        if is_known:
            self._low, self._high = min(self._low, value), max(self._high, value)

        width, height = self._size
        left, right, top, bottom = 46, width - 10, 10, height - 12
        levels = [level for level in {self._low, self._high} if math.isfinite(level)]
        low, high = min(levels, default=0.0), max(levels, default=0.0)
        margin = 0.05 * (high - low) or 1.0

        def place(values: np.ndarray) -> np.ndarray:
            return bottom - (bottom - top) * (values - low + margin) / (high - low + 2 * margin)

        image = Image.new("RGB", self._size, style.CARD)
        lines = style.Lines(image)
        for level in (*levels, 0.0):
            if low <= level <= high:
                y = float(place(np.array(level)))
                lines.add(np.array([[left, y], [right, y]]), style.RULE, 1)
        rewards = np.array(self._rewards)
        steps = left + (right - left) * np.arange(len(rewards)) / max(self._num_steps - 1, 1)
        if np.mean(rewards != 0) <= _MOST_REWARDED:
            for step, got in zip(steps, rewards, strict=True):
                if got:
                    colour = style.GAIN if got > 0 else style.LOSS
                    lines.add(np.array([[step, bottom + 3], [step, bottom + 9]]), colour, 2)
        heights = place(np.array(self._values))
        is_start = np.diff(self._games) != 0
        for x in steps[1:][is_start]:
            lines.add(np.array([[x, top], [x, bottom]]), style.RULE, 1)
        ends = np.flatnonzero(is_start | np.diff(np.isnan(heights))) + 1  # of what one line joins
        for line in np.split(np.stack([steps, heights], axis=1), ends):
            if not np.isnan(line).any():
                lines.add(line, style.ACCENT)
        if is_known:
            lines.add_dot(float(steps[-1]), float(heights[-1]), style.TEXT)
        image = lines.drawn()
        for level in levels:
            y = float(place(np.array(level)))
            text = style.short_number(level)
            style.write(
                image, (left - 6, y), text, style.MUTED, 11, anchor="rm", max_width=left - 8
            )
        return image


def choice_title(policy: Any, *, is_greedy: bool) -> str:
    """What `draw_choice` shows of this policy, and how the action is chosen from it."""
    if isinstance(policy, EpsilonGreedy):
        how = "greedy" if is_greedy else f"ε-greedy, ε = {float(policy.epsilons):g}"
        return f"action values Q(s, a), {how}"
    if isinstance(policy, DiagonalGaussian):
        return f"actions: mean ± σ, {'the mean is taken' if is_greedy else 'sampled ●'}"
    if isinstance(policy, SquashedGaussian):
        return f"actions: tanh(mean ± σ), {'the median is taken' if is_greedy else 'sampled ●'}"
    return f"action probabilities π(a|s), {'greedy' if is_greedy else 'sampled'}"


def draw_choice(
    policy: Any, action: np.ndarray | None, names: list[str], width: int, height: int
) -> Image.Image:
    """Draws a policy and what was chosen from it.

    Args:
      policy: a distribution over actions, EpsilonGreedy among them, without leading axes.
      action: an int, int `[K]` or float `[D]`; None if none was chosen.
      names: of the actions, as `action_names` gives them.
      width: of the drawing, in pixels.
      height: likewise.
    """
    image = Image.new("RGB", (width, height), style.CARD)
    if isinstance(policy, DiagonalGaussian | SquashedGaussian):
        return _draw_gaussian(image, policy, action, names)
    if isinstance(policy, MultiCategorical):
        return _draw_bars(image, _choice_rows(policy, action, names))
    chosen = None if action is None else int(action)
    if isinstance(policy, EpsilonGreedy):
        q_values = np.asarray(policy.q_values, float)
        allowed = np.arange(len(q_values)) if policy.mask is None else np.flatnonzero(policy.mask)
        lengths = q_values - q_values[allowed].min()  # they may be negative: differences count
        lengths /= max(float(lengths[allowed].max()), 1e-9)
        best = np.sort(allowed[np.argsort(-q_values[allowed], kind="stable")[:_MAX_BARS]])
        rows = [
            (names[i], float(lengths[i]), style.short_number(float(q_values[i])), i == chosen)
            for i in best
        ]
    else:
        rows = [
            (name, share, f"{share:.0%}", is_chosen)
            for name, share, is_chosen in probability_rows(policy, chosen, names)
        ]
    return _draw_bars(image, rows)


def probability_rows(
    policy: Categorical, chosen: int | None, names: list[str]
) -> list[tuple[str, float, bool]]:
    """The name and probability of every action, and whether it was chosen.

    Probabilities sum to 1. Of more than 18 actions, only the most probable ones are listed, and
    the sum of all others.
    """
    logits = np.asarray(policy.logits, float)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    kept = np.arange(len(shares))
    if len(shares) > _MAX_BARS:
        kept = np.sort(np.argsort(-shares, kind="stable")[: _MAX_BARS - 1])
    rows = [(names[index], float(shares[index]), index == chosen) for index in kept]
    if len(kept) < len(shares):
        others = float(max(0.0, 1.0 - shares[kept].sum()))
        rows.append(("all others", others, chosen is not None and chosen not in kept))
    return rows


def _choice_rows(
    policy: MultiCategorical, action: np.ndarray | None, names: list[str]
) -> list[tuple[str, float, str, bool]]:
    """A row for each choice of every number or, if they are too many, for the one chosen of each.

    Where none was chosen, it is the most probable one.
    """
    rows = []
    for number, logits in enumerate(np.asarray(policy.logits, float)):
        own = [name for name in names if name.startswith(f"{number}: ")]
        chosen = None if action is None else int(action[number])
        shown = probability_rows(Categorical(logits[: len(own)]), chosen, own)
        if len(names) > _MAX_BARS:
            best = max(shown, key=lambda row: (row[2], row[1]))
            shown = [best]
        rows += [(name, share, f"{share:.0%}", is_chosen) for name, share, is_chosen in shown]
    return rows[:_MAX_BARS]


def _draw_bars(image: Image.Image, rows: list[tuple[str, float, str, bool]]) -> Image.Image:
    num_columns = 1 if len(rows) <= _MAX_IN_A_COLUMN else 2
    in_a_column = -(-len(rows) // num_columns)
    column_width = image.width / num_columns
    row_height = min(24.0, (image.height - 12) / in_a_column)
    name_width, number_width = (104, 50) if num_columns == 1 else (92, 36)
    letters = 12 if num_columns == 1 else 10
    draw = ImageDraw.Draw(image)
    for index, (name, length, number, is_chosen) in enumerate(rows):
        column, row = divmod(index, in_a_column)
        left = column * column_width + 12
        middle = 6 + (row + 0.5) * row_height
        colour = style.CHOSEN if is_chosen else style.TEXT
        style.write(
            image, (left, middle), name, colour, letters, anchor="lm", max_width=name_width - 4
        )
        first, last = left + name_width, (column + 1) * column_width - 12 - number_width
        half = 0.32 * row_height
        draw.rectangle((first, middle - half, last, middle + half), style.RULE)
        end = first + length * (last - first)
        if end - first >= 1:
            fill = style.CHOSEN if is_chosen else style.ACCENT
            draw.rectangle((first, middle - half, end, middle + half), fill)
        place = (last + number_width, middle)
        style.write(image, place, number, colour, letters, anchor="rm", max_width=number_width - 6)
    return image


def _draw_gaussian(
    image: Image.Image,
    policy: DiagonalGaussian | SquashedGaussian,
    action: np.ndarray | None,
    names: list[str],
) -> Image.Image:
    means = np.asarray(policy.mean, float)[:_MAX_BARS]
    deviations = np.sqrt(np.broadcast_to(policy.variance, np.shape(policy.mean)))[:_MAX_BARS]
    low, high = means - deviations, means + deviations
    if isinstance(policy, SquashedGaussian):
        low, means, high = np.tanh([low, means, high])
    # Most actions range from −1 to 1; otherwise the axis goes as far as the policy itself.
    reach = max(1.0, float(-np.min(low)), float(np.max(high)))
    num_columns = 1 if len(means) <= _MAX_IN_A_COLUMN else 2
    in_a_column = -(-len(means) // num_columns)
    column_width = image.width / num_columns
    row_height = min(24.0, (image.height - 12) / in_a_column)
    name_width, number_width = (66, 98) if num_columns == 1 else (52, 76)
    letters = 12 if num_columns == 1 else 10
    lines = style.Lines(image)
    texts = []
    for index, (first_end, mean, last_end) in enumerate(zip(low, means, high, strict=True)):
        column, row = divmod(index, in_a_column)
        left = column * column_width + 12
        middle = 6 + (row + 0.5) * row_height
        first, last = left + name_width, (column + 1) * column_width - 12 - number_width

        def place(number: float, first: float = first, last: float = last) -> float:
            share = (np.clip(number, -reach, reach) + reach) / (2 * reach)
            return float(first + share * (last - first))

        lines.add(np.array([[first, middle], [last, middle]]), style.RULE, 0.64 * row_height)
        band = [[place(first_end), middle], [place(last_end), middle]]
        lines.add(np.array(band), style.mix(style.RULE, style.ACCENT, 0.6), 0.64 * row_height)
        x, half = place(mean), 0.32 * row_height
        lines.add(np.array([[x, middle - half], [x, middle + half]]), style.TEXT, 2)
        if action is not None:
            lines.add_dot(place(float(action[index])), middle, style.CHOSEN, 3)
        number = f"{mean:.2f} ± {(last_end - first_end) / 2:.2f}".replace("-", "−")
        texts.append((left, last + number_width, middle, names[index], number))
    image = lines.drawn()
    for left, right, middle, name, number in texts:
        for x, text, anchor, width in (
            (left, name, "lm", name_width - 4),
            (right, number, "rm", number_width - 6),
        ):
            point = (x, middle)
            style.write(image, point, text, style.TEXT, letters, anchor=anchor, max_width=width)
    return image
