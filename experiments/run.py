"""Trains an agent: `python experiments/run.py env=Pong`, the same as `a3cjax train env=Pong`."""

import sys

from a3cjax.commands import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
