"""When CuPy or Numba is missing or broken: the reason is told, and the next backend runs."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

import numpy as np
import pytest

from fastmlp import train
from fastmlp.backends import available, load, select
from fastmlp.errors import BackendFallbackWarning, BackendUnavailable


def missing(fresh):
    fresh.setitem(sys.modules, "cupy", None)  # what Python makes of a package that is not installed


def broken(fresh):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("CuPy is not correctly installed")

    fresh.setitem(sys.modules, "cupy", Broken("cupy"))


def driverless(fresh):
    cupy = fresh.cupy

    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    fresh.setattr(cupy.cuda.runtime, "getDeviceCount", no_driver)


def deviceless(fresh):
    fresh.setattr(fresh.cupy.cuda.runtime, "getDeviceCount", lambda: 0)


def miscalculating(fresh):
    from fastmlp.kernels.cuda import products

    multiply = products.Products.multiply

    def wrong(self, a_turned, b_turned, a, b, out, *numbers):
        multiply(self, a_turned, b_turned, a, b, out, *numbers)
        out[-1, -1] = 1

    fresh.setattr(products.Products, "multiply", wrong)


def uncompiled(fresh):
    from fastmlp.kernels.cuda import nvrtc

    fresh.setattr(nvrtc, "source", lambda name: "not C++")


TROUBLES = {
    missing: "ModuleNotFoundError: import of cupy halted",
    broken: "RuntimeError: CuPy is not correctly installed",
    driverless: "cudaErrorInsufficientDriver",
    deviceless: "no CUDA device",
    miscalculating: "the GPU gave a wrong product",
    uncompiled: "the kernels do not compile",
}


@pytest.fixture(params=TROUBLES, ids=lambda trouble: trouble.__name__)
def reason(request, cupy, fresh) -> str:
    """CuPy is in trouble; the reason that must be told."""
    fresh.cupy = cupy
    request.param(fresh)
    return TROUBLES[request.param]


def test_load_tells_why_cupy_cannot_be_used(reason):
    assert reason in load("cupy")


def test_asking_for_it_warns_once_and_takes_a_cpu_backend(reason):
    with pytest.warns(BackendFallbackWarning) as caught:
        selection = select("cupy")
    assert selection.backend.name in ("numba", "numpy")
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert f"{selection.backend.name} runs instead" in str(caught[0].message)
    assert reason in selection.reason


def test_asking_for_it_strictly_raises(reason):
    with pytest.raises(BackendUnavailable) as caught:
        select("cupy", strict=True)
    assert reason in str(caught.value)


def test_training_falls_back_with_one_warning_and_the_right_report(reason):
    X, y = np.eye(4, dtype=np.float32), [0, 1, 0, 1]
    with pytest.warns(BackendFallbackWarning) as caught:
        report = train(X, y, backend="cupy", epochs=1, progress=False).report
    assert len(caught) == 1
    assert (report.requested, report.backend) == ("cupy", "numba")
    assert reason in report.reason
    with pytest.raises(BackendUnavailable) as refused:
        train(X, y, backend="cupy", epochs=1, strict=True, progress=False)
    assert reason in str(refused.value)


def test_auto_passes_over_it_in_silence(reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection = select("auto")
    assert selection.backend.name in ("numba", "numpy")
    assert reason in selection.reason


def test_available_lists_the_reason(reason):
    row = available()[0]
    assert (row.name, row.usable) == ("cupy", False)
    assert reason in row.reason


def test_working_cupy_is_taken(cupy):
    assert load("cupy").name == "cupy"
    assert select("auto").backend is select("cupy", strict=True).backend is load("cupy")
    assert available()[0] == ("cupy", True, "Emulated card, 3 GiB, compute capability 9.0")


def test_probe_runs_once_in_a_process(cupy):
    load("cupy")
    launches = cupy.launches
    for _ in range(3):
        select("cupy")
    assert cupy.launches == launches


def test_without_numba_numpy_runs(fresh):
    fresh.setitem(sys.modules, "numba", None)
    assert "import of numba halted" in load("numba")
    with pytest.warns(BackendFallbackWarning, match="numba is not usable .*: numpy runs instead"):
        assert select("numba").backend.name == "numpy"
    with pytest.raises(BackendUnavailable, match="numba"):
        select("numba", strict=True)


def test_training_without_numba_falls_back_too(fresh):
    fresh.setitem(sys.modules, "numba", None)
    with pytest.warns(BackendFallbackWarning) as caught:
        report = train(np.eye(4, dtype=np.float32), [0, 1, 0, 1], backend="numba", epochs=1, progress=False).report
    assert len(caught) == 1
    assert (report.requested, report.backend) == ("numba", "numpy")
    assert "import of numba halted" in report.reason


def test_a_numba_that_cannot_compile_is_told_of(fresh):
    import numba

    def broken(*args, **options):
        raise RuntimeError("LLVM is out of order")

    fresh.setattr(numba, "njit", broken)
    assert "LLVM is out of order" in load("numba")


def test_stand_in_refuses_to_mix_with_numpy(cupy):
    """CuPy raises where host and device arrays meet; so must its stand-in, or the tests here prove nothing."""
    array, host = cupy.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    for mix in (
        lambda: host + array,
        lambda: array + host,
        lambda: np.dot(host, array),
        lambda: np.asarray(array),
        lambda: array[host.astype(int)],
        lambda: array.set(array),
    ):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(TypeError, match="implicitly"):
        array[:] = host


def test_stand_in_refuses_what_a_kernel_would_misread(cupy):
    code = 'extern "C" __global__ void f(REAL* x, int n) { x[n] = 0; }'
    f = cupy.RawModule(code=code, options=("-DREAL=float",)).get_function("f")
    x = cupy.zeros((2, 3), np.float32)
    f((1,), (1,), (x, np.int32(5)))
    for arguments in ((x, 5), (x, np.int64(5)), (cupy.zeros(6), np.int32(5)), (x.get(), np.int32(5)), (x,)):
        with pytest.raises(TypeError, match="f: "):
            f((1,), (1,), arguments)
    with pytest.raises(ValueError, match="C-ordered"):
        f((1,), (1,), (x[:, :2], np.int32(0)))
    with pytest.raises(RuntimeError, match="wrote outside argument 0"):
        f((1,), (1,), (x, np.int32(6)))
