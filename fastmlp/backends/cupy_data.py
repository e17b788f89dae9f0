"""Rows on their way to the GPU: through pinned memory, in blocks, so that a copy runs while the next is made ready."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from fastmlp.backends.base import Array, Rows
from fastmlp.errors import DataError

BLOCK = 2**23  # bytes of a block: large enough for the full rate of the bus, small beside the data
SMALL = 2**20  # bytes that are not worth a detour
ALIGNED = 16  # bytes that the places in an `Upload` divide by


def upload(host: np.ndarray) -> Array:
    """A copy of `host` on the current device, C-ordered. A large one goes through two pinned blocks in turns.

    Raises cupy's OutOfMemoryError if the card has no room, after unused memory was given back.
    """
    host = np.ascontiguousarray(host)
    if host.nbytes < SMALL:
        return cupy.asarray(host)
    device = with_room(lambda: cupy.empty(host.shape, host.dtype))
    source, target = host.reshape(-1).view(np.uint8), device.reshape(host.size).view(np.uint8)  # (bytes,)
    stream = cupy.cuda.get_current_stream()
    blocks = [pinned(BLOCK) for _ in range(2)]
    copied = [stream.record(), stream.record()]
    for k, start in enumerate(range(0, len(source), BLOCK)):
        stop = min(start + BLOCK, len(source))
        copied[k % 2].synchronize()  # the copy before last has left this block
        block = blocks[k % 2][: stop - start]
        block[:] = source[start:stop]
        target[start:stop].set(block)
        copied[k % 2] = stream.record()
    stream.synchronize()  # the blocks are freed here
    return device


def rows_or_host(host: np.ndarray) -> Array:
    """`upload`; where the card has no room, `host` itself and a warning: its rows will be brought over step by step."""
    try:
        return upload(host)
    except cupy.cuda.memory.OutOfMemoryError as error:
        warnings.warn(
            f"the GPU has no room for {host.nbytes / 1e6:,.0f} MB of rows ({error}): they stay in the host's memory "
            "and are brought over step by step, which is slower; pass uint8 or fewer rows, or free memory of the card",
            stacklevel=2,
        )
        return host


def on_device(array: Any, device: int) -> Array:
    """An array that lies on a GPU already, of CuPy or anything with DLPack, as CuPy's: no copy where it is C-ordered.

    Raises DataError if it lies on another GPU than `device`.
    """
    found = array if isinstance(array, cupy.ndarray) else cupy.from_dlpack(array)
    if found.device.id != device:
        raise DataError(
            f"expected an array on GPU {device}, where the network is, got one on GPU {found.device.id}; copy it "
            f"there, or train with device={found.device.id}"
        )
    return cupy.ascontiguousarray(found)


def with_room(make: Callable[[], Array]) -> Array:
    """What `make` allocates; where there is no room, once more after the pool gave unused memory back."""
    try:
        return make()
    except cupy.cuda.memory.OutOfMemoryError:
        cupy.get_default_memory_pool().free_all_blocks()
        return make()


def pinned(size: int) -> np.ndarray:
    """`size` bytes that the card can read while the host goes on."""
    return np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)


def rows_at(rows: Rows, visits: slice) -> slice | np.ndarray:
    """Where the rows of some visits stand."""
    return visits if rows.index is None else rows.index[visits]


class Upload:
    """Arrays on the card, side by side, that one copy fills from the same places in pinned memory.

    Parameters
    ----------
    parts
        The type and shape of each array, by name.
    """

    def __init__(self, **parts: tuple[Any, tuple[int, ...]]):
        sizes = [
            -(-np.dtype(dtype).itemsize * int(np.prod(shape)) // ALIGNED) * ALIGNED for dtype, shape in parts.values()
        ]
        ends = np.cumsum([0, *sizes])
        self.source, self.target = pinned(int(ends[-1])), cupy.empty(int(ends[-1]), np.uint8)

        def views(memory: Any) -> dict[str, Any]:
            found = {}
            for start, (name, (dtype, shape)) in zip(ends, parts.items(), strict=False):
                size = np.dtype(dtype).itemsize * int(np.prod(shape))
                found[name] = memory[start : start + size].view(dtype).reshape(shape)
            return found

        self.host, self.device = views(self.source), views(self.target)

    def send(self) -> None:
        """Copy all. The host's side may be written again when the stream has got so far."""
        self.target.set(self.source)


class Staging:
    """Rows that stayed on the host, brought over a step at a time: one pinned block, and its copy on the card."""

    def __init__(self) -> None:
        self.host = np.empty(0, np.uint8)
        self.device: Array | None = None
        self.copied: Array | None = None  # the event after the last copy

    def bring(self, X: Any, rows: slice | np.ndarray) -> Array:
        """X[rows] on the card, to be used before the next call. X (M, I), NumPy's or SciPy's CSR -> (N, I)."""
        part = X[rows] if isinstance(X, np.ndarray) else X[rows].toarray()  # (N, I)
        if self.copied is not None:
            self.copied.synchronize()  # the last copy has left the block
        if self.device is None or len(self.host) < part.nbytes:
            self.host = pinned(part.nbytes)
            self.device = cupy.empty(part.nbytes, np.uint8)
        block = self.host[: part.nbytes].view(part.dtype).reshape(part.shape)
        block[:] = part
        target = self.device[: part.nbytes].view(part.dtype).reshape(*part.shape)
        target.set(block)
        self.copied = cupy.cuda.get_current_stream().record()
        return target
