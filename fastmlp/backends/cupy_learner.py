"""Training on a GPU: steps whose kernels are launched one by one, or all at once as a CUDA graph.

A step is the same launches either way, on the same addresses, so both give the same bits. What changes from step to
step, the rows to take, the learning rate, the key of dropout, is uploaded once a call, and found there by the kernels.
Nothing crosses to the host until the totals do.
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
from fastmlp.backends.cupy_data import rows_at, with_room
from fastmlp.backends.cupy_fused import ColumnSums, plain, sum_places, tensor_card
from fastmlp.backends.cupy_ops import Delta, Pixels, StepKey, operand, scaled
from fastmlp.backends.cupy_session import Session, padded
from fastmlp.backends.plan import epoch_totals
from fastmlp.dropout import Dropout, step_key
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda import tensor, tensor_tiles
from fastmlp.network import deltas, forward, gradients, layer_views, loss_and_gradients
from fastmlp.optimizers import Optimizer, Settings, step_table

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
        Whether one kernel does what lies between the last hidden layer's product and that layer's delta.
    refusal : str
        Why launches are not captured as graphs; empty where they may be.
    """

    def __init__(self, plan: CupyPlan, optimizer: Optimizer, settings: Settings):
        self.plan, self.rule, self.settings, self.steps = plan, optimizer.rule, settings, 0
        self.launches, self.refusal = "", plan.products.refusal
        real, P = plan.precision.real, len(plan.parameters)
        self.fused = plain(plan.network) and cuda.middle_fits(*plan.sizes[-2:], real)
        with plan.here():
            self.tensor = tensor_card(plan)
            self.g = cupy.zeros(P, real)  # (P,)
            self.state = cupy.zeros((optimizer.states, P), real)  # (S, P)
            self.lengths = cupy.zeros(cuda.LENGTHS, real)
            counts = [array.size for layer in zip(plan.W, plan.b, strict=True) for array in layer]
            self.ends = cupy.asarray(np.cumsum(counts, dtype=np.int64))  # (2 L,)
            self.places = {fused: cupy.asarray(sum_places(plan.sizes, fused)) for fused in {False, self.fused}}
        self.dW, self.db = layer_views(self.g, plan.sizes)
        self.tile: Any = None  # Tile, made for the first step
        self.parts: Array = None  # (T, C) real, made with the tile
        self.session: Session | None = None
        self.compiled: set[tuple[Any, ...]] = set()  # kinds of steps that ran already: see `repeat`

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers and compile the kernels, by a step of each size there is, which is then taken back."""
        n, batch = len(rows), min(batch_size, len(rows))
        few = batch + n % batch
        index = np.arange(few) if rows.index is None else rows.index[:few]
        weight = None if rows.weight is None else rows.weight[:few]
        with self.plan.here():
            before = self.plan.parameters.copy(), self.state.copy()
        steps = self.steps
        try:
            self.run(Rows(rows.X, rows.y, index, weight), batch, np.zeros((1, -(-few // batch))), None)
        finally:
            self.steps = steps
            with self.plan.here():
                self.plan.parameters[:], self.state[:] = before

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each; see `fastmlp.backends.base.Learner`. rates, l2 (steps,)."""
        return self.run(rows, batch_size, rates[None], None if l2 is None else l2[None])[0]

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """Several epochs; the host waits for the last. rates, l2 (E, steps)."""
        return self.run(rows, batch_size, rates, l2)

    def run(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None) -> list[Totals]:
        """E epochs, of as many rows each. rates, l2 (E, steps)."""
        count, n = len(rates), len(rows) if rows.index is None else len(rows) // len(rates)
        batch = min(batch_size, n)
        whole, rest = divmod(n, batch)
        epoch = [(batch, whole), *[(rest, 1)] * (rest > 0)]  # rows of a step, steps
        real, strengths = self.plan.precision.real, np.zeros(rates.size) if l2 is None else l2.ravel()
        table = step_table(self.rule, rates.ravel(), self.settings, self.steps + 1, real, strengths)  # (steps, 8)
        with self.plan.here():
            session = self.open(rows, n, batch, table, bool(strengths.any()))
            parts = [(n, count)] if batch == n else epoch * count
            one_by_one = [why for size, times in parts if (why := self.repeat(session, rows, size, times))]
            self.steps += rates.size
            totals = session.epoch.totals.get()[: rates.size]  # the one time an epoch reads from the device
        graphs = f"CUDA graphs of up to {GRAPH_STEPS} steps"
        self.launches = f"one by one: {one_by_one[0]}" if one_by_one else graphs
        if batch == n and not session.work and not session.weighted and (count == 1 or rows.index is None):
            session.whole = (rows.index,)
        return [epoch_totals(part, n) for part in totals.reshape(count, -1, cuda.TOTALS).sum(axis=1)]

    def gradient(self, rows: Rows) -> tuple[float, np.ndarray]:
        """Mean loss over all `rows` and its gradient (P,), on the host; nothing moves and nothing is left out."""
        n = len(rows)
        with self.plan.here():
            table = np.zeros((1, cuda.NUMBERS), self.plan.precision.real)
            session = self.open(rows, n, n, table, False, library=True)
            sums = self.collect(session, rows, session.epoch, 0, n, dropout.NONE)
            cuda.finish(sums.parts, sums.where, 1 / n, self.g, session.epoch, self.plan.precision.item)
            return float(session.epoch.totals.get()[0, 0]) / n, np.asarray(self.g.get())

    def open(
        self, rows: Rows, n: int, batch: int, table: np.ndarray, penalty: bool, *, library: bool = False
    ) -> Session:
        """The session for a call over `rows`, n an epoch, its places filled; `library` leaves out tensor kernels."""
        steps, session = len(table), self.session
        card = self.tensor if not library and self.takes(rows, batch) else None
        fits = session is not None and session.fits(rows, n, batch, steps, penalty)
        if session is None or not fits or (session.work is None) != (card is None):
            self.session = session = None  # the old places go before the new ones come
            session = Session(rows, n, batch, steps // -(-n // batch), penalty, self.plan.precision.real)
            if card:
                batches = (batch, n % batch) if n % batch else (batch,)
                session.work = tensor.allocate(self.plan.sizes, batches, card)
                session.packed = with_room(partial(padded, rows.X))
            else:
                self.make_room(batch)
            self.session = session  # not before it has all it needs
        session.fill(rows, table, step_key(self.settings.seed, self.steps + 1))
        session.kept = bool(session.whole) and session.whole[0] is rows.index and len(self.tile.x) == n
        session.whole = ()  # until the call has come to its end
        if session.work:
            tensor.halve(session.work, self.plan.parameters)
        else:
            self.plan.refresh()
        return session

    def takes(self, rows: Rows, batch: int) -> bool:
        """Whether the tensor-core kernels take batches of so many of these rows."""
        uint8 = isinstance(rows.X, cupy.ndarray) and rows.X.dtype == np.uint8
        return uint8 and batch <= tensor_tiles.MOST_ROWS and not self.settings.clip

    def make_room(self, batch: int) -> None:
        """Buffers for a step of `batch` rows, in tiles where they are too many."""
        plan, columns = self.plan, max(map(len, self.places.values())) + 2
        tried = plan.tile_rows
        while True:
            spans = list(plan.spans(batch, batch))
            most, size = spans[0][1], columns * sum(cuda.most_slots(last - first) for first, last in spans)
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

    def repeat(self, session: Session, rows: Rows, n: int, times: int) -> str:
        """So many steps of n rows each. Returns why they were not launched as graphs; nothing where they were."""
        why_not = (
            "rows come from the host's memory" if not isinstance(rows.X, cupy.ndarray)
            else "a batch takes several tiles" if n > self.plan.tile_rows
            else self.refusal
        )  # fmt: skip
        done = 0
        kind = n, rows.X.dtype, session.weighted, session.penalty, session.work is None
        if not why_not and kind not in self.compiled:  # a capture must not compile; what is left are whole graphs
            done = (times - 1) % GRAPH_STEPS + 1
            self.launch(session, rows, n, done)
            session.meet()
            self.compiled.add(kind)
        whole, rest = divmod(times - done, GRAPH_STEPS)
        for steps in (*[rest] * (rest > 0), *[GRAPH_STEPS] * whole):  # the card begins while the host launches the next
            if why_not:
                break
            key = n, steps, session.kept
            try:
                graph = session.graphs.get(key) or self.capture(session, rows, n, steps)
            except Exception as error:  # whatever a driver has against it: the steps can be launched all the same
                why_not = self.refusal = f"{type(error).__name__}: {error}".splitlines()[0]
                break
            session.graphs[key] = graph
            session.meet()
            graph.launch()
            session.count(n, steps, graph=True)
            done += steps
        self.launch(session, rows, n, times - done)
        return why_not

    def launch(self, session: Session, rows: Rows, n: int, steps: int) -> None:
        """So many steps of n rows each, kernel by kernel."""
        for _ in range(steps):
            self.step(session, rows, session.next(), session.visit, n)
            session.count(n, 1)

    def capture(self, session: Session, rows: Rows, n: int, steps: int) -> Any:
        """A graph of so many steps of n rows; nothing runs yet."""
        stream, visits = self.plan.stream, session.visits(n)
        stream.begin_capture()
        try:
            for k in range(steps):
                self.step(session, rows, session.epoch._replace(step=k, visit=k * visits), 0, n)
            cuda.go_on(session.epoch, steps, steps * visits)
        except BaseException:
            with suppress(Exception):  # the first error made the capture invalid, and is the one to tell
                stream.end_capture()
            raise
        return stream.end_capture()

    def step(self, session: Session, rows: Rows, epoch: cuda.Epoch, start: int, n: int) -> None:
        """A step on n rows; `start` is its first visit, for rows that come from the host."""
        plan, settings, item = self.plan, self.settings, self.plan.precision.item
        rule = self.rule.__name__
        if session.penalty:
            cuda.squares(plan.parameters, self.ends, self.lengths, item, weights=True)
            cuda.add_penalty(self.lengths, epoch, n, item)
        if session.work:
            follows = epoch.step > 0 and not session.penalty  # as in a graph: what came before is a step of its own
            tensor.forward(session.work, session.packed, session.y, epoch, n, plan.parameters, follows=follows)
            tensor.step(session.work, session.packed, epoch, n, rule, plan.parameters, self.state)
            return
        sums = self.collect(session, rows, epoch, start, n, Dropout(plan.network.dropout, StepKey(epoch), 0))
        moved = plan.parameters, self.g, self.state, plan.copy, epoch, self.ends
        if settings.clip:
            cuda.finish(sums.parts, sums.where, 1 / n, self.g, epoch, item)
            cuda.squares(self.g, self.ends, self.lengths, item, weights=False)
            cuda.update_clipped(rule, *moved, self.lengths, settings.clip)
        else:
            cuda.update(rule, *moved, *sums, 1 / n)

    def collect(self, session: Session, rows: Rows, epoch: cuda.Epoch, start: int, n: int, drop: Dropout) -> ColumnSums:
        """The gradient of the n rows of a step, that of some weights in g and the rest in parts, which come back."""
        plan = self.plan
        fused = self.fused and not session.weighted
        where = self.places[fused]
        C, end = len(where) + 2, len(plan.parameters) - fused * (plan.W[-1].size + plan.b[-1].size)
        parts = self.parts[: len(self.parts) // C * C].reshape(len(self.parts) // C, C)
        plan.ops.share, slot = 1 / n, 0
        for first, last in plan.spans(n, n):
            tile = self.tile.first(last - first)
            if not session.kept:
                plan.fetch(rows.X, rows.y, epoch, first, rows_at(rows, slice(start + first, start + last)), tile)
            x = operand(tile.x, rows.X)
            if fused:
                self.middle(x, tile, parts, slot, first > 0)
            else:
                loss_and_gradients(
                    plan.ops, plan.network, plan.numbers, x, tile.y, tile.weight if session.weighted else None,
                    1.0, plan.W, plan.b, plan.units(tile, parts, slot, leaves_out=drop.share > 0), self.dW, self.db,
                    epoch.totals, first > 0, drop._replace(first=first),
                )  # fmt: skip
            slot += cuda.slots(last - first)
        return ColumnSums(parts[:slot], where, end)

    def middle(self, x: Array | Pixels, tile: Tile, parts: Array, slot: int, add: bool) -> None:
        """What `fastmlp.network.loss_and_gradients` does, one kernel leading from the last hidden layer's z, before its
        bias, to its dz. x (n, I) -> dW of the layers up to that one in g; the sums for the last dW and all db in parts.
        """
        plan, kinds, W, b, z, a = self.plan, self.plan.network.kinds, self.plan.W, self.plan.b, tile.z, tile.a
        forward(plan.ops, kinds[:-2], x, W[:-2], b[:-2], z[:-2], a[:-2], a[:-2], dropout.NONE)
        values, alpha = scaled((x, *a[:-2])[-1])
        plan.products.multiply(False, False, values, W[-2], a[-2], alpha)  # (N, H_l-1)(H_l-1, H) -> (N, H)
        last_W, sums = layer_views(plan.parameters, plan.sizes)[0][-1], cuda.Sums(parts, slot, int(plan.columns[-3]))
        cuda.middle(a[-2], b[-2], last_W, b[-1], tile.y, sums)  # what was z is dz now
        dz = (*plan.deltas(tile, parts, slot)[:-2], Delta(a[-2], sums))
        deltas(plan.ops, kinds[:-1], W[:-1], z[:-1], a[:-1], dz, dropout.NONE)
        gradients(plan.ops, x, a[:-1], dz, self.dW[:-1], self.db[:-1], add)
