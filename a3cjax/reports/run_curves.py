"""Pictures of a run, drawn without a display."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from a3cjax.runs.tables import read_columns

# What tells of the choice of actions, in a policy or among action values.
CHOICE_LABELS = {"entropy": "entropy (nats)", "q_value": "Q of the actions taken"}


def plot_curves(run_dir: Path, title: str) -> Path | None:
    """Draws curves.png from metrics.csv and episodes.csv; None if there is nothing to draw."""
    metrics = read_columns(run_dir / "metrics.csv")
    episodes = read_columns(run_dir / "episodes.csv")
    if not metrics:
        return None
    frames = [frame / 1e6 for frame in metrics["num_frames"]]
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["return", "return", "return"], ["value_loss", "choice", "rate"]])
    returns = axes["return"]
    if episodes:
        returns.plot(
            [frame / 1e6 for frame in episodes["num_frames"]],
            episodes["episode_return"],
            ".",
            markersize=3,
            alpha=0.35,
            color="tab:gray",
            label="single games",
        )
    returns.plot(frames, metrics["episode_return_mean"], color="tab:blue", label="mean of last 100")
    returns.legend(loc="upper left")
    returns.set_title(title)
    returns.set_ylabel("episode return")
    axes["value_loss"].plot(frames, metrics["value_loss"])
    axes["value_loss"].set_ylabel("value loss")
    axes["value_loss"].set_yscale("log")
    name, label = next(pair for pair in CHOICE_LABELS.items() if pair[0] in metrics)
    axes["choice"].plot(frames, metrics[name])
    axes["choice"].set_ylabel(label)
    axes["rate"].plot(frames, metrics["frames_per_second"])
    axes["rate"].set_ylabel("frames / s")
    axes["rate"].set_ylim(bottom=0)
    for axis in axes.values():
        axis.set_xlabel("million frames")
        axis.grid(alpha=0.3)
    path = run_dir / "curves.png"
    figure.savefig(path, dpi=100)
    return path
