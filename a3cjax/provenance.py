"""Where a result comes from: versions, machine and commit."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

PACKAGES = ("a3cjax", "jax", "jaxlib", "flax", "optax", "envpool", "numpy")


CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores_of_thread() -> set[int]:
    """Cores that the calling thread may run on; empty where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def available_cores() -> int:
    """Cores that the calling thread may use, a container's share of them counted, at least 1."""
    cores = len(cores_of_thread()) or os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container's limit: no such file, or "max 100000"
        return cores


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a difference."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_machine() -> dict[str, str | int]:
    """The processor, the cores this process may use, and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def compilation_cache_dir() -> Path | None:
    """The user's folder for programs compiled by this jaxlib for this processor.

    None where it cannot be made. Compiled code runs on processors with the same features
    only, and a home folder may be shared by machines that differ.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    identity = "\n".join([describe_versions()["jaxlib"], platform.processor(), features])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(user_cache) / "a3cjax" / "compiled" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def describe_commit() -> str:
    """The commit of the checkout this package lies in, `+changes` if files differ from it.

    `unknown` where the package is installed instead, even inside some other checkout.
    """
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True
        )
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", str(folder), str(folder.parent / "experiments")],
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
    name = f"{program.parent.name}/{program.name}" if program.parent.name else program.name
    return shlex.join(["python", name, *sys.argv[1:]])
