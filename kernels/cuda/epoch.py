"""What the steps of a call visit and work with, in places that stay: a graph of launches knows addresses only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, expect

NUMBERS = 8  # of an optimizer's step
TOTALS = 3  # sums of losses, right answers, penalties


class Epoch(NamedTuple):
    """A step of an epoch, or of several in a row. V visits, as many steps as the table has rows."""

    turn: Array  # (2,) int32: steps taken and rows visited when the graph began, see epoch.cuh
    order: Array | None  # (V,) int32, rows of the data; None: as they stand
    weights: Array | None  # (V,) real; None: each row counts 1
    table: Array  # (steps, NUMBERS) real: the numbers of each `fastmlp.optimizers.Step`
    totals: Array  # (steps, TOTALS) float64, to which each step adds
    key: Array  # (1,) uint64: of the first step; see `fastmlp.dropout`
    step: int = 0  # the step at hand, counted from `turn`
    visit: int = 0  # its first visit, likewise

    def check(self) -> None:
        """Raises ValueError if it is not what the kernels will take it for."""
        real = self.table.dtype
        expect(self.turn, np.int32, 2)
        if self.order is not None:
            expect(self.order, np.int32, len(self.order))
        if self.weights is not None:
            expect(self.weights, real, len(self.weights))
        expect(self.table, real, len(self.table), NUMBERS)
        expect(self.totals, np.float64, len(self.table), TOTALS)
        expect(self.key, np.uint64, 1)
