"""Tensor-core kernels for one step of a small net: uint8 rows in, float16 operands, float32 sums and weights.

They take what `unsupported` has no objection to. Sizes are constants of the compilation, tiles are chosen for the card.
A step of N rows is three launches, and none of them waits for the host::

    work = allocate(sizes, N, card())                    # once: buffers for batches of at most N rows
    halve(work, parameters)                              # once, and whenever `update` did not move the parameters last
    forward(work, X, y, index, weight, N, parameters)    # both layers, loss, dz1; the small gradients in parts
    weight_gradient(work, X, index, N)                   # dW1 in parts
    update(work, rule, parameters, state, step, N, totals)  # or `gradient`, which only adds up

N rows of a batch, M rows of data, I inputs, H hidden units, O classes, P parameters, laid out as `network.layer_views`
does. X is (M, row_bytes(I)) uint8: where I is no multiple of 16, rows have a few bytes more, which may hold anything.
index (N,) int32 picks the batch's rows; None stands for the first N. y (M,) int32 holds classes, weight (N,) float32
how much each row of the batch counts, None for 1 each. Arrays live on the GPU and are C-ordered.

Numbers beyond 65504 do not fit a float16: weights, hidden units and dz1 become infinite there, and the loss of this or
the next step is no finite number. Whoever reads the totals must look.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import THREADS, expect, source

Array = Any  # cupy.ndarray

CAPABILITY = 80  # the first with cp.async and the fragments used here
UNITS, CLASSES = 256, 16  # of a net at most
PIXEL = np.float32(1 / 255)
WARPS = 8  # of a block at most
UNIT_WARPS = 4  # that share the hidden units at most
WARP_TILES = 25  # (16, 8) sums of a warp at most: 100 registers a thread
FORWARD_STAGES = 3
SHORTEST_CHUNK, LONGEST_CHUNK = 32, 128  # inputs that pass at a time
ROW_OVERHEAD = 16  # what a tile of rows costs beside its rows, in rows
INPUT_OVERHEAD = 2  # what a block of inputs costs beside its tiles, in tiles: it reads dz1 once more
GRADIENT_RINGS = ((64, 4), (64, 3), (32, 4), (32, 3))  # rows of a chunk, stages; the first that fits
NULL = np.uint64(0)  # an array that is not there


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


class Work(NamedTuple):
    """What the steps of a net work in."""

    sizes: tuple[int, ...]
    card: Card
    W1: Array  # (row_bytes(I), width(H)) float16: the first layer's weights; 0 behind the inputs and the units
    dz1: Array  # (N, width(H)) float16
    heads: Array  # (splits, I * H) float32: parts of dW1
    tails: Array  # (blocks, tail_size) float32: parts of db1, dW2, db2, the sum of losses, the number of right answers


def card() -> Card:
    """The current device."""
    import cupy

    facts = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return Card(10 * facts["major"] + facts["minor"], facts["multiProcessorCount"], facts["sharedMemPerBlockOptin"])


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


def tail_size(sizes: Sequence[int]) -> int:
    """Numbers that a block of tensor_forward writes: db1, dW2, db2, the sum of losses, the number of right answers."""
    _, H, O = sizes
    return H + H * O + O + 2


def parameter_count(sizes: Sequence[int]) -> int:
    """P, as `network.parameter_count`."""
    return sizes[0] * sizes[1] + tail_size(sizes) - 2


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


@cache
def constants(sizes: tuple[int, ...], tiles: Forward | Gradient | None, rule: str = "sgd") -> tuple[str, ...]:
    """The options that make a source one for the net and the tiles or, where there are none, the optimizer's rule."""
    numbers: dict[str, Any] = dict(zip(("INPUTS", "HIDDEN", "CLASSES"), sizes, strict=True), UNITS=width(sizes[1]))
    if tiles is None:
        numbers["RULE"] = rule
    else:
        numbers |= {name.upper(): number for name, number in tiles._asdict().items()}
        numbers["SHARED_BYTES"] = numbers.pop("SHARED")
    return "-DREAL=float", *(f"-D{name}={number}" for name, number in numbers.items())


@cache
def module(name: str, options: tuple[str, ...]) -> Any:
    """``name.cu`` compiled with `options`."""
    import cupy

    return cupy.RawModule(code=source(name), options=options)


@cache
def kernel(name: str, function: str, options: tuple[str, ...], shared: int, device: int) -> Any:
    """One kernel of ``name.cu``, that may have `shared` bytes of shared memory on the device."""
    found = module(name, options).get_function(function)
    if shared:
        found.max_dynamic_shared_size_bytes = shared  # of this device alone
    return found


def launch(
    name: str, function: str, options: tuple[str, ...], grid: tuple[int, ...], threads: int, arguments: tuple[Any, ...],
    shared: int = 0,
) -> None:  # fmt: skip
    """Launch one kernel of ``name.cu`` on the current device and stream."""
    import cupy

    kernel(name, function, options, shared, cupy.cuda.Device().id)(grid, (threads,), arguments, shared_mem=shared)


def allocate(sizes: Sequence[int], rows: int, card: Card) -> Work:
    """Buffers for batches of at most `rows` rows.

    Raises
    ------
    ValueError
        These kernels cannot train such a net on this card.
    """
    import cupy

    if reason := unsupported(sizes, card):
        raise ValueError(reason)
    sizes = tuple(sizes)
    slices = grid(sizes, rows, card)[1]
    splits, blocks = max(1, card.processors // slices), card.processors
    W1 = cupy.zeros((row_bytes(sizes[0]), width(sizes[1])), np.float16)
    dz1 = cupy.empty((rows, width(sizes[1])), np.float16)
    heads = cupy.empty((splits, sizes[0] * sizes[1]), np.float32)
    return Work(sizes, card, W1, dz1, heads, cupy.empty((blocks, tail_size(sizes)), np.float32))


def halve(work: Work, parameters: Array) -> None:
    """W1 as float16, for `forward`, from the parameters (P,)."""
    I, H, _ = work.sizes
    expect(parameters, np.float32, parameter_count(work.sizes))
    options = constants(work.sizes, None)
    launch("tensor_update", "tensor_halves", options, (-(-I * H // THREADS),), THREADS, (parameters, work.W1))


def forward(
    work: Work, X: Array, y: Array, index: Array | None, weight: Array | None, n: int, parameters: Array
) -> None:
    """dz1 of the batch's `n` rows, and of the small gradients and the totals the parts; all stay in `work`."""
    expect_batch(work, X, index, n)
    expect(y, np.int32, len(X))
    if weight is not None:
        expect(weight, np.float32, n)
    expect(parameters, np.float32, parameter_count(work.sizes))
    tiles, blocks = forward_tiles(work.sizes, n, work.card), grid(work.sizes, n, work.card)[0]
    given = (X, or_null(index), y, or_null(weight), PIXEL, parameters, work.W1, work.dz1, work.tails, np.int32(n))
    options = constants(work.sizes, tiles)
    launch("tensor_forward", "tensor_forward", options, (blocks,), tiles.threads, given, tiles.shared)


def weight_gradient(work: Work, X: Array, index: Array | None, n: int) -> None:
    """Parts of dW1 from the rows and what `forward` left; they stay in `work`."""
    expect_batch(work, X, index, n)
    tiles, (_, slices, splits, share) = gradient_tiles(work.sizes, work.card), grid(work.sizes, n, work.card)
    given = (X, or_null(index), work.dz1, work.heads, np.int32(n), np.int32(share))
    options = constants(work.sizes, tiles)
    launch("tensor_gradient", "tensor_gradient", options, (slices, splits), tiles.threads, given, tiles.shared)


def update(work: Work, rule: str, parameters: Array, state: Array, step: Array, n: int, totals: Array) -> None:
    """The optimizer's `rule`, called by its name, with the gradient that the parts in `work` add up to.

    parameters (P,), state (S, P), step (8,) float32, the numbers of an `optimizers.Step`: l2 and shrink are taken as 0
    for biases. Adds [sum of losses, right answers] to totals (2,) or more, float64.
    """
    P = parameter_count(work.sizes)
    expect(parameters, np.float32, P)
    expect(state, np.float32, len(state), P)
    expect(step, np.float32, 8)
    expect(totals, np.float64, len(totals))
    given = (parameters, state, step, *parts(work, n), work.W1, totals)
    options = constants(work.sizes, None, rule)
    launch("tensor_update", "tensor_update", options, (-(-(P + 2) // THREADS),), THREADS, given)


def gradient(work: Work, g: Array, n: int, totals: Array) -> None:
    """g (P,) = the gradient that the parts in `work` add up to; totals as in `update`."""
    P = parameter_count(work.sizes)
    expect(g, np.float32, P)
    expect(totals, np.float64, len(totals))
    options, given = constants(work.sizes, None), (g, *parts(work, n), totals)
    launch("tensor_update", "tensor_sum", options, (-(-(P + 2) // THREADS),), THREADS, given)


def parts(work: Work, n: int) -> tuple[Any, ...]:
    """What `update` and `gradient` tell their kernels of the parts to add up, of a batch of `n` rows."""
    blocks, _, splits, _ = grid(work.sizes, n, work.card)
    return work.heads, np.int32(splits), work.tails, np.int32(blocks), np.float32(1 / n), PIXEL


def expect_batch(work: Work, X: Array, index: Array | None, n: int) -> None:
    """Check the rows of a batch. Raises ValueError if they are not what the kernels will take them for."""
    expect(X, np.uint8, len(X), row_bytes(work.sizes[0]))
    if not 0 < n <= len(work.dz1):
        raise ValueError(f"expected a batch of 1 to {len(work.dz1)} rows, for which there are buffers; got {n}")
    if index is not None:
        expect(index, np.int32, n)
    elif n > len(X):
        raise ValueError(f"expected at most {len(X)} rows without an index, got {n}")


def or_null(array: Array | None) -> Array:
    """What a kernel gets for an array that may be missing."""
    return NULL if array is None else array
