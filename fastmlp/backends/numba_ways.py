"""Which way rows take on the numba backend; see docs/performance.md.

Nothing of Numba is needed to know it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastmlp.network import parameter_count

TILE = 224  # rows at a time, a multiple of the microkernel's: x, a and dz of a tile stay in the L2 cache
LARGE = 768  # rows: a larger batch is worked through in tiles
FEW = 2**13  # parameters: the gradient of so few goes from thread to thread in a moment
SMALL = 6  # more of them pass in tiles where, times threads, they are fewer than so many times the numbers that cross
WIDE = 2**19  # weights of a layer that are worth sharing out


def in_tiles(sizes: Sequence[int], n: int, threads: int, clip: float) -> bool:
    """Whether batches of n rows pass in tiles through a network of layers of `sizes` units.

    Large ones do, those whose gradient is wanted as a whole, to measure and `clip` it, and those of a network whose
    gradient is less to hand from thread to thread than the numbers of its layers. Without a hidden layer there are no
    units to share.
    """
    parameters, numbers = parameter_count(sizes), n * sum(sizes[2:])  # the first layer's stay with their thread
    small = parameters <= FEW or parameters * max(threads, 2) < SMALL * numbers
    return len(sizes) == 2 or n > LARGE or clip > 0 or small


def by_columns(sizes: Sequence[int], n: int) -> bool:
    """Whether threads share the columns of the first layer, not the rows, where n rows are predicted.

    They do where it is wide and the rows are few: else each would read, and copy, all its weights for a part of them.
    """
    return n <= TILE and sizes[0] * sizes[1] >= WIDE
