"""What the epochs over the same rows share on a GPU: places that stay, and the graphs that know their addresses."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from fastmlp.backends.base import Array, Rows
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda.tensor import Work
from fastmlp.kernels.cuda.tensor_tiles import row_bytes


class Session:
    """The places from which each step takes what is its own, filled anew for each epoch."""

    def __init__(self, rows: Rows, batch: int, steps: int, penalty: bool, real: np.dtype):
        self.X, self.y, self.n, self.weighted, self.penalty = (
            rows.X,
            rows.y,
            len(rows),
            rows.weight is not None,
            penalty,
        )
        self.epoch = cuda.Epoch(
            cupy.empty(self.n, np.int32), cupy.empty(self.n, real) if self.weighted else None,
            cupy.empty((steps, cuda.NUMBERS), real), cupy.empty(steps, np.uint64), cupy.empty(1, np.int32), batch,
        )  # fmt: skip
        most = min(batch, self.n)
        self.now = cuda.Now(
            cupy.empty(most, np.int32), cupy.empty(most, real), cupy.empty(cuda.NUMBERS, real), cupy.empty(1, np.uint64)
        )
        self.graphs: dict[tuple[int, int], Any] = {}  # by rows of a step and number of steps
        self.warm: set[int] = set()  # rows of a step that ran already, so that everything is compiled
        self.whole: tuple[np.ndarray | None, ...] = ()  # (index,) of all rows, where they stand in the tile as they are
        self.work: Work | None = None  # where the tensor-core kernels take the steps
        self.packed: Array = None  # (M, I and what is missing to a multiple of 16): X as they take it

    def fits(self, rows: Rows, batch: int, steps: int, penalty: bool) -> bool:
        """Whether an epoch over `rows` may use these places and graphs."""
        same = rows.X is self.X and rows.y is self.y and (rows.weight is not None) == self.weighted
        return same and (len(rows), batch, steps, penalty) == (
            self.n, self.epoch.batch, len(self.epoch.table), self.penalty
        )  # fmt: skip

    def fill(self, rows: Rows, table: np.ndarray, keys: np.ndarray) -> None:
        """Upload what an epoch takes: the order of its rows, the numbers (steps, 8) and the key of each step."""
        order = np.arange(self.n) if rows.index is None else rows.index  # (V,)
        self.epoch.order.set(order.astype(np.int32))
        self.epoch.table.set(table)
        self.epoch.keys.set(keys)
        self.epoch.step.fill(0)
        if self.epoch.weights is not None:
            self.epoch.weights[:] = rows.weight


def padded(X: Array) -> Array:
    """X (M, I) uint8 with rows of a multiple of 16 bytes: itself where they are, else a copy with zeros behind."""
    width = row_bytes(X.shape[1])
    if X.shape[1] == width:
        return X
    wide = cupy.zeros((len(X), width), np.uint8)
    wide[:, : X.shape[1]] = X
    return wide
