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
from a3cjax.runs.tables import read_rows

DATA = Path(__file__).parent / "data"  # its README.md says where the numbers come from
PAPER_NAMES = {
    "a3c": "A3C",
    "n_step_q": "n-step Q",
    "one_step_q": "one-step Q",
    "one_step_sarsa": "one-step Sarsa",
}


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
    """A published learning curve: x in millions of frames or in hours, y the mean score.

    `place` is the position of its label among those of all games, so that a label has the same
    colour in all pictures.
    """

    label: str
    place: int
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


def plain_game(env: str) -> str:
    """`Breakout` for Breakout, Breakout-v5, gymnasium:ALE/Breakout-v5 or BreakoutNoFrameskip-v4.

    That is envpool's name without the version; the published numbers are filed under it, too.
    Where it is none of the Atari games with such numbers, versions differ in their rules: a name
    stays as it is.
    """
    name = env.removeprefix("gymnasium:").removeprefix("ALE/")
    name = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name)
    return name if name in _rows("atari_scores.csv") else env


def atari_scores(env: str) -> AtariScores | None:
    """Published scores of an environment; None if it is none of the 57 Atari games."""
    for row in _rows("atari_scores.csv").get(plain_game(env), ()):
        scores = {name: float(cell or math.nan) for name, cell in row.items() if name != "game"}
        return AtariScores(scores)
    return None


def published_curves(env: str, algorithms: Collection[str], x_kind: str) -> list[Curve]:
    """Published curves of a game, sorted by label.

    Args:
      env: the game.
      algorithms: those of the runs. For a single one, its own curve in the paper and DQN's are
        shown; where several are compared, all of the paper's.
      x_kind: `frames`, in millions of emulator frames, or `hours`, for which there are the
        paper's own curves only.
    """
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows("paper_methods.csv").get(plain_game(env), ()):
        is_wanted = row["algorithm"] in ("DQN", *algorithms) or len(algorithms) > 1
        if is_wanted and row["x_kind"] == x_kind:
            x = float(row["x"]) / (1e6 if x_kind == "frames" else 1)
            points[paper_label(row["algorithm"])].append((x, float(row["score"])))
    for row in _rows("curves.csv").get(plain_game(env), ()) if x_kind == "frames" else ():
        points[row["series"]].append((float(row["num_frames"]) / 1e6, float(row["mean_return"])))
    series = {row["series"] for rows in _rows("curves.csv").values() for row in rows}
    labels = sorted({*series, *map(paper_label, ("DQN", *PAPER_NAMES))})
    curves = []
    for label, pairs in sorted(points.items()):
        x, y = np.array(sorted(pairs)).T
        is_known = np.isfinite(y)
        curves.append(Curve(label, labels.index(label), x[is_known], y[is_known]))
    return curves


def paper_label(algorithm: str) -> str:
    """The label of one of the paper's curves."""
    if algorithm == "DQN":
        return "DQN, one GPU (paper)"
    return f"{PAPER_NAMES[algorithm]}, 16 threads (paper)"


@functools.cache
def _rows(file: str) -> dict[str, list[dict[str, str]]]:
    """Game -> rows of a file."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(DATA / file)[0]:
        rows[row["game"]].append(row)
    return dict(rows)
