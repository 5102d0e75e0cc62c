"""Trains one run for every combination of settings, and reports on all of them at the end.

    a3cjax sweep sweep_dir=runs/cartpole env=CartPole total_frames=200k seed=1,2,3

Every seed is to reach a mean score of 490 or more of 500, in less than a minute each.
Several values of a setting are separated by commas, or given as `seed=range(1,4)`; a value with
commas of its own stands in quotes or brackets: `"devices='cuda:0,cuda:1',cpu"`. `jobs=2` runs two
at once, each on its share of the cores. The same command again goes on with a sweep that was
stopped, and deletes nothing. Exit codes: 0 done, 1 a run failed (the others were run all the
same), 2 a wrong setting, 128 + the number of a signal stopped by it after saving.
"""

import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from a3cjax.commands.arguments import read
from a3cjax.commands.beginning import importing
from a3cjax.commands.sweeps import (
    MAX_RUNS,
    Point,
    Sweep,
    expand,
    find_begun,
    is_finished,
    occupied,
    record,
)
from a3cjax.config.declaring import Settings, at_least, setting
from a3cjax.config.reading import CONFIG_FILE, Preset, read_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError, one_line
from a3cjax.system.output import warn


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSettings(Settings):
    """Settings of `a3cjax sweep` besides those of its runs."""

    sweep_dir: str = setting("runs/sweep", "folder, with one in it for each run", is_path=True)
    jobs: int = setting(1, "runs at once", at_least(1))


SETTINGS, PLACES = (SweepSettings, Preset, Config), ""


def main(words: list[str], texts: dict[str, str]) -> None:
    """Run the sweep, and write the report."""
    del words
    settings, points = read_points(texts)
    sweep_dir = Path(settings.sweep_dir)
    program = [sys.executable, "-m", "a3cjax", "train"]
    # Flushed: a run writes to the same output.
    sweep = Sweep(program, points, settings.jobs, functools.partial(print, flush=True))
    with importing():
        check(points)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(occupied(sweep_dir))
        record(points, sweep_dir)
        stop_signal = sweep.run(lock)
        report(points, sweep_dir)
    for run_dir in sweep.failed:
        print(f"failed: {run_dir}", file=sys.stderr)
    if stop_signal is not None:
        num_finished = sum(map(is_finished, points))
        told = f"stopped with {num_finished} of {len(points)} runs finished"
        print(f"{told}; to go on: the same command", file=sys.stderr)
        sys.exit(128 + stop_signal)
    sys.exit(1 if sweep.failed else 0)


def report(points: Sequence[Point], sweep_dir: Path) -> None:
    """Write the report on the runs that have begun; a warning says why if that fails."""
    from a3cjax.reports import write_report

    run_dirs = [point.run_dir for point in points if (point.run_dir / CONFIG_FILE).is_file()]
    try:
        if run_dirs:
            print(f"written to {write_report(run_dirs, sweep_dir, title=sweep_dir.name)}")
    except (ConfigError, OSError) as error:
        warn(f"no report: {one_line(str(error))}")


def read_points(texts: Mapping[str, str]) -> tuple[SweepSettings, list[Point]]:
    """The settings of the sweep itself, and its runs.

    Raises:
      ConfigError: names the setting, the rule and what it got.
    """
    settings = read(SweepSettings, texts)
    own = {field.name for field in dataclasses.fields(SweepSettings)}
    values = {name: split(text) for name, text in texts.items() if name not in own}
    sweep_dir = Path(settings.sweep_dir)
    return settings, find_begun(expand(values, sweep_dir), sweep_dir)


def split(text: str) -> list[str]:
    """The values in the text of a setting: a comma in quotes or brackets parts none.

    Raises:
      ConfigError: for a range that is empty or too long.
    """
    number = r"(-?\d{1,18})"
    pattern = rf"range\({number},{number}(?:,([1-9]\d{{,17}}))?\)"
    if numbers := re.fullmatch(pattern, text.replace(" ", "")):
        whole = range(*(int(number or 1) for number in numbers.groups()))
        if whole[MAX_RUNS:]:
            raise ConfigError(f"A range must have at most {MAX_RUNS:,} values, got {text}.")
        if not whole:
            raise ConfigError(f"A range must have at least one value, got {text}.")
        return [str(n) for n in whole]
    values, depth, quotes = [""], 0, ""
    for sign in text:
        if sign in ("'", '"') and quotes in ("", sign):
            quotes = "" if quotes else sign
        elif not quotes:
            depth += (sign in "{[") - (sign in "}]")
        if sign == "," and not quotes and depth == 0:
            values.append("")
        else:
            values[-1] += sign
    if quotes or depth:
        values = text.split(",")  # signs of a text: they part nothing
    return [value.strip() for value in values] if len(values) > 1 else values


def is_several(name: str, text: str) -> bool:
    """Whether a text that is wrong for a setting is several values that are right."""

    def is_right(values: list[str]) -> bool:
        try:
            check(expand({name: values}, Path()))
        except ConfigError:
            return False
        return True

    with contextlib.suppress(ConfigError):
        values = split(text)
        return len(values) > 1 and is_right(values) and not is_right([text])
    return False


def check(points: Sequence[Point]) -> None:
    """Refuse settings that their run would refuse, as far as can be told before it begins.

    Raises:
      ConfigError: names the setting.
    """
    from a3cjax.envs.making import canonical_name

    for env in dict.fromkeys(read_config(point.settings).env for point in points):
        canonical_name(env)
