"""How verbs begin that need JAX and environments: seconds pass before these are imported."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Says at once what is imported inside, and spares it the garbage collector.

    Modules are no garbage: to look through them time and again takes a sixth of an import, and of
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
