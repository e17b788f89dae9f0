"""Sums over rows: the shares they are cut into, and where the partial sums go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, expect
from .launch import TILE

MOST_SLOTS = 512  # shares of a sum over rows; a constant, so that every card sums in the same order


def slots(rows: int) -> int:
    """K, the shares into which a sum over `rows` rows is cut: as even as whole tiles allow, at most MOST_SLOTS."""
    tiles = -(-rows // TILE)
    return -(-tiles // -(-tiles // MOST_SLOTS))


class Sums(NamedTuple):
    """Where the partial sums of some columns go: K rows of `parts` (T, C) from `slot` on, from `column` on."""

    parts: Array
    slot: int
    column: int

    def at(self, rows: int, width: int) -> tuple[Array, np.int32]:
        """The address of the first sum, and C. Checks that there is room for `width` columns over `rows` rows."""
        T, C = self.parts.shape
        expect(self.parts, self.parts.dtype, T, C)
        if self.slot + slots(rows) > T or self.column + width > C:
            raise ValueError(
                f"expected room for {slots(rows)} shares of {width} sums from {self.slot, self.column} on, got {T, C}"
            )
        return self.parts.reshape(T * C)[self.slot * C + self.column :], np.int32(C)

    @property
    def behind(self) -> int:
        """Where the totals stand, counted from the first column."""
        return int(self.parts.shape[1]) - 2 - self.column
