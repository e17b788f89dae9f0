"""Tensor-core kernels for one step of a small net: uint8 rows in, float16 operands, float32 sums and weights.

They take what `unsupported` has no objection to, in batches of at most `tensor_tiles.MOST_ROWS` rows. Sizes are
constants of the compilation, tiles are chosen for the card. A step of N rows is two launches, and neither waits for the
host::

    work = allocate(sizes, (N,), card())           # once: buffers for batches of N rows
    halve(work, parameters)                        # before the first step of an epoch
    forward(work, X, y, epoch, N, parameters)      # both layers, loss, dz1; the small gradients in parts
    step(work, X, epoch, N, rule, parameters, state)  # dW1, and the optimizer's rule

N rows of a batch, M rows of data, I inputs, H hidden units, O classes, P parameters, laid out as `network.layer_views`
does. X is (M, row_bytes(I)) uint8: where I is no multiple of 16, rows have a few bytes more, which may hold anything.
y (M,) int32 holds classes. Arrays live on the GPU and are C-ordered.

Numbers beyond 65504 do not fit a float16: weights, hidden units and dz1 become infinite there, and the loss of this or
the next step is no finite number. Whoever reads the totals must look.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, expect, or_null
from .epoch import Epoch
from .launch import THREADS, launch_soon
from .nvrtc import module
from .tensor_tiles import (
    MOST_ROWS,
    ROWS_OF_TILE,
    Card,
    Tiles,
    forward_grid,
    forward_tiles,
    row_bytes,
    step_grid,
    step_tiles,
    threads,
    unsupported,
    width,
)

PIXEL = np.float32(1 / 255)


class Work(NamedTuple):
    """What the steps of a net work in."""

    sizes: tuple[int, ...]
    batches: tuple[int, ...]  # rows of those it has room for
    card: Card
    W1: Array  # (row_bytes(I), width(H)) float16: the first layer's weights; 0 behind the inputs and the units
    W2: Array  # (width(H), 16) float16: the second's; 0 behind the units and the classes
    dz1: Array  # (N, width(H)) float16
    parts: Array  # float32: of sums, from the blocks that share them
    tickets: Array  # int32: 0; count the blocks of a sum that are done
    arrived: Array  # (4,) int32: counters by which the kernels meet
    tails: Array  # (tiles, tail_size) float32: parts of db1, dW2, db2, the sum of losses, the number of right answers


def card() -> Card:
    """The current device."""
    import cupy

    facts = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return Card(10 * facts["major"] + facts["minor"], facts["multiProcessorCount"], facts["sharedMemPerBlockOptin"])


def tail_size(sizes: Sequence[int]) -> int:
    """Numbers that a block of tensor_forward writes: db1, dW2, db2, the sum of losses, the number of right answers."""
    _, H, O = sizes
    return H + H * O + O + 2


def parameter_count(sizes: Sequence[int]) -> int:
    """P, as `network.parameter_count`."""
    return sizes[0] * sizes[1] + tail_size(sizes) - 2


@cache
def constants(sizes: tuple[int, ...], tiles: Tiles | None = None, **more: Any) -> tuple[str, ...]:
    """The options that make a source one for the net, for tiles, and for whatever `more` it wants to know."""
    numbers: dict[str, Any] = dict(zip(("INPUTS", "HIDDEN", "CLASSES"), sizes, strict=True))
    if tiles:
        numbers |= {name.upper(): number for name, number in tiles._asdict().items()}
        numbers["SHARED_BYTES"] = numbers.pop("SHARED")
    numbers |= more
    return "-DREAL=float", *(f"-D{name}={number}" for name, number in numbers.items())


@cache
def kernel(name: str, options: tuple[str, ...], shared: int, device: int) -> Any:
    """The kernel of ``name.cu`` that is called so, which may have `shared` bytes of shared memory on the device."""
    found = module(name, options).get_function(name)
    found.max_dynamic_shared_size_bytes = shared  # of this device alone
    found.preferred_shared_memory_carveout = 100  # per cent, for all: a multiprocessor that divides anew must be empty
    return found


def launch(
    work: Work, name: str, options: tuple[str, ...], grid: tuple[int, ...], arguments: tuple[Any, ...], shared: int
) -> None:
    """Launch the kernel of ``name.cu`` on the current device and stream."""
    import cupy

    found = kernel(name, options, shared, cupy.cuda.Device().id)
    launch_soon(found, grid, (threads(work.sizes[1]),), arguments, shared)


def allocate(sizes: Sequence[int], batches: Sequence[int], card: Card) -> Work:
    """Buffers for batches of these numbers of rows.

    Raises
    ------
    ValueError
        These kernels cannot train such a net on this card, or not in such batches.
    """
    import cupy

    if reason := unsupported(sizes, card):
        raise ValueError(reason)
    if not 0 < min(batches) <= max(batches) <= MOST_ROWS:
        raise ValueError(f"expected batches of 1 to {MOST_ROWS} rows, got {min(batches)} to {max(batches)}")
    (I, H, _), sizes = sizes, tuple(sizes)
    grids = [grid(sizes, n, card) for n in batches for grid in (forward_grid, step_grid)]
    numbers = max(sums * shares for sums, shares in grids) * ROWS_OF_TILE * width(H)
    tiles = max(forward_grid(sizes, n, card)[0] for n in batches)
    return Work(
        sizes, tuple(batches), card, cupy.zeros((row_bytes(I), width(H)), np.float16),
        cupy.zeros((width(H), 16), np.float16), cupy.empty((max(batches), width(H)), np.float16),
        cupy.empty(numbers, np.float32), cupy.zeros(max(sums for sums, _ in grids), np.int32), cupy.zeros(4, np.int32),
        cupy.empty((tiles, tail_size(sizes)), np.float32),
    )  # fmt: skip


def halve(work: Work, parameters: Array) -> None:
    """The weights as float16, from the parameters (P,), and the counters by which the kernels meet back to 0.

    Before the first step after an epoch's turn was set: else the kernels wait for what has been, for ever.
    """
    P = parameter_count(work.sizes)
    expect(parameters, np.float32, P)
    halves = module("tensor_halves", constants(work.sizes)).get_function("tensor_halves")
    halves((-(-P // THREADS),), (THREADS,), (parameters, work.W1, work.W2, work.arrived))


def forward(work: Work, X: Array, y: Array, epoch: Epoch, n: int, parameters: Array, *, follows: bool = False) -> None:
    """dz1 of the `n` rows of the step at hand, and of the small gradients and the totals the parts, in `work`.

    follows: `step` of the step before was launched last on this stream; else all before must end first.
    """
    expect_batch(work, X, epoch, n)
    expect(y, np.int32, len(X))
    expect(parameters, np.float32, parameter_count(work.sizes))
    given = (
        X, or_null(epoch.order), epoch.turn, np.int32(epoch.step), np.int32(epoch.visit), np.int32(follows),
        work.arrived, y, or_null(epoch.weights), PIXEL, parameters, work.W1, work.W2, work.dz1, work.parts,
        work.tickets, work.tails, np.int32(n),
    )  # fmt: skip
    tiles, grid = forward_tiles(work.sizes, work.card), forward_grid(work.sizes, n, work.card)
    launch(work, "tensor_forward", constants(work.sizes, tiles), grid, given, tiles.shared)


def step(work: Work, X: Array, epoch: Epoch, n: int, rule: str, parameters: Array, state: Array) -> None:
    """The optimizer's `rule`, called by its name, with the gradient of the rows that `forward` took.

    parameters (P,), state (S, P). l2 and shrink of the step's numbers are taken as 0 for biases. Adds the sum of losses
    and the right answers to the step's totals.
    """
    P = parameter_count(work.sizes)
    expect_batch(work, X, epoch, n)
    expect(parameters, np.float32, P)
    expect(state, np.float32, len(state), P)
    sizes, card = work.sizes, work.card
    blocks = np.int32(forward_grid(sizes, n, card)[0])
    given = (
        X, or_null(epoch.order), epoch.turn, np.int32(epoch.step), np.int32(epoch.visit), work.arrived, work.dz1,
        work.parts, work.tickets, work.tails, blocks, epoch.table, PIXEL, parameters, state, work.W1, work.W2,
        epoch.totals, np.int32(n),
    )  # fmt: skip
    tiles, (slices, shares) = step_tiles(sizes, card), step_grid(sizes, n, card)
    grid = slices + -(-tail_size(sizes) // threads(sizes[1])), shares
    launch(work, "tensor_step", constants(sizes, tiles, RULE=rule, STATES=len(state)), grid, given, tiles.shared)


def expect_batch(work: Work, X: Array, epoch: Epoch, n: int) -> None:
    """Check the rows of a batch. Raises ValueError if they are not what the kernels will take them for."""
    epoch.check()
    expect(X, np.uint8, len(X), row_bytes(work.sizes[0]))
    if n not in work.batches:
        raise ValueError(f"expected a batch of {' or '.join(map(str, work.batches))} rows, which have room; got {n}")
    visits = len(X) if epoch.order is None else len(epoch.order)
    if n > visits:
        raise ValueError(f"expected a batch of at most {visits} rows, which the epoch visits; got {n}")
