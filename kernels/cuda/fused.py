"""What a net of ReLU and a softmax does between its last hidden layer's z and its dz: the launch of middle.cu, or of
tensor_middle.cu where tensor cores can do it.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect
from .launch import LANES, SHARED, launch_soon
from .nvrtc import kernel
from .sums import Sums, slots, tile
from .tensor_tiles import CAPABILITY, CLASSES, UNITS

CLASS_BYTES = 128  # of the numbers, one a class, that a thread of `middle` holds in registers
MOST_UNITS = 1024  # threads of a block: each owns a unit
TILES = (8, 16)  # rows; a thread has a number of each in registers: more would leave too few blocks on a processor
FEWEST_ROWS = 4096  # with fewer, tensor_middle.cu takes longer than middle.cu
WARP_UNITS = 32  # hidden units of a warp in tensor_middle.cu


def middle_bytes(size: int, H: int, O: int, real: np.dtype) -> int:
    """Shared memory of `middle` for H hidden units and O classes with tiles of `size` rows."""
    split, warps, wide = LANES // size, -(-H // LANES), -(-O // 4) * 4
    pitch = (-(-H // split) | 1) * split
    return (size * pitch + H * wide + warps * O * size + size * wide + size * (O + 2) + O) * real.itemsize


def middle_fits(H: int, O: int, real: np.dtype) -> bool:
    """Whether `middle` can take H hidden units and O classes: its tile must fit into shared memory."""
    return O * real.itemsize <= CLASS_BYTES and H <= MOST_UNITS and middle_bytes(TILES[0], H, O, real) <= SHARED


def on_tensor_cores(N: int, H: int, O: int, item: np.dtype) -> bool:
    """Whether tensor_middle.cu is to take N rows of H hidden units and O classes on the current device."""
    import cupy

    fits = item == np.float16 and H <= UNITS and O <= CLASSES and N >= FEWEST_ROWS
    return fits and int(cupy.cuda.Device().compute_capability) >= CAPABILITY


def middle(z: Array, b: Array, V: Array, c: Array, y: Array, sums: Sums) -> None:
    """z = dz, in place, and the partial sums of dV^T (O, H), db, dc, the loss and the right answers, in this order.

    z (N, H) item, the last hidden layer's before its biases b (H,) on entry, by a product launched last; V (H, O), c
    (O,) real, the last layer's; y (N,) int32. On tensor cores relu(z + b), V and the last layer's dz are rounded to
    float16, as for any product.
    """
    (N, H), O, real = z.shape, len(c), c.dtype
    expect(z, z.dtype, N, H)
    expect(b, real, H)
    expect(V, real, H, O)
    expect(c, real, O)
    expect(y, np.int32, N)
    arguments = (z, b, V, c, y, *sums.at(N, H * O + H + O + 2))
    if on_tensor_cores(N, H, O, z.dtype):
        threads = -(-H // WARP_UNITS) * LANES
        found = kernel("tensor_middle", "tensor_middle", real, z.dtype, (f"-DHIDDEN={H}", f"-DCLASSES={O}"))
        launch_soon(found, (1, slots(N)), (threads,), (*arguments, np.int32(N)))
        return
    size = max(size for size in TILES if size <= tile(N) and middle_bytes(size, H, O, real) <= SHARED)
    threads = -(-H // LANES) * LANES
    found = kernel("middle", "middle", real, z.dtype, (f"-DUNITS={H}", f"-DCLASSES={O}", f"-DTILE={size}"))
    launch_soon(found, (1, slots(N)), (threads,), (*arguments, np.int64(N)))
