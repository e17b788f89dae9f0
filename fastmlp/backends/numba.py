"""The Numba backend: kernels of our own, compiled for this CPU, on a team of plain threads."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numba
import numpy as np

from fastmlp.activations import KINDS
from fastmlp.backends import compiled, compiled_update, numpy
from fastmlp.backends.base import HostBackend, Ops, Rows
from fastmlp.backends.compiled_update import LINE
from fastmlp.backends.numpy import PIXEL, Index
from fastmlp.backends.plan import OpsPlan, means
from fastmlp.kernels.cpu import fused, sparse
from fastmlp.kernels.cpu import ops as kernels
from fastmlp.kernels.cpu.product import publish
from fastmlp.kernels.cpu.team import STOP, new_team
from fastmlp.kernels.cpu.vector import register_bytes
from fastmlp.network import Network, layer_views, parameter_count
from fastmlp.optimizers import Optimizer, Settings, Step, corrected_rates, step_scalars

LARGE = 1024  # rows: a larger batch is worked through in tiles, a smaller one in two phases
ALONE = 1e6  # flop between two barriers below which a second thread does not pay
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
    numbers: Sequence[float] | np.ndarray = (0.0, 0.0),
) -> None:  # fmt: skip
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y, weight (N,)."""
    if weight is not None or any(numbers):
        numpy.softmax_cross_entropy(z, y, scale, dz, totals, weight, numbers)
        return
    fused.softmax_cross_entropy(z, y, z.dtype.type(scale), dz, totals)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    publish(out.dtype.name)
    kernels.backprop_relu(dz, np.ascontiguousarray(W.T), a, out)


def backprop(kind: int, dz: np.ndarray, W: np.ndarray, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
    affine(dz, np.ascontiguousarray(W.T), np.zeros(len(W), W.dtype), out, False)  # (N, O)(O, H) -> (N, H)
    out *= KINDS[kind].slope(z, a)  # (N, H)


def weight_gradient(a: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    publish(dW.dtype.name)
    kernels.weight_gradient(a, dz, dW, db, add)


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters in one pass. w (P,), g (P,), s (S, P)."""
    compiled_update.update(moves_of(rule, w, g[None], s, h, np.array([h.rate])))


def moves_of(
    rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: Iterable[np.ndarray], h: Step, rates: np.ndarray
) -> compiled_update.Moves:
    """What compiled code takes to move the parameters. w (P,), g (threads, P), s (S, P), rates (steps,)."""
    states = (*s, w[:0], w[:0])[:2]  # rules keep two arrays at most
    return compiled_update.Moves(compiled_update.RULES.index(rule), w, g, states, h, rates)


def on_lines(rows: int, n: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, n or a few more), each row from the start of a cache line on.

    Vectors then never straddle two lines, and threads that share a row by whole lines never write to the same one.
    """
    n = -(-n * dtype.itemsize // LINE) * LINE // dtype.itemsize
    room = np.zeros(rows * n + LINE // dtype.itemsize, dtype)
    start = -room.ctypes.data % LINE // dtype.itemsize
    return room[start : start + rows * n].reshape(rows, n)


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def team_threads(asked: int | None) -> int:
    """Threads of a team: as many as asked for, but one a core at most, since they wait for each other."""
    return min(asked or cores(), cores())


def run_team(threads: int, flop: float, work: Callable[[int, int], None]) -> None:
    """Run work(thread, address of the team's array) in each of `threads` plain threads, and wait for them.

    The calling thread only waits, so that Ctrl-C reaches it, unless the work is brief; it then asks the team to stop,
    waits until all have left, and raises. A thread that raises stops the others, and its error is raised here.
    """
    team = new_team()
    if threads == 1 and flop < BRIEF:
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

    for thread in range(threads):
        try:
            threading.Thread(target=member, args=(thread,), daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads: those that run must not wait for this one
            errors.append(error)
            team[STOP] = 1
            for event in left[thread:]:
                event.set()
            break
    interrupt: KeyboardInterrupt | None = None
    for event in left:
        while not event.is_set():  # not Thread.join: interrupted once, it would not wait again
            try:
                event.wait()
            except KeyboardInterrupt as error:
                interrupt, team[STOP] = error, 1
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]


class NumbaPlan:
    """A network on compiled kernels; it works in the parameters' own array."""

    def __init__(self, sizes: Sequence[int], parameters: np.ndarray, threads: int):
        run_team(1, math.inf, lambda *_: publish(parameters.dtype.name))  # compiles: on a thread that Ctrl-C spares
        self.sizes, self.dtype, self.threads = tuple(sizes), parameters.dtype, threads
        self.parameters = on_lines(1, len(parameters), self.dtype)[0, : len(parameters)]  # (P,)
        self.parameters[:] = parameters
        W, b = layer_views(self.parameters, self.sizes)
        carried = tuple(np.empty(w.T.shape if l else (0, 0), self.dtype) for l, w in enumerate(W))
        self.net = compiled.Net(W, b, carried)
        self._tiles: dict[bool, list[compiled.Buffers]] = {}
        self.flop = 2 * sum(w.size for w in W)  # of one row forward

    def buffers(self, n: int, skip: bool) -> compiled.Buffers:
        """Room for n rows on their way through the network, and for the places of their non-zeros if `skip`."""
        x, *a = (np.zeros((n, units), self.dtype) for units in self.sizes)
        marked = sparse.room_for_marks(x) if skip else None
        return compiled.Buffers(x, marked, tuple(a), tuple(np.zeros_like(layer) for layer in a))

    def tiles(self, skip: bool) -> list[compiled.Buffers]:
        """Room for a tile of rows for each thread."""
        if skip not in self._tiles:
            self._tiles[skip] = [self.buffers(compiled.TILE, skip) for _ in range(self.threads)]
        return self._tiles[skip]

    def team_size(self, flop: float) -> int:
        """Threads for so much work between two barriers."""
        return self.threads if flop > ALONE else 1

    def task(
        self, rows: Rows, threads: int, address: int, order: np.ndarray | None, totals: np.ndarray
    ) -> compiled.Task:
        """What the threads of a team share."""
        return compiled.Task(address, threads, self.net, rows.X, rows.y, order, len(rows), totals)

    def logits(self, X: np.ndarray) -> np.ndarray:
        """The last layer's z of rows X (N, I), uint8 or the network's type -> (N, O), a new array."""
        z = np.empty((len(X), self.sizes[-1]), self.dtype)  # (N, O)
        flop = (self.flop + ROW) * len(X)
        threads, tiles = self.team_size(flop), self.tiles(sparse.worth_marking(X))
        run_team(threads, flop, lambda thread, team: compiled.logits(
            thread, threads, team, self.net, X, tiles[thread], z))  # fmt: skip
        return z

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""
        flop = (self.flop + ROW) * len(rows)
        threads, tiles = self.team_size(flop), self.tiles(sparse.worth_marking(rows.X))
        totals = np.zeros((threads, 2))
        run_team(threads, flop, lambda thread, team: compiled.evaluate(
            thread, self.task(rows, threads, team, rows.index, totals), tiles[thread]))  # fmt: skip
        return means(totals.sum(axis=0), len(rows))

    def learner(self, optimizer: Optimizer, learning_rate: float, beta: float) -> NumbaLearner:
        """What moves the parameters."""
        return NumbaLearner(self, optimizer, learning_rate, beta)


class NumbaLearner:
    """Moves the parameters of a `NumbaPlan`: gradients, optimizer state, steps taken."""

    def __init__(self, plan: NumbaPlan, optimizer: Optimizer, learning_rate: float, beta: float):
        self.plan, self.rule, self.learning_rate, self.beta = plan, optimizer.rule, learning_rate, beta
        count = parameter_count(plan.sizes)
        self.gradient = on_lines(plan.threads, count, plan.dtype)  # (threads, P)
        self.views = [layer_views(gradient, plan.sizes) for gradient in self.gradient]
        self.state = on_lines(optimizer.states, count, plan.dtype)[:, :count]  # (S, P)
        self.steps = 0
        self.batch = plan.buffers(0, skip=False)

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers, and compile: an epoch of no steps."""
        self.run(rows, batch_size, 0)

    def epoch(self, rows: Rows, batch_size: int) -> tuple[float, float]:
        """One pass over `rows` in batches; mean loss and accuracy, each batch's taken before its own step."""
        steps = -(-len(rows) // batch_size)
        totals = self.run(rows, batch_size, steps)
        self.steps += steps
        return means(totals, len(rows))

    def run(self, rows: Rows, batch_size: int, steps: int) -> np.ndarray:
        """The first `steps` steps of an epoch on a team -> [sum of losses, right answers]."""
        plan, n = self.plan, len(rows)
        t = self.steps + 1 + np.arange(steps)  # (steps,)
        rates = corrected_rates(self.rule, self.learning_rate, Settings(beta=self.beta), t).astype(
            plan.dtype
        )  # (steps,)
        h = step_scalars(self.rule, self.learning_rate, Settings(beta=self.beta), 1, plan.dtype)
        moves = moves_of(self.rule, plan.parameters, self.gradient, self.state, h, rates)
        threads = plan.team_size(3 * plan.flop * min(batch_size, n))
        if batch_size <= LARGE:  # a thread owns whole lines of columns
            threads = min(threads, -(-plan.sizes[1] * plan.dtype.itemsize // LINE))
        totals = np.zeros((threads, 2))
        skip = sparse.worth_marking(rows.X)
        if batch_size > LARGE:
            tiles = plan.tiles(skip)

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, rows.index, totals)
                compiled.epoch_in_tiles(thread, task, moves, tiles[thread], *self.views[thread], batch_size)
        else:
            order = np.arange(n) if rows.index is None else rows.index
            if len(self.batch.x) < batch_size or skip != (self.batch.marked is not None):
                self.batch = plan.buffers(batch_size, skip)

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, order, totals)
                compiled.epoch_in_phases(
                    thread, task, moves, self.panel(thread, threads, moves), self.batch, batch_size
                )

        run_team(threads, (3 * plan.flop + ROW) * n + STEP * steps, work)
        return np.asarray(totals.sum(axis=0))

    def panel(self, thread: int, threads: int, moves: compiled_update.Moves) -> compiled.Panel:
        """Room for the columns of the first layer that a thread owns during an epoch of small batches."""
        inputs, units = self.plan.sizes[:2]
        first, last = compiled_update.share.py_func(units, thread, threads, LINE // self.plan.dtype.itemsize)
        count = (inputs + 1) * (last - first)
        w, *s = on_lines(1 + len(self.state), count, self.plan.dtype)[:, :count]
        return compiled.Panel(
            first, last, moves_of(self.rule, w, self.gradient[thread : thread + 1], s, moves.h, moves.rates)
        )


class NumbaBackend(HostBackend):
    """Compiled kernels: products at the CPU's vector width, with everything around them fused in."""

    name = "numba"
    ops = Ops(
        rows, affine, numpy.activate, numpy.dropout, softmax_cross_entropy, numpy.elementwise_loss, backprop_relu,
        backprop, weight_gradient, update, numpy.add_squares, numpy.clip,
    )  # fmt: skip

    def __init__(self) -> None:
        if numba.njit(lambda x: x + 1)(1) != 2:  # raises where Numba cannot compile
            raise RuntimeError("compiled code gave a wrong sum")

    def plan(self, network: Network, parameters: np.ndarray, threads: int | None) -> OpsPlan:
        """A network on this backend."""
        return OpsPlan(self, network, parameters)

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
