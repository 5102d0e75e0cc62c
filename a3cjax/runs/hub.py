"""Published agents on a hub of models, by huggingface_hub: `hf://<user>/<name>`.

The hub's address and the user's token are that library's business (`HF_ENDPOINT`, `HF_TOKEN`).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a3cjax.config.reading import CONFIG_FILE
from a3cjax.errors import ConfigError
from a3cjax.runs.environment_files import ENVIRONMENT_FILE
from a3cjax.runs.parameter_files import PARAMETER_FILE
from a3cjax.runs.tables import PLAY, SUMMARY

PREFIX = "hf://"
CARD, PICTURE = "README.md", f"{PLAY}.gif"
PUBLISHED = (PARAMETER_FILE, CONFIG_FILE, ENVIRONMENT_FILE, SUMMARY, CARD, PICTURE)
"""The files of a published agent. No others are sent or fetched, least of all a `run.lock`."""

_REPOSITORY = r"[\w.-]+/[\w.-]+"


def is_on_hub(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of an agent on the hub."""
    return str(name).startswith(PREFIX)


def download(name: str) -> Path:
    """Bring an agent into the library's cache, unless it is there; return its folder.

    Args:
      name: `hf://<user>/<name>`, with `@<revision>` (a branch, a tag or a commit) at the end if
        it is not the newest.

    Raises:
      ConfigError: if there is no such agent, it may not be read, or the hub is out of reach.
    """
    match = re.fullmatch(rf"{PREFIX}({_REPOSITORY})(?:@([\w./-]+))?", name)
    if match is None:
        raise ConfigError(f"an agent on the hub must be {PREFIX}<user>/<name>, got {name}.")
    repository, revision = match.groups()
    with _refusals(name) as hub:
        folder = hub.HfApi().snapshot_download(
            repository, revision=revision, allow_patterns=list(PUBLISHED)
        )
    return Path(folder)


def check_upload(repository: str) -> None:
    """Refuse what `upload` would refuse, as far as that can be known without the hub.

    Raises:
      ConfigError: if it is not `<user>/<name>`, or there is no token.
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise ConfigError(f"hub must be <user>/<name>, got {repository}.")
    with _refusals(repository) as hub:
        if hub.get_token() is None:
            raise ConfigError("hub=... needs a token: HF_TOKEN, or that of `hf auth login`.")


def upload(folder: Path, repository: str) -> str:
    """Send a published agent to the hub; return where it is.

    The repository is made if there is none.

    Raises:
      ConfigError: if the hub refuses it, or is out of reach.
    """
    with _refusals(repository) as hub:
        api = hub.HfApi()
        url = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Publish the agent",
            allow_patterns=list(PUBLISHED),
        )
    return str(url)


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[Any]:
    """Yield the library; what it raises in the block becomes a ConfigError of one line."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise ConfigError(
            f"{name} needs huggingface_hub, which comes with the extra hub: "
            "in a checkout, pip install '.[hub]'."
        ) from error
    try:
        yield huggingface_hub
    except ConfigError:
        raise
    except RevisionNotFoundError as error:
        raise ConfigError(f"the hub must have this revision, got {name}.") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"the hub must have this agent and show it to you, got {name}."
        ) from error
    except Exception as error:  # of the HTTP library that it uses, too
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{name}: {type(error).__name__}: {reason}") from error
