"""Sums over rows: the shares they are cut into, and where the partial sums go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, expect

# Constants, so that every card sums in the same order.
TILES = (8, 16, 32)  # rows that a block takes at a time
MANY_TILES = 256  # enough for every processor of a large card
MOST_SLOTS = 512  # shares of a sum over rows


def tile(rows: int) -> int:
    """Rows of a tile, where there are `rows`: the fewest of TILES that make no more than MANY_TILES tiles."""
    return next((size for size in TILES if rows <= size * MANY_TILES), TILES[-1])


def slots(rows: int) -> int:
    """K, the shares into which a sum over `rows` rows is cut: as even as whole tiles allow, at most MOST_SLOTS."""
    tiles = -(-rows // tile(rows))
    return -(-tiles // -(-tiles // MOST_SLOTS))


def most_slots(rows: int) -> int:
    """The most that `slots` is for up to `rows` rows; fewer may have more shares, as their tiles may be smaller."""
    return min(MOST_SLOTS, -(-rows // TILES[0]))


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
