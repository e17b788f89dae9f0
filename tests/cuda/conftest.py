"""Fixtures: the CuPy backend over a stand-in for CuPy, whose kernels run on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cuemu
import fake_cupy
import pytest

import fastmlp.backends
from fastmlp.backends.base import Backend

# What keeps what it imported of cupy or numba.
BOUND = ("fastmlp.backends.cupy", "fastmlp.backends.numba", "fastmlp.kernels.cuda")


def forget() -> None:
    """Unload what is bound to the cupy and numba of this moment; it is imported again where it is needed."""
    fastmlp.backends.load.cache_clear()
    for name in [name for name in sys.modules if name.startswith(BOUND)]:
        package, _, module = name.rpartition(".")
        del sys.modules[name]
        vars(sys.modules.get(package, fastmlp)).pop(module, None)


def launch_in_turn(kernel, grid: tuple, block: tuple, arguments: tuple, shared: int) -> None:
    """What `launch_early` does where no two kernels run at once."""
    kernel(grid, block, arguments, shared_mem=shared)


def take_place(patch: pytest.MonkeyPatch):
    """Put the stand-in for CuPy in its place."""
    if cuemu.COMPILER is None:
        pytest.skip("no C++ compiler to run the CUDA kernels on the CPU: install g++, or name one in CXX")
    for name, module in {"cupy": fake_cupy, **fake_cupy.MODULES}.items():
        patch.setitem(sys.modules, name, module)
    from fastmlp.kernels.cuda import early, products

    patch.setattr(early, "launch_early", launch_in_turn)
    patch.setattr(products, "WORKSPACE", {True: 2**10, False: 2**10})  # the stand-in for cuBLAS needs none
    return fake_cupy


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No backend is loaded yet: the test may put any module in the place of cupy or numba."""
    forget()
    yield monkeypatch
    forget()


@pytest.fixture
def cupy(fresh: pytest.MonkeyPatch):
    """The stand-in for CuPy, in its place, for a test that changes what is around it."""
    return take_place(fresh)


@pytest.fixture(scope="module")
def emulated() -> Iterator[Backend]:
    """The CuPy backend, probed and ready, over the stand-in, for the tests of a file."""
    forget()
    with pytest.MonkeyPatch.context() as patch:
        take_place(patch)
        from fastmlp.backends.cupy import CupyBackend

        yield CupyBackend()
    forget()
