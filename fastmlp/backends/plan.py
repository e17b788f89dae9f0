"""A network over the operations of any backend: its buffers, made once, and the loops over batches and tiles.

A batch may be larger than what pays to hold at a time; its rows then pass in tiles, whose gradients add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastmlp import dropout
from fastmlp.backends.base import Array, Backend, Learner, Rows, Totals
from fastmlp.backends.threads import check_ending
from fastmlp.dropout import Dropout, step_key
from fastmlp.losses import SOFTMAX
from fastmlp.network import (
    Layers,
    Network,
    Units,
    forward,
    layer_views,
    loss,
    loss_and_gradients,
    parameter_count,
    softmax,
)
from fastmlp.optimizers import Optimizer, Settings, step_scalars


class Tile(NamedTuple):
    """Buffers for n rows on their way through the network."""

    x: Array  # (n, I)
    z: Layers  # (n, H_l) each; a's own where the activation needs no z beside it
    a: Layers  # (n, H_l) each; the last holds the logits (n, O)
    h: Layers  # the shapes of a; a's own where nothing is left out
    dz: Layers  # the shapes of a

    def first(self, n: int) -> Tile:
        """Views of the first n rows."""
        return Tile(self.x[:n], *(tuple(part[:n] for part in layer) for layer in self[1:]))


class OpsPlan:
    """A network that runs operation by operation, whatever the backend; see `fastmlp.backends.base.Backend.plan`."""

    def __init__(self, backend: Backend, network: Network, parameters: np.ndarray):
        self.backend, self.network, self.sizes = backend, network, tuple(network.sizes)
        self.dtype = parameters.dtype
        self.parameters = backend.asarray(parameters)  # (P,)
        self.W, self.b = layer_views(self.parameters, self.sizes)
        numbers = network.loss_numbers(self.dtype)
        self.numbers = numbers if network.loss_kind == SOFTMAX else backend.asarray(numbers)  # (3,) or (O,)
        self.tile_rows = backend.tile_rows(self.sizes)
        self._tiles: dict[int, Tile] = {}  # by number of rows; all views of the largest

    def tile(self, n: int) -> Tile:
        """Buffers for n rows, made once."""
        largest = max(self._tiles, default=0)
        if n > largest:
            self._tiles.clear()
            network, units = self.network, self.sizes[1:]
            hidden = len(units) - 1
            a = self.layers(n, units)
            z = self.layers(n, units, a, network.keeps_z)
            h = self.layers(n, units, a, (network.dropout > 0,) * hidden + (False,))
            self._tiles[n] = Tile(self.backend.zeros((n, self.sizes[0]), self.dtype), z, a, h, self.layers(n, units))
        elif n not in self._tiles:
            self._tiles[n] = self._tiles[largest].first(n)
        return self._tiles[n]

    def layers(self, n: int, units: tuple[int, ...], same: Layers = (), apart: tuple[bool, ...] = ()) -> Layers:
        """An array (n, H_l) a layer: a new one, or that of `same` where it need not be `apart`."""
        return tuple(
            same[l] if same and not apart[l] else self.backend.zeros((n, width), self.dtype)
            for l, width in enumerate(units)
        )

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The tiles of the rows from `start` to `stop`, as (first, last) of each."""
        for first in range(start, stop, self.tile_rows):
            yield first, min(first + self.tile_rows, stop)

    def forward(self, X: Array, pick: Array | slice, tile: Tile) -> Array:
        """The last layer's z (n, O), in the tile's buffer, of the rows of X that `pick` picks; nothing is left out."""
        ops = self.backend.ops
        x = ops.rows(X, pick, tile.x)  # (n, I)
        forward(ops, self.network.kinds, x, self.W, self.b, tile.z, tile.a, tile.a, dropout.NONE)
        return tile.a[-1]

    def logits(self, X: np.ndarray) -> np.ndarray:
        """The last layer's z of host rows X (N, I), uint8 or the network's type -> (N, O), a new host array."""
        z = np.empty((X.shape[0], self.sizes[-1]), self.dtype)  # (N, O)
        for first, last in self.spans(0, len(z)):
            rows = self.backend.asarray(X[first:last])  # (n, I)
            z[first:last] = self.backend.to_host(self.forward(rows, slice(0, last - first), self.tile(last - first)))
        return z

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """The softmax of `logits`."""
        return softmax(self.logits(X))

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""
        totals = self.backend.zeros(2, np.dtype(np.float64))
        index = None if rows.index is None else self.backend.asarray(rows.index)
        for first, last in self.spans(0, len(rows)):
            tile, pick = self.tile(last - first), pick_rows(index, first, last)
            weight = None if rows.weight is None else rows.weight[first:last]
            z = self.forward(rows.X, pick, tile)
            loss(self.backend.ops, self.network.loss_kind, self.numbers, z, rows.y[pick], weight, 1.0, tile.dz[-1],
                 totals)  # fmt: skip
        return means(self.backend.to_host(totals), len(rows))

    def learner(self, optimizer: Optimizer, settings: Settings) -> OpsLearner:
        """What moves the parameters by the optimizer's rule."""
        return OpsLearner(self, optimizer, settings)


class OpsLearner:
    """Moves the parameters of a plan: gradient, optimizer state, steps taken."""

    def __init__(self, plan: OpsPlan, optimizer: Optimizer, settings: Settings):
        self.plan, self.rule, self.settings = plan, optimizer.rule, settings
        count = parameter_count(plan.sizes)
        self.g = plan.backend.zeros(count, plan.dtype)  # (P,)
        self.dW, self.db = layer_views(self.g, plan.sizes)
        self.state = plan.backend.zeros((optimizer.states, count), plan.dtype)  # (S, P)
        self.steps = 0

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers."""
        self.plan.tile(min(batch_size, len(rows), self.plan.tile_rows))

    def gather(self, rows: Rows, index: Array | None, start: int, stop: int, totals: Array, drop: Dropout) -> None:
        """The gradient of the batch `start` to `stop` of `index`; adds [sum of losses, right answers] to totals."""
        plan, ops = self.plan, self.plan.backend.ops
        for first, last in plan.spans(start, stop):
            tile, pick = plan.tile(last - first), pick_rows(index, first, last)
            units = Units(tile.z, tile.a, tile.h if drop.share > 0 else tile.a, tile.dz)
            weight = None if rows.weight is None else rows.weight[first:last]
            loss_and_gradients(
                ops, plan.network, plan.numbers, ops.rows(rows.X, pick, tile.x), rows.y[pick], weight,
                1 / (stop - start), plan.W, plan.b, units, self.dW, self.db, totals, first > start,
                drop._replace(first=first - start),
            )  # fmt: skip

    def step(
        self, rows: Rows, index: Array | None, start: int, stop: int, totals: Array, rate: float, l2: float = 0.0
    ) -> None:
        """One step on the batch `start` to `stop` of `index`; adds [losses, right answers, penalty] to totals."""
        plan, ops, settings = self.plan, self.plan.backend.ops, self.settings
        self.steps += 1
        drop = Dropout(plan.network.dropout, step_key(settings.seed, self.steps), 0)
        self.gather(rows, index, start, stop, totals, drop)
        if settings.clip:
            ops.clip(self.g, settings.clip)
        h = step_scalars(self.rule, rate, settings, self.steps, plan.dtype, l2)
        if not (l2 or settings.weight_decay):
            ops.update(self.rule, plan.parameters, self.g, self.state, h)
            return
        bare, at = h._replace(l2=plan.dtype.type(0), shrink=plan.dtype.type(0)), 0
        for l in range(len(plan.W)):  # weights are held small, biases are not
            for count, numbers in ((plan.W[l].size, h), (plan.b[l].size, bare)):
                part = slice(at, at + count)
                if numbers is h and l2:
                    ops.add_squares(plan.parameters[part], 0.5 * l2 * (stop - start), totals[2:])
                ops.update(self.rule, plan.parameters[part], self.g[part], self.state[:, part], numbers)
                at += count

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each; see `fastmlp.backends.base.Learner`. rates, l2 (steps,)."""
        backend = self.plan.backend
        totals = backend.zeros(3, np.dtype(np.float64))
        index = None if rows.index is None else backend.asarray(rows.index)
        for step, start in enumerate(range(0, len(rows), batch_size)):
            check_ending()
            stop = min(start + batch_size, len(rows))
            self.step(rows, index, start, stop, totals, float(rates[step]), 0.0 if l2 is None else float(l2[step]))
        return epoch_totals(backend.to_host(totals), len(rows))  # the one time an epoch reads from the device

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """Several epochs, one by one. rates, l2 (E, steps)."""
        return one_by_one(self, rows, batch_size, rates, l2)

    def gradient(self, rows: Rows) -> tuple[float, np.ndarray]:
        """Mean loss over all `rows` and its gradient (P,), on the host; nothing moves and nothing is left out."""
        backend = self.plan.backend
        totals = backend.zeros(2, np.dtype(np.float64))
        index = None if rows.index is None else backend.asarray(rows.index)
        self.gather(rows, index, 0, len(rows), totals, dropout.NONE)
        return means(backend.to_host(totals), len(rows))[0], backend.to_host(self.g).copy()


def pick_rows(index: Array | None, first: int, last: int) -> Array | slice:
    """Rows `first` to `last` of an index, or of all rows where there is none."""
    return slice(first, last) if index is None else index[first:last]


def means(totals: np.ndarray, n: int) -> tuple[float, float]:
    """Mean loss and accuracy from [sum of losses, right answers] over n rows."""
    return float(totals[0]) / n, float(totals[1]) / n


def one_by_one(learner: Learner, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None) -> list[Totals]:
    """The epochs of `fastmlp.backends.base.Learner.epochs`, each by itself. rates, l2 (E, steps)."""
    assert rows.index is not None
    n, done = len(rows) // len(rates), []
    for k in range(len(rates)):
        part = slice(k * n, (k + 1) * n)
        weight = None if rows.weight is None else rows.weight[part]  # (N,)
        strengths = None if l2 is None else l2[k]  # (steps,)
        one = Rows(rows.X, rows.y, rows.index[part], weight)
        done.append(learner.epoch(one, batch_size, rates[k], strengths))
    return done


def epoch_totals(totals: np.ndarray, n: int) -> Totals:
    """The means over n rows of [sum of losses, right answers, penalties]."""
    return Totals(*(float(total) / n for total in totals))
