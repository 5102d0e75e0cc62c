"""Makes a small folder of a trained agent, to pass on.

    a3cjax publish runs/my-catch runs/my-catch-published

It holds the parameters, a model card (README.md) and where they come from; `a3cjax.load` reads it.
With hub=<user>/<name> it is uploaded, too: a3cjax.load("hf://<user>/<name>") then brings it back.
"""

import dataclasses
from pathlib import Path

from a3cjax.commands.arguments import read, refusing
from a3cjax.config.declaring import Settings, setting
from a3cjax.errors import CheckpointError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishSettings(Settings):
    """Settings of `a3cjax publish`."""

    trust: bool = setting(False, "may import the module that the run's settings name")
    hub: str | None = setting(
        None, "<user>/<name> on the hub of Hugging Face to upload it to; null: nowhere"
    )


SETTINGS, PLACES = (PublishSettings,), "<run folder> <new folder>"


def main(words: list[str], texts: dict[str, str]) -> None:
    """Publish an agent."""
    (run_dir, output_dir), settings = words, read(PublishSettings, texts)
    from a3cjax.runs.hub import check_upload, upload
    from a3cjax.runs.publishing import publish

    with refusing(ValueError, OSError, CheckpointError):
        if settings.hub is not None:
            check_upload(settings.hub)
        folder = publish(Path(run_dir), Path(output_dir), trust=settings.trust, hub=settings.hub)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"written to {folder}, {size / 1e6:.1f} MB")
    if settings.hub is not None:
        with refusing(ValueError):
            print(f"uploaded to {upload(folder, settings.hub)}")
