"""Launches of rows.cu: the rows of a step, and the count of steps."""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect, or_null
from .epoch import Epoch
from .launch import blocks, launch_soon
from .nvrtc import kernel


def go_on(epoch: Epoch, steps: int, rows: int) -> None:
    """The epoch's turn goes on by so many steps and rows: for the graph that is launched next."""
    epoch.check()
    real = epoch.table.dtype
    kernel("rows", "go_on", real, real)((1,), (1,), (epoch.turn, np.int32(steps), np.int32(rows)))


def gather(
    X: Array, y: Array | None, epoch: Epoch, x: Array, to_y: Array | None = None, to_weight: Array | None = None,
    *, first: int = 0, placed: bool = False,
) -> None:  # fmt: skip
    """x = X[rows], whatever the type, to_y = y[rows], to_weight = the weights of the visits.

    The rows are those of the epoch's step, from its row `first` on. `placed`: X holds them already, in their order.
    With `first` = 0 it may begin before the kernel launched last ends, which must not read x, to_y or to_weight.
    X (M, I) uint8 or real, y (M,) int32 or (M, Y) real -> x (N, I) item, to_y (N,) or (N, Y), to_weight (N,).
    """
    (N, I), real, uint8 = x.shape, epoch.table.dtype, X.dtype == np.uint8
    epoch.check()
    expect(X, np.uint8 if uint8 else real, len(X), I)
    expect(x, x.dtype, N, I)
    codes, Y = True, 0
    if y is not None and to_y is not None:
        codes, Y = y.dtype == np.int32, int(np.prod(y.shape[1:]))
        expect(y, np.int32 if codes else real, *y.shape)
        expect(to_y, y.dtype, N, *y.shape[1:])
    if to_weight is not None:
        expect(to_weight, real, N)
    if placed and len(X) < N:
        raise ValueError(f"expected {N} rows in their order, got {len(X)}")
    name = f"gather_{'uint8' if uint8 else 'real'}_{'codes' if codes else 'targets'}"
    arguments = (
        X, or_null(y), or_null(epoch.weights), or_null(epoch.order), epoch.turn, np.int64(epoch.visit + first),
        np.int32(placed), x, or_null(to_y), or_null(to_weight), np.int64(N), np.int32(I), np.int32(Y),
    )  # fmt: skip
    gather, cut = kernel("rows", name, real, x.dtype), blocks(N * I, N * Y, N * (to_weight is not None))
    if first == 0:
        launch_soon(gather, *cut, arguments)
    else:  # a product may still read the rows whose place these take
        gather(*cut, arguments)
