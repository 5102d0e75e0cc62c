"""Writes a trained agent as a program that runs where JAX is and a3cjax is not.

    a3cjax export pong pong.stablehlo

docs/tutorials/export.md shows how it is called.
"""

import dataclasses

from a3cjax.commands.arguments import read, refusing
from a3cjax.config.declaring import Settings, at_least, setting
from a3cjax.errors import CheckpointError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Settings of `a3cjax export`."""

    greedy: bool = setting(True, "most probable actions; else sampled ones, by a key of the caller")
    mask: bool = setting(False, "it is called with masks of allowed actions")
    batch_size: int | None = setting(None, "of observations; null: any", at_least(1))
    best: bool = setting(False, "the best parameters by evaluation, not the last")
    trust: bool = setting(False, "may import the module that the run's settings name")


SETTINGS, PLACES = (ExportSettings,), "<run folder or name> <file>"


def main(words: list[str], texts: dict[str, str]) -> None:
    """Export an agent."""
    (name, file), settings = words, read(ExportSettings, texts)
    from a3cjax.runs.loading import load

    with refusing(ValueError, OSError, CheckpointError):
        agent = load(name, best=settings.best, trust=settings.trust)
        path = agent.export(
            file, settings.greedy, has_mask=settings.mask, batch_size=settings.batch_size
        )
    print(f"written to {path}, {path.stat().st_size / 1e6:.1f} MB")
