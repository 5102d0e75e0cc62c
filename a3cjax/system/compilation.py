"""How JAX compiles in the program, and where compiled programs are kept."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from a3cjax.system.machine import cpuinfo
from a3cjax.system.provenance import describe_versions


def compilation_cache_dir() -> Path | None:
    """The user's folder for programs compiled by this jaxlib for this processor.

    None where it cannot be made. Compiled code runs on processors with the same features
    only, and a home folder may be shared by machines that differ.
    """
    features = cpuinfo("flags", "Features")
    identity = "\n".join([describe_versions()["jaxlib"], platform.processor(), features])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(user_cache) / "a3cjax" / "compiled" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def configure_jax() -> None:
    """Settings of the program, not of the library: call before the first computation."""
    # A call returns when its result is there: the actors are the parallelism.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # The second run of a configuration starts without compiling.
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    cache_dir = compilation_cache_dir()
    if chosen is None and cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
