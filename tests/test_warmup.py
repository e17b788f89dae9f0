"""Compiling ahead of time, and what is said about a BLAS that runs below the CPU's width."""

import os
import subprocess
import sys

import pytest

import fastmlp
from fastmlp import backends
from fastmlp.backends.numpy import narrow_kernels

PROGRAM = """
import sys
import numpy as np
import fastmlp
from fastmlp.backends import compiled
fastmlp.warmup((70, 120, 3), backend="numba", threads=2)
kept = compiled.epoch_in_tiles, compiled.epoch_in_phases, compiled.evaluate, compiled.outputs
before = [len(function.signatures) for function in kept]
assert all(before), "a loop was not compiled"
rng = np.random.default_rng(0)
X, y = rng.random((2100, 70), np.float32), rng.integers(0, 3, 2100)
for rows in (X, np.where(X < 0.9, np.float32(0), X)):
    for batch in (1, "full"):
        model = fastmlp.train(rows, y, hidden=120, epochs=1, backend="numba", threads=2, batch_size=batch,
                              validation=(rows, y), progress=False)
        model.predict(rows)
assert before == [len(function.signatures) for function in kept], "something was left to compile"
"""


def test_nothing_is_left_to_compile_after_a_warmup():
    if isinstance(loaded := backends.load("numba"), str):
        pytest.skip(f"numba: {loaded}")
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_warmup_gives_the_seconds_it_took_and_refuses_as_train_does():
    assert 0 < fastmlp.warmup((4, 3), backend="numpy") < 10
    with pytest.raises(fastmlp.OptionError, match="precision: the numpy backend cannot compute in bfloat16"):
        fastmlp.warmup((4, 3), backend="numpy", precision="bfloat16")
    with pytest.raises(fastmlp.OptionError, match="optimizer: expected one of"):
        fastmlp.warmup((4, 3), backend="numpy", optimizer="rmsprop")


def asked(core):
    """What narrow_kernels says in a process whose OpenBLAS was told to take the kernels of `core`."""
    program = "from fastmlp.backends.numpy import narrow_kernels; print(narrow_kernels())"
    environment = {**os.environ, "OPENBLAS_CORETYPE": core}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_narrow_kernels_are_named_with_the_remedy():
    import numpy as np
    from threadpoolctl import threadpool_info

    blas = [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]
    if not blas or "X86_V4" not in np.show_config(mode="dicts")["SIMD Extensions"]["found"]:
        pytest.skip("needs OpenBLAS and a CPU with AVX-512")
    assert "its Haswell kernels of 256 bits" in asked("Haswell")
    assert "OPENBLAS_CORETYPE=SkylakeX" in asked("Haswell")
    assert asked("SkylakeX") == "None"


def test_other_cpus_get_no_hint(monkeypatch):
    import numpy as np

    monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": {"found": ["X86_V3"]}})
    assert narrow_kernels() is None


@pytest.mark.parametrize("threads", [0, -1])
def test_an_impossible_number_of_threads_is_refused(threads):
    with pytest.raises(fastmlp.OptionError, match="threads: expected a whole number from 1, or None"):
        fastmlp.warmup((4, 3), backend="numpy", threads=threads)
