"""What moves the parameters of a network on compiled kernels, by steps over tiles or in phases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.backends import compiled, compiled_update, elements
from fastmlp.backends.base import Rows, Totals
from fastmlp.backends.compiled_task import DENSE, SPARSE, Buffers, Panel
from fastmlp.backends.compiled_update import L2, LINE
from fastmlp.backends.numba_ops import moves_of
from fastmlp.backends.numba_team import ROW, STEP, run_team
from fastmlp.backends.numba_ways import TILE, in_tiles
from fastmlp.backends.plan import epoch_totals, means
from fastmlp.dropout import step_key
from fastmlp.network import parameter_count
from fastmlp.optimizers import Optimizer, Settings, Step, corrected_rates, step_scalars

if TYPE_CHECKING:
    from fastmlp.backends.numba_plan import NumbaPlan

RATE, SHRINK = map(Step._fields.index, ("rate", "shrink"))
ALONE = 1e6  # flop of a step in tiles below which a second thread does not pay; in phases it is half of it


class NumbaLearner:
    """Moves the parameters of a `NumbaPlan`: gradients, optimizer state, steps taken."""

    def __init__(self, plan: NumbaPlan, optimizer: Optimizer, settings: Settings):
        self.plan, self.optimizer, self.settings = plan, optimizer, settings
        self.rule = elements.rule(optimizer.rule.__name__, plan.dtype)
        count = parameter_count(plan.sizes)
        self.g = plan.pages.on_lines(plan.threads, count, plan.dtype)  # (threads, P)
        self.views = [plan.layers(g) for g in self.g]
        self.state = plan.pages.on_lines(optimizer.states, count, plan.dtype)[:, :count]  # (S, P)
        self.step = np.array(step_scalars(optimizer.rule, 0.0, settings, 1, plan.dtype))  # (8,) what all steps share
        self.steps = 0
        self.batches, self.batch_kind = self.rooms(0, DENSE), DENSE
        self.parts = np.empty((0, 0), plan.dtype)  # (threads, batch_size * O or more) see `compiled.epoch_in_phases`
        self.own: list[np.ndarray] = []  # room for each thread's panel and its state, made for a number of threads

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make the buffers, and compile: an epoch of no steps."""
        self.run(rows, batch_size, self.numbers(np.zeros(0), None), self.rule)

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each; see `fastmlp.backends.base.Learner`. rates, l2 (steps,)."""
        totals = self.run(rows, batch_size, self.numbers(rates, l2), self.rule)
        self.steps += len(rates)
        return epoch_totals(totals[0], len(rows))

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """Several epochs, in one call of the threads. rates, l2 (E, steps)."""
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
        h[:] = self.step
        h[:, :, RATE] = corrected_rates(self.optimizer.rule, rates, self.settings, t)
        if l2 is not None:
            h[0, :, L2] = l2
        if self.settings.weight_decay:
            h[0, :, SHRINK] = rates * self.settings.weight_decay
        return h

    def run(self, rows: Rows, batch_size: int, h: np.ndarray, rule: int, epochs: int = 1) -> np.ndarray:
        """Steps on a team, as many as h (2, steps, 8) has -> (epochs, 3) sums of losses, right answers, penalties.

        Rule 0 moves nothing: the gradient of the last step stays in `g`.
        """
        plan, n, settings = self.plan, len(rows) // epochs, self.settings
        rows = plan.read(rows)
        flop = (3 * plan.flop + ROW) * n + STEP * -(-n // batch_size)  # of an epoch: of many in one call, each alike
        tiled = not rule or in_tiles(plan.sizes, min(batch_size, n), plan.threads, settings.clip)
        alone = 3 * plan.flop * min(batch_size, n) <= (ALONE if tiled else ALONE / 2)
        threads = 1 if alone else plan.team_size(flop)
        if not tiled:  # a thread owns whole lines of units
            threads = min(threads, -(-plan.sizes[1] * plan.dtype.itemsize // LINE))
        moves = moves_of(rule, plan.parameters, self.g, self.state, h, settings.clip if rule else 0.0)
        share, key = plan.network.dropout if rule else 0.0, step_key(settings.seed, self.steps + 1)
        totals, sums = np.zeros((threads, 3)), np.zeros((threads, epochs, 3))
        kind = plan.kind(rows.X)
        if tiled:
            tiles = [plan.with_lists(tile, rows, TILE) for tile in plan.tiles(kind)[:threads]]
            if plan.network.dropout and not share:  # nothing is left out now: what stays needs no room
                tiles = [tile._replace(h=tile.a) for tile in tiles]

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, rows.index, totals, share, key)._replace(N=n)
                compiled.epoch_in_tiles(thread, task, moves, tiles[thread], *self.views[thread], batch_size, sums)
        else:
            order = np.arange(len(rows)) if rows.index is None else rows.index  # (epochs * N,)
            if len(self.batches[0].x) < batch_size or kind != self.batch_kind:
                self.batches, self.batch_kind = self.rooms(batch_size, kind), kind
                self.parts = plan.pages.on_lines(plan.threads, batch_size * plan.sizes[2], plan.dtype)
            if len(self.own) != threads:
                self.own = self.own_rooms(threads)
            lists = plan.with_lists(self.batches[0], rows, batch_size).marked

            def work(thread: int, team: int) -> None:
                task = plan.task(rows, threads, team, order, totals, share, key)._replace(N=n)
                panel = self.panel(thread, threads, moves)
                batch = self.batches[thread]
                if kind == SPARSE:
                    batch = batch._replace(marked=lists)
                compiled.epoch_in_phases(thread, task, moves, panel, self.parts[:threads], batch, batch_size, sums)
                for whole, part in self.places(panel):
                    whole[:] = part

        run_team(threads, flop * epochs, work)
        return np.asarray(sums.sum(axis=0))  # (epochs, 3)

    def rooms(self, n: int, kind: str) -> list[Buffers]:
        """Room for a batch of n rows, one a thread; see `Buffers` for what of it is the thread's own.

        All threads read all rows of the input, and what one core has written comes slowly to another.
        """
        shared = self.plan.buffers(n, kind)
        rooms = [shared]
        for _ in range(1, self.plan.threads):
            x, marked, *own = self.plan.buffers(n, kind)
            rooms.append(
                Buffers(x, marked, *((mine[0], *ours[1:]) for mine, ours in zip(own, shared[2:], strict=True)))
            )
        return rooms

    def units(self, thread: int, threads: int) -> tuple[int, int]:
        """The units of the first hidden layer that a thread owns, as (first, last)."""
        line = LINE // self.plan.dtype.itemsize
        first, last = compiled_update.share.py_func(self.plan.sizes[1], thread, threads, line)
        return first, last

    def own_rooms(self, threads: int) -> list[np.ndarray]:
        """Room for each thread's panel, and the state of its parameters."""
        inputs, _, outputs = self.plan.sizes[:3]
        widths = (last - first for first, last in (self.units(thread, threads) for thread in range(threads)))
        counts = (parameter_count((inputs, width, outputs)) for width in widths)
        return [self.plan.pages.on_lines(1 + len(self.state), count, self.plan.dtype)[:, :count] for count in counts]

    def panel(self, thread: int, threads: int, moves: compiled_update.Moves) -> Panel:
        """A thread's own units of the first hidden layer, with their weights as they are now."""
        w, *s = self.own[thread]
        panel = Panel(*self.units(thread, threads), moves_of(self.rule, w, self.g[thread : thread + 1], s, moves.h))
        for whole, part in self.places(panel):
            part[:] = whole
        return panel

    def places(self, panel: Panel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A panel's parameters, and their states: as they lie in the whole, and as in the panel."""
        inputs, units, outputs = self.plan.sizes[:3]
        first, last, moves = panel
        width, parts = last - first, (moves.w, *moves.s)
        for whole, part in zip((self.plan.parameters, *self.state), parts, strict=False):
            rows, after = whole[(inputs + 1) * units :], part[(inputs + 1) * width :]
            columns = whole[: (inputs + 1) * units].reshape(inputs + 1, units)[:, first:last]
            yield columns, part[: (inputs + 1) * width].reshape(columns.shape)  # W[0] and b[0]
            yield rows[first * outputs : last * outputs], after[: width * outputs]  # W[1]
            yield rows[units * outputs : (units + 1) * outputs], after[width * outputs :]  # b[1]
