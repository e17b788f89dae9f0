"""What this machine can do: fastmlp's own product, on operands that stay in each core's L1 cache."""

from __future__ import annotations

import threading
import time

import numpy as np
from fastmlp.kernels.cpu import ops
from fastmlp.kernels.cpu.cache import kept
from fastmlp.kernels.cpu.product import publish

SHAPES = ((14, 128, 32), (28, 96, 32), (56, 64, 32))  # N, I, H, 25 to 29 KiB of operands; the best counts
SECONDS = 0.02  # of one reading, about
FLOP_PER_SECOND = 1e11  # a core's, guessed, to size a reading


@kept
def repeat(x, W, b, out, times):
    """out = x W + b, many times in compiled code. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    for _ in range(times):
        ops.affine(x, W, b, out, False)


def operands(N: int, I: int, H: int) -> tuple[np.ndarray, ...]:
    """x (N, I) without zeros, W (I, H), b (H,) and out (N, H), for one thread."""
    rng = np.random.default_rng(0)
    x, W, b = (rng.random(shape, np.float32) + 1 for shape in ((N, I), (I, H), H))
    return x, W, b, np.empty((N, H), np.float32)


def peak(threads: int) -> float:
    """Flop per second of all threads at once, the best of a few shapes."""
    publish("float32")
    return max(rate(threads, *shape) for shape in SHAPES)


def rate(threads: int, N: int, I: int, H: int) -> float:
    """Flop per second with every thread at products of one shape, from the first start to the last end."""
    times = max(1, int(SECONDS * FLOP_PER_SECOND / (2 * N * I * H)))
    ready = threading.Barrier(threads)
    ends: list[tuple[float, float]] = []

    def member() -> None:
        own = operands(N, I, H)
        repeat(*own, 1)  # compiled, and in the caches
        ready.wait()
        started = time.perf_counter()
        repeat(*own, times)
        ends.append((started, time.perf_counter()))

    team = [threading.Thread(target=member) for _ in range(threads)]
    for each in team:
        each.start()
    for each in team:
        each.join()
    started, ended = zip(*ends, strict=True)
    return 2.0 * N * I * H * times * threads / (max(ended) - min(started))
