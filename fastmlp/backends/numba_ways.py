"""Which of its two ways a batch takes on the numba backend, in tiles or in phases; see docs/performance.md.

Nothing of Numba is needed to know it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastmlp.network import parameter_count

LARGE = 768  # rows: a larger batch is worked through in tiles
SMALL = 6  # a smaller one too, where parameters, times threads, are fewer than so many times what the layers make of it


def in_tiles(sizes: Sequence[int], n: int, threads: int, clip: float) -> bool:
    """Whether batches of n rows pass in tiles through a network of layers of `sizes` units.

    Large ones do, those whose gradient is wanted as a whole, to measure and `clip` it, and those of a small network:
    its gradient is less to hand from thread to thread than the layers' numbers.
    """
    parameters, numbers = parameter_count(sizes), n * sum(sizes[1:])
    return n > LARGE or clip > 0 or parameters * max(threads, 2) < SMALL * numbers
