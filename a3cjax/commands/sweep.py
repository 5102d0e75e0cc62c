"""Trains one run for every combination of settings, and reports on all of them at the end.

`a3cjax sweep sweep_dir=runs/pong env=Pong seed=1,2,3 total_frames=2000000`

Several values of a setting are separated by commas, or given in Hydra's other forms
(`seed=range(1,4)`). `jobs=2` runs two at once, each on its share of the cores. The same command
again goes on with a sweep that was stopped. Exit codes: 0 done, 1 a run failed (the others were
run all the same), 2 a wrong setting, 130 or 143 stopped by SIGINT or SIGTERM after saving.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from a3cjax.commands.sweeps import Point, Sweep, expand, occupied, record
from a3cjax.config.settings import check_override, make_config
from a3cjax.envs.making import GYMNASIUM_PREFIX, resolve_envpool_id
from a3cjax.errors import ConfigError
from a3cjax.reports import write_report

FOLDER = Path(__file__).parent
CONF = FOLDER / "conf"
OWN_SETTINGS = {"sweep_dir": "runs/sweep", "jobs": "1"}


def parse(arguments: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The sweep's own settings, and the values of those of its runs; the last of a name counts."""
    own, values = dict(OWN_SETTINGS), {}
    presets = [path.stem for path in (CONF / "preset").glob("*.yaml")]
    for argument in arguments:
        name, _, text = argument.partition("=")
        if name in own:
            own[name] = text
            continue
        check_override(argument, presets)
        (override,) = OverridesParser.create().parse_overrides([argument])
        values[name] = (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [override.get_value_element_as_str()]
        )
    if not own["jobs"].isdecimal():
        raise ConfigError(f"jobs must be a whole number, got {own['jobs']}.")
    return own, values


def check(point: Point) -> None:
    """Refuses settings that its run would refuse, as far as can be told before it begins.

    Raises:
      ConfigError: names the setting.
    """
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        settings = compose("config", [f"{name}={text}" for name, text in point.settings.items()])
    config = make_config(cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True)))
    if not config.env.startswith(GYMNASIUM_PREFIX):
        resolve_envpool_id(config.env)


def main() -> None:
    """Parses the command line, runs the sweep, writes the report."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with contextlib.ExitStack() as stack:
        try:
            own, values = parse(sys.argv[1:])
            sweep_dir = Path(own["sweep_dir"])
            points = expand(values, sweep_dir)
            sweep = Sweep([sys.executable, "-m", "a3cjax", "train"], points, int(own["jobs"]))
            for point in points:
                check(point)
            lock = stack.enter_context(occupied(sweep_dir))
            record(points, sweep_dir)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
            sys.exit(2)
        stop_signal = sweep.run(lock)
        run_dirs = [point.run_dir for point in points if (point.run_dir / "config.yaml").is_file()]
        if run_dirs:
            print(f"written to {write_report(run_dirs, sweep_dir, title=sweep_dir.name)}")
    for run_dir in sweep.failed:
        print(f"failed: {run_dir}", file=sys.stderr)
    if stop_signal is not None:
        sys.exit(128 + stop_signal)
    sys.exit(1 if sweep.failed else 0)
