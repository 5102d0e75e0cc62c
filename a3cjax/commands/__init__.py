"""The command line: a file for each verb of `a3cjax`."""

import difflib
import importlib
import sys
from collections.abc import Sequence

from a3cjax.commands.arguments import HELP, parse, print_help
from a3cjax.errors import ConfigError, missing_extra
from a3cjax.system.files import WRITE_ERRNOS
from a3cjax.system.output import make_output_last
from a3cjax.system.signals import leaving

VERBS = {
    "train": "trains an agent and leaves a run folder",
    "evaluate": "plays full games with a trained agent",
    "play": "films games of a trained agent",
    "report": "lays runs over each other and over published ones, as one HTML file",
    "sweep": "trains one run for every combination of settings",
    "publish": "makes a small folder of a trained agent, to pass on",
    "export": "writes a trained agent as a program that needs JAX alone",
    "doctor": "measures how fast this machine trains",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the verb that the command line names; without `arguments`, that of the process.

    Exit codes: those of the verb; with one line, 2 for what cannot be understood and 1 for a disk
    that is full or broken.
    """
    make_output_last()
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in HELP:
        width = max(map(len, VERBS))
        print("usage: a3cjax <verb> [name=value ...]\n")
        print("\n".join(f"  {name:{width}}  {line}" for name, line in VERBS.items()))
        print("\na3cjax <verb> --help lists the settings of a verb.")
        return
    if verb in ("-V", "--version"):
        from a3cjax.system.provenance import describe_versions

        print(f"a3cjax {describe_versions()['a3cjax']}")
        return
    if verb == "train" and "-m" in rest:  # as Hydra's programs take several values
        verb, rest = "sweep", [word for word in rest if word != "-m"]
    with leaving():
        try:
            run_verb(verb, rest)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno not in WRITE_ERRNOS:
                raise
            print(f"error: the results cannot be written: {error}", file=sys.stderr)
            sys.exit(1)


def run_verb(verb: str, arguments: Sequence[str]) -> None:
    """Run a verb.

    Raises:
      ConfigError: if there is none of this name, or for what it refuses.
      SystemExit: as it ends, unless with 0.
    """
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise ConfigError(f"The verb must be one of {', '.join(VERBS)}, got {verb}{hint}.")
    try:
        module = importlib.import_module(f"a3cjax.commands.{verb}")
        if HELP & set(arguments):
            print_help(verb, module.__doc__, *module.SETTINGS, places=module.PLACES)
        else:
            module.main(*parse(arguments, *module.SETTINGS, places=module.PLACES))
    except ModuleNotFoundError as error:
        raise missing_extra(verb, error) from error
    except ValueError as error:
        if "jax" in sys.modules or "jax._src" not in sys.modules:
            raise
        # Its import failed: it reads variables such as JAX_ENABLE_X64 there.
        raise ConfigError(f"JAX does not start with this environment: {error}.") from error
