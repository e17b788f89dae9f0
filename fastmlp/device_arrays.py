"""Arrays that lie on a GPU already: the cupy backend takes them in place, the others say what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.errors import DataError

CUDA = 2  # DLPack's number for the memory of an NVIDIA GPU


def lies_on_gpu(array: Any) -> bool:
    """Whether `array` is CuPy's, or another library's, and its numbers lie on an NVIDIA GPU."""
    if isinstance(array, np.ndarray):
        return False
    device = getattr(array, "__dlpack_device__", None)
    return hasattr(array, "__cuda_array_interface__") or (device is not None and device()[0] == CUDA)


def in_place(array: Any, name: str) -> Any:
    """An array on a GPU as CuPy's, without a copy. Raises DataError where CuPy is not there to read it."""
    try:
        import cupy
    except ImportError as error:
        raise DataError(
            f"{name} lies on a GPU, and CuPy, which would read it there, cannot be imported ({error}); "
            f"install it, or pass {name} in the host's memory"
        ) from error
    return array if isinstance(array, cupy.ndarray) else cupy.from_dlpack(array)


def refuse_on_cpu(array: Any, backend: str) -> None:
    """Raises DataError if `array` lies on a GPU: `backend` computes on the CPU."""
    if lies_on_gpu(array):
        raise DataError(
            f"the {backend} backend computes on the CPU, and the array lies on a GPU: pass it in the host's memory "
            "(X.get() of CuPy, X.cpu() of torch), or use backend='cupy'"
        )
