"""Launches of update.cu: the last sums of a step, its penalty and its update."""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect
from .launch import BLOCK, LANES, THREADS, flat
from .nvrtc import kernel
from .rows import NUMBERS

LENGTHS = 64  # shares of a sum of squares
RULES = ("sgd", "momentum", "nesterov", "adam", "adamw", "heavy_ball", "heavy_ball_nesterov")  # as update.cu has them


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
