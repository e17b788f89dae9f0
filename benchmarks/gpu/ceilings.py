"""What this GPU can do: copy memory, and multiply large matrices of 16-bit numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cupy as cp

from .ours import event, seconds_between

BYTES = 2**32  # copied at a time
SIZE = 8192
TIMES, READINGS = 10, 5


class Ceilings(NamedTuple):
    """The best of some readings."""

    bytes_per_second: float  # read and written
    flop_per_second: float


class Measurer:
    """For a process of its own, which gives the memory back when it ends."""

    def measure(self) -> Ceilings:
        """Both, on numbers that are not zero."""
        return Ceilings(2 * BYTES / copy_seconds(), 2 * SIZE**3 / product_seconds())


def copy_seconds() -> float:
    """Of BYTES from one place on the device to another."""
    a = cp.arange(BYTES // 4, dtype=cp.float32)
    b = cp.empty_like(a)
    return fastest(lambda: cp.copyto(b, a))


def product_seconds() -> float:
    """Of one product of float16, sums in float32."""
    x, y = (cp.random.standard_normal((SIZE, SIZE), dtype=cp.float32).astype(cp.float16) for _ in range(2))
    z = cp.empty_like(x)
    return fastest(lambda: cp.matmul(x, y, out=z))  # (8192, 8192)(8192, 8192) -> (8192, 8192)


def fastest(run: Callable[[], Any]) -> float:
    """Seconds of one run, the least of some readings of several each."""
    run()
    found = []
    for _ in range(READINGS):
        first = event()
        for _ in range(TIMES):
            run()
        found.append(seconds_between(first, event()) / TIMES)
    return min(found)
