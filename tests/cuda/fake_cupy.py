"""A stand-in for CuPy on the CPU: device arrays that refuse to mix with NumPy's, and kernels that run under cuemu.h.

It has only what a backend needs, and is stricter than CuPy: a kernel's arguments must have exactly the types of its
parameters, products take C-ordered operands and write into `out`, new memory is NaN, memory is guarded on both sides.
Reads by the host are counted in `host_reads`.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

__version__ = "0.0-emulated"

COMPILER = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
GUARD = 64  # bytes before and behind every array that no kernel may write
POISON = 0xFF  # as a float a NaN, as an index -1
TYPES = {
    "unsigned char": np.uint8, "int": np.int32, "long long": np.int64, "float": np.float32, "double": np.float64,
    "Half": np.float16
}  # fmt: skip

host_reads = 0  # copies to the host: on a GPU each one waits
launches = 0  # also the seed of the order in which threads run: no two launches have the same


class ndarray:
    """An array on the device: a NumPy array that only this module may touch."""

    def __init__(self, values: np.ndarray, memory: np.ndarray) -> None:
        self.values, self.memory = values, memory

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    flags = property(lambda self: self.values.flags)

    def __len__(self) -> int:
        return len(self.values)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self.values.reshape(*shape, copy=False), self.memory)

    def __getitem__(self, index: object) -> ndarray:
        if isinstance(index, ndarray):
            return asarray(self.values[index.values])
        index = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(i, int | slice) for i in index):
            raise TypeError(f"a device array is indexed by integers, slices or a device array; got {index}")
        return ndarray(self.values[(*index, ...)], self.memory)

    def __setitem__(self, index: object, value: object) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("a NumPy array is not copied to the device implicitly")
        self[index].values[...] = value.values if isinstance(value, ndarray) else value

    def copy(self) -> ndarray:
        return asarray(self.values)

    def get(self) -> np.ndarray:
        global host_reads
        host_reads += 1
        return self.values.copy()

    def item(self) -> object:
        return self.get().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def empty(shape: int | tuple[int, ...], dtype: object = np.float64) -> ndarray:
    """A new array full of poison."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 2 * GUARD, POISON, np.uint8)
    return ndarray(memory[GUARD : GUARD + size].view(dtype).reshape(shape), memory)


def zeros(shape: int | tuple[int, ...], dtype: object = np.float64) -> ndarray:
    array = empty(shape, dtype)
    array.values[...] = 0
    return array


def asarray(source: object, order: str = "C") -> ndarray:
    if isinstance(source, ndarray):
        return source
    source = np.asarray(source)
    array = empty(source.shape, source.dtype)
    array.values[...] = source
    return array


def asnumpy(array: ndarray) -> np.ndarray:
    return array.get()


def gemm(
    transa: str, transb: str, a: ndarray, b: ndarray, out: ndarray | None = None, alpha: float = 1.0, beta: float = 0.0
) -> ndarray:
    """out = alpha op(a) op(b) + beta out. With beta = 0 the values of out are not read, as in BLAS."""
    if not all(isinstance(array, ndarray) for array in (a, b, out)):
        raise TypeError("gemm: expected device arrays for a, b and out")
    if a.dtype not in (np.float32, np.float64) or not a.dtype == b.dtype == out.dtype:
        raise TypeError(f"gemm: expected one floating type, got {a.dtype}, {b.dtype}, {out.dtype}")
    if not all(array.flags.c_contiguous for array in (a, b, out)):
        raise ValueError("gemm: expected C-ordered arrays")
    left = {"N": a.values, "T": a.values.T}[transa]
    right = {"N": b.values, "T": b.values.T}[transb]
    product = a.dtype.type(alpha) * (left @ right)
    if product.shape != out.shape:
        raise ValueError(f"gemm: expected out of shape {product.shape}, got {out.shape}")
    out.values[...] = product if beta == 0 else product + a.dtype.type(beta) * out.values
    return out


class RawModule:
    """CUDA C++ text, compiled behind cuemu.h."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
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
        global launches
        launches += 1
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError(f"{self.name}: {shared_mem} bytes of shared memory were not asked for")
        if len(arguments) != len(self.signature):
            raise TypeError(f"{self.name}: expected {len(self.signature)} arguments, got {len(arguments)}")
        held = [self.held(i, *pair) for i, pair in enumerate(zip(arguments, self.signature, strict=True))]
        addresses = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        shape = (ctypes.c_uint * 6)(*(max(1, n) for dims in (grid, block) for n in (*dims, 1, 1)[:3]))
        error = self.run(addresses, shape, ctypes.c_uint(launches), ctypes.c_uint(shared_mem))
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")
        for i, array in enumerate(arguments):
            if isinstance(array, ndarray) and not (
                (array.memory[:GUARD] == POISON).all() and (array.memory[-GUARD:] == POISON).all()
            ):
                raise RuntimeError(f"{self.name}: wrote outside argument {i}")

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


PARAMETERS = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)'


def kernel_parameters(code: str) -> dict[str, list[tuple[str, bool]]]:
    """Of every kernel in `code`, by name, the C type of each parameter and whether it is an array of them."""
    code = re.sub(r"//[^\n]*", "", code)
    kernels = {}
    for name, parameters in re.findall(PARAMETERS, code):
        found = (re.fullmatch(r"(?:const )?([\w ]+?)(\*?) \w+", " ".join(p.split())) for p in parameters.split(","))
        kernels[name] = [(match[1], bool(match[2])) for match in found]
    return kernels


@cache
def compile_emulated(code: str, options: tuple[str, ...]) -> tuple[ctypes.CDLL, dict]:
    """The library of `code`, and each kernel's parameters as NumPy types. RuntimeError if it does not compile."""
    kernels = kernel_parameters(code)
    for name, parameters in kernels.items():
        values = ", ".join(f"*({c_type}{'*' * array}*)a[{i}]" for i, (c_type, array) in enumerate(parameters))
        code += (
            f'\nextern "C" const char* run_{name}(void** a, const unsigned* shape, unsigned seed, unsigned shared)'
            f"\n{{ return cuemu::launch([](void** a) {{ {name}({values}); }}, a, shape, seed, shared); }}\n"
        )
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "kernels.so")
        flags = ["-x", "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
        header = Path(__file__).with_name("cuemu.h")
        command = [COMPILER, *flags, "-include", str(header), *options, "-", "-o", str(library)]
        done = subprocess.run(command, input=code, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile:\n{done.stderr}")
        loaded = ctypes.CDLL(str(library))
    real = dict(option[2:].split("=") for option in options)["REAL"]
    types = TYPES | {"REAL": TYPES[real]}
    return loaded, {
        name: tuple((np.dtype(types[c_type]), array) for c_type, array in parameters)
        for name, parameters in kernels.items()
    }


def device_properties(_: int) -> dict:
    return {
        "name": b"Emulated card", "totalGlobalMem": 3 * 2**30, "major": 9, "minor": 0,
        "multiProcessorCount": 3, "sharedMemPerBlockOptin": 227 << 10,
    }  # fmt: skip


cublas = SimpleNamespace(gemm=gemm, getVersion=lambda handle: 130201)
cuda = SimpleNamespace(
    runtime=SimpleNamespace(
        getDeviceCount=lambda: 1, getDeviceProperties=device_properties, runtimeGetVersion=lambda: 13020
    ),
    Device=lambda: SimpleNamespace(id=0),
    cublas=cublas,
    get_cublas_handle=lambda: 1,
)
