"""Matrix products on the GPU: cuBLAS by its C interface, so that they may be part of a CUDA graph.

CuPy's own binding refuses cuBLAS while a stream is captured. Called with a handle and a workspace of its own, cuBLAS
allows it, and gives the same bits each time. Precision is an argument of every call, never a switch of the process.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array

WORKSPACE = {True: 32 << 20, False: 4 << 20}  # bytes that NVIDIA asks for, from compute capability 9.0 on and before
KINDS = {np.dtype(np.float32): 0, np.dtype(np.float64): 1, np.dtype(np.float16): 2, np.dtype(np.uint16): 14}
DEFAULT_ALGORITHM = -1

int_, pointer = ctypes.c_int, ctypes.c_void_p
GEMM = [pointer, *[int_] * 5, pointer, pointer, int_, int_, pointer, int_, int_, pointer, pointer, *[int_] * 4]
PROTOTYPES: dict[str, list[Any]] = {
    "cublasCreate_v2": [ctypes.POINTER(pointer)],
    "cublasDestroy_v2": [pointer],
    "cublasSetStream_v2": [pointer, pointer],
    "cublasSetWorkspace_v2": [pointer, pointer, ctypes.c_size_t],
    "cublasGemmEx": GEMM,
}


class Precision(NamedTuple):
    """What a network computes with."""

    real: np.dtype  # of the parameters, the gradient, and all arithmetic
    item: np.dtype  # of the operands of products; uint16 holds the bits of a bfloat16
    compute: int  # cuBLAS's number for how products are computed; sums are float32 at least
    capability: int = 0  # ten times the compute capability of the first cards that have it


FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
PRECISIONS = {
    "float32": Precision(FLOAT32, FLOAT32, 68),
    "float64": Precision(FLOAT64, FLOAT64, 70),
    "tf32": Precision(FLOAT32, FLOAT32, 77, 80),
    "float16": Precision(FLOAT32, np.dtype(np.float16), 68, 70),
    "bfloat16": Precision(FLOAT32, np.dtype(np.uint16), 68, 80),
}


@cache
def library() -> ctypes.CDLL | str:
    """cuBLAS, the copy that CuPy loads; or, as text, why it cannot be called."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        found = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
        for name, types in PROTOTYPES.items():
            getattr(found, name).argtypes = types
    except Exception as error:  # a broken install can raise anything at all
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def check(status: int) -> None:
    """Raises RuntimeError where cuBLAS reports a failure."""
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")


class Products:
    """Products of one precision on one stream of the current device.

    Attributes
    ----------
    refusal : str
        Why products cannot be captured in a graph; empty where they can.
    """

    def __init__(self, precision: Precision, stream: Any):
        import cupy

        self.precision = precision
        found = library()
        self.refusal = found if isinstance(found, str) else ""
        if isinstance(found, str):
            self.handle, self.gemm = None, binding()
            return
        handle = pointer()
        check(found.cublasCreate_v2(ctypes.byref(handle)))
        weakref.finalize(self, found.cublasDestroy_v2, handle).atexit = False  # at exit the driver may be gone already
        check(found.cublasSetStream_v2(handle, stream.ptr))  # before the workspace, which it takes away
        hopper = int(cupy.cuda.Device().compute_capability) >= 90
        self.workspace = cupy.empty(WORKSPACE[hopper], np.uint8)
        check(found.cublasSetWorkspace_v2(handle, self.workspace.data.ptr, self.workspace.nbytes))
        self.handle, self.gemm = handle, found.cublasGemmEx

    def multiply(
        self, a_turned: bool, b_turned: bool, a: Array, b: Array, out: Array, alpha: float = 1.0, beta: float = 0.0
    ) -> None:
        """out = alpha op(a) op(b) + beta out, op a transpose where turned. With beta = 0 out is not read.

        C-ordered, all on the device: op(a) (N, K) and op(b) (K, M) item, out (N, M) item or real; 2*N*K*M flop.
        """
        (N, M), K = out.shape, a.shape[0 if a_turned else 1]
        if (a.shape, b.shape) != ((K, N) if a_turned else (N, K), (M, K) if b_turned else (K, M)):
            raise ValueError(f"product: expected shapes that fit {out.shape}, got {a.shape} and {b.shape}")
        if not (a.flags.c_contiguous and b.flags.c_contiguous and out.flags.c_contiguous):
            raise ValueError("product: expected C-ordered arrays")
        # cuBLAS takes columns first: to it our arrays are their transposes, and out^T = op(b)^T op(a)^T.
        numbers = np.array((alpha, beta), self.precision.real)
        status = self.gemm(
            self.handle or current_handle(), int(b_turned), int(a_turned), M, N, K, numbers.ctypes.data,
            b.data.ptr, KINDS[b.dtype], b.shape[1], a.data.ptr, KINDS[a.dtype], a.shape[1],
            numbers[1:].ctypes.data, out.data.ptr, KINDS[out.dtype], M, self.precision.compute, DEFAULT_ALGORITHM,
        )  # fmt: skip
        check(status or 0)


def binding() -> Callable[..., int | None]:
    """CuPy's binding of the same function: it raises instead of returning a status, and refuses to be captured."""
    from cupy_backends.cuda.libs import cublas

    gemm: Callable[..., int | None] = cublas.gemmEx
    return gemm


def current_handle() -> int:
    """CuPy's handle for the current device."""
    import cupy

    return int(cupy.cuda.get_cublas_handle())
