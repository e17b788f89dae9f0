"""A stand-in for CuPy on the CPU: device arrays that refuse to mix with NumPy's, and kernels that run under cuemu.h.

It has only what a backend needs, and is stricter than CuPy: a kernel's arguments must have exactly the types of its
parameters, new memory is NaN, memory is guarded on both sides, and what one stream wrote another may not touch before
it waits. While a stream is captured nothing is allocated or copied: launches are kept, and run when the graph is
launched. Reads by the host are counted in `host_reads`. cuBLAS is fake_cublas.cpp, called by its C interface.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

__version__ = "0.0-emulated"

COMPILER = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
GUARD = 1024  # bytes before and behind every array that no kernel may write
POISON = 0xFF  # as a float a NaN, as an index -1
TYPES = {
    "unsigned char": np.uint8, "int": np.int32, "long long": np.int64, "unsigned long long": np.uint64,
    "float": np.float32, "double": np.float64, "f16": np.float16, "bf16": np.uint16,
}  # fmt: skip

host_reads = 0  # copies to the host: on a GPU each one waits
launches = 0  # also the seed of the order in which threads run: no two launches have the same
ticks = 0  # counts what is done on any stream
memory_limit = 2**40  # bytes that the card has; a test may lower it
memory_used = 0


class OutOfMemoryError(MemoryError):
    """What CuPy raises where the card has no room."""


class Memory:
    """Guarded bytes, and what touched them last."""

    def __init__(self, size: int) -> None:
        global memory_used
        if Stream.capturing:
            raise RuntimeError("memory is allocated while a stream is captured: the graph would keep its address")
        if memory_used + size > memory_limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {memory_used:,} bytes)."
            )
        memory_used += size
        self.size = size
        self.bytes = np.full(size + 2 * GUARD, POISON, np.uint8)
        self.last: tuple[Stream, int] | None = None

    def __del__(self) -> None:
        global memory_used
        memory_used -= getattr(self, "size", 0)

    def touch(self, by: str) -> None:
        """The current stream reads or writes here. RuntimeError if another stream may not be done yet."""
        global ticks
        ticks += 1
        stream = Stream.current
        if self.last and self.last[0] is not stream:
            other, tick = self.last
            if max(stream.seen.get(id(other), 0), other.done) < tick:
                raise RuntimeError(f"{by}: another stream may still be at work on this array")
        self.last = stream, ticks


class Event:
    """A place in a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.tick, self.seen = stream, ticks, dict(stream.seen)

    def synchronize(self) -> None:
        self.stream.done = max(self.stream.done, self.tick)


class Stream:
    """An order of work. Everything runs at once; only the promises of order are kept track of."""

    null: Stream
    current: Stream
    capturing: list[Callable[[], object]] | None = None

    def __init__(self, *, non_blocking: bool = False) -> None:
        self.ptr = id(self) if non_blocking else 0
        self.seen: dict[int, int] = {}  # of other streams, up to which tick this one has waited for them
        self.done = 0  # the host has waited for all up to this tick
        self.outer: list[Stream] = []

    def __enter__(self) -> Stream:
        self.outer.append(Stream.current)
        Stream.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current = self.outer.pop()

    def record(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        for other, tick in {**event.seen, id(event.stream): event.tick}.items():
            self.seen[other] = max(self.seen.get(other, 0), tick)

    def synchronize(self) -> None:
        if Stream.capturing is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")
        self.done = ticks

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if Stream.current is not self:
            raise RuntimeError("the captured stream is not the current one")
        Stream.capturing = []
        blas().fake_record(RECORDER)

    def end_capture(self) -> Graph:
        work, Stream.capturing = Stream.capturing, None
        blas().fake_record(ctypes.cast(None, type(RECORDER)))
        return Graph(work)


Stream.null = Stream.current = Stream()


class Graph:
    """Launches that were captured."""

    launched = 0

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = work

    def launch(self) -> None:
        Graph.launched += 1
        for run in self.work:
            run()


def refuse_in_capture(what: str) -> None:
    if Stream.capturing is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")


class ndarray:
    """An array on the device: a NumPy array that only this module may touch."""

    def __init__(self, values: np.ndarray, memory: Memory) -> None:
        self.values, self.memory = values, memory

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    flags = property(lambda self: self.values.flags)
    data = property(lambda self: SimpleNamespace(ptr=self.values.ctypes.data))
    device = property(lambda self: Device(0))

    def __len__(self) -> int:
        return len(self.values)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self.values.reshape(*shape, copy=False), self.memory)

    def view(self, dtype: object) -> ndarray:
        return ndarray(self.values.view(dtype), self.memory)

    def __getitem__(self, index: object) -> ndarray:
        if isinstance(index, ndarray):
            return asarray(self.values[index.values])
        index = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(i, int | np.integer | slice) for i in index):
            raise TypeError(f"a device array is indexed by integers, slices or a device array; got {index}")
        return ndarray(self.values[(*index, ...)], self.memory)

    def __setitem__(self, index: object, value: object) -> None:
        refuse_in_capture("copies")
        if isinstance(value, np.ndarray):
            raise TypeError("a NumPy array is not copied to the device implicitly")
        self.memory.touch("setitem")
        self[index].values[...] = value.values if isinstance(value, ndarray) else value

    def fill(self, value: float) -> None:
        self[:] = value

    def set(self, host: np.ndarray) -> None:
        refuse_in_capture("H2D transfers")
        if not isinstance(host, np.ndarray) or host.dtype != self.dtype or host.shape != self.shape:
            raise TypeError(f"set: expected a NumPy array {self.dtype} {self.shape}, got {host!r:.80}")
        self.memory.touch("set")
        self.values[...] = host

    def copy(self) -> ndarray:
        return asarray(self.values)

    def astype(self, dtype: object, order: str = "K", copy: bool = True) -> ndarray:
        return self if self.dtype == dtype and not copy else asarray(self.values.astype(dtype))

    def take(self, indices: np.ndarray, axis: int) -> ndarray:
        return asarray(self.values.take(indices, axis))

    def max(self) -> ndarray:
        return asarray(self.values.max())

    def all(self) -> ndarray:
        return asarray(self.values.all())

    def __gt__(self, other: float) -> ndarray:
        return asarray(self.values > other)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **_: object) -> ndarray:
        alone = method == "__call__" and len(inputs) == 1  # an operation on this array, which CuPy does on the device
        return asarray(ufunc(self.values)) if alone else NotImplemented

    __cuda_array_interface__ = property(lambda self: {"data": (self.data.ptr, False)})

    def get(self) -> np.ndarray:
        global host_reads
        refuse_in_capture("D2H transfers")
        self.memory.touch("get")
        Stream.current.synchronize()
        host_reads += 1
        return self.values.copy()

    def __str__(self) -> str:
        return str(self.get())

    def item(self) -> object:
        return self.get().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, dl_device: tuple[int, int], copy: bool, **_: object) -> object:
        if dl_device != (1, 0) or not copy:
            raise BufferError("an array on the device reaches the host as a copy only")
        return self.get().__dlpack__()

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def empty(shape: int | tuple[int, ...], dtype: object = np.float64) -> ndarray:
    """A new array full of poison."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = Memory(size)
    return ndarray(memory.bytes[GUARD : GUARD + size].view(dtype).reshape(shape), memory)


def zeros(shape: int | tuple[int, ...], dtype: object = np.float64) -> ndarray:
    array = empty(shape, dtype)
    array.memory.touch("zeros")
    array.values[...] = 0
    return array


def asarray(source: object, order: str = "C") -> ndarray:
    if isinstance(source, ndarray):
        return source
    source = np.asarray(source)
    array = empty(source.shape, source.dtype)
    array.memory.touch("asarray")
    array.values[...] = source
    return array


def arange(n: int, dtype: object) -> ndarray:
    return asarray(np.arange(n, dtype=dtype))


def ascontiguousarray(array: ndarray) -> ndarray:
    return array if array.flags.c_contiguous else asarray(np.ascontiguousarray(array.values))


def from_dlpack(array: object) -> ndarray:
    return array.__dlpack__()


def asnumpy(array: ndarray) -> np.ndarray:
    return array.get()


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


PARAMETERS = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)'


def kernel_parameters(code: str) -> dict[str, list[tuple[str, bool]]]:
    """Of every kernel in `code`, by name, the C type of each parameter and whether it is an array of them."""
    code = re.sub(r"//[^\n]*", "", code)
    kernels = {}
    for name, parameters in re.findall(PARAMETERS, code):
        found = (re.fullmatch(r"(?:const )?([\w ]+?)(\*?) \w+", " ".join(p.split())) for p in parameters.split(","))
        kernels[name] = [(match[1], bool(match[2])) for match in found]
    return kernels


FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC"]


@cache
def header() -> Path:
    """A copy of cuemu.h, which g++ has parsed already: half of what it takes to build a kernel."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    copy = folder / "cuemu.h"
    copy.write_text(Path(__file__).with_name("cuemu.h").read_text().replace("#pragma once", ""))
    subprocess.run([COMPILER, "-x", "c++-header", *FLAGS, str(copy), "-o", f"{copy}.gch"], check=True)
    return copy


def build(code: str, options: tuple[str, ...] = ()) -> ctypes.CDLL:
    """C++ text behind cuemu.h as a library. RuntimeError if it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "kernels.so")
        command = [COMPILER, "-x", "c++", *FLAGS, "-shared", "-include", str(header()), *options, "-", "-o", library]
        done = subprocess.run(command, input=code, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile:\n{done.stderr}")
        return ctypes.CDLL(str(library))


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
    loaded = build(code, options)
    types = TYPES | {
        name: TYPES[value] for name, _, value in (option[2:].partition("=") for option in options) if value in TYPES
    }
    return loaded, {
        name: tuple((np.dtype(types[c_type]), array) for c_type, array in parameters)
        for name, parameters in kernels.items()
    }


@cache
def blas() -> ctypes.CDLL:
    """The stand-in for cuBLAS, as a library of its own."""
    real = Path(__file__).with_name("fake_cublas.cpp")
    return build(real.read_text(encoding="utf-8"))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def RECORDER(number: int) -> None:
    """A product is called while a stream is captured."""
    Stream.capturing.append(lambda: blas().fake_replay(number))


def gemm_ex(handle: int, *arguments: int) -> None:
    """CuPy's binding: on its own handle, and refused while a stream is captured."""
    if Stream.capturing is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    function = ctypes.CDLL(blas()._name).cublasGemmEx
    function.argtypes = [ctypes.c_void_p if kind is POINTER else ctypes.c_int for kind in GEMM_EX]
    if status := function(handle, *arguments):
        raise RuntimeError(f"CUBLAS_STATUS {status}")


POINTER, NUMBER = "pointer", "int"
GEMM_EX = [POINTER, *[NUMBER] * 5, POINTER, POINTER, NUMBER, NUMBER, POINTER, NUMBER, NUMBER, POINTER, POINTER]
GEMM_EX += [NUMBER] * 4


class Device:
    """The only card."""

    compute_capability = "90"

    def __init__(self, number: int | None = None) -> None:
        self.id = number or 0
        if self.id >= DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


DEVICES = 1


class PinnedMemory(bytearray):
    """Host memory that the card can read while the host goes on."""


def device_properties(_: int) -> dict:
    return {
        "name": b"Emulated card", "totalGlobalMem": 3 * 2**30, "major": 9, "minor": 0,
        "multiProcessorCount": 3, "sharedMemPerBlockOptin": 227 << 10,
    }  # fmt: skip


freed = 0  # calls of free_all_blocks


def free_all_blocks() -> None:
    global freed
    freed += 1


cuda = SimpleNamespace(
    runtime=SimpleNamespace(
        getDeviceCount=lambda: DEVICES, getDeviceProperties=device_properties, runtimeGetVersion=lambda: 13020
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
