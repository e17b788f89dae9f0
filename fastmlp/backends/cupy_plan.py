"""A network on a GPU: its parameters, its stream, the buffers for rows on their way, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cupy
import numpy as np

from fastmlp import dropout
from fastmlp.backends.base import Array, Rows
from fastmlp.backends.cupy_data import Staging, rows_at
from fastmlp.backends.cupy_learner import FEWEST_ROWS, CupyLearner
from fastmlp.backends.cupy_ops import CupyOps, Delta, Pixels, operand
from fastmlp.backends.plan import means
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda.products import Precision, Products
from fastmlp.losses import SOFTMAX
from fastmlp.network import Layers, Network, Units, forward, layer_views, loss, softmax
from fastmlp.optimizers import Optimizer, Settings

TILE_NUMBERS = 2**28  # of rows, activations and deltas of one pass at most: 1 GiB of float32
ASKED_ROWS = 2**15  # to take at a time where nothing is learned: enough to keep a card busy


def rows_of_tile(sizes: Sequence[int]) -> int:
    """Rows whose inputs, activations and deltas make TILE_NUMBERS: a GPU wants the whole batch at once."""
    return max(FEWEST_ROWS, TILE_NUMBERS // (sizes[0] + 2 * sum(sizes[1:])))


class Tile(NamedTuple):
    """Buffers for n rows on their way through the network."""

    x: Array  # (n, I) item
    y: Array  # (n,) int32 or (n, O) real
    weight: Array  # (n,) real
    z: Layers  # (n, H_l) item, the last real; a's own where the activation needs no z beside it
    a: Layers  # the shapes of z
    h: Layers  # the shapes of z; a's own where nothing is left out
    dz: Layers  # (n, H_l) item

    def first(self, n: int) -> Tile:
        """Views of the first n rows."""
        cut = (tuple(layer[:n] for layer in part) if isinstance(part, tuple) else part[:n] for part in self)
        return Tile(*cut)


class CupyPlan:
    """A network whose rows, parameters and buffers stay on the GPU; see `fastmlp.backends.base.Backend.plan`."""

    def __init__(self, network: Network, parameters: np.ndarray, precision: Precision, device: int):
        self.network, self.sizes, self.precision = network, tuple(network.sizes), precision
        self.device = cupy.cuda.Device(device)
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)  # the only kind that can be captured
        with self.here():
            self.products = Products(precision, self.stream)
            self.parameters = cupy.asarray(parameters)  # (P,) real
            same = precision.item == precision.real
            self.copy = self.parameters if same else cupy.empty(len(parameters), precision.item)  # (P,) item
            numbers = network.loss_numbers(precision.real)
            self.numbers = numbers if network.loss_kind == SOFTMAX else cupy.asarray(numbers)  # (2,) or (O,)
            self.still = cuda.Epoch(
                cupy.zeros(2, np.int32), None, None, cupy.zeros((1, cuda.NUMBERS), precision.real),
                cupy.zeros((1, cuda.TOTALS), np.float64), cupy.zeros(1, np.uint64),
            )  # fmt: skip
            # Sums of columns: a bias gradient a layer, then the losses and the right answers; see cupy_ops.
            self.columns = np.cumsum([0, *self.sizes[1:]])
            self.parts = cupy.empty((cuda.most_slots(ASKED_ROWS), int(self.columns[-1]) + 2), precision.real)
            self.nowhere = cupy.zeros(self.parts.shape[1] - 2, np.int32)
        self.ops: Any = CupyOps(self.products)  # the part of Ops that `fastmlp.network` calls
        self.W = layer_views(self.copy, self.sizes)[0]
        self.b = layer_views(self.parameters, self.sizes)[1]
        self.staging = Staging()
        self.tile_rows = rows_of_tile(self.sizes)
        self._tile: Tile | None = None

    @contextmanager
    def here(self) -> Iterator[None]:
        """On the plan's device and stream, after what the caller's stream has begun; all is done on the way out."""
        begun = cupy.cuda.get_current_stream().record()
        with self.device, self.stream:
            self.stream.wait_event(begun)
            try:
                yield
            finally:
                self.stream.synchronize()

    def refresh(self) -> None:
        """Bring the operands' copy of the parameters up to date: the user may have changed them."""
        if self.copy is not self.parameters:
            cuda.convert(self.parameters, self.copy)

    def make_tile(self, n: int) -> Tile:
        """New buffers for n rows."""
        real, item, units = self.precision.real, self.precision.item, self.sizes[1:]
        hidden = len(units) - 1

        def layers(last: np.dtype, same: Layers = (), apart: tuple[bool, ...] = ()) -> Layers:
            return tuple(
                same[l] if same and not apart[l] else cupy.empty((n, width), last if l == hidden else item)
                for l, width in enumerate(units)
            )

        a = layers(real)
        z = layers(real, a, self.network.keeps_z)
        h = layers(real, a, (self.network.dropout > 0,) * hidden + (False,))
        codes = self.network.loss_kind == SOFTMAX
        y = cupy.empty(n, np.int32) if codes else cupy.empty((n, units[-1]), real)
        return Tile(cupy.empty((n, self.sizes[0]), item), y, cupy.empty(n, real), z, a, h, layers(item))

    def tile(self, n: int) -> Tile:
        """Buffers for n rows, made once for the most there were."""
        if self._tile is None or len(self._tile.x) < n:
            self._tile = None  # the old buffers go before the new ones come
            self._tile = self.make_tile(n)
        return self._tile.first(n)

    def spans(self, n: int, most: int) -> Iterator[tuple[int, int]]:
        """Tiles of at most `most` rows, as (first, last) of each."""
        for first in range(0, n, min(most, self.tile_rows)):
            yield first, min(first + most, first + self.tile_rows, n)

    def fetch(self, X: Array, y: Array, epoch: cuda.Epoch, first: int, rows: slice | np.ndarray, tile: Tile) -> None:
        """Bring the rows of the epoch's step, from its row `first` on, and what belongs to them into the tile.

        Where X stayed on the host, `rows` picks the same rows there, and they are brought over.
        """
        placed = not isinstance(X, cupy.ndarray)
        source = self.staging.bring(X, rows) if placed else X
        weight = tile.weight if epoch.weights is not None else None
        cuda.gather(source, y, epoch, tile.x, tile.y, weight, first=first, placed=placed)

    def forward(self, x: Array | Pixels, tile: Tile) -> Array:
        """The last layer's z (n, O) of rows x (n, I), in the tile's buffer; nothing is left out."""
        forward(self.ops, self.network.kinds, x, self.W, self.b, tile.z, tile.a, tile.a, dropout.NONE)
        return tile.a[-1]

    def deltas(self, tile: Tile, parts: Array, slot: int) -> Layers:
        """The tile's dz, with the places in `parts`, from `slot` on, where their sums go."""
        return tuple(
            Delta(dz, cuda.Sums(parts, slot, int(column))) for dz, column in zip(tile.dz, self.columns, strict=False)
        )

    def units(self, tile: Tile, parts: Array, slot: int, *, leaves_out: bool) -> Units:
        """The tile as `fastmlp.network` takes it."""
        return Units(tile.z, tile.a, tile.h if leaves_out else tile.a, self.deltas(tile, parts, slot))

    def logits(self, X: Array) -> np.ndarray:
        """The last layer's z of rows X (N, I), uint8 or real, on the host or the GPU -> (N, O), a new host array."""
        z = np.empty((X.shape[0], self.sizes[-1]), self.precision.real)  # (N, O)
        with self.here():
            self.refresh()
            for first, last in self.spans(len(z), ASKED_ROWS):
                tile, part = self.tile(last - first), X[first:last]
                source = part if isinstance(part, cupy.ndarray) else self.staging.bring(part, slice(None))
                cuda.gather(source, None, self.still, tile.x)
                z[first:last] = self.forward(operand(tile.x, X), tile).get()
        return z

    def probabilities(self, X: Array) -> np.ndarray:
        """The softmax of `logits`."""
        return softmax(self.logits(X))

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""
        with self.here():
            self.refresh()
            order = None if rows.index is None else cupy.asarray(rows.index.astype(np.int32))  # (N,)
            epoch = self.still._replace(order=order)
            epoch.totals.fill(0)
            for first, last in self.spans(len(rows), ASKED_ROWS):
                tile = self.tile(last - first)
                self.fetch(rows.X, rows.y, epoch, first, rows_at(rows, slice(first, last)), tile)
                weight = None if rows.weight is None else rows.weight[first:last]
                z, dz = self.forward(operand(tile.x, rows.X), tile), self.deltas(tile, self.parts, 0)[-1]
                loss(
                    self.ops, self.network.loss_kind, self.numbers, z, tile.y, weight, 1.0, dz, epoch.totals
                )  # fmt: skip
                cuda.finish(
                    self.parts[: cuda.slots(last - first)], self.nowhere, 1.0, self.parameters, epoch,
                    self.precision.item, gradient=False,
                )  # fmt: skip
            return means(epoch.totals.get()[0], len(rows))

    def learner(self, optimizer: Optimizer, settings: Settings) -> CupyLearner:
        """What moves the parameters by the optimizer's rule."""
        return CupyLearner(self, optimizer, settings)
