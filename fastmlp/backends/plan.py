"""A network over the operations of any backend: its buffers, made once, and the loops over batches and tiles.

A batch may be larger than what pays to hold at a time; its rows then pass in tiles, whose gradients add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastmlp.backends.base import Array, Backend, Rows
from fastmlp.network import Layers, forward, layer_views, loss_and_gradients, parameter_count
from fastmlp.optimizers import Optimizer, step_scalars


class Tile(NamedTuple):
    """Buffers for n rows on their way through the network."""

    x: Array  # (n, I)
    a: Layers  # (n, H_l) each; the last holds the logits (n, O)
    dz: Layers  # the shapes of a


class OpsPlan:
    """A network that runs operation by operation, whatever the backend; see `fastmlp.backends.base.Backend.plan`."""

    def __init__(self, backend: Backend, sizes: Sequence[int], parameters: np.ndarray):
        self.backend = backend
        self.sizes = tuple(sizes)
        self.dtype = parameters.dtype
        self.parameters = backend.asarray(parameters)  # (P,)
        self.W, self.b = layer_views(self.parameters, self.sizes)
        self.tile_rows = backend.tile_rows(self.sizes)
        self._tiles: dict[int, Tile] = {}  # by number of rows; all views of the largest

    def tile(self, n: int) -> Tile:
        """Buffers for n rows, made once."""
        largest = max(self._tiles, default=0)
        if n > largest:
            self._tiles.clear()
            layers = [self.backend.zeros((n, units), self.dtype) for units in (*self.sizes, *self.sizes[1:])]
            depth = len(self.W)
            self._tiles[n] = Tile(layers[0], tuple(layers[1 : depth + 1]), tuple(layers[depth + 1 :]))
        elif n not in self._tiles:
            whole = self._tiles[largest]
            self._tiles[n] = Tile(whole.x[:n], tuple(a[:n] for a in whole.a), tuple(dz[:n] for dz in whole.dz))
        return self._tiles[n]

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The tiles of the rows from `start` to `stop`, as (first, last) of each."""
        for first in range(start, stop, self.tile_rows):
            yield first, min(first + self.tile_rows, stop)

    def logits(self, X: np.ndarray) -> np.ndarray:
        """The last layer's z of host rows X (N, I), uint8 or the network's type -> (N, O), a new host array."""
        ops = self.backend.ops
        z = np.empty((len(X), self.sizes[-1]), self.dtype)  # (N, O)
        for first, last in self.spans(0, len(X)):
            tile = self.tile(last - first)
            x = ops.rows(self.backend.asarray(X[first:last]), slice(0, last - first), tile.x)  # (n, I)
            forward(ops, x, self.W, self.b, tile.a)
            z[first:last] = self.backend.to_host(tile.a[-1])
        return z

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""
        ops, totals = self.backend.ops, self.backend.zeros(2, np.dtype(np.float64))
        index = None if rows.index is None else self.backend.asarray(rows.index)
        for first, last in self.spans(0, len(rows)):
            tile, pick = self.tile(last - first), pick_rows(index, first, last)
            forward(ops, ops.rows(rows.X, pick, tile.x), self.W, self.b, tile.a)
            ops.softmax_cross_entropy(tile.a[-1], rows.y[pick], 1.0, tile.dz[-1], totals)
        return means(self.backend.to_host(totals), len(rows))

    def learner(self, optimizer: Optimizer, learning_rate: float, beta: float) -> OpsLearner:
        """What moves the parameters by the optimizer's rule."""
        return OpsLearner(self, optimizer, learning_rate, beta)


class OpsLearner:
    """Moves the parameters of a plan: gradient, optimizer state, steps taken."""

    def __init__(self, plan: OpsPlan, optimizer: Optimizer, learning_rate: float, beta: float):
        self.plan, self.rule, self.learning_rate, self.beta = plan, optimizer.rule, learning_rate, beta
        count = parameter_count(plan.sizes)
        self.gradient = plan.backend.zeros(count, plan.dtype)  # (P,)
        self.dW, self.db = layer_views(self.gradient, plan.sizes)
        self.state = plan.backend.zeros((optimizer.states, count), plan.dtype)  # (S, P)
        self.steps = 0

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers."""
        self.plan.tile(min(batch_size, len(rows), self.plan.tile_rows))

    def step(self, rows: Rows, index: Array | None, start: int, stop: int, totals: Array) -> None:
        """One step on the batch `start` to `stop` of `index`; adds [sum of losses, right answers] to totals (2,)."""
        plan, ops = self.plan, self.plan.backend.ops
        for first, last in plan.spans(start, stop):
            tile, pick = plan.tile(last - first), pick_rows(index, first, last)
            x = ops.rows(rows.X, pick, tile.x)  # (n, I)
            loss_and_gradients(
                ops, x, rows.y[pick], 1 / (stop - start), plan.W, plan.b, tile.a, tile.dz, self.dW, self.db,
                totals, first > start,
            )  # fmt: skip
        self.steps += 1
        h = step_scalars(self.rule, self.learning_rate, self.beta, self.steps, plan.dtype)
        ops.update(self.rule, plan.parameters, self.gradient, self.state, h)

    def epoch(self, rows: Rows, batch_size: int) -> tuple[float, float]:
        """One pass over `rows` in batches; mean loss and accuracy, each batch's taken before its own step."""
        backend = self.plan.backend
        totals = backend.zeros(2, np.dtype(np.float64))
        index = None if rows.index is None else backend.asarray(rows.index)
        for start in range(0, len(rows), batch_size):
            self.step(rows, index, start, min(start + batch_size, len(rows)), totals)
        return means(backend.to_host(totals), len(rows))  # the one time an epoch reads from the device


def pick_rows(index: Array | None, first: int, last: int) -> Array | slice:
    """Rows `first` to `last` of an index, or of all rows where there is none."""
    return slice(first, last) if index is None else index[first:last]


def means(totals: np.ndarray, n: int) -> tuple[float, float]:
    """Mean loss and accuracy from [sum of losses, right answers] over n rows."""
    return float(totals[0]) / n, float(totals[1]) / n
