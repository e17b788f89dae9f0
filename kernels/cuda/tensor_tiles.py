"""Tiles of the tensor-core kernels: the nets they take, and how a net's step is cut up for a card.

N rows of a batch, I inputs, H hidden units, O classes. Nothing here touches the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

CAPABILITY = 80  # the first with cp.async and the fragments used here
UNITS, CLASSES = 256, 16  # of a net at most
WARPS = 8  # of a block at most
UNIT_WARPS = 4  # that share the hidden units at most
WARP_TILES = 25  # (16, 8) sums of a warp at most: 100 registers a thread
FORWARD_STAGES = 3
SHORTEST_CHUNK, LONGEST_CHUNK = 32, 128  # inputs that pass at a time
ROW_OVERHEAD = 16  # what a tile of rows costs beside its rows, in rows
INPUT_OVERHEAD = 2  # what a block of inputs costs beside its tiles, in tiles: it reads dz1 once more
GRADIENT_RINGS = ((64, 4), (64, 3), (32, 4), (32, 3))  # rows of a chunk, stages; the first that fits


class Card(NamedTuple):
    """What the choice of tiles depends on."""

    capability: int  # 90 for compute capability 9.0
    processors: int  # multiprocessors
    shared: int  # bytes of shared memory that a block may have


class Forward(NamedTuple):
    """Tiles of tensor_forward.cu. A block's tile is row_warps * row_tiles * 16 rows."""

    unit_warps: int
    row_warps: int
    row_tiles: int  # of 16 rows, of a warp
    chunk: int  # inputs that pass at a time
    stages: int
    shared: int  # bytes

    @property
    def rows(self) -> int:
        """Rows of a block's tile."""
        return 16 * self.row_tiles * self.row_warps

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.unit_warps * self.row_warps


class Gradient(NamedTuple):
    """Tiles of tensor_gradient.cu. A block takes input_warps * input_tiles * 16 inputs."""

    unit_warps: int
    input_warps: int
    input_tiles: int  # of 16 inputs, of a warp
    chunk: int  # rows that pass at a time
    stages: int
    shared: int  # bytes

    @property
    def inputs(self) -> int:
        """Inputs of a block."""
        return 16 * self.input_tiles * self.input_warps

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.unit_warps * self.input_warps


def unsupported(sizes: Sequence[int], card: Card) -> str | None:
    """Why these kernels cannot train a net of `sizes` on the card; None if they can.

    It is the caller's to see that the net has ReLU, softmax with plain cross entropy and no dropout, and uint8 rows.
    """
    if card.capability < CAPABILITY:
        return f"compute capability {card.capability / 10} is below {CAPABILITY / 10}"
    if len(sizes) != 3:
        return f"{len(sizes) - 2} hidden layers; the tensor-core kernels take one"
    if sizes[1] > UNITS or sizes[2] > CLASSES:
        return f"{sizes[1]} hidden units and {sizes[2]} classes; at most {UNITS} and {CLASSES}"
    return None


def row_bytes(inputs: int) -> int:
    """Bytes from row to row of X: the inputs, and what is missing to a multiple of 16."""
    return -(-inputs // 16) * 16


def spread(count: int) -> int:
    """Bytes from row to row in shared memory, as `spread` in tensor.cuh."""
    return (-(-count // 16) | 1) * 16


def unit_warps(units: int) -> int:
    """Warps that share the hidden units: as many as leave the fewest columns empty, each at most 8 tiles of 8."""
    tiles = -(-units // 8)
    counts = [warps for warps in (UNIT_WARPS, 2, 1) if -(-tiles // warps) <= 8]
    return min(counts, key=lambda warps: -(-tiles // warps) * warps)


def width(units: int) -> int:
    """Columns of the float16 arrays: the hidden units, and what is missing to whole tiles of all warps."""
    warps = unit_warps(units)
    return -(-units // (8 * warps)) * 8 * warps


def forward_shared(sizes: Sequence[int], warps: int, row_warps: int, row_tiles: int, chunk: int) -> int:
    """Bytes of shared memory of tensor_forward.cu, which checks them: the ring, W2, parts of z2, dz2."""
    columns, rows, z2_pitch = width(sizes[1]), 16 * row_tiles * row_warps, -(-sizes[2] // 8) * 8 + 1
    stage = rows * spread(chunk) + chunk * spread(2 * columns)
    return FORWARD_STAGES * stage + (columns + 8) * spread(32) + 4 * warps * rows * z2_pitch + rows * spread(32)


@cache
def forward_tiles(sizes: tuple[int, ...], n: int, card: Card) -> Forward:
    """The tiles that take the fewest rows in a row on one multiprocessor, for batches of `n` rows."""
    warps, inputs = unit_warps(sizes[1]), row_bytes(sizes[0])
    columns, most = width(sizes[1]) // 8 // warps, WARPS // warps
    shapes = [(count, 1) for count in (1, 2, 4) if count < most]
    shapes += [(most, tiles) for tiles in range(1, 6) if tiles == 1 or tiles * columns <= WARP_TILES]
    choices = []
    for row_warps, row_tiles in shapes:
        for longest in range(LONGEST_CHUNK, SHORTEST_CHUNK - 1, -16):
            chunk = row_bytes(-(-inputs // -(-inputs // longest)))  # as even as may be
            shared = forward_shared(sizes, warps, row_warps, row_tiles, chunk)
            if shared <= card.shared:
                choices.append(Forward(warps, row_warps, row_tiles, chunk, FORWARD_STAGES, shared))
                break

    def cost(tiles: Forward) -> int:
        return -(-n // (tiles.rows * card.processors)) * (tiles.rows + ROW_OVERHEAD)

    return min(choices, key=cost)


@cache
def gradient_tiles(sizes: tuple[int, ...], card: Card) -> Gradient:
    """The tiles that leave the fewest inputs empty without reading dz1 too often."""
    warps, strips, columns = unit_warps(sizes[1]), row_bytes(sizes[0]) // 16, width(sizes[1])
    most = WARP_TILES // (columns // 8 // warps)
    shapes = [(count, tiles) for count in (8, 4, 2, 1) if count * warps <= WARPS for tiles in range(most, 0, -1)]
    input_warps, input_tiles = min(
        shapes, key=lambda shape: -(-strips // (shape[0] * shape[1])) * (shape[0] * shape[1] + INPUT_OVERHEAD)
    )
    for chunk, stages in GRADIENT_RINGS:
        shared = stages * chunk * (spread(16 * input_warps * input_tiles) + spread(2 * columns))
        if shared <= card.shared:
            break
    return Gradient(warps, input_warps, input_tiles, chunk, stages, shared)


@cache
def grid(sizes: tuple[int, ...], n: int, card: Card) -> tuple[int, int, int, int]:
    """For a batch of `n` rows: blocks of tensor_forward; slices and splits of tensor_gradient, rows of a split."""
    forward, gradient = forward_tiles(sizes, n, card), gradient_tiles(sizes, card)
    slices = -(-sizes[0] // gradient.inputs)
    splits = max(1, card.processors // slices)
    share = -(-n // (splits * gradient.chunk)) * gradient.chunk
    return min(card.processors, -(-n // forward.rows)), slices, -(-n // share), share
