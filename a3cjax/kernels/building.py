"""Compilation of the kernels where they run, once for each processor and compiler."""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax

from a3cjax.kernels.calling import Names, make_kernels
from a3cjax.system.files import user_cache
from a3cjax.torsos import ImageKernels

SOURCE = Path(__file__).parent / "convolutions.cc"
COMPILERS = ("g++", "clang++", "c++")
OPTIONS = ("-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-w")
TIMEOUT_SECONDS = 120.0


@functools.cache
def load_kernels() -> tuple[ImageKernels | None, str]:
    """The kernels, compiled now unless they were before for this processor; or None, and why."""
    if jax.default_backend() != "cpu":
        return None, f"where JAX computes on {jax.default_backend()}"
    try:
        library = build_library()
        programs = ctypes.CDLL(str(library))
    except subprocess.SubprocessError as error:
        return None, f"where the C++ compiler fails ({error})"
    except OSError as error:
        return None, f"where there is no C++ compiler, or no folder for what it makes ({error})"
    names = Names(*(f"a3cjax_{name}_{library.stem}" for name in Names._fields))
    for field, name in names._asdict().items():
        capsule = jax.ffi.pycapsule(getattr(programs, field))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return make_kernels(names), ""


def build_library() -> Path:
    """The path of the compiled library, named by a digest of all that it was made from.

    Raises:
      OSError: if there is no compiler, or no folder for the library.
      subprocess.SubprocessError: if compiling fails, or takes too long.
    """
    compiler = _find_compiler()
    # The compiler's name and version, and the processor that it finds here.
    about = _run(*compiler, *OPTIONS, "-E", "-v", "-x", "c++", os.devnull)
    parts = [SOURCE.read_bytes(), importlib.metadata.version("jaxlib").encode(), about]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = user_cache() / "kernels"
    library = folder / f"{digest}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            headers = f"-I{jax.ffi.include_dir()}"
            _run(*compiler, *OPTIONS, headers, str(SOURCE), "-o", str(made))
            made.replace(library)  # another process may be doing the same
    return library


def _find_compiler() -> list[str]:
    """The compiler in the environment variable CXX, else the system's."""
    try:
        own = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise FileNotFoundError(f"CXX is no command line: {error}") from error
    for command in [own] if own else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise FileNotFoundError("none is on the PATH")


def _run(*command: str) -> bytes:
    """Run a command and return what it writes to standard error."""
    done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_SECONDS)
    return done.stderr
