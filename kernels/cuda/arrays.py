"""Arrays on the GPU, as the kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # cupy.ndarray


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


def or_null(array: Array | None) -> Array:
    """What a kernel gets for an array that may be missing."""
    return np.uint64(0) if array is None else array
