"""How verbs that need JAX and environments begin: importing these takes seconds."""

import contextlib
import gc
import os
from collections.abc import Iterator

from a3cjax.errors import ConfigError


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Say at once what the block imports, and keep the garbage collector off meanwhile.

    Modules are no garbage: looking through them time and again takes a sixth of an import, and of
    compilation after it.

    Raises:
      ConfigError: if the working folder was deleted, without which envpool ends the process.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        deleted = "The working folder must exist, it has been deleted: cd to another one."
        raise ConfigError(deleted) from None
    print("importing JAX and envpool ...", flush=True)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
