"""Checkouts of a3cjax, each timed in a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("timing_worker.py")


class CheckoutError(Exception):
    """Why a checkout cannot be timed, in one line."""


class Checkout:
    """The a3cjax in a folder, and the process that times it on request.

    What was compiled stays in that process from one measurement to the next.
    """

    def __init__(self, folder: Path):
        """Starts the process.

        Raises:
          CheckoutError: if it ends at once, or imports another a3cjax than the folder's.
        """
        folder = folder.resolve()
        package = folder / "a3cjax"
        if not (package / "__init__.py").is_file():
            raise CheckoutError(f"A checkout must hold a3cjax/, got {folder}.")
        self._process = subprocess.Popen(
            [sys.executable, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(folder)},
        )
        try:
            hello = self._read()
            if Path(hello["package"]).resolve() != package:
                raise CheckoutError(f"{package} was to be timed, but {hello['package']} is.")
        except BaseException:
            self.close()
            raise
        self.commit: str = hello["commit"]

    def train(self, settings: Mapping[str, str], seconds: float) -> dict[str, Any]:
        """What `TimedTraining.measure` returns for these settings, written as on a command line."""
        return self._ask(settings=dict(settings), seconds=seconds)

    def emulator_rate(
        self, env: str, num_actors: int, envs_per_actor: int, seconds: float
    ) -> float:
        """Steps a second of envpool and nothing else, with a pool for each actor."""
        answer = self._ask(emulator=[env, num_actors, envs_per_actor], seconds=seconds)
        return answer["steps_per_second"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # no answer will come, either
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckoutError(f"The timing process ended with {self._process.wait()}.")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process, which frees its environments."""
        self._process.communicate()  # which closes its input


@contextlib.contextmanager
def open_checkouts(folders: Sequence[Path]) -> Iterator[list[Checkout]]:
    """A process for each folder, ended on leaving."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Checkout(folder))) for folder in folders]
