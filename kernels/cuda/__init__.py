"""CUDA kernels: the passes around the matrix products, compiled by NVRTC for the GPU at hand on first use.

The functions here launch the kernels of the ``.cu`` files beside them. N rows, I inputs, H units, O outputs, P
parameters. Arrays live on the GPU and are C-ordered. "real" arrays, float32 or float64, hold the parameters and what is
computed in; "item" arrays hold the operands of products: the real type itself, float16, or the bits of bfloat16 as
uint16. Nothing waits for the GPU, nothing is read back, and nothing is allocated, so that every launch may be part of a
CUDA graph.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = Any  # cupy.ndarray

LANES = 32  # threads of a warp: neighbours in memory are read together
THREADS = 256  # of a block, in every kernel but `middle`
BLOCK = (LANES, THREADS // LANES)  # of the kernels that sum columns
TILE = 32  # rows that a block takes at a time where rows are summed
MOST_SLOTS = 512  # shares of a sum over rows; a constant, so that every card sums in the same order
LENGTHS = 64  # shares of a sum of squares
SHARED = 48 * 1024  # bytes of shared memory that every card gives a block without being asked
NUMBERS = 8  # of an optimizer's step
BEGIN_THREADS = 512  # of the one block of `begin`
RULES = ("sgd", "momentum", "nesterov", "adam", "adamw", "heavy_ball", "heavy_ball_nesterov")  # as update.cu has them
FEW_CLASSES = 32  # that a thread of `middle` holds in registers

REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
ITEMS = REALS | {np.dtype(np.float16): "f16", np.dtype(np.uint16): "bf16"}


def source(name: str) -> str:
    """The CUDA C++ text of ``name.cu``, with the headers of ours that it includes in their place.

    The types REAL and ITEM are left open: they come as options.
    """
    return included(f"{name}.cu")


def included(file: str) -> str:
    """The text of `file`, each ``#include "header.cuh"`` replaced by that header: NVRTC gets one text, no paths."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(r'#include "(\w+\.cuh)"\n', lambda match: included(match[1]), text)


@cache
def module(name: str, real: np.dtype, item: np.dtype, options: tuple[str, ...] = ()) -> Any:
    """``name.cu`` compiled for arrays of types `real` and `item`."""
    import cupy

    types = f"-DREAL={REALS[real]}", f"-DITEM={ITEMS[item]}"
    return cupy.RawModule(code=source(name), options=(*types, *options))


@cache
def kernel(name: str, function: str, real: np.dtype, item: np.dtype, options: tuple[str, ...] = ()) -> Any:
    """One kernel of ``name.cu``, called with grid, block and arguments."""
    return module(name, real, item, options).get_function(function)


def expect(array: Array, dtype: Any, *shape: int) -> None:
    """Check that `array` is what a kernel, which sees no more than an address, will take it for.

    Raises
    ------
    ValueError
        It is not a C-ordered `dtype` array of `shape` on the GPU.
    """
    if isinstance(array, np.ndarray):
        raise ValueError("expected an array on the GPU, got a NumPy array; use the backend's asarray")
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        order = "C-ordered" if array.flags.c_contiguous else "strided"
        raise ValueError(
            f"expected a C-ordered {np.dtype(dtype)} array of shape {shape}, got {order} {array.dtype} {array.shape}"
        )


def tile(rows: int, width: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block for an array (rows, width): up to 32 threads a row, as many rows a block as make 256 threads."""
    lanes = min(LANES, 1 << (width - 1).bit_length())
    return (-(-rows * lanes // THREADS),), (lanes, THREADS // lanes)


def flat(P: int) -> tuple[tuple[int], tuple[int]]:
    """Grid and block for an array (P,)."""
    return (-(-P // THREADS),), (THREADS,)


def slots(rows: int) -> int:
    """K, the shares into which a sum over `rows` rows is cut: as even as whole tiles allow, at most MOST_SLOTS."""
    tiles = -(-rows // TILE)
    return -(-tiles // -(-tiles // MOST_SLOTS))


class Sums(NamedTuple):
    """Where the partial sums of some columns go: K rows of `parts` (T, C) from `slot` on, from `column` on."""

    parts: Array
    slot: int
    column: int

    def at(self, rows: int, width: int) -> tuple[Array, np.int32]:
        """The address of the first sum, and C. Checks that there is room for `width` columns over `rows` rows."""
        T, C = self.parts.shape
        expect(self.parts, self.parts.dtype, T, C)
        if self.slot + slots(rows) > T or self.column + width > C:
            raise ValueError(
                f"expected room for {slots(rows)} shares of {width} sums from {self.slot, self.column} on, got {T, C}"
            )
        return self.parts.reshape(T * C)[self.slot * C + self.column :], np.int32(C)

    @property
    def behind(self) -> int:
        """Where the totals stand, counted from the first column."""
        return int(self.parts.shape[1]) - 2 - self.column


class Epoch(NamedTuple):
    """What an epoch visits and works with. V visits."""

    order: Array | None  # (V,) int32, rows of the data; None: as they stand
    weights: Array | None  # (V,) real; None: each row counts 1
    table: Array  # (steps, NUMBERS) real: the numbers of each `fastmlp.optimizers.Step`
    keys: Array  # (steps,) uint64: see `fastmlp.dropout`
    step: Array  # (1,) int32: steps taken
    batch: int  # rows of a step; the last may have fewer


class Now(NamedTuple):
    """What of it the step at hand takes, in fixed places, so that a graph of launches may be repeated."""

    index: Array  # (N,) int32
    weight: Array  # (N,) real
    numbers: Array  # (NUMBERS,) real
    key: Array  # (1,) uint64


def begin(epoch: Epoch, n: int, now: Now) -> None:
    """Open the next step, of n rows: fill `now`, count the step."""
    real = now.weight.dtype
    expect(now.index, np.int32, len(now.index))
    expect(now.weight, real, len(now.index))
    expect(now.numbers, real, NUMBERS)
    expect(now.key, np.uint64, 1)
    expect(epoch.table, real, len(epoch.table), NUMBERS)
    expect(epoch.keys, np.uint64, len(epoch.table))
    expect(epoch.step, np.int32, 1)
    order, weights = epoch.order, epoch.weights
    if order is not None:
        expect(order, np.int32, len(order))
    if weights is not None:
        expect(weights, real, len(weights))
    if n > len(now.index):
        raise ValueError(f"expected at most {len(now.index)} rows in a step, for which there is room; got {n}")
    arguments = (
        now.index if order is None else order, now.weight if weights is None else weights, epoch.table, epoch.keys,
        epoch.step, np.int64(epoch.batch), np.int32(order is not None), np.int32(weights is not None), *now,
        np.int64(n),
    )  # fmt: skip
    kernel("rows", "begin", real, real)((1,), (BEGIN_THREADS,), arguments)


def gather(X: Array, y: Array, index: Array, x: Array, to_y: Array, real: np.dtype, *, placed: bool = False) -> None:
    """x = X[index], whatever the type, to_y = y[index]; `placed`: X holds the rows picked already, in their order.

    X (M, I) uint8 or real, y (M,) int32 or (M, Y) real, index (N,) int32 -> x (N, I) item, to_y (N,) or (N, Y).
    """
    (N, I), uint8, codes = x.shape, X.dtype == np.uint8, y.dtype == np.int32
    expect(X, np.uint8 if uint8 else real, len(X), I)
    expect(y, np.int32 if codes else real, *y.shape)
    expect(index, np.int32, N)
    expect(x, x.dtype, N, I)
    expect(to_y, y.dtype, N, *y.shape[1:])
    if placed and len(X) < N:
        raise ValueError(f"expected {N} rows in their order, got {len(X)}")
    name = f"gather_{'uint8' if uint8 else 'real'}_{'codes' if codes else 'targets'}"
    width = np.int32(y.shape[1] if y.ndim > 1 else 1)
    arguments = (X, y, index, np.int32(placed), x, to_y, np.int64(N), np.int32(I), width)
    kernel("rows", name, real, x.dtype)(*tile(N, I), arguments)


def add_bias(z: Array, b: Array, kind: int) -> None:
    """z = f(z + b), f the activation of that number. z (N, H) item, b (H,)."""
    (N, H), real = z.shape, b.dtype
    expect(z, z.dtype, N, H)
    expect(b, real, H)
    kernel("layer", "add_bias", real, z.dtype)(*tile(N, H), (z, b, np.int32(kind), np.int64(N), np.int32(H)))


def add_last_bias(z: Array, b: Array, item: np.dtype) -> None:
    """z += b. z (N, O) real, b (O,); `item` is the type of the network's operands."""
    (N, O), real = z.shape, b.dtype
    expect(z, real, N, O)
    expect(b, real, O)
    kernel("layer", "add_last_bias", real, item)(*tile(N, O), (z, b, np.int64(N), np.int32(O)))


def activate(kind: int, z: Array, a: Array, real: np.dtype) -> None:
    """a = f(z), f the activation of that number. z (N, H) item -> a (N, H), which may be z itself."""
    (N, H), item = z.shape, z.dtype
    expect(z, item, N, H)
    expect(a, item, N, H)
    kernel("layer", "activate", real, item)(*tile(N, H), (z, a, np.int32(kind), np.int64(N), np.int32(H)))


def delta(d: Array, kind: int, z: Array, a: Array, sums: Sums) -> None:
    """d *= f'(z), the slope of the activation of that number, and the column sums of d. d, z, a (N, H) item."""
    (N, H), real = d.shape, sums.parts.dtype
    for array in (d, z, a):
        expect(array, d.dtype, N, H)
    grid = (-(-H // LANES), slots(N))
    arguments = (d, z, a, np.int32(kind), *sums.at(N, H), np.int64(N), np.int32(H))
    kernel("layer", "delta", real, d.dtype)(grid, BLOCK, arguments)


class Dropped(NamedTuple):
    """Which units a step leaves out; see `fastmlp.dropout`."""

    share: float
    key: Array  # (1,) uint64 of the step
    layer: int
    first: int  # place in the batch of the first row

    def arguments(self, real: np.dtype) -> tuple[Any, ...]:
        """As the kernels take them."""
        expect(self.key, np.uint64, 1)
        upscale, bar = real.type(1 / (1 - self.share)), np.uint64(self.share * 2**24)
        return upscale, bar, self.key, np.int32(self.layer), np.int64(self.first)


def drop_units(a: Array, dropped: Dropped, out: Array, real: np.dtype) -> None:
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) item -> out (N, H), which may be a itself."""
    (N, H), item = a.shape, a.dtype
    expect(a, item, N, H)
    expect(out, item, N, H)
    arguments = (a, out, *dropped.arguments(real), np.int64(N), np.int32(H))
    kernel("layer", "drop_units", real, item)(*tile(N, H), arguments)


def drop_deltas(d: Array, dropped: Dropped, sums: Sums) -> None:
    """d /= 1 - share where the unit stayed in, else 0, and the column sums of d. d (N, H) item."""
    (N, H), real = d.shape, sums.parts.dtype
    expect(d, d.dtype, N, H)
    arguments = (d, *dropped.arguments(real), *sums.at(N, H), np.int64(N), np.int32(H))
    kernel("layer", "drop_deltas", real, d.dtype)((-(-H // LANES), slots(N)), BLOCK, arguments)


def softmax_cross_entropy(
    z: Array, y: Array, weight: Array | None, numbers: tuple[float, float, float], scale: float, dz: Array, sums: Sums
) -> None:
    """dz = (softmax(z) - target) * scale, its column sums, the sum of losses and the right answers.

    z (N, O) real, y (N,) int32, weight (N,) real -> dz (N, O) item, which may be z itself. numbers: smoothing, gamma,
    ceiling.
    """
    (N, O), real = z.shape, z.dtype
    expect(z, real, N, O)
    expect(y, np.int32, N)
    expect(dz, dz.dtype, N, O)
    if weight is not None:
        expect(weight, real, N)
    kernel("loss", "softmax_cross_entropy", real, dz.dtype)(
        (1, slots(N)),
        BLOCK,
        (
            z, y, z if weight is None else weight, np.int32(weight is not None), *map(real.type, numbers),
            real.type(scale), dz, *sums.at(N, O), np.int32(sums.behind), np.int64(N), np.int32(O),
        ),
    )  # fmt: skip


def elementwise_loss(
    kind: int, z: Array, y: Array, weight: Array | None, numbers: Array, scale: float, dz: Array, sums: Sums
) -> None:
    """dz = dloss/dz * scale of the loss of that number, its column sums, the sum of losses and the right answers.

    z, y (N, O) real, weight (N,), numbers (O,) real -> dz (N, O) item, which may be z itself.
    """
    (N, O), real = z.shape, z.dtype
    expect(z, real, N, O)
    expect(y, real, N, O)
    expect(numbers, real, O)
    expect(dz, dz.dtype, N, O)
    if weight is not None:
        expect(weight, real, N)
    kernel("loss", "elementwise_loss", real, dz.dtype)(
        (1, slots(N)),
        BLOCK,
        (
            np.int32(kind), z, y, z if weight is None else weight, np.int32(weight is not None), numbers,
            real.type(scale), dz, *sums.at(N, O), np.int32(sums.behind), np.int64(N), np.int32(O),
        ),
    )  # fmt: skip


def middle_fits(H: int, O: int, real: np.dtype) -> bool:
    """Whether `middle` can take H hidden units and O classes: its tile must fit into shared memory."""
    threads = -(-H // LANES) * LANES
    numbers = TILE * (H | 1) + H * O + threads * O  # activations, W2, a share of a W2 for each warp
    return O <= FEW_CLASSES and threads <= 1024 and numbers * real.itemsize <= SHARED


def middle(z1: Array, b1: Array, W2: Array, b2: Array, y: Array, sums: Sums) -> None:
    """z1 = dz1, in place, and the partial sums of dW2, db2, db1, the loss and the right answers, in this order.

    z1 (N, H) item, x W1 on entry; b1 (H,), W2 (H, O), b2 (O,) real; y (N,) int32.
    """
    (N, H), O, real = z1.shape, len(b2), b2.dtype
    expect(z1, z1.dtype, N, H)
    expect(b1, real, H)
    expect(W2, real, H, O)
    expect(b2, real, O)
    expect(y, np.int32, N)
    threads, options = -(-H // LANES) * LANES, (f"-DUNITS={H}", f"-DCLASSES={O}")
    arguments = (z1, b1, W2, b2, y, *sums.at(N, H * O + O + H + 2), np.int64(N))
    kernel("middle", "middle", real, z1.dtype, options)((1, slots(N)), (threads,), arguments)


def finish(
    parts: Array, where: Array, scale: float, g: Array, totals: Array, item: np.dtype, *, gradient: bool = True
) -> None:
    """g[where] = scale * the column sums of parts, where a `gradient` is there; the last two are added to totals.

    parts (K, C) real, where (C - 2,) int32, g (P,) real, totals (2,) or more float64.
    """
    (K, C), real = parts.shape, parts.dtype
    expect(parts, real, K, C)
    expect(where, np.int32, C - 2)
    expect(g, real, len(g))
    expect(totals, np.float64, len(totals))
    first = 0 if gradient else C - 2
    arguments = (parts, where, real.type(scale), g, totals, np.int32(first), np.int32(K), np.int32(C))
    kernel("update", "finish", real, item)((-(-(C - first) // LANES),), BLOCK, arguments)


def squares(v: Array, ends: Array, out: Array, item: np.dtype, *, weights: bool) -> None:
    """out = sums of squares of v, or of its `weights` alone.

    v (P,) real, ends (2 L,) int64, where the weights and then the biases of each layer end -> out (LENGTHS,) real.
    """
    P, real = len(v), v.dtype
    expect(v, real, P)
    expect(ends, np.int64, len(ends))
    expect(out, real, LENGTHS)
    arguments = (v, ends, np.int32(len(ends) if weights else 0), out, np.int64(P))
    kernel("update", "squares", real, item)((LENGTHS,), (THREADS,), arguments)


def add_penalty(parts: Array, numbers: Array, rows: int, totals: Array, item: np.dtype) -> None:
    """totals[2] += rows / 2 * l2 of the step's `numbers` * sum of parts. parts (LENGTHS,) real, totals (3,)."""
    real = parts.dtype
    expect(parts, real, LENGTHS)
    expect(numbers, real, NUMBERS)
    expect(totals, np.float64, 3)
    arguments = (parts, numbers, np.float64(rows), totals, np.int32(LENGTHS))
    kernel("update", "add_penalty", real, item)((1,), (1,), arguments)


def update(
    rule: str, w: Array, g: Array, s: Array, copy: Array, numbers: Array, ends: Array, held: bool, lengths: Array,
    longest: float,
) -> None:  # fmt: skip
    """The optimizer's `rule`, called by its name, over all parameters; copy = w as item.

    w, g (P,), s (S, P), numbers (NUMBERS,) real: of the step; ends (2 L,) int64: see `squares`; held: whether l2 or
    shrink may be other than 0; lengths (LENGTHS,) real: sums of squares of g; longest: that is let through, 0 lets all.
    """
    P, real = len(w), w.dtype
    expect(w, real, P)
    expect(g, real, P)
    expect(s, real, len(s), P)
    expect(copy, copy.dtype, P)
    expect(numbers, real, NUMBERS)
    expect(ends, np.int64, len(ends))
    expect(lengths, real, LENGTHS)
    held_ends = np.int32(len(ends) if held else 0)
    arguments = (
        np.int32(RULES.index(rule)), w, g, s, copy, numbers, ends, held_ends, lengths, real.type(longest),
        np.int32(LENGTHS), np.int64(P),
    )  # fmt: skip
    kernel("update", "update", real, copy.dtype)(*flat(P), arguments)


def convert(w: Array, copy: Array) -> None:
    """copy = w. w (P,) real -> copy (P,) item."""
    P, real = len(w), w.dtype
    expect(w, real, P)
    expect(copy, copy.dtype, P)
    kernel("update", "convert", real, copy.dtype)(*flat(P), (w, copy, np.int64(P)))
