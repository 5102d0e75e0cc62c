"""As much of Ray as a fleet needs: processes that live until they are killed.

This is the only file that imports Ray; `environment` says what must be set before.
docs/distributed.md says what was learned about Ray, whose documentation is at https://docs.ray.io.
"""

# Ray is an extra, which checks do without.
# pyright: reportMissingImports=false

import contextlib
import importlib.metadata
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from a3cjax.actors.supervisor import Stopped
from a3cjax.cluster.environment import USED_ALREADY
from a3cjax.cluster.guard import start_guard
from a3cjax.cluster.lanes import Guests, Lanes
from a3cjax.cluster.processes import CALL_SECONDS, Gone, Pending, Unreachable
from a3cjax.errors import ConfigError, one_line
from a3cjax.system.output import Lasting

# Shared memory for gradients and parameters on their way; it is taken as needed.
OBJECT_STORE_BYTES = 2**30
CONNECT_SECONDS = 10.0  # for whoever listens at an address to take a connection
LOG = "ray.log"
_ADDRESS_RULE = "ray_address must be that of a Ray that runs"
# Packages whose objects go from one process to another.
COMPARED = ("a3cjax", "jax", "flax", "optax", "numpy", "ray")


def versions() -> dict[str, str]:
    """The versions that all processes must have in common."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {name: importlib.metadata.version(name) for name in COMPARED} | {"python": python}


class Host:
    """What runs in each of Ray's processes: an object, and the calls to it."""

    def __init__(self, cores: list[int] | None, make: Callable[..., Any], *args: Any):
        """Makes the object, on these cores and without an accelerator, which is not its own."""
        if cores is not None:
            os.sched_setaffinity(0, cores)
        os.environ["JAX_PLATFORMS"] = "cpu"  # for processes that this one starts
        import jax

        from a3cjax.system.compilation import configure_jax

        jax.config.update("jax_platforms", "cpu")  # what `make` is may have imported JAX already
        configure_jax()
        self._inside, self._guests = make(*args), Guests()

    def call(self, name: str, *args: Any) -> Any:
        """Calls a method of the object."""
        return getattr(self._inside, name)(*args)

    def call_by_lane(self, name: str, packed: bytes) -> bytes | None:
        """Calls a method of the object through a lane: see `Guests.answer`."""
        return self._guests.answer(getattr(self._inside, name), packed)

    def describe(self) -> tuple[dict[str, str], int, str]:
        """The versions, the process id and the node's id."""
        return versions(), os.getpid(), ray.get_runtime_context().get_node_id()


class RayCall:
    """The result of a call, which is on its way."""

    def __init__(self, reference: Any):
        self._reference = reference

    def is_ready(self) -> bool:
        """Whether `result` returns or raises at once."""
        return bool(ray.wait([self._reference], timeout=0)[0])

    def result(self) -> Any:
        """What the call returned; see `Pending.result`."""
        try:
            return ray.get(self._reference, timeout=CALL_SECONDS)
        except (
            ray.exceptions.ActorUnavailableError,
            ray.exceptions.GetTimeoutError,
            ray.exceptions.ObjectLostError,
        ) as error:
            raise Unreachable(str(error)) from None
        except ray.exceptions.RayActorError as error:
            raise Gone(_reason_of(error)) from None
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what was raised there
        except ray.exceptions.RayError as error:  # killed for want of memory, for example
            raise Gone(_reason_of(error)) from None


def _reason_of(death: Exception) -> str:
    """One line of Ray's many about a process that has died."""
    reason = re.search("The actor is dead because .*", str(death), re.DOTALL)
    text = reason[0] if reason else str(death)
    return one_line(f"a process of the cluster has died for good: {text}", 400)


class RayProcess:
    """An object in another process, wherever it is. Can be sent to other processes."""

    def __init__(self, handle: Any, has_lanes: bool = False):
        self._handle = handle
        self._lanes = Lanes() if has_lanes else None

    def __reduce__(self) -> tuple[Any, ...]:
        return RayProcess, (self._handle, self._lanes is not None)

    def submit(self, name: str, *args: Any) -> Pending:
        """Calls its method of this name."""

        def submit_plainly() -> Pending:
            return RayCall(self._handle.call.remote(name, *args))

        def submit_by_lane(packed: bytes) -> Pending:
            return RayCall(self._handle.call_by_lane.remote(name, packed))

        if self._lanes is None:
            return submit_plainly()
        return self._lanes.call(args, submit_by_lane, submit_plainly)

    def describe(self) -> Pending:
        """See `Host.describe`."""
        return RayCall(self._handle.describe.remote())

    def kill(self) -> None:
        """Ends it at once, for good."""
        ray.kill(self._handle, no_restart=True)


class RayEngine:
    """Starts processes, here or on the machines of a cluster."""

    def __init__(self, is_local: bool, log: Path):
        self.is_local, self._log = is_local, log

    @property
    def shares_memory(self) -> bool:
        """Whether all processes certainly run on one machine."""
        return self.is_local

    @property
    def node_cores(self) -> list[int]:
        """The number of cores of each machine, free or not, of those that have any."""
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        return [number for number in cores if number > 0]

    def spawn(
        self,
        make: Callable[..., Any],
        *args: Any,
        cores: list[int] | None = None,
        num_cpus: int = 0,
        max_restarts: int = 0,
        has_lanes: bool = False,
    ) -> RayProcess:
        """Starts a process with the object that `make(*args)` makes there.

        If it dies, Ray starts it again by the same call, up to `max_restarts` times. On this
        machine it runs on `cores` and, if it `has_lanes`, is called through lanes, with what can be
        pickled; on a cluster it runs where there are `num_cpus` to spare.
        """
        options = {"max_restarts": max_restarts, "num_cpus": 0 if self.is_local else num_cpus}
        if not self.is_local:
            options |= {"scheduling_strategy": "SPREAD"}
            cores = None
        try:
            host = ray.remote(Host).options(**options).remote(cores, make, *args)
        except TypeError as error:
            rule = "env, network and algorithm must be picklable with cluster=ray"
            raise ConfigError(f"{rule}, got one that is not: {error.__cause__ or error}") from error
        return RayProcess(host, has_lanes and self.shares_memory)

    def keep_log(self, folder: Path) -> None:
        """Writes what Ray has said, and will say, to a file in this folder."""
        shutil.copyfile(self._log, folder / LOG)
        redirect(folder / LOG)

    def check_versions(self, processes: Sequence[Any]) -> None:
        """Raises a RuntimeError if the version of a package differs elsewhere."""
        here = versions()
        for process in processes:
            there, _, node = process.describe().result()
            for name, version in here.items():
                if there[name] != version:
                    raise RuntimeError(
                        f"{name} must be {version} on every machine, got {there[name]} on {node}."
                    )


@contextlib.contextmanager
def ray_engine(address: str | None) -> Iterator[RayEngine]:
    """Starts a private Ray on this machine or, with an `address`, joins one that runs already.

    Enter it before using JAX, because Ray forks. What Ray says goes to a file. Its own processes
    end with the block, and with this process.

    Raises:
      ConfigError: if it does not start, or there is none to join, or this process uses Ray already.
      Stopped: if a SIGINT or SIGTERM comes before Ray is there.
    """
    if ray.is_initialized():
        raise ConfigError(USED_ALREADY)
    if address not in (None, "auto"):
        _check_listener(address)
    with contextlib.ExitStack() as stack:
        # Short: the names of sockets have at most 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="a3cjax-"))
        guard = stack.enter_context(start_guard(folder, Path(ray.__path__[0])))  # it is waited for
        assert guard.stdin is not None
        stack.callback(guard.stdin.close)
        stack.enter_context(_said_to(folder / LOG))
        options: dict[str, Any] = {"address": address or "local"}
        if address is None:
            options |= {
                "_temp_dir": str(folder),
                "_node_ip_address": "127.0.0.1",
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            }
        try:
            with _own_signals():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Stopped:
            raise
        except Exception as error:
            rule = "cluster must be null where Ray does not start, got ray"
            if address is not None:
                rule = f"{_ADDRESS_RULE}, got {address}"
            raise ConfigError(f"{rule}: {type(error).__name__}: {error}") from error
        stack.callback(ray.shutdown)
        yield RayEngine(address is None, folder / LOG)


def _check_listener(address: str) -> None:
    """Raises a ConfigError if nobody listens at host:port, where Ray would try for ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"{_ADDRESS_RULE}, got {address}: {error}.") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Lets signals end the start of Ray at once, and sets back the handlers that Ray replaces.

    Ray's own handler of SIGTERM leaves by `sys.exit`, and would take the run with it.

    Raises:
      Stopped: after a SIGINT or SIGTERM inside the block, raised again for the handler before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    came = None
    try:
        yield
    except KeyboardInterrupt:
        came = signal.SIGINT
    except SystemExit as leaving:
        if leaving.code != signal.SIGTERM:
            raise
        came = signal.SIGTERM
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
    if came is not None:
        signal.raise_signal(came)
        raise Stopped


@contextlib.contextmanager
def _said_to(log: Path) -> Iterator[None]:
    """Sends what libraries write to the standard error to a file, but not this program's lines."""
    import ray._private.worker as driver

    def note(data: Any, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        for line in data["lines"]:
            os.write(2, f"{time.strftime('%H:%M:%S')} {line}\n".encode())

    is_standard = False
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of a notebook, for example
        is_standard = sys.stderr.fileno() == 2
        sys.stderr.flush()
    stderr, terminal, print_lines = sys.stderr, os.dup(2), driver.print_to_stdstream
    redirect(log)
    if is_standard:
        encoding = getattr(stderr, "encoding", None) or "utf-8"
        lines = os.fdopen(terminal, "w", buffering=1, encoding=encoding, closefd=False)
        sys.stderr = Lasting(lines)  # pyright: ignore
    driver.print_to_stdstream = note
    try:
        yield
    finally:
        driver.print_to_stdstream = print_lines
        if is_standard:
            sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr = stderr


def redirect(log: Path) -> None:
    """Redirects the standard error to this file from now on."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 2)
    os.close(file)
