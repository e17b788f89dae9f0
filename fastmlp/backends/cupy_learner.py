"""Training on a GPU: steps whose kernels are launched one by one, or all at once as a CUDA graph.

A step is the same launches either way, on the same addresses, so both give the same bits. What changes from step to
step, the rows to take, the learning rate, the key of dropout, is uploaded once an epoch and picked on the card by the
first kernel of each step. Nothing crosses to the host until the epoch's totals do.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from fastmlp import dropout
from fastmlp.backends.base import Array, Rows, Totals
from fastmlp.backends.cupy_data import with_room
from fastmlp.backends.cupy_ops import Pixels, StepKey, scaled
from fastmlp.backends.cupy_session import Session, padded
from fastmlp.backends.plan import epoch_totals, one_by_one
from fastmlp.dropout import Dropout, step_key
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda import tensor
from fastmlp.kernels.cuda.products import PRECISIONS
from fastmlp.kernels.cuda.tensor_tiles import Card, unsupported
from fastmlp.network import Network, layer_views, loss_and_gradients, parameter_count
from fastmlp.optimizers import Optimizer, Settings, step_scalars

if TYPE_CHECKING:
    from fastmlp.backends.cupy_plan import CupyPlan, Tile

FEWEST_ROWS = 256  # that a tile is cut to where memory is short
GRAPH_STEPS = 32  # in one graph: enough that launching it costs little, few enough to capture in no time


class CupyLearner:
    """Moves the parameters of a plan; see `fastmlp.backends.base.Learner`.

    Attributes
    ----------
    steps : int
        Taken so far.
    state : array (S, P)
        The optimizer's, on the GPU.
    launches : str
        How the kernels of the last epoch were launched; why, where it was one by one.
    tensor : Card or None
        The card, where the tensor-core kernels can take this network; None leaves them out.
    fused : bool
        Whether one kernel does what lies between the first product and the last.
    refusal : str
        Why launches are not captured as graphs; empty where they may be.
    """

    def __init__(self, plan: CupyPlan, optimizer: Optimizer, settings: Settings):
        self.plan, self.rule, self.settings, self.steps = plan, optimizer.rule, settings, 0
        self.launches, self.refusal = "", plan.products.refusal
        real, P = plan.precision.real, len(plan.parameters)
        self.fused = plain(plan.network) and cuda.middle_fits(*plan.sizes[1:], real)
        with plan.here():
            self.tensor = tensor_card(plan)
            self.g = cupy.zeros(P, real)  # (P,)
            self.state = cupy.zeros((optimizer.states, P), real)  # (S, P)
            self.totals = cupy.zeros(3, np.float64)
            self.lengths = cupy.zeros(cuda.LENGTHS, real)
            counts = [array.size for layer in zip(plan.W, plan.b, strict=True) for array in layer]
            self.ends = cupy.asarray(np.cumsum(counts, dtype=np.int64))  # (2 L,)
            self.places = {fused: cupy.asarray(sum_places(plan.sizes, fused)) for fused in {False, self.fused}}
        self.dW, self.db = layer_views(self.g, plan.sizes)
        self.tile: Any = None  # Tile, made for the first step
        self.parts: Array = None  # (T, C) real, made with the tile
        self.session: Session | None = None

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers and compile the kernels, by the gradient of one batch; nothing moves."""
        n = min(batch_size, len(rows))
        index = np.arange(n) if rows.index is None else rows.index[:n]
        self.gradient(Rows(rows.X, rows.y, index, None if rows.weight is None else rows.weight[:n]))

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each; see `fastmlp.backends.base.Learner`. rates, l2 (steps,)."""
        n, batch = len(rows), min(batch_size, len(rows))
        real, strengths = self.plan.precision.real, np.zeros(len(rates)) if l2 is None else l2
        table = np.array(
            [
                step_scalars(self.rule, float(rates[t]), self.settings, self.steps + t + 1, real, float(strengths[t]))
                for t in range(len(rates))
            ]
        )  # (steps, 8)
        with self.plan.here():
            session = self.open(rows, batch, table, bool(strengths.any()))
            self.repeat(session, rows, batch, n // batch)
            if n % batch:
                self.step(session, rows, n // batch * batch, n % batch)
            self.steps += len(rates)
            return epoch_totals(self.totals.get(), n)  # the one time an epoch reads from the device

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """Several epochs, one by one. rates, l2 (E, steps)."""
        return one_by_one(self, rows, batch_size, rates, l2)

    def gradient(self, rows: Rows) -> tuple[float, np.ndarray]:
        """Mean loss over all `rows` and its gradient (P,), on the host; nothing moves and nothing is left out."""
        n = len(rows)
        with self.plan.here():
            session = self.open(rows, n, np.zeros((1, cuda.NUMBERS), self.plan.precision.real), False)
            cuda.begin(session.epoch, n, session.now)
            self.collect(session, rows, 0, n, dropout.NONE)
            return float(self.totals.get()[0]) / n, np.asarray(self.g.get())

    def open(self, rows: Rows, batch: int, table: np.ndarray, penalty: bool) -> Session:
        """The session for an epoch over `rows`, its places filled, and totals at 0."""
        steps = len(table)
        if self.session is None or not self.session.fits(rows, batch, steps, penalty):
            self.session = None  # the old places go before the new ones come
            self.session = Session(rows, batch, steps, penalty, self.plan.precision.real)
        keys = [step_key(self.settings.seed, self.steps + t) for t in range(1, steps + 1)]
        session = self.session
        session.fill(rows, table, np.array(keys, np.uint64))
        if (
            self.tensor
            and isinstance(rows.X, cupy.ndarray)
            and rows.X.dtype == np.uint8
            and batch <= self.plan.tile_rows
        ):
            if session.work is None:
                session.work, session.packed = tensor.allocate(self.plan.sizes, batch, self.tensor), padded(rows.X)
            tensor.halve(session.work, self.plan.parameters)
        else:
            session.work = None
            self.make_room(batch)
            self.plan.refresh()
        self.totals.fill(0)
        return session

    def make_room(self, batch: int) -> None:
        """Buffers for a step of `batch` rows, in tiles where they are too many."""
        plan, columns = self.plan, max(map(len, self.places.values())) + 2
        tried = plan.tile_rows
        while True:
            spans = list(plan.spans(batch, batch))
            most, size = spans[0][1], columns * sum(cuda.slots(last - first) for first, last in spans)
            try:
                if self.parts is None or self.parts.size < size:
                    self.parts = cupy.empty(size, plan.precision.real)
                if self.tile is None or len(self.tile.x) < most:
                    self.tile = None  # the old buffers go before the new ones come
                    self.tile = with_room(partial(plan.make_tile, most))
                break
            except cupy.cuda.memory.OutOfMemoryError:
                if most <= FEWEST_ROWS:
                    raise
            plan.tile_rows = max(FEWEST_ROWS, most // 2)
        if plan.tile_rows < tried:
            warnings.warn(
                f"the GPU has no room for {batch:,} rows on their way at once: they pass in tiles of "
                f"{plan.tile_rows:,} rows, which is slower",
                stacklevel=2,
            )

    def repeat(self, session: Session, rows: Rows, n: int, times: int) -> None:
        """The first `times` steps of an epoch, n rows each."""
        why_not = (
            "one step an epoch" if times < 2
            else "rows come from the host's memory" if not isinstance(rows.X, cupy.ndarray)
            else "a batch takes several tiles" if n > self.plan.tile_rows
            else self.refusal
        )  # fmt: skip
        done = 0
        if not why_not and n not in session.warm:
            self.step(session, rows, 0, n)
            session.warm.add(n)
            done = 1
        for count in (GRAPH_STEPS, 1):
            while not why_not and times - done >= count:
                try:
                    graph = session.graphs.get((n, count)) or self.capture(session, rows, n, count)
                except Exception as error:  # whatever a driver has against it: the steps can be launched all the same
                    why_not = self.refusal = f"{type(error).__name__}: {error}".splitlines()[0]
                    break
                session.graphs[n, count] = graph
                graph.launch()
                done += count
        for step in range(done, times):
            self.step(session, rows, step * n, n)
        self.launches = f"one by one: {why_not}" if why_not else f"CUDA graphs of up to {GRAPH_STEPS} steps"

    def capture(self, session: Session, rows: Rows, n: int, count: int) -> Any:
        """A graph of `count` steps of n rows; nothing runs yet."""
        stream = self.plan.stream
        stream.begin_capture()
        try:
            for _ in range(count):
                self.step(session, rows, 0, n)
        except BaseException:
            with suppress(Exception):  # the first error made the capture invalid, and is the one to tell
                stream.end_capture()
            raise
        return stream.end_capture()

    def step(self, session: Session, rows: Rows, start: int, n: int) -> None:
        """The next step, on n rows; `start` is its first visit, for rows that come from the host."""
        plan, settings, item = self.plan, self.settings, self.plan.precision.item
        numbers = session.now.numbers
        cuda.begin(session.epoch, n, session.now)
        if session.penalty:
            cuda.squares(plan.parameters, self.ends, self.lengths, item, weights=True)
            cuda.add_penalty(self.lengths, numbers, n, self.totals, item)
        if session.work is not None and not settings.clip:
            self.tensor_parts(session, n)
            tensor.update(session.work, self.rule.__name__, plan.parameters, self.state, numbers, n, self.totals)
            return
        self.collect(session, rows, start, n, Dropout(plan.network.dropout, StepKey(session.now.key), 0))
        if settings.clip:
            cuda.squares(self.g, self.ends, self.lengths, item, weights=False)
        held = session.penalty or settings.weight_decay > 0
        cuda.update(
            self.rule.__name__, plan.parameters, self.g, self.state, plan.copy, numbers, self.ends, held, self.lengths,
            settings.clip,
        )  # fmt: skip
        if session.work is not None:
            tensor.halve(session.work, plan.parameters)

    def tensor_parts(self, session: Session, n: int) -> None:
        """Forward and back over the n rows of the step at hand; the gradient's parts stay with the kernels' buffers."""
        index, weight = session.now.index[:n], session.now.weight[:n] if session.weighted else None
        tensor.forward(session.work, session.packed, session.y, index, weight, n, self.plan.parameters)
        tensor.weight_gradient(session.work, session.packed, index, n)

    def collect(self, session: Session, rows: Rows, start: int, n: int, drop: Dropout) -> None:
        """g (P,) of the n rows of the step at hand; adds [sum of losses, right answers] to the totals."""
        plan, now = self.plan, session.now
        if session.work is not None:
            self.tensor_parts(session, n)
            tensor.gradient(session.work, self.g, n, self.totals)
            return
        fused = self.fused and not session.weighted
        where = self.places[fused]
        C = len(where) + 2
        parts = self.parts[: len(self.parts) // C * C].reshape(len(self.parts) // C, C)
        plan.ops.share, slot = 1 / n, 0
        for first, last in plan.spans(n, n):
            tile = self.tile.first(last - first)
            x, y = self.fetch(session, rows, slice(start + first, start + last), now.index[first:last], tile, n)
            if fused:
                self.middle(x, y, tile, parts, slot, first > 0)
            else:
                loss_and_gradients(
                    plan.ops, plan.network, plan.numbers, x, y, now.weight[first:last] if session.weighted else None,
                    1.0, plan.W, plan.b, plan.units(tile, parts, slot, leaves_out=drop.share > 0), self.dW, self.db,
                    self.totals, first > 0, drop._replace(first=first),
                )  # fmt: skip
            slot += cuda.slots(last - first)
        cuda.finish(parts[:slot], where, 1 / n, self.g, self.totals, plan.precision.item)

    def fetch(
        self, session: Session, rows: Rows, visits: slice, index: Array, tile: Tile, n: int
    ) -> tuple[Array | Pixels, Array]:
        """The rows at `index` and their y; where all rows are one tile they stay there from epoch to epoch."""
        if n == session.n == len(tile.x) and session.whole and session.whole[0] is rows.index:
            return (Pixels(tile.x) if rows.X.dtype == np.uint8 else tile.x), tile.y
        session.whole = (rows.index,)
        pick = visits if rows.index is None else rows.index[visits]
        return self.plan.fetch(rows.X, rows.y, index, pick, tile)

    def middle(self, x: Array | Pixels, y: Array, tile: Tile, parts: Array, slot: int, add: bool) -> None:
        """What `fastmlp.network.loss_and_gradients` does for one hidden layer of ReLU, with all between two products in
        one kernel. x (n, I) -> dW1 (I, H) in g, the sums for dW2, db2 and db1 in the parts."""
        plan, (values, alpha), z1 = self.plan, scaled(x), tile.z[0]
        W2 = layer_views(plan.parameters, plan.sizes)[0][1]  # (H, O) real
        plan.products.multiply(False, False, values, plan.W[0], z1, alpha)  # (N, I)(I, H) -> (N, H)
        cuda.middle(z1, plan.b[0], W2, plan.b[1], y, cuda.Sums(parts, slot, 0))  # z1 is dz1 now
        plan.products.multiply(True, False, values, z1, self.dW[0], alpha * plan.ops.share, float(add))  # (I, N)(N, H)


def plain(network: Network) -> bool:
    """Whether it is one hidden layer of ReLU and a softmax, with nothing beside: what fused kernels take."""
    relu = len(network.sizes) == 3 and network.activation in ("relu", ("relu",))
    return relu and network.loss == "cross_entropy" and not any(network.numbers) and not network.dropout


def tensor_card(plan: CupyPlan) -> Card | None:
    """The card at hand, where the tensor-core kernels can take the network at this precision."""
    if plan.precision != PRECISIONS["float16"] or not plain(plan.network):
        return None
    card = tensor.card()
    return None if unsupported(plan.sizes, card) else card


def sum_places(sizes: tuple[int, ...], fused: bool) -> np.ndarray:
    """Where each partial sum belongs in the gradient (C - 2,): biases by layer, or as `middle` has them."""
    places = np.arange(parameter_count(sizes))
    W, b = layer_views(places, sizes)
    parts = [W[1].ravel(), b[1], b[0]] if fused else b
    return np.concatenate(parts).astype(np.int32)
