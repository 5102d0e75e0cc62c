"""The machine: its processor and the cores that this process may use."""

import os
import platform
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores_of_thread() -> set[int]:
    """Cores that the calling thread may run on; empty where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def available_cores() -> int:
    """How many cores the calling thread may use, within a container's limit; at least 1."""
    cores = len(cores_of_thread()) or os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container's limit: no such file, or "max 100000"
        return cores


def cpuinfo(*names: str) -> str:
    """The first line of /proc/cpuinfo that begins with one of these names; empty if none does."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(names)), "")


def describe_machine() -> dict[str, str | int]:
    """The processor, the cores this process may use, and the system."""
    return {
        "processor": cpuinfo("model name").partition(":")[2].strip() or platform.processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }
