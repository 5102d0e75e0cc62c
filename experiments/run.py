"""Trains an agent: `python experiments/run.py env=Pong`, the same as `a3cjax train env=Pong`."""

from a3cjax.commands.train import main

if __name__ == "__main__":
    main()
