"""Environment variables for Ray, which must be set before it is imported."""

import contextlib
import functools
import os
import secrets
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment_of_ray(*, is_private: bool) -> Iterator[None]:
    """Sets Ray's environment variables inside the block; enter it before importing Ray.

    Usage statistics are off. A private Ray listens on the loopback interface only and requires a
    token, which belongs to this process and is written to no file. If Ray was already imported
    elsewhere, it keeps the values that it found then.
    """
    # Nor does a call that comes late start another Ray.
    values = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    if is_private and ("ray" not in sys.modules or _token.cache_info().currsize):
        values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        # Without it, Ray would replace 127.0.0.1 with the machine's network address.
        values |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@functools.cache  # Ray reads it once
def _token() -> str:
    return secrets.token_hex(32)
