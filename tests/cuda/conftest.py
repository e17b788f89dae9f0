"""Fixtures: the CuPy backend over a stand-in for CuPy, whose kernels run on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import fake_cupy
import pytest

import fastmlp.backends

# What keeps what it imported of cupy or numba.
BOUND = ("fastmlp.backends.cupy", "fastmlp.backends.numba", "fastmlp.kernels.cuda.tensor", "fastmlp.kernels.cuda")


def forget() -> None:
    """Unload what is bound to the cupy and numba of this moment; it is imported again where it is needed."""
    fastmlp.backends.load.cache_clear()
    for name in [name for name in sys.modules if name.startswith(BOUND)]:
        package, _, module = name.rpartition(".")
        del sys.modules[name]
        vars(sys.modules.get(package, fastmlp)).pop(module, None)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No backend is loaded yet: the test may put any module in the place of cupy or numba."""
    forget()
    yield monkeypatch
    forget()


@pytest.fixture
def cupy(fresh: pytest.MonkeyPatch):
    """The stand-in for CuPy, in its place."""
    if fake_cupy.COMPILER is None:
        pytest.skip("no C++ compiler to run the CUDA kernels on the CPU: install g++, or name one in CXX")
    for name, module in {"cupy": fake_cupy, **fake_cupy.MODULES}.items():
        fresh.setitem(sys.modules, name, module)
    return fake_cupy


@pytest.fixture
def emulated(cupy):
    """The CuPy backend, probed and ready, over the stand-in."""
    from fastmlp.backends.cupy import CupyBackend

    return CupyBackend()
