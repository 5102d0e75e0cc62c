import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from a3cjax.agents import ALGORITHMS, Algorithm
from a3cjax.agents.a3c import make_a3c
from a3cjax.config import Config
from a3cjax.logs.loggers import CsvLogger
from a3cjax.reports import figures
from a3cjax.reports.run_curves import plot_curves
from a3cjax.reports.runs import read_runs
from a3cjax.runs.tables import EpisodeRow, read_columns
from a3cjax.training import train
from tests.fakes import make_row

OWN = ("policy_loss", "value_loss", "entropy")  # what A3C's losses tell
GAMES = [EpisodeRow(400, 1.5, 0, 21.0, 900), EpisodeRow(480, 2.25, 1, math.inf, 7)]


@pytest.fixture
def curves_are_not_drawn():
    """Here they are."""


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Writes rows, of which `metrics` are the algorithm's own, and draws them: label -> axis."""
    drawn = []

    def png(figure: Figure, path):
        drawn.append(figure)
        figure.savefig(path)

    monkeypatch.setattr(figures, "png", png)

    def draw_rows(*metrics, games=()):
        logger = CsvLogger(tmp_path)
        for index, own in enumerate(metrics, start=1):
            row = make_row(400 * index)
            for name in OWN:
                del row[name]
            logger.write_metrics({**row, **own})
        logger.write_episodes(games)
        logger.close()
        assert plot_curves(tmp_path, "Pong_1, $seed") == tmp_path / "curves.png"
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        return {axis.get_ylabel(): axis for axis in drawn.pop().axes}

    return draw_rows


def test_run_without_rows_has_no_curves(tmp_path):
    CsvLogger(tmp_path).close()
    assert plot_curves(tmp_path, "nothing") is None


@pytest.mark.parametrize(
    ("metrics", "panels"),
    [
        ((), []),
        (("policy_loss", "value_loss", "entropy"), ["policy loss", "value loss", "entropy (nats)"]),
        (("value_loss", "q_value"), ["value loss", "Q of the actions taken"]),
        (("entropy", "q_value", "kl"), ["entropy (nats)"]),
        (
            ("loss", "td_loss", "a_loss", "b_loss", "c_loss"),
            ["loss", "td loss", "a loss", "b loss", "c loss"],
        ),
    ],
)
def test_panels_are_those_of_the_metrics_that_there_are(draw, metrics, panels):
    axes = draw(dict.fromkeys(metrics, 1.0), dict.fromkeys(metrics, 2.0), games=GAMES)
    assert list(axes) == ["episode return", *panels, "frames / s"]
    for label in panels:
        np.testing.assert_allclose(axes[label].lines[0].get_xdata(), [0.0004, 0.0008])
        assert axes[label].lines[0].get_ydata().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "scale", "shown"),
    [
        ((1.0, 10.0), "log", (1, 10)),
        ((0.0, 10.0), "log", (math.nan, 10)),
        ((-1.0, 10.0), "linear", (-1, 10)),
        ((0.0, 0.0), "linear", (0, 0)),
        ((math.nan, math.nan), "linear", (math.nan, math.nan)),
        ((math.inf, 1e38), "log", (math.nan, 1e38)),
        ((-math.inf, 1e-38), "log", (math.nan, 1e-38)),
        ((1e308, -1e308), "linear", (math.nan, math.nan)),
    ],
)
def test_any_loss_can_be_drawn(draw, values, scale, shown):
    axis = draw(*({"td_loss": value} for value in values))["td loss"]
    assert axis.get_yscale() == scale
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), shown)


class OwnMetrics(NamedTuple):
    """What no algorithm of this package has."""

    actor_loss: jax.Array
    kl: jax.Array


class NoMetrics(NamedTuple):
    """Nothing."""


@pytest.mark.parametrize("metrics", [OwnMetrics(jnp.zeros(()), jnp.ones(())), NoMetrics()])
def test_algorithm_with_metrics_of_its_own_trains_to_the_end(tmp_path, monkeypatch, metrics):
    def make(network, **settings):
        agent = make_a3c(network, **settings)

        def loss(params, constants, trajectory):
            return agent.loss(params, constants, trajectory)[0], metrics

        return agent._replace(loss=loss)

    monkeypatch.setitem(ALGORITHMS, "mine", Algorithm(make, head="actor_critic"))
    config = Config(
        algorithm="mine",
        env="Catch",
        total_frames=800,
        num_actors=1,
        envs_per_actor=4,
        unroll_length=5,
        warmup_steps=4,
        log_period_frames=200,
        eval_episodes=2,
        video=False,
        run_dir=str(tmp_path / "run"),
    )
    summary = train(config)
    assert summary.num_frames >= 800
    assert (summary.run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    columns, _ = read_columns(summary.run_dir / "metrics.csv")
    own = metrics._asdict()
    assert {name: columns[name].mean() for name in own} == own
    assert not {"policy_loss", "value_loss", "entropy"} & columns.keys()
    (run,) = read_runs([summary.run_dir])
    assert run.final_score.kind == "evaluation"
