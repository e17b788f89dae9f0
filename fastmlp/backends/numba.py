"""The Numba backend: kernels of our own, compiled for this CPU, on a team of plain threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from fastmlp.activations import ACTIVATIONS, IDENTITY, RELU
from fastmlp.backends import compiled, compiled_ops, compiled_update, elements, numpy
from fastmlp.backends.base import HostBackend, Ops, Rows, Totals
from fastmlp.backends.compiled_task import DENSE, MARKED, SPARSE, Buffers, Net, Panel, Task
from fastmlp.backends.compiled_update import L2, LINE
from fastmlp.backends.numpy import PIXEL, Index
from fastmlp.backends.plan import epoch_totals, means, one_by_one
from fastmlp.backends.threads import ENDING, LISTEN, check_ending, cores
from fastmlp.dropout import NONE, step_key
from fastmlp.errors import DataError
from fastmlp.kernels.cpu import csr, fused, sparse
from fastmlp.kernels.cpu import ops as kernels
from fastmlp.kernels.cpu.product import publish
from fastmlp.kernels.cpu.team import STOP, new_team
from fastmlp.kernels.cpu.vector import BFLOAT16, has_bfloat16, register_bytes
from fastmlp.losses import NAMES, SOFTMAX
from fastmlp.network import Layers, Network, layer_views, parameter_count
from fastmlp.optimizers import Optimizer, Settings, Step, corrected_rates, step_scalars

RATE, SHRINK = map(Step._fields.index, ("rate", "shrink"))
LARGE = 1024  # rows: a larger batch is worked through in tiles, a smaller one in phases
ALONE = 1e6  # flop between two barriers below which a second thread does not pay
START = 4e7  # flop below which it does not pay to start one
BRIEF = 1e9  # flop that the calling thread may work through itself before it must listen for Ctrl-C
ROW, STEP = 1e3, 2e5  # flop that could be done in the time of all else a row or a step takes


def rows(X: np.ndarray, index: Index, out: np.ndarray) -> np.ndarray:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X."""
    pixel = out.dtype.type(PIXEL if X.dtype == np.uint8 else 1)
    if not isinstance(index, slice):
        fused.gather(X, index, pixel, out)
    elif X.dtype == np.uint8:
        fused.scale(X[index], pixel, out)
    else:
        return X[index]  # (N, I), no copy
    return out


def affine(x: np.ndarray, W: np.ndarray, b: np.ndarray, out: np.ndarray, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    publish(out.dtype.name)
    kernels.affine(x, W, b, out, relu)


def softmax_cross_entropy(
    z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray, weight: np.ndarray | None = None,
    numbers: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y, weight (N,)."""
    numbers, weight = np.array(numbers, z.dtype), z[:0, 0] if weight is None else weight
    fused.softmax_cross_entropy(z, y, z.dtype.type(scale), dz, totals, weight, numbers)


def activate(kind: int, z: np.ndarray, a: np.ndarray) -> None:
    """a = f(z). z (N, H) -> a (N, H)."""
    compiled_ops.activate(elements.activation(list(ACTIVATIONS)[kind], z.dtype), z, a)


def elementwise_loss(
    kind: int, z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray,
    weight: np.ndarray | None, numbers: np.ndarray,
) -> None:  # fmt: skip
    """dz = dloss/dz * scale; totals += [sum of losses, right answers]. z, y, dz (N, O), weight (N,), numbers (O,)."""
    compiled_ops.loss(loss_address(kind, z.dtype), z, y, weight, numbers, scale, dz, totals)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    publish(out.dtype.name)
    kernels.backprop_relu(dz, np.ascontiguousarray(W.T), a, out)


def backprop(kind: int, dz: np.ndarray, W: np.ndarray, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
    publish(out.dtype.name)
    address = 0 if kind == IDENTITY else elements.activation(list(ACTIVATIONS)[kind], z.dtype)
    compiled_ops.backprop(address, dz, np.ascontiguousarray(W.T), z, a, out)


def weight_gradient(a: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    publish(dW.dtype.name)
    kernels.weight_gradient(a, dz, dW, db, add)


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters in one pass. w (P,), g (P,), s (S, P)."""
    numbers = np.array([[h]], w.dtype)  # (1, 1, 8)
    compiled_update.update(moves_of(elements.rule(rule.__name__, w.dtype), w, g[None], s, numbers))


def moves_of(
    rule: int, w: np.ndarray, g: np.ndarray, s: Iterable[np.ndarray], h: np.ndarray, clip: float = 0.0
) -> compiled_update.Moves:
    """What compiled code takes to move the parameters. w (P,), g (threads, P), s (S, P), h (1 or 2, steps, 8)."""
    states = (*s, w[:0], w[:0])[:2]  # rules keep two arrays at most
    return compiled_update.Moves(rule, w, g, states, h, clip, np.zeros(len(g)))


def publish_all(dtype: np.dtype, rounded: bool) -> None:
    """Make what compiled code calls by name known to it; products round to bfloat16 where `rounded`."""
    publish(BFLOAT16 if rounded else dtype.name)
    elements.publish_dropout(dtype)


def dropout(a: np.ndarray, share: float, key: np.uint64, first: int, out: np.ndarray) -> None:
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) -> out (N, H)."""
    elements.publish_dropout(a.dtype)
    compiled_ops.dropout(a, share, key, first, out)


def activation_address(kind: int, dtype: np.dtype) -> int:
    """What compiled code knows an activation by: the identity and ReLU by their numbers, others by address."""
    return kind if kind in (IDENTITY, RELU) else elements.activation(list(ACTIVATIONS)[kind], dtype)


def loss_address(kind: int, dtype: np.dtype) -> int:
    """What compiled code knows a loss by: the address of its C function."""
    return elements.cross_entropy(dtype) if kind == SOFTMAX else elements.elementwise_loss(NAMES[kind], dtype)


def on_lines(rows: int, n: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, n or a few more), each row from the start of a cache line on.

    Vectors then never straddle two lines, and threads that share a row by whole lines never write to the same one.
    """
    n = -(-n * dtype.itemsize // LINE) * LINE // dtype.itemsize
    room = np.zeros(rows * n + LINE // dtype.itemsize, dtype)
    start = -room.ctypes.data % LINE // dtype.itemsize
    return room[start : start + rows * n].reshape(rows, n)


def team_threads(asked: int | None) -> int:
    """Threads of a team: as many as asked for, but one a core at most, since they wait for each other."""
    return min(asked or cores(), cores())


def run_team(threads: int, flop: float, work: Callable[[int, int], None]) -> None:
    """Run work(thread, address of the team's array) in each of `threads` plain threads, and wait for them.

    The calling thread only waits, so that Ctrl-C reaches it, unless the work is brief: then it is one of the team. On
    Ctrl-C it asks the team to stop, waits until all have left, and raises. A thread that raises stops the others, and
    its error is raised here. A caller that Ctrl-C does not reach, but `ENDING`, works alone where one thread is to.
    """
    ending = ENDING.get()
    if threads == 1 and ending is not None:
        work(0, ending.ctypes.data)
        check_ending()
        return
    team, brief = new_team(), flop < BRIEF * threads
    if threads == 1 and brief:
        work(0, team.ctypes.data)
        return
    errors: list[BaseException] = []
    left = [threading.Event() for _ in range(threads)]

    def member(thread: int) -> None:
        try:
            work(thread, team.ctypes.data)
        except BaseException as error:
            errors.append(error)
            team[STOP] = 1
        finally:
            left[thread].set()

    for thread in range(brief, threads):
        try:
            threading.Thread(target=member, args=(thread,), daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads: those that run must not wait for this one
            errors.append(error)
            team[STOP] = 1
            for event in left[thread:]:
                event.set()
            break
    if brief:
        member(0)
    interrupt: KeyboardInterrupt | None = None
    for event in left:
        while not event.is_set():  # not Thread.join: interrupted once, it would not wait again
            try:
                event.wait(LISTEN)
            except KeyboardInterrupt as error:
                interrupt, team[STOP] = error, 1
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]


class NumbaPlan:
    """A network on compiled kernels; it works in the parameters' own array."""

    def __init__(self, network: Network, parameters: np.ndarray, threads: int, precision: str | None = None):
        self.rounded = precision == BFLOAT16
        run_team(1, math.inf, lambda *_: publish_all(parameters.dtype, self.rounded))  # on a thread that Ctrl-C spares
        self.network, self.sizes, self.dtype, self.threads = network, network.sizes, parameters.dtype, threads
        self.parameters = on_lines(1, len(parameters), self.dtype)[0, : len(parameters)]  # (P,)
        self.parameters[:] = parameters
        W, b = self.layers(self.parameters)
        carried = tuple(np.empty(w.T.shape if l else (0, 0), w.dtype) for l, w in enumerate(W))
        kinds = tuple(activation_address(kind, self.dtype) for kind in network.kinds)
        loss = loss_address(network.loss_kind, self.dtype)
        self.net = Net(W, b, carried, kinds, loss, network.loss_numbers(self.dtype))
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

    def buffers(self, n: int, kind: str) -> Buffers:
        """Room for n rows on their way through the network; see `kind`."""
        inputs = 0 if kind == SPARSE else self.sizes[0]
        x, *layers = (np.zeros((n, units), self.dtype) for units in (inputs, *self.sizes[1:]))
        a = tuple(layers)
        z = tuple(np.zeros_like(a[l]) if kept else a[l] for l, kept in enumerate(self.network.keeps_z))
        h = tuple(map(np.zeros_like, a)) if self.network.dropout else a
        marked: Any = sparse.room_for_marks(x) if kind == MARKED else None
        if kind == SPARSE:
            marked = csr.room_for_lists(0, 0, self.dtype)  # `with_lists` gives more
        return Buffers(x, marked, z, a, h, tuple(map(np.zeros_like, a)))

    def tiles(self, kind: str) -> list[Buffers]:
        """Room for a tile of rows for each thread."""
        if kind not in self._tiles:
            self._tiles[kind] = [self.buffers(compiled.TILE, kind) for _ in range(self.threads)]
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
        z = np.empty((X.shape[0], self.sizes[-1]), self.dtype)  # (N, O)
        X = X if isinstance(X, np.ndarray) else self.csr(X)
        flop = (self.flop + ROW) * len(z)
        threads, tiles = self.team_size(flop), self.tiles(self.kind(X))
        run_team(threads, flop, lambda thread, team: compiled.logits(
            thread, threads, team, self.net, X, tiles[thread], z))  # fmt: skip
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


class NumbaLearner:
    """Moves the parameters of a `NumbaPlan`: gradients, optimizer state, steps taken."""

    def __init__(self, plan: NumbaPlan, optimizer: Optimizer, settings: Settings):
        self.plan, self.optimizer, self.settings = plan, optimizer, settings
        self.rule = elements.rule(optimizer.rule.__name__, plan.dtype)
        count = parameter_count(plan.sizes)
        self.g = on_lines(plan.threads, count, plan.dtype)  # (threads, P)
        self.views = [plan.layers(g) for g in self.g]
        self.state = on_lines(optimizer.states, count, plan.dtype)[:, :count]  # (S, P)
        self.steps = 0
        self.batch, self.batch_kind = plan.buffers(0, DENSE), DENSE

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers, and compile: an epoch of no steps."""
        self.run(rows, batch_size, self.numbers(np.zeros(0), None), self.rule)

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each; see `fastmlp.backends.base.Learner`. rates, l2 (steps,)."""
        totals = self.run(rows, batch_size, self.numbers(rates, l2), self.rule)
        self.steps += len(rates)
        return epoch_totals(totals[0], len(rows))

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """Several epochs, in one call of the threads where they take small batches. rates, l2 (E, steps)."""
        if self.in_tiles(batch_size):
            return one_by_one(self, rows, batch_size, rates, l2)
        h = self.numbers(rates.ravel(), None if l2 is None else l2.ravel())  # (2, E * steps, 8)
        totals = self.run(rows, batch_size, h, self.rule, len(rates))
        self.steps += rates.size
        return [epoch_totals(total, len(rows) // len(rates)) for total in totals]

    def gradient(self, rows: Rows) -> tuple[float, np.ndarray]:
        """Mean loss over all `rows` and its gradient (P,); nothing moves and nothing is left out."""
        totals = self.run(rows, len(rows), self.numbers(np.zeros(1), None), 0)
        return means(totals[0], len(rows))[0], self.g[0, : len(self.plan.parameters)].copy()

    def numbers(self, rates: np.ndarray, l2: np.ndarray | None) -> np.ndarray:
        """The numbers of an epoch's steps, a `Step` each: of weights, and of biases, which are not held small.

        rates, l2 (steps,) -> (2, steps, 8).
        """
        t = self.steps + 1 + np.arange(len(rates))  # (steps,)
        h = np.empty((2, len(rates), len(Step._fields)), self.plan.dtype)
        h[:] = step_scalars(self.optimizer.rule, 0.0, self.settings, 1, self.plan.dtype)
        h[:, :, RATE] = corrected_rates(self.optimizer.rule, rates, self.settings, t)
        h[0, :, L2] = 0 if l2 is None else l2
        h[0, :, SHRINK] = rates * self.settings.weight_decay
        return h

    def in_tiles(self, batch_size: int) -> bool:
        """Whether batches pass in tiles: large ones do, and those whose gradient is wanted as a whole, to measure."""
        return batch_size > LARGE or self.settings.clip > 0

    def run(self, rows: Rows, batch_size: int, h: np.ndarray, rule: int, epochs: int = 1) -> np.ndarray:
        """Steps on a team, as many as h (2, steps, 8) has -> (epochs, 3) sums of losses, right answers, penalties.

        Rule 0 moves nothing: the gradient of the last step stays in `g`.
        """
        plan, n, settings = self.plan, len(rows) // epochs, self.settings
        rows = plan.read(rows)
        flop = (3 * plan.flop + ROW) * n * epochs + STEP * h.shape[1]
        threads = plan.team_size(flop) if 3 * plan.flop * min(batch_size, n) > ALONE else 1
        in_tiles = self.in_tiles(batch_size) or not rule
        if not in_tiles:  # a thread owns whole lines of columns
            threads = min(threads, -(-plan.sizes[1] * plan.dtype.itemsize // LINE))
        moves = moves_of(rule, plan.parameters, self.g, self.state, h, settings.clip if rule else 0.0)
        share, key = plan.network.dropout if rule else 0.0, step_key(settings.seed, self.steps + 1)
        totals, sums = np.zeros((threads, 3)), np.zeros((threads, epochs, 3))
        kind = plan.kind(rows.X)
        if in_tiles:
            tiles = [plan.with_lists(tile, rows, compiled.TILE) for tile in plan.tiles(kind)[:threads]]
            if not share:  # nothing is left out now, where the network has room for what stays
                tiles = [tile._replace(h=tile.a) for tile in tiles]

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, rows.index, totals, share, key)
                compiled.epoch_in_tiles(thread, task, moves, tiles[thread], *self.views[thread], batch_size)
                sums[thread, 0] = totals[thread]
        else:
            order = np.arange(len(rows)) if rows.index is None else rows.index  # (epochs * N,)
            if len(self.batch.x) < batch_size or kind != self.batch_kind:
                self.batch, self.batch_kind = plan.buffers(batch_size, kind), kind
            batch = plan.with_lists(self.batch, rows, batch_size)

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, order, totals, share, key)._replace(N=n)
                panel = self.panel(thread, threads, moves)
                compiled.epoch_in_phases(thread, task, moves, panel, batch, batch_size, sums)
                for whole, part in self.columns(panel):
                    whole[:] = part  # (I + 1, last - first)

        run_team(threads, flop, work)
        return np.asarray(sums.sum(axis=0))  # (epochs, 3)

    def panel(self, thread: int, threads: int, moves: compiled_update.Moves) -> Panel:
        """Room for the columns of the first layer that a thread owns during an epoch of small batches."""
        inputs, units = self.plan.sizes[:2]
        first, last = compiled_update.share.py_func(units, thread, threads, LINE // self.plan.dtype.itemsize)
        count = (inputs + 1) * (last - first)
        w, *s = on_lines(1 + len(self.state), count, self.plan.dtype)[:, :count]
        panel = Panel(first, last, moves_of(self.rule, w, self.g[thread : thread + 1], s, moves.h))
        for whole, part in self.columns(panel):
            part[:] = whole  # (I + 1, last - first)
        return panel

    def columns(self, panel: Panel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A panel's columns of W[0] and b[0], and of their states: as they lie in the whole, and the panel's own.

        Both (I + 1, last - first).
        """
        inputs, units = self.plan.sizes[:2]
        parts = panel.moves.w, *panel.moves.s
        for whole, part in zip((self.plan.parameters, *self.state), parts, strict=False):
            columns = whole[: (inputs + 1) * units].reshape(inputs + 1, units)[:, panel.first : panel.last]
            yield columns, part.reshape(columns.shape)


class NumbaBackend(HostBackend):
    """Compiled kernels: products at the CPU's vector width, with everything around them fused in."""

    name = "numba"
    ops = Ops(
        rows, affine, activate, dropout, softmax_cross_entropy, elementwise_loss, backprop_relu, backprop,
        weight_gradient, update, numpy.add_squares, numpy.clip,
    )  # fmt: skip

    def __init__(self) -> None:
        if numba.njit(lambda x: x + 1)(1) != 2:  # raises where Numba cannot compile
            raise RuntimeError("compiled code gave a wrong sum")
        if has_bfloat16():
            self.precisions = (*self.precisions, BFLOAT16)
        else:
            self.refusals = {BFLOAT16: "this CPU has no AVX-512 BF16"}

    def plan(
        self, network: Network, parameters: np.ndarray, threads: int | None, precision: str | None = None
    ) -> NumbaPlan:
        """A network on this backend."""
        return NumbaPlan(network, parameters, team_threads(threads), precision)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[Any]:
        """Nothing to do: a plan starts as many threads as it was given."""
        return nullcontext()

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The kernels that multiply, the threads of a team, and the versions."""
        width = {64: "AVX-512", 32: "AVX2", 16: "128-bit vectors"}[register_bytes()]
        return {
            "blas": f"own kernels, {width}",
            "threads": team_threads(threads),
            "versions": {"numpy": np.__version__, "numba": numba.__version__},
        }
