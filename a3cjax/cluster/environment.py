"""What Ray must find in the environment when it is imported: afterwards it is too late."""

import contextlib
import functools
import os
import secrets
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment_of_ray(*, is_private: bool) -> Iterator[None]:
    """To be entered before Ray is imported. Nothing is told to its makers.

    A private Ray listens on the loopback interface alone, and lets nobody in without a token, which
    is that of this process and lies in no file. Where somebody else has imported Ray already, it
    goes by what it found then.
    """
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if is_private and ("ray" not in sys.modules or _token.cache_info().currsize):
        values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        # Without it, Ray takes 127.0.0.1 for the machine's address in the network.
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
