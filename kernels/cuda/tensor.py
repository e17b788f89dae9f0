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

from .arrays import Array, expect
from .launch import THREADS
from .nvrtc import module
from .tensor_tiles import (
    Card,
    Forward,
    Gradient,
    forward_tiles,
    gradient_tiles,
    grid,
    row_bytes,
    unsupported,
    width,
)

PIXEL = np.float32(1 / 255)
NULL = np.uint64(0)  # an array that is not there


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


def tail_size(sizes: Sequence[int]) -> int:
    """Numbers that a block of tensor_forward writes: db1, dW2, db2, the sum of losses, the number of right answers."""
    _, H, O = sizes
    return H + H * O + O + 2


def parameter_count(sizes: Sequence[int]) -> int:
    """P, as `network.parameter_count`."""
    return sizes[0] * sizes[1] + tail_size(sizes) - 2


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
