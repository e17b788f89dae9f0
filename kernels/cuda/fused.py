"""The launch of middle.cu: all that a net of one hidden layer does between its two large products."""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect
from .launch import LANES, SHARED, TILE
from .nvrtc import kernel
from .sums import Sums, slots

FEW_CLASSES = 32  # that a thread of `middle` holds in registers


def middle_fits(H: int, O: int, real: np.dtype) -> bool:
    """Whether `middle` can take H hidden units and O classes: its tile must fit into shared memory."""
    threads = -(-H // LANES) * LANES
    numbers = TILE * (H | 1) + H * O + threads * O  # activations, W2, a share of a W2 for each warp
    return O <= FEW_CLASSES and threads <= 1024 and numbers * real.itemsize <= SHARED


def middle(z1: Array, b1: Array, W2: Array, b2: Array, y: Array, sums: Sums) -> None:
    """z1 = dz1, in place, and the partial sums of dW2, db2, db1, the loss and the right answers, in this order.

    z1 (N, H) item, x W1 on entry; b1 (H,), W2 (H, O), b2 (O,) real; y (N,) int32.
    """
    (N, H), O, real = z1.shape, len(b2), b2.dtype
    expect(z1, z1.dtype, N, H)
    expect(b1, real, H)
    expect(W2, real, H, O)
    expect(b2, real, O)
    expect(y, np.int32, N)
    threads, options = -(-H // LANES) * LANES, (f"-DUNITS={H}", f"-DCLASSES={O}")
    arguments = (z1, b1, W2, b2, y, *sums.at(N, H * O + O + H + 2), np.int64(N))
    kernel("middle", "middle", real, z1.dtype, options)((1, slots(N)), (threads,), arguments)
