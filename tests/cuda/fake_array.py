"""The stand-in's arrays: they do not mix with NumPy's, and reads by the host are counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from fake_card import GUARD, Device, Memory, Stream, refuse_in_capture

host_reads = 0  # copies to the host: on a GPU each one waits


class ndarray:
    """An array on the device: a NumPy array that only the stand-in may touch."""

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
