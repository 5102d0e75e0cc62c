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
    """The commit of the checkout this package lies in, with `+changes` if files differ from it.

    `unknown` where the package is installed instead, even inside some other checkout.
    """
    package = str(Path(__file__).parents[1])

    def git(*arguments: str) -> str:
        command = ["git", "-C", package, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", package)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes else "")


def describe_command() -> str:
    """The command line as it was typed, with the program's path shortened."""
    program = Path(sys.argv[0])
    is_own = "a3cjax" in (program.name, program.parent.name)
    words = ["a3cjax"] if is_own else ["python", str(Path(program.parent.name, program.name))]
    return shlex.join([*words, *sys.argv[1:]])


def describe_resuming(run_dir: Path) -> str:
    """The command line that resumes a run, by the program that was called."""
    is_script = Path(sys.argv[0]).parts[-2:] == ("experiments", "run.py")
    words = ["python", "experiments/run.py"] if is_script else ["a3cjax", "train"]
    return shlex.join([*words, f"resume={run_dir}"])
