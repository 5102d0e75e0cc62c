"""Trains an agent and leaves a run folder.

    a3cjax train env=CartPole total_frames=200000
    a3cjax train env=Pong
    a3cjax train resume=runs/Pong/<folder>

The first takes less than a minute, to a mean score of 490 or more of 500; the second half an hour,
to 18 or more of 21; the third goes on with a run.

Exit codes: 0 done (then there is a summary.json), 1 something failed (a line or the traceback says
what), 2 a wrong setting (one line says which), 128 + its number stopped by a signal after saving:
130 SIGINT, 143 SIGTERM, 129 SIGHUP.
"""

from a3cjax.commands.beginning import importing
from a3cjax.commands.ending import conclude
from a3cjax.config.reading import Preset, read_config
from a3cjax.config.settings import Config
from a3cjax.errors import ConfigError

SETTINGS, PLACES = (Preset, Config), ""


def main(words: list[str], texts: dict[str, str]) -> None:
    """Run one training."""
    del words
    try:
        run(read_config(texts))
    except ConfigError as error:
        from a3cjax.commands.sweep import is_several

        name = str(error).partition(" ")[0]
        if not is_several(name, texts.get(name, "")):
            raise
        hint = f"several values: a3cjax sweep {name}={texts[name]}"
        raise ConfigError(f"{str(error).removesuffix('.')}; {hint}") from error


def run(config: Config) -> None:
    """Train, and leave with the exit code for what happened."""
    with importing():
        from a3cjax.training import train

    conclude(lambda: train(config))
