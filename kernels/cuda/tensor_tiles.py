"""Tiles of the tensor-core kernels: the nets they take, and how a step is cut up for a card.

N rows of a batch, I inputs, H hidden units, O classes. Nothing here touches the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

CAPABILITY = 80  # the first with cp.async and the fragments used here
UNITS, CLASSES = 256, 16  # of a net at most
MOST_ROWS = 2048  # of a batch at most: larger ones keep the library's products busy, which are faster then
ROWS_OF_TILE, INPUTS_OF_SLICE = 16, 16
STAGES = 3
LONGEST_CHUNK, SHORTEST_CHUNK = 128, 16  # inputs that pass at a time in tensor_forward
STEP_CHUNKS = (64, 32, 16)  # rows that pass at a time in tensor_step, the first that fits
# What it costs to share a sum, in the time that a chunk takes; fitted to steps measured on an H200.
MEETING, BLOCK = 1.2, 0.027  # of the blocks of a sum, and for each block there is


class Card(NamedTuple):
    """What the choice of tiles depends on."""

    capability: int  # 90 for compute capability 9.0
    processors: int  # multiprocessors
    shared: int  # bytes of shared memory that a block may have


class Tiles(NamedTuple):
    """How a kernel is compiled for a net and a card."""

    chunk: int  # inputs, or rows, that pass at a time
    stages: int
    shared: int  # bytes


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


def width(units: int) -> int:
    """Columns of the float16 arrays: the hidden units, and what is missing to a multiple of 16."""
    return -(-units // 16) * 16


def threads(units: int) -> int:
    """Threads of a block: a warp for 16 hidden units."""
    return 2 * width(units)


@cache
def forward_tiles(sizes: tuple[int, ...], card: Card) -> Tiles:
    """Of tensor_forward.cu, which checks the bytes: the ring, W2, parts of z2, dz2. The longest chunks that fit."""
    inputs, columns, rows = row_bytes(sizes[0]), width(sizes[1]), ROWS_OF_TILE
    z2 = -(-4 * columns // 16 * rows * (-(-sizes[2] // 8) * 8 + 1) // 16) * 16
    for longest in range(LONGEST_CHUNK, SHORTEST_CHUNK - 1, -16):
        chunk = row_bytes(-(-inputs // -(-inputs // longest)))  # as even as may be
        stage = rows * spread(chunk) + chunk * spread(2 * columns)
        shared = STAGES * stage + columns * spread(32) + z2 + rows * spread(32)
        if shared <= card.shared:
            break
    return Tiles(chunk, STAGES, shared)


@cache
def step_tiles(sizes: tuple[int, ...], card: Card) -> Tiles:
    """Of tensor_step.cu, which checks the bytes of its ring."""
    for chunk in STEP_CHUNKS:
        shared = STAGES * chunk * (INPUTS_OF_SLICE + spread(2 * width(sizes[1])))
        if shared <= card.shared:
            break
    return Tiles(chunk, STAGES, shared)


def shares(chunks: int, blocks: int, card: Card) -> int:
    """The shares that each of `blocks` sums over so many chunks is cut into: what takes the least time."""

    def cost(count: int) -> float:
        rounds = -(-blocks * count // card.processors)
        return rounds * -(-chunks // count) + MEETING * (count > 1) + BLOCK * blocks * count

    return min(range(1, chunks + 1), key=cost)


@cache
def forward_grid(sizes: tuple[int, ...], n: int, card: Card) -> tuple[int, int]:
    """Tiles of a batch of `n` rows, and shares of the inputs."""
    tiles = -(-n // ROWS_OF_TILE)
    return tiles, shares(-(-row_bytes(sizes[0]) // forward_tiles(sizes, card).chunk), tiles, card)


@cache
def step_grid(sizes: tuple[int, ...], n: int, card: Card) -> tuple[int, int]:
    """Slices of the inputs, and shares of the rows of a batch of `n`."""
    slices = row_bytes(sizes[0]) // INPUTS_OF_SLICE
    return slices, shares(-(-n // step_tiles(sizes, card).chunk), slices, card)
