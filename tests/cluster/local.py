"""An engine whose processes are objects of this one: all of a fleet but Ray."""

import contextlib
import functools
import threading

from a3cjax.cluster.processes import Gone, Unreachable
from a3cjax.cluster.worker import Worker
from a3cjax.training import run as run_module


class Done:
    """The result of a call that was made at once."""

    def __init__(self, value=None, failure=None):
        self._value, self._failure = value, failure

    def is_ready(self):
        return True

    def result(self):
        if self._failure is not None:
            raise self._failure
        return self._value


class LocalProcess:
    """An object in this very process, with the interface of a `Process`."""

    def __init__(self, inside):
        self.inside = inside
        self._lock = threading.Lock()

    def submit(self, name, *args):
        with self._lock:
            try:
                return Done(getattr(self.inside, name)(*args))
            except Exception as failure:
                return Done(failure=failure)

    def kill(self):
        pass


class MortalProcess(LocalProcess):
    """A process that can die, and is made again by the same call as Ray does it."""

    def __init__(self, make, max_restarts):
        super().__init__(make())
        self._make, self._num_restarts_left = make, max_restarts
        self.death = None

    def submit(self, name, *args):
        return Done(failure=self.death) if self.death else super().submit(name, *args)

    def die(self):
        """As by SIGKILL: nothing of it is left, but files."""
        if isinstance(self.inside, Worker):
            self.inside.stop()
        self.death = Gone("killed")
        if self._num_restarts_left:
            self._num_restarts_left -= 1
            self.death = Unreachable("killed")
            self.inside = self._make()
            self.death = None

    def kill(self):
        if isinstance(self.inside, Worker):  # its threads are this process's
            self.inside.stop()
            self.inside._supervisor.wait()
            self.inside.close()
        self.death = self.death or Gone("killed")


class LocalEngine:
    is_local = True

    def __init__(self):
        self.workers, self.shards = [], []

    def spawn(self, make, *args, cores=None, num_cpus=0, max_restarts=0, has_lanes=False):
        process = MortalProcess(functools.partial(make, *args), max_restarts)
        (self.workers if isinstance(process.inside, Worker) else self.shards).append(process)
        return process

    def keep_log(self, folder):
        (folder / "ray.log").touch()

    def check_versions(self, processes):
        pass


@contextlib.contextmanager
def local_engine(monkeypatch):
    """Runs with `cluster=ray` are runs in this process meanwhile."""
    engine = LocalEngine()
    with monkeypatch.context() as patch:
        patch.setattr(
            run_module,
            "engine_of",
            lambda config: contextlib.nullcontext(None if config.cluster is None else engine),
        )
        yield engine
