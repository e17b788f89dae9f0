"""Launches of rows.cu: the numbers and the rows of the step at hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, expect
from .launch import tile
from .nvrtc import kernel

NUMBERS = 8  # of an optimizer's step
BEGIN_THREADS = 512  # of the one block of `begin`


class Epoch(NamedTuple):
    """What an epoch visits and works with. V visits."""

    order: Array | None  # (V,) int32, rows of the data; None: as they stand
    weights: Array | None  # (V,) real; None: each row counts 1
    table: Array  # (steps, NUMBERS) real: the numbers of each `fastmlp.optimizers.Step`
    keys: Array  # (steps,) uint64: see `fastmlp.dropout`
    step: Array  # (1,) int32: steps taken
    batch: int  # rows of a step; the last may have fewer


class Now(NamedTuple):
    """What of it the step at hand takes, in fixed places, so that a graph of launches may be repeated."""

    index: Array  # (N,) int32
    weight: Array  # (N,) real
    numbers: Array  # (NUMBERS,) real
    key: Array  # (1,) uint64


def begin(epoch: Epoch, n: int, now: Now) -> None:
    """Open the next step, of n rows: fill `now`, count the step."""
    real = now.weight.dtype
    expect(now.index, np.int32, len(now.index))
    expect(now.weight, real, len(now.index))
    expect(now.numbers, real, NUMBERS)
    expect(now.key, np.uint64, 1)
    expect(epoch.table, real, len(epoch.table), NUMBERS)
    expect(epoch.keys, np.uint64, len(epoch.table))
    expect(epoch.step, np.int32, 1)
    order, weights = epoch.order, epoch.weights
    if order is not None:
        expect(order, np.int32, len(order))
    if weights is not None:
        expect(weights, real, len(weights))
    if n > len(now.index):
        raise ValueError(f"expected at most {len(now.index)} rows in a step, for which there is room; got {n}")
    arguments = (
        now.index if order is None else order, now.weight if weights is None else weights, epoch.table, epoch.keys,
        epoch.step, np.int64(epoch.batch), np.int32(order is not None), np.int32(weights is not None), *now,
        np.int64(n),
    )  # fmt: skip
    kernel("rows", "begin", real, real)((1,), (BEGIN_THREADS,), arguments)


def gather(X: Array, y: Array, index: Array, x: Array, to_y: Array, real: np.dtype, *, placed: bool = False) -> None:
    """x = X[index], whatever the type, to_y = y[index]; `placed`: X holds the rows picked already, in their order.

    X (M, I) uint8 or real, y (M,) int32 or (M, Y) real, index (N,) int32 -> x (N, I) item, to_y (N,) or (N, Y).
    """
    (N, I), uint8, codes = x.shape, X.dtype == np.uint8, y.dtype == np.int32
    expect(X, np.uint8 if uint8 else real, len(X), I)
    expect(y, np.int32 if codes else real, *y.shape)
    expect(index, np.int32, N)
    expect(x, x.dtype, N, I)
    expect(to_y, y.dtype, N, *y.shape[1:])
    if placed and len(X) < N:
        raise ValueError(f"expected {N} rows in their order, got {len(X)}")
    name = f"gather_{'uint8' if uint8 else 'real'}_{'codes' if codes else 'targets'}"
    width = np.int32(y.shape[1] if y.ndim > 1 else 1)
    arguments = (X, y, index, np.int32(placed), x, to_y, np.int64(N), np.int32(I), width)
    kernel("rows", name, real, x.dtype)(*tile(N, I), arguments)
