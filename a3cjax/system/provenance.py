"""Where a result comes from: versions, machine and commit."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path

PACKAGES = ("a3cjax", "jax", "jaxlib", "flax", "optax", "envpool", "numpy")


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a difference."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_commit() -> str:
    """The commit of the checkout this package lies in, `+changes` if files differ from it.

    `unknown` where the package is installed instead, even inside some other checkout.
    """
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True
        )
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", str(package)],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def describe_command() -> str:
    """The command line as it was typed, with the program's path shortened."""
    program = Path(sys.argv[0])
    words = ["python", "/".join(filter(None, (program.parent.name, program.name)))]
    if program.name in ("a3cjax", "__main__.py"):
        words = ["a3cjax"]
    return shlex.join([*words, *sys.argv[1:]])
