"""What others reached: scores of 57 Atari games, and learning curves."""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from a3cjax.reports.scores import human_normalized
from a3cjax.runs.tables import read_table

SCORES = Path(__file__).parent / "data" / "atari_scores.csv"
# Curves lie in the checkout only: an installed package does without them.
CURVES = Path(__file__).parents[2] / "results" / "published"


class Peer(NamedTuple):
    """A column of published scores; `label` tells whose, `note` under which conditions."""

    column: str
    label: str
    note: str
    from_human_starts: bool = False


PEERS = (
    Peer("a3c_paper_human_starts", "A3C, paper", "4 days on 16 cores, human starts", True),
    Peer("a3c_pfrl", "A3C, PFRL", "200M frames, best evaluation, no-op starts"),
    Peer("a2c", "A2C", "Schulman et al. 2017, 40M frames, last 100 training games"),
    Peer("dqn", "DQN", "Mnih et al. 2015, 200M frames, no-op starts"),
)


class AtariScores(NamedTuple):
    """Published raw scores of one game, NaN where there are none."""

    game: str
    by_column: dict[str, float]

    @property
    def random(self) -> float:
        """Random play, no-op starts."""
        return self.by_column["random"]

    @property
    def human(self) -> float:
        """A human, no-op starts."""
        return self.by_column["human"]

    def normalize(self, score: float) -> float:
        """Human-normalised, as a fraction, for scores from no-op starts."""
        return human_normalized(score, self.random, self.human)

    def peer(self, peer: Peer) -> float:
        """The raw score of a peer."""
        return self.by_column[peer.column]

    def normalized_peer(self, peer: Peer) -> float:
        """Human-normalised, by random play and humans from the same starts."""
        if not peer.from_human_starts:
            return self.normalize(self.peer(peer))
        columns = self.by_column
        return human_normalized(
            self.peer(peer), columns["random_human_starts"], columns["human_human_starts"]
        )


class Curve(NamedTuple):
    """A published learning curve: x in millions of frames or in hours, y the mean score."""

    label: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


def plain_game(env: str) -> str:
    """`breakout` for Breakout, Breakout-v5, gymnasium:ALE/Breakout-v5 or BreakoutNoFrameskip-v4.

    Names that sources write differently become equal: `Q*bert` and `Qbert`, for instance.
    """
    name = env.removeprefix("gymnasium:").removeprefix("ALE/")
    name = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name)
    return re.sub(r"[\W_]", "", name.lower())


@functools.cache
def _all_scores() -> dict[str, AtariScores]:
    scores = {}
    for row in read_table(SCORES):
        game = row.pop("game")
        by_column = {name: float(cell or math.nan) for name, cell in row.items()}
        scores[plain_game(game)] = AtariScores(game, by_column)
    return scores


def atari_scores(env: str) -> AtariScores | None:
    """Published scores of an environment; None if it is none of the 57 Atari games."""
    return _all_scores().get(plain_game(env))


def curve_labels() -> list[str]:
    """All labels that curves may have, in one order for all games."""
    series = [row["series"] for row in _all_rows("curves.csv")]
    methods = [paper_label(row["algorithm"]) for row in _all_rows("paper_methods.csv")]
    return sorted({*series, *methods})


def has_curves() -> bool:
    """Whether published curves lie where this package is used from."""
    return (CURVES / "curves.csv").is_file()


def curves_over_frames(env: str, algorithms: Collection[str]) -> list[Curve]:
    """Published curves of a game, x in millions of emulator frames, sorted by label.

    The paper's own curves are those of the `algorithms` only.
    """
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows("curves.csv", env):
        points[row["series"]].append((float(row["num_frames"]) / 1e6, float(row["mean_return"])))
    has_paper_a3c = any(label.startswith("A3C") for label in points)
    for row in _rows("paper_methods.csv", env):
        is_wanted = row["algorithm"] in algorithms and row["x_kind"] == "frames"
        if is_wanted and not (has_paper_a3c and row["algorithm"] == "a3c"):
            points[paper_label(row["algorithm"])].append(
                (float(row["x"]) / 1e6, float(row["score"]))
            )
    return _make_curves(points)


def curves_over_hours(env: str, algorithms: Collection[str]) -> list[Curve]:
    """The paper's curves of a game, x in hours: DQN and those of the `algorithms`."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows("paper_methods.csv", env):
        if row["algorithm"] in ("DQN", *algorithms) and row["x_kind"] == "hours":
            points[paper_label(row["algorithm"])].append((float(row["x"]), float(row["score"])))
    return _make_curves(points)


def paper_label(algorithm: str) -> str:
    """The label of one of the paper's curves."""
    if algorithm == "DQN":
        return "DQN, one GPU (paper)"
    name = "A3C" if algorithm == "a3c" else algorithm.replace("_", "-")
    return f"{name}, 16 threads (paper)"


def _rows(file: str, env: str) -> list[dict[str, str]]:
    return [row for row in _all_rows(file) if plain_game(row["game"]) == plain_game(env)]


@functools.cache
def _all_rows(file: str) -> list[dict[str, str]]:
    path = CURVES / file
    return read_table(path) if path.is_file() else []


def _make_curves(points: dict[str, list[tuple[float, float]]]) -> list[Curve]:
    curves = []
    for label, pairs in sorted(points.items()):
        x, y = np.array(sorted(pairs)).T
        is_known = np.isfinite(y)
        curves.append(Curve(label, x[is_known], y[is_known]))
    return curves
