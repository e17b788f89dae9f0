"""Memory for the arrays of a network on compiled kernels.

A core keeps in mind where about a hundred pages lie, and asks a slower table for others. A large network's weights,
and the rows that pass through it, fill hundreds of the usual pages of 4 kB: products then wait for the table.
"""

from __future__ import annotations

import math

import numpy as np

from fastmlp.backends.compiled_update import LINE

HUGE = 2**21  # bytes of a huge page
MAPPED = 2**22  # bytes from which on NumPy asks Linux for huge pages


class Pages:
    """Arrays from one piece of memory; of huge pages, if `large`, where the system has them."""

    def __init__(self, large: bool):
        self.large = large
        self.left = np.empty(0, np.uint8)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Zeros that begin a cache line; what comes next begins another."""
        count = math.prod(shape) * np.dtype(dtype).itemsize
        lines = -(-count // LINE) * LINE
        if lines > len(self.left):
            align = HUGE if self.large else LINE
            fresh = np.zeros((max(lines, MAPPED) if self.large else lines) + align, np.uint8)
            self.left = fresh[-fresh.ctypes.data % align :]
        part, self.left = self.left[:count], self.left[lines:]
        return part.view(dtype).reshape(shape)

    def on_lines(self, rows: int, n: int, dtype: np.dtype) -> np.ndarray:
        """Zeros (rows, n or a few more), each row from the start of a cache line on.

        Vectors then never straddle two lines, and threads that share a row by whole lines never write to the same one.
        """
        size = np.dtype(dtype).itemsize
        return self.zeros((rows, -(-n * size // LINE) * LINE // size), dtype)
