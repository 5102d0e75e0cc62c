"""Whether the defaults learn what people bring: a table of problems, each with its bar.

    python benchmarks/control.py
    python benchmarks/control.py env=CartPole,Acrobot seed=1,2 jobs=2 output=results/control

Every run is `a3cjax train env=… total_frames=… seed=…` and nothing else that affects learning,
except `network=tabular` where the states are numbers. The same call again continues: finished runs
are kept, stopped ones are resumed. The rows are in `output` as control.csv, the table is there as
control.md and in docs/results.md; to begin anew, remove `output` and `runs`.
"""

import argparse
import csv
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from a3cjax.commands.sweeps import Point, Sweep, is_finished, occupied, record
from a3cjax.errors import ConfigError
from a3cjax.runs.tables import read_summary
from a3cjax.system.files import replace_file

ROOT = Path(__file__).resolve().parents[1]
OUTPUT, RUNS = ROOT / "results" / "control", ROOT / "runs" / "control"
PAGE = ROOT / "docs" / "results.md"
TABLE = re.compile(r"<!-- table: control -->\n(?:(?!<!--).*\n)*<!-- end -->")
PROGRAM = [sys.executable, "-m", "a3cjax", "train"]
CSV, MARKDOWN = "control.csv", "control.md"
SEEDS = (1, 2, 3, 4, 5)
QUIET = {"video": "false", "tensorboard": "false"}  # without any effect on learning


class Problem(NamedTuple):
    """A problem: its environment and budget, and what the mean of the final evaluation must reach.

    `aim` is a further score to compare with, beyond the bar. `settings` are those that it needs
    besides its name; `package` is its environment's module if a3cjax does not bring that.
    """

    env: str
    frames: int
    bar: float | None
    aim: float | None = None
    settings: tuple[tuple[str, str], ...] = ()
    package: str = ""

    @property
    def name(self) -> str:
        """The environment without the module that it comes from."""
        return self.env.rpartition(":")[2]


TABULAR = (("network", "tabular"),)
MINATAR = "gymnasium:benchmarks.minatar_games:MinAtar/"

# The means that value iteration with γ = 1 gives for FrozenLake and Taxi within the limits of their
# games (100 and 200 steps); envpool's Taxi begins in all 400 states with a waiting passenger. Even
# an optimal player depends on luck: the mean of its 30 games passes the bars 99 times in 100.
OPTIMA = {"FrozenLake": 0.740, "Taxi": 9.555}

# MuJoCo: DLR-RM/rl-baselines3-zoo, benchmark.md (MIT): A2C as the bar, PPO as the aim.
PROBLEMS = (
    Problem("CartPole", 200_000, 490.0),
    Problem("Catch", 60_000, 1.0),
    Problem("Acrobot", 500_000, -90.0),
    Problem("MountainCar", 1_000_000, -130.0),
    Problem("LunarLander", 1_000_000, 200.0),
    Problem("FrozenLake", 500_000, 0.53, OPTIMA["FrozenLake"], TABULAR),
    Problem("Taxi", 1_000_000, 7.96, OPTIMA["Taxi"], TABULAR),
    Problem("InvertedPendulum", 300_000, 1000.0),
    Problem("Pendulum", 500_000, -250.0),
    Problem("HalfCheetah", 1_000_000, 3041.0, 5819.0),
    Problem("Hopper", 1_000_000, 733.0, 2410.0),
    Problem("Walker2d", 1_000_000, None, 3479.0),
    Problem("Swimmer", 1_000_000, 201.0, 282.0),
    # Images of 10 × 10 fields. Random play has 0.3 and 4.8; the bars are our choice.
    Problem(MINATAR + "Breakout-v1", 1_000_000, 5.0, package="minatar"),
    Problem(MINATAR + "SpaceInvaders-v1", 1_000_000, 30.0, package="minatar"),
)


class Row(NamedTuple):
    """A finished run: `seconds` of learning, and the final evaluation."""

    env: str
    seed: int
    frames: int
    seconds: float
    mean: float
    std: float
    num_episodes: int
    commit: str
    machine: str

    @property
    def key(self) -> tuple[str, int, int]:
        """What identifies the row: there is one for each key."""
        return self.env, self.seed, self.frames


def make_points(problems: Iterable[Problem], seeds: Iterable[int], runs: Path) -> list[Point]:
    """The runs, all problems of a seed before the next seed."""
    return [
        Point(
            {
                "env": problem.env,
                "total_frames": str(problem.frames),
                "seed": str(seed),
                **dict(problem.settings),
                **QUIET,
            },
            # The budget is part of the name: a run continued from a smaller one is another run.
            runs / f"{problem.name.replace('/', '-')}-{problem.frames}-seed{seed}",
        )
        for seed in seeds
        for problem in problems
    ]


def key_of(point: Point) -> tuple[str, int, int]:
    """As `Row.key`."""
    settings = point.settings
    return settings["env"], int(settings["seed"]), int(settings["total_frames"])


def read_row(point: Point) -> Row | None:
    """What a run came to; None if it is not finished, or was stopped in its evaluation."""
    summary = read_summary(point.run_dir)
    if not is_finished(point) or not summary["evaluation"]:
        return None
    evaluation, machine = summary["evaluation"], summary["machine"]
    return Row(
        *key_of(point),
        seconds=summary["training_seconds"],
        mean=evaluation["mean"],
        std=evaluation["standard_deviation"],
        num_episodes=evaluation["num_episodes"],
        commit=summary["commit"],
        machine=f"{machine['processor']}, {machine['cores']} cores",
    )


def read_rows(path: Path) -> list[Row]:
    """The rows of a control.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{name: kind(row[name]) for name, kind in Row.__annotations__.items()})
            for row in csv.DictReader(file)
        ]


def make_table(rows: Sequence[Row]) -> str:
    """The Markdown table of all problems, and where its figures come from."""
    of_budget = [
        row for p in PROBLEMS for row in rows if (row.env, row.frames) == (p.env, p.frames)
    ]
    names = "problem", "frames", "bar", "reached by", "aim", "reached by", "mean of each seed"
    lines = [f"| {' | '.join(names)} | minutes a run |", "|---" * 8 + "|"]
    for problem in PROBLEMS:
        runs = sorted(row for row in of_budget if row.env == problem.env)
        minutes = [row.seconds / 60 for row in runs]
        cells = (
            f"`{problem.name}`" + "".join(f" `{n}={v}`" for n, v in problem.settings),
            f"{problem.frames / 1e6:g}M" if problem.frames >= 1e6 else f"{problem.frames // 1000}k",
            show(problem.bar),
            judge(problem.bar, runs),
            show(problem.aim),
            judge(problem.aim, runs),
            ", ".join(f"{row.seed}: {show(row.mean)}" for row in runs) or "not run",
            f"{min(minutes):.1f} to {max(minutes):.1f}" if runs else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    if of_budget:
        machines = sorted({row.machine for row in of_budget})
        commits = sorted({row.commit[:10] for row in of_budget})
        episodes = sorted({row.num_episodes for row in of_budget})
        text += f"\n\n{len(of_budget)} runs of {' or '.join(map(str, episodes))} final games"
        text += f" each. Machine: {'; '.join(machines)}. Commit: {', '.join(commits)}."
    return text


def show(number: float | None) -> str:
    """A score with as many digits as are of interest at its size."""
    if number is None:
        return ""
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 3
    text = f"{number:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def judge(bar: float | None, runs: Sequence[Row]) -> str:
    """How many runs reached a bar, in bold if all seeds of the table did."""
    if bar is None or not runs:
        return ""
    reached = sum(row.mean >= bar for row in runs)
    text = f"{reached} of {len(runs)}"
    return f"**{text}**" if reached == len(runs) >= len(SEEDS) else text


def refresh(text: str, rows: Sequence[Row]) -> str:
    """The text of a page with its table as it is now."""
    table = f"<!-- table: control -->\n\n{make_table(rows)}\n\n<!-- end -->"
    return TABLE.sub(lambda _: table, text)


def collect(points: Sequence[Point], output: Path) -> list[Row]:
    """Writes what is finished, together with earlier rows, as CSV and as Markdown."""
    rows = {row.key: row for row in read_rows(output / CSV)}
    rows |= {row.key: row for point in points if (row := read_row(point)) is not None}
    places = {problem.env: place for place, problem in enumerate(PROBLEMS)}
    ordered = sorted(rows.values(), key=lambda row: (places.get(row.env, 99), row))
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"{CSV}.part").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *ordered])
    (output / f"{CSV}.part").replace(output / CSV)
    replace_file(output / MARKDOWN, make_table(ordered) + "\n")
    if output.resolve() == ROOT / "results" / "control":
        replace_file(PAGE, refresh(PAGE.read_text(), ordered))
    return ordered


def choose(text: str) -> list[Problem]:
    """The problems named by their environments, separated by commas."""
    known = {problem.name: problem for problem in PROBLEMS}
    known |= {problem.env: problem for problem in PROBLEMS}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        names = ", ".join(problem.name for problem in PROBLEMS)
        raise argparse.ArgumentTypeError(f"must be of {names}, got {unknown[0]}.")
    return list(dict.fromkeys(known[name] for name in text.split(",")))


def is_there(problem: Problem) -> bool:
    """Whether the package of its environment is installed; says so if not."""
    if not problem.package or importlib.util.find_spec(problem.package):
        return True
    print(f"{problem.name} is left out: pip install --no-deps {problem.package} brings it")
    return False


def numbers(text: str) -> list[int]:
    """Whole numbers, separated by commas, each once."""
    return list(dict.fromkeys(int(number) for number in text.split(",")))


def run(points: Sequence[Point], jobs: int, runs: Path, output: Path) -> int:
    """Runs what is not finished, and writes tables meanwhile; exit codes are as of `a3cjax sweep`.

    Raises:
      ConfigError: if the folder of the runs is in use, or there are more jobs than cores.
    """
    done = {row.key for row in read_rows(output / CSV)}
    # A run of which only the row is left was run elsewhere, or its folder is gone.
    waiting = [p for p in points if key_of(p) not in done or p.run_dir.exists()]
    lock = threading.Lock()

    def tell(line: str) -> None:
        print(line, flush=True)
        with lock:
            collect(points, output)

    with occupied(runs) as file:
        record(waiting, runs)
        sweep = Sweep(PROGRAM, waiting, jobs, tell)
        stop_signal = sweep.run(file)
        collect(points, output)
    return 128 + stop_signal if stop_signal is not None else int(bool(sweep.failed))


def main(arguments: Sequence[str]) -> int:
    """Reads the command line, `name=value` or `--name value`, runs, and prints the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--env", type=choose, default=[*PROBLEMS], help="problems, separated by commas")
    add("--seed", "--seeds", type=numbers, default=[*SEEDS], help="separated by commas")
    add("--jobs", type=int, default=1, help="runs at once, each on its share of the cores")
    add("--output", type=Path, default=Path(os.path.relpath(OUTPUT)), help="folder of the tables")
    add("--runs", type=Path, default=Path(os.path.relpath(RUNS)), help="folder of the runs")
    add("--total_frames", type=int, help="another budget for all: no row of the table")
    add("--only_table", action="store_true", help="runs nothing")
    flags = [f"--{word}" if re.match(r"[a-z_]+=", word) else word for word in arguments]
    options = parser.parse_args(flags)
    problems = [problem for problem in options.env if is_there(problem)]
    if options.total_frames is not None:
        problems = [problem._replace(frames=options.total_frames) for problem in problems]
    points = make_points(problems, options.seed, options.runs)
    # Runs find the package and this folder, without an installation, wherever they are started.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])]
    )
    code = 0
    try:
        if not options.only_table:
            code = run(points, options.jobs, options.runs, options.output)
        rows = collect(points, options.output)
    except ConfigError as error:
        parser.error(str(error))
    asked_for = {key_of(point) for point in points}
    for row in rows:
        if row.key in asked_for:
            figures = f"{show(row.mean)} after {row.frames:,} frames, {row.seconds:.0f} s"
            print(f"{row.env} seed {row.seed}: {figures}")
    print(f"written to {options.output / MARKDOWN}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
