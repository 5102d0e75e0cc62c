"""The command line: a file for each verb of `a3cjax`."""

import importlib
import sys

VERBS = {
    "train": "trains an agent and leaves a run folder",
    "evaluate": "plays full games with a trained agent",
    "play": "films games of a trained agent",
    "report": "compares runs with each other and with published ones, as one HTML file",
    "sweep": "trains one run for every combination of settings",
    "publish": "makes a small folder of a trained agent",
    "doctor": "measures how fast this machine trains",
}


def main() -> None:
    """Runs the verb that the command line names."""
    verb, arguments = sys.argv[1:2], sys.argv[2:]
    if verb and verb[0] in VERBS:
        sys.argv = [f"a3cjax {verb[0]}", *arguments]
        importlib.import_module(f"a3cjax.commands.{verb[0]}").main()
        return
    width = max(map(len, VERBS))
    print("usage: a3cjax <verb> ...\n")
    print("\n".join(f"  {name:{width}}  {line}" for name, line in VERBS.items()))
    if not {"-h", "--help"} & set(verb):
        sys.exit(2)
