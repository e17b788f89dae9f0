"""How many blocks of how many threads a launch takes, and launches that may begin early."""

from __future__ import annotations

from typing import Any

LANES = 32  # threads of a warp: neighbours in memory are read together
THREADS = 256  # of a block, where nothing asks for others
EACH = 4  # elements of a thread in elements.cuh
BLOCK = (LANES, THREADS // LANES)  # of the kernels that sum columns
SHARED = 48 * 1024  # bytes of shared memory that every card gives a block without being asked


def blocks(*elements: int) -> tuple[tuple[int], tuple[int]]:
    """Grid and block for arrays of so many elements, one after the other, as elements.cuh takes them."""
    return (sum(-(-count // (EACH * THREADS)) for count in elements),), (THREADS,)


def flat(P: int) -> tuple[tuple[int], tuple[int]]:
    """Grid and block for an array (P,)."""
    return (-(-P // THREADS),), (THREADS,)


def launch_soon(
    kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0
) -> None:
    """Launch a RawKernel on the current device and stream: see early.py, where the card can."""
    import cupy

    from . import early  # here, as cupy is: both may be stood in for

    if int(cupy.cuda.Device().compute_capability) >= early.CAPABILITY:
        early.launch_early(kernel, grid, block, arguments, shared)
    else:
        kernel(grid, block, arguments, shared_mem=shared)
