"""A stand-in for CuPy on the CPU: device arrays that refuse to mix with NumPy's, and kernels that run under cuemu.h.

It has only what a backend needs, and is stricter than CuPy: a kernel's arguments must have exactly the types of its
parameters. fake_array.py has its arrays, fake_card.py its memory and streams, cuemu.py compiles its kernels. cuBLAS is
fake_cublas.cpp, called by its C interface.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import fake_card
import numpy as np
from cuemu import blas, compile_emulated
from fake_array import arange, asarray, ascontiguousarray, asnumpy, empty, from_dlpack, ndarray, zeros
from fake_card import GUARD, POISON, Device, OutOfMemoryError, Stream

__all__ = [
    "RawModule", "arange", "asarray", "ascontiguousarray", "asnumpy", "cuda", "empty", "from_dlpack",
    "get_default_memory_pool", "ndarray", "zeros",
]  # fmt: skip
__version__ = "0.0-emulated"

launches = 0  # also the seed of the order in which threads run: no two launches have the same
freed = 0  # calls of free_all_blocks


class RawModule:
    """CUDA C++ text, compiled behind cuemu.h."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        if Stream.capturing is not None:
            raise RuntimeError("a module is loaded while a stream is captured")
        self.library, self.signatures = compile_emulated(code, tuple(options))

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(name, getattr(self.library, f"run_{name}"), self.signatures[name])


class RawKernel:
    """One kernel. Called with grid, block and arguments, as CuPy's."""

    def __init__(self, name: str, run: object, signature: tuple[tuple[np.dtype, bool], ...]) -> None:
        self.name, self.run, self.signature = name, run, signature
        run.restype = ctypes.c_char_p

    max_dynamic_shared_size_bytes = 48 << 10  # what a card grants unasked

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple, *, shared_mem: int = 0) -> None:
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError(f"{self.name}: {shared_mem} bytes of shared memory were not asked for")
        if len(arguments) != len(self.signature):
            raise TypeError(f"{self.name}: expected {len(self.signature)} arguments, got {len(arguments)}")
        held = [self.held(i, *pair) for i, pair in enumerate(zip(arguments, self.signature, strict=True))]
        addresses = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        shape = (ctypes.c_uint * 6)(*(max(1, n) for dims in (grid, block) for n in (*dims, 1, 1)[:3]))

        def run() -> None:
            global launches
            launches += 1
            for array in arguments:
                if isinstance(array, ndarray):
                    array.memory.touch(self.name)
            error = self.run(addresses, shape, ctypes.c_uint(launches), ctypes.c_uint(shared_mem))
            if error:
                raise RuntimeError(f"{self.name}: {error.decode()}")
            for i, array in enumerate(arguments):
                if isinstance(array, ndarray) and not (
                    (array.memory.bytes[:GUARD] == POISON).all() and (array.memory.bytes[-GUARD:] == POISON).all()
                ):
                    raise RuntimeError(f"{self.name}: wrote outside argument {i}")

        run.keep = held  # the bytes that `addresses` point to
        if Stream.capturing is None:
            run()
        else:
            Stream.capturing.append(run)

    def held(self, i: int, argument: object, parameter: tuple[np.dtype, bool]) -> np.ndarray:
        """The bytes that the kernel reads as its parameter `i`: a number, or the address of an array."""
        dtype, is_array = parameter
        if is_array and isinstance(argument, np.uint64) and argument == 0:
            return np.array(argument)  # no array
        expected = ndarray if is_array else np.generic  # a number of Python has no width
        if not isinstance(argument, expected) or argument.dtype != dtype:
            raise TypeError(f"{self.name}: argument {i} must be {dtype} {expected.__name__}, got {argument!r}")
        if not is_array:
            return np.array(argument)
        if not argument.flags.c_contiguous:
            raise ValueError(f"{self.name}: argument {i} is not C-ordered")
        return np.array(argument.values.ctypes.data, np.uint64)


POINTER, NUMBER = "pointer", "int"
GEMM_EX = [POINTER, *[NUMBER] * 5, POINTER, POINTER, NUMBER, NUMBER, POINTER, NUMBER, NUMBER, POINTER, POINTER]
GEMM_EX += [NUMBER] * 4


def gemm_ex(handle: int, *arguments: int) -> None:
    """CuPy's binding: on its own handle, and refused while a stream is captured."""
    if Stream.capturing is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    function = ctypes.CDLL(blas()._name).cublasGemmEx
    function.argtypes = [ctypes.c_void_p if kind is POINTER else ctypes.c_int for kind in GEMM_EX]
    if status := function(handle, *arguments):
        raise RuntimeError(f"CUBLAS_STATUS {status}")


class PinnedMemory(bytearray):
    """Host memory that the card can read while the host goes on."""


def device_properties(_: int) -> dict:
    return {
        "name": b"Emulated card", "totalGlobalMem": 3 * 2**30, "major": 9, "minor": 0,
        "multiProcessorCount": 3, "sharedMemPerBlockOptin": 227 << 10,
    }  # fmt: skip


def free_all_blocks() -> None:
    global freed
    freed += 1


cuda = SimpleNamespace(
    runtime=SimpleNamespace(
        getDeviceCount=lambda: fake_card.DEVICES, getDeviceProperties=device_properties, runtimeGetVersion=lambda: 13020
    ),
    Device=Device,
    Stream=Stream,
    get_current_stream=lambda: Stream.current,
    cublas=SimpleNamespace(getVersion=lambda handle: 130201),
    get_cublas_handle=lambda: 1,
    alloc_pinned_memory=PinnedMemory,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
)


def get_default_memory_pool() -> SimpleNamespace:
    return SimpleNamespace(free_all_blocks=free_all_blocks)


MODULES = {  # what else stands in sys.modules beside "cupy"
    "cuda.pathfinder": SimpleNamespace(
        load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path={"cublas": blas()._name}[name])
    ),
    "cupy_backends.cuda.libs": SimpleNamespace(cublas=SimpleNamespace(gemmEx=gemm_ex)),
}
