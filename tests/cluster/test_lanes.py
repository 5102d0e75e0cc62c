"""Lanes: arrays arrive as they are, none is overwritten under a reader, nothing is left."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from a3cjax.cluster import lanes
from a3cjax.cluster.lanes import MIN_BYTES, Address, Guests, Lane, Lanes
from a3cjax.cluster.processes import Gone, Unreachable
from tests.cluster.local import Done
from tests.documents import ROOT


class Tree(NamedTuple):
    weights: dict
    count: int


class Inside:
    """What is called: notes what it sees, and answers with `answer`."""

    def __init__(self, answer=lambda *args: args):
        self.guests, self.answer = Guests(), answer
        self.calls, self.packed, self.answers = [], [], []

    def submit(self, packed):
        self.packed.append(packed)
        try:
            self.answers.append(self.guests.answer(self._call, packed))
        except Exception as failure:
            return Done(failure=failure)
        return Done(self.answers[-1])

    def _call(self, *args):
        self.calls.append(args)
        return self.answer(*args)


def no_plain_call():
    raise AssertionError("the lane was good enough")


def address_of(packed):
    return Address(*lanes.pickle.loads(packed)[:3])


ARRAYS = [
    np.arange(30_000, dtype=np.float32).reshape(3, 100, 100),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(20)[::2],
    np.zeros((0, 4), np.float32),
    np.float32(2.5),
    np.array(7, np.int8),
    np.array([True, False]),
    np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16),
    np.array(["names"]),
]


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_arrays_and_structures_arrive_and_come_back_as_they_are():
    there, inside = Lanes(), Inside()
    args = (Tree({"a": ARRAYS, "b": None}, 3), "text", 1.5)
    for _ in range(3):
        tree, *rest = there.call(args, inside.submit, no_plain_call).result()
        assert rest == ["text", 1.5]
        assert isinstance(tree, Tree)
        assert tree.count == 3
        for got, expected in zip(tree.weights["a"], ARRAYS, strict=True):
            assert_same(got, expected)
    assert there.call((), inside.submit, no_plain_call).result() == ()
    assert len(max(inside.packed[1:], key=len)) < 5_000  # the arrays are elsewhere


def test_arrays_are_read_where_they_lie_as_xla_wants_them():
    seen = []

    def look(*arrays):
        seen.extend(array.__array_interface__["data"][0] % 64 for array in arrays)

    inside = Inside(look)
    arrays = tuple(np.ones(size, np.uint8) for size in (1, 63, 64, 65))
    assert Lanes().call(arrays, inside.submit, no_plain_call).result() is None
    assert seen == [0, 0, 0, 0]


def test_an_answer_without_room_is_brought_once():
    big = np.arange(MIN_BYTES, dtype=np.float32)
    inside, there = Inside(lambda *args: {"news": big}), Lanes()
    for _ in range(3):
        assert_same(there.call((), inside.submit, no_plain_call).result()["news"], big)
    assert len(inside.answers[0]) > big.nbytes
    assert max(map(len, inside.answers[1:])) < 1_000
    addresses = [address_of(packed) for packed in inside.packed]
    assert addresses[0] != addresses[1] == addresses[2]


def test_what_was_answered_stays_when_the_lane_has_its_next_call():
    inside, there = Inside(), Lanes()
    there.call((np.zeros(1_000),), inside.submit, no_plain_call).result()
    pending = [there.call((np.full(1_000, n),), inside.submit, no_plain_call) for n in (1.0, 2.0)]
    assert len({address_of(packed) for packed in inside.packed[1:]}) == 2  # both are on their way
    (one,), (two,) = [each.result() for each in pending]
    for n in range(3, 6):
        there.call((np.full(1_000, float(n)),), inside.submit, no_plain_call).result()
    assert (one == 1.0).all()
    assert (two == 2.0).all()
    assert pending[0].result()[0] is one  # asked again, it says the same
    assert len({address_of(packed) for packed in inside.packed}) == 2


@pytest.mark.parametrize("failure", [Unreachable, Gone])
def test_a_lane_of_a_call_that_may_go_on_is_never_used_again(failure):
    inside, there = Inside(), Lanes()
    late = []

    def lose(packed):
        late.append(packed)
        return Done(failure=failure("who knows?"))

    with pytest.raises(failure):
        there.call((np.zeros(500),), lose, no_plain_call).result()
    pending = there.call((np.ones(500),), inside.submit, no_plain_call)
    inside.submit(late[0])  # it is done after all, if its lane is still there
    assert (pending.result()[0] == 1).all()
    assert address_of(late[0]) != address_of(inside.packed[0])


def test_what_a_call_raises_comes_out_and_its_lane_goes_on():
    def fail(*args):
        raise LookupError("inside")

    inside, there = Inside(fail), Lanes()
    for _ in range(2):
        with pytest.raises(LookupError, match="inside"):
            there.call((np.zeros(500),), inside.submit, no_plain_call).result()
    assert len({address_of(packed) for packed in inside.packed}) == 1


def test_where_no_lane_can_be_made_a_call_is_plain(monkeypatch):
    def refuse(name, flags):
        raise OSError("Too many open files")

    inside, there = Inside(), Lanes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        assert there.call((1,), inside.submit, lambda: Done("plain")).result() == "plain"
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        assert there.call((1,), inside.submit, lambda: Done("plain")).result() == "plain"
    assert there.call((1,), inside.submit, no_plain_call).result() == (1,)


def test_where_no_lane_can_be_opened_calls_are_plain_and_made_once(monkeypatch):
    inside, there, plain = Inside(), Lanes(), []

    def submit_plainly():
        plain.append("called")
        return Done("plain")

    monkeypatch.setattr(lanes, "_path_of", lambda address: "/nowhere")
    assert there.call((np.zeros(3),), inside.submit, submit_plainly).result() == "plain"
    assert there.call((np.zeros(3),), inside.submit, submit_plainly).result() == "plain"
    assert plain == ["called", "called"]
    assert len(inside.packed) == 1
    assert inside.calls == []


def test_a_later_file_of_the_same_number_is_no_lane():
    inside, there = Inside(), Lanes()
    there.call((np.zeros(3),), inside.submit, no_plain_call).result()
    *numbers, sizes, data = lanes.pickle.loads(inside.packed[0])
    later = Lane(MIN_BYTES)
    stale = lanes.pickle.dumps((numbers[0], later.address.file, numbers[2], sizes, data))
    assert Guests().answer(inside._call, stale) is None
    assert len(inside.calls) == 1


def test_lanes_leave_no_file_and_guests_forget_those_that_are_gone(request):
    gc.collect()
    gc.freeze()  # what other tests left need not be looked through forty times
    request.addfinalizer(gc.unfreeze)
    before = set(os.listdir("/proc/self/fd"))
    inside = Inside(lambda *args: None)
    for _ in range(20):
        Lanes().call((np.zeros(10_000),), inside.submit, no_plain_call).result()
        gc.collect()
    assert len(inside.guests._opened) == 1  # of the last one, who may call again
    del inside
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


GUEST = """
import sys
from a3cjax.cluster.lanes import Guests

guests = Guests()
for line in sys.stdin:
    answer = guests.answer(lambda x, k: {"sum": x.sum(), "more": x + k}, bytes.fromhex(line))
    print("" if answer is None else answer.hex(), flush=True)
"""


def test_another_process_reads_and_answers_by_the_lane():
    there = Lanes()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GUEST]
    with subprocess.Popen(command, env=variables, text=True, **pipes) as process:

        def submit(packed):
            process.stdin.write(packed.hex() + "\n")
            process.stdin.flush()
            return Done(bytes.fromhex(process.stdout.readline()))

        for k in range(1, 4):
            args = np.arange(100_000), k
            answer = there.call(args, submit, no_plain_call).result()
            assert answer["sum"] == np.arange(100_000).sum()
            assert_same(answer["more"], np.arange(100_000) + k)
        process.stdin.close()
    assert process.returncode == 0
    assert not list(Path("/dev/shm").glob("*a3cjax*"))
