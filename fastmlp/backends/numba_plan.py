"""A network on compiled kernels: its parameters, the room for rows on their way, and what is asked of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from fastmlp.backends import compiled, elements
from fastmlp.backends.base import Rows
from fastmlp.backends.compiled_task import DENSE, MARKED, SPARSE, Buffers, Net, Task
from fastmlp.backends.numba_learner import NumbaLearner
from fastmlp.backends.numba_ops import activation_address, loss_address
from fastmlp.backends.numba_team import ROW, run_team
from fastmlp.backends.numba_ways import TILE, by_columns
from fastmlp.backends.pages import Pages
from fastmlp.backends.plan import means
from fastmlp.dropout import NONE
from fastmlp.errors import DataError
from fastmlp.kernels.cpu import csr, sparse
from fastmlp.kernels.cpu.packing import PAIRED
from fastmlp.kernels.cpu.product import PUBLISHED, publish
from fastmlp.kernels.cpu.vector import BFLOAT16
from fastmlp.network import Layers, Network, layer_views
from fastmlp.optimizers import Optimizer, Settings

START = 4e7  # flop below which it does not pay to start a second thread
HEAVY = 2**18  # bytes of parameters from which on all memory is of huge pages; below, it makes no difference


def publish_all(network: Network, dtype: np.dtype, real: str) -> None:
    """Make what compiled code calls by name known to it: products of numbers of type `real`, and dropout."""
    publish(real)
    if network.dropout:
        elements.publish_dropout(dtype)


class NumbaPlan:
    """A network on compiled kernels; it works in the parameters' own array."""

    def __init__(self, network: Network, parameters: np.ndarray, threads: int, precision: str | None = None):
        self.rounded = precision == BFLOAT16
        real = BFLOAT16 if self.rounded else parameters.dtype.name
        if network.dropout or real not in PUBLISHED:  # to be compiled in a thread, where no Ctrl-C comes
            run_team(1, math.inf, lambda *_: publish_all(network, parameters.dtype, real))
        self.network, self.sizes, self.dtype, self.threads = network, network.sizes, parameters.dtype, threads
        self.pages = Pages(large=parameters.nbytes >= HEAVY)
        self.parameters = self.pages.zeros(parameters.shape, self.dtype)  # (P,)
        self.parameters[:] = parameters
        W, b = self.layers(self.parameters)
        kinds = tuple(activation_address(kind, self.dtype) for kind in network.kinds)
        loss = loss_address(network.loss_kind, self.dtype)
        self.net = Net(W, b, kinds, loss, network.loss_numbers(self.dtype))
        self._tiles: dict[str, list[Buffers]] = {}
        self.flop = 2 * sum(w.size for w in W)  # of one row forward

    def layers(self, flat: np.ndarray) -> tuple[Layers, Layers]:
        """The weights and biases in flat (P,); weights as uint32 where products round to bfloat16."""
        W, b = layer_views(flat, self.sizes)
        return tuple(w.view(np.uint32) for w in W) if self.rounded else W, b

    def read(self, rows: Rows) -> Rows:
        """The rows as compiled code takes them: an array X as it is, a CSR matrix of SciPy's as its three arrays."""
        return rows if isinstance(rows.X, np.ndarray) else replace(rows, X=self.csr(rows.X))

    def csr(self, X: Any) -> csr.CSR:
        """The arrays of a CSR matrix X (M, I). Raises DataError if they would lead beyond its columns or numbers."""
        starts, columns = X.indptr.astype(np.int64), X.indices.astype(np.int32, copy=False)
        steps, inside = np.diff(starts), len(columns) == 0 or 0 <= columns.min() <= columns.max() < X.shape[1]
        if not inside or starts[0] != 0 or steps.min(initial=0) < 0 or starts[-1] > min(len(columns), len(X.data)):
            raise DataError("X: expected a CSR matrix whose indices lie in it; see X.check_format(full_check=True)")
        return csr.CSR(starts, columns, X.data.astype(self.dtype, copy=False))

    def with_lists(self, buffers: Buffers, rows: Rows, n: int) -> Buffers:
        """Buffers for n of `rows`, with room for the lists that a gradient of CSR rows takes."""
        if not isinstance(rows.X, csr.CSR):
            return buffers
        lengths = np.diff(rows.X.starts)  # (M,)
        most = min(n * lengths.max(), (lengths if rows.index is None else lengths[rows.index]).sum())
        return buffers._replace(marked=csr.room_for_lists(self.sizes[0], most, self.dtype))

    def kind(self, X: Any) -> str:
        """How products read rows X (N, I): DENSE, MARKED where they skip the zeros of an array, or SPARSE."""
        if isinstance(X, csr.CSR):
            return SPARSE
        return MARKED if self.skips(X) else DENSE

    def skips(self, X: np.ndarray) -> bool:
        """Whether products skip the zeros of X (N, I)."""
        return not self.rounded and sparse.worth_marking(X)

    def input_rows(self, n: int, inputs: int) -> np.ndarray:
        """Room for n rows of the input; of bfloat16 as uint16, with room beside them, where products round to it."""
        if not self.rounded:
            return self.pages.zeros((n, inputs), self.dtype)
        lines = (-(-inputs // PAIRED) + 1) | 1  # an odd number of cache lines: rows do not fall on each other
        return self.pages.zeros((n, lines * PAIRED), np.dtype(np.uint16))[:, :inputs]

    def buffers(self, n: int, kind: str) -> Buffers:
        """Room for n rows on their way through the network; see `kind`."""
        inputs = 0 if kind == SPARSE else self.sizes[0]

        def rows(units: int) -> np.ndarray:
            return self.pages.zeros((n, units), self.dtype)

        x, layers = self.input_rows(n, inputs), self.sizes[1:]
        a, dz = tuple(map(rows, layers)), tuple(map(rows, layers))
        z = tuple(rows(layers[l]) if kept else a[l] for l, kept in enumerate(self.network.keeps_z))
        h = tuple(map(rows, layers)) if self.network.dropout else a
        marked: Any = sparse.room_for_marks(x, self.pages.zeros) if kind == MARKED else None
        if kind == SPARSE:
            marked = csr.room_for_lists(0, 0, self.dtype)  # `with_lists` gives more
        return Buffers(x, marked, z, a, h, dz)

    def tiles(self, kind: str) -> list[Buffers]:
        """Room for a tile of rows for each thread."""
        if kind not in self._tiles:
            self._tiles[kind] = [self.buffers(TILE, kind) for _ in range(self.threads)]
        return self._tiles[kind]

    def team_size(self, flop: float) -> int:
        """Threads for so much work, for which they are started."""
        return self.threads if flop > START else 1

    def task(
        self, rows: Rows, threads: int, address: int, order: np.ndarray | None, totals: np.ndarray,
        dropout: float = 0.0, key: np.uint64 = NONE.key,
    ) -> Task:  # fmt: skip
        """What the threads of a team share."""
        return Task(address, threads, self.net, rows.X, rows.y, rows.weight, order, len(rows), dropout, key, totals)

    def logits(self, X: Any) -> np.ndarray:
        """The last layer's z of rows X (N, I), uint8, the network's type or CSR of it -> (N, O), a new array."""
        return self.outputs(X, softmax=False)

    def probabilities(self, X: Any) -> np.ndarray:
        """The softmax of `logits`, taken while they are in the cache; none is 0, but e^-87 (float64: e^-708) at least
        as large as the largest of its row.
        """
        return self.outputs(X, softmax=True)

    def outputs(self, X: Any, *, softmax: bool) -> np.ndarray:
        """`logits` or `probabilities`."""
        z = np.empty((X.shape[0], self.sizes[-1]), self.dtype)  # (N, O)
        X = X if isinstance(X, np.ndarray) else self.csr(X)
        flop = (self.flop + ROW) * len(z)
        threads, tiles, work = self.team_size(flop), self.tiles(self.kind(X)), compiled.outputs
        if threads > 1 and by_columns(self.sizes, len(z)):
            work = compiled.outputs_by_columns
            tiles = [tile._replace(z=tiles[0].z, a=tiles[0].a) for tile in tiles]
        run_team(threads, flop, lambda thread, team: work(
            thread, threads, team, self.net, X, tiles[thread], softmax, z))  # fmt: skip
        return z

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""
        rows, flop = self.read(rows), (self.flop + ROW) * len(rows)
        threads, tiles = self.team_size(flop), self.tiles(self.kind(rows.X))
        totals = np.zeros((threads, 3))
        run_team(threads, flop, lambda thread, team: compiled.evaluate(
            thread, self.task(rows, threads, team, rows.index, totals), tiles[thread]))  # fmt: skip
        return means(totals.sum(axis=0), len(rows))

    def learner(self, optimizer: Optimizer, settings: Settings) -> NumbaLearner:
        """What moves the parameters."""
        return NumbaLearner(self, optimizer, settings)
