"""JAX's settings inside the program and after it, and processes in which JAX cannot compute."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from a3cjax.errors import ConfigError
from a3cjax.system import compilation
from a3cjax.system.compilation import (
    SETTINGS,
    check_jax,
    configure_jax,
    first_alone,
    jax_settings,
)
from tests.fakes import PATIENCE_SECONDS

# What a user might have chosen, of each setting something else than the program needs.
OTHERS = {
    "jax_cpu_enable_async_dispatch": True,
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_high_dynamic_range_gumbel": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_error_checking_behavior_nan": "raise",
    "jax_default_device": "cpu",
    "jax_transfer_guard_host_to_device": "disallow",
    "jax_transfer_guard_device_to_device": "log",
    "jax_transfer_guard_device_to_host": "disallow",
    # Which the program leaves alone, or chooses where nobody did.
    "jax_numpy_rank_promotion": "warn",
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 7.0,
}


def values():
    """All settings of the process, as text: some are enumerations."""
    return {name: str(value) for name, value in compilation._values_of_process().items()}


@pytest.fixture
def others(tmp_path, monkeypatch):
    """JAX as somebody else has set it; its own cache of compiled programs lies in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = compilation._values_of_process()
    before = {name: known[name] for name in OTHERS if name in known}
    with contextlib.ExitStack() as stack:
        for name, value in before.items():
            stack.callback(jax.config.update, name, value)
            jax.config.update(name, OTHERS[name])
        stack.callback(compilation_cache.reset_cache)
        compilation_cache.reset_cache()
        yield values()


def as_needed():
    found = compilation._values_of_process()
    return all(found[name] == SETTINGS[name] for name in SETTINGS if name in found)


def test_each_setting_is_tried_with_another_value():
    assert OTHERS.keys() > SETTINGS.keys()
    assert all(OTHERS[name] != value for name, value in SETTINGS.items())


@pytest.mark.parametrize("failure", [None, OSError, KeyboardInterrupt])
def test_settings_hold_inside_and_are_as_they_were_after_it(others, failure, tmp_path):
    with pytest.raises(failure) if failure else contextlib.nullcontext(), jax_settings():
        assert as_needed()
        assert jax.config.values["jax_numpy_rank_promotion"] == "warn"
        assert jax.config.values["jax_compilation_cache_dir"].startswith(str(tmp_path))
        assert jnp.asarray(1.0).dtype == np.float32
        if failure:
            raise failure
    assert values() == others


def test_a_folder_for_compiled_programs_that_somebody_chose_is_left_alone(others, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    with jax_settings():
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
        assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 7.0


def test_programs_compiled_after_it_are_not_kept(others, tmp_path):
    with jax_settings():
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.jit(lambda x: x * 3 + 1)(np.float32(2)).block_until_ready()
    kept = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert kept
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_transfer_guard_host_to_device", None)
    jax.config.update("jax_debug_nans", False)
    jax.jit(lambda x: x * 5 + 1)(np.float32(2)).block_until_ready()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_an_entry_that_another_process_has_written_in_part_is_compiled_anew(others, tmp_path):
    def compute():
        with jax_settings():
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            return float(jax.jit(lambda x: x * 7 + 1)(np.float32(2)))

    assert compute() == 15
    entries = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[:40])
    jax.clear_caches()
    assert compute() == 15  # and, as warnings are errors here, without a word


def test_settings_of_the_calling_thread_alone_do_not_reach_the_program(others):
    with jax.enable_x64(True), jax.default_prng_impl("unsafe_rbg"), jax.debug_nans(True):
        with jax_settings():
            assert jnp.asarray(1.0).dtype == np.float32
            assert str(jax.random.key_impl(jax.random.key(0))) == "threefry2x32"
            assert as_needed()
        assert jax.config.values["jax_default_prng_impl"] == "unsafe_rbg"
        assert values() == others
    assert values() == others


def test_the_last_of_nested_and_concurrent_blocks_brings_back_what_was_before_the_first(others):
    is_open, may_end = threading.Event(), threading.Event()

    def run():
        with jax_settings():
            is_open.set()
            may_end.wait(PATIENCE_SECONDS)

    with contextlib.ExitStack() as stack:
        stack.callback(may_end.set)
        with jax_settings():
            with jax_settings():
                thread = threading.Thread(target=run)
                thread.start()
                assert is_open.wait(PATIENCE_SECONDS)
            assert as_needed()
        assert as_needed()
    thread.join(PATIENCE_SECONDS)
    assert values() == others


def test_configure_jax_sets_them_for_good(others):
    configure_jax()
    assert as_needed()


def test_without_a_device_settings_are_as_they_were(others, monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(ConfigError, match=r"^JAX finds no device"), jax_settings():
        raise RuntimeError("not reached")
    assert values() == others


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_platform_without_a_device_is_a_line():
    code, out, _ = run_python(
        "import sys; sys.stderr = sys.stdout\n"
        "from a3cjax.commands import main\n"
        "main(['evaluate', 'pong'])",
        JAX_PLATFORMS="cuda",
        CUDA_VISIBLE_DEVICES="",
    )
    assert code == 2
    assert out.splitlines()[-1] == "error: JAX finds no device for JAX_PLATFORMS=cuda."


FORKS = """
import multiprocessing, sys
import jax.numpy as jnp
from a3cjax.system.compilation import check_jax, jax_settings

def attempt(_):
    try:
        with jax_settings():
            return float(jnp.ones(2).sum())
    except Exception as error:
        return type(error).__name__ + ": " + str(error)

def tell(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        print(pool.map_async(attempt, [0]).get(timeout=100))

if __name__ == "__main__":
    tell("fork")  # before JAX is used: its own JAX
    jnp.ones(2)  # by somebody else than a3cjax
    tell("fork")
    tell("forkserver")
"""


def test_a_process_forked_from_one_that_used_jax_is_told_so(tmp_path):
    path = tmp_path / "forks.py"
    path.write_text(FORKS)
    code, out, err = run_python(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')")
    assert code == 0, err
    before, forked, served = out.splitlines()
    assert (before, served) == ("[2.0]", "[2.0]")
    assert forked.startswith("['ConfigError: This process was forked from process ")
    assert 'get_context("spawn") or "forkserver"' in forked


def test_jax_can_compute_here():
    check_jax()


def test_program_is_called_alone_by_each_thread_the_first_time_only():
    inside, most, met = [], [], threading.Barrier(2, timeout=PATIENCE_SECONDS)

    @first_alone
    def program(meets):
        inside.append(None)
        most.append(len(inside))
        if meets:
            met.wait()
        else:
            time.sleep(0.1)
        inside.pop()
        return len(most)

    def call_twice():
        assert program(False)
        program(meets=True)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(call_twice) for _ in range(2)]:
            future.result()
    assert most[:2] == [1, 1]
    assert max(most) == 2
