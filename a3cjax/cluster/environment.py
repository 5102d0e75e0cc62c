"""Environment variables for Ray, which must be set before it is imported."""

import contextlib
import functools
import os
import secrets
import sys
import threading
from collections.abc import Iterator

from a3cjax.errors import ConfigError

USED_ALREADY = (
    "cluster must be null where this process uses Ray already, got ray: call ray.shutdown() first, "
    "or train in a process of its own, which may join the same Ray (ray_address)."
)
_in_use = threading.Lock()


@contextlib.contextmanager
def environment_of_ray(*, is_private: bool) -> Iterator[None]:
    """Sets Ray's environment variables inside the block; enter it before importing Ray.

    Usage statistics are off. A private Ray listens on the loopback interface only and requires a
    token, which belongs to this process and is written to no file.

    Raises:
      ConfigError: in a second thread; or where Ray, which reads most of this once, has read what
        does not fit.
    """
    if not _in_use.acquire(blocking=False):
        raise ConfigError(USED_ALREADY)
    try:
        with _set(is_private):
            yield
    finally:
        _in_use.release()


@contextlib.contextmanager
def _set(is_private: bool) -> Iterator[None]:
    had_own = _token.cache_info().currsize > 0
    if is_private and not had_own and sys.modules.get("ray") is not None:
        raise ConfigError(
            "cluster must be null where this process has imported or joined Ray before, got ray: a "
            "Ray of its own would be open to the network. Train in a process of its own, or join a "
            "Ray that runs (ray_address)."
        )
    if had_own and not is_private:
        raise ConfigError(
            "ray_address must be null where this process had a Ray of its own, whose token it "
            "keeps. Train in a process of its own."
        )
    # Nor does a call that comes late start another Ray.
    values = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    if is_private:
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
