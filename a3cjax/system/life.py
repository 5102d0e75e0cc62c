"""Signs of life: what a thread shows of its progress to whoever watches over it."""

import threading
from collections.abc import Callable

_own = threading.local()


def show_life_by(show: Callable[[], object]) -> None:
    """Let signs of life of the calling thread call `show` from now on."""
    _own.show = show


def show_life() -> None:
    """Show that the calling thread makes progress; does nothing if nobody watches over it.

    A loop of slow calls does so after each, since only a single one may stand still.
    """
    if (show := getattr(_own, "show", None)) is not None:
        show()
