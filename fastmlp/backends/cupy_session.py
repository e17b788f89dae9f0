"""What the epochs over the same rows share on a GPU: places that stay, and the graphs that know their addresses."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from fastmlp.backends.base import Array, Rows
from fastmlp.backends.cupy_data import Upload
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda.tensor import Work
from fastmlp.kernels.cuda.tensor_tiles import row_bytes


class Session:
    """The places from which each step takes what is its own, filled anew for each call.

    n rows an epoch, in batches of `batch`; room for so many `epochs` in a call.
    """

    def __init__(self, rows: Rows, n: int, batch: int, epochs: int, penalty: bool, real: np.dtype):
        self.X, self.y, self.ordered, self.weighted = rows.X, rows.y, rows.index is not None, rows.weight is not None
        self.n, self.batch, self.penalty, self.steps = n, batch, penalty, epochs * -(-n // batch)
        self.upload = Upload(
            turn=(np.int32, (2,)), key=(np.uint64, (1,)), table=(real, (self.steps, cuda.NUMBERS)),
            order=(np.int32, (epochs * n * self.ordered,)),
        )  # fmt: skip
        device = self.upload.device
        self.epoch = cuda.Epoch(
            device["turn"], device["order"] if self.ordered else None,
            cupy.empty(epochs * n, real) if self.weighted else None, device["table"],
            cupy.zeros((self.steps, cuda.TOTALS), np.float64), device["key"],
        )  # fmt: skip
        self.graphs: dict[tuple[int, int, bool], Any] = {}  # by rows of a step, number of steps, and `kept`
        self.kept = False  # all rows of a step, the same in every call, stand in the tile already
        self.whole: tuple[np.ndarray | None, ...] = ()  # (index,) of the rows that stand there
        self.step = self.visit = 0  # of the call: those that come next
        self.turn = 0, 0  # those that the card knows of
        self.work: Work | None = None  # where the tensor-core kernels take the steps
        self.packed: Array = None  # (M, I and what is missing to a multiple of 16): X as they take it

    def fits(self, rows: Rows, n: int, batch: int, steps: int, penalty: bool) -> bool:
        """Whether so many steps over `rows` may use these places and graphs."""
        same = rows.X is self.X and rows.y is self.y and steps <= self.steps
        return same and (rows.index is not None, rows.weight is not None, n, batch, penalty) == (
            self.ordered, self.weighted, self.n, self.batch, self.penalty
        )  # fmt: skip

    def fill(self, rows: Rows, table: np.ndarray, key: np.uint64) -> None:
        """Upload what a call takes: the order of its rows, the numbers (steps, 8), and the key of the first step."""
        host = self.upload.host
        self.step, self.visit, self.turn = 0, 0, (0, 0)
        host["turn"][:], host["key"][:], host["table"][: len(table)] = self.turn, key, table
        if rows.index is not None:
            host["order"][: len(rows.index)] = rows.index
        self.upload.send()
        self.epoch.totals.fill(0)
        if rows.weight is not None:
            self.epoch.weights[: len(rows.weight)] = rows.weight

    def next(self) -> cuda.Epoch:
        """The epoch at the step that comes next."""
        taken, visited = self.turn
        return self.epoch._replace(step=self.step - taken, visit=self.visit - visited)

    def count(self, n: int, steps: int, *, graph: bool = False) -> None:
        """So many steps of n rows are on their way, as a `graph`, which lets the card know, or one by one."""
        if graph:
            taken, visited = self.turn
            self.turn = taken + steps, visited + steps * self.visits(n)
        self.step += steps
        self.visit += steps * self.visits(n)
        if not self.ordered:  # each epoch begins with the first row
            self.visit %= self.n

    def visits(self, n: int) -> int:
        """Visits from a step of n rows to the next one: none where each takes all rows as they stand."""
        return n if self.ordered or n < self.n else 0

    def meet(self) -> None:
        """Let the card know of all steps that are on their way, for a graph that goes on from there."""
        taken, visited = self.turn
        if (taken, visited) != (self.step, self.visit):
            cuda.go_on(self.epoch, self.step - taken, self.visit - visited)
            self.turn = self.step, self.visit


def padded(X: Array) -> Array:
    """X (M, I) uint8 with rows of a multiple of 16 bytes: itself where they are, else a copy with zeros behind."""
    width = row_bytes(X.shape[1])
    if X.shape[1] == width:
        return X
    wide = cupy.zeros((len(X), width), np.uint8)
    wide[:, : X.shape[1]] = X
    return wide
