"""Starts a Ray beside the tests, which have used JAX, and must not fork."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def start_head() -> Iterator[str]:
    """The address of a Ray of one's own; the token to it is in the environment meanwhile."""
    words = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [sys.executable, "-m", "tests.cluster.ray_head"]
    os.environ.update(words)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with subprocess.Popen(command, text=True, **pipes) as head:
            assert head.stdin is not None
            assert head.stdout is not None
            try:
                address = head.stdout.readline().strip()
                assert address, "Ray did not start"
                yield address
            finally:
                head.stdin.close()
                head.wait()
    finally:
        for name in words:
            del os.environ[name]
