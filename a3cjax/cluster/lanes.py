"""Calls to a process on the same machine, whose arrays go through memory that both see.

A call and its answer are pickled without the bytes of their arrays (PEP 574). The bytes are copied
into a *lane*: memory of the caller, used for one call at a time. Ray's own store, made for arrays
with many readers, takes twice as long and needs time of a third process (docs/decisions.md).
"""

import contextlib
import itertools
import mmap
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from a3cjax.cluster.processes import Gone, Pending, Unreachable

ALIGNMENT = 64  # of arrays, in bytes: XLA requires it of memory that it reads in place
MIN_BYTES = 2**16


class Address(NamedTuple):
    """Where to find a lane while its owner lives: a file that has no other name."""

    pid: int
    file: int
    inode: int
    """Tells it from a later file of the same number."""


class Lane:
    """A block of memory that other processes of this user can open."""

    def __init__(self, num_bytes: int):
        file = os.memfd_create("a3cjax", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, num_bytes)
            self.memory = memoryview(mmap.mmap(file, num_bytes))
            self.address = Address(os.getpid(), file, os.fstat(file).st_ino)
        except BaseException:
            os.close(file)
            raise

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.address.file)


class Lanes:
    """A caller's lanes, one for each call on its way. Used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Lane] = []
        self._answer_bytes = 0  # of the largest so far
        self._is_off = False

    def call(
        self,
        args: Sequence[Any],
        submit: Callable[[bytes], Pending],
        submit_plainly: Callable[[], Pending],
    ) -> Pending:
        """Submits a call through a lane, in the form that `Guests.answer` takes.

        The call is submitted plainly if no lane can be made, or if one could not be opened. If the
        pending result is discarded, so is its lane, and the call may not be made.
        """
        if self._is_off:
            return submit_plainly()
        data, buffers = _pickle(args)
        sizes = [each.nbytes for each in buffers]
        try:
            lane = self._take(_end_of(sizes))
        except (AttributeError, OSError):  # no memfd_create in the C library; no memory or files
            return submit_plainly()
        _copy(buffers, lane.memory)
        pending = submit(pickle.dumps((*lane.address, sizes, data)))
        return _LanePending(self, lane, _end_of(sizes), pending, submit_plainly)

    def _take(self, num_bytes: int) -> Lane:
        with self._lock:
            num_bytes = max(num_bytes + self._answer_bytes, MIN_BYTES)
            while self._free:
                if len((lane := self._free.pop()).memory) >= num_bytes:
                    return lane
        return Lane(num_bytes)

    def give_back(self, lane: Lane, answer_bytes: int = 0) -> None:
        """Frees a lane for the next call; its last one must certainly be over."""
        with self._lock:
            self._answer_bytes = max(self._answer_bytes, answer_bytes)
            self._free.append(lane)

    def turn_off(self) -> None:
        """Makes all calls plain from now on."""
        self._is_off = True


class _LanePending:
    """The result of a call through a lane; the answer's arrays begin at byte `begin` of it."""

    def __init__(
        self,
        lanes: Lanes,
        lane: Lane,
        begin: int,
        pending: Pending,
        submit_plainly: Callable[[], Pending],
    ):
        self._lanes, self._begin, self._pending = lanes, begin, pending
        self._lane: Lane | None = lane
        self._submit_plainly = submit_plainly
        self._value: Any = None

    def is_ready(self) -> bool:
        """See `Pending.is_ready`."""
        return self._pending.is_ready()

    def result(self) -> Any:
        """See `Pending.result`."""
        if self._lane is not None:
            self._value = self._fetch(self._lane)
            self._lane = None
        return self._value

    def _fetch(self, lane: Lane) -> Any:
        try:
            answer: bytes | None = self._pending.result()
        except (Unreachable, Gone):
            raise  # the lane is never used again: the call may still write into it
        except BaseException:
            self._lanes.give_back(lane)
            raise
        if answer is None:
            self._lanes.turn_off()
            return self._submit_plainly().result()
        sizes, data, brought = pickle.loads(answer)
        end = self._begin + _end_of(sizes)
        if brought is None:  # copied now, before the lane serves its next call
            brought = _cut(bytearray(lane.memory[self._begin : end]), sizes)
        value = pickle.loads(data, buffers=brought)
        self._lanes.give_back(lane, _end_of(sizes))
        return value


class Guests:
    """The lanes of callers, as seen by the process that they call."""

    def __init__(self) -> None:
        self._opened: dict[Address, memoryview] = {}

    def answer(self, call: Callable[..., Any], submitted: bytes) -> bytes | None:
        """Makes a call that was submitted through a lane.

        Its arrays are read in place, and belong to the call until it returns. The answer's arrays
        are put behind them in the lane or, if there is not enough room, into the return value.

        Returns:
          The pickled answer; None if the lane cannot be opened, and then no call is made.
        """
        *address, sizes, data = pickle.loads(submitted)
        try:
            memory = self._open(Address(*address))
        except OSError:
            return None
        returned, buffers = _pickle(call(*pickle.loads(data, buffers=_cut(memory, sizes))))
        returned_sizes = [each.nbytes for each in buffers]
        begin, brought = _end_of(sizes), None
        if begin + _end_of(returned_sizes) <= len(memory):
            _copy(buffers, memory[begin:])
        else:
            brought = [bytes(each) for each in buffers]
        return pickle.dumps((returned_sizes, returned, brought))

    def _open(self, address: Address) -> memoryview:
        if address not in self._opened:
            known = self._opened.items()
            self._opened = {other: memory for other, memory in known if _is_there(other)}
            file = os.open(_path_of(address), os.O_RDWR | os.O_CLOEXEC)
            try:
                if (status := os.fstat(file)).st_ino != address.inode:
                    raise FileNotFoundError(f"the lane at {address} is gone")
                self._opened[address] = memoryview(mmap.mmap(file, status.st_size))
            finally:
                os.close(file)
        return self._opened[address]


def _path_of(address: Address) -> str:
    return f"/proc/{address.pid}/fd/{address.file}"


def _is_there(address: Address) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(_path_of(address)).st_ino == address.inode
    return False


def _pickle(objects: Any) -> tuple[bytes, list[memoryview]]:
    """Pickles objects without the bytes of their arrays; returns the pickle and those bytes."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(objects, protocol=5, buffer_callback=buffers.append)
    return data, [buffer.raw() for buffer in buffers]


def _begins(sizes: Sequence[int]) -> Iterator[int]:
    """Where each of several consecutive arrays begins and, last, where all of them end."""
    return itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0)


def _end_of(sizes: Sequence[int]) -> int:
    return [*_begins(sizes)][-1]


def _cut(memory: Any, sizes: Sequence[int]) -> list[memoryview]:
    view, begins = memoryview(memory), _begins(sizes)
    return [view[begin : begin + size] for begin, size in zip(begins, sizes, strict=False)]


def _copy(buffers: Sequence[memoryview], memory: memoryview) -> None:
    for place, buffer in zip(_cut(memory, [each.nbytes for each in buffers]), buffers, strict=True):
        place[:] = buffer
