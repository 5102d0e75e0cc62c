"""The seam between actor-learners and the shared parameters: pull and push."""

from typing import NamedTuple, Protocol

from a3cjax.types import Params, Snapshot


class Receipt(NamedTuple):
    """What a push answers: where the run stands after it, and seconds spent on the lock.

    `staleness` counts the updates by others since the version that the gradient was
    computed at. A refused gradient would have made parameters that are not finite: it
    changed nothing, and its frames are not counted.
    """

    version: int
    num_frames: int
    staleness: int
    wait_seconds: float
    hold_seconds: float
    is_refused: bool = False


class ParameterStore(Protocol):
    """Where actor-learners get parameters from and bring gradients to."""

    def pull(self) -> Snapshot:
        """The newest parameters."""
        ...

    def push(self, grads: Params, num_frames: int, version: int, actor_index: int = 0) -> Receipt:
        """Applies one gradient.

        Args:
          grads: a pytree like the parameters.
          num_frames: emulator frames that the gradient was computed from.
          version: of the snapshot that it was computed at.
          actor_index: whose it is.
        """
        ...
