"""Laws that hold whatever is drawn: of the configuration, and of the store under threads.

How many examples, and that they are the same on every run, is said in conftest.py.
"""

import dataclasses
import math
import sys
import threading
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from a3cjax.commands.arguments import parse
from a3cjax.config.declaring import show
from a3cjax.config.reading import (
    FIXED_BY_A_DETERMINISTIC_RUN,
    FIXED_BY_A_RUN,
    Preset,
    load_config,
    make_config,
    read_config,
    resume_config,
)
from a3cjax.config.settings import AUTO, Config
from a3cjax.errors import ConfigError, one_line
from a3cjax.networks import NETWORK_NAMES
from a3cjax.optimizers import OPTIMIZER_NAMES, make_optimizer
from a3cjax.parameters.shared import Receipt, SharedParameters
from a3cjax.parameters.turns import take_turns
from a3cjax.runs.folder import write_config
from a3cjax.types import LearnerState
from a3cjax.updates import make_apply_gradients
from tests.cases import for_each
from tests.fakes import run_in_threads

NAMES = [field.name for field in dataclasses.fields(Config)]
MAX_FRAMES = 10**15

# Values. What breaks a line is drawn where the law does not speak of lines.

LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
LINES = st.text(st.characters(exclude_characters=LINE_BREAKS), max_size=30)
NUMBERS = [
    *(0, 1, -1, 2, 10**9, MAX_FRAMES, MAX_FRAMES + 1, -(10**30), 10**30, 10**38, 10**400),
    *(math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e-46, 0.5, 1 - 1e-12, 3.4e38, 3.5e38, 1e308),
]
STRINGS = [
    *("", "a", " ", "Pong", AUTO, "a3c", "adam", "mlp_ff", "paper", "null", "None", "~", "true"),
    *("1", "1e3", "0x1f", "12:30", "=", "<<", "*a", "&a", "!!int 1", "2024-01-01", "'", '"', "- a"),
    *("\x00", "\x1b[2J", "\ud800", "\ufeff", "\U0001f600", "${env}", "x" * 300),
]
OTHERS = [
    *(True, False, None, [], [1], {}, {"a": 1}, (), (1,), b"x", 1j, object(), int),
    *(np.float32(0.5), np.float64(0.5), np.float64(math.nan), np.float64(1e300), np.int64(3)),
    *(np.uint8(1), np.bool_(True), np.str_("adam"), np.array([1, 2]), np.array(1.0)),
]
VALUES = st.one_of(
    st.sampled_from([*NUMBERS, *STRINGS, *OTHERS]),
    st.integers(),
    st.integers(0, 2000),
    st.floats(),
    st.floats(0, 1),
    LINES,
    st.lists(st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder, used again for every example."""
    return tmp_path_factory.mktemp("run")


def breaks_no_line(text):
    return not set(text) & set(LINE_BREAKS)


def is_one_line(message):
    return message.splitlines() == [message]


def refusal(function, *args):
    """The message with which a call is refused; None if it is not."""
    try:
        function(*args)
    except ConfigError as error:
        return str(error)
    return None


# For each setting what it may be, found by trying: nothing here names a setting or its bounds.

PLAIN = [
    *(None, True, False, *NUMBERS, *STRINGS, *NETWORK_NAMES, *OPTIMIZER_NAMES),
    *(field.default for field in dataclasses.fields(Config)),
]


def legal_values(name):
    def is_legal(*values):
        return all(refusal(make_config, {name: value}) is None for value in values)

    parts = [st.sampled_from([value for value in PLAIN if is_legal(value)])]
    for low, high in ((0, 1000), (1, 20_000), (1, MAX_FRAMES)):
        parts += [st.integers(low, high)] * is_legal(low, high)
    for low, high in ((0.0, 0.9), (0.0, 1.0), (1e-37, 3e38), (1.0, 3e38)):
        parts += [st.floats(low, high)] * is_legal(low, high)
    parts += [st.text()] * is_legal("any text")
    return st.one_of(parts)


LEGAL = {name: legal_values(name) for name in NAMES if name != "resume"}  # no file has that


def legal_settings(names):
    return st.dictionaries(st.sampled_from(names), st.none(), max_size=6).flatmap(
        lambda chosen: st.fixed_dictionaries({name: LEGAL[name] for name in chosen})
    )


# Building a configuration.


@settings(max_examples=150)
@given(st.sampled_from(NAMES), VALUES)
def test_any_value_of_any_setting_is_taken_or_refused_in_one_line(name, value):
    message = refusal(make_config, {name: value})
    if message is None:
        taken = getattr(make_config({name: value}), name)
        assert taken == value or isinstance(value, str)  # A3C is a3c
        assert repr(getattr(make_config({name: taken}), name)) == repr(taken)
    else:
        assert message.startswith(f"{name} must be ")
        assert is_one_line(message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("network", "a\nb", id="string"),
        pytest.param("seed", np.zeros((2, 2)), id="array"),
        pytest.param("seed", 10**5000, id="digits"),
    ],
)
def test_value_that_is_hard_to_print_is_refused_in_one_line(name, value):
    message = refusal(make_config, {name: value})
    assert message is not None
    assert message.startswith(f"{name} must be ")
    assert is_one_line(message)


@given(LINES.filter(lambda name: name not in NAMES), VALUES)
@example("", 1)
@example("env ", "Pong")
@example("__class__", 1)
@example("preset", "paper")
def test_unknown_setting_is_refused_in_one_line(name, value):
    message = refusal(make_config, {"seed": 1, name: value})
    assert message is not None
    assert message.startswith(one_line(f"There is no setting named {name}"))
    assert is_one_line(message)


@for_each(
    "name",
    [
        "a\nb",
        5,  # YAML has such
        None,
    ],
)
def test_unknown_setting_that_is_no_name_is_refused_in_one_line(name):
    message = refusal(make_config, {name: 1})
    assert message is not None
    assert is_one_line(message)


# config.yaml.


@settings(max_examples=40)
@given(legal_settings(list(LEGAL)))
def test_config_comes_back_from_its_folder(folder, values):
    assume(refusal(make_config, values) is None)  # they may contradict each other
    config = make_config(values)
    write_config(config, folder)
    # The text as well: −0.0 = 0, and 1 = 1.0 = True.
    assert repr(load_config(folder)) == repr(config.replace(run_dir=str(folder)))


@for_each(("name", "value"), [("discount", np.float64(0.5)), ("env", np.str_("Pong"))])
def test_value_of_numpy_is_refused_or_comes_back(folder, name, value):
    if refusal(make_config, {name: value}) is None:
        config = make_config({name: value})
        write_config(config, folder)
        assert load_config(folder) == config.replace(run_dir=str(folder))


# Resuming.

OLD = Config(seed=3, num_actors=4)


def differs(value, old):
    """Whether it is another value, and of one that can be compared and printed in a line."""
    if isinstance(value, np.ndarray) or (isinstance(value, str) and not breaks_no_line(value)):
        return False
    return value != old


@pytest.mark.parametrize("name", FIXED_BY_A_RUN)
@settings(max_examples=12)
@given(st.data())
def test_resuming_refuses_what_a_run_fixes(folder, name, data):
    old = getattr(OLD, name)
    value = data.draw((VALUES | LEGAL[name]).filter(lambda value: differs(value, old)))
    write_config(OLD, folder)
    message = refusal(resume_config, str(folder), {name: value})
    assert message is not None
    is_legal = refusal(make_config, {name: value}) is None
    rule = f"{show(old)}, as in the run to resume, got " if is_legal else ""
    assert message.startswith(f"{name} must be {rule}")
    assert is_one_line(message)
    resumed = resume_config(str(folder), {name: old})
    assert resumed == OLD.replace(run_dir=str(folder), resume=str(folder))


@pytest.mark.parametrize("name", FIXED_BY_A_DETERMINISTIC_RUN)
@settings(max_examples=8)
@given(st.data())
def test_resuming_refuses_what_a_deterministic_run_fixes(folder, name, data):
    begun = OLD.replace(deterministic=True, kernels=False)
    old = getattr(begun, name)
    value = data.draw(LEGAL[name].filter(lambda value: value != old))
    write_config(begun, folder)
    rule = f"^{name} must be {show(old)}, as in the run to resume, got "
    with pytest.raises(ConfigError, match=rule):
        resume_config(str(folder), {name: value})
    write_config(OLD, folder)
    assert getattr(resume_config(str(folder), {name: value}), name) == value


CHANGEABLE = [name for name in LEGAL if name not in {*FIXED_BY_A_RUN, "run_dir"}]


@given(legal_settings(CHANGEABLE), LEGAL["total_frames"])
def test_resuming_takes_other_frames_and_whatever_is_not_fixed(folder, changes, total_frames):
    changes = {**changes, "total_frames": total_frames}
    assume(refusal(make_config, changes) is None)
    write_config(OLD, folder)
    resumed = resume_config(str(folder), changes)
    assert resumed == OLD.replace(**changes, run_dir=str(folder), resume=str(folder))


@given(VALUES)
def test_resuming_checks_what_it_takes(folder, value):
    write_config(OLD, folder)
    changes = {"total_frames": value}
    assert refusal(resume_config, str(folder), changes) == refusal(make_config, changes)


def test_resuming_refuses_unknown_settings(folder):
    write_config(OLD, folder)
    with pytest.raises(ConfigError, match="no setting named evn"):
        resume_config(str(folder), {"evn": 1})


@for_each(
    "data",
    [
        b"\xff",
        b"[" * 500,
        b"seed: 2024-99-99",
        b"seed: !!bool x",
        b"5: 1",
        b"\x00",
        b"a: b: c",
        b"? [1]\n: 2",
        b"a: &a [*a]",
        b"seed: .nan",
        b"!!python/object/apply:os.getcwd []",
        b"",
    ],
)
def test_folder_with_another_config_is_no_run_folder(folder, data):
    (folder / "config.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"^resume must be a run folder, got ") as caught:
        resume_config(str(folder), {})
    assert is_one_line(str(caught.value))


# The command line.

ARGUMENTS = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "+", "-", "--", "~", " "]),
        st.one_of(st.sampled_from([*NAMES, "preset", "lr", "x.y"]), st.text()),
        st.sampled_from(["", "=", "==", ":", " "]),
        st.text(),
    ),
)


@settings(max_examples=150)
@given(st.lists(ARGUMENTS, max_size=3))
@example(["a\nb=1"])
@example(["\ud800=\ud800"])
@example(["--env", "Pong"])
def test_any_arguments_are_settings_or_refused_in_one_line(arguments):
    message = refusal(parse, arguments, Preset, Config)
    if message is None:
        _, texts = parse(arguments, Preset, Config)
        assert all(f"{name}={text}" in arguments for name, text in texts.items())
        assert {argument.partition("=")[0] for argument in arguments} == texts.keys()
        assert texts.keys() <= {*NAMES, "preset"}
    elif all(map(breaks_no_line, arguments)):
        assert is_one_line(message)


NUMERALS = st.from_regex(r"[+-]?[\d_]*\.?\d*e?-?\d*[kM]?")
TEXTS = st.one_of(st.text(), st.sampled_from(STRINGS), NUMERALS)


@settings(max_examples=150)
@given(st.sampled_from([*NAMES, "preset"]), TEXTS)
def test_any_text_of_any_setting_is_taken_or_refused_by_its_name(name, text):
    message = refusal(read_config, {name: text})
    if message is None:
        config = read_config({name: text})
        assert name == "preset" or repr(make_config(dataclasses.asdict(config))) == repr(config)
    else:
        assert message.startswith(f"{name} must be ")


# The store. Gradients are small whole numbers and the learning rate is a power of two, so that
# sums are exact in whatever order.

LEARNING_RATE = 2.0**-3
OPTIMIZER = make_optimizer("sgd", schedule=lambda _: LEARNING_RATE, momentum=0.0)
APPLY_GRADIENTS = make_apply_gradients(OPTIMIZER)  # compiled once, at the first push


class Pushes(NamedTuple):
    """What N threads push, K times each: `grads` [N, K, 3] with `frames` [N, K].

    `is_finite` [N, K] keeps what the store must take. A thread pulls before its first push, and
    before those where `pulls` [N, K] holds; the others are of the version that it pulled last.
    """

    grads: np.ndarray
    frames: np.ndarray
    is_finite: np.ndarray
    pulls: np.ndarray


class Sent(NamedTuple):
    """The version that a gradient was said to be of, and what the store answered."""

    version: int
    receipt: Receipt


@st.composite
def pushes(draw, share_of_bad):
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    # One number decides the arrays: element by element, most would be drawn alike.
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grads = rng.integers(-8, 9, (*shape, 3)).astype(np.float32)
    is_finite = rng.random(shape) >= share_of_bad
    grads[~is_finite, rng.integers(3)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    frames, pulls = rng.integers(1, 1000, shape), rng.random(shape) < draw(st.floats(0, 1))
    return Pushes(grads, frames, is_finite, pulls)


INITIAL = np.array([0.5, -2.0, 1024.0], np.float32)


def make_store():
    params = {"w": jnp.asarray(INITIAL[:2]), "b": jnp.asarray(INITIAL[2])}
    return SharedParameters(LearnerState(params, OPTIMIZER.init(params)), APPLY_GRADIENTS)


def push_all(drawn, stores):
    """Each thread pushes its row to its store; returns what each sent, in its order."""
    sent = [[] for _ in stores]

    def run(index):
        version = stores[index].pull().version
        for k in range(drawn.frames.shape[1]):
            if drawn.pulls[index, k]:
                version = stores[index].pull().version
            grad, num_frames = drawn.grads[index, k], int(drawn.frames[index, k])
            receipt = stores[index].push({"w": grad[:2], "b": grad[2]}, num_frames, version)
            sent[index].append(Sent(version, receipt))

    run_in_threads([lambda i=i: run(i) for i in range(len(stores))])
    return sent


def check_books(drawn, store, sent):
    """Every finite gradient is in the parameters once, and every receipt tells the truth."""
    rows = [
        (item.receipt, item.version, int(drawn.frames[index, k]), bool(drawn.is_finite[index, k]))
        for index, row in enumerate(sent)
        for k, item in enumerate(row)
    ]
    assert [receipt.is_refused for receipt, *_ in rows] == [not finite for *_, finite in rows]
    taken = sorted((receipt.version, receipt, frames) for receipt, _, frames, ok in rows if ok)
    assert [version for version, *_ in taken] == list(range(1, int(drawn.is_finite.sum()) + 1))
    frames_after = [0, *np.cumsum([frames for *_, frames in taken]).tolist()]
    for receipt, pushed_version, _, finite in rows:
        assert receipt.num_frames == frames_after[receipt.version]
        assert receipt.staleness == receipt.version - finite - pushed_version
        assert receipt.staleness >= 0

    state, snapshot = store.read()
    assert (snapshot.version, snapshot.num_frames) == (len(taken), frames_after[-1])
    assert snapshot.num_frames == drawn.frames[drawn.is_finite].sum()
    expected = INITIAL - LEARNING_RATE * drawn.grads[drawn.is_finite].sum(axis=0)
    np.testing.assert_array_equal(snapshot.params["w"], expected[:2])
    np.testing.assert_array_equal(snapshot.params["b"], expected[2])
    assert state.params is snapshot.params


@pytest.fixture(scope="module")
def hectic_threads():
    """Lets threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hectic_threads")
@given(pushes(share_of_bad=0.0))
def test_n_threads_of_k_pushes_make_n_times_k_versions(drawn):
    store = make_store()
    sent = push_all(drawn, [store] * len(drawn.frames))
    assert store.pull().version == drawn.frames.size
    check_books(drawn, store, sent)


@pytest.mark.usefixtures("hectic_threads")
@given(pushes(share_of_bad=0.3))
def test_gradients_that_are_not_finite_are_in_no_version(drawn):
    store = make_store()
    check_books(drawn, store, push_all(drawn, [store] * len(drawn.frames)))


def push_in_turns(drawn):
    store = make_store()
    sent = push_all(drawn, take_turns(store, len(drawn.frames), threading.Event()))
    check_books(drawn, store, sent)
    return sent


def without_seconds(sent):
    return [
        [(item.version, item.receipt._replace(wait_seconds=0, hold_seconds=0)) for item in row]
        for row in sent
    ]


@pytest.mark.usefixtures("hectic_threads")
@settings(max_examples=12)
@given(pushes(share_of_bad=0.0))
def test_in_turns_the_order_of_versions_is_fixed(drawn):
    N, K = drawn.frames.shape
    drawn = drawn._replace(pulls=np.ones((N, K), bool))
    sent = push_in_turns(drawn)
    for index in range(N):
        assert [item.version for item in sent[index]] == [N * k for k in range(K)]
        assert [item.receipt.version for item in sent[index]] == [
            N * k + index + 1 for k in range(K)
        ]
        assert {item.receipt.staleness for item in sent[index]} == {index}


@pytest.mark.usefixtures("hectic_threads")
@settings(max_examples=12)
@given(pushes(share_of_bad=0.3))
def test_in_turns_receipts_are_the_same_every_time(drawn):
    # Refused gradients shift the versions, pulls left out make them stale: the same each time.
    assert without_seconds(push_in_turns(drawn)) == without_seconds(push_in_turns(drawn))
