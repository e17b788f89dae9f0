"""How many blocks of how many threads a launch takes."""

from __future__ import annotations

LANES = 32  # threads of a warp: neighbours in memory are read together
THREADS = 256  # of a block, in every kernel but `middle`
BLOCK = (LANES, THREADS // LANES)  # of the kernels that sum columns
TILE = 32  # rows that a block takes at a time where rows are summed
SHARED = 48 * 1024  # bytes of shared memory that every card gives a block without being asked


def tile(rows: int, width: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block for an array (rows, width): up to 32 threads a row, as many rows a block as make 256 threads."""
    lanes = min(LANES, 1 << (width - 1).bit_length())
    return (-(-rows * lanes // THREADS),), (lanes, THREADS // lanes)


def flat(P: int) -> tuple[tuple[int], tuple[int]]:
    """Grid and block for an array (P,)."""
    return (-(-P // THREADS),), (THREADS,)
