"""Launches that begin while the kernel before them is at work: programmatic dependent launch.

A kernel of a few microseconds spends half of them on beginning: its blocks are placed, and its first reads come back.
From compute capability 9.0 on it may do so while the kernel launched before ends. Before it
reads what that kernel writes, or writes what that one reads, it must then call `wait_for_last_kernel` (early.cuh), or
wait for a count of that one's blocks as the tensor-core kernels do. CuPy has no such launch, so the driver is called by
its C interface; a stream that is captured records it as a graph's edge.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

CAPABILITY = 90  # of the first cards that can
PROGRAMMATIC_STREAM_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_...


class Attribute(ctypes.Structure):
    """CUlaunchAttribute."""

    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15)]


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint),
    ]  # fmt: skip


@cache
def driver() -> ctypes.CDLL:
    """CUDA's driver, which CuPy has loaded already."""
    found = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    found.cuLaunchKernelEx.argtypes = [ctypes.POINTER(Config), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return found


def launch_early(
    kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int
) -> None:
    """Launch a RawKernel on the current stream; it may begin before the kernel launched there last has ended.

    Raises
    ------
    RuntimeError
        The driver refuses.
    """
    import cupy

    values = [np.array(a.data.ptr, np.uint64) if isinstance(a, cupy.ndarray) else np.array(a) for a in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    may_overlap = Attribute(PROGRAMMATIC_STREAM_SERIALIZATION, 0, 1)
    stream = cupy.cuda.get_current_stream().ptr
    config = Config((*grid, 1, 1)[:3], (*block, 1, 1)[:3], shared, stream, ctypes.pointer(may_overlap), 1)
    if status := driver().cuLaunchKernelEx(config, kernel.kernel.ptr, addresses, None):
        raise RuntimeError(f"the CUDA driver refused to launch a kernel, with status {status}")
