"""CUDA kernels: the passes around the matrix products, compiled by NVRTC for the GPU at hand on first use.

The functions here launch the kernels of the ``.cu`` files beside them. N rows, I inputs, H units, O classes,
P parameters. Arrays live on the GPU and are C-ordered; floating arrays of one call share one type but for
``totals`` (float64). Nothing waits for the GPU and nothing is read back.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Array = Any  # cupy.ndarray

LANES = 32  # threads of a warp: neighbours in memory are read together
THREADS = 256  # of a block, in every kernel
COLUMN_ROWS = 256  # rows that one block of column_sum takes at least
COLUMN_PARTS = 128  # parts of a column sum at most; a constant, so that every card sums in the same order

REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


def source(name: str) -> str:
    """The CUDA C++ text of ``name.cu``. Its type REAL is left open: compile it with ``-DREAL=float`` or ``double``."""
    return (Path(__file__).parent / f"{name}.cu").read_text(encoding="utf-8")


@cache
def module(name: str, real: np.dtype) -> Any:
    """``name.cu`` compiled for arrays of type `real`."""
    import cupy

    return cupy.RawModule(code=source(name), options=(f"-DREAL={REALS[real]}",))


@cache
def kernel(name: str, function: str, real: np.dtype) -> Any:
    """One kernel of ``name.cu``, called with grid, block and arguments."""
    return module(name, real).get_function(function)


def expect(array: Array, dtype: Any, *shape: int) -> None:
    """Check that `array` is what a kernel, which sees no more than an address, will take it for.

    Raises
    ------
    ValueError
        It is not a C-ordered `dtype` array of `shape` on the GPU.
    """
    if isinstance(array, np.ndarray):
        raise ValueError("expected an array on the GPU, got a NumPy array; use the backend's asarray")
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        order = "C-ordered" if array.flags.c_contiguous else "strided"
        raise ValueError(
            f"expected a C-ordered {np.dtype(dtype)} array of shape {shape}, got {order} {array.dtype} {array.shape}"
        )


def tile(rows: int, width: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block for an array (rows, width): up to 32 threads a row, as many rows a block as make 256 threads."""
    lanes = min(LANES, 1 << (width - 1).bit_length())
    return (-(-rows * lanes // THREADS),), (lanes, THREADS // lanes)


def gather(X: Array, index: Array, pixel: float, out: Array) -> None:
    """out = X[index] * pixel. X (M, I) uint8 or real, index (N,) int32 or int64 -> out (N, I)."""
    (N, I), real = out.shape, out.dtype
    uint8, int32 = X.dtype == np.uint8, index.dtype == np.int32
    expect(X, np.uint8 if uint8 else real, len(X), I)
    expect(index, np.int32 if int32 else np.int64, N)
    expect(out, real, N, I)
    function = f"gather_{'uint8' if uint8 else 'real'}_{'int32' if int32 else 'int64'}"
    kernel("rows", function, real)(*tile(N, I), (X, index, real.type(pixel), out, np.int64(N), np.int32(I)))


def scale(X: Array, pixel: float, out: Array) -> None:
    """out = X * pixel. X (N, I) uint8 -> out (N, I)."""
    (N, I), real = out.shape, out.dtype
    expect(X, np.uint8, N, I)
    expect(out, real, N, I)
    kernel("rows", "scale_uint8", real)(*tile(N, I), (X, real.type(pixel), out, np.int64(N), np.int32(I)))


def bias_relu(z: Array, b: Array, relu: bool) -> None:
    """z += b, then max(., 0) if relu; a NaN stays one. z (N, H), b (H,)."""
    (N, H), real = z.shape, z.dtype
    expect(z, real, N, H)
    expect(b, real, H)
    kernel("layer", "bias_relu", real)(*tile(N, H), (z, b, np.int32(relu), np.int64(N), np.int32(H)))


def mask(d: Array, a: Array) -> None:
    """d *= (a > 0), the derivative of ReLU. d (N, H), a (N, H)."""
    (N, H), real = d.shape, d.dtype
    expect(d, real, N, H)
    expect(a, real, N, H)
    kernel("layer", "mask", real)(*tile(N, H), (d, a, np.int64(N), np.int32(H)))


def column_sum(d: Array, out: Array, add: bool) -> None:
    """out = the column sums of d, or added to out where `add`. d (N, H) -> out (H,)."""
    import cupy

    (N, H), real = d.shape, d.dtype
    expect(out, real, H)
    parts = min(-(-N // COLUMN_ROWS), COLUMN_PARTS)
    if parts > 1:
        part = cupy.empty((parts, H), real)
        sum_rows(d, part, False)  # (N, H) -> (parts, H)
        d = part
    sum_rows(d, out.reshape(1, H), add)  # -> (1, H)


def sum_rows(d: Array, out: Array, add: bool) -> None:
    """out[k] = the column sums of the k-th share of the rows of d, or added to out[k]. d (N, H) -> out (K, H)."""
    (N, H), K, real = d.shape, len(out), d.dtype
    expect(d, real, N, H)
    expect(out, real, K, H)
    grid, block = (-(-H // LANES), K), (LANES, THREADS // LANES)
    kernel("layer", "column_sum", real)(grid, block, (d, out, np.int32(add), np.int64(N), np.int32(H)))


def softmax_cross_entropy(z: Array, y: Array, scale: float, dz: Array, totals: Array) -> None:
    """dz = (softmax(z) - onehot(y)) * scale; totals += [sum of losses, right answers].

    z (N, O), y (N,) int32 -> dz (N, O), which may be z itself, totals (2,) or more.
    """
    import cupy

    (N, O), real = z.shape, z.dtype
    expect(z, real, N, O)
    expect(y, np.int32, N)
    expect(dz, real, N, O)
    expect(totals, np.float64, len(totals))
    rows = cupy.empty((2, N), np.float64)  # the loss of each row, and whether it is right
    grid, block = (-(-N * LANES // THREADS),), (LANES, THREADS // LANES)
    arguments = (z, y, real.type(scale), dz, rows, np.int64(N), np.int32(O))
    kernel("loss", "softmax_cross_entropy", real)(grid, block, arguments)
    kernel("loss", "add_totals", real)((2,), (THREADS,), (rows, totals, np.int64(N)))


def update(rule: str, w: Array, g: Array, s: Array, h: tuple[Any, ...]) -> None:
    """The optimizer's `rule`, called by its name, over all parameters. w (P,), g (P,), s (S, P), h its numbers."""
    P, real = len(w), w.dtype
    expect(w, real, P)
    expect(g, real, P)
    expect(s, real, len(s), P)
    numbers = (real.type(number) for number in h)
    kernel("update", rule, real)((-(-P // THREADS),), (THREADS,), (w, g, s, np.int64(P), *numbers))
