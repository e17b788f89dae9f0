"""Launches of loss.cu: losses and their slopes."""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect
from .nvrtc import kernel
from .sums import Sums, slots, tile

LANES = 8  # threads of a row


def softmax_cross_entropy(
    z: Array, y: Array, weight: Array | None, numbers: tuple[float, float, float], scale: float, dz: Array, sums: Sums
) -> None:
    """dz = (softmax(z) - target) * scale, its column sums, the sum of losses and the right answers.

    z (N, O) real, y (N,) int32, weight (N,) real -> dz (N, O) item, which may be z itself. numbers: smoothing, gamma,
    ceiling.
    """
    (N, O), real = z.shape, z.dtype
    expect(z, real, N, O)
    expect(y, np.int32, N)
    expect(dz, dz.dtype, N, O)
    if weight is not None:
        expect(weight, real, N)
    kernel("loss", "softmax_cross_entropy", real, dz.dtype)(
        (1, slots(N)),
        (LANES, tile(N)),
        (
            z, y, z if weight is None else weight, np.int32(weight is not None), *map(real.type, numbers),
            real.type(scale), dz, *sums.at(N, O), np.int32(sums.behind), np.int64(N), np.int32(O),
        ),
    )  # fmt: skip


def elementwise_loss(
    kind: int, z: Array, y: Array, weight: Array | None, numbers: Array, scale: float, dz: Array, sums: Sums
) -> None:
    """dz = dloss/dz * scale of the loss of that number, its column sums, the sum of losses and the right answers.

    z, y (N, O) real, weight (N,), numbers (O,) real -> dz (N, O) item, which may be z itself.
    """
    (N, O), real = z.shape, z.dtype
    expect(z, real, N, O)
    expect(y, real, N, O)
    expect(numbers, real, O)
    expect(dz, dz.dtype, N, O)
    if weight is not None:
        expect(weight, real, N)
    kernel("loss", "elementwise_loss", real, dz.dtype)(
        (1, slots(N)),
        (LANES, tile(N)),
        (
            np.int32(kind), z, y, z if weight is None else weight, np.int32(weight is not None), numbers,
            real.type(scale), dz, *sums.at(N, O), np.int32(sums.behind), np.int64(N), np.int32(O),
        ),
    )  # fmt: skip
