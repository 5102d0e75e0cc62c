"""How verbs that need JAX and environments begin: importing these takes seconds."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Say at once what the block imports, and keep the garbage collector off meanwhile.

    Modules are no garbage: looking through them time and again takes a sixth of an import, and of
    compilation after it.
    """
    print("importing JAX and envpool ...", flush=True)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
